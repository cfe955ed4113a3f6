"""Held-out frames, rendered: the numbers and pictures that say how good a trained person is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from modules.metrics.picture import sharpness as sharpness_of_luma
from modules.radnerfs.antialias import render_window, sharpened, smooth_window
from modules.radnerfs.person import PersonField
from modules.radnerfs.surface import edge_radius_px, region_weight, soft_alpha, surface_hits
from modules.structures.landmarks import mouth_bounds
from modules.video.colour_match import RingConfig, apply_field, estimate_field
from modules.video.png import write_png
from tasks.radnerfs.dataset_utils import FrameRays, RADNeRFDataset, window_of

Box = tuple[int, int, int, int]
PICTURE_SCALE = 3
SHARPEN_SHARES = (0.25, 0.35, 0.45, 0.6, 0.8)
"""The least is always used: motion that no frame showed comes out softer than what can be measured on frames."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutFrame:
    """A stored frame beside its rendering, over the window of the region.

    Attributes:
        index: stored index. frame: what the crop shows.
        edited: bool ``[h, w]`` pixels that count: alpha above 0 and nothing in front.
        alpha: float32 ``[h, w, 1]`` as in inference.
        rendered: uint8 ``[h, w, 3]``, the rendering put into the source as in inference, colour matched.
        mouth_box: x0, y0, x1, y1 in the window.
    """

    index: int
    frame: FrameRays
    edited: NDArray[np.bool_]
    alpha: NDArray[np.float32]
    rendered: NDArray[np.uint8]
    mouth_box: Box


def render_stored_frame(dataset: RADNeRFDataset, person: PersonField, index: int) -> HeldOutFrame | None:
    """Render a stored frame from its own fitted motion; None when the region is not to be seen in it."""
    frame = dataset.frame_rays(index)
    if frame is None:
        return None
    camera_matrix = dataset.source.camera_matrix(index)
    radius_px = edge_radius_px(camera_matrix, dataset.pose(index).translation)
    quality = np.maximum(frame.quality, region_weight(dataset.face_model, frame.hits, "mouth"))
    known = person.known(frame.hits.canonical, quality)
    alpha = (soft_alpha(frame.hits.weight, frame.learn & (known > 0.05), radius_px) * known)[..., None]
    edited = alpha[..., 0] > 0
    box = mouth_box(dataset, index, frame)
    if box is None or not edited.any():
        return None
    row = int(dataset.source.rows[index])
    with torch.inference_mode():
        condition = person.encode(dataset.conditions[row][None].to(person.device))[0]
    image = render_window(person, dataset.face_model, dataset.pose(index), camera_matrix, frame.hits, edited, condition)
    return HeldOutFrame(index, frame, edited, alpha, composited(image, frame.rgb, alpha), box)


def natural_sharpening(dataset: RADNeRFDataset, person: PersonField, count: int = 12) -> float:
    """The strongest unsharp mask that leaves new lips no sharper than the clip shows its own.

    Training blurs what frames disagree about; how much depends on the clip, so it is measured: training frames are
    given the motion of others, as new speech will, and their mouths compared with the filmed ones.
    """
    frames = dataset.train_indices
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    partners = (chosen + len(frames) // 2) % len(frames)
    pairs = zip(frames[chosen].tolist(), frames[partners].tolist(), strict=True)
    seen = [ratios for pair in pairs if (ratios := _sharpness_ratios(dataset, person, *pair)) is not None]
    natural = np.median(seen, axis=0) <= 1 if seen else np.zeros(len(SHARPEN_SHARES), dtype=bool)
    fitting = [share for share, fits in zip(SHARPEN_SHARES, natural, strict=True) if fits]
    return max(fitting, default=SHARPEN_SHARES[0])


def _sharpness_ratios(dataset: RADNeRFDataset, person: PersonField, index: int, moved_by: int) -> list[float] | None:
    """Sharpness of the mouth, rendered with another frame's motion to filmed, for each of ``SHARPEN_SHARES``.

    None when the mouth is not to be seen.
    """
    frame = dataset.frame_rays(index)
    box = mouth_box(dataset, index, frame) if frame else None
    if frame is None or box is None or not frame.learn.any():
        return None
    pose = replace(dataset.pose(index), expression=dataset.pose(moved_by).expression)
    camera_matrix, bounds = dataset.source.camera_matrix(index), frame.hits.bounds
    hits = surface_hits(dataset.face_model, pose, camera_matrix, bounds, dataset.region)
    with torch.inference_mode():
        windows = dataset.conditions[int(dataset.source.rows[moved_by])][None]
        condition = person.encode(windows.to(person.device))[0]
    wanted = frame.learn & hits.mask
    image = smooth_window(person, dataset.face_model, pose, camera_matrix, hits, wanted, condition)
    mask = box_mask(box, wanted)
    own = max(sharpness(frame.rgb, mask), 1e-6)
    at = region_weight(dataset.face_model, hits, "mouth")
    tried = [np.round(sharpened(image, wanted, share * at) * 255).astype(np.uint8) for share in SHARPEN_SHARES]
    return [sharpness(picture, mask) / own for picture in tried]


def composited(image: NDArray[np.float32], source: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``image`` (0..1) over ``source`` by ``alpha [h, w, 1]`` after the compositor's colour match, frame by frame."""
    ring = np.ascontiguousarray(alpha[..., 0])
    field = estimate_field(source.astype(np.float32) / np.float32(255), image, ring, np.ones_like(ring), RingConfig())
    return blended((image if field is None else apply_field(image, field)) * 255, source, alpha)


def blended(image: NDArray, source: NDArray[np.uint8], alpha: NDArray[np.float32]) -> NDArray[np.uint8]:
    """``image`` (0..255) over ``source`` by ``alpha [h, w, 1]``, rounded."""
    return np.round(image * alpha + source * (1 - alpha)).clip(0, 255).astype(np.uint8)


def mouth_box(dataset: RADNeRFDataset, index: int, frame: FrameRays) -> Box | None:
    """Box around the detected mouth in the window's pixels; None when it lies outside."""
    x0, y0, x1, y1 = frame.hits.bounds
    low, high = mouth_bounds(dataset.source.landmarks_px[index])
    low, high = np.maximum(low - [x0, y0], 0), np.minimum(high, [x1, y1]) - [x0, y0]
    return (int(low[0]), int(low[1]), int(high[0]), int(high[1])) if (high - low >= 8).all() else None


def sharpness(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> float:
    """Variance of the Laplacian of the grey image over the masked pixels; NaN without any."""
    return sharpness_of_luma(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), mask)


def box_mask(box: Box, edited: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The edited pixels inside a box."""
    inside = np.zeros_like(edited)
    inside[window_slice(box)] = True
    return inside & edited


def window_slice(box: Box) -> tuple[slice, slice]:
    """Index of a box in an image."""
    x0, y0, x1, y1 = box
    return slice(y0, y1), slice(x0, x1)


def strip(panels: list[NDArray[np.uint8]], box: Box, scale: int = PICTURE_SCALE) -> NDArray[np.uint8]:
    """The box of every panel side by side, enlarged without smoothing."""
    gap = 4
    x0, y0, x1, y1 = box
    size = ((x1 - x0) * scale, (y1 - y0) * scale)
    row: list[NDArray] = []
    for panel in panels:
        big = cv2.resize(np.ascontiguousarray(window_of(panel, box)), size, interpolation=cv2.INTER_NEAREST)
        row += [big, np.full((size[1], gap, 3), 255, np.uint8)]
    return np.concatenate(row[:-1], axis=1).astype(np.uint8)


def difference(image: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey where equal; four times the difference around it."""
    return np.clip(128 + 4 * (image.astype(np.int16) - target), 0, 255).astype(np.uint8)


def write_validation_images(dataset: RADNeRFDataset, person: PersonField, folder: Path, count: int) -> None:
    """Strips source | rendered | difference around the mouth for ``count`` held-out frames (else training frames)."""
    candidates = dataset.val_indices if len(dataset.val_indices) else dataset.train_indices
    for index in candidates[np.linspace(0, len(candidates) - 1, min(count, len(candidates))).round().astype(int)]:
        shown = render_stored_frame(dataset, person, int(index))
        if shown is None:
            continue
        panels = [shown.frame.rgb, shown.rendered, difference(shown.rendered, shown.frame.rgb)]
        write_png(strip(panels, wide_box(shown)), folder / f"{int(dataset.source.rows[index]):06d}.png")


def wide_box(shown: HeldOutFrame, grow: float = 1.6) -> Box:
    """The mouth's box with its surroundings, inside the window."""
    x0, y0, x1, y1 = shown.mouth_box
    height, width = shown.edited.shape
    dx, dy = (x1 - x0) * (grow - 1) / 2, (y1 - y0) * (grow - 1) / 2
    return max(0, int(x0 - dx)), max(0, int(y0 - dy)), min(width, int(x1 + dx)), min(height, int(y1 + dy))
