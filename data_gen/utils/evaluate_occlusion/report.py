"""The evaluation of masks as a table: Markdown to read, JSON to compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data_gen.utils.evaluate_occlusion.judging import EVIDENCE, CleanScores, Evidence
from modules.metrics.occlusion import SequenceScores

REPORT_SCHEMA = "occlusion-evaluation/1"
SCORES: tuple[tuple[str, str], ...] = (
    ("iou", "IoU"),
    ("worst_iou", "IoU, worst 10 %"),
    ("iou_around", "IoU, 10 % around"),
    ("outline_f", "outline F (2 px)"),
    ("sharp_outline_f", "outline F, sharp"),
    ("recall", "recall (2 px)"),
    ("precision", "precision (2 px)"),
    ("found_after", "found after, frames"),
    ("flicker", "flicker / true"),
    ("edited", "edited %"),
    ("false_share", "false %"),
)
PERCENT = frozenset({"edited", "false_share"})


@dataclass(frozen=True, slots=True)
class SequenceRow:
    """One sequence judged by one kind of evidence."""

    name: str
    kind: str
    thin: bool
    painted: bool
    evidence: Evidence
    scores: SequenceScores


@dataclass(frozen=True, slots=True)
class CleanRow:
    """One clip with nothing before the face."""

    name: str
    evidence: Evidence
    scores: CleanScores


@dataclass(frozen=True, slots=True)
class OcclusionReport:
    """Everything that was found. ``facts``: the command, the machine and what it took, label and value."""

    facts: Mapping[str, str]
    sequences: tuple[SequenceRow, ...]
    clean: tuple[CleanRow, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Means over the sequences of a group. ``flicker`` is the ratio of the sums, ``found_after`` the worst."""

    group: str
    evidence: Evidence
    count: int
    scores: Mapping[str, float]


def summaries(rows: Sequence[SequenceRow]) -> list[Summary]:
    """Wide and thin things, and both, by evidence."""
    found = []
    kinds: list[Evidence] = [kind for kind in EVIDENCE if any(row.evidence == kind for row in rows)]
    for evidence in kinds:
        mine = [row for row in rows if row.evidence == evidence]
        groups = (
            ("wide", [row for row in mine if not row.thin]),
            ("thin", [row for row in mine if row.thin]),
            ("all", mine),
        )
        found += [Summary(name, evidence, len(group), _means(group)) for name, group in groups if group]
    return found


def _means(rows: Sequence[SequenceRow]) -> dict[str, float]:
    means = {}
    for key, _ in SCORES:
        values = np.array([getattr(row.scores, key) for row in rows])
        values = values[np.isfinite(values)]
        means[key] = float(values.mean()) if len(values) else math.nan
    waits = [row.scores.found_after for row in rows if math.isfinite(row.scores.found_after)]
    means["found_after"] = max(waits) if waits else math.nan
    change, true = (sum(getattr(row.scores, key) for row in rows) for key in ("change", "true_change"))
    means["flicker"] = change / true if true else math.nan
    return means


def markdown(report: OcclusionReport) -> str:
    """The report as Markdown."""
    lines = ["# Evaluation of what stands before faces", ""]
    lines += [f"- {label}: {value}" for label, value in report.facts.items()]
    heads = [label for _, label in SCORES]
    lines += ["", "## Summary", "", _line(["things", "evidence", "sequences", *heads]), _rule(3, len(heads))]
    for one in summaries(report.sequences):
        lines.append(_line([one.group, one.evidence, str(one.count), *_cells(one.scores)]))
    lines += ["", "## Sequences", "", _line(["sequence", "thing", "evidence", *heads]), _rule(3, len(heads))]
    for row in report.sequences:
        kind = f"{row.kind} (thin)" if row.thin else row.kind
        lines.append(_line([row.name, kind, row.evidence, *_cells(asdict(row.scores))]))
    if report.clean:
        lines += ["", "## Clips with nothing before the face", ""]
        lines += [_line(["clip", "evidence", "false %", "worst frame %", "frames hit %"]), _rule(2, 3)]
        for clean in report.clean:
            shares = (clean.scores.false_share, clean.scores.worst_share, clean.scores.frames_hit)
            lines.append(_line([clean.name, clean.evidence, *(f"{100 * share:.2f}" for share in shares)]))
    return "\n".join(lines) + "\n"


def _cells(scores: Mapping[str, float]) -> list[str]:
    cells = []
    for key, _ in SCORES:
        value = scores[key] * (100 if key in PERCENT else 1)
        digits = 0 if key == "found_after" else 2 if key in PERCENT else 3
        cells.append(f"{value:.{digits}f}" if math.isfinite(value) else "–")
    return cells


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(texts: int, figures: int) -> str:
    return "|" + "---|" * texts + "---:|" * figures


def as_json(report: OcclusionReport) -> dict[str, Any]:
    """What ``occlusion.json`` holds; what cannot be told is null."""
    return {
        "schema": REPORT_SCHEMA,
        "facts": dict(report.facts),
        "summary": [
            {"things": s.group, "evidence": s.evidence, "sequences": s.count, "scores": _numbers(s.scores)}
            for s in summaries(report.sequences)
        ],
        "sequences": [{**_fields(row), "scores": _numbers(asdict(row.scores))} for row in report.sequences],
        "clean": [
            {"name": row.name, "evidence": row.evidence, "scores": _numbers(asdict(row.scores))} for row in report.clean
        ],
    }


def _fields(row: SequenceRow) -> dict[str, Any]:
    return {
        "name": row.name, "kind": row.kind, "thin": row.thin, "painted": row.painted, "evidence": row.evidence,
    }  # fmt: skip


def _numbers(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {key: round(value, 6) if math.isfinite(value) else None for key, value in scores.items()}
