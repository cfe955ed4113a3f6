"""The table, the file, and the model card they end in."""

from __future__ import annotations

import json

import numpy as np
import pytest

from modules.audio2motion.speaker_table import SpeakerRow
from modules.commons.errors import ConfigError
from tasks.audio2motion.agreement import ClipAgreement, Row, SilenceFigures, summarize
from tasks.audio2motion.closures import EventCounts
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.model_card import model_card, rewrite_card
from tasks.audio2motion.result_table import Evaluation, as_json, as_markdown, silence_checks, target_checks


def row_of(r: list[float], spread: float = 1.0, closures: EventCounts | None = None) -> Row:
    clips = [ClipAgreement(f"c{i}", f"s{i}", np.array(r), np.full(5, spread), 0) for i in range(3)]
    return Row("model", summarize(clips), clips, 1.0, closures)


def test_targets_are_judged():
    good = row_of([0.81, 0.73, 0.71, 0.51, 0.64], 1.0, EventCounts(100, 93, 130, 90))
    assert all(check.met for check in target_checks(good, good))
    bad = row_of([0.79, 0.71, 0.69, 0.49, 0.62], 0.7, EventCounts(100, 80, 130, 90))
    missed = [check.what for check in target_checks(bad, row_of([0.9] * 5)) if not check.met]
    assert len(missed) == 8
    assert [check.met for check in silence_checks(SilenceFigures(0.2, 0.5, 4))] == [False, False]
    assert [check.met for check in silence_checks(SilenceFigures(0.05, 1.0, 4))] == [True, True]


def test_json_and_markdown_tell_the_same():
    ridge = row_of([0.7, 0.6, 0.5, 0.4, 0.3], closures=EventCounts(0, 0, 0, 0))
    evaluation = Evaluation([row_of([0.812] * 5), ridge], 3, 2, silence_checks(SilenceFigures(float("nan"), 1.0, 0)))
    stored = json.loads(json.dumps(as_json(evaluation)))
    assert stored["rows"][0]["measures"]["opening"]["r_mean"] == pytest.approx(0.812)
    assert stored["rows"][1]["closures"]["recall"] is None
    assert stored["rows"][0]["clips"]["c1"]["r"]["width"] == 0.812
    text = as_markdown(stored)
    assert "0.812 [0.81, 0.81]" in text and "(reached)" in text and "(missed)" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1


FACTS = {"extractor": "e", "rate_hz": 50.0, "n_expression": 52, "n_clips": 3, "n_speakers": 2, "minutes": 1.0}


def test_the_card_names_terms_and_takes_the_table(tmp_path):
    speakers = {name: SpeakerRow(name, "s", "MIT", "somewhere", "talk") for name in ("a", "b")}
    table = {"model": {"opening": {"r_mean": 0.5, "r_median": 0.5, "r_low": 0.4, "r_high": 0.6}}}
    card = model_card(AudioToMotionTaskConfig(), FACTS | {"cross_validation": table}, ["a", "b", "c"], speakers)
    assert "| somewhere | talk | 2 | MIT |" in card and "| not in the table of speakers | – | 1 | unknown |" in card
    (tmp_path / "MODEL_CARD.md").write_text(card)
    stored = as_json(Evaluation([row_of([0.812] * 5)], 3, 2, command="x.sh"))
    for _ in range(2):  # doing it twice is doing it once
        rewrite_card(tmp_path, stored)
    new = (tmp_path / "MODEL_CARD.md").read_text()
    assert "0.812" in new and "0.500" not in new and "`x.sh`" in new
    assert new.count("## Error") == 1 and new.count("## Limits") == 1 and new.count("## Data") == 1
    with pytest.raises(ConfigError, match="cannot be read"):
        rewrite_card(tmp_path / "none", stored)
    (tmp_path / "MODEL_CARD.md").write_text("# nothing\n")
    with pytest.raises(ConfigError, match="has no section"):
        rewrite_card(tmp_path, stored)
