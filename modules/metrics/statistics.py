"""How sure a figure is: block-bootstrap intervals, paired verdicts, and what chance would give.

Neighbouring frames of a video are alike, so frames must not be resampled one by one. Rows are drawn in blocks of
consecutive frames instead (moving-block bootstrap: Künsch 1989). A block that runs past the end of its stretch goes on
at that stretch's start (the circular form, Politis & Romano 1992), so that the frames at the ends count as often as
those in the middle; no block crosses from one stretch into another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["better", "worse", "undecided"]
COVERAGE = 0.95
"""Share of an interval."""
MIN_SHIFT_S = 0.5
"""A series shifted by less than this still looks like itself: no such shift shows chance."""
_MAX_CHUNK = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class BlockPlan:
    """How rows are drawn in blocks.

    Attributes:
        first: int64 ``[N]`` first row of the stretch that a row belongs to.
        stretch: int64 ``[N]`` rows in that stretch.
        size: int64 ``[N]`` rows in a block that starts here: the block length, or the stretch where that is shorter.
        per_draw: blocks in one draw, together about N rows; below 2 nothing can be resampled.
    """

    first: NDArray[np.int64]
    stretch: NDArray[np.int64]
    size: NDArray[np.int64]
    per_draw: int

    def starts(self, rng: np.random.Generator, draws: int) -> NDArray[np.int64]:
        """First rows of the blocks ``[draws, per_draw]``; every row of the series is equally likely to be shown."""
        chances = np.cumsum(1.0 / self.size)
        picked = np.searchsorted(chances, rng.random((draws, self.per_draw)) * chances[-1], side="right")
        return np.minimum(picked, len(self.size) - 1)

    def sums(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum of ``values`` ``[N]`` over the block that starts at each row, ``[N]``."""
        total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        start = np.arange(len(self.size))
        stop, end = start + self.size, self.first + self.stretch
        wrapped = np.maximum(stop - end, 0)
        return total[np.minimum(stop, end)] - total[start] + total[self.first + wrapped] - total[self.first]


def plan_blocks(block: NDArray[np.int64], length: int) -> BlockPlan:
    """Blocks of ``length`` rows for a series whose unbroken stretches are the runs of equal numbers in ``block [N]``.

    Raises:
        ValueError: ``length`` is below 1.
    """
    if length < 1:
        raise ValueError(f"a block holds at least one row, got {length}")
    count = len(block)
    edges = np.concatenate([[0], np.flatnonzero(np.diff(block)) + 1, [count]]) if count else np.zeros(1, np.int64)
    sizes = np.diff(edges)
    stretch = np.repeat(sizes, sizes)
    size = np.minimum(stretch, length)
    per_draw = math.floor((1.0 / size).sum() + 1e-9) if count else 0
    return BlockPlan(np.repeat(edges[:-1], sizes), stretch, size, per_draw)


def bootstrap_rows(
    block: NDArray[np.int64], length: int, rng: np.random.Generator, draws: int = 1000
) -> Iterator[NDArray[np.int64]]:
    """Row numbers of one resampled series after another, so that ``draws`` of them never lie in memory at once.

    Args:
        block: ``[N]`` number of the unbroken stretch each row belongs to.
        length: rows in a block.
        rng: source of the choice.
        draws: how many series.

    Yields:
        int64 ``[about N]`` rows: whole blocks, one after the other. Nothing where the rows hold fewer than two blocks.
    """
    plan = plan_blocks(block, length)
    if plan.per_draw < 2:
        return
    for _ in range(draws):
        starts = plan.starts(rng, 1)[0]
        sizes = plan.size[starts]
        step = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        starts = np.repeat(starts, sizes)
        first = plan.first[starts]
        yield first + (starts - first + step) % plan.stretch[starts]


def interval(
    statistic: Callable[[NDArray[np.int64]], float],
    block: NDArray[np.int64],
    length: int,
    rng: np.random.Generator,
    draws: int = 1000,
) -> tuple[float, float]:
    """95 % percentile interval of any statistic of aligned columns.

    Args:
        statistic: figure of the rows given, which come in the order of the blocks.
        block: ``[N]`` number of the unbroken stretch.
        length: rows in a block.
        rng: source of the draws.
        draws: resampled figures.

    Returns:
        ``(low, high)``; NaN where fewer than two blocks fit, or more than half of the draws give no figure.
    """
    found = np.array([statistic(rows) for rows in bootstrap_rows(block, length, rng, draws)], dtype=np.float64)
    return percentile_interval(found)


def block_bootstrap(
    values: NDArray[np.floating], block: NDArray[np.int64], length: int, rng: np.random.Generator, draws: int = 1000
) -> tuple[float, float]:
    """95 % percentile interval of the mean of a per-frame figure.

    Args:
        values: ``[N]``, NaN = missing: left out before blocks are formed, so a block may bridge missing frames of its
            stretch.
        block: ``[N]`` number of the unbroken stretch.
        length: frames in a block; longer than neighbouring frames stay alike.
        rng: source of the draws.
        draws: resampled means.

    Returns:
        ``(low, high)``; NaN where an interval cannot be told: fewer than two blocks of values (which includes 0 or 1
        values), or an infinite value among them.
    """
    finite = ~np.isnan(values)
    series = np.asarray(values[finite], dtype=np.float64)
    plan = plan_blocks(np.asarray(block)[finite], length)
    if plan.per_draw < 2 or np.isinf(series).any():
        return math.nan, math.nan
    middle = float(series.mean())  # sums of small numbers keep their digits
    sums = plan.sums(series - middle)
    means: list[NDArray[np.float64]] = []
    chunk = max(1, _MAX_CHUNK // plan.per_draw)
    for done in range(0, draws, chunk):
        starts = plan.starts(rng, min(chunk, draws - done))
        means.append(sums[starts].sum(axis=1) / plan.size[starts].sum(axis=1))
    low, high = percentile_interval(np.concatenate(means))
    return middle + low, middle + high


def percentile_interval(found: NDArray[np.floating]) -> tuple[float, float]:
    """The middle 95 % of resampled figures; NaN when there are none, or more than half of them are NaN."""
    known = found[~np.isnan(found)]
    if len(known) == 0 or 2 * len(known) < len(found):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def paired_verdict(
    ours: NDArray[np.floating],
    theirs: NDArray[np.floating],
    block: NDArray[np.int64],
    length: int,
    rng: np.random.Generator,
    higher_is_better: bool,
    draws: int = 1000,
) -> Verdict:
    """Whether ``ours [N]`` beats ``theirs [N]`` beyond the 95 % interval of the mean difference, frame by frame.

    Frames where either is missing or infinite are left out of both. Where no interval can be told the answer is
    'undecided'.
    """
    both = np.isfinite(ours) & np.isfinite(theirs)
    difference = np.asarray(ours, dtype=np.float64)[both] - np.asarray(theirs, dtype=np.float64)[both]
    low, high = block_bootstrap(difference, np.asarray(block)[both], length, rng, draws)
    if low > 0:
        return "better" if higher_is_better else "worse"
    if high < 0:
        return "worse" if higher_is_better else "better"
    return "undecided"


def circular_shift_null(
    statistic: Callable[[NDArray[np.int64]], float],
    n_rows: int,
    min_shift: int,
    rng: np.random.Generator,
    count: int = 200,
) -> NDArray[np.float64]:
    """What a statistic of two aligned series gives by chance: one of them moved on in a circle.

    Args:
        statistic: given rows ``[N]``, the figure of the first series as it is and the second taken at those rows.
        n_rows: rows N of the series.
        min_shift: least shift in rows, either way (``shift_rows``).
        rng: source of the shifts, drawn without repeating one.
        count: how many; fewer where the series has fewer such shifts.

    Returns:
        ``[up to count]`` values, empty when the series is too short for any shift.
    """
    shifts = np.arange(max(min_shift, 1), n_rows - max(min_shift, 1) + 1)
    chosen = shifts if len(shifts) <= count else np.sort(rng.choice(shifts, count, replace=False))
    rows = np.arange(n_rows)
    return np.array([statistic((rows - shift) % n_rows) for shift in chosen], dtype=np.float64)


def shift_rows(times_s: ArrayLike, seconds: float = MIN_SHIFT_S) -> int:
    """Rows of a series at ``times_s`` ``[N]`` that span at least ``seconds``; 1 where the rate cannot be told."""
    steps = np.diff(np.asarray(times_s, dtype=np.float64))
    steps = steps[steps > 0]
    return max(1, math.ceil(seconds / float(np.median(steps)) - 1e-6)) if len(steps) else 1
