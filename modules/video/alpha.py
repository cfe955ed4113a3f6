"""The alpha of an edit as a grey video without loss: luma / 255 is how much of a pixel was replaced."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import Frame, PlaneLayout, VideoInfo
from modules.video.codecs import EncodeConfig
from modules.video.writer import VideoWriter

Bounds = tuple[int, int, int, int]

_LAYOUT = PlaneLayout("yuv444p", (0, 0), "center", True, "bt709")
_TAGS = (2, 2, 1, 2)


def grey_info(info: VideoInfo) -> VideoInfo:
    """The video that holds the alpha of ``info``'s edit."""
    return replace(info, layout=_LAYOUT, color_tags=_TAGS, field_order="progressive", hdr=None)


def grey_alpha(frame: Frame, edits: Iterable[tuple[Bounds, NDArray[np.float32]]]) -> Frame:
    """The alpha of ``frame`` as a picture.

    Args:
        frame: whose size and time it takes.
        edits: half-open x0, y0, x1, y1 inside the frame and the alpha ``[h, w]`` 0..1 of what was edited there.
    """
    luma = np.zeros(frame.size_hw, np.uint8)
    for (x0, y0, x1, y1), alpha in edits:
        window = luma[y0:y1, x0:x1]
        np.maximum(window, np.ceil(alpha * 255).astype(np.uint8), out=window)  # rounding would hide traces of an edit
    grey = np.full(frame.size_hw, 128, np.uint8)
    return replace(frame, planes=(luma, grey, grey), layout=_LAYOUT)


class AlphaWriter:
    """Writes one grey frame per video frame; used as a context manager.

    Args:
        path: the file, which appears when the block ends well.
        info: of the video whose edit it is.
    """

    def __init__(self, path: Path, info: VideoInfo) -> None:
        self._writer = VideoWriter(path, grey_info(info), quality=EncodeConfig(lossless=True))

    def __enter__(self) -> AlphaWriter:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def write(self, frame: Frame, bounds: Bounds | None, alpha: NDArray[np.float32] | None) -> None:
        """Write the alpha ``[h, w]`` 0..1 that covers ``bounds`` of ``frame``; None = nothing was edited."""
        edits = [] if bounds is None or alpha is None else [(bounds, alpha)]
        self._writer.write(grey_alpha(frame, edits))


def alpha_of(frame: Frame) -> NDArray[np.float32]:
    """``[H, W]`` 0..1 of a frame that ``AlphaWriter`` wrote."""
    return frame.planes[0].astype(np.float32) / np.float32(255)
