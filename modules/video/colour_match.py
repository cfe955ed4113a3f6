"""Low-frequency colour match between a rendered patch and the frame around it, in linear light.

Where the soft edge of a patch lies, source and patch show the same skin, so the ratio of their light there tells how
exposure and white balance differ. A membrane (the smooth field that Poisson blending adds) carries that ratio over the
whole patch. Everything is done on a coarse grid, because the field is smooth by construction.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solveh_banded

from modules.video.linear_light import BT709, LightCurve

Field = NDArray[np.float32]
"""float32 ``[FIELD_SIZE, FIELD_SIZE, 3]`` of logarithmic gains on light over a patch's box."""

GRID = 40
"""Longer side of the grid the membrane is solved on: cells of 5 to 10 px, of which a soft edge holds a few."""
FIELD_SIZE = 32
"""One size for all patches, so that fields of consecutive frames can be averaged."""
MAX_LOG_GAIN = float(np.log(2.8))
"""On light: 1.6 times a coded value."""
LEAST_SPREAD = 0.045
"""Cells are never said to agree better than this, so that noise makes no outliers."""
PASSES = 3
DIRICHLET = 1e5
NEARLY_NOTHING = 1e-6


@dataclass(frozen=True, slots=True)
class RingConfig:
    """Which pixels are compared, and how far they are trusted.

    Attributes:
        low: alpha above which a pixel belongs to the ring; below it the patch need not hold skin.
        high: alpha up to which it does; beyond it the lips and the mouth begin.
        stiffness: how much smoothness outweighs a fully covered grid cell; 0 follows the known cells exactly.
        outlier: disagreement with the field, in standard deviations, at which a cell counts half.
        dropped: a cell that counts less than this because it disagrees is left out.
        screen: how soon the deviation from the ring's common ratio fades away from the ring (``membrane``). Light
            that is common to the ring holds for the mouth too; what only a piece of the ring shows (a silhouette, hair,
            a shadow) does not.
        min_pixels: with fewer comparable pixels there is nothing to learn.
    """

    low: float = 0.02
    high: float = 0.9
    stiffness: float = 0.3
    outlier: float = 1.0
    dropped: float = 0.1
    screen: float = 0.2
    min_pixels: int = 24


WHOLE = RingConfig(low=0.5, high=2.0, screen=0.0)
"""For a patch that shows the very motion of the frame: all of it can be compared, not only its edge."""


def estimate_field(
    source: NDArray[np.float32], patch: NDArray[np.float32], alpha: NDArray[np.float32], weight: NDArray[np.float32],
    ring: RingConfig, light: LightCurve = BT709,
) -> Field | None:  # fmt: skip
    """The membrane of the logarithm of the source's light over the patch's.

    Hair, a collar or a misplaced jaw line in the ring disagree far more than light does, so cells that stand out
    from the field are weighed down and the field is solved again.

    Args:
        source: RGB ``[h, w, 3]`` in 0..1 of the frame.
        patch: RGB ``[h, w, 3]`` of what was rendered there; read only inside the ring.
        alpha: ``[h, w]`` the patch's own alpha, before occluders were taken out; it defines the ring.
        weight: ``[h, w]`` 0..1, how far a pixel may be compared (0 where an occluder lies over it).
        ring: which pixels count.
        light: what coded values mean.

    Returns:
        ``[FIELD_SIZE, FIELD_SIZE, 3]``, or None when too few pixels can be compared.
    """
    trusted = np.where((alpha > ring.low) & (alpha < ring.high), weight, np.float32(0))
    inside = trusted > 0.05
    if int(inside.sum()) < ring.min_pixels:
        return None
    trusted = np.where(inside, trusted, np.float32(0))
    if not np.isfinite(patch).all():  # outside the alpha a patch may hold anything
        patch = np.where(inside[..., None], patch, np.float32(0))
    ratio, mass = _cells(source, patch, trusted, light)
    common = np.median(ratio[mass > NEARLY_NOTHING], axis=0)
    field = np.broadcast_to(common, ratio.shape)
    for is_last in (*[False] * (PASSES - 1), True):
        agreement = _agreement(ratio - field, mass > NEARLY_NOTHING, ring.outlier)
        kept = mass * np.where(agreement < ring.dropped, np.float32(0), agreement)
        # A field that follows every cell would find no cell that stands out, so only the last one may.
        stiffness = ring.stiffness if is_last else max(ring.stiffness, 1.0)
        field = common + membrane(ratio - common, kept, stiffness, ring.screen)
    sized = cv2.resize(field, (FIELD_SIZE, FIELD_SIZE), interpolation=cv2.INTER_LINEAR)
    return np.clip(sized, -MAX_LOG_GAIN, MAX_LOG_GAIN).astype(np.float32)


def grid_size(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the grid that a patch's membrane is solved on."""
    scale = min(1.0, GRID / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def apply_field(patch: NDArray[np.float32], field: Field, light: LightCurve = BT709) -> NDArray[np.float32]:
    """The patch, ``[h, w, 3]`` in 0..1, with the field's gains applied to its light."""
    return light.scaled(patch, field)


def membrane(
    values: NDArray[np.float32], mass: NDArray[np.float32], stiffness: float, screen: float = 0.0
) -> NDArray[np.float32]:
    """The smoothest ``u`` near the data: least ``Σ mass·(u - values)² + stiffness·(|∇u|² + screen·u²)``, free at the
    border.

    Solved directly: on a coarse grid the normal equations are a narrow band, half a millisecond for 40 x 40 cells.

    Args:
        values: ``[h, w, c]``, read where ``mass`` is above 0.
        mass: ``[h, w]`` >= 0, how well each value is known.
        stiffness: 0 keeps the known values (a Dirichlet boundary) and is harmonic between them.
        screen: away from the data ``u`` falls to 0 within about ``1 / sqrt(screen)`` cells.
    """
    if values.shape[0] < values.shape[1]:  # the band is as wide as a row is long
        return membrane(values.swapaxes(0, 1), mass.T, stiffness, screen).swapaxes(0, 1)
    height, width = mass.shape
    known = np.where(mass[..., None] > 0, values, np.float32(0)).reshape(height * width, -1)
    hold = mass.astype(np.float64)
    if stiffness == 0:
        hold, stiffness = DIRICHLET * (mass > NEARLY_NOTHING), 1.0
    links_right = np.full((height, width), -stiffness, np.float64)
    links_right[:, -1] = 0
    links_down = np.full((height, width), -stiffness, np.float64)
    links_down[-1] = 0
    links = -links_right - links_down
    links[:, 1:] -= links_right[:, :-1]
    links[1:] -= links_down[:-1]
    band = np.zeros((width + 1, height * width))
    # Both links of a one-column grid share the band's only row.
    band[0] = (hold + links + max(stiffness * screen, NEARLY_NOTHING)).ravel()
    band[1] += links_right.ravel()
    band[width] += links_down.ravel()
    solved = solveh_banded(band, hold.reshape(-1, 1) * known, lower=True, check_finite=False)
    return solved.reshape(values.shape).astype(np.float32)


def _cells(
    source: NDArray[np.float32], patch: NDArray[np.float32], trusted: NDArray[np.float32], light: LightCurve
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Log ratio of the light of each grid cell ``[gh, gw, 3]`` and how well it is known ``[gh, gw]``.

    Means are taken before the ratio, because that of single dark pixels is mostly noise, and of coded values, because
    over a few pixels of skin both means are the same.
    """
    rows, columns = grid_size(*trusted.shape)
    size = (columns, rows)
    weight = cv2.merge([trusted, trusted, trusted])  # several times faster than broadcasting
    of_source, mass = _reduced(np.asarray(cv2.multiply(source, weight), np.float32), trusted, size)
    of_patch, _ = _reduced(np.asarray(cv2.multiply(patch, weight), np.float32), trusted, size)
    return light.log_ratio(of_source, np.clip(of_patch, 0, 1)), mass


def _reduced(
    weighted: NDArray[np.float32], mass: NDArray[np.float32], size_wh: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Means ``[h, w, c]`` over the cells of a coarser grid of values already weighted by ``mass``, and mean mass."""
    width, height = size_wh
    mean_mass = cv2.resize(mass, size_wh, interpolation=cv2.INTER_AREA).reshape(height, width)
    sums = cv2.resize(weighted, size_wh, interpolation=cv2.INTER_AREA).reshape(height, width, -1)
    means = sums / np.maximum(mean_mass, NEARLY_NOTHING)[..., None]
    return means.astype(np.float32), mean_mass.astype(np.float32)


def _agreement(residual: NDArray[np.float32], known: NDArray[np.bool_], outlier: float) -> NDArray[np.float32]:
    """Cauchy weights ``[h, w]`` of how near each known cell is to the field."""
    distance = np.linalg.norm(residual, axis=2)
    spread = max(1.4826 * float(np.median(distance[known])), LEAST_SPREAD)
    return (1 / (1 + (distance / (outlier * spread)) ** 2)).astype(np.float32)
