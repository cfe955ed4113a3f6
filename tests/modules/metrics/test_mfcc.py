from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.metrics import mfcc as mfcc_module
from modules.metrics.mfcc import mel_bands, mfcc
from modules.structures.audio import AudioClip
from tests.modules.metrics.mfcc_golden import GOLDEN_FILE, waveform


def clip_of(samples: np.ndarray, rate_hz: int = 16_000) -> AudioClip:
    return AudioClip(np.asarray(samples, np.float32), rate_hz)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, count).astype(np.float32)


def naive_row(samples: np.ndarray, row: int) -> list[float]:
    """One row by the textbook, sums written out."""
    scaled = [float(v) for v in np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767)]
    emphasised = [scaled[0]] + [scaled[n] - 0.97 * scaled[n - 1] for n in range(1, len(scaled))]
    frame = [emphasised[n] if n < len(emphasised) else 0.0 for n in range(160 * row, 160 * row + 400)]
    n = np.arange(400)
    power = [abs(np.sum(np.array(frame) * np.exp(-2j * np.pi * k * n / 512))) ** 2 / 512 for k in range(257)]
    top = 2595 * np.log10(1 + 8000 / 700)
    edges = [int(513 * 700 * (10 ** (top * i / 27 / 2595) - 1) / 16_000) for i in range(28)]
    logs = []
    for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
        rising = sum((k - low) / (middle - low) * power[k] for k in range(low, middle))
        falling = sum((high - k) / (high - middle) * power[k] for k in range(middle, high))
        logs.append(np.log(rising + falling))
    result = [np.log(sum(power))]
    for c in range(1, 13):
        cosine = sum(log * np.cos(np.pi * c * (2 * band + 1) / 52) for band, log in enumerate(logs))
        result.append((1 + 11 * np.sin(np.pi * c / 22)) * np.sqrt(2 / 26) * cosine)
    return result


def test_golden():
    samples = waveform()
    assert np.abs(samples.astype(int)).max() >= 32767 and not samples[:2500].any()  # it holds both extremes
    expected = np.load(GOLDEN_FILE, allow_pickle=False)["mfcc"]
    found = mfcc(clip_of(samples / 32768))
    assert found.shape == expected.shape == (150, 13)
    assert np.allclose(found, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("count", [1, 160, 399, 400, 401, 1999])
def test_rows_by_the_textbook(count):
    samples = noise(count, seed=count)
    found = mfcc(clip_of(samples))
    rows = 1 if count <= 400 else 1 + int(np.ceil((count - 400) / 160))
    assert found.shape == (rows, 13)
    for row in {0, rows // 2, rows - 1}:
        assert np.allclose(found[row], naive_row(samples, row), rtol=1e-8, atol=1e-8)


def test_first_coefficient_follows_loudness_and_the_others_do_not():
    samples = np.rint(noise(4000) * 4096) / 32768  # whole 16-bit steps before and after doubling
    quiet, loud = mfcc(clip_of(samples)), mfcc(clip_of(2 * samples))
    assert np.allclose(loud[:, 0] - quiet[:, 0], 2 * np.log(2))
    assert np.allclose(loud[:, 1:], quiet[:, 1:], atol=1e-8)


def test_samples_are_rounded_to_16_bits_and_clipped():
    samples = noise(2000)
    stored = np.rint(samples * 32768) / 32768
    assert np.array_equal(mfcc(clip_of(samples)), mfcc(clip_of(stored)))
    assert np.array_equal(mfcc(clip_of(8 * stored)), mfcc(clip_of(np.clip(8 * stored, -1, 32767 / 32768))))
    assert not np.array_equal(mfcc(clip_of(stored)), mfcc(clip_of(stored + 1 / 32768)))


def test_silence_is_finite_and_no_sound_is_no_row():
    silent = mfcc(clip_of(np.zeros(3000)))
    assert np.isfinite(silent).all()
    assert np.allclose(silent[:, 0], np.log(np.finfo(float).eps))
    assert mfcc(clip_of(np.zeros(0))).shape == (0, 13)


def test_bands_are_triangles_that_share_their_edges():
    bands = mel_bands()
    assert bands.shape == (26, 257) and bands.min() == 0 and (bands.max(axis=1) == 1).all()
    peaks = bands.argmax(axis=1)
    assert (np.diff(peaks) > 0).all()
    # between the first and the last peak, the two bands that overlap add up to 1
    assert np.allclose(bands[:, peaks[0] : peaks[-1] + 1].sum(axis=0), 1)


@settings(max_examples=20)
@given(count=st.integers(1, 3000), block=st.integers(1, 9))
def test_blocks_do_not_show(count, block):
    clip = clip_of(noise(count))
    whole = mfcc(clip)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mfcc_module, "_BLOCK", block)
        assert np.allclose(mfcc(clip), whole, rtol=1e-12, atol=1e-12)


def test_another_rate_is_refused():
    with pytest.raises(ValueError, match=r"16000 Hz, got 44100 Hz"):
        mfcc(clip_of(noise(100), 44_100))
