"""Do landmarks lie on a face? The landmark network draws a face on anything; these measures tell where there is one.

Each piece is a number per frame; ``face_plausibility`` combines those at hand into one between 0 and 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.structures.landmarks import EYES, N_MESH, RIGID, inter_ocular_px

CHEEKS = (50, 280, 205, 425, 101, 330)
"""Points on plain skin below the eyes."""
PUPILS = (468, 473)


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


def affine_residual(points: NDArray, reference: NDArray) -> float:
    """RMS distance of landmarks from the mean face under the best affine camera, over the face's extent.

    Args:
        points: ``[478, 2]`` px.
        reference: mean face ``[478, 3]``, any axes and scale.
    """
    camera_input = np.column_stack([reference[:N_MESH], np.ones(N_MESH)])
    seen = np.asarray(points[:N_MESH], np.float64)
    solution = np.linalg.lstsq(camera_input, seen, rcond=None)[0]
    distance = ((seen - camera_input @ solution) ** 2).sum(axis=1)
    return float(np.sqrt(distance.mean())) / face_extent_px(seen)


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


def shape_jitter(before: NDArray, after: NDArray) -> float:
    """Median change of the face's shape between frames once its motion is taken out, over the face's extent.

    The motion is the affine map that takes the ``RIGID`` points along, so neither turning nor coming nearer counts.
    """
    source = np.column_stack([before, np.ones(len(before))]).astype(np.float64)
    motion = np.linalg.lstsq(source[list(RIGID)], np.asarray(after, np.float64)[list(RIGID)], rcond=None)[0]
    moved = source @ motion
    upper = [*EYES, *RIGID, *CHEEKS]
    return float(np.median(np.linalg.norm(moved[upper] - after[upper], axis=1))) / face_extent_px(after)


def eye_contrast(luma: NDArray, points: NDArray) -> float:
    """How much darker pupils are than cheeks, -1..1 (Michelson): faces under ordinary light are well above 0.

    Args:
        luma: ``[H, W]`` of any scale from 0.
        points: ``[478, 2]`` px.

    Returns:
        The contrast, or 0 when the places lie outside the picture.
    """
    radius = max(0.5, 0.04 * float(inter_ocular_px(points)))
    eyes = _means_at(luma, points[list(PUPILS)], radius)
    skin = _means_at(luma, points[list(CHEEKS)], radius)
    if len(eyes) == 0 or len(skin) == 0:
        return 0.0
    dark, light = float(eyes.mean()), float(np.median(skin))
    return (light - dark) / max(light + dark, 1e-6)


def _means_at(image: NDArray, places: NDArray, radius: float) -> NDArray[np.float64]:
    """Mean value in small squares around ``places``, those outside the image left out."""
    height, width = image.shape
    means = []
    for x, y in places:
        if 0 <= x < width and 0 <= y < height:
            x0, y0 = max(0, int(x - radius)), max(0, int(y - radius))
            means.append(image[y0 : int(y + radius) + 1, x0 : int(x + radius) + 1].mean())
    return np.array(means, np.float64)
