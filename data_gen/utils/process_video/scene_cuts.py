"""Notice shot boundaries while frames stream by."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import Frame

THUMBNAIL_WH = (32, 18)


class CutDetector:
    """Compares a small luma picture of each frame with the one before.

    A cut is a change that is large in itself and stands out from the changes of the frames before it, so that a
    panning camera or a dancing crowd is not a cut.
    """

    MIN_CHANGE = 18.0
    OUTLIER = 4.0
    MEMORY = 0.9

    def __init__(self) -> None:
        self._previous: NDArray[np.float32] | None = None
        self._usual = 0.0

    def is_cut(self, frame: Frame) -> bool:
        """Whether ``frame`` starts a new shot; the first frame does not."""
        picture = _thumbnail(frame)
        previous, self._previous = self._previous, picture
        if previous is None:
            return False
        change = float(np.abs(picture - previous).mean())
        cut = change > self.MIN_CHANGE and change > self.OUTLIER * self._usual
        self._usual = self.MEMORY * self._usual + (1 - self.MEMORY) * change
        return cut


def _thumbnail(frame: Frame) -> NDArray[np.float32]:
    """Luma ``[18, 32]`` in 0..255; every few pixels are enough, and reading all of a 4K plane costs milliseconds."""
    luma = frame.planes[0]
    step = max(1, min(luma.shape[0] // 72, luma.shape[1] // 128))
    small = cv2.resize(np.ascontiguousarray(luma[::step, ::step]), THUMBNAIL_WH, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32) / np.float32(1 << (frame.layout.bit_depth - 8))
