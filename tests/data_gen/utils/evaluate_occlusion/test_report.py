"""The report: means by group, Markdown that has all rows, JSON without NaN."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from data_gen.utils.evaluate_occlusion.judging import CleanScores
from data_gen.utils.evaluate_occlusion.report import (
    CleanRow,
    OcclusionReport,
    SequenceRow,
    as_json,
    markdown,
    summaries,
)
from modules.metrics.occlusion import SequenceScores

GOOD = SequenceScores(0.9, 0.8, 0.85, 0.95, 0.97, 0, 0.001, 1.2, 0.002, change=0.12, true_change=0.1, iou_around=0.88)
BAD = replace(GOOD, iou=0.5, found_after=3, flicker=math.nan, change=0.0, true_change=0.1, precision=math.nan)
ROWS = (
    SequenceRow("cup", "cup", False, False, "appearance", GOOD),
    SequenceRow("phone", "phone", False, True, "appearance", BAD),
    SequenceRow("straw", "straw", True, False, "appearance", GOOD),
    SequenceRow("cup", "cup", False, False, "hands", BAD),
)
REPORT = OcclusionReport({"command": "`x`"}, ROWS, (CleanRow("clip", "hands", CleanScores(0.001, 0.02, 0.5)),))


def test_groups_are_averaged_by_evidence():
    found = {(s.group, s.evidence): s for s in summaries(ROWS)}
    assert set(found) == {(g, "appearance") for g in ("wide", "thin", "all")} | {("wide", "hands"), ("all", "hands")}
    wide = found["wide", "appearance"]
    assert wide.count == 2 and wide.scores["iou"] == pytest.approx(0.7)
    assert wide.scores["found_after"] == 3, "the worst, not the mean"
    assert wide.scores["flicker"] == pytest.approx(0.12 / 0.2), "the ratio of the sums"
    assert wide.scores["precision"] == pytest.approx(0.97), "what cannot be told is left out"


def test_markdown_holds_every_row_with_as_many_cells_as_its_head():
    text = markdown(REPORT)
    assert "| straw | straw (thin) | appearance | 0.900 |" in text and "| clip | hands | 0.10 | 2.00 | 50.00 |" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 3
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1


def test_json_is_strict_and_complete():
    data = json.loads(json.dumps(as_json(REPORT), allow_nan=False))
    assert len(data["sequences"]) == 4 and data["sequences"][1]["scores"]["flicker"] is None
    assert data["clean"][0]["scores"]["false_share"] == 0.001 and data["sequences"][2]["thin"] is True
