"""Do landmarks lie on a face? The landmark network draws a face on anything; these measures tell where there is one.

Each piece is a number per frame; ``face_plausibility`` combines those at hand into one between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Separation:
    """How a measure separates faces from other things: log-odds ``slope * (value - middle)``.

    Fitted to 333 faces of 70 clips and 883 places without one; the classes count alike.
    """

    slope: float
    middle: float

    def log_odds(self, value: float) -> float:
        return float(np.clip(self.slope * (value - self.middle), -8.0, 8.0))


PRESENCE = Separation(0.89, 0.20)
"""Of the logit of the landmark network's presence score."""
SETTLING = Separation(-8.4, -1.91)
"""Of log10 of ``look_disagreement`` with the square that the first landmarks ask for."""
MIRROR = Separation(-10.7, -1.47)
"""Of log10 of ``mirror_disagreement``."""
SHIFTED = Separation(-12.9, -1.40)
"""Of log10 of ``look_disagreement`` with a square shifted by 6 %, 12 % larger and turned by 0.08 rad."""


def face_plausibility(
    presence: float, *, settling: float | None = None, mirror: float | None = None, shifted: float | None = None
) -> float:
    """Confidence 0..1 that landmarks lie on a face, from the measures at hand.

    The log-odds are averaged, not summed, because the measures fail together (dark, blurred or turned faces).

    Args:
        presence: of the landmark network, 0..1.
        settling: ``look_disagreement`` of the landmarks with those the next look through their own square gives.
        mirror: ``mirror_disagreement``.
        shifted: ``look_disagreement`` with a shifted square.
    """
    sure = float(np.clip(presence, 1e-4, 1 - 1e-4))
    odds = [PRESENCE.log_odds(np.log(sure / (1 - sure)))]
    for value, separation in ((settling, SETTLING), (mirror, MIRROR), (shifted, SHIFTED)):
        if value is not None:
            odds.append(separation.log_odds(np.log10(max(value, 1e-5))))
    return float(1 / (1 + np.exp(-np.mean(odds))))


def face_extent_px(points: NDArray) -> float:
    """Longer side of the landmarks' box, px: points ``[N, 2]``."""
    return float(np.ptp(points, axis=0).max())


def mirror_disagreement(points: NDArray, mirrored: NDArray, width: float, counterpart: NDArray[np.int64]) -> float:
    """Median distance between landmarks and those of the mirrored picture brought back, over the face's extent.

    Args:
        points: ``[478, 2]`` px.
        mirrored: landmarks of the left-right mirrored picture, its pixels.
        width: of the picture, px.
        counterpart: ``[478]`` index of each point's mirror image (``FaceModel.landmark_mirror``).
    """
    back = np.array(mirrored, np.float64)[counterpart]
    back[:, 0] = width - back[:, 0]
    return float(np.median(np.linalg.norm(back - points, axis=1))) / face_extent_px(points)


def look_disagreement(first: NDArray, second: NDArray) -> float:
    """Median distance between landmarks of one picture seen through two squares, over the face's extent.

    The second square is either the one the first landmarks ask for (a face settles at once, anything else keeps
    sliding), or that one shifted and turned a little.
    """
    return float(np.median(np.linalg.norm(np.asarray(first, np.float64) - second, axis=1))) / face_extent_px(first)
