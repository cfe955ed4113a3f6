"""How figures are printed."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from modules.structures.evaluation import EDITED
from modules.structures.scores import Measure, Metric, RowScores, TrialScores
from modules.structures.transfer import UNTOUCHED, TransferScore
from tasks.evaluation.report import write_report
from tasks.evaluation.tables import (
    CONSOLE_LEGEND,
    NO_FIGURE,
    NOT_MEASURED,
    cell_of,
    console_table,
    coverage_of,
    heading,
    interval_text,
    markdown_tables,
    number_text,
    shortened,
    stretches_text,
    tables_of,
    transfer_markdown,
    transfer_table,
    verdicts_of,
)
from tests.support.made_up_evaluation import made_up_evaluation

PSNR = Metric("psnr", "Picture", "PSNR", "dB", "higher", 2, "")
SSIM = Metric("ssim", "Picture", "SSIM", "", "higher", 4, "")
LAG = Metric("lag", "Lips", "Lag", "ms", "zero", 0, "", is_per_frame=False)
METRICS = (PSNR, SSIM, LAG)


def row(name: str, measures: dict[str, Measure], *, is_result: bool = False, verdicts=None) -> RowScores:
    return RowScores(name, is_result, "", measures, {}, verdicts or {})


def trial(*rows: RowScores, outcomes: tuple[str, ...] = (EDITED,) * 4, frames=(0, 1, 2, 3)) -> TrialScores:
    numbers = np.array(frames)
    return TrialScores("t", "dubbing", numbers, numbers / 25.0, numbers * 0, outcomes, None, rows)


TRIAL = trial(
    row("truth", {"psnr": Measure(math.inf, math.inf, math.inf, 4, "identical"), "lag": Measure(-0.4, -3.0, 2.0, 7)}),
    row(
        "ours | <b>",
        {"psnr": Measure(31.625, 31.0, 32.25, 3), "ssim": Measure.missing("too small"), "lag": Measure(20.0)},
        is_result=True,
        verdicts={"psnr": "better", "ssim": "worse", "lag": "undecided"},
    ),
)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (31.625, 1, "31.6"),
        (-0.004, 2, "0.00"),
        (-0.005001, 2, "-0.01"),
        (0.0, 0, "0"),
        (math.inf, 2, "∞"),
        (-math.inf, 2, "-∞"),
        (math.nan, 2, NOT_MEASURED),
    ],
)
def test_numbers(value: float, digits: int, text: str):
    assert number_text(value, digits) == text


def test_an_interval_is_printed_when_it_has_a_width():
    assert interval_text(Measure(1.0, 0.5, 1.25), 2) == "[0.50, 1.25]"
    assert interval_text(Measure(1.0, 0.9999, 1.0001), 2) == "[1.00, 1.00]"  # narrow is not none
    assert interval_text(Measure(1.0), 2) == ""
    assert interval_text(Measure(0.0, 0.0, 0.0), 2) == ""
    assert interval_text(Measure(math.inf, math.inf, math.inf), 2) == ""


def test_headings_say_unit_and_way():
    assert heading(PSNR) == "PSNR (dB) ↑"
    assert heading(LAG) == "Lag (ms) → 0"
    assert heading(replace(SSIM, better="none")) == "SSIM"


def test_cells():
    truth, ours = TRIAL.rows
    assert cell_of(ours, PSNR).text == "31.62 [31.00, 32.25]" and cell_of(ours, PSNR).verdict == "better"
    missing = cell_of(ours, SSIM)
    assert (missing.text, missing.note, missing.is_measured, missing.verdict) == (NOT_MEASURED, "too small", False, "")
    assert cell_of(truth, SSIM).note == NO_FIGURE
    assert cell_of(row("r", {"psnr": Measure(math.nan)}), PSNR).note == "no reason was given"
    reference = replace(ours, is_result=False)
    assert cell_of(reference, PSNR).verdict == ""  # a verdict belongs to results


def test_tables_keep_order_and_leave_out_only_what_no_row_has():
    picture, lips = tables_of(TRIAL, METRICS)
    assert (picture.group, lips.group) == ("Picture", "Lips")
    assert picture.columns == (PSNR, SSIM) and len(picture.rows) == 2
    assert picture.notes == ("identical", NO_FIGURE, "too small")
    assert [picture.note_number(cell) for _, cells in picture.rows for cell in cells] == [1, 2, 0, 3]
    assert picture.counts(0) == (3, 4) and picture.counts(1) == (0, 0)
    without = trial(row("a", {"lag": Measure(1.0)}))
    assert [table.group for table in tables_of(without, METRICS)] == ["Lips"]


def test_coverage_counts_every_frame():
    outcomes = (EDITED, "hand", "hand", "turned", EDITED, "hand")
    found = coverage_of(trial(outcomes=outcomes, frames=(10, 11, 12, 13, 20, 21)))
    assert [(c.outcome, c.frames) for c in found] == [(EDITED, 2), ("hand", 3), ("turned", 1)]
    assert sum(c.share for c in found) == pytest.approx(1.0)
    assert found[0].stretches == ((10, 10), (20, 20)) and found[1].stretches == ((11, 12), (21, 21))
    assert coverage_of(trial(outcomes=("hand",) * 4))[0].outcome == "hand"


def test_stretches_are_cut_and_say_so():
    many = tuple((10 * i, 10 * i + (i % 2)) for i in range(6))
    assert stretches_text(many[:3]) == "0, 10–11, 20"
    assert stretches_text(many[:5]) == "0, 10–11, 20, 30–31 and 1 more stretch"
    assert stretches_text(many) == "0, 10–11, 20, 30–31 and 2 more stretches"


def test_verdicts_leave_out_what_was_not_measured():
    assert verdicts_of(TRIAL.rows[1], METRICS) == {"better": ["PSNR"], "worse": [], "undecided": ["Lag"]}


def test_markdown():
    assert markdown_tables(TRIAL, METRICS).splitlines() == [
        "**t** (dubbing, 4 frames)",
        "",
        "| Picture | PSNR (dB) ↑ | SSIM ↑ |",
        "|---|--:|--:|",
        "| truth | ∞ (1) | – (2) |",
        r"| **ours \| \<b>** | **31.62** [31.00, 32.25] better | – (3) |",
        "",
        f"(1) identical; (2) {NO_FIGURE}; (3) too small.",
        "",
        "| Lips | Lag (ms) → 0 |",
        "|---|--:|",
        "| truth | 0 [-3, 2] |",
        r"| **ours \| \<b>** | **20** undecided |",
    ]


def test_console_columns_are_aligned():
    lines = console_table(TRIAL, METRICS, ("lag", "psnr", "ssim", "nothing")).splitlines()
    assert lines == [
        "t (dubbing, 4 frames)",
        "              PSNR ↑    SSIM ↑    Lag → 0",
        "  truth            ∞       n/m          0",
        "* ours | <b>   31.62 +     n/m         20 =",
        CONSOLE_LEGEND,
    ]
    assert shortened("x" * 32) == "x" * 32 and shortened("y" * 33) == "y" * 31 + "…"


def test_frames_under_other_frames_motion_as_a_table():
    nothing = TransferScore(0.5, "delta", 0, math.nan, math.nan)
    scores = (TransferScore(0.2, UNTOUCHED, 3, 28.251, 24.5), TransferScore(0.2, "delta", 3, 31.0, 25.126), nothing)
    table = transfer_table(scores)
    assert table.heads == ("0.2 s later", "0.5 s later")
    assert table.rows == (
        (UNTOUCHED, ("28.25 / 24.50 (3)", "no comparable frame")),
        ("delta", ("31.00 / 25.13 (3)", "no comparable frame")),
    )
    lines = transfer_markdown(scores).splitlines()
    assert lines[-1] == "| delta | 31.00 / 25.13 (3) | no comparable frame |" and transfer_markdown(()) == ""


def test_another_frames_motion_stands_in_the_report_and_in_the_figures(tmp_path):
    evaluation = made_up_evaluation(tmp_path)
    scores = (TransferScore(0.2, "de<lta", 3, 31.0, 25.126),)
    write_report(replace(evaluation, trials=(), transfer=scores), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'href="#transfer"' in page and "de&lt;lta" in page and "31.00 / 25.13 (3)" in page
    write_report(replace(evaluation, trials=()), tmp_path / "report.html")
    assert 'id="transfer"' not in (tmp_path / "report.html").read_text(encoding="utf-8")
