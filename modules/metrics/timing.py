"""How long work takes and how much memory it needs: repeated runs, their spread, and the growth of resident memory."""

from __future__ import annotations

import ctypes
import gc
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_STATM = Path("/proc/self/statm")
"""Linux: sizes of this process in pages; the second is what lies in memory."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Middle and ends of repeated measurements.

    Attributes:
        median: the middle one, or the mean of the middle two.
        low: the smallest.
        high: the largest.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one finite value, any unit.

        Raises:
            ValueError: there is none, or one is not finite.
        """
        if not values or not all(math.isfinite(value) for value in values):
            raise ValueError(f"a spread needs finite values, got {list(values)}")
        return cls(statistics.median(values), min(values), max(values))

    def scaled(self, factor: float) -> Spread:
        """The same in another unit; ``factor`` is positive."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


def timed_runs(
    run: Callable[[], object],
    repeats: int,
    *,
    settle: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[float]:
    """Seconds of each of ``repeats`` runs; nothing between two runs counts.

    Args:
        run: the work.
        repeats: how often, at least 1.
        settle: waits for work that ``run`` only began (a GPU's queue), before the first run and at the end of each.
        clock: seconds, rising.

    Raises:
        ValueError: ``repeats`` is below 1.
    """
    if repeats < 1:
        raise ValueError(f"something must be run at least once, got {repeats} repeats")
    for _ in range(repeats):
        if settle is not None:
            settle()
        started = clock()
        run()
        if settle is not None:
            settle()
        yield clock() - started


def resident_bytes() -> int | None:
    """Bytes of this process that lie in memory (resident set size); None where the system does not say (no Linux)."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def release_free_memory() -> None:
    """Hand memory that earlier work has freed back to the system, so that later work is seen to need it."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed blocks otherwise
    except (AttributeError, OSError, TypeError):
        return


class PeakMemory:
    """How far this process's memory grows inside a ``with`` block, looked at every few milliseconds by a thread.

    ``rise_bytes`` is the largest value seen less the one at the start: at least 0; None where memory cannot be read.
    A peak shorter than the interval can be missed.

    Args:
        read: bytes in use now, or None.
        interval_s: seconds between two looks.

    Example:
        >>> with PeakMemory() as memory:
        ...     block = bytes(1000)
        >>> memory.rise_bytes is None or memory.rise_bytes >= 0
        True
    """

    def __init__(self, read: Callable[[], int | None] = resident_bytes, interval_s: float = 0.002) -> None:
        self._read = read
        self._interval_s = interval_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)
        self._first: int | None = None
        self._peak = 0

    def __enter__(self) -> PeakMemory:
        self._first = self._read()
        if self._first is not None:
            self._peak = self._first
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._first is None:
            return
        self._ended.set()
        self._thread.join()
        self._look()

    @property
    def rise_bytes(self) -> int | None:
        return None if self._first is None else self._peak - self._first

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            self._look()

    def _look(self) -> None:
        self._peak = max(self._peak, self._read() or 0)
