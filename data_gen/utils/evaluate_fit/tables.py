"""What an evaluation of the fit found, as tables: the data and its Markdown and JSON forms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modules.structures.scores import Measure

FIT_SCHEMA = "fit-evaluation/1"


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of a table: its key, heading and digits after the point."""

    key: str
    label: str
    digits: int = 2


@dataclass(frozen=True, slots=True)
class Row:
    """One line: what was measured, and how it was fitted."""

    name: str
    variant: str
    measures: Mapping[str, Measure]


@dataclass(frozen=True, slots=True)
class Table:
    """Figures of one part of the evaluation.

    Attributes:
        key: name in fit.json. title: heading.
        columns, rows: a row without a column's key shows a dash there.
        notes: definitions, one sentence or two each.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FitReport:
    """Everything that was found.

    Attributes:
        command: that made it. facts: machine, versions and settings, label and value.
        tables: in the order of the parts.
    """

    command: str
    facts: Mapping[str, str]
    tables: tuple[Table, ...]


def markdown(report: FitReport) -> str:
    """The report as Markdown."""
    lines = ["# Evaluation of the face-model fit", "", f"`{report.command}`", ""]
    lines += [f"- {label}: {value}" for label, value in report.facts.items()]
    for table in report.tables:
        lines += ["", f"## {table.title}", "", *_table_lines(table)]
        if table.notes:
            lines += ["", *(f"- {note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def _table_lines(table: Table) -> list[str]:
    heads = ["", "fit", *(column.label for column in table.columns)]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|" + "---:|" * len(table.columns)]
    for row in table.rows:
        cells = [_cell(row.measures.get(column.key), column.digits) for column in table.columns]
        lines.append("| " + " | ".join([row.name, row.variant, *cells]) + " |")
    return lines


def _cell(measure: Measure | None, digits: int) -> str:
    if measure is None or not measure.is_measured:
        return "–"
    text = f"{measure.value:.{digits}f}"
    if math.isnan(measure.low):
        return text
    return f"{text} ({measure.low:.{digits}f}–{measure.high:.{digits}f})"


def as_json(report: FitReport) -> dict[str, Any]:
    """What ``fit.json`` holds; missing figures are null."""
    return {
        "schema": FIT_SCHEMA,
        "command": report.command,
        "facts": dict(report.facts),
        "tables": [
            {
                "key": table.key,
                "title": table.title,
                "columns": {column.key: column.label for column in table.columns},
                "rows": [
                    {
                        "name": row.name,
                        "fit": row.variant,
                        "measures": {k: _figure(m) for k, m in row.measures.items()},
                    }
                    for row in table.rows
                ],
                "notes": list(table.notes),
            }
            for table in report.tables
        ],
    }


def _figure(measure: Measure) -> dict[str, Any]:
    def number(value: float) -> float | None:
        return round(value, 6) if math.isfinite(value) else None

    interval = {"low": number(measure.low), "high": number(measure.high)}
    return {"value": number(measure.value), **interval, "count": measure.count, "note": measure.note}
