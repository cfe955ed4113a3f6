"""Rates by a made-up clock's worth of work, long landmark files, and the process that watches memory."""

import json
import time

import numpy as np
import pytest

from data_gen.utils.evaluate_fit import long_clip, speed
from data_gen.utils.evaluate_fit.speed import SpeedOptions, speed_table, timed, write_repeated
from modules.commons.errors import GeneFaceError
from modules.structures.landmarks import Landmarks2D
from tests.data_gen.utils.evaluate_fit.made_up import fitter_of, real_model, speaker_of


@pytest.fixture(scope="module")
def speaker():
    return speaker_of(real_model(), 12)


def test_a_rate_is_frames_over_the_median_time():
    naps = iter([0.3, 0.01, 0.05, 0.02])
    calls = []
    figures = timed(lambda: time.sleep(next(naps)), 100, "cpu", 3, lambda *done: calls.append(done))
    assert next(naps, None) is None, "one run is not counted"
    assert 3000 < figures["rate"].value <= 5000 and figures["slowest"].value <= 2000 < 3000
    assert figures["slowest"].value < figures["rate"].value < figures["fastest"].value <= 10_000
    assert calls == [("speed", k, 3) for k in (1, 2, 3)] and "gpu" not in figures


@pytest.mark.parametrize("count", [1, 12, 23, 1234])
def test_a_long_file_goes_there_and_back(tmp_path, speaker, count):
    write_repeated(speaker.landmarks, count, tmp_path / "long.npz")
    written = Landmarks2D.load(tmp_path / "long.npz")
    assert len(written) == count and written.valid.all()
    row, step = 0, 1
    for frame in range(count):
        assert np.array_equal(written.points[frame, :3], speaker.landmarks.points[row, :3]), frame
        step = 1 if row == 0 else -1 if row == 11 else step
        row += step


def test_a_long_clip_tells_its_memory(tmp_path, speaker, monkeypatch):
    monkeypatch.setattr(long_clip.torch, "set_num_threads", lambda count: None)
    write_repeated(speaker.landmarks, 30, tmp_path / "long.npz")
    words = [str(word) for word in (tmp_path / "long.npz", tmp_path / "r.json", *speaker.size_wh, "cpu", 1)]
    assert long_clip.main(words) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["peak_bytes"] >= found["before_bytes"] > 50 * 2**20 and found["seconds"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.npz", "r.json"]


def test_a_long_clip_that_cannot_be_fitted_is_one_sentence(tmp_path, speaker, monkeypatch, capsys):
    monkeypatch.setattr(long_clip.torch, "set_num_threads", lambda count: None)
    nothing = np.full((5, 478, 2), np.nan, np.float32)
    blank = np.zeros((5, 478), np.float32), np.zeros(5, bool), np.zeros((5, 52), np.float32)
    Landmarks2D(nothing, *blank).save(tmp_path / "none.npz")
    words = [str(word) for word in (tmp_path / "none.npz", tmp_path / "r.json", 640, 480, "cpu", 1)]
    assert long_clip.main(words) == 1 and not (tmp_path / "r.json").exists()
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_failed_process_is_said(speaker, monkeypatch):
    monkeypatch.setattr(speed.sys, "executable", "/bin/false")
    monkeypatch.setattr(speed, "_variants", lambda speaker, fitter: {})
    with pytest.raises(GeneFaceError, match="long clip of 20 frames"):
        speed_table(speaker, fitter_of(real_model()), SpeedOptions(1, 20))


@pytest.mark.slow
def test_the_whole_table(speaker):
    table = speed_table(speaker, fitter_of(real_model()), SpeedOptions(1, 60))
    assert [row.variant for row in table.rows] == ["whole fit", "whole fit, correction on", "person given", "whole fit"]
    long = table.rows[-1].measures
    assert long["frames"].value == 60 and 100 < long["before"].value <= long["peak"].value < 2048
    assert all(row.measures["rate"].value > 0 for row in table.rows)
