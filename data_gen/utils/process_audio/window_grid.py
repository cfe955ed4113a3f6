"""Overlapping windows on a fixed grid from time 0, over sound that may arrive in pieces.

Reads: nothing. Writes: nothing.

A network that hears a window of sound answers differently near the window's edges. So windows overlap and of each only
rows with context are kept. Where they lie depends on time alone, never on how the sound arrives: a recording read in
chunks, a live stream and the whole file give the same rows. Memory holds one window, whatever the length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """Rows ``first .. stop`` are heard, of which ``keep_from .. keep_to`` (all absolute) are kept."""

    first: int
    stop: int
    keep_from: int
    keep_to: int


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """Where windows lie.

    Attributes:
        content_rows: rows a window hears at most.
        stride_rows: rows from one window to the next, each but the first keeps as many.
        after_rows: rows heard after the last one kept.
    """

    content_rows: int
    stride_rows: int
    after_rows: int

    def __post_init__(self) -> None:
        if self.stride_rows < 1 or self.after_rows < 0 or self.content_rows < self.stride_rows + self.after_rows:
            raise ValueError(f"windows of {self.content_rows} rows cannot keep {self.stride_rows} + {self.after_rows}")

    def window(self, index: int, first_keep: int) -> Window:
        """The ``index``-th window; the first one keeps ``first_keep`` rows."""
        keep_to = first_keep + index * self.stride_rows
        stop = keep_to + self.after_rows
        return Window(max(stop - self.content_rows, 0), stop, keep_to - self.stride_rows if index else 0, keep_to)

    def windows(self, n_rows: int | None, *, eager: bool = False) -> Iterator[Window]:
        """Windows that together keep each of ``n_rows`` rows exactly once; without end when None.

        Args:
            n_rows: rows of the sound.
            eager: the first window keeps one stride only (a live stream must not wait for a whole window); else as much
                as fits.
        """
        first_keep = self.stride_rows if eager else self.content_rows - self.after_rows
        for index in count():
            window = self.window(index, first_keep)
            if n_rows is not None and window.stop >= n_rows:
                yield Window(window.first, window.stop, window.keep_from, n_rows)
                return
            yield window


class SampleBuffer:
    """The last samples of a stream, by their absolute place; zeros before the start and after the end."""

    def __init__(self) -> None:
        self._first = 0
        self._samples = np.zeros(0, np.float32)

    @property
    def end(self) -> int:
        return self._first + len(self._samples)

    def append(self, piece: NDArray[np.float32]) -> None:
        self._samples = np.concatenate([self._samples, piece])

    def forget(self, before: int) -> None:
        """Samples before this place will not be read again."""
        drop = min(max(before - self._first, 0), len(self._samples))
        self._samples, self._first = self._samples[drop:], self._first + drop

    def read(self, start: int, stop: int, visible_to: int | None = None) -> NDArray[np.float32]:
        """Samples ``start .. stop``; zeros from ``visible_to`` on."""
        if self._first > max(start, 0):
            raise ValueError(f"sample {start} was asked for after it was forgotten (kept from {self._first})")
        out = np.zeros(stop - start, np.float32)
        begin, end = max(start, 0), min(stop, self.end, stop if visible_to is None else visible_to)
        if begin < end:
            out[begin - start : end - start] = self._samples[begin - self._first : end - self._first]
        return out


def windows_of_stream(
    pieces: Iterable[NDArray[np.float32]],
    grid: WindowGrid,
    samples_per_row: int,
    *,
    underread: int = 0,
    overread: int = 0,
    eager: bool = False,
) -> Iterator[tuple[Window, SampleBuffer]]:
    """Each window as soon as all it hears has arrived, with the buffer to read it from.

    Args:
        pieces: consecutive samples ``[n]``, pieces of any size.
        grid: where windows lie.
        samples_per_row: samples from one row to the next.
        underread: samples before a window's first row that are read as well.
        overread: likewise after its last one.
        eager: see ``WindowGrid.windows``.
    """
    buffer, done = SampleBuffer(), 0
    planned = grid.windows(None, eager=eager)
    window = next(planned)
    for piece in pieces:
        buffer.append(piece)
        # strictly more than the window's rows: otherwise it may turn out to be the last one, which keeps all
        while buffer.end > window.stop * samples_per_row + overread:
            yield window, buffer
            done, window = done + 1, next(planned)
            buffer.forget(window.first * samples_per_row - underread)
    n_rows = -(-buffer.end // samples_per_row)
    if n_rows == 0:
        return
    for index, window in enumerate(grid.windows(n_rows, eager=eager)):
        if index >= done:
            yield window, buffer
