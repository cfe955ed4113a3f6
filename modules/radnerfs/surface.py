"""Where the pixels of an image see the fitted head: canonical position, view direction and region weight.

A pixel's point on the posed, speaking mesh is carried to the same place of the *canonical* head (no pose, no
expression, mouth slightly open), so one field describes a person's skin in every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modules.face_model.mesh_renderer import Bounds, Fragments, interpolate, rasterize
from modules.face_model.model import FaceModel, Region
from modules.face_model.projection import rotation_from_euler, to_camera
from modules.structures.cameras import CAMERA_DISTANCE


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


def project_mesh(
    face_model: FaceModel, pose: FacePose, camera_matrix: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vertices ``[V, 2]`` px and depth ``[V]`` dm under any ``[3, 3]`` camera matrix (a crop's may rotate)."""
    with torch.no_grad():
        vertices = face_model.vertices(_tensor(pose.identity), _tensor(pose.expression)[None])
        posed = to_camera(vertices, _tensor(pose.euler)[None], _tensor(pose.translation)[None])[0].double().numpy()
    seen = np.stack([posed[:, 0], -posed[:, 1], CAMERA_DISTANCE - posed[:, 2]], axis=1)  # x right, y down, z forward
    homogeneous = seen @ camera_matrix.T
    return homogeneous[:, :2] / homogeneous[:, 2:], seen[:, 2]


def surface_hits(
    face_model: FaceModel,
    pose: FacePose,
    camera_matrix: NDArray[np.float64],
    bounds: Bounds,
    region: Region,
    projected: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
) -> SurfaceHits:
    """Cast the pixels of a window onto the fitted head.

    Args:
        face_model: CPU model the coefficients belong to.
        pose: the frame's coefficients.
        camera_matrix: ``[3, 3]`` K of the frame, or ``crop_from_frame · K`` of a crop.
        bounds: the window in that camera's pixels; may reach outside the image.
        region: key of ``face_model.region_weights``.
        projected: ``project_mesh``'s answer when the caller has it already.

    Raises:
        ValueError: when the window is empty.
        KeyError: when the region is unknown.
    """
    pixels, depth = projected or project_mesh(face_model, pose, camera_matrix)
    triangles = face_model.triangles.numpy()
    fragments = rasterize(pixels, depth, triangles, bounds, cull_back_faces=True)
    weights = face_model.region_weights[region].numpy()[:, None]
    attributes = np.concatenate([face_model.canonical_vertices.numpy(), weights], axis=1)
    values = interpolate(fragments, triangles, attributes)
    return SurfaceHits(
        bounds,
        fragments.covered,
        np.ascontiguousarray(values[..., :3]),
        view_directions(pose.euler, camera_matrix, bounds),
        np.ascontiguousarray(values[..., 3]),
        fragments,
    )


def region_weight(face_model: FaceModel, hits: SurfaceHits, region: Region) -> NDArray[np.float32]:
    """Weight ``[h, w]`` of another region over the same window."""
    weights = face_model.region_weights[region].numpy()[:, None]
    return interpolate(hits.fragments, face_model.triangles.numpy(), weights)[..., 0]


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


def _tensor(values: NDArray[np.float32]) -> torch.Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)
