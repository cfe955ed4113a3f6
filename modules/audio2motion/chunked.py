"""Long sound in pieces: constant memory, and the same motion as in one go.

Pieces lie on a fixed grid from the file's start, and each is predicted with context on both sides. The context is
longer than any member's reach; a recurrent member forgets over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

CHUNK_ROWS = 1500
CONTEXT_ROWS = 300
"""6 s at 50 Hz. 2 s are enough for the shipped members: ten minutes in pieces then differ from the whole by 6e-8."""

Answer = Callable[[Tensor, int], Tensor]
"""Rows ``[n, C]`` and the file's row number of the first of them, to ``[n, U]``."""


def answer_in_chunks(
    rows: Iterable[Tensor], answer: Answer, *, chunk_rows: int = CHUNK_ROWS, context_rows: int = CONTEXT_ROWS
) -> Iterator[Tensor]:
    """Predict a stream of rows.

    Args:
        rows: consecutive pieces ``[n, C]`` of any lengths.
        answer: the prediction; called with ``chunk_rows + 2 · context_rows`` rows at most.
        chunk_rows: rows of a piece's answer, a multiple of a variational member's stride.
        context_rows: further rows heard on each side, likewise.

    Yields:
        ``[n, U]``, as many rows in all as came in; ``chunk_rows`` each but for the last.

    Raises:
        ValueError: sizes that cannot be.
    """
    if chunk_rows < 1 or context_rows < 0:
        raise ValueError(f"needs chunk_rows >= 1 and context_rows >= 0, got {chunk_rows} and {context_rows}")
    held: Tensor | None = None  # rows from ``held_from`` on
    held_from, start = 0, 0
    for piece in rows:
        held = piece if held is None else torch.cat([held, piece])
        while held_from + len(held) >= start + chunk_rows + context_rows:
            yield _chunk(held, held_from, start, start + chunk_rows, context_rows, answer)
            start += chunk_rows
            drop = max(0, start - context_rows - held_from)
            held, held_from = held[drop:].clone(), held_from + drop
    while held is not None and start < held_from + len(held):
        end = min(start + chunk_rows, held_from + len(held))
        yield _chunk(held, held_from, start, end, context_rows, answer)
        start = end


def _chunk(held: Tensor, held_from: int, start: int, end: int, context: int, answer: Answer) -> Tensor:
    """Rows ``start .. end`` of the file, predicted with context."""
    first = max(0, start - context)
    seen = held[first - held_from : end + context - held_from]
    return answer(seen, first)[start - first : end - first]
