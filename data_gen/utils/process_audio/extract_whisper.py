"""Speech features: Whisper tiny.en's encoder, blocks 2 to 4, at 50 rows a second.

Reads: encoder.safetensors (written by convert_whisper). Writes: nothing.

Long sound goes through 30 s windows on a fixed grid from time 0. Windows overlap, and of each only rows with context
on both sides are kept, so memory does not grow with the length beyond the features themselves. Whisper was trained on
windows padded with zeros to 30 s and its attention sees that padding: it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from data_gen.utils.process_audio.convert_whisper import SCHEMA
from data_gen.utils.process_audio.resample_audio_to_16k import SAMPLE_RATE_HZ
from modules.commons.errors import ModelFileError
from modules.structures.audio import AudioClip, AudioFeatures

EXTRACTOR = "whisper-tiny.en/blocks-2-3-4"
RATE_HZ = 50
WIDTH = 384
N_HEADS = 6
N_BLOCKS = 4
N_MELS = 80
N_FFT = 400
HOP = 160
KEPT_BLOCKS = (1, 2, 3)

WINDOW_ROWS = 1500
EDGE_ROWS = 150
"""Rows at an inner window edge that are left to the neighbour: 3 s of context."""
STRIDE_ROWS = WINDOW_ROWS - 2 * EDGE_ROWS
SAMPLES_PER_ROW = SAMPLE_RATE_HZ // RATE_HZ
_WINDOW_SAMPLES = 2 * WINDOW_ROWS * HOP + N_FFT - HOP
# Whisper centres row i on i/50 s. Reading half a row later puts it on (i + 0.5)/50 s, as AudioFeatures promises;
# a transform of 400 samples centred there starts 40 samples before the row's second half.
_FIRST_SAMPLE = SAMPLES_PER_ROW // 2 - N_FFT // 2


def mel_filters() -> NDArray[np.float32]:
    """``[80, 201]`` triangular filters, Slaney's mel scale and area normalisation, 0 to 8 kHz."""
    edges_hz = _hz_from_mel(np.linspace(0.0, _mel_from_hz(SAMPLE_RATE_HZ / 2), N_MELS + 2))
    bins_hz = np.linspace(0.0, SAMPLE_RATE_HZ / 2, N_FFT // 2 + 1)
    low, centre, high = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return (triangles * (2.0 / (high - low))).astype(np.float32)


def _mel_from_hz(hz: float) -> float:
    """Slaney's scale above its linear part (which ends at 1 kHz = 15 mel)."""
    return 15.0 + 27.0 * np.log(hz / 1000.0) / np.log(6.4)


def _hz_from_mel(mel: NDArray) -> NDArray:
    return np.where(mel < 15.0, mel * 200.0 / 3.0, 1000.0 * np.exp((mel - 15.0) * np.log(6.4) / 27.0))


def log_mel(samples: Tensor, filters: Tensor) -> Tensor:
    """Whisper's log-mel picture of samples ``[N]``: ``[80, (N - 400) // 160 + 1]``, about -1..1.

    Column j covers samples ``160·j .. 160·j + 400``; values more than 8 decades below the loudest are clamped.
    """
    window = torch.hann_window(N_FFT, device=samples.device)
    spectrum = torch.stft(samples, N_FFT, HOP, window=window, center=False, return_complex=True)
    log_power = torch.log10(torch.clamp(filters @ spectrum.abs() ** 2, min=1e-10))
    return (torch.maximum(log_power, log_power.max() - 8.0) + 4.0) / 4.0


class _Block(nn.Module):
    """Pre-norm transformer block: self-attention of 6 heads, then a feed-forward of four times the width."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.attention_out = nn.Linear(WIDTH, WIDTH)
        self.feed_forward_norm = nn.LayerNorm(WIDTH)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH)
        self.contract = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, _ = x.shape
        packed = self.query_key_value(self.attention_norm(x)).view(batch, rows, 3, N_HEADS, WIDTH // N_HEADS)
        query, key, value = packed.permute(2, 0, 3, 1, 4)  # each [B, 6, T, 64]
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(attended.transpose(1, 2).reshape(batch, rows, WIDTH))
        return x + self.contract(functional.gelu(self.expand(self.feed_forward_norm(x))))


class EncoderNetwork(nn.Module):
    """Whisper tiny's audio encoder: two convolutions, positions, four blocks, a final layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(N_MELS, WIDTH, 3, padding=1)
        self.conv2 = nn.Conv1d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.position = nn.Parameter(torch.zeros(WINDOW_ROWS, WIDTH), requires_grad=False)
        self.blocks = nn.ModuleList(_Block() for _ in range(N_BLOCKS))
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel ``[B, 80, 3000]`` to blocks 2, 3 and 4 side by side, ``[B, 1500, 1152]`` (block 4 normalised)."""
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2) + self.position
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in KEPT_BLOCKS:
                kept.append(self.norm(x) if index == N_BLOCKS - 1 else x)
        return torch.cat(kept, dim=-1)


@dataclass(frozen=True, slots=True)
class _Window:
    """Rows ``first .. first + 1500`` are computed, of which ``keep_from .. keep_to`` (absolute) are kept."""

    first: int
    keep_from: int
    keep_to: int


def window_plan(n_rows: int) -> Iterator[_Window]:
    """Windows that together keep each of ``n_rows`` rows exactly once."""
    first = 0
    while True:
        keep_from = first + EDGE_ROWS if first else 0
        if first + WINDOW_ROWS >= n_rows:
            yield _Window(first, keep_from, n_rows)
            return
        yield _Window(first, keep_from, first + WINDOW_ROWS - EDGE_ROWS)
        first += STRIDE_ROWS


def row_count(clip: AudioClip) -> int:
    """Feature rows of a clip: the last one may cover less than 20 ms."""
    return -(-len(clip.samples) // SAMPLES_PER_ROW)


class WhisperEncoder:
    """Turns sound into encoder rows; holds 8 M weights (33 MB in float32).

    Args:
        weights: encoder.safetensors written by convert_whisper.
        device: where the network runs.

    Raises:
        ModelFileError: the weights are missing, corrupt or of something else.
    """

    def __init__(self, weights: Path, device: torch.device | str = "cpu") -> None:
        self._device = torch.device(device)
        self._network = _load_network(weights).to(self._device).eval()
        self._filters = torch.from_numpy(mel_filters()).to(self._device)

    def extract(self, clip: AudioClip) -> AudioFeatures:
        """Features ``[T, 1152]`` at 50 Hz of a 16 kHz clip, T = ceil(samples / 320)."""
        values = np.empty((row_count(clip), WIDTH * len(KEPT_BLOCKS)), np.float32)
        for first, rows in self.extract_windows(clip):
            values[first : first + len(rows)] = rows
        return AudioFeatures(values, float(RATE_HZ), EXTRACTOR)

    def extract_windows(self, clip: AudioClip) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same in pieces of at most 30 s, in order: (first row, rows ``[t, 1152]``)."""
        if clip.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"Whisper hears 16 kHz, got {clip.sample_rate_hz} Hz")
        for window in window_plan(row_count(clip)):
            rows = self._encode(_window_samples(clip.samples, window.first))
            yield window.keep_from, rows[window.keep_from - window.first : window.keep_to - window.first]

    @torch.inference_mode()
    def _encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        mel = log_mel(torch.from_numpy(samples).to(self._device), self._filters)
        return self._network(mel[None])[0].cpu().numpy()


def _window_samples(samples: NDArray[np.float32], first_row: int) -> NDArray[np.float32]:
    """The samples one window's transforms touch, zeros outside the clip."""
    start = first_row * SAMPLES_PER_ROW + _FIRST_SAMPLE
    buffer = np.zeros(_WINDOW_SAMPLES, np.float32)
    begin, end = max(start, 0), min(start + _WINDOW_SAMPLES, len(samples))
    if begin < end:
        buffer[begin - start : end - start] = samples[begin:end]
    return buffer


def _load_network(weights: Path) -> EncoderNetwork:
    if not weights.is_file():
        raise ModelFileError(f"{weights}: the speech encoder is missing; run scripts/setup.sh, which fetches it")
    network = EncoderNetwork()
    try:
        with safe_open(weights, framework="pt") as stored:
            schema = (stored.metadata() or {}).get("schema")
            tensors = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
        if schema != SCHEMA:
            raise RuntimeError(f"schema is {schema!r}, expected {SCHEMA!r}")
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise ModelFileError(f"{weights}: not this project's speech encoder ({error}); run scripts/setup.sh") from error
    return network
