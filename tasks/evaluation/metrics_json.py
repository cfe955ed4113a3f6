"""Writes: metrics.json, every figure of an evaluation for other programs.

Strict JSON: what was not measured is ``null`` (measures keep the note that says why), infinity is the string ``"inf"``
or ``"-inf"``. Per-frame arrays hold one entry per entry of ``frames``; the predicted opening has its own rate.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modules.structures.evaluation import SpeechTrack
from modules.structures.scores import Evaluation, Measure, Metric, RowScores, TrialScores
from modules.structures.transfer import transfer_record
from tasks.evaluation.files import write_parts
from tasks.evaluation.tables import coverage_of

EVALUATION_SCHEMA = "evaluation/1"
MEASURE_DIGITS = 8
FRAME_DIGITS = 5
"""Significant digits: a per-frame value comes from 8-bit pictures or landmarks, no more certain than this."""


def write_metrics_json(evaluation: Evaluation, path: Path) -> None:
    """Write everything ``evaluation`` holds, keys in a fixed order, through a temporary name.

    Raises:
        OutputError: the file cannot be written.
    """
    order = [metric.key for metric in evaluation.metrics]
    data = {
        "schema": EVALUATION_SCHEMA,
        "source": str(evaluation.source),
        "facts": dict(sorted(evaluation.facts.items())),
        "command": evaluation.command,
        "versions": dict(sorted(evaluation.versions.items())),
        "seed": int(evaluation.seed),
        "metrics": [_metric(metric) for metric in evaluation.metrics],
        "trials": [_trial(trial, order) for trial in evaluation.trials],
        "transfer": transfer_record(evaluation.transfer),
        "sheets": [{"title": title, "file": str(file)} for title, file in evaluation.sheets],
        "clips": [{"title": title, "file": str(file)} for title, file in evaluation.clips],
    }
    write_parts(path, (*_pieces(data, ""), "\n"))


def _metric(metric: Metric) -> dict[str, Any]:
    names = ("key", "group", "label", "unit", "better", "digits", "is_per_frame", "about")
    return {name: getattr(metric, name) for name in names}


def _trial(trial: TrialScores, order: list[str]) -> dict[str, Any]:
    return {
        "name": trial.name,
        "protocol": trial.protocol,
        "notes": list(trial.notes),
        "coverage": {part.outcome: part.frames for part in coverage_of(trial)},
        "rows": [_row(row, order) for row in trial.rows],
        "frames": trial.frames.tolist(),
        "times_s": [round(time, 6) for time in trial.times_s.tolist()],
        "block": trial.block.tolist(),
        "outcomes": list(trial.outcomes),
        "speech": _speech(trial.speech),
    }


def _row(row: RowScores, order: list[str]) -> dict[str, Any]:
    return {
        "name": row.name,
        "is_result": row.is_result,
        "about": row.about,
        "measures": {key: _measure(row.measures[key]) for key in _in_order(row.measures, order)},
        "verdicts": {key: row.verdicts[key] for key in _in_order(row.verdicts, order)},
        "frames": {key: _numbers(row.frames[key].tolist()) for key in _in_order(row.frames, order)},
    }


def _measure(measure: Measure) -> dict[str, Any]:
    value, low, high = (_number(v, MEASURE_DIGITS) for v in (measure.value, measure.low, measure.high))
    return {"value": value, "low": low, "high": high, "count": int(measure.count), "note": measure.note}


def _speech(speech: SpeechTrack | None) -> dict[str, Any] | None:
    if speech is None:
        return None
    return {
        "rate_hz": speech.rate_hz,
        "opening": _numbers(speech.opening.tolist()),
        "level_db": _numbers(speech.level_db.tolist()),
        "is_speech": speech.is_speech.tolist(),
    }


def _in_order(keys: Collection[str], order: list[str]) -> list[str]:
    """The metrics' order, then what is no metric by name."""
    return [key for key in order if key in keys] + sorted(set(keys) - set(order))


def _numbers(values: Iterable[float]) -> list[float | str | None]:
    return [_number(value, FRAME_DIGITS) for value in values]


def _number(value: float, digits: int) -> float | str | None:
    """A number that strict JSON can hold, rounded to significant digits."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return float(f"{value:.{digits}g}")


def _pieces(value: Any, indent: str) -> Iterator[str]:
    """JSON text with one key a line, but each list of plain values on one line."""
    inner = indent + " "
    if isinstance(value, Mapping) and value:
        for number, (key, item) in enumerate(value.items()):
            yield f"{'{' if number == 0 else ','}\n{inner}{json.dumps(key, ensure_ascii=False)}: "
            yield from _pieces(item, inner)
        yield f"\n{indent}}}"
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield f"{'[' if number == 0 else ','}\n{inner}"
            yield from _pieces(item, inner)
        yield f"\n{indent}]"
    else:
        yield json.dumps(value, ensure_ascii=False, allow_nan=False)
