"""Whisper's encoder against an independent run of the same weights, and its windows."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.extract_whisper import (
    EDGE_ROWS,
    EXTRACTOR,
    OFFLINE,
    STREAMING,
    WINDOW_ROWS,
    WhisperEncoder,
    log_mel,
)
from data_gen.utils.process_audio.mel_scale import mel_filters
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
    samples = np.zeros(480_240, np.float32)  # what the first window's 3000 transforms touch, from sample -40 on
    samples[40:160_040] = waveform()
    mel = log_mel(torch.from_numpy(samples), torch.from_numpy(mel_filters(80, 400, 16_000))).numpy()
    assert mel.shape == (80, 3000)
    np.testing.assert_allclose(mel[:, golden["columns"]], golden["mel"], atol=1e-4)


@needs_weights
def test_final_block_equals_ctranslate2(encoder, golden):
    values = encoder.extract(AudioClip(waveform(), 16_000)).values
    assert values.shape == (500, 1152)
    rows = golden["rows"][golden["rows"] < 500]
    np.testing.assert_allclose(values[rows, 768:], golden["encoded"][: len(rows)], atol=2e-4)


def test_windows_have_3_seconds_of_context():
    for window in OFFLINE.grid.windows(20_000):
        assert window.keep_from - window.first >= (EDGE_ROWS if window.first else 0)
        assert window.stop - window.first == WINDOW_ROWS
        assert window.stop - window.keep_to >= EDGE_ROWS or window.keep_to == 20_000


@needs_weights
def test_default_name_is_the_one_checkpoints_know(encoder):
    assert encoder.name == encoder.stands_for == EXTRACTOR and encoder.width == 1152


@needs_weights
def test_streaming_sees_at_most_0_4_seconds_ahead():
    """What comes later changes nothing, and the rows arrive while the sound does."""
    encoder = WhisperEncoder(WHISPER_FILE, reach=STREAMING)
    assert encoder.stands_for == EXTRACTOR and encoder.name != EXTRACTOR
    samples = waveform()[8_000:32_000]
    other = samples.copy()
    other[16_000:] = waveform()[100_000:108_000]  # from 1 s on
    heard_s, delays, found = 0.0, [], []

    def live():
        nonlocal heard_s
        for start in range(0, 24_000, 320):
            heard_s = (start + 320) / 16_000
            yield samples[start : start + 320]

    for row, rows in encoder.extract_stream(live()):
        delays.append(heard_s - row / 50)
        found.append(rows)
    first, second = np.concatenate(found), encoder.extract(AudioClip(other, 16_000)).values
    assert max(delays) <= 0.4 + 0.021 and len(found) == 7
    assert first.shape == (75, 1152)
    np.testing.assert_allclose(first[: 50 - 20], second[: 50 - 20], atol=1e-6)
    assert np.abs(first[50:] - second[50:]).max() > 0.1


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
def test_rows_depend_neither_on_pieces_nor_on_what_comes_long_after(encoder):
    samples = np.tile(waveform(), 7)
    cuts = np.sort(np.random.default_rng(0).integers(0, len(samples), 40))
    in_pieces = np.concatenate([rows for _, rows in encoder.extract_stream(np.split(samples, cuts))])
    short = encoder.extract(AudioClip(samples[: 60 * 16_000], 16_000)).values
    assert in_pieces.shape == (3500, 1152)
    np.testing.assert_allclose(in_pieces[:2550], short[:2550], atol=1e-5)


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


@needs_weights
@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(encoder):
    """10 minutes: rows in pieces equal those of the whole, and twenty take no more memory than ten."""
    ten_minutes = np.tile(waveform(), 60)

    def pieces(repeats):
        for _ in range(repeats * 10):
            yield waveform_once

    waveform_once = ten_minutes[: 16_000 * 60]
    whole = encoder.extract(AudioClip(ten_minutes, 16_000)).values
    for first, rows in encoder.extract_stream(pieces(1)):
        np.testing.assert_allclose(rows, whole[first : first + len(rows)], atol=1e-4)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(len(rows) for _, rows in encoder.extract_stream(pieces(2)))
    after_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert count == 2 * 30_000 and after_kb - before_kb < 60_000
