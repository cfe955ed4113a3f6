"""Is this a voice? A small recurrent network's probability of speech, 31.25 times a second.

Reads: speech_detector.safetensors (Silero VAD 6.2, MIT; checkpoints/speech_detector). Writes: nothing.

Energy tells where sound is (``vad``), not what it is: music and a running engine are loud too. The network is Silero
VAD's, which was trained on thousands of languages and noises. It hears windows of 512 samples (32 ms) with 64 samples
before them: magnitudes of a short transform, four convolutions, one LSTM step, one number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from data_gen.utils.process_audio.resample_audio_to_16k import SAMPLE_RATE_HZ
from modules.commons.errors import ModelFileError, first_line
from modules.structures.audio import AudioClip

WINDOW = 512
CONTEXT = 64
N_FFT = 256
HOP = 128
HIDDEN = 128
_WINDOWS_PER_PIECE = 4096


class SpeechNetwork(nn.Module):
    """Silero VAD's 16 kHz network; its tensors keep their names."""

    def __init__(self) -> None:
        super().__init__()
        n_bins = N_FFT // 2 + 1
        self.stft_conv = nn.Conv1d(1, 2 * n_bins, N_FFT, stride=HOP, bias=False)
        self.conv1 = nn.Conv1d(n_bins, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, HIDDEN, 3, padding=1)
        self.lstm_cell = nn.LSTM(HIDDEN, HIDDEN)
        self.final_conv = nn.Conv1d(HIDDEN, 1, 1)

    def forward(self, windows: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Windows ``[T, 576]`` in order to probabilities ``[T]`` and the state to go on with."""
        spectrum = self.stft_conv(functional.pad(windows[:, None], (0, CONTEXT), mode="reflect"))
        real, imaginary = spectrum.chunk(2, dim=1)
        x = torch.sqrt(real**2 + imaginary**2)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = functional.relu(layer(x))
        hidden, after = self.lstm_cell(x.transpose(1, 2), state)  # [T, 1, 128]: one step per window
        return torch.sigmoid(self.final_conv(functional.relu(hidden).transpose(1, 2)))[:, 0, 0], after


class SpeechDetector:
    """Probability of speech.

    Args:
        weights: the file named above.
        device: where the network runs.

    Raises:
        ModelFileError: the weights are missing, corrupt or of something else.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = _load(weights).to(self._device).eval()

    @torch.inference_mode()
    def probability(self, clip: AudioClip) -> NDArray[np.float32]:
        """``[ceil(N / 512)]`` of a 16 kHz clip; value k is of samples ``512·k .. 512·(k + 1)``."""
        if clip.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"the speech detector hears 16 kHz, got {clip.sample_rate_hz} Hz")
        count = -(-len(clip.samples) // WINDOW)
        found, state = np.zeros(count, np.float32), None
        for first in range(0, count, _WINDOWS_PER_PIECE):
            windows = _windows(clip.samples, first, min(first + _WINDOWS_PER_PIECE, count))
            values, state = self._network(torch.from_numpy(windows).to(self._device), state)
            found[first : first + len(values)] = values.cpu().numpy()
        return found


def _windows(samples: NDArray[np.float32], first: int, stop: int) -> NDArray[np.float32]:
    """Windows ``first .. stop`` with what stands before them, ``[stop - first, 576]``; zeros outside the clip."""
    begin, end = first * WINDOW - CONTEXT, stop * WINDOW
    piece = np.zeros(end - begin, np.float32)
    inside = samples[max(begin, 0) : end]
    piece[max(-begin, 0) : max(-begin, 0) + len(inside)] = inside
    return np.lib.stride_tricks.sliding_window_view(piece, WINDOW + CONTEXT)[::WINDOW].copy()


def _load(weights: Path) -> SpeechNetwork:
    if not weights.is_file():
        raise ModelFileError(
            f"{weights}: the speech detector is missing; it belongs to the repository, check it out anew"
        )
    network = SpeechNetwork()
    try:
        tensors = {
            f"{name}_l0" if name.startswith("lstm_cell.") else name: tensor.float()
            for name, tensor in load_file(weights).items()
        }
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise ModelFileError(f"{weights}: not the speech detector ({first_line(error)})") from error
    return network
