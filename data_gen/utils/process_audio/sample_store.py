"""Samples that arrive in pieces, kept in memory while they are few and in an unnamed file when they are many.

Reads: nothing. Writes: an unnamed temporary file, which goes when the last array over it does.

Three hours at 16 kHz are 690 MB: mapped from a file they cost address space, not memory.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import IO

import numpy as np
from numpy.typing import NDArray

IN_MEMORY_SAMPLES = 10_000_000
"""Up to this many (10 min at 16 kHz, 40 MB) no file is used."""
PIECE_SAMPLES = 1 << 20
"""Long sound is worked through in pieces of about a minute."""


class SampleStore:
    """Joins pieces ``[n]`` to one float32 array."""

    def __init__(self, in_memory_samples: int = IN_MEMORY_SAMPLES) -> None:
        self._limit = in_memory_samples
        self._pieces: list[NDArray[np.float32]] = []
        self._file: IO[bytes] | None = None
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def append(self, piece: NDArray[np.float32]) -> None:
        """Put ``piece`` behind what is there."""
        self._length += len(piece)
        self._pieces.append(np.ascontiguousarray(piece, np.float32))
        if self._file is None and self._length > self._limit:
            self._file = tempfile.TemporaryFile(prefix="sound-", suffix=".f32")  # noqa: SIM115 - the array keeps it
        if self._file is not None:
            for waiting in self._pieces:
                self._file.write(waiting.data)
            self._pieces.clear()

    def append_silence(self, count: int) -> None:
        """``count`` zeros."""
        for start in range(0, count, PIECE_SAMPLES):
            self.append(np.zeros(min(PIECE_SAMPLES, count - start), np.float32))

    def array(self) -> NDArray[np.float32]:
        """All samples ``[N]``; nothing may be appended afterwards."""
        if self._file is not None:
            self._file.flush()
            return np.memmap(self._file, np.float32, "r+", shape=(self._length,))
        return np.concatenate(self._pieces) if self._pieces else np.zeros(0, np.float32)


def pieces_of(samples: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Samples ``[N]`` in order, about a minute at a time."""
    for start in range(0, len(samples), PIECE_SAMPLES):
        yield samples[start : start + PIECE_SAMPLES]


def mapped(
    samples: NDArray[np.float32], function: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """``function`` (sample by sample) of ``samples``, in bounded memory; ``samples`` stay as they are."""
    store = SampleStore()
    for piece in pieces_of(samples):
        store.append(function(piece))
    return store.array()
