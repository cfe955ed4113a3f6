"""The evaluation as a table to read and a file to compare with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tasks.audio2motion.agreement import Row, SilenceFigures
from tasks.audio2motion.measures import DISTANCES, MEASURES

EVALUATION_SCHEMA = "audio2motion-evaluation/1"


@dataclass(frozen=True, slots=True)
class Check:
    """One more figure, in words.

    Attributes:
        what: was measured. value: of it. target: what is aimed at, in words.
        met: whether it is reached; None where there is nothing to reach.
    """

    what: str
    value: str
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything that was measured.

    Attributes:
        rows: of the table, the model's first. n_clips: kept. n_speakers: among them.
        checks: the other figures. command: that made them.
    """

    rows: Sequence[Row]
    n_clips: int
    n_speakers: int
    checks: Sequence[Check] = field(default=())
    command: str = ""


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Plain values: every row with its figures and how each clip did."""
    return {
        "schema": EVALUATION_SCHEMA,
        "command": evaluation.command,
        "clips": evaluation.n_clips,
        "speakers": evaluation.n_speakers,
        "rows": [_row_json(row) for row in evaluation.rows],
        "checks": [asdict(check) for check in evaluation.checks],
    }


def _row_json(row: Row) -> dict[str, Any]:
    closures = None
    if row.closures is not None:
        counts = asdict(row.closures)
        closures = counts | {"recall": _known(row.closures.recall), "precision": _known(row.closures.precision)}
    return {
        "title": row.title,
        "measures": {name: asdict(figure) for name, figure in row.figures.items()},
        "has_spread": row.has_spread,
        "lag_share": row.lag_share,
        "closures": closures,
        "clips": {
            clip.name: {
                "r": dict(zip(MEASURES, clip.correlation.round(4).tolist(), strict=True)),
                "lag_rows": clip.lag_rows,
            }
            for clip in row.clips
        },
    }


def _known(value: float) -> float | None:
    """None for NaN, which JSON does not know."""
    return None if math.isnan(value) else value


def as_markdown(stored: Mapping[str, Any]) -> str:
    """The table and the checks of ``as_json``, with what they mean."""
    heads = [f"{name} | spread" if name in DISTANCES else name for name in MEASURES]
    lines = [
        f"{stored['clips']} clips of {stored['speakers']} speakers, whole speakers left out. Correlation over all",
        "rows of a clip with what was tracked in its video, mean over clips [95 % interval over resampled speakers];",
        "spread is that of the prediction over the true one (median over clips). Closures are events of at least two",
        "frames, with a threshold from the other folds.",
        "",
        "| | " + " | ".join(heads) + " | lag 0 ± 1 frame | closures found / true |",
        "|---|" + "---|" * (len(MEASURES) + len(DISTANCES) + 2),
    ]
    lines += [_line(row) for row in stored["rows"]]
    if stored["checks"]:
        lines += ["", "| also measured | | aim |", "|---|---|---|"]
        lines += [f"| {c['what']} | {c['value']} | {c['target']}{_mark(c['met'])} |" for c in stored["checks"]]
    return "\n".join(lines) + "\n"


def _line(row: Mapping[str, Any]) -> str:
    cells = []
    for name in MEASURES:
        figure = row["measures"][name]
        cells.append(f"{figure['r_mean']:.3f} [{figure['r_low']:.2f}, {figure['r_high']:.2f}]")
        if name in DISTANCES:
            cells.append(f"{figure['spread_median']:.2f}" if row["has_spread"] else "–")
    closures = row["closures"]
    shares = "–"
    if closures is not None and closures["recall"] is not None and closures["precision"] is not None:
        shares = f"{closures['recall']:.2f} / {closures['precision']:.2f}"
    return f"| {row['title']} | " + " | ".join([*cells, f"{100 * row['lag_share']:.0f} %", shares]) + " |"


def _mark(met: bool | None) -> str:
    return "" if met is None else (" (reached)" if met else " (missed)")


def silence_checks(silence: SilenceFigures) -> list[Check]:
    """What silence is to be like."""
    count = f" ({silence.count} silences)"
    still, shut = silence.motion_share, silence.shut_share
    return [
        Check("mouth speed in silence, over that in speech", f"{100 * still:.1f} %{count}", "≤ 10 %", still <= 0.1),
        Check("silences with lips shut 0.2 s after speech", f"{100 * shut:.0f} %{count}", "all", shut >= 1.0),
    ]


def target_checks(model: Row, unstretched: Row) -> list[Check]:
    """What the model's own row is to reach."""
    goals = {"opening": 0.80, "width": 0.72, "jawOpen": 0.70, "mouthFunnel": 0.50, "mouthPucker": 0.63}
    checks = [
        Check(f"r of {name}", f"{model.figures[name].r_mean:.3f}", f"≥ {goal}", model.figures[name].r_mean >= goal)
        for name, goal in goals.items()
    ]
    lag = model.lag_share
    checks.append(Check("clips with best lag 0 ± 1 frame", f"{100 * lag:.0f} %", "≥ 95 %", lag >= 0.95))
    for name in DISTANCES:
        spread = model.figures[name].spread_median
        lost = unstretched.figures[name].r_mean - model.figures[name].r_mean
        met = 0.9 <= spread <= 1.1 and lost <= 0.02
        checks.append(Check(f"spread of {name}, and r lost to it", f"{spread:.2f}, {lost:.3f}", "0.9–1.1, ≤ 0.02", met))
    if model.closures is not None:
        recall, precision = model.closures.recall, model.closures.precision
        met = recall >= 0.915 and precision >= 0.68
        checks.append(
            Check("closure events: recall / precision", f"{recall:.2f} / {precision:.2f}", "≥ 0.92 / 0.68", met)
        )
    return checks
