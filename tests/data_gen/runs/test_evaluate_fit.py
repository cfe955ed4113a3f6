"""The command that measures the fit: what it takes, what it refuses, and small real runs."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from data_gen.runs import evaluate_fit as command
from data_gen.runs.evaluate_fit import PARTS, main, parse_arguments, read_clip, videos_of, write_report
from data_gen.utils.evaluate_fit.tables import FitReport
from modules.commons.errors import ConfigError, GeneFaceError, OutputError, VideoReadError
from tests.data_gen.utils.evaluate_fit.made_up import real_model, speaker_of


@pytest.fixture
def tracked(tmp_path) -> Path:
    """A folder with a clip that is tracked already; the video itself is never opened."""
    speaker = speaker_of(real_model(), 33)
    folder = tmp_path / "tables"
    folder.mkdir()
    speaker.landmarks.save(folder / "talk.npz")
    np.savez(folder / "talk.times.npz", times_s=np.arange(33) / 25, size_wh=np.array(speaker.size_wh))
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "talk.mp4").touch()
    return tmp_path


def test_videos_are_found_in_folders(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.mp4", "deep/a.MKV", "note.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in videos_of([tmp_path])] == ["b.mp4", "a.MKV"]
    assert videos_of([tmp_path / "note.txt"]) == (tmp_path / "note.txt",), "a file that is named is taken"
    with pytest.raises(VideoReadError, match="two clips are named b"):
        videos_of([tmp_path, tmp_path / "b.mp4"])
    with pytest.raises(VideoReadError, match="no such file or folder"):
        videos_of([tmp_path / "gone.mp4"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoReadError, match="no video"):
        videos_of([tmp_path / "empty"])


def test_the_command_line(tmp_path, demo_dir):
    words = ["--out", str(tmp_path / "r e"), "--only", "speed", "speakers", "--repeats", "2", "--long_frames", "0"]
    options = parse_arguments(words)
    assert options.only == ("speed", "speakers") and options.speed.repeats == 2 and options.speed.long_frames == 0
    assert options.clips == () and options.device == "cpu", "what needs no clip does not look for them"
    assert shlex.split(options.command) == ["bash", "scripts/evaluate_fit.sh", *words]
    options = parse_arguments([])
    assert options.only == PARTS and {path.parent for path in options.clips} == {demo_dir}


@pytest.mark.parametrize(
    "flags", [["--speakers", "0"], ["--repeats", "0"], ["--painted", "-1"], ["--long_frames", "-1"]]
)
def test_senseless_counts_are_refused(flags):
    with pytest.raises(ConfigError):
        parse_arguments(["--only", "speed", *flags])


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="is a file"):
        parse_arguments(["--only", "speed", "--out", str(tmp_path / "taken")])
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(FitReport("c", {}, ()), tmp_path / "taken" / "below")


def test_a_wrong_clip_ends_in_one_sentence(tmp_path, caplog):
    assert main(["--clips", str(tmp_path / "no.mp4"), "--out", str(tmp_path / "out")]) == 1
    assert "no.mp4: there is no such file or folder" in caplog.text and not (tmp_path / "out").exists()


def test_clips_are_measured_from_their_tables(tracked):
    out = tracked / "out"
    flags = ["--clips", str(tracked / "clips"), "--landmarks", str(tracked / "tables"), "--out", str(out)]
    assert main([*flags, "--only", "clips"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["fit.json", "fit.md"]
    found = json.loads((out / "fit.json").read_text())
    (table,) = found["tables"]
    assert table["key"] == "clips" and len(table["rows"]) == 3
    assert all(row["name"] == "talk" and 0 < row["measures"]["face"]["value"] < 5 for row in table["rows"])
    assert {"face model", "machine", "threads", "versions", "fit"} <= set(found["facts"])
    assert "## Clips: held-out frames" in (out / "fit.md").read_text() and found["command"].startswith("bash scripts/")


def test_made_up_speakers_are_measured(tmp_path):
    counts = ["--speakers", "1", "--speaker_frames", "12", "--painted", "1", "--painted_frames", "2"]
    assert main(["--only", "speakers", "--out", str(tmp_path), *counts]) == 0
    (table,) = json.loads((tmp_path / "fit.json").read_text())["tables"]
    assert [row["name"] for row in table["rows"]] == 4 * ["projected"] + 4 * ["painted"]
    assert table["rows"][0]["measures"]["speakers"]["value"] == 1


def test_unsmoothed_tables_of_another_track_are_refused(tracked):
    speaker_of(real_model(), 12).landmarks.save(tracked / "tables" / "talk.unsmoothed.npz")
    with pytest.raises(GeneFaceError, match="delete it"):
        read_clip(tracked / "clips" / "talk.mp4", tracked / "tables", unsmoothed=True)
    assert read_clip(tracked / "clips" / "talk.mp4", tracked / "tables", unsmoothed=False).unsmoothed is None


def test_nothing_is_written_when_it_is_interrupted(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "evaluate_fit", interrupted)
    assert main(["--only", "speed", "--out", str(tmp_path / "out")]) == 130 and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_real_clips(shared_clips, tmp_path):
    """The whole of a real clip through every part that looks at clips."""
    flags = ["--clips", str(shared_clips / "moustache_480x360_30fps.mp4"), "--out", str(tmp_path), "--unsmoothed"]
    assert main([*flags, "--only", "clips", "stability", "occlusion"]) == 0
    tables = {table["key"]: table["rows"] for table in json.loads((tmp_path / "fit.json").read_text())["tables"]}
    assert set(tables) == {"clips", "clips_unsmoothed", "stability", "occlusion"}
    for key in ("clips", "clips_unsmoothed"):
        assert all(row["measures"]["face"]["value"] < 6 for row in tables[key])
