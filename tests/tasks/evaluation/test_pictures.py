"""Sheets of the worst frames, and the video of source and result side by side."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.commons.errors import OutputError, VideoReadError
from modules.structures.audio import AudioClip
from modules.structures.evaluation import EDITED, Protocol
from modules.structures.scores import RowScores, TrialScores
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.rgb_video import TIME_BASE
from tasks.evaluation.pictures import APART_S, SCALE, VIEW_WH, worst_frames, write_sheet, write_side_by_side
from tasks.evaluation.reading import CROP_SIZE, crop_512, shown_frames
from tests.support.small_trial import SOUND_HZ, first_frames, quiet, small_trial
from tests.support.synthetic_video import read_audio

LINE_HW = (SCALE * VIEW_WH[1], 3 * SCALE * VIEW_WH[0])
MANY = 1000


@pytest.fixture(scope="module")
def small(tmp_path_factory, demo_dir):
    return small_trial(tmp_path_factory.getbasetemp() / "small_trial")


# Worst frames.


def scores_of(values, *, key="psnr_mouth", protocol: Protocol = "self-reenactment", outcomes=None, rate=25.0):
    values = np.asarray(values, np.float64)
    count = len(values)
    row = RowScores("ours", True, "", {}, {key: values})
    times = np.arange(count) / rate
    numbers = np.arange(100, 100 + count)
    outcomes = outcomes or (EDITED,) * count
    return TrialScores("t", protocol, numbers, times, numbers * 0, outcomes, None, (row,)), row


def test_low_likeness_is_worst_where_there_is_a_truth_and_high_flicker_where_there_is_none():
    values = [30.0, 28.0, 31.0, 25.0, 33.0, 40.0]
    assert worst_frames(*scores_of(values, rate=1.0), 3) == ("psnr_mouth", [3, 1, 0])
    for protocol in ("dubbing", "leakage"):
        found = worst_frames(*scores_of(values, key="flicker", protocol=protocol, rate=1.0), 3)
        assert found == ("flicker", [5, 4, 2])


def test_neighbours_of_a_worse_frame_are_passed_over():
    values = np.full(50, 40.0)
    values[[10, 11, 12, 20, 24]] = [20.0, 20.5, 21.0, 22.0, 21.5]
    _, found = worst_frames(*scores_of(values), 3)
    assert found[:2] == [10, 24] and found[2] != 20, "24 is worse than 20, 0.16 s away"


def test_what_was_not_edited_or_not_measured_or_perfect_is_not_worst():
    outcomes = (EDITED, "hand", EDITED, EDITED, EDITED)
    values = [30.0, 1.0, np.nan, np.inf, 35.0]
    assert worst_frames(*scores_of(values, outcomes=outcomes, rate=1.0), 9) == ("psnr_mouth", [0, 4])
    assert worst_frames(*scores_of([np.inf] * 4), 9) == ("psnr_mouth", [])
    assert worst_frames(*scores_of([30.0] * 4), 0) == ("psnr_mouth", [])
    assert worst_frames(*scores_of([1.0] * 4, key="flicker"), 9) == ("psnr_mouth", []), "no such figure"


@given(
    st.lists(st.one_of(st.floats(10, 50), st.just(np.nan)), min_size=1, max_size=60),
    st.integers(1, 12),
    st.sampled_from(["self-reenactment", "dubbing"]),
)
def test_the_choice_is_greedy(values, count, protocol):
    key = "psnr_mouth" if protocol == "self-reenactment" else "flicker"
    scores, row = scores_of(values, key=key, protocol=protocol)
    _, found = worst_frames(scores, row, count)
    _, every = worst_frames(scores, row, MANY)
    assert found == every[:count]
    badness = np.asarray(values) if protocol == "dubbing" else -np.asarray(values)
    assert all(badness[a] >= badness[b] for a, b in zip(every[:-1], every[1:], strict=True)), "worst first"
    times = scores.times_s
    for a in every:
        assert all(abs(times[a] - times[b]) >= APART_S for b in every if a != b)
    for number in np.flatnonzero(np.isfinite(values)).tolist():
        near = [a for a in every if abs(times[a] - times[number]) < APART_S]
        assert number in every or any(badness[a] >= badness[number] for a in near), "a worse one stands for it"


# Sheets.


def sheet(trial, numbers, path, values=None):
    values = np.arange(len(trial), dtype=np.float64) if values is None else values
    write_sheet(trial, 1, numbers, values, path)
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def panels(line):
    return np.split(line.astype(int), 3, axis=1)


def test_a_sheet_has_a_line_per_frame_in_the_order_given(small, tmp_path):
    trial = first_frames(small.of("step 3"), 8)
    whole = sheet(trial, [6, 1, 4], tmp_path / "made" / "sheet.jpg")
    assert whole.shape == (3 * LINE_HW[0], LINE_HW[1], 3)
    for place, number in enumerate([6, 1, 4]):
        line = whole[place * LINE_HW[0] : (place + 1) * LINE_HW[0]]
        np.testing.assert_array_equal(line, sheet(trial, [number], tmp_path / f"{number}.jpg"))


def test_a_line_shows_source_result_and_their_difference(small, tmp_path):
    below_text = np.s_[40:]
    trial = first_frames(small.of("step 3"), 3)
    source, result, difference = (panel[below_text] for panel in panels(sheet(trial, [2], tmp_path / "step.jpg")))
    middle = np.s_[LINE_HW[0] // 2 - 60 : LINE_HW[0] // 2 + 20, 200:380]
    assert 12 < (result - source)[middle].mean() < 20, "16 codes brighter around the mouth"
    assert difference[middle].mean() == pytest.approx(128 + 4 * (result - source)[middle].mean(), abs=3)
    assert source.std() > 20
    equal = first_frames(small.of("same"), 3)
    source, result, difference = (panel[below_text] for panel in panels(sheet(equal, [2], tmp_path / "same.jpg")))
    assert np.abs(result - source)[:, 16:-16].max() <= 2 and np.abs(difference[:, 16:] - 128).max() <= 2


def test_a_line_names_its_frame_and_its_figure(small, tmp_path):
    trial = first_frames(small.of("same"), 1)
    one, other = (sheet(trial, [0], tmp_path / f"{v}.jpg", np.array([v])) for v in (31.25, 28.0))
    changed = np.argwhere(np.abs(one.astype(int) - other).max(axis=2) > 60)
    assert len(changed) and changed.max(axis=0)[0] < 40 and changed.max(axis=0)[1] < 300


# Side by side.


def test_source_and_result_run_side_by_side_in_their_own_time(small, tmp_path):
    trial = first_frames(small.of("step 3"), 6)
    pause = np.array([0, 0, 0, 1, 1, 1])  # what lies between two stretches is not shown, and time goes on
    trial = replace(trial, times_s=trial.times_s + pause, block=pause)
    told = []
    write_side_by_side(trial, 1, tmp_path / "made" / "video.mp4", lambda *word: told.append(word))
    with VideoReader(tmp_path / "made" / "video.mp4") as reader:
        assert (reader.info.width, reader.info.height, reader.info.has_audio) == (2 * CROP_SIZE, CROP_SIZE, True)
        frames = list(reader.frames())
    assert len(frames) == len(trial) and told == [("side by side", n, 6) for n in range(1, 7)]
    times = [float(frame.time_s) for frame in frames]
    assert times == pytest.approx((trial.times_s - trial.times_s[0]).tolist(), abs=float(TIME_BASE))
    for frame, (number, pair) in zip(frames, shown_frames(trial), strict=True):
        halves = np.split(rgb_from_planes(frame).astype(int), 2, axis=1)
        for half, shown in zip(halves, pair, strict=True):
            assert shown is not None
            crop = crop_512(shown.rgb, trial.crops[number], trial.window)
            assert np.abs(half - crop).mean() < 3
        mouth = np.s_[300:420, 200:320]
        assert (halves[1] - halves[0])[mouth].mean() > 10, "the result is on the right"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["video.mp4"]


def test_the_sound_is_what_is_heard_meanwhile(small, tmp_path):
    trial = small.of("same")
    first, length = float(trial.times_s[0]), float(trial.times_s[-1] - trial.times_s[0])
    times = np.arange(round((first + length + 1) * SOUND_HZ)) / SOUND_HZ
    tone = np.where(times >= first + 0.3, 0.5 * np.sin(2 * np.pi * 440 * times), 0.0)
    speech = replace(trial.speech, sound=AudioClip(tone.astype(np.float32), SOUND_HZ))
    write_side_by_side(replace(trial, speech=speech), 1, tmp_path / "video.mp4", quiet)
    samples, rate, start_s = read_audio(tmp_path / "video.mp4")
    loud = np.abs(samples) > 0.25
    assert start_s + np.flatnonzero(loud)[0] / rate == pytest.approx(0.3, abs=0.02)
    assert start_s + np.flatnonzero(loud)[-1] / rate == pytest.approx(length + 0.04, abs=0.06)


def test_sound_that_has_ended_before_is_none(small, tmp_path):
    trial = first_frames(small.of("same"), 2)
    assert trial.speech is not None
    speech = replace(trial.speech, sound=AudioClip(np.zeros(16, np.float32), SOUND_HZ))
    write_side_by_side(replace(trial, speech=speech), 1, tmp_path / "video.mp4", quiet)
    with VideoReader(tmp_path / "video.mp4") as reader:
        assert not reader.info.has_audio
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]


def test_a_failure_leaves_no_file(small, tmp_path):
    def broken(*_: object) -> None:
        raise VideoReadError("cut off")

    with pytest.raises(VideoReadError, match="cut off"):
        write_side_by_side(first_frames(small.of("same"), 2), 1, tmp_path / "video.mp4", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_that_cannot_be_written_is_one_sentence(small, tmp_path):
    (tmp_path / "sheet.jpg").mkdir()
    with pytest.raises(OutputError, match=r"sheet\.jpg: cannot be written"):
        write_sheet(first_frames(small.of("same"), 1), 1, [0], np.zeros(1), tmp_path / "sheet.jpg")


def test_without_speech_it_is_silent(small, tmp_path):
    trial = replace(first_frames(small.of("same"), 2), speech=None)
    write_side_by_side(trial, 1, tmp_path / "video.mp4", quiet)
    with VideoReader(tmp_path / "video.mp4") as reader:
        assert not reader.info.has_audio and len(list(reader.frames())) == 2
