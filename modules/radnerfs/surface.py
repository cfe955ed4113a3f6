"""Where the pixels of an image see the fitted head: canonical position, view direction and region weight.

A pixel's point on the posed, speaking mesh is carried to the same place of the *canonical* head (no pose, no
expression, mouth slightly open), so one field describes a person's skin in every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from modules.face_model.mesh_renderer import Bounds, Fragments, interpolate, rasterize, vertex_normals
from modules.face_model.model import LABEL_MEMBRANE, FaceModel, Region
from modules.face_model.projection import rotation_from_euler, to_camera
from modules.structures.cameras import CAMERA_DISTANCE

TEETH_DEPTH_DM = 0.08
"""The teeth stand this far behind the closed lips' inner edge."""
TEETH_ROOM_DM = 0.2
"""The mouth's inside is kept this far behind the lips in canonical space, where nothing else is."""

FLATTEST_RAY, TEETH_REACH_DM = 0.3, 0.3
"""A ray that grazes the teeth's plane would run off to the side: it is followed a few millimetres at most."""

SILHOUETTE_DM = 0.1
"""Neighbouring pixels whose depths differ by more lie on two sides of a silhouette."""
SILHOUETTE_EDGES = 4
"""A fit's silhouette may be wrong by this many edge radii (1 cm: measured in profile)."""

EDGE_DM = 0.025
"""Half width of the alpha's soft edge where the region ends at a silhouette."""
LEAST_KNOWN = 0.05
"""Places that are believed no further than this are not painted."""


@dataclass(frozen=True, slots=True, eq=False)
class FacePose:
    """One frame's mesh: identity ``[I]``, expression ``[E]``, euler ``[3]`` rad, translation ``[3]`` dm."""

    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceHits:
    """What the pixels of a window see of the head.

    Attributes:
        bounds: the window, px; arrays below are ``[h, w]`` of it.
        mask: bool ``[h, w]``: the mesh is seen (anywhere on it, also outside the region).
        canonical: float32 ``[h, w, 3]`` point in canonical head space, dm; 0 where ``mask`` is False.
        direction: float32 ``[h, w, 3]`` unit view direction (camera to point) in head space.
        weight: float32 ``[h, w]`` region weight, 0..1; 0 where ``mask`` is False.
        fragments: the triangles that are seen; ``region_weight`` reads other regions off them.
    """

    bounds: Bounds
    mask: NDArray[np.bool_]
    canonical: NDArray[np.float32]
    direction: NDArray[np.float32]
    weight: NDArray[np.float32]
    fragments: Fragments

    def __repr__(self) -> str:
        return f"SurfaceHits(bounds={self.bounds}, seen={float(self.mask.mean()):.3f})"


@dataclass(frozen=True, slots=True, eq=False)
class PosedMesh:
    """One frame's vertices: ``pixels [V, 2]``, ``depth [V]`` dm, and ``head [V, 3]`` dm before posing."""

    pixels: NDArray[np.float64]
    depth: NDArray[np.float64]
    head: NDArray[np.float32]


def project_mesh(face_model: FaceModel, pose: FacePose, camera_matrix: NDArray[np.float64]) -> PosedMesh:
    """The mesh of a pose under any ``[3, 3]`` camera matrix (a crop's may rotate)."""
    with torch.no_grad():
        head = face_model.vertices(_tensor(pose.identity), _tensor(pose.expression)[None])
        posed = to_camera(head, _tensor(pose.euler)[None], _tensor(pose.translation)[None])[0].double().numpy()
    seen = np.stack([posed[:, 0], -posed[:, 1], CAMERA_DISTANCE - posed[:, 2]], axis=1)  # x right, y down, z forward
    homogeneous = seen @ camera_matrix.T
    return PosedMesh(homogeneous[:, :2] / homogeneous[:, 2:], seen[:, 2], head[0].numpy())


def surface_hits(
    face_model: FaceModel,
    pose: FacePose,
    camera_matrix: NDArray[np.float64],
    bounds: Bounds,
    region: Region,
    mesh: PosedMesh | None = None,
) -> SurfaceHits:
    """Cast the pixels of a window onto the fitted head.

    Args:
        face_model: CPU model the coefficients belong to.
        pose: the frame's coefficients.
        camera_matrix: ``[3, 3]`` K of the frame, or ``crop_from_frame · K`` of a crop.
        bounds: the window in that camera's pixels; may reach outside the image.
        region: key of ``face_model.region_weights``.
        mesh: ``project_mesh``'s answer when the caller has it already.

    Raises:
        ValueError: when the window is empty.
        KeyError: when the region is unknown.
    """
    mesh = mesh or project_mesh(face_model, pose, camera_matrix)
    triangles = face_model.triangles.numpy()
    fragments = rasterize(mesh.pixels, mesh.depth, triangles, bounds, cull_back_faces=True)
    weights = face_model.region_weights[region].numpy()
    membrane = (face_model.labels == LABEL_MEMBRANE).numpy()
    attributes = np.column_stack([face_model.canonical_vertices.numpy(), weights, membrane])
    values = interpolate(fragments, triangles, attributes)
    canonical = np.ascontiguousarray(values[..., :3])
    direction = view_directions(pose.euler, camera_matrix, bounds)
    inside = values[..., 4] > 0.5
    canonical[inside] = teeth_positions(face_model, pose, mesh, fragments, direction, inside)
    return SurfaceHits(bounds, fragments.covered, canonical, direction, np.ascontiguousarray(values[..., 3]), fragments)


def teeth_positions(
    face_model: FaceModel,
    pose: FacePose,
    mesh: PosedMesh,
    fragments: Fragments,
    direction: NDArray[np.float32],
    inside: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Canonical positions of the pixels that look into the mouth.

    The membrane stretches with the lips, what lies behind does not: upper teeth are fixed to the skull. So these
    pixels are followed on to a plane behind the lips, fixed to the head, which has its own place in canonical space.

    Args:
        face_model: the model.
        pose: the frame's coefficients.
        mesh: the frame's mesh.
        fragments: what the window sees.
        direction: ``[h, w, 3]`` view directions in head space.
        inside: ``[h, w]`` the pixels in question, ``N`` of them.

    Returns:
        float32 ``[N, 3]`` dm.
    """
    membrane = face_model.labels == LABEL_MEMBRANE
    with torch.no_grad():
        neutral = face_model.mean[membrane] + face_model.identity_basis[membrane] @ _tensor(pose.identity)
    origin = neutral.mean(dim=0).numpy()
    corners = face_model.triangles.numpy()[fragments.triangle_id[inside]]  # [N, 3]
    on_membrane = np.einsum("nk,nkc->nc", fragments.barycentric[inside], mesh.head[corners])
    ray = direction[inside]
    onward = (origin[2] - TEETH_DEPTH_DM - on_membrane[:, 2]) / np.minimum(ray[:, 2], -FLATTEST_RAY)
    on_plane = on_membrane + np.clip(onward, -TEETH_REACH_DM, TEETH_REACH_DM)[:, None] * ray
    place = face_model.canonical_vertices[membrane].mean(dim=0).numpy() - np.array([0, 0, TEETH_ROOM_DM])
    return (on_plane - origin + place).astype(np.float32)


def region_weight(face_model: FaceModel, hits: SurfaceHits, region: Region) -> NDArray[np.float32]:
    """Weight ``[h, w]`` of another region over the same window."""
    weights = face_model.region_weights[region].numpy()[:, None]
    return interpolate(hits.fragments, face_model.triangles.numpy(), weights)[..., 0]


def view_quality(
    face_model: FaceModel,
    mesh: PosedMesh,
    hits: SurfaceHits,
    edge_px: float,
) -> NDArray[np.float32]:
    """How well a window shows its places on the head, ``[h, w]`` 0..1.

    It is the cosine between the normal of the resting face (folds of a smile stay usable) and the way to the camera,
    falling to 0 within ``SILHOUETTE_EDGES`` times ``edge_px`` (``edge_radius_px``) of a silhouette. The mouth counts as
    facing the camera: lips roll in, and what lies between them is seen through a hole.
    """
    triangles = face_model.triangles.numpy()
    resting = vertex_normals(face_model.canonical_vertices.numpy(), triangles)
    mouth = face_model.region_weights["mouth"].numpy()
    values = interpolate(hits.fragments, triangles, np.column_stack([resting, mouth]))
    normals = values[..., :3] / np.maximum(np.linalg.norm(values[..., :3], axis=2, keepdims=True), 1e-6)
    cosine = -np.einsum("hwc,hwc->hw", normals, hits.direction)
    cosine[values[..., 3] > 0] = 1
    depth = interpolate(hits.fragments, triangles, mesh.depth[:, None], fill=np.inf)[..., 0]
    inside = cv2.distanceTransform((~silhouettes(depth)).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return (
        np.where(hits.mask, cosine * np.minimum(inside / (SILHOUETTE_EDGES * edge_px), 1), 0)
        .clip(0, 1)
        .astype(np.float32)
    )


def silhouettes(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels ``[h, w]`` of a depth map (dm, infinite off the head) beside a step of more than ``SILHOUETTE_DM``."""
    edges = np.zeros(depth.shape, dtype=bool)
    finite = np.where(np.isfinite(depth), depth, np.float32(1e3))
    for axis in (0, 1):
        step = np.abs(np.diff(finite, axis=axis)) > SILHOUETTE_DM
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        edges[first] |= step
        edges[second] |= step
    return edges


def view_directions(
    euler: NDArray[np.float32], camera_matrix: NDArray[np.float64], bounds: Bounds
) -> NDArray[np.float32]:
    """Unit view directions of a window's pixel centres, turned into head space: float32 ``[h, w, 3]``."""
    x0, y0, x1, y1 = bounds
    rotation = rotation_from_euler(torch.as_tensor(euler, dtype=torch.float64)).numpy()
    # camera y and z point the other way than the head's; row vectors: head_from_camera is R transposed
    head_from_image = np.linalg.inv(camera_matrix).T * np.array([1.0, -1.0, -1.0]) @ rotation.T
    columns = (np.arange(x0, x1) + 0.5)[None, :, None] * head_from_image[0]
    rows = (np.arange(y0, y1) + 0.5)[:, None, None] * head_from_image[1] + head_from_image[2]
    rays = (columns + rows).astype(np.float32)
    return rays / np.sqrt(np.einsum("hwc,hwc->hw", rays, rays))[..., None]


def region_bounds(
    pixels: NDArray[np.floating], weights: NDArray[np.floating], size_wh: tuple[int, int], margin_px: int = 2
) -> Bounds | None:
    """Smallest window of an image that holds every vertex ``[V, 2]`` with weight > 0; None when it is outside."""
    inside = pixels[(weights > 0) & np.isfinite(pixels).all(axis=1)]
    if not len(inside):
        return None
    low = np.maximum(np.floor(inside.min(axis=0)) - margin_px, 0).astype(int)
    high = np.minimum(np.ceil(inside.max(axis=0)) + margin_px, np.asarray(size_wh)).astype(int)
    if (low >= high).any():
        return None
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def in_whole_steps(bounds: Bounds, size_wh: tuple[int, int], step: int) -> Bounds:
    """A window widened to multiples of ``step`` px, inside an image; as it is along an axis without room for that."""
    spans = []
    for low, high, size in zip(bounds[:2], bounds[2:], size_wh, strict=True):
        length = -(-(high - low) // step) * step
        if length > size:
            spans.append((low, high))
            continue
        first = min(max(low - (length - high + low) // 2, 0), size - length)
        spans.append((first, first + length))
    return spans[0][0], spans[1][0], spans[0][1], spans[1][1]


def edge_radius_px(camera_matrix: NDArray[np.float64], translation: NDArray[np.float32]) -> float:
    """Half width of the alpha's soft edge in an image: ``EDGE_DM`` at the head's distance, px."""
    scale = float(np.sqrt(abs(np.linalg.det(camera_matrix[:2, :2]))))
    return EDGE_DM * scale / (CAMERA_DISTANCE - float(translation[2]))


def soft_alpha(weight: NDArray[np.float32], paintable: NDArray[np.bool_], radius_px: float) -> NDArray[np.float32]:
    """Alpha from region weights, without hard edges.

    Where the region ends in front of other skin (the chin before the neck) the edge is softened around the contour,
    so that the source's old contour is covered; where nothing can be painted behind it, it is softened inwards.

    Args:
        weight: ``[h, w]`` 0..1, the region of the source and of the new face.
        paintable: ``[h, w]`` pixels whose new colour is known.
        radius_px: half width of the soft edge.

    Returns:
        float32 ``[h, w]`` 0..1, 0 outside ``paintable``.
    """
    radius = max(round(radius_px), 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown = cv2.dilate(np.ascontiguousarray(weight, dtype=np.float32), disc)
    soft = cv2.GaussianBlur(grown, (0, 0), radius / 2)
    inside = np.clip(
        cv2.distanceTransform(paintable.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / (2 * radius), 0, 1
    )
    faded = inside * inside * (3 - 2 * inside)  # reaches 0 at the last paintable pixel's outer edge
    return np.clip(soft * faded * paintable, 0.0, 1.0).astype(np.float32)


def _tensor(values: NDArray[np.float32]) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)
