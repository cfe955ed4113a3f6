"""Scores on disk: strict JSON, back as they were, and only for the inputs they were made from."""

from __future__ import annotations

import json
import math

import pytest

from modules.structures.transfer import UNTOUCHED, TransferScore, load_transfer, save_transfer

SCORES = (TransferScore(0.2, UNTOUCHED, 3, 28.25, 24.5), TransferScore(0.5, "delta", 0, math.nan, math.nan))


def test_scores_come_back(tmp_path):
    place = tmp_path / "transfer.json"
    assert load_transfer(place) is None
    save_transfer(place, SCORES, "these inputs")
    assert "NaN" not in place.read_text() and [p.name for p in tmp_path.iterdir()] == ["transfer.json"]
    first, second = load_transfer(place, "these inputs")
    assert first == SCORES[0]
    assert (second.late_s, second.row, second.frames) == (0.5, "delta", 0) and math.isnan(second.mouth_db)
    assert load_transfer(place, "other inputs") is None and load_transfer(place) is not None


@pytest.mark.parametrize("text", ["[]", json.dumps({"schema": "transfer/0"}), "not JSON"])
def test_something_else_is_refused(tmp_path, text):
    (tmp_path / "transfer.json").write_text(text)
    with pytest.raises(ValueError):
        load_transfer(tmp_path / "transfer.json")
