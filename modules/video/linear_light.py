"""Gains on linear light, applied to coded R'G'B' by the transfer function a stream is tagged with.

Exposure and white balance multiply scene light. Nearly every transfer function is a power with an offset,
``(coded + a) / (1 + a) = light ** p`` above a short straight piece at black, and for such a curve a gain ``g`` on light
is one multiplication: ``coded + a`` times ``g ** p``. No picture has to be made linear and back.

Curves: BT.709-6 item 1.2; IEC 61966-2-1 (sRGB); BT.470 (gammas 2.2 and 2.8). The two of high dynamic range, BT.2100-2
tables 4 (PQ) and 5 (HLG), are powers with an offset that fit them where skin lies (PQ 0.35 to 0.65, HLG up to 0.55).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_LEAST_PIVOT = 0.03
"""Of plain powers: the ratio of two near-black values is noise."""


@dataclass(frozen=True, slots=True)
class LightCurve:
    """A transfer function as a power with an offset.

    Attributes:
        offset: ``a``, what is added to coded values before they are multiplied.
        exponent: ``p``.
    """

    offset: float = 0.099
    exponent: float = 0.45

    @classmethod
    def of(cls, transfer: int) -> LightCurve:
        """The curve of FFmpeg's AVCOL_TRC number; BT.709's, which most cameras apply, where none known is stated."""
        return _CURVES.get(transfer, BT709)

    def log_ratio(self, above: Floats, below: Floats) -> Floats:
        """Log of how many times more light ``above`` is than ``below``, both coded 0..1; steady near black."""
        pivot = np.float32(self.offset)
        return np.asarray(np.log((above + pivot) / (below + pivot)) / np.float32(self.exponent), np.float32)

    def scaled(self, coded: Floats, log_gains: Floats) -> Floats:
        """Coded values with gains (the inverse of ``log_ratio``) put on their light, clipped to 0..1.

        On the straight piece at black it errs by a hundredth of white at most for gains up to 1.25.

        Args:
            coded: ``[h, w, 3]`` 0..1.
            log_gains: ``[H, W, 3]`` over the same area at any size; resampled linearly.
        """
        height, width = coded.shape[:2]
        factors = np.exp(log_gains * np.float32(self.exponent))
        result = coded + np.float32(self.offset)
        result *= cv2.resize(factors, (width, height), interpolation=cv2.INTER_LINEAR)
        result -= np.float32(self.offset)
        return np.clip(result, 0, 1, out=result)


BT709 = LightCurve()
_CURVES: dict[int, LightCurve] = {
    4: LightCurve(_LEAST_PIVOT, 1 / 2.2), 5: LightCurve(_LEAST_PIVOT, 1 / 2.8), 8: LightCurve(_LEAST_PIVOT, 1.0),
    13: LightCurve(0.055, 1 / 2.4), 16: LightCurve(0.63, 0.088), 18: LightCurve(_LEAST_PIVOT, 0.5),
}  # fmt: skip
"""1, 6, 14 and 15 are BT.709's curve under other names, and 2 (unspecified) counts as it."""
