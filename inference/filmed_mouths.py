"""The mouths that a clip itself shows, and which of them stand in for those that a new motion would have rendered.

Reads: frames of the video. A renderer averages what it saw of a mouth's inside; a filmed one has teeth.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference.jobs import EditOptions
from inference.prepared import PreparedSource
from inference.usable_faces import CLEAN_COVER
from modules.commons.progress import Progress
from modules.face_model.mesh_renderer import Bounds
from modules.face_model.model import FaceModel
from modules.face_model.projection import to_camera
from modules.radnerfs.mouth_choice import ChosenMouths, SeenMouths, choose_mouths, detail_ratio, is_ordinary
from modules.radnerfs.skin_motion import lip_distance
from modules.radnerfs.surface import edge_radius_px, region_bounds
from modules.structures.cameras import CAMERA_DISTANCE
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.video.colour import rgb_float_from_planes
from modules.video.frame_range import frames_at
from modules.video.reader import VideoReader
from modules.video.real_mouth import affine_between, mouth_picture

logger = logging.getLogger(__name__)

CROP_DM, LOOK_DM = 0.42, 0.12
"""What is kept of a frame, and what its looks are read off: so far around the line where the lips touch."""
SOFT_SHARE = 0.12
"""Share of a crop's shorter side over which it ends softly."""
LOOK_EDGES = 1.0
"""Looks are compared without what is finer, in edge radii."""
RING_WEIGHT = 10.0
"""A point where lips touch counts so many times one of their outer rim: what is asked of a mouth is its opening."""
LIGHT_FORGIVEN = 0.7
"""Share of a mouth's mean colour that is light: the skin around it will say."""
MOST_MOUTHS = 600
MOST_BYTES = 192 << 20
RUN = 25
"""Of a longer clip, so many frames in a row are kept at each of many places: moments must go on to be of use."""
LEAST_MOUTHS = 48
"""Fewer show too little of a person's mouth to choose from."""
LEAST_EVEN = 0.6
"""A tenth of a clip's mouths with less than this share of the detail of their like: it is coded so hard that a mouth of
one moment is too coarse for another, and closed lips look better rendered."""
_FEW = 0.1
_WHITE = 255


@dataclass(frozen=True, slots=True, eq=False)
class LipPoints:
    """Vertices of a face model, int64 ids: the ``ring`` where the lips touch, the ``outline`` of the lips (the ring
    included), and those that the ``looks`` of a mouth are read at and that its ``crop`` holds."""

    ring: NDArray[np.int64]
    outline: NDArray[np.int64]
    looks: NDArray[np.int64]
    crop: NDArray[np.int64]

    @classmethod
    def of(cls, face_model: FaceModel) -> LipPoints:
        """Those of a CPU model."""
        ring, distance = face_model.inner_lip.numpy(), lip_distance(face_model)
        return cls(
            ring=ring,
            outline=np.concatenate([ring, face_model.outer_lip.numpy()]),
            looks=np.flatnonzero(distance < LOOK_DM),
            crop=np.flatnonzero(distance < CROP_DM),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """Poses of one head: expression ``[T, E]``, euler ``[T, 3]`` rad, translation ``[T, 3]`` dm; with its model."""

    face_model: FaceModel
    coeffs: FaceModelCoeffs
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]

    def in_head(self, ids: NDArray[np.int64]) -> torch.Tensor:
        """Vertices ``[T, N, 3]`` dm before posing."""
        model, chosen = self.face_model, torch.from_numpy(ids)
        neutral = model.mean[chosen] + model.identity_basis[chosen] @ torch.from_numpy(self.coeffs.identity)
        moved = torch.from_numpy(self.expression) @ model.expression_basis[chosen].flatten(0, 1).T
        return neutral + moved.unflatten(-1, (len(ids), 3))

    def in_frame(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Vertices ``[T, N, 2]`` px of the frame."""
        head = self.in_head(ids)
        posed = to_camera(head, torch.from_numpy(self.euler), torch.from_numpy(self.translation)).double().numpy()
        seen = np.stack([posed[..., 0], -posed[..., 1], CAMERA_DISTANCE - posed[..., 2]], axis=-1)
        homogeneous = seen @ self.coeffs.camera.matrix().T
        return (homogeneous[..., :2] / homogeneous[..., 2:]).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class StandIns:
    """What stands in for the rendered mouths of ``T`` output frames.

    Attributes:
        crops: RGB ``[h, w, 3]`` of each mouth of the clip. bounds: int64 ``[N, 4]`` of them, px of their frames.
        outlines: float32 ``[N, P, 2]`` px of the lips in those frames. wanted: ``[T, P, 2]`` in the output's.
        weight: float64 ``[P]`` how much each point of the lips counts when a mouth is laid upon the wanted one.
        chosen: see there; trust 0 where nothing stands in.
    """

    crops: tuple[NDArray[np.uint8], ...]
    bounds: NDArray[np.int64]
    outlines: NDArray[np.float32]
    wanted: NDArray[np.float32]
    weight: NDArray[np.float64]
    chosen: ChosenMouths

    def picture(self, number: int, bounds: Bounds) -> NDArray[np.uint8] | None:
        """``CarriedPatch.real`` over a window of output frame ``number``; None where nothing stands in."""
        trust = float(self.chosen.trust[number])
        if trust <= 0:
            return None
        mouth = int(self.chosen.numbers[number])
        crop, place = self.crops[mouth], self.outlines[mouth] - self.bounds[mouth, :2]
        crop_from_window = affine_between(self.wanted[number] - np.array(bounds[:2]), place, self.weight)
        used = np.round(softly_ended(crop.shape[:2]) * np.float32(trust)).astype(np.uint8)
        return mouth_picture(np.dstack([crop, used]), crop_from_window, (bounds[2] - bounds[0], bounds[3] - bounds[1]))


@dataclass(frozen=True, slots=True, eq=False)
class FilmedMouths:
    """The mouths of one clip.

    Attributes:
        source: the clip. points: of its face model. seen: what is chosen by.
        crops, bounds, outlines: see ``StandIns``.
    """

    source: PreparedSource
    points: LipPoints
    seen: SeenMouths
    crops: tuple[NDArray[np.uint8], ...]
    bounds: NDArray[np.int64]
    outlines: NDArray[np.float32]

    def stand_ins(
        self, expression: NDArray[np.float32], rows: NDArray[np.int64], edited: NDArray[np.bool_]
    ) -> StandIns:
        """Choose for the frames of an output.

        Args:
            expression: ``[T, E]`` new.
            rows: int64 ``[T]`` the clip's row that each shows.
            edited: bool ``[T]``; others get none.
        """
        coeffs = self.source.coeffs
        head = Head(self.source.face_model, coeffs, expression, coeffs.euler[rows], coeffs.translation[rows])
        lips, turn = head.in_head(self.points.ring).numpy()[..., :2], coeffs.euler[rows][:, :2]
        count = len(rows)
        numbers, trust = np.zeros(count, np.int64), np.zeros(count, np.float32)
        for span in _runs(edited):
            found = choose_mouths(self.seen, lips[span], turn[span])
            numbers[span], trust[span] = found.numbers, found.trust
        weight = np.where(np.isin(self.points.outline, self.points.ring), RING_WEIGHT, 1.0)
        return StandIns(
            self.crops,
            self.bounds,
            self.outlines,
            head.in_frame(self.points.outline),
            weight,
            ChosenMouths(numbers, trust),
        )


def filmed_mouths_for(
    options: EditOptions, source: PreparedSource, progress: Progress, rows: NDArray[np.int64] | None = None
) -> FilmedMouths | None:
    """The mouths of a clip that may stand in for rendered ones; None where none are wanted or too few are shown.

    Args:
        options: how frames are repainted.
        source: the clip.
        progress: told about the frames.
        rows: clip rows that may be looked at; None = all.

    Raises:
        VideoReadError: the video cannot be read.
    """
    if options.blend_mode != "delta" or options.mouth != "filmed":
        return None
    usable = _usable(source)
    if rows is not None:
        usable = np.intersect1d(usable, rows)
    usable = spread(usable, MOST_MOUTHS)
    if len(usable) < LEAST_MOUTHS:
        logger.info("face %d: only %d frames show its mouth clearly; mouths are rendered", source.face, len(usable))
        return None
    return _read(source, usable, progress)


def _usable(source: PreparedSource) -> NDArray[np.int64]:
    """Rows that show the mouth clearly and are fitted well."""
    reasons = source.evidence.reasons()
    clear = source.coeffs.valid & (source.occlusion.coverage < CLEAN_COVER)
    if source.unsure is not None:
        clear &= ~source.unsure
    return np.array([row for row in np.flatnonzero(clear) if reasons[row] == "edited"], np.int64)


def _read(source: PreparedSource, usable: NDArray[np.int64], progress: Progress) -> FilmedMouths | None:
    coeffs, points = source.coeffs, LipPoints.of(source.face_model)
    head = Head(
        source.face_model, coeffs, coeffs.expression[usable], coeffs.euler[usable], coeffs.translation[usable]
    )  # fmt: skip
    size_wh = source.info.width, source.info.height
    windows = [region_bounds(px, np.ones(len(px)), size_wh) for px in head.in_frame(points.crop)]
    kept = np.flatnonzero([_is_whole(window, size_wh) for window in windows])
    if len(kept) < LEAST_MOUTHS:
        return None
    bounds = np.array([windows[at] for at in kept], np.int64)
    largest = int(np.prod(bounds[:, 2:] - bounds[:, :2], axis=1).max()) * 3
    fitting = spread(np.arange(len(kept)), max(MOST_BYTES // largest, LEAST_MOUTHS))
    kept, bounds = kept[fitting], bounds[fitting]
    rows, places = usable[kept], head.in_frame(points.looks)[kept]
    crops, looks = [], []
    for done, (crop, look) in enumerate(_frames(source, rows, bounds, places), start=1):
        crops.append(crop)
        looks.append(look)
        progress("mouths", done, len(rows))
    seen = SeenMouths(
        rows, comparable(np.stack(looks), places, source.face_model, points.looks),
        head.in_head(points.ring).numpy()[kept, :, :2], coeffs.euler[rows][:, :2],
    )  # fmt: skip
    ratio = detail_ratio(seen, detail_of(crops))
    if np.quantile(ratio, _FEW) < LEAST_EVEN:
        logger.info("face %d: some frames are much less sharp than others; mouths are rendered", source.face)
        return None
    outlines, chosen = head.in_frame(points.outline)[kept], np.flatnonzero(is_ordinary(seen, ratio))
    if len(chosen) < LEAST_MOUTHS:
        return None
    seen = SeenMouths(seen.rows[chosen], seen.looks[chosen], seen.lips[chosen], seen.turn[chosen])
    return FilmedMouths(source, points, seen, tuple(crops[at] for at in chosen), bounds[chosen], outlines[chosen])


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """At most ``most`` of ``rows``, in runs of ``RUN`` that lie evenly among them; all where there are no more."""
    if len(rows) <= most:
        return rows
    length = min(RUN, most)
    starts = np.linspace(0, len(rows) - length, most // length).astype(np.int64)
    return rows[(starts[:, None] + np.arange(length)).ravel()]


def detail_of(crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Root mean square of the luma's band between two Gaussians in the middle of each crop ``[h, w, 3]``, ``[N]``."""
    found = []
    for crop in crops:
        luma = np.asarray(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), np.float32)
        band = np.asarray(cv2.GaussianBlur(luma, (0, 0), 1.0) - cv2.GaussianBlur(luma, (0, 0), 2.5), np.float32)
        high, wide = crop.shape[0] // 5, crop.shape[1] // 6
        found.append(float(np.sqrt(np.square(band[high:-high, wide:-wide]).mean())))
    return np.array(found, np.float32)


def _frames(
    source: PreparedSource, rows: NDArray[np.int64], bounds: NDArray[np.int64], places: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """The crop of each of ``rows``, and its looks ``[P, 3]`` in 0..1."""
    coeffs = source.coeffs
    with VideoReader(source.video) as reader:
        for at, frame in enumerate(frames_at(reader, set(rows.tolist()))):
            x0, y0, x1, y1 = bounds[at].tolist()
            rgb = rgb_float_from_planes(frame, (x0, y0, x1, y1))
            sigma = LOOK_EDGES * edge_radius_px(coeffs.camera.matrix(), coeffs.translation[rows[at]])
            soft = np.asarray(cv2.GaussianBlur(rgb, (0, 0), sigma), np.float32)
            x, y = (places[at] - bounds[at, :2] - 0.5).astype(np.float32).T
            look = cv2.remap(soft, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[0]
            yield np.clip(np.round(rgb * _WHITE), 0, _WHITE).astype(np.uint8), np.asarray(look, np.float32)


def comparable(
    looks: NDArray[np.float32], places: NDArray[np.float32], face_model: FaceModel, ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """``SeenMouths.looks`` of colours ``[N, P, 3]`` (0..1) at ``places [N, P, 2]`` px of the vertices ``ids [P]``.

    Places count as much as they show of a mouth, on average; light counts little.
    """
    weight = _areas(places, face_model, ids)
    weight /= weight.sum()
    light = np.einsum("npc,p->nc", looks, weight)
    even = looks - LIGHT_FORGIVEN * (light - light.mean(0))[:, None]
    return (_WHITE * even * np.sqrt(weight / 3)[None, :, None]).reshape(len(looks), -1).astype(np.float32)


def _areas(places: NDArray[np.float32], face_model: FaceModel, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean area in the picture that belongs to each vertex, ``[P]`` px² (of triangles with all corners among them)."""
    triangles = face_model.triangles.numpy()
    number = np.full(len(face_model.mean), -1)
    number[ids] = np.arange(len(ids))
    corners = number[triangles]
    corners = corners[(corners >= 0).all(axis=1)]
    a, b, c = (places[:, corners[:, k]].astype(np.float64) for k in range(3))
    doubled = (b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]
    seen = np.maximum(-doubled, 0).mean(0) / 2  # y points down: front faces run clockwise
    return np.asarray(np.bincount(corners.ravel(), np.repeat(seen / 3, 3), len(ids)) + 1e-6, np.float64)


def softly_ended(size_hw: tuple[int, ...]) -> NDArray[np.uint8]:
    """How far a crop may be used: 255 but for its borders, where it falls to 0."""
    height, width = size_hw[:2]
    reach = max(SOFT_SHARE * min(height, width), 1)
    rise = [np.clip(np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5) / reach, 0, 1) for n in (height, width)]
    return np.round(_WHITE * np.minimum(rise[0][:, None], rise[1][None])).astype(np.uint8)


def _is_whole(window: Bounds | None, size_wh: tuple[int, int]) -> bool:
    """Whether a mouth lies wholly inside the frame."""
    if window is None:
        return False
    return window[0] > 0 and window[1] > 0 and window[2] < size_wh[0] and window[3] < size_wh[1]


def _runs(edited: NDArray[np.bool_]) -> Iterator[slice]:
    """Stretches of output frames that are edited without a break."""
    ends = np.flatnonzero(np.diff(np.concatenate([[False], edited, [False]]).astype(np.int8)))
    return (slice(int(start), int(stop)) for start, stop in zip(ends[::2], ends[1::2], strict=True))
