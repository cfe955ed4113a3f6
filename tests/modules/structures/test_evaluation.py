"""Trials on disk: what is written comes back, a moved folder still loads, anything else is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modules.structures.audio import AudioClip
from modules.structures.crops import CropRegion
from modules.structures.evaluation import EDITED, TRIAL_SCHEMA, SpeechTrack, Trial, TrialRow
from modules.structures.landmarks import N_MEDIAPIPE, Landmarks2D

COUNT = 5
TABLES = ("driving_opening", "tracked_opening", "lower_face_px", "jaw_gap_px")


def landmarks(seed: int, count: int = COUNT) -> Landmarks2D:
    """With a frame in which there is no face."""
    rng = np.random.default_rng(seed)
    valid = np.arange(count) != 1
    columns = [rng.random((count, *shape)).astype(np.float32) for shape in ((N_MEDIAPIPE, 2), (N_MEDIAPIPE,), (52,))]
    for column in columns:
        column[~valid] = np.nan
    return Landmarks2D(columns[0], columns[1], valid, columns[2])


def speech(rows: int = 12, samples: int = 3200) -> SpeechTrack:
    rng = np.random.default_rng(0)
    sound = AudioClip(rng.uniform(-1, 1, samples).astype(np.float32), 16_000)
    opening, level = rng.random((2, rows)).astype(np.float32)
    return SpeechTrack(opening, level, rng.random(rows) < 0.5, 50.0, sound)


def make_trial(folder: Path, **changes) -> Trial:
    tables = np.random.default_rng(1).random((len(TABLES), COUNT)).astype(np.float32)
    tables[:, 2] = np.nan
    rows = (
        TrialRow("source", False, None, landmarks(0)),
        TrialRow("late", False, None, landmarks(1), frames_late=1, about="one frame late"),
        TrialRow(
            "ours", True, folder / "row2.mkv", landmarks(2), alpha=folder / "row2_alpha.mkv",
            **dict(zip(TABLES, tables, strict=True)), speech_late_s=0.12, about="“ours”, ΔE < 1",
        ),
        TrialRow("whole", True, folder.parent / "out.mp4", landmarks(3), is_whole=True),
    )  # fmt: skip
    trial = Trial(
        name="last 1/11 of “clip”",
        protocol="self-reenactment",
        source=folder.parent / "clip.mp4",
        window=(10, 20, 110, 100),
        frames=np.array([3, 4, 5, 9, 10]),
        times_s=np.array([0.12, 0.16, 0.2, 0.36, 0.4]),
        block=np.array([0, 0, 0, 1, 1]),
        outcomes=(EDITED, EDITED, "hand in front", EDITED, EDITED),
        crops=tuple(CropRegion(50.0 + i / 3, 60.0, 80.0, 0.1 * i) for i in range(COUNT)),
        speech=speech(),
        rows=rows,
        notes=("LPIPS is missing",),
    )
    return replace(trial, **changes)


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "trials" / "last"
    made.mkdir(parents=True)
    return made


def test_what_lies_elsewhere_is_found_behind_a_link(tmp_path):
    """``..`` in a recorded path is followed from where a link leads to."""
    real = tmp_path / "far" / "away" / "below"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to(real)
    folder = tmp_path / "link" / "last"
    folder.mkdir()
    trial = make_trial(folder)
    whole = tmp_path / "out.mp4"
    whole.write_bytes(b"a result")
    (folder / "row2.mkv").write_bytes(b"pictures")
    rows = (*trial.rows[:-1], replace(trial.rows[-1], pictures=whole))
    replace(trial, rows=rows).save(folder)
    for row, content in zip(Trial.load(folder).rows[2:], (b"pictures", b"a result"), strict=True):
        assert row.pictures is not None and row.pictures.read_bytes() == content


def test_a_trial_is_none_while_it_is_written_anew(folder, monkeypatch):
    make_trial(folder).save(folder)
    monkeypatch.setattr(Landmarks2D, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        make_trial(folder).save(folder)
    with pytest.raises(ValueError, match="holds no finished trial"):
        Trial.load(folder)


# Checks.


@pytest.mark.parametrize(
    "changes",
    [
        {"times_s": np.zeros(COUNT - 1)},
        {"block": np.zeros(COUNT + 1, np.int64)},
        {"outcomes": (EDITED,) * 4},
        {"crops": ()},
        {"frames": np.zeros(0, np.int64)},
        {"frames": np.arange(COUNT - 1)},
    ],
)
def test_arrays_of_a_trial_must_agree(folder, changes):
    with pytest.raises(ValueError, match="last 1/11 of “clip”: arrays disagree"):
        make_trial(folder, **changes)


@pytest.mark.parametrize("frames", [[3, 4, 4, 9, 10], [3, 4, 5, 9, 8]])
def test_frames_must_ascend(folder, frames):
    with pytest.raises(ValueError, match="frames must ascend"):
        make_trial(folder, frames=np.array(frames))


def test_a_row_belongs_to_the_trial_s_frames(folder):
    row = TrialRow("ours", True, None, landmarks(0, COUNT + 1))
    with pytest.raises(ValueError, match="landmarks do not belong to its 5 frames"):
        make_trial(folder, rows=(row,))


@pytest.mark.parametrize("name", TABLES)
def test_a_row_s_tables_have_an_entry_per_frame(folder, name):
    row = replace(make_trial(folder).rows[2], **{name: np.zeros(COUNT - 1, np.float32)})
    with pytest.raises(ValueError, match=f"{name} of row ours does not belong to its 5 frames"):
        make_trial(folder, rows=(row,))


@pytest.mark.parametrize("name", ["opening", "level_db", "is_speech"])
def test_speech_arrays_must_agree(name):
    with pytest.raises(ValueError, match="speech arrays disagree"):
        replace(speech(), **{name: getattr(speech(), name)[:-1]})


def test_speech_arrays_are_one_series():
    table = np.zeros((4, 2), np.float32)
    with pytest.raises(ValueError, match="speech arrays disagree"):
        SpeechTrack(table, table, table > 0, 50.0, speech().sound)


def test_speech_rows_stand_in_the_middle_of_their_time():
    np.testing.assert_allclose(speech(rows=3).times_s, [0.01, 0.03, 0.05])


# To disk and back.


def assert_same_row(back: TrialRow, row: TrialRow) -> None:
    for name in ("name", "is_result", "pictures", "alpha", "frames_late", "is_whole", "speech_late_s", "about"):
        assert getattr(back, name) == getattr(row, name), name
    for name in TABLES:
        before, after = getattr(row, name), getattr(back, name)
        assert (before is None) == (after is None)
        if before is not None:
            np.testing.assert_array_equal(after, before)
            assert after.dtype == before.dtype
    for name in ("points", "depth", "valid", "blendshapes"):
        np.testing.assert_array_equal(getattr(back.landmarks, name), getattr(row.landmarks, name))


def test_a_trial_comes_back(folder):
    trial = make_trial(folder)
    trial.save(folder)
    back = Trial.load(folder)
    assert len(back) == len(trial) == COUNT
    for name in ("name", "protocol", "source", "window", "outcomes", "crops", "notes"):
        assert getattr(back, name) == getattr(trial, name), name
    for name in ("frames", "times_s", "block"):
        np.testing.assert_array_equal(getattr(back, name), getattr(trial, name))
        assert getattr(back, name).dtype == getattr(trial, name).dtype
    assert len(back.rows) == len(trial.rows)
    for found, row in zip(back.rows, trial.rows, strict=True):
        assert_same_row(replace(found, pictures=absolute(found.pictures)), row)
    assert back.speech is not None and trial.speech is not None
    for name in ("opening", "level_db", "is_speech"):
        np.testing.assert_array_equal(getattr(back.speech, name), getattr(trial.speech, name))
    assert (back.speech.rate_hz, back.speech.sound.sample_rate_hz) == (50.0, 16_000)
    assert not list(folder.glob("*.tmp*"))


def absolute(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def test_the_sound_comes_back_within_a_step_of_16_bits(folder):
    loud = np.array([-1.7, -1.0, -0.5, -1e-5, 0.0, 1e-5, 0.3, 1.0, 1.2], np.float32)
    trial = make_trial(folder, speech=replace(speech(), sound=AudioClip(loud, 44_100)))
    trial.save(folder)
    back = Trial.load(folder).speech
    assert back is not None and back.sound.samples.dtype == np.float32 and back.sound.sample_rate_hz == 44_100
    np.testing.assert_allclose(back.sound.samples, loud.clip(-1, 1), atol=1 / 32767, rtol=0)


def test_a_trial_without_speech_comes_back(folder):
    make_trial(folder, speech=None).save(folder)
    assert Trial.load(folder).speech is None


def test_a_trial_saved_twice_is_the_later_one(folder):
    make_trial(folder).save(folder)
    make_trial(folder, name="another", rows=make_trial(folder).rows[:1]).save(folder)
    back = Trial.load(folder)
    assert back.name == "another" and len(back.rows) == 1


def test_a_moved_folder_still_loads(folder, tmp_path):
    make_trial(folder).save(folder)
    (folder / "row2.mkv").write_bytes(b"pictures")
    elsewhere = tmp_path / "elsewhere" / "last"
    elsewhere.parent.mkdir()
    folder.rename(elsewhere)
    back = Trial.load(elsewhere)
    pictures = back.rows[2].pictures
    assert pictures is not None and pictures == elsewhere / "row2.mkv" and pictures.read_bytes() == b"pictures"
    assert back.rows[2].alpha == elsewhere / "row2_alpha.mkv"
    assert back.source == tmp_path / "trials" / "clip.mp4", "the video stays where it is"
    assert absolute(back.rows[3].pictures) == tmp_path / "elsewhere" / "out.mp4", "what lies beside it moves with it"
    assert str(folder) not in (elsewhere / "trial.json").read_text(encoding="utf-8")


def test_a_missing_or_unfinished_folder_is_refused(folder):
    with pytest.raises(ValueError, match="holds no finished trial"):
        Trial.load(folder / "nowhere")
    make_trial(folder).save(folder)
    (folder / "trial.json").unlink()
    with pytest.raises(ValueError, match="holds no finished trial"):
        Trial.load(folder)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '"trial/1"', "{}", json.dumps({"schema": "trial/2"}), json.dumps({"schema": "radnerf-dataset/1"})],
)
def test_a_foreign_folder_is_refused(folder, text):
    make_trial(folder).save(folder)
    (folder / "trial.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"last holds (no finished trial|schema .*, expected {TRIAL_SCHEMA})"):
        Trial.load(folder)
