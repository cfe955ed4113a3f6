"""A window of pixels from a person: smooth contours in the mouth, and detail lifted to what the clip shows.

Pixels that straddle a jump in depth (lip before teeth) are rendered from four rays.

Skin is smooth on the canonical head, so one ray per pixel is enough there; only a few hundred pixels need more.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.mesh_renderer import Bounds
from modules.face_model.model import FaceModel, Region
from modules.radnerfs.person import PersonField, render_hits, render_points
from modules.radnerfs.surface import FacePose, SurfaceHits, region_weight, surface_hits

JUMP_DM = 0.04
"""Neighbouring pixels whose canonical points lie farther apart see different surfaces."""
FINER = 2
SHARPEN_SIGMA_PX = 1.0
"""Width of the unsharp mask on a rendered window."""


def render_window(
    person: PersonField,
    face_model: FaceModel,
    pose: FacePose,
    camera_matrix: NDArray[np.float64],
    hits: SurfaceHits,
    wanted: NDArray[np.bool_],
    condition: Tensor,
) -> NDArray[np.float32]:
    """Render the wanted pixels of a window for a frame: ``smooth_window`` (same arguments), the mouth sharpened."""
    image = smooth_window(person, face_model, pose, camera_matrix, hits, wanted, condition)
    return sharpened(image, wanted & hits.mask, float(person.sharpen_share) * region_weight(face_model, hits, "mouth"))


def smooth_window(
    person: PersonField,
    face_model: FaceModel,
    pose: FacePose,
    camera_matrix: NDArray[np.float64],
    hits: SurfaceHits,
    wanted: NDArray[np.bool_],
    condition: Tensor,
) -> NDArray[np.float32]:
    """Render the wanted pixels of a window with smooth contours in the mouth.

    Args:
        person: the person.
        face_model: CPU model the pose belongs to.
        pose: what the window shows.
        camera_matrix: ``[3, 3]`` of the window's image.
        hits: the window cast onto the head.
        wanted: ``[h, w]`` pixels to render.
        condition: ``[C]`` encoded condition.

    Returns:
        float32 ``[h, w, 3]`` 0..1; black where not wanted or off the head.
    """
    image = render_hits(person, hits, wanted, condition)
    jumps = depth_jumps(hits) & wanted & (region_weight(face_model, hits, "mouth") > 0)
    if jumps.any():
        fine = finer_hits(face_model, pose, camera_matrix, hits.bounds, jumps)
        image[jumps] = render_fine(person, fine, jumps, condition, image[jumps])
    return image


def depth_jumps(hits: SurfaceHits) -> NDArray[np.bool_]:
    """Pixels ``[h, w]`` that differ from a neighbour to the right, left, above or below by more than ``JUMP_DM``."""
    jumps = np.zeros_like(hits.mask)
    for axis in (0, 1):
        far = (np.abs(np.diff(hits.canonical, axis=axis)) > JUMP_DM).any(axis=-1)
        first = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        second = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        far &= hits.mask[first] & hits.mask[second]
        jumps[first] |= far
        jumps[second] |= far
    return jumps


def finer_hits(
    face_model: FaceModel,
    pose: FacePose,
    camera_matrix: NDArray[np.float64],
    bounds: Bounds,
    pixels: NDArray[np.bool_],
    region: Region = "mouth",
) -> SurfaceHits:
    """The box around ``pixels [h, w]`` of a window, cast with ``FINER`` × ``FINER`` rays per pixel."""
    rows, columns = np.nonzero(pixels)
    x0, y0 = bounds[0] + int(columns.min()), bounds[1] + int(rows.min())
    x1, y1 = bounds[0] + int(columns.max()) + 1, bounds[1] + int(rows.max()) + 1
    finer_matrix = np.diag([FINER, FINER, 1.0]) @ camera_matrix
    window = (x0 * FINER, y0 * FINER, x1 * FINER, y1 * FINER)
    return surface_hits(face_model, pose, finer_matrix, window, region)


def render_fine(
    person: PersonField,
    fine: SurfaceHits,
    pixels: NDArray[np.bool_],
    condition: Tensor,
    fallback: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Mean colour ``[N, 3]`` of the fine rays of each of the ``N`` pixels; ``fallback`` where none hits the head."""
    rows, columns = np.nonzero(pixels)
    inner_rows = ((rows - rows.min()) * FINER)[:, None] + np.repeat(np.arange(FINER), FINER)
    inner_columns = ((columns - columns.min()) * FINER)[:, None] + np.tile(np.arange(FINER), FINER)
    hit = fine.mask[inner_rows, inner_columns]  # [N, FINER²]
    colours = np.zeros((*hit.shape, 3), dtype=np.float32)
    chosen = inner_rows[hit], inner_columns[hit]
    colours[hit] = render_points(person, fine.canonical[chosen], fine.direction[chosen], condition)
    count = hit.sum(axis=1, keepdims=True)
    return np.where(count > 0, colours.sum(axis=1) / np.maximum(count, 1), fallback).astype(np.float32)


def sharpened(rgb: NDArray[np.float32], inside: NDArray[np.bool_], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unsharp masking of a patch: what training blurs by averaging over pixels and frames is lifted again.

    Args:
        rgb: ``[h, w, 3]`` 0..1, defined where ``inside``.
        inside: ``[h, w]``; pixels outside neither change nor count.
        share: ``[h, w]`` share of the difference from the blurred picture that is added.
    """
    weight = inside.astype(np.float32)
    blurred = cv2.GaussianBlur(rgb * weight[..., None], (0, 0), SHARPEN_SIGMA_PX)
    norm = cv2.GaussianBlur(weight, (0, 0), SHARPEN_SIGMA_PX)
    smooth = blurred / np.maximum(norm, 1e-6)[..., None]
    lifted = np.clip(rgb + share[..., None] * (rgb - smooth), 0.0, 1.0)
    return np.where(inside[..., None], lifted, rgb).astype(np.float32)
