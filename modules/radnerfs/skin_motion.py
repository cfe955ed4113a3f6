"""How skin moves in the picture between two expressions of one head, read off its two meshes.

Beyond the chin the motion is carried on and fades out: a jaw that comes forward closes over what lies behind it, and
one that draws back pulls the neck after it, so that no second chin stays and no hole opens.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.face_model.mesh_renderer import interpolate
from modules.face_model.model import LABEL_EYE, LABEL_MEMBRANE, FaceModel
from modules.radnerfs.surface import PosedMesh, SurfaceHits
from modules.structures.crops import moved_grid
from modules.structures.landmarks import FOREHEAD_CHIN

HIDDEN_DM = 0.03
"""Skin whose place in the source lies this far behind what is seen there was not to be seen."""
RENDERED_DM = (0.12, 0.3)
"""Up to the first distance from where the lips touch the rendering is used, beyond the second the source's own skin."""
FAR_RENDERED_DM = (0.35, 0.6)
"""The same above an upper lip that moves far: what is fitted of it is never exact, and its rim and the gloss above it
would be carried along as a ghost of the old lip."""
RENDERED_REACH = tuple(zip(RENDERED_DM, FAR_RENDERED_DM, strict=True))
LIP_EDGES = (1.6, 2.6)
"""Edge radii by which that lip moves: up to the first the near distances count, from the second on the far ones."""
UPPER_LIP = 1.6
"""Distances above the mouth count this much more: the upper lip moves little, and a moustache begins there."""
MOST_STRETCHED = 2.0
"""Skin that would be drawn out further is not carried: its surroundings are."""
NEAR_LIPS_DM = 0.35
"""Skin that comes into view this near the lips is rendered; elsewhere (under the chin) its surroundings are carried."""
COMPARED_DM = (0.35, 0.7)
"""Skin looks as its renderings change up to the first distance from the lips, as it was from the second on: there a
mouth seldom seen so wide changes renderings more than faces (darker cheeks with an edge)."""
LIPS_DM = (0.04, 0.08)
"""The light of the mouth is read off skin farther than this from where the lips touch."""
RIM_EDGES = (1.0, 3.0)
"""A rendering is compared with the source this many edge radii inside the head's contour, not beside it."""
OUTSIDE_EDGES = (3.0, 5.0)
"""How far, in edge radii, a frame may be touched outside what changes in it, because it changed just before."""
RIM_WEIGHTS = (0.15, 0.55)
"""Weights of the region, of the whole face's, between which motion rises on skin."""
CHANGE_EDGES = (0.02, 0.1)
"""Motion of the whole face, in edge radii, below which nothing is rendered and from which everything is."""
STEP_PX = 4
"""The motion beyond the chin is smooth, so it is made on a coarser grid."""
CLOSING, OPENING, TANGENT = 2.5, 0.5, 0.3
"""How far it reaches, per px that the contour draws back, comes forward, or slides along itself."""
REACH_EDGES = 0.3
SHUT_EDGES = (0.0, 0.5)
"""Edge radii by which a face gets shorter: up to the first its neck stands still, from the second on it gives way."""
FACE_WEIGHT = 0.9
"""The face that a neck gives way to ends at this weight. What is fitted of an old chin is never exact: a neck that
stood still would keep the old chin's edge, with nothing but streaks above it."""
NECK_CLOSING = 1.8
"""``CLOSING`` of a neck that gives way."""
HELD, MOST_HELD_EDGES = 2.0, 3.0
"""A neck that gives way moves with the chin, undistorted, over so many times what the contour draws back, at most so
many edge radii: a chin's contour in the picture lies a little below the fitted one, and a beard hangs over it. Held for
less, a beard's edge is drawn out with the neck, into a second chin."""
BORDER_SHARE = 0.35
"""Of the way to the picture's border, motion reaches so far: what lies there is drawn out by half at most."""
STILL_PX, MOVED_PX = 0.01, 0.05
"""Motion that is none, and motion beyond the contour that belongs to the region."""
SHARPEST_EDGE_PX = 6.0
"""Width over which a pixel's own motion takes over from the coarse grid's at the contour."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How motion fades beyond a contour: over how far per px that it draws back, after how far in which it does not.

    Attributes:
        closing: px over which it fades, per px.
        held: px in which it does not, per px.
        most_held_edges: but no more than so many edge radii.
    """

    closing: float
    held: float = 0.0
    most_held_edges: float = 0.0


USUAL_REACH, NECK_REACH = Reach(CLOSING), Reach(NECK_CLOSING, HELD, MOST_HELD_EDGES)


@dataclass(frozen=True, slots=True, eq=False)
class FaceInMotion:
    """One head in one window, under the expression that is shown and under the new one.

    ``new`` and ``old`` are cast with the region's weights; ``edge_px`` is ``edge_radius_px``.
    """

    new: SurfaceHits
    old: SurfaceHits
    new_mesh: PosedMesh
    old_mesh: PosedMesh
    edge_px: float


@dataclass(frozen=True, slots=True, eq=False)
class SkinMotion:
    """``CarriedPatch``'s maps of the same names; ``region`` float32 ``[h, w]`` 0..1 is what may change."""

    flow: NDArray[np.float32]
    rendered: NDArray[np.float32]
    paintable: NDArray[np.float32]
    compared: NDArray[np.float32]
    matched: NDArray[np.float32]
    mouth_shown: NDArray[np.float32]
    region: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class FacePlaces:
    """What is the same in all frames of a head.

    Attributes:
        from_lips: float32 ``[V]`` dm, ``lip_distance``. above: float32 ``[V]``, ``above_lips``.
        lip: vertices of ``upper_lip``. ends: vertices of ``face_ends``.
    """

    from_lips: NDArray[np.float32]
    above: NDArray[np.float32]
    lip: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, face_model: FaceModel) -> FacePlaces:
        """Those of a CPU model."""
        return cls(lip_distance(face_model), above_lips(face_model), upper_lip(face_model), face_ends(face_model))


def lip_distance(face_model: FaceModel) -> NDArray[np.float32]:
    """Distance of each vertex of the mean head from the line where its lips touch, ``[V]`` dm; 0 in the mouth.

    Above the mouth it counts ``UPPER_LIP`` times.
    """
    away = _from_lips(face_model)
    distance = np.linalg.norm(away, axis=1) * np.where(away[:, 1] > 0, UPPER_LIP, 1.0)
    distance[(face_model.labels == LABEL_MEMBRANE).numpy()] = 0
    return distance.astype(np.float32)


def above_lips(face_model: FaceModel) -> NDArray[np.float32]:
    """1 for vertices of the mean head above the line where its lips touch, 0 for others, ``[V]``."""
    return (_from_lips(face_model)[:, 1] > 0).astype(np.float32)


def _from_lips(face_model: FaceModel) -> NDArray[np.float32]:
    """``[V, 3]`` dm to each vertex of the mean head from the nearest one where the lips touch."""
    mean = face_model.mean.numpy()
    away = mean[:, None] - mean[face_model.inner_lip.numpy()][None]  # [V, R, 3]
    return away[np.arange(len(mean)), np.linalg.norm(away, axis=2).argmin(axis=1)]


def margin_of_motion(face_model: FaceModel, new: PosedMesh, old: PosedMesh, edge_px: float) -> int:
    """How far around the lower face the motion between two meshes reaches, px: a window must hold all of it."""
    lower = (face_model.region_weights["lower_face"] > 0).numpy()
    moved = float(np.linalg.norm(old.pixels - new.pixels, axis=1)[lower].max(initial=0))
    neck = NECK_CLOSING * moved + min(HELD * moved, MOST_HELD_EDGES * edge_px)
    return round(max(CLOSING * moved, neck) + (REACH_EDGES + OUTSIDE_EDGES[1]) * edge_px) + STEP_PX


def skin_motion(face_model: FaceModel, face: FaceInMotion, places: FacePlaces) -> SkinMotion:
    """Where skin stood before, and which of it is carried, compared or rendered anew.

    Args:
        face_model: CPU model of the meshes.
        face: the two expressions.
        places: of the model.
    """
    triangles = face_model.triangles.numpy()
    labels = face_model.labels
    inside = (labels == LABEL_MEMBRANE) | (labels == LABEL_EYE)
    moved = face.old_mesh.pixels - face.new_mesh.pixels
    regions = [face_model.region_weights[name].numpy() for name in ("lower_face", "face")]
    attributes = [moved, face.old_mesh.depth, places.from_lips, inside.numpy(), places.above, *regions]
    values = interpolate(face.new.fragments, triangles, np.column_stack(attributes))
    old = interpolate(face.old.fragments, triangles, np.column_stack([places.from_lips, *regions]))
    skin = face.new.mask & (_moving(face.new, values[..., 6]) > 0)
    hidden = skin & _was_hidden(values[..., :2], values[..., 2], face)
    known = skin & ~hidden & ~(_stretched(values[..., :2]) & (values[..., 3] > NEAR_LIPS_DM))
    read = np.ascontiguousarray(values[..., :2])
    shut = shut_px(*(mesh.pixels[places.ends] for mesh in (face.new_mesh, face.old_mesh)))
    flow = _beyond_face(read, known, values[..., 7], face.edge_px, float(gives_way(shut, face.edge_px)))
    inner = _towards_rim(face.new, values[..., 7])
    flow = within_picture(flow * inner[..., None])
    lip = lip_motion_px(*(mesh.pixels[places.lip] for mesh in (face.new_mesh, face.old_mesh)))
    far = values[..., 5] * float(moves_far(lip, face.edge_px))
    share = 1 - _ramp(values[..., 3], *(near + far * (most - near) for near, most in RENDERED_REACH))
    rendered = _rendered(share, values[..., 4] > 0.5, hidden & (values[..., 3] < NEAR_LIPS_DM), skin)
    longest = np.float32(_longest(flow)[skin].max(initial=0))
    rendered *= inner * _ramp(longest, *(e * face.edge_px for e in CHANGE_EDGES))
    old_skin = face.old.mask & (_moving(face.old, old[..., 1]) > 0)
    compared = _inside(old_skin, face.edge_px) * _towards_rim(face.old, old[..., 2])
    compared *= 1 - _ramp(old[..., 0], *COMPARED_DM)
    beyond = _longest(flow) > MOVED_PX
    return SkinMotion(
        flow=flow,
        rendered=rendered,
        paintable=skin.astype(np.float32),
        compared=compared,
        matched=compared * _ramp(old[..., 0], *LIPS_DM),
        mouth_shown=(1 - _ramp(old[..., 0], *RENDERED_DM)) * old_skin,
        region=_softened((skin & (inner > 0)) | beyond, face.edge_px),
    )


def _beyond_face(
    read: NDArray[np.float32],
    known: NDArray[np.bool_],
    face_weight: NDArray[np.float32],
    edge_px: float,
    yields: float,
) -> NDArray[np.float32]:
    """Motion ``[h, w, 2]`` carried on beyond the face, whose neck gives way to it by a share ``yields`` (0..1)."""
    motions = []
    if yields < 1:
        motions.append(carried_on(read, _eroded(known, edge_px / 2), edge_px))
    if yields > 0:
        face = _eroded(known & (face_weight >= FACE_WEIGHT), edge_px / 2)
        motions.append(carried_on(read, face, edge_px, NECK_REACH))
    return motions[0] if len(motions) == 1 else motions[0] + np.float32(yields) * (motions[1] - motions[0])


def within_picture(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """Motion ``[h, w, 2]`` px that reads nothing from beyond its window.

    Motion towards a border is at most ``BORDER_SHARE`` of the way there: so what lies beside the border is drawn out
    evenly, and a chin beside it draws back only as far as there is picture to follow it. A window's border that is not
    the frame's lies farther away than motion reaches (``margin_of_motion``).
    """
    height, width = flow.shape[:2]
    columns, rows = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    share = np.float32(BORDER_SHARE)
    across = np.clip(flow[..., 0], -share * columns, share * (width - 1 - columns))
    down = np.clip(flow[..., 1], -share * rows, share * (height - 1 - rows))
    return np.stack([across, down], axis=-1)


def face_ends(face_model: FaceModel) -> NDArray[np.int64]:
    """Vertices at the top of the forehead and at the chin."""
    return face_model.landmark_triangles.numpy()[list(FOREHEAD_CHIN), 0]


def shut_px(new: NDArray[np.floating], old: NDArray[np.floating]) -> NDArray[np.float64]:
    """How much shorter a face gets, px: above 0 where a jaw closes.

    Args:
        new: ``[..., 2, 2]`` px of ``face_ends`` under the new expression.
        old: likewise under the shown one.
    """
    length = [np.linalg.norm(np.diff(ends.astype(np.float64), axis=-2)[..., 0, :], axis=-1) for ends in (old, new)]
    return length[0] - length[1]


def gives_way(shut: NDArray[np.float64], edge_px: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """How far the neck gives way, 0..1, to a face that gets ``shut`` px shorter."""
    low, high = (edges * np.asarray(edge_px) for edges in SHUT_EDGES)
    return _ramp(np.asarray(shut), low, high)


def upper_lip(face_model: FaceModel) -> NDArray[np.int64]:
    """Vertices of the lips' outer rim in the middle half of its width, above where they touch."""
    rim = face_model.outer_lip.numpy()
    side = np.abs(face_model.mean.numpy()[rim, 0])
    return rim[(above_lips(face_model)[rim] > 0) & (side < side.max() / 2)]


def lip_motion_px(new: NDArray[np.floating], old: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far the upper lip moves, px: the most of ``[..., N, 2]`` px of ``upper_lip`` under both expressions."""
    return np.linalg.norm(new.astype(np.float64) - old, axis=-1).max(axis=-1)


def moves_far(moved: NDArray[np.float64], edge_px: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """How far ``FAR_RENDERED_DM`` counts, 0..1, above an upper lip that moves by ``lip_motion_px``."""
    low, high = (edges * np.asarray(edge_px) for edges in LIP_EDGES)
    return _ramp(np.asarray(moved), low, high)


def carried_on(
    flow: NDArray[np.float32], known: NDArray[np.bool_], edge_px: float, far: Reach = USUAL_REACH
) -> NDArray[np.float32]:
    """Motion ``[h, w, 2]`` px known on the face, carried on beyond it until it fades out.

    A contour that draws back by d px stretches what lies behind it over ``far.closing`` times d, evenly, so that lines
    there never fold (that would need less than 1) and streaks are short; one that comes forward closes over it within
    ``OPENING`` times d.

    Args:
        flow: read where ``known``.
        known: ``[h, w]``.
        edge_px: half width of a soft edge.
        far: how it fades.
    """
    height, width = known.shape
    size = max(-(-width // STEP_PX), 1), max(-(-height // STEP_PX), 1)
    share = cv2.resize(known.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    sums = cv2.resize(flow * known[..., None].astype(np.float32), size, interpolation=cv2.INTER_AREA)
    inside = share >= 0.5
    if not inside.any():
        return np.zeros_like(flow)
    coarse = (sums / np.maximum(share, 1e-3)[..., None]).astype(np.float32)
    near, across, along, distance = _from_contour(coarse, inside)
    reach = REACH_EDGES * edge_px + np.where(across > 0, OPENING * across, -far.closing * across) + TANGENT * along
    held = np.clip(-far.held * across, 0, far.most_held_edges * edge_px)
    lengths = np.stack([np.maximum(reach, 1), held], axis=-1).astype(np.float32)
    reach, held = cv2.split(cv2.GaussianBlur(lengths, (0, 0), 1.5))
    fading = np.clip(1 - (STEP_PX * distance - held) / reach, 0, 1)
    outside = cv2.GaussianBlur(np.where(inside[..., None], coarse, near * fading[..., None]), (0, 0), 0.7)
    smooth = cv2.resize(outside, (width, height), interpolation=cv2.INTER_LINEAR)
    depth = cv2.distanceTransform(known.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    own = np.clip(depth / SHARPEST_EDGE_PX, 0, 1)[..., None]
    merged = np.asarray(smooth + own * (np.where(known[..., None], flow, smooth) - smooth), np.float32)
    merged[_longest(merged) < STILL_PX] = 0
    return merged


def _from_contour(coarse: NDArray[np.float32], inside: NDArray[np.bool_]) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Of each cell: motion of the nearest inner cell ``[h, w, 2]``, how far it comes towards the cell (px, negative =
    draws back) and slides past it, and the distance in cells."""
    outside = (~inside).astype(np.uint8)
    found = cv2.distanceTransformWithLabels(outside, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)
    label = np.asarray(found[1], np.int64)
    rows, columns = np.nonzero(inside)
    place = np.zeros(int(label.max()) + 1, np.int64)
    place[label[rows, columns]] = rows * inside.shape[1] + columns
    nearest = place[label]
    near = coarse.reshape(-1, 2)[nearest]
    away_y, away_x = np.indices(inside.shape) - np.stack(np.divmod(nearest, inside.shape[1]))
    distance = np.hypot(away_x, away_y).astype(np.float32)
    unit_x, unit_y = away_x / np.maximum(distance, 1), away_y / np.maximum(distance, 1)
    across = -(near[..., 0] * unit_x + near[..., 1] * unit_y)  # the skin itself moves against the flow
    along = np.abs(near[..., 0] * unit_y - near[..., 1] * unit_x)
    return near, across, along, distance


def _longest(flow: NDArray[np.float32]) -> NDArray[np.float32]:
    """The larger component ``[h, w]`` of motion."""
    return np.maximum(np.abs(flow[..., 0]), np.abs(flow[..., 1]))


def _moving(hits: SurfaceHits, lower_face: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weight ``[h, w]`` of the face's own skin, which moves with the expression: never the neck, which lies behind."""
    return np.maximum(hits.weight, lower_face)


def _towards_rim(hits: SurfaceHits, face: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 inside the region and off the face, falling to 0 where the region ends on the face: not at the chin."""
    face = np.maximum(face, hits.weight)
    return np.where(face > 0, _ramp(hits.weight / np.maximum(face, 1e-3), *RIM_WEIGHTS), 1).astype(np.float32)


def _was_hidden(flow: NDArray[np.float32], depth: NDArray[np.float32], face: FaceInMotion) -> NDArray[np.bool_]:
    """Pixels ``[h, w]`` whose skin something else covered in the source's pose."""
    seen = np.where(face.old.mask, face.old.fragments.depth, np.float32(np.inf))
    x, y = moved_grid(flow)
    before = cv2.remap(seen, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("inf"))
    return depth > before + HIDDEN_DM


def _stretched(flow: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels ``[h, w]`` whose skin the source showed too slantingly: a chin's underside that comes into view."""
    along = [cv2.Sobel(flow[..., k], cv2.CV_32F, 1 - k, k, ksize=3, scale=1 / 8) for k in (0, 1)]
    return np.minimum(along[0], along[1]) < 1 / MOST_STRETCHED - 1


def _rendered(
    share: NDArray[np.float32], inside: NDArray[np.bool_], hidden: NDArray[np.bool_], skin: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """How far the rendering is used ``[h, w]``: ``share`` on skin, wholly inside the mouth and where all was hidden."""
    uncovered = cv2.GaussianBlur(hidden.astype(np.float32), (0, 0), 1.0)
    return np.maximum(np.where(inside, 1, share), np.minimum(2 * uncovered, 1)) * skin


def _softened(region: NDArray[np.bool_], edge_px: float) -> NDArray[np.float32]:
    """A region with soft edges well outside it, where nothing changes any more."""
    away = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    return 1 - _ramp(away, *(edges * edge_px for edges in OUTSIDE_EDGES))


def _inside(mask: NDArray[np.bool_], edge_px: float) -> NDArray[np.float32]:
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)
    return _ramp(distance, *(edges * edge_px for edges in RIM_EDGES))


def _eroded(mask: NDArray[np.bool_], radius_px: float) -> NDArray[np.bool_]:
    return cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3) > radius_px


def _ramp(values: NDArray | np.float32, low: float | NDArray, high: float | NDArray) -> NDArray[np.float32]:
    """0 up to ``low``, 1 from ``high`` on, smooth in between."""
    t = np.clip((values - low) / np.maximum(np.asarray(high) - low, 1e-6), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)
