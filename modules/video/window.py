"""A rectangle of a video as a video of its own: the planes' own samples, numbered and timed anew."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from modules.structures.frames import Frame, VideoInfo

Bounds = tuple[int, int, int, int]

FRAME_RATE = 25
TIME_BASE = Fraction(1, 1000)
"""A container keeps the order of a window's frames; when each was shown is known elsewhere."""


def aligned_window(bounds: Bounds, info: VideoInfo) -> Bounds:
    """``bounds`` grown to whole chroma samples inside the frame; half-open x0, y0, x1, y1."""
    step_x, step_y = (1 << shift for shift in info.layout.chroma_shift)
    x0, y0, x1, y1 = bounds
    return (
        x0 // step_x * step_x,
        y0 // step_y * step_y,
        min(-(-x1 // step_x) * step_x, info.width),
        min(-(-y1 // step_y) * step_y, info.height),
    )


def window_info(info: VideoInfo, window: Bounds) -> VideoInfo:
    """What a video of an aligned ``window`` is."""
    x0, y0, x1, y1 = window
    return replace(
        info,
        width=x1 - x0,
        height=y1 - y0,
        frame_rate=Fraction(FRAME_RATE),
        time_base=TIME_BASE,
        rotation_deg=0,
        sample_aspect_ratio=None,
        has_audio=False,
        duration_s=None,
        field_order="progressive",
        hdr=None,
    )


def window_frame(frame: Frame, window: Bounds, number: int) -> Frame:
    """The aligned ``window`` of a frame as frame ``number`` of the window's video; planes are views."""
    x0, y0, x1, y1 = window
    shift_x, shift_y = frame.layout.chroma_shift
    luma, *chroma = frame.planes
    columns, rows = slice(x0 >> shift_x, -(-x1 >> shift_x)), slice(y0 >> shift_y, -(-y1 >> shift_y))
    planes = (luma[y0:y1, x0:x1], chroma[0][rows, columns], chroma[1][rows, columns])
    pts = number * int(1 / (FRAME_RATE * TIME_BASE))
    return replace(frame, index=number, pts=pts, time_base=TIME_BASE, planes=planes)
