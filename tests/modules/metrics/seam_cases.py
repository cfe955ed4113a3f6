"""A real face whose mouth region is repainted with one known fault at a time, and every seam figure of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.metrics.seams import alpha_area_ratio, colour_difference, edge_band, exactness, gradient_ratio
from modules.metrics.steadiness import FlickerMeter
from modules.structures.crops import warp_affine
from modules.structures.frames import Frame, FramePatch
from modules.video.colour import blend_patch, rgb_float_from_planes, rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frames

WINDOW = (312, 180, 560, 360)
"""The mouth of the demo person in the first frames; even, as 4:2:0 asks for."""
FRAMES = 6
FACE = ((124.0, 88.0), (70.0, 52.0))
"""Centre and half axes of the edited ellipse, px of the window."""
FEATHER_PX = 12.0

Fault = Callable[[NDArray[np.float32], int], NDArray[np.float32]]
"""The patch, RGB ``[H, W, 3]`` in 0..1, of a frame's own picture and its number."""


@dataclass(frozen=True)
class Figures:
    """Means over the frames; ``flicker`` is already result over source."""

    gradient: float
    colour: float
    flicker: float
    changed: float
    largest: int
    area: float


def face_frames(demo_dir: Path) -> list[Frame]:
    """The window's frames, as frames of their own."""
    return [windowed(frame) for frame in read_frames(demo_dir / DEMO_CLIP, 0, FRAMES)]


def windowed(frame: Frame) -> Frame:
    x0, y0, x1, y1 = WINDOW
    luma, *chroma = frame.planes
    planes = (luma[y0:y1, x0:x1], *(plane[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2] for plane in chroma))
    return replace(frame, planes=tuple(np.ascontiguousarray(plane) for plane in planes))


def ellipse(size_hw: tuple[int, int], *, feather_px: float = FEATHER_PX, grown_px: float = 0.0, shift_px: float = 0.0):
    """Alpha 1 inside, falling over ``feather_px`` centred on the outline; 0 px makes it hard."""
    (cx, cy), axes = FACE
    y, x = (np.mgrid[: size_hw[0], : size_hw[1]] + 0.5).astype(np.float32)
    a, b = (axis + grown_px for axis in axes)
    radius = np.hypot((x - cx - shift_px) / a, (y - cy) / b)
    inside_px = (1 - radius) * min(a, b)
    alpha = inside_px / feather_px + 0.5 if feather_px else inside_px >= 0
    return np.clip(alpha, 0, 1).astype(np.float32)


def repaint(frames: Sequence[Frame], alpha: NDArray[np.float32], fault: Fault) -> list[Frame]:
    """Each frame with its own picture, spoilt by ``fault``, blended over it."""
    bounds = (0, 0, *frames[0].size_hw[::-1])
    patches = (fault(rgb_float_from_planes(frame), number) for number, frame in enumerate(frames))
    return [
        blend_patch(frame, FramePatch(bounds, np.clip(rgb, 0, 1).astype(np.float32), alpha))
        for frame, rgb in zip(frames, patches, strict=True)
    ]


def figures(results: Sequence[Frame], frames: Sequence[Frame], alpha: NDArray[np.float32]) -> Figures:
    """Every seam figure, with the alpha that was declared."""
    band = edge_band(alpha)
    pairs = list(zip(results, frames, strict=True))
    pictures = [(rgb_from_planes(result), rgb_from_planes(frame)) for result, frame in pairs]
    meter = FlickerMeter()
    errors = [
        meter.update(result.planes[0], frame.planes[0], band, number == 0)
        for number, (result, frame) in enumerate(pairs)
    ]
    of_result, of_source = np.nanmean(errors, axis=0)
    exact = [exactness(result.planes, frame.planes, alpha, frame.layout) for result, frame in pairs]
    lower_face_px = math.pi * math.prod(FACE[1])
    return Figures(
        gradient=float(np.mean([gradient_ratio(result, source, alpha, band) for result, source in pictures])),
        colour=float(np.mean([colour_difference(result, source, band) for result, source in pictures])),
        flicker=float(of_result / of_source),
        changed=float(np.mean([found.changed_share for found in exact])),
        largest=max(found.largest for found in exact),
        area=alpha_area_ratio(alpha, lower_face_px),
    )


def blurred(sigma_px: float) -> Fault:
    return lambda rgb, _: cv2.GaussianBlur(rgb, (0, 0), sigma_px)


def brightened(codes: float) -> Fault:
    return lambda rgb, _: rgb + np.float32(codes / 255)


def tinted(codes: float) -> Fault:
    """Another hue of the same BT.601 luma."""
    towards_red = np.float32([0.114, 0, -0.299]) / np.float32(0.299 * 255)
    return lambda rgb, _: rgb + np.float32(codes) * towards_red


def flickering(codes: float) -> Fault:
    return lambda rgb, number: rgb + np.float32((-1) ** number * codes / 255)


def shaken(shift_px: float) -> Fault:
    """Every other frame moved to the right."""

    def moved(rgb, number):
        region_from_patch = np.array([[1.0, 0, shift_px * (number % 2)], [0, 1, 0], [0, 0, 1]])
        return warp_affine(rgb, region_from_patch, rgb.shape[1::-1])

    return moved
