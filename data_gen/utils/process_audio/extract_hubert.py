"""HuBERT features as official GeneFace++ checkpoints want them: 1024 values, 50 rows a second.

Reads: a folder with facebook/hubert-large-ls960-ft (config.json and weights), through ``transformers`` (an optional
package). Writes: nothing; ``scripts/download_models.sh hubert`` fills that folder.

GeneFace++'s way of cutting is kept, because its network learnt from it: the whole recording is brought to mean 0 and
variance 1 at once, then 20 s pieces of 1000 rows are encoded one by one, without overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.resample_audio_to_16k import SAMPLE_RATE_HZ
from data_gen.utils.process_audio.sample_store import pieces_of
from modules.commons.errors import BackendUnavailableError, ModelFileError, first_line
from modules.structures.audio import AudioClip, AudioFeatures

MODEL_ID = "facebook/hubert-large-ls960-ft"
RATE_HZ = 50
HOP = 320
FIELD = 400
"""Samples that one row sees; row i sees ``320·i .. 320·i + 400``."""
ROWS_PER_PIECE = 1000
_EPSILON = 1e-7


def row_count(n_samples: int) -> int:
    """Rows whose 400 samples lie within ``n_samples``."""
    return max((n_samples - FIELD) // HOP + 1, 0)


class HubertExtractor:
    """``[T, 1024]`` last hidden state, T = (samples - 80) // 320.

    Args:
        folder: where the model lies.
        device: where it runs.

    Raises:
        BackendUnavailableError: transformers is not installed.
        ModelFileError: the model is missing or cannot be read.
    """

    name = "hubert-large-ls960-ft"
    rate_hz = float(RATE_HZ)
    first_s = FIELD / 2 / SAMPLE_RATE_HZ

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._model = _load_model(folder).to(self._device).eval()
        self.width = int(self._model.config.hidden_size)

    def extract(self, clip: AudioClip) -> AudioFeatures:
        """Features of a 16 kHz clip."""
        parts = [rows for _, rows in self.extract_windows(clip)]
        values = np.concatenate(parts) if parts else np.zeros((0, self.width), np.float32)
        return AudioFeatures(values, self.rate_hz, self.name, self.first_s)

    def extract_windows(self, clip: AudioClip) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same in pieces of 20 s, in order: (first row, rows ``[t, 1024]``)."""
        if clip.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"HuBERT hears 16 kHz, got {clip.sample_rate_hz} Hz")
        mean, spread = _moments(clip.samples)
        for first in range(0, row_count(len(clip.samples)), ROWS_PER_PIECE):
            start = first * HOP
            piece = clip.samples[start : start + (ROWS_PER_PIECE - 1) * HOP + FIELD]
            yield first, self._encode(((piece - mean) / spread).astype(np.float32))

    @torch.inference_mode()
    def _encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._model(torch.from_numpy(samples)[None].to(self._device)).last_hidden_state[0].float().cpu().numpy()


def _moments(samples: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of all samples, in bounded memory."""
    count = max(len(samples), 1)
    mean = sum(float(piece.sum(dtype=np.float64)) for piece in pieces_of(samples)) / count
    variance = sum(float(np.square(piece - mean, dtype=np.float64).sum()) for piece in pieces_of(samples)) / count
    return mean, float(np.sqrt(variance + _EPSILON))


def _load_model(folder: Path) -> Any:
    try:
        from transformers import HubertModel
    except ImportError as error:
        raise BackendUnavailableError(
            "HuBERT features need the package transformers, which is not installed; run: pip install transformers"
        ) from error
    if not (folder / "config.json").is_file():
        raise ModelFileError(
            f"{folder}: {MODEL_ID} is not there; fetch it (1.3 GB) with: bash scripts/download_models.sh hubert"
        )
    try:
        return HubertModel.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelFileError(f"{folder}: {MODEL_ID} cannot be read ({first_line(error)}); fetch it anew") from error
