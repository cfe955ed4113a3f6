"""Who speaks, on what terms, and who is left out together."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.audio2motion.speaker_folds import deal_speakers
from modules.audio2motion.speaker_table import clean_clips, read_speakers, speaker_of
from modules.commons.errors import ConfigError
from modules.commons.workspace import EGS

HEAD = "clip,speaker,licence,source,media\n"


def test_shipped_table_folds_people_together_and_knows_clean_clips():
    table = read_speakers(EGS / "datasets" / "av_corpus" / "speakers.csv")
    assert len(table) == 62
    assert sum(row.speaker == "obama" for row in table.values()) == 7
    clean = clean_clips(table)
    assert "address_1280x720_25fps" in clean and "kitchen_beard_1080x1920_25fps" in clean
    assert not any(name.startswith("spectre__") for name in clean)  # non-commercial
    assert "Speech-to_lips__obama" not in clean  # nothing stated


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "first line"),
        ("clip,who\na,b\n", "first line"),
        (HEAD + "a,x,MIT,s\n", "line 2: needs 5 cells"),
        (HEAD + "a,x,,s,m\n", "none of them empty"),
        (HEAD + "a,x,MIT,s,m,more\n", "line 2"),
        (HEAD + "a,x,MIT,s,m\na,y,MIT,s,m\n", "line 3: a stands there twice"),
    ],
)
def test_bad_tables_name_the_line(tmp_path, text, words):
    path = tmp_path / "speakers.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_speakers(path)
    with pytest.raises(ConfigError, match=r"none\.csv"):
        read_speakers(tmp_path / "none.csv")


def test_rules_for_clips_the_table_does_not_know(tmp_path):
    path = tmp_path / "speakers.csv"
    path.write_text(HEAD + "known.clip,someone,MIT,s,m\n")
    table = read_speakers(path)
    assert speaker_of(Path("a/b/known.clip.mp4"), "folder", table) == "someone"
    assert speaker_of(Path("a/b/other.mp4"), "table", table) == "other"
    assert speaker_of(Path("id7/xyz/00001.mp4"), "folder", table) == "id7"
    assert speaker_of(Path("RD_Radio1_000.mp4"), "prefix", table) == "RD_Radio1"
    assert speaker_of(Path("single.mp4"), "prefix", table) == "single"
    with pytest.raises(ConfigError, match="<speaker>/<video>/<clip>"):
        speaker_of(Path("x.mp4"), "folder", table)


def test_speakers_are_dealt_evenly():
    seconds = {"a": 10.0, "b": 6.0, "c": 5.0, "d": 4.0, "e": 1.0}
    assert deal_speakers(seconds, 2) == {"a": 0, "b": 1, "c": 1, "d": 0, "e": 1}
    shuffled = [deal_speakers(seconds, 2, seed) for seed in range(1, 8)]
    assert len({tuple(sorted(folds.items())) for folds in shuffled}) > 1
    assert deal_speakers(seconds, 2, 3) == deal_speakers(seconds, 2, 3)
