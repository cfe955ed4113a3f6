"""Talking clips on disk."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modules.structures.speech_motion import SpeechMotionClip


def make_clip(rows: int = 5) -> SpeechMotionClip:
    return SpeechMotionClip(
        name="a",
        speaker="b",
        features=np.ones((2, rows, 6), np.float16),
        expression=np.ones((rows, 4), np.float32),
        identity=np.zeros(3, np.float32),
        opening=np.arange(rows, dtype=np.float32),
        width=np.arange(rows, dtype=np.float32),
        valid=np.ones(rows, dtype=bool),
        is_speech=np.zeros(rows, dtype=bool),
        rate_hz=50.0,
        extractor="e",
        face_model_version="v",
    )


def test_round_trip(tmp_path):
    clip = make_clip()
    clip.save(tmp_path / "clip.npz")
    loaded = SpeechMotionClip.load(tmp_path / "clip.npz")
    for field in dataclasses.fields(clip):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(clip, field.name))
    assert isinstance(loaded.name, str) and isinstance(loaded.rate_hz, float)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.npz"]


def test_disagreeing_arrays_and_foreign_files(tmp_path):
    with pytest.raises(ValueError, match="disagree"):
        dataclasses.replace(make_clip(), opening=np.zeros(4, np.float32))
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="schema"):
        SpeechMotionClip.load(tmp_path / "x.npz")
