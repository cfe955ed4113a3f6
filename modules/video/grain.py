"""The source's grain, measured where its skin is flat and given to what was rendered smooth.

Grain is described by its strength in a few bands per plane: two of luma, because codecs and scaling take away the finer
one, and one of each colour difference, which 4:2:0 holds at half the resolution. What a render already has is not
added again. The finest band decides how much there is at all: it is measured with an operator that skin does not answer
to (``noise_sigma``), while pores and stubble answer in the coarser ones, and grain in their place would only flicker.
Every frame gets its own grain, made from a seed and the frame's number, so that a run that is taken up again makes the
same file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.metrics.picture import noise_sigma
from modules.structures.frames import PlaneLayout
from modules.video.colour import codes_from_rgb

SIGMAS = (0.8, 1.4)
"""Widths of the Gaussians that cut off the coarse band, each upon the one before, px."""
BANDS = 4
"""Luma fine, luma coarse, blue difference coarse, red difference coarse."""
MEMORY_S = 2.0
LONGEST_GAP_S = 1.0
MEASURED_EVERY_S = 0.4
"""Grain is a property of the camera: it need not be measured anew in every frame."""
LEAST_PIXELS = 200
MOST_PIXELS = 10_000
"""More pixels, spread evenly, say nothing more."""
MOST_GRAIN = 0.05
"""Of white; what is stronger is texture, such as a beard."""
MOST_COARSE = 3.0
"""Coarse grain of luma or colour is at most this many times as strong as the fine one; the rest is texture."""
_TILE = 256
RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Shares of luma (BT.601)."""
LEAST_ALPHA = 0.02
"""Grain is never strengthened as if a blend showed less of it than this."""
_SIGMA_OF_MEDIAN = 1.4826
_NOTHING = 1e-12
_COARSE_OF_FINE = 0.02
"""Variance in the coarse band of luma of grain that has variance 1 in the fine one."""

Strengths = tuple[float, ...]
"""Standard deviation of the missing grain in each of the ``BANDS``, of white."""
NO_GRAIN: Strengths = (0.0,) * BANDS


@dataclass(frozen=True, slots=True, eq=False)
class _Variances:
    """Source's and render's variance in each band ``[2, BANDS]``, followed until ``time_s``."""

    values: NDArray[np.float64]
    time_s: float


class GrainMatcher:
    """The grain one face's render lacks, frame by frame in order.

    Args:
        step: of the samples' codes, of white (``code_step``): what is written is rounded again, so the source's
            rounding is no grain that is missing.
        memory_s: time constant over which it is followed.

    Raises:
        ValueError: for a time that is not above 0 or a negative step.
    """

    def __init__(self, step: float, memory_s: float = MEMORY_S) -> None:
        if memory_s <= 0 or step < 0:
            raise ValueError(f"memory_s must be above 0 and step not below it, got {memory_s} and {step}")
        self._memory_s, self._rounding = memory_s, step * step / 12
        self._memory: _Variances | None = None

    def reset(self) -> None:
        """Forget earlier frames; call it at cuts."""
        self._memory = None

    def state(self) -> dict[str, NDArray]:
        """What is remembered, as arrays; empty when there is nothing."""
        memory = self._memory
        return {} if memory is None else {"variances": memory.values, "grain_time_s": np.array(memory.time_s)}

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another matcher's ``state`` says."""
        self._memory = None
        if "variances" in state:
            self._memory = _Variances(state["variances"], float(state["grain_time_s"]))

    def relative_noise(self) -> float:
        """The source's fine noise over the render's, both with the rounding of samples; 1 while nothing is known."""
        if self._memory is None:
            return 1.0
        source, render = self._memory.values[:, 0]
        return math.sqrt(float(source) / max(float(render) + self._rounding, _NOTHING))

    def update(
        self, source: NDArray[np.float32], render: NDArray[np.float32], skin: NDArray[np.bool_], time_s: float
    ) -> Strengths:
        """What grain the render lacks; none while nothing is known.

        Args:
            source: RGB ``[h, w, 3]`` 0..1 of the frame.
            render: RGB ``[h, w, 3]`` of what was rendered there.
            skin: bool ``[h, w]``, where both show skin: not hidden, not the mouth.
            time_s: when the frame is shown.
        """
        before = self._memory
        if before is not None and not 0 <= time_s - before.time_s <= LONGEST_GAP_S:
            before = None
        if before is not None and time_s - before.time_s < MEASURED_EVERY_S:
            return _missing(before.values, self._rounding)
        now = _variances(source, render, skin)
        if now is None:
            return NO_GRAIN if before is None else _missing(before.values, self._rounding)
        if before is not None:
            share = 1 - math.exp(-(time_s - before.time_s) / self._memory_s)
            now = before.values + share * (now - before.values)
        self._memory = _Variances(now, time_s)
        return _missing(now, self._rounding)


class Grain:
    """Grain of any strength, the same for the same seed and frame.

    ``tiles`` are ``[_TILE, _TILE]`` per band, periodic, of variance 1 in their band.

    Args:
        seed: which grain.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.tiles = _tiles(np.random.default_rng((seed, _TILE)))
        self._repeated = [cv2.repeat(tile, 2, 2) for tile in self.tiles]

    def add(
        self, rgb: NDArray[np.float32], alpha: NDArray[np.float32], rendered: NDArray[np.float32], strengths: Strengths,
        frame: int,
    ) -> NDArray[np.float32]:  # fmt: skip
        """A patch with grain, such that blending it with ``alpha`` leaves the result as grainy as the source.

        Where a share ``v`` of a pixel is rendered and the rest is the source's own, grain of the source is left with
        variance ``(1 - v)²``; what is added has the remaining ``v (2 - v)``.

        Args:
            rgb: ``[h, w, 3]`` 0..1.
            alpha: ``[h, w]`` 0..1 the patch will be blended with.
            rendered: ``[h, w]`` 0..1, how much of the patch's pixel was rendered and not carried over from the source.
            strengths: see ``Strengths``.
            frame: number of the frame.
        """
        if max(strengths) < 1e-4:
            return rgb
        share = alpha * rendered
        rows, columns = np.flatnonzero(share.any(axis=1)), np.flatnonzero(share.any(axis=0))
        if not len(rows):
            return rgb
        box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
        part = share[box]
        amount = np.sqrt(part * (2 - part)) / np.maximum(alpha[box], np.float32(LEAST_ALPHA))
        grain = cv2.multiply(self.field(part.shape, strengths, frame), cv2.merge([amount, amount, amount]))
        result = rgb.copy()
        result[box] = np.clip(rgb[box] + grain, 0.0, 1.0)
        return result

    def offsets(self, frame: int) -> NDArray[np.int64]:
        """``[BANDS, 2]`` row and column of each band's tile that the first pixel of a frame's grain is."""
        return np.random.default_rng((self._seed, frame)).integers(0, _TILE, (BANDS, 2))

    def field(self, size_hw: tuple[int, ...], strengths: Strengths, frame: int) -> NDArray[np.float32]:
        """Zero-mean grain ``[h, w, 3]`` on R'G'B'."""
        fine, coarse, blue, red = (
            _wrapped(tile, int(top), int(left), size_hw)
            for tile, (top, left) in zip(self._repeated, self.offsets(frame), strict=True)
        )
        luma = cv2.addWeighted(fine, strengths[0], coarse, strengths[1], 0.0)
        # R - Y and B - Y change no luma when green makes up for them.
        other = cv2.addWeighted(red, -RED / GREEN * strengths[3], blue, -BLUE / GREEN * strengths[2], 0.0)
        layers = (cv2.scaleAdd(red, strengths[3], luma), cv2.add(luma, other), cv2.scaleAdd(blue, strengths[2], luma))
        return np.asarray(cv2.merge(layers), np.float32)


def _variances(
    source: NDArray[np.float32], render: NDArray[np.float32], skin: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    """Robust variances ``[2, BANDS]`` of both pictures over the skin; None where there is too little."""
    rows, columns = np.flatnonzero(skin.any(axis=1)), np.flatnonzero(skin.any(axis=0))
    if not len(rows):
        return None
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    count = int(np.count_nonzero(skin))
    if count < LEAST_PIXELS:
        return None
    step = max(round((count / MOST_PIXELS) ** 0.5), 1)
    inside = np.zeros_like(skin[box])
    inside[::step, ::step] = skin[box][::step, ::step]
    pair = (np.ascontiguousarray(source[box]), np.ascontiguousarray(render[box]))
    return np.array([_variances_of(picture, inside) for picture in pair])


def _variances_of(rgb: NDArray[np.float32], inside: NDArray[np.bool_]) -> list[float]:
    luma = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.float32)
    planes = cv2.merge([luma, rgb[..., 2] - luma, rgb[..., 0] - luma])
    fine = cv2.GaussianBlur(planes, (0, 0), SIGMAS[0])
    coarse = np.asarray(fine - cv2.GaussianBlur(fine, (0, 0), SIGMAS[1]), np.float32)
    medians = np.median(np.abs(coarse[inside]), axis=0) * _SIGMA_OF_MEDIAN
    return [noise_sigma(luma, inside) ** 2, *(float(sigma) ** 2 for sigma in medians)]


def code_step(layout: PlaneLayout) -> float:
    """One luma code, as a share of white."""
    return float(1 / (255 * codes_from_rgb(layout)[0, :3].sum()))


def _missing(variances: NDArray[np.float64], rounding: float) -> Strengths:
    lacking = np.maximum(variances[0] - variances[1], 0)
    lacking[0] = max(lacking[0] - rounding, 0)
    finest = lacking[0]
    lacking[1] = max(lacking[1] - _COARSE_OF_FINE * finest, 0)
    lacking[1:] = np.minimum(lacking[1:], MOST_COARSE**2 * finest)
    return tuple(float(value) for value in np.minimum(np.sqrt(lacking), MOST_GRAIN))


def _tiles(rng: np.random.Generator) -> list[NDArray[np.float32]]:
    """One periodic tile per band, whose answer in that band has variance 1."""
    tiles = []
    for band in range(BANDS):
        white = rng.standard_normal((_TILE, _TILE)).astype(np.float32)
        margin = 16
        padded = cv2.copyMakeBorder(white, margin, margin, margin, margin, cv2.BORDER_WRAP)
        fine = cv2.GaussianBlur(padded, (0, 0), SIGMAS[0])
        values = padded - fine if band == 0 else fine - cv2.GaussianBlur(fine, (0, 0), SIGMAS[1])
        tile = np.asarray(values[margin:-margin, margin:-margin], np.float32)
        strength = noise_sigma(tile, np.ones(tile.shape, bool)) if band == 0 else float(tile.std())
        tiles.append(np.ascontiguousarray(tile / strength, np.float32))
    return tiles


def _wrapped(repeated: NDArray, top: int, left: int, size_hw: tuple[int, ...]) -> NDArray[np.float32]:
    """A part, from a row and a column on, of periodic tiles of which some lie beside each other already."""
    down, right = top + size_hw[0], left + size_hw[1]
    rows, columns = (-(-stop // length) for stop, length in zip((down, right), repeated.shape, strict=True))
    whole = repeated if rows == columns == 1 else cv2.repeat(repeated, rows, columns)
    return np.asarray(whole[top:down, left:right], np.float32)
