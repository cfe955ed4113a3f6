"""metrics.json: strict, complete, the same bytes every time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modules.structures.scores import Evaluation, RowScores
from tasks.evaluation.metrics_json import write_metrics_json
from tests.support.made_up_evaluation import HOSTILE_SOURCE, NO_WEIGHTS, made_up_evaluation


def read_strictly(path: Path):
    def refuse(token: str):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Evaluation:
    return made_up_evaluation(tmp_path_factory.mktemp("evaluation"))


def test_everything_is_there(evaluation: Evaluation, tmp_path: Path):
    write_metrics_json(evaluation, tmp_path / "metrics.json")
    data = read_strictly(tmp_path / "metrics.json")
    assert data["schema"] == "evaluation/1" and data["seed"] == evaluation.seed
    assert data["source"].endswith(HOSTILE_SOURCE) and data["command"] == evaluation.command
    assert data["facts"] == evaluation.facts and data["versions"] == evaluation.versions
    assert [m["key"] for m in data["metrics"]] == [m.key for m in evaluation.metrics]
    assert [len(trial["rows"]) for trial in data["trials"]] == [7, 7]
    for trial, read in zip(evaluation.trials, data["trials"], strict=True):
        assert read["frames"] == trial.frames.tolist() and read["outcomes"] == list(trial.outcomes)
        assert sum(read["coverage"].values()) == len(trial.frames)
        assert trial.speech is not None and len(read["speech"]["opening"]) == len(trial.speech.opening)
        for row, row_read in zip(trial.rows, read["rows"], strict=True):
            check_row(row, row_read)


def check_row(row: RowScores, read: dict):
    assert read["name"] == row.name and read["verdicts"] == row.verdicts
    assert set(read["measures"]) == set(row.measures) and set(read["frames"]) == set(row.frames)
    for key, measure in row.measures.items():
        value = read["measures"][key]["value"]
        assert (value is None) == (not measure.is_measured)
        assert read["measures"][key]["note"] == measure.note and read["measures"][key]["count"] == measure.count
        if value is not None:
            assert float(value) == pytest.approx(measure.value, rel=1e-7)
    for key, values in row.frames.items():
        found = np.array([np.nan if v is None else float(v) for v in read["frames"][key]])
        np.testing.assert_allclose(found, values, rtol=6e-5)


def test_what_was_not_measured_is_null_with_its_note(evaluation: Evaluation, tmp_path: Path):
    write_metrics_json(evaluation, tmp_path / "metrics.json")
    truth = read_strictly(tmp_path / "metrics.json")["trials"][0]["rows"][0]
    assert truth["measures"]["lpips_head"] == {"value": None, "low": None, "high": None, "count": 0, "note": NO_WEIGHTS}
    assert truth["measures"]["psnr_region"]["value"] == "inf" and set(truth["frames"]["psnr_region"]) == {"inf"}
    assert None in truth["frames"]["opening"]


def test_the_bytes_do_not_depend_on_the_order_of_keys(evaluation: Evaluation, tmp_path: Path):
    def turned(mapping):
        return dict(reversed(list(mapping.items())))

    trials = [
        replace(
            trial,
            rows=tuple(
                replace(r, measures=turned(r.measures), frames=turned(r.frames), verdicts=turned(r.verdicts))
                for r in trial.rows
            ),
        )
        for trial in evaluation.trials
    ]
    other = replace(
        evaluation, trials=tuple(trials), versions=turned(evaluation.versions), facts=turned(evaluation.facts)
    )
    write_metrics_json(evaluation, tmp_path / "a.json")
    write_metrics_json(other, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_arrays_take_one_line(evaluation: Evaluation, tmp_path: Path):
    write_metrics_json(evaluation, tmp_path / "metrics.json")
    lines = (tmp_path / "metrics.json").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 2600 and any(line.strip().startswith('"opening": [') and line.endswith("]") for line in lines)


def test_an_evaluation_of_nothing_is_still_json(evaluation: Evaluation, tmp_path: Path):
    empty = replace(evaluation, facts={}, versions={}, metrics=(), trials=(), sheets=(), clips=())
    write_metrics_json(empty, tmp_path / "metrics.json")
    assert read_strictly(tmp_path / "metrics.json")["trials"] == []
