"""Interchangeable feature extractors: what each can do, and the one table of their names.

Reads: the weights of the extractor that is built. Writes: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.extract_hubert import HubertExtractor
from data_gen.utils.process_audio.extract_mel_f0 import MelExtractor, PitchExtractor
from data_gen.utils.process_audio.extract_whisper import OFFLINE, STREAMING, WhisperEncoder
from modules.commons.errors import ConfigError
from modules.commons.workspace import CHECKPOINTS, WHISPER_FILE
from modules.structures.audio import AudioClip, AudioFeatures

HUBERT_DIR = CHECKPOINTS / "hubert_large_ls960_ft"
EXTRACTORS = ("whisper", "whisper-tiny", "whisper-base", "whisper-streaming", "hubert", "mel", "f0")


class FeatureExtractor(Protocol):
    """Sound to rows of numbers at a fixed rate and at known times.

    Attributes:
        name: of the features, by which checkpoints know them.
        rate_hz: rows per second.
        width: values per row.
        first_s: centre of row 0, seconds of the clip.
    """

    name: str
    rate_hz: float
    width: int
    first_s: float

    def extract(self, clip: AudioClip) -> AudioFeatures:
        """All rows of a 16 kHz clip."""
        ...

    def extract_windows(self, clip: AudioClip) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same in pieces, in order and without gaps: (first row, rows ``[t, width]``); in bounded memory."""
        ...


def build_extractor(
    name: str,
    *,
    device: torch.device | str = "cpu",
    weights: Path | None = None,
) -> FeatureExtractor:
    """The extractor of that name.

    Args:
        name: one of ``EXTRACTORS``. ``whisper`` is the embedded tiny.en, ``whisper-tiny`` and ``whisper-base`` the
            multilingual ones once their weights are there, ``whisper-streaming`` the embedded one at a look-ahead of
            at most 0.4 s; ``hubert``, ``mel`` and ``f0`` are GeneFace++'s.
        device: where networks run.
        weights: file (Whisper) or folder (HuBERT) of the weights; None = their place below checkpoints/.

    Raises:
        ConfigError: there is no such extractor.
        ModelFileError: its weights are missing or corrupt.
        BackendUnavailableError: a package that it needs is not installed.
    """
    if name in ("whisper", "whisper-tiny", "whisper-base", "whisper-streaming"):
        reach = STREAMING if name == "whisper-streaming" else OFFLINE
        return WhisperEncoder(weights or whisper_file(name), device, reach)
    if name == "hubert":
        return HubertExtractor(weights or HUBERT_DIR, device)
    if name == "mel":
        return MelExtractor()
    if name == "f0":
        return PitchExtractor()
    raise ConfigError(f"there is no feature extractor {name!r}; use one of {', '.join(EXTRACTORS)}")


def whisper_file(name: str) -> Path:
    """Where the weights of a Whisper extractor lie; ``convert_whisper`` writes them there."""
    if name in ("whisper-tiny", "whisper-base"):
        return CHECKPOINTS / name.replace("-", "_") / "encoder.safetensors"
    return WHISPER_FILE


def resampled(features: AudioFeatures, n_rows: int, rate_hz: float, *, nearest: bool = False) -> NDArray[np.float32]:
    """Features at the rows of another clock.

    Args:
        features: of any extractor.
        n_rows: rows wanted; row i is centred on ``(i + 0.5) / rate_hz`` s.
        rate_hz: their rate.
        nearest: take the nearest row instead of interpolating between two (pitch: 0 Hz means no voice).

    Returns:
        ``[n_rows, C]``; the first and last row go on beyond their ends.

    Raises:
        ValueError: there is no row to read.
    """
    if len(features) == 0:
        raise ValueError(f"{features.extractor} has no rows: the sound is shorter than one of its windows")
    assert features.first_s is not None
    at = ((np.arange(n_rows) + 0.5) / rate_hz - features.first_s) * features.rate_hz
    at = np.clip(at, 0.0, len(features) - 1.0)
    if nearest:
        return features.values[np.floor(at + 0.5).astype(np.int64)]
    left = np.minimum(at.astype(np.int64), max(len(features) - 2, 0))
    right = np.minimum(left + 1, len(features) - 1)
    weight = (at - left)[:, None].astype(np.float32)
    return (features.values[left] * (1 - weight) + features.values[right] * weight).astype(np.float32)
