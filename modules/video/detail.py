"""How sharp the source is, given to what is rendered: the strength of its finest bands, followed over time.

A renderer that has learnt from many frames averages what does not repeat exactly, so teeth and lips come out softer
than they were filmed (or, sharpened too much, harder). The person's own render of the frame's *own* motion shows the
same content as the frame, hence the ratio of the bands' energies is the renderer's loss alone, whatever the mouth
does. The same ratio then lifts the new mouth.

When the head moves fast, the filmed frame is blurred for a moment and its fine bands are weak; the ratio of that frame
falls below what is usual, and the new mouth is softened with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIGMAS = (0.5, 0.8, 1.4)
"""Widths of the Gaussians that cut off the bands, each upon the one before, px."""
LEAST_GAIN, MOST_GAIN = 0.6, 1.4
"""Beyond these, what is lifted is noise and halos, not detail."""
MEMORY_S = 3.0
"""Long: teeth whose sharpness breathes are seen more than teeth a little too soft."""
MOST_SPECK = 0.01
"""Of white: what a pixel may stand out by from the second of its eight neighbours."""
CORE = 1.5 / 255
"""Detail much weaker than this is not lifted: it is noise."""
NEIGHBOURS = tuple((y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1))
"""Row and column of a pixel's neighbours in the 3 x 3 around it."""
LEAST_PIXELS = 64
LONGEST_GAP_S = 1.0
"""Energies older than this belong to another moment."""
_NOTHING = 1e-9
_USUAL = ((0.5 / 255) ** 2, (1.2 / 255) ** 2, (1.9 / 255) ** 2)
"""Energies that are believed to be rendered sharp enough before anything is seen: closed lips show little, and say
little about whether teeth come out soft. That a render is too sharp is believed at once."""
_WEAK = 0.5
"""Energy of a frame, as a share of the usual one, below which a blurred moment is told from an uneventful one."""

Gains = tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Energies:
    """Mean squares of the bands, source and render ``[2, bands]``, followed until ``time_s``."""

    values: NDArray[np.float64]
    time_s: float


class DetailMatcher:
    """The gains of one face's fine bands, frame by frame in order.

    Args:
        memory_s: time constant over which energies are followed.
    """

    def __init__(self, memory_s: float = MEMORY_S) -> None:
        if memory_s <= 0:
            raise ValueError(f"memory_s must be above 0, got {memory_s}")
        self._memory_s = memory_s
        self._memory: _Energies | None = None

    def reset(self) -> None:
        """Forget earlier frames; call it at cuts."""
        self._memory = None

    def state(self) -> dict[str, NDArray]:
        """What is remembered, as arrays; empty when there is nothing."""
        memory = self._memory
        return {} if memory is None else {"energies": memory.values, "detail_time_s": np.array(memory.time_s)}

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another matcher's ``state`` says."""
        self._memory = None
        if "energies" in state:
            self._memory = _Energies(state["energies"], float(state["detail_time_s"]))

    def update(
        self, source: NDArray[np.float32], own_render: NDArray[np.float32], weight: NDArray[np.float32], time_s: float
    ) -> Gains:
        """The gains for this frame's bands, finest first; 1 while nothing is known.

        Args:
            source: RGB ``[h, w, 3]`` 0..1 of the frame.
            own_render: RGB ``[h, w, 3]`` of the frame's own motion, its colour matched.
            weight: ``[h, w]`` 0..1, where both show the mouth (not hidden).
            time_s: when the frame is shown.
        """
        now = band_energies(source, own_render, weight)
        before = self._memory
        if before is not None and not 0 <= time_s - before.time_s <= LONGEST_GAP_S:
            before = None
        if now is None:
            return _gains(before.values) if before is not None else (1.0,) * len(SIGMAS)
        followed = now
        if before is not None:
            share = 1 - math.exp(-(time_s - before.time_s) / self._memory_s)
            followed = before.values + share * (now - before.values)
        self._memory = _Energies(followed, time_s)
        return tuple(min(usual, _moment(now, followed, band)) for band, usual in enumerate(_gains(followed)))


def band_energies(
    source: NDArray[np.float32], own_render: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float64] | None:
    """Weighted mean squares of the luma's bands, ``[2, bands]`` (source, render); None where too little is seen.

    Arguments as for ``DetailMatcher.update``.
    """
    box = _box(weight)
    if box is None or float(weight.sum()) < LEAST_PIXELS:
        return None
    inside = weight[box]
    total = float(inside.sum())
    energies = np.empty((2, len(SIGMAS)))
    for row, luma in enumerate((_luma(source[box]), despeckled(_luma(own_render[box])))):
        for column, band in enumerate(_bands(luma)):
            energies[row, column] = float((inside * band * band).sum()) / total
    return energies


def refined(rgb: NDArray[np.float32], gains: Gains, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """A rendering without specks whose fine bands are ``gains`` times as strong where ``weight`` is 1.

    Only luma changes: colours of fine detail are not kept by 4:2:0. What is weaker than ``CORE`` is not lifted:
    ``(gain - 1) band³ / (band² + CORE²)`` is added; where a gain is below 1, ``(gain - 1) band``.

    Args:
        rgb: ``[h, w, 3]`` 0..1.
        gains: finest band first.
        weight: ``[h, w]`` 0..1; where it is 0 nothing changes.
    """
    box = _box(weight)
    if box is None:
        return rgb
    part = np.ascontiguousarray(rgb[box])
    luma = _luma(part)
    clean = despeckled(luma)
    change = clean - luma
    if any(abs(gain - 1) >= 1e-3 for gain in gains):
        for gain, band in zip(gains, _bands(clean), strict=True):
            change += np.float32(gain - 1) * (_cored(band) if gain > 1 else band)
    result = rgb.copy()
    change = np.asarray(cv2.multiply(change, weight[box]), np.float32)
    np.clip(part + cv2.cvtColor(change, cv2.COLOR_GRAY2RGB), 0.0, 1.0, out=result[box])
    return result


def despeckled(luma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luma ``[h, w]`` without specks: no pixel lies ``MOST_SPECK`` beyond the second most extreme of its neighbours.

    A field's finest cells answer for themselves, so inside a mouth that was seldom seen single pixels stand out, and
    along lips single dots. A line passes through two neighbours and a corner has three, so teeth and the gaps between
    them stay as they are.
    """
    height, width = luma.shape
    padded = cv2.copyMakeBorder(luma, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    first, second, *others = (padded[y : y + height, x : x + width] for y, x in NEIGHBOURS)
    least, low = cv2.min(first, second), cv2.max(first, second)
    most, high = low, least
    for one in others:
        low, least = cv2.min(low, cv2.max(least, one)), cv2.min(least, one)
        high, most = cv2.max(high, cv2.min(most, one)), cv2.max(most, one)
    return np.asarray(np.clip(luma, low - np.float32(MOST_SPECK), high + np.float32(MOST_SPECK)), np.float32)


def weighted(picture: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[h, w, 3]`` times ``[h, w]``; several times faster than broadcasting."""
    return np.asarray(cv2.multiply(picture, cv2.merge([weight, weight, weight])), np.float32)


def _luma(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY), np.float32)


def _cored(band: NDArray[np.float32]) -> NDArray[np.float32]:
    square = band * band
    return np.asarray(band * (square / (square + np.float32(CORE * CORE))), np.float32)


def _bands(picture: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Differences of Gaussians, finest first; borders are mirrored."""
    found, finer = [], picture
    for sigma in SIGMAS:
        coarser = np.asarray(cv2.GaussianBlur(finer, (0, 0), sigma), np.float32)
        found.append(finer - coarser)
        finer = coarser
    return found


def _gains(energies: NDArray[np.float64]) -> Gains:
    source, render = energies
    usual = np.where(source > render, _USUAL, _NOTHING)
    ratio = np.sqrt((source + usual) / (render + usual))
    return tuple(float(gain) for gain in np.clip(ratio, LEAST_GAIN, MOST_GAIN))


def _moment(now: NDArray[np.float64], followed: NDArray[np.float64], band: int) -> float:
    """This frame's own gain where it is one of weak detail that the render does not share: blurred by motion."""
    source, render = now[0, band], now[1, band]
    is_weak = source < _WEAK * followed[0, band] and render > source
    return max(math.sqrt(source / max(render, _NOTHING)), LEAST_GAIN) if is_weak else MOST_GAIN


def _box(weight: NDArray[np.float32]) -> tuple[slice, slice] | None:
    """The smallest box that holds all weight, with a margin for the blur; None when there is none."""
    rows, columns = np.flatnonzero(weight.any(axis=1)), np.flatnonzero(weight.any(axis=0))
    if not len(rows):
        return None
    margin = 8
    return (
        slice(max(int(rows[0]) - margin, 0), int(rows[-1]) + margin + 1),
        slice(max(int(columns[0]) - margin, 0), int(columns[-1]) + margin + 1),
    )
