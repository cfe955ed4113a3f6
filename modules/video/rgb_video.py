"""RGB pictures as a video of their own, where nothing of a source's planes is to be kept."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import Frame, FramePatch, PlaneLayout, VideoInfo
from modules.video.colour import blend_patch

TIME_BASE = Fraction(1, 12800)
_LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
_BT709_TAGS = (1, 1, 1, 1)


def rgb_video_info(path: Path, width: int, height: int, frame_rate: Fraction) -> VideoInfo:
    """A BT.709 video of even size whose frames begin at time 0; ``path`` is what it is made from."""
    return VideoInfo(path, width, height, frame_rate, TIME_BASE, 0, _LAYOUT, _BT709_TAGS, False, None)


def rgb_frame(index: int, time_s: Fraction, rgb: NDArray[np.uint8]) -> Frame:
    """An RGB picture ``[H, W, 3]`` of even size as frame ``index`` at ``time_s``."""
    height, width = rgb.shape[:2]
    black, grey = np.zeros((height, width), np.uint8), np.full((height // 2, width // 2), 128, np.uint8)
    empty = Frame(index, int(time_s / TIME_BASE), TIME_BASE, (black, grey, grey.copy()), _LAYOUT)
    picture = rgb.astype(np.float32) / np.float32(255)
    return blend_patch(empty, FramePatch((0, 0, width, height), picture, np.ones((height, width), np.float32)))
