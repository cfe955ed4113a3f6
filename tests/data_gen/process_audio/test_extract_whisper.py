"""Whisper's encoder against an independent run of the same weights, and its windows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_audio.extract_whisper import (
    EDGE_ROWS,
    WINDOW_ROWS,
    WhisperEncoder,
    _window_samples,
    log_mel,
    mel_filters,
    window_plan,
)
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from modules.commons.errors import ModelFileError
from modules.commons.workspace import ROOT, WHISPER_FILE
from modules.structures.audio import AudioClip
from tests.data_gen.process_audio.whisper_golden import GOLDEN_FILE, waveform

SPEECH_FILE = ROOT.parent / "shared" / "clips" / "speech" / "english_55s.wav"
needs_weights = pytest.mark.skipif(not WHISPER_FILE.is_file(), reason="speech encoder not fetched: scripts/setup.sh")


@pytest.fixture(scope="module")
def encoder():
    return WhisperEncoder(WHISPER_FILE)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN_FILE) as data:
        return dict(data)


def test_log_mel_equals_the_independent_one(golden):
    mel = log_mel(torch.from_numpy(_window_samples(waveform(), 0)), torch.from_numpy(mel_filters())).numpy()
    assert mel.shape == (80, 3000)
    np.testing.assert_allclose(mel[:, golden["columns"]], golden["mel"], atol=1e-4)


@needs_weights
def test_final_block_equals_ctranslate2(encoder, golden):
    values = encoder.extract(AudioClip(waveform(), 16_000)).values
    assert values.shape == (500, 1152)
    rows = golden["rows"][golden["rows"] < 500]
    np.testing.assert_allclose(values[rows, 768:], golden["encoded"][: len(rows)], atol=2e-4)


@given(st.integers(1, 20_000))
def test_windows_keep_each_row_once_with_context(n_rows):
    kept = Counter()
    for window in window_plan(n_rows):
        kept.update(range(window.keep_from, window.keep_to))
        assert window.keep_from - window.first >= (EDGE_ROWS if window.first else 0)
        assert window.keep_to <= window.first + WINDOW_ROWS
    assert sorted(kept) == list(range(n_rows)) and set(kept.values()) == {1}


@needs_weights
@pytest.mark.skipif(not SPEECH_FILE.is_file(), reason="shared/clips is not here")
def test_speech_looks_the_same_wherever_it_lies_in_a_window(encoder):
    """The same words in another window and at another place give the same rows, at the same time."""
    clip = load_audio_16k(SPEECH_FILE)
    whole = encoder.extract(clip).values[1000:2200]
    later = encoder.extract(AudioClip(clip.samples[20 * 16_000 :], 16_000)).values[:1200]
    mean, spread = whole.mean(axis=0), whole.std(axis=0)
    whole, later = (whole - mean) / spread, (later - mean) / spread
    agreement = {lag: float((whole[5:-5] * np.roll(later, lag, axis=0)[5:-5]).mean()) for lag in (-1, 0, 1)}
    assert agreement[0] > 0.9 and agreement[0] > max(agreement[-1], agreement[1]) + 0.15


@needs_weights
def test_rows_do_not_depend_on_what_comes_long_after(encoder):
    samples = np.tile(waveform(), 7)
    long = encoder.extract(AudioClip(samples, 16_000)).values
    short = encoder.extract(AudioClip(samples[: 60 * 16_000], 16_000)).values
    np.testing.assert_allclose(long[:2000], short[:2000], atol=1e-5)


@needs_weights
@pytest.mark.parametrize("n_samples", [1, 320, 3201])
def test_row_count(encoder, n_samples):
    assert len(encoder.extract(AudioClip(np.zeros(n_samples, np.float32), 16_000)).values) == -(-n_samples // 320)


def test_missing_and_corrupt_weights(tmp_path):
    with pytest.raises(ModelFileError, match=r"scripts/setup\.sh"):
        WhisperEncoder(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x10\0\0\0\0\0\0\0not safetensors")
    with pytest.raises(ModelFileError, match="not this project's"):
        WhisperEncoder(broken)
