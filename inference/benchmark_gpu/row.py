"""One measured figure beside what it is to reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuRow:
    """A line of a GPU table.

    Attributes:
        table: which table it belongs to.
        what: what was measured, in a phrase.
        value, unit: the median and its unit.
        goal: what is asked for ("<= 0.5"), or the baseline it stands beside; empty where there is none.
        spread: least and greatest of the repeats, where it was repeated.
        detail: sizes, counts, bytes, operations: what a reader needs to judge the figure.
    """

    table: str
    what: str
    value: float
    unit: str
    goal: str = ""
    spread: tuple[float, float] | None = None
    detail: str = ""
