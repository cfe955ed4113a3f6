"""The GPU tables: parts exist, text and JSON hold what was measured, and a machine without CUDA is told so."""

import importlib
import json
import logging

import pytest
import torch

from inference.benchmark import main
from inference.benchmark_gpu import tables
from inference.benchmark_gpu.row import GpuRow
from inference.benchmark_gpu.tables import GPU_SCHEMA, PARTS, as_json, parse_arguments, report
from modules.commons.errors import GeneFaceError, VideoReadError
from modules.commons.machine import Machine
from modules.commons.progress import silent

ROWS = [
    GpuRow("rendering", "one frame", 0.4217, "ms", "<= 0.5", (0.41, 0.52), "170,000 samples"),
    GpuRow("rendering", "eight frames", 0.31, "ms"),
    GpuRow("training", "steps", 171.0, "steps/s", ">= 150"),
]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_can_be_asked_for_rows(part):
    assert callable(importlib.import_module(f"inference.benchmark_gpu.{part}").rows)


def test_text_holds_each_table_once_with_goal_and_spread():
    text = report(ROWS, {"networks": "no material"}, Machine.here())
    assert text.count("\nrendering\n") == 1 and text.count("\ntraining\n") == 1
    (line,) = [line for line in text.splitlines() if line.startswith("one frame")]
    assert "0.4217 ms" in line and "(0.41..0.52)" in line and "<= 0.5" in line and line.endswith("170,000 samples")
    assert "left out: networks: no material" in text


def test_json_can_be_read_back():
    content = json.loads(json.dumps(as_json(ROWS, {}, Machine.here(), "bash scripts/benchmark.sh --gpu")))
    assert content["schema"] == GPU_SCHEMA and len(content["rows"]) == 3
    assert content["rows"][0]["value"] == 0.4217 and content["rows"][1]["spread"] is None


def test_parts_run_in_turn_and_one_that_cannot_is_named(monkeypatch):
    def cannot(device, progress):
        raise VideoReadError("there is no clip")

    parts = {"same_work": lambda device, progress: ROWS[:1], "faces": cannot}
    monkeypatch.setattr(tables, "pick_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr(tables, "_rows_of", parts.__getitem__)
    options = parse_arguments(["--gpu", "--only", "same_work", "faces"])
    rows, left_out = tables.run(options, silent)
    assert rows == ROWS[:1] and left_out == {"faces": "there is no clip"}


def test_a_wrong_part_is_refused():
    with pytest.raises(GeneFaceError, match="hearing"):
        parse_arguments(["--gpu", "--only", "hearing"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_told_so(caplog, tmp_path):
    with caplog.at_level(logging.ERROR):
        assert main(["--gpu", "--out", str(tmp_path / "b.json")]) == 1
    assert "cuda" in caplog.text and not (tmp_path / "b.json").exists()
