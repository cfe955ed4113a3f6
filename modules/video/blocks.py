"""The source's coding blocks, measured around a face and given to what was rendered there.

Strongly compressed video shows the borders of its 8 x 8 blocks, and inside them only what survived in few steps of few
frequencies. A smooth rendering in the middle of it looks pasted in. So the luma of what is written is rounded on the
source's own grid, frequency by frequency, as a codec does (a DCT of each block, in steps of one size). The step follows
from how much more luma changes across block borders than elsewhere; a source without a visible grid is left alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import Frame, PlaneLayout
from modules.video.colour import codes_from_rgb
from modules.video.grain import code_step

BLOCK = 8
"""Transforms of 8 x 8 and 16 x 16 share these borders."""
MEMORY_S = 3.0
MEASURED_EVERY_S = 0.4
LONGEST_GAP_S = 1.0
LEAST_PIXELS = 64 * 64
FIRST = 0.5
"""A first look counts so much, beside the belief that there is no grid, where one is not plain: edges can look so."""
RIM = 0.2
"""Shares of a window that are left out on each side: what moves is coded more coarsely than what is around it."""
MOST_CHANGE = 12 / 255
"""Of white: what counts at most of a change between two pixels beyond its neighbours'; more is the picture's."""
SEEN, SEEN_ELSEWHERE = (0.08 / 255, 0.14 / 255), (0.15 / 255, 0.25 / 255)
"""Excess at borders from which a grid is believed, and from which it is believed entirely: one that begins where the
picture does, as encoders' do, and one of a picture that was cropped or turned."""
HOLLOW = 0.3
"""What both sides of a border lack at least, as a share of its excess."""
STEP_OF_EXCESS = (0.0, 5.0, 1.7 * 255)
"""Coefficients of 1, ``e`` and ``e²`` of the step whose rounding shows excess ``e``: of five faces rounded in steps of
3 to 32 codes, and more for a large one, beside which many blocks were not coded anew at all."""
MOST_STEP = 32 / 255
FINE_NOISE, STEP_OF_NOISE, MOST_UNSEEN = 0.8, 20 / 255, 3 / 255
SMOOTHED = (-0.03 / 255, 0.0)
"""Where a source's noise is below this share of the rendering's, its pixels were rounded together and not one by one.
With this times what lacks, up to a step whose borders are not seen, the rendering's noise falls as far; not where
borders change less than the rest (from here to here), because a codec has smoothed them."""

Bounds = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Coding:
    """How luma is rounded: ``step`` of white (0 = not at all) on blocks that begin at ``left``, ``top`` px, 0..7."""

    step: float
    left: int = 0
    top: int = 0


NOT_CODED = Coding(0.0)


@dataclass(frozen=True, slots=True, eq=False)
class _Profile:
    """Mean excess of change by place in the block ``[2, BLOCK]``, across columns and rows, followed to ``time_s``."""

    values: NDArray[np.float64]
    time_s: float


class BlockMatcher:
    """The coding around one face, frame by frame in order."""

    def __init__(self) -> None:
        self._memory: _Profile | None = None

    def reset(self) -> None:
        """Forget earlier frames; call it at cuts."""
        self._memory = None

    def state(self) -> dict[str, NDArray]:
        """What is remembered, as arrays; empty when there is nothing."""
        memory = self._memory
        return {} if memory is None else {"blocks": memory.values, "blocks_time_s": np.array(memory.time_s)}

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another matcher's ``state`` says."""
        self._memory = None
        if "blocks" in state:
            self._memory = _Profile(state["blocks"], float(state["blocks_time_s"]))

    def update(self, frame: Frame, bounds: Bounds, noise: float) -> Coding:
        """How what is written into a frame is rounded.

        Args:
            frame: the source.
            bounds: of the window around the face.
            noise: the source's fine noise over the rendering's, both with the rounding of their samples.
        """
        time_s, before = float(frame.time_s), self._memory
        if before is not None and not 0 <= time_s - before.time_s <= LONGEST_GAP_S:
            before = None
        if before is None or time_s - before.time_s >= MEASURED_EVERY_S:
            now = border_profile(frame, bounds)
            if now is None:
                return NOT_CODED if before is None else _coding(before.values, noise)
            known, share = np.zeros_like(now), 1.0 if _excess(now)[:, 0].min() > SEEN_ELSEWHERE[1] else FIRST
            if before is not None:
                known, share = before.values, 1 - math.exp(-(time_s - before.time_s) / MEMORY_S)
            before = self._memory = _Profile(known + share * (now - known), time_s)
        return _coding(before.values, noise)


def border_profile(frame: Frame, bounds: Bounds) -> NDArray[np.float64] | None:
    """How much more luma changes from one pixel to the next than beside it, by place in the block.

    Args:
        frame: any depth.
        bounds: of a window in it.

    Returns:
        ``[2, BLOCK]`` of white, across columns and across rows: at ``k`` the mean over all pairs of pixels of which
        the second one's place is ``k`` modulo ``BLOCK``. None for a window that is too small.
    """
    x0, y0, x1, y1 = bounds
    aside, above = round(RIM * (x1 - x0)), round(RIM * (y1 - y0))
    x0, y0 = x0 + aside, y0 + above
    luma = frame.planes[0][y0 : y1 - above, x0 : x1 - aside]
    if luma.size < LEAST_PIXELS or min(luma.shape) < 4 * BLOCK:
        return None
    white = code_step(frame.layout)
    # Every second line of either direction says enough.
    means = (_line_means(*lines, white) for lines in ((luma[::2], x0, 1), (luma[:, ::2], y0, 0)))
    return np.array([[line[places == k].mean() for k in range(BLOCK)] for line, places in means])


def coded(
    rgb: NDArray[np.float32], rendered: NDArray[np.float32], bounds: Bounds, coding: Coding, layout: PlaneLayout
) -> NDArray[np.float32]:
    """A patch whose luma is rounded, where it was rendered, as the source's was; the same array where nothing is.

    Args:
        rgb: ``[h, w, 3]`` 0..1.
        rendered: ``[h, w]`` 0..1 how far; what was filmed has been coded before.
        bounds: of the patch in its frame.
        coding: how.
        layout: of the frame.
    """
    left, top, width, height = cv2.boundingRect((rendered > 0).astype(np.uint8))
    if coding.step <= 0 or width == 0:
        return rgb
    # Whole blocks; beyond the patch its last pixels go on.
    x0, y0 = (first - (first + origin - phase) % BLOCK for first, origin, phase in (
        (left, bounds[0], coding.left), (top, bounds[1], coding.top)))  # fmt: skip
    x1, y1 = x0 - (x0 - left - width) // BLOCK * BLOCK, y0 - (y0 - top - height) // BLOCK * BLOCK
    inside = slice(max(y0, 0), min(y1, rgb.shape[0])), slice(max(x0, 0), min(x1, rgb.shape[1]))
    luma = np.asarray(cv2.transform(rgb[inside], luma_weights(layout)), np.float32)
    around = inside[0].start - y0, y1 - inside[0].stop, inside[1].start - x0, x1 - inside[1].stop
    whole = np.asarray(cv2.copyMakeBorder(luma, *around, cv2.BORDER_REPLICATE), np.float32)
    change = np.ascontiguousarray(
        (_rounded(whole, coding.step) - whole)[around[0] :, around[2] :][: luma.shape[0], : luma.shape[1]]
    )
    result = rgb.copy()
    grey = cv2.cvtColor(np.asarray(cv2.multiply(change, rendered[inside]), np.float32), cv2.COLOR_GRAY2RGB)
    result[inside] = np.clip(cv2.add(rgb[inside], grey), 0.0, 1.0)
    return result


def luma_weights(layout: PlaneLayout) -> NDArray[np.float64]:
    """Shares ``[1, 3]`` of R', G' and B' in luma."""
    row = codes_from_rgb(layout)[:1, :3].astype(np.float64)
    return row / row.sum()


def cosines() -> NDArray[np.float32]:
    """The orthonormal DCT-II of ``BLOCK`` values, ``[BLOCK, BLOCK]``, a frequency a row."""
    k = np.arange(BLOCK)
    rows = np.sqrt(2 / BLOCK) * np.cos((2 * k[None] + 1) * k[:, None] * np.pi / (2 * BLOCK))
    rows[0] /= math.sqrt(2)
    return rows.astype(np.float32)


def _line_means(lines: NDArray, first: int, axis: int, white: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Excess of change between neighbours along an axis, mean over the other, and the place of each pair's second one.

    Args:
        lines: codes ``[h, w]``.
        first: place of the first pixel along the axis.
        axis: 0 or 1.
        white: one code, of white.
    """
    before = (slice(None),) * axis
    codes = np.ascontiguousarray(lines)
    change = cv2.absdiff(codes[*before, 1:], codes[*before, :-1])
    beside = cv2.addWeighted(change[*before, :-2], 0.5, change[*before, 2:], 0.5, 0.0, dtype=cv2.CV_32F)
    excess = cv2.subtract(change[*before, 1:-1], beside, dtype=cv2.CV_32F)
    most = MOST_CHANGE / white
    means = np.clip(excess, -most, most).mean(axis=1 - axis, dtype=np.float64) * white
    return means, (np.arange(len(means)) + 2 + first) % BLOCK


def _coding(profile: NDArray[np.float64], noise: float) -> Coding:
    """Rounding whose borders change as ``profile`` says, or as fine as the source's ``noise`` is."""
    excess = _excess(profile)
    places = ((0, 0), SEEN), ((int(excess[0].argmax()), int(excess[1].argmax())), SEEN_ELSEWHERE)
    found = [excess[(0, 1), place] for place, _ in places]
    means = [float(both.mean()) for both in found]
    trusts = [_trust(float(both.min()), seen) for both, (_, seen) in zip(found, places, strict=True)]
    chosen = int(trusts[1] * means[1] > trusts[0] * means[0] and _is_border(excess, places[1][0]))
    (left, top), mean = places[chosen][0], means[chosen]
    unseen = _trust(means[0], SMOOTHED) * min(max(STEP_OF_NOISE * (FINE_NOISE - noise), 0.0), MOST_UNSEEN)
    step = trusts[chosen] * min(sum(c * mean**k for k, c in enumerate(STEP_OF_EXCESS)), MOST_STEP)
    if unseen > step:
        return Coding(unseen)
    return Coding(step, left, top) if step > 0 else NOT_CODED


def _excess(profile: NDArray[np.float64]) -> NDArray[np.float64]:
    """At each place, beyond the mean of others; not of both beside it, from which a border takes."""
    others = [np.roll(profile, -k, axis=1)[:, 2 : BLOCK - 1].mean(axis=1) for k in range(BLOCK)]
    return profile - np.stack(others, axis=1)


def _is_border(excess: NDArray[np.float64], place: tuple[int, int]) -> bool:
    """Whether both neighbours of a place lack something; beside a border that was smoothed only one does."""
    for line, k in zip(excess, place, strict=True):
        if max(line[k - 1], line[(k + 1) % BLOCK]) > -HOLLOW * line[k]:
            return False
    return True


def _trust(excess: float, seen: tuple[float, float]) -> float:
    return min(max((excess - seen[0]) / (seen[1] - seen[0]), 0.0), 1.0)


def _rounded(luma: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """Luma of whole blocks ``[h, w]``, each of whose frequencies is a multiple of ``step``."""
    height, width = luma.shape
    bases = cosines()
    rows = (bases @ luma.reshape(-1, BLOCK, width)).reshape(height, width // BLOCK, BLOCK)
    steps = np.rint(rows @ bases.T / np.float32(step)) * np.float32(step)
    columns = (steps @ bases).reshape(-1, BLOCK, width)
    return np.asarray((bases.T @ columns).reshape(height, width), np.float32)
