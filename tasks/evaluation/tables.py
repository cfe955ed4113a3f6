"""How figures are printed: the one owner of digits, intervals, units and notes, for HTML, Markdown and the log."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from modules.structures.evaluation import EDITED
from modules.structures.scores import Better, Measure, Metric, RowScores, TrialScores
from modules.structures.transfer import TransferScore

NOT_MEASURED = "not measured"
NO_FIGURE = "no figure was made for this row"
MAX_STRETCHES = 4
MAX_NAME_LENGTH = 32
CONSOLE_LEGEND = "* result: + better, - worse, = undecided than retrieval (95 %); n/m: not measured"


@dataclass(frozen=True, slots=True)
class Cell:
    """A figure as text.

    Attributes:
        value: ``31.62``, ``∞`` or ``not measured``. interval: ``[31.20, 32.04]`` or ''.
        is_measured: there is a figure.
        count: frames or events behind it.
        note: why there is none, or what to know about it; '' for nothing.
        verdict: 'better', 'worse' or 'undecided' than retrieval; '' where none was reached.
    """

    value: str
    interval: str
    is_measured: bool
    count: int
    note: str
    verdict: str

    @property
    def text(self) -> str:
        """``31.62 [31.20, 32.04]``."""
        return f"{self.value} {self.interval}" if self.interval else self.value


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """One group of figures of a trial.

    Attributes:
        group: heading.
        columns: the group's metrics that at least one row has.
        rows: every row of the trial with a cell per column.
        notes: of the cells, each once, in reading order; numbered from 1.
    """

    group: str
    columns: tuple[Metric, ...]
    rows: tuple[tuple[RowScores, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]

    def note_number(self, cell: Cell) -> int:
        """Number of the cell's footnote, 0 for none."""
        return self.notes.index(cell.note) + 1 if cell.note else 0

    def counts(self, column: int) -> tuple[int, int]:
        """Fewest and most frames (or events) behind the figures of a column; zeros when nothing was counted."""
        counts = [cells[column].count for _, cells in self.rows if cells[column].is_measured and cells[column].count]
        return (min(counts), max(counts)) if counts else (0, 0)


@dataclass(frozen=True, slots=True)
class Coverage:
    """Frames with one outcome: ``stretches`` of frame numbers, ``(first, last)`` each."""

    outcome: str
    frames: int
    share: float
    stretches: tuple[tuple[int, int], ...]


def number_text(value: float, digits: int) -> str:
    """A number with ``digits`` after the point; ``∞`` for infinity, never ``-0.00``."""
    if math.isnan(value):
        return NOT_MEASURED
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0.0 else text


def interval_text(measure: Measure, digits: int) -> str:
    """``[low, high]``; '' where there is no interval, or where it has no width (a figure that cannot vary)."""
    if math.isnan(measure.low) or math.isnan(measure.high) or measure.low == measure.high:
        return ""
    return f"[{number_text(measure.low, digits)}, {number_text(measure.high, digits)}]"


def good_way(better: Better) -> str:
    """Which way is good, for a column's header."""
    return {"higher": "higher ↑", "lower": "lower ↓", "one": "nearest 1", "zero": "nearest 0", "none": ""}[better]


def label_of(metric: Metric) -> str:
    """``PSNR (dB)``."""
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def _mark(better: Better) -> str:
    return {"higher": " ↑", "lower": " ↓", "one": " → 1", "zero": " → 0", "none": ""}[better]


def heading(metric: Metric) -> str:
    """``PSNR (dB) ↑``: the short header, for Markdown."""
    return label_of(metric) + _mark(metric.better)


def cell_of(row: RowScores, metric: Metric) -> Cell:
    """The figure of ``row`` for ``metric`` as text."""
    measure = row.measures.get(metric.key, Measure.missing(NO_FIGURE))
    value = number_text(measure.value, metric.digits)
    note = measure.note if measure.is_measured else measure.note or "no reason was given"
    verdict = row.verdicts.get(metric.key, "") if row.is_result and measure.is_measured else ""
    return Cell(value, interval_text(measure, metric.digits), measure.is_measured, measure.count, note, verdict)


def tables_of(trial: TrialScores, metrics: Sequence[Metric]) -> tuple[Table, ...]:
    """The trial's figures by metric group, in the order of ``metrics``; groups that no row has are left out."""
    present = {key for row in trial.rows for key in row.measures}
    groups = dict.fromkeys(metric.group for metric in metrics if metric.key in present)
    return tuple(
        _table(trial, group, tuple(m for m in metrics if m.group == group and m.key in present)) for group in groups
    )


def _table(trial: TrialScores, group: str, columns: tuple[Metric, ...]) -> Table:
    rows = tuple((row, tuple(cell_of(row, metric) for metric in columns)) for row in trial.rows)
    notes = dict.fromkeys(cell.note for _, cells in rows for cell in cells if cell.note)
    return Table(group, columns, rows, tuple(notes))


def coverage_of(trial: TrialScores) -> tuple[Coverage, ...]:
    """Every frame of the trial by outcome: edited ones first, then the reasons, the most frequent first."""
    outcomes = np.array(trial.outcomes)
    counts = Counter(trial.outcomes)
    order = sorted(counts.items(), key=lambda item: (item[0] != EDITED, -item[1], item[0]))
    return tuple(
        Coverage(name, count, count / len(outcomes), _stretches(trial.frames[outcomes == name]))
        for name, count in order
    )


def _stretches(frames: Sequence[int] | np.ndarray) -> tuple[tuple[int, int], ...]:
    """Ascending frame numbers as unbroken stretches."""
    runs = [[int(f) for _, f in run] for _, run in groupby(enumerate(frames), key=lambda item: item[1] - item[0])]
    return tuple((run[0], run[-1]) for run in runs)


def stretches_text(stretches: Sequence[tuple[int, int]]) -> str:
    """``12–40, 55 and 3 more stretches``."""
    shown = ", ".join(f"{a}–{b}" if b > a else str(a) for a, b in stretches[:MAX_STRETCHES])
    left = len(stretches) - MAX_STRETCHES
    return f"{shown} and {left} more stretch{'es' if left > 1 else ''}" if left > 0 else shown


def verdicts_of(row: RowScores, metrics: Sequence[Metric]) -> dict[str, list[str]]:
    """Labels of the metrics in which a result row is 'better', 'worse' and 'undecided', empty ones included."""
    cells = [(metric.label, cell_of(row, metric).verdict) for metric in metrics]
    return {verdict: [label for label, v in cells if v == verdict] for verdict in ("better", "worse", "undecided")}


def markdown_tables(trial: TrialScores, metrics: Sequence[Metric]) -> str:
    """The trial as compact Markdown: a table per group, results in bold, notes below the tables."""
    lines = [f"**{_markdown(trial.name)}** ({trial.protocol}, {len(trial.frames)} frames)", ""]
    for table in tables_of(trial, metrics):
        lines.append(f"| {_markdown(table.group)} | {' | '.join(_markdown(heading(m)) for m in table.columns)} |")
        lines.append("|---" + "|--:" * len(table.columns) + "|")
        for row, cells in table.rows:
            texts = [_markdown_cell(cell, table.note_number(cell), row.is_result) for cell in cells]
            name = _markdown(row.name)
            lines.append(f"| {f'**{name}**' if row.is_result else name} | {' | '.join(texts)} |")
        lines.append("")
        if table.notes:
            lines += ["; ".join(f"({i}) {_markdown(note)}" for i, note in enumerate(table.notes, 1)) + ".", ""]
    return "\n".join(lines)


def _markdown_cell(cell: Cell, note: int, is_result: bool) -> str:
    value = f"**{cell.value}**" if is_result and cell.is_measured else cell.value if cell.is_measured else "–"
    parts = (value, cell.interval, cell.verdict, f"({note})" if note else "")
    return " ".join(part for part in parts if part)


def _markdown(text: str) -> str:
    for mark in "\\|*_`<[":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def console_table(trial: TrialScores, metrics: Sequence[Metric], keys: Collection[str]) -> str:
    """The figures ``keys`` of every row, aligned for a monospaced log, without intervals.

    Results are marked with ``*``, and each of their figures with ``+``, ``-`` or ``=``: better, worse, or undecided
    than the retrieval baseline.
    """
    columns = [metric for metric in metrics if metric.key in keys]
    lines = [["", *(f"{metric.label}{_mark(metric.better)}  " for metric in columns)]]
    for row in trial.rows:
        name = ("* " if row.is_result else "  ") + shortened(row.name)
        lines.append([name, *(_console_cell(cell_of(row, metric)) for metric in columns)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rows = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]
    return "\n".join([f"{trial.name} ({trial.protocol}, {len(trial.frames)} frames)", *rows, CONSOLE_LEGEND])


def _console_cell(cell: Cell) -> str:
    mark = {"better": " +", "worse": " -", "undecided": " ="}.get(cell.verdict, "  ")
    return (cell.value if cell.is_measured else "n/m") + mark


def shortened(name: str, length: int = MAX_NAME_LENGTH) -> str:
    """A name cut to ``length`` characters, the cut marked."""
    return name if len(name) <= length else name[: length - 1].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class TransferTable:
    """Frames under other frames' motion as text: ``rows`` of a name and a cell for each of ``heads``."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def transfer_table(scores: Sequence[TransferScore]) -> TransferTable:
    """Rows by what was shown, columns by how much later the motion was; lower face / mouth in dB, and frames."""
    delays, names = dict.fromkeys(s.late_s for s in scores), dict.fromkeys(s.row for s in scores)
    found = {(score.late_s, score.row): score for score in scores}
    rows = tuple((name, tuple(_transfer_cell(found.get((late, name))) for late in delays)) for name in names)
    return TransferTable(tuple(f"{late:g} s later" for late in delays), rows)


def _transfer_cell(score: TransferScore | None) -> str:
    if score is None or score.frames == 0:
        return "no comparable frame"
    figures = (number_text(value, 2) for value in (score.lower_face_db, score.mouth_db))
    return f"{' / '.join(figures)} ({score.frames})"


TRANSFER_ABOUT = (
    "Frame t under the tracked motion of a later frame, against that frame carried to the pose of t: PSNR in dB over "
    "the lower face / the mouth, in brackets how many held-out frames in similar poses say something else."
)


def transfer_markdown(scores: Sequence[TransferScore]) -> str:
    """As compact Markdown; '' where nothing was measured."""
    if not scores:
        return ""
    table = transfer_table(scores)
    lines = ["**another frame's motion**", "", TRANSFER_ABOUT, "", f"| | {' | '.join(table.heads)} |"]
    lines.append("|---" + "|--:" * len(table.heads) + "|")
    lines += [f"| {_markdown(name)} | {' | '.join(cells)} |" for name, cells in table.rows]
    return "\n".join([*lines, ""])
