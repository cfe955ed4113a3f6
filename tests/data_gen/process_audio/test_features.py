"""The table of extractors, what they promise, and rows on another clock."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.process_audio.extract_mel_f0 import MelExtractor
from data_gen.utils.process_audio.features import EXTRACTORS, build_extractor, resampled, whisper_file
from modules.commons.errors import BackendUnavailableError, ConfigError, ModelFileError
from modules.commons.workspace import WHISPER_FILE
from modules.structures.audio import AudioClip, AudioFeatures
from tests.data_gen.process_audio.whisper_golden import waveform


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_name_is_built_or_says_what_it_lacks(name, tmp_path):
    """With its weights it keeps the protocol's promises; without, one sentence."""
    try:
        extractor = build_extractor(name)
    except (ModelFileError, BackendUnavailableError) as error:
        assert "\n" not in str(error) and len(str(error)) > 30
        assert name not in ("mel",)
        return
    clip = AudioClip(waveform()[8_000:16_000], 16_000)
    features = extractor.extract(clip)
    assert features.values.shape[1] == extractor.width and features.extractor == extractor.name
    assert features.rate_hz == extractor.rate_hz and features.first_s == extractor.first_s
    pieces = list(extractor.extract_windows(clip))
    assert [first for first, _ in pieces] == np.cumsum([0, *(len(rows) for _, rows in pieces[:-1])]).tolist()
    np.testing.assert_allclose(np.concatenate([rows for _, rows in pieces]), features.values, atol=1e-6)
    assert abs(features.times_s[-1] - clip.duration_s) < 0.06


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match=r"'melody'.*whisper-streaming"):
        build_extractor("melody")


def test_where_weights_lie(tmp_path):
    assert whisper_file("whisper") == whisper_file("whisper-streaming") == WHISPER_FILE
    assert whisper_file("whisper-base").parent.name == "whisper_base"
    with pytest.raises(ModelFileError, match="none"):
        build_extractor("whisper-base", weights=tmp_path / "none.safetensors")


def test_resampled_rows_are_read_at_their_times():
    times = MelExtractor.first_s + np.arange(40) / 50
    features = AudioFeatures(np.stack([times, 3 - times], axis=1).astype(np.float32), 50.0, "t", MelExtractor.first_s)
    wanted = (np.arange(15) + 0.5) / 25
    np.testing.assert_allclose(resampled(features, 15, 25.0)[:, 0], wanted, atol=1e-6)
    near = resampled(features, 15, 25.0, nearest=True)
    assert set(near[:, 0].tolist()) <= set(features.values[:, 0].tolist())
    np.testing.assert_allclose(near[:, 0], wanted, atol=0.0101)
    held = resampled(features, 100, 50.0)
    assert (held[-30:] == features.values[-1]).all() and held.dtype == np.float32
    with pytest.raises(ValueError, match="no rows"):
        resampled(AudioFeatures(np.zeros((0, 2), np.float32), 50.0, "t"), 3, 50.0)


def test_features_say_when():
    assert AudioFeatures(np.zeros((3, 1), np.float32), 50.0, "t").times_s.tolist() == [0.01, 0.03, 0.05]
    with pytest.raises(ValueError, match="T, C"):
        AudioFeatures(np.zeros(3, np.float32), 50.0, "t")
