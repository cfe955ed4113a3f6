"""Speech features: the last three blocks of a Whisper encoder, at 50 rows a second.

Reads: encoder.safetensors (written by convert_whisper). Writes: nothing.

Long sound goes through 30 s windows on a fixed grid from time 0 (``window_grid``). Whisper was trained on windows
padded with zeros to 30 s and its attention sees that padding: it is kept. The streaming form hears a shorter past and
at most 0.4 s ahead of each row, and encodes anew at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional

from data_gen.utils.process_audio.convert_whisper import SCHEMA
from data_gen.utils.process_audio.mel_scale import mel_filters
from data_gen.utils.process_audio.resample_audio_to_16k import SAMPLE_RATE_HZ
from data_gen.utils.process_audio.sample_store import pieces_of
from data_gen.utils.process_audio.window_grid import SampleBuffer, Window, WindowGrid, windows_of_stream
from modules.commons.errors import ModelFileError, first_line
from modules.structures.audio import AudioClip, AudioFeatures

EXTRACTOR = "whisper-tiny.en/blocks-2-3-4"
"""Features of the embedded default, by which checkpoints know them."""
RATE_HZ = 50
N_FFT = 400
HOP = 160
HEAD_WIDTH = 64
N_KEPT = 3

WINDOW_ROWS = 1500
EDGE_ROWS = 150
"""Rows at an inner window edge that are left to the neighbour: 3 s of context."""
SAMPLES_PER_ROW = SAMPLE_RATE_HZ // RATE_HZ
# Whisper centres row i on i/50 s. Reading half a row later puts it on (i + 0.5)/50 s, as AudioFeatures promises;
# a transform of 400 samples centred there starts 40 samples before the row's second half.
_FIRST_SAMPLE = SAMPLES_PER_ROW // 2 - N_FFT // 2
_OVERREAD = N_FFT // 2


@dataclass(frozen=True, slots=True)
class EncoderSize:
    """Sizes of a Whisper encoder; the defaults are tiny's."""

    width: int = 384
    n_blocks: int = 4
    n_mels: int = 80

    @property
    def n_heads(self) -> int:
        return self.width // HEAD_WIDTH

    @property
    def kept(self) -> tuple[int, ...]:
        """Blocks whose output is a feature: the last three."""
        return tuple(range(max(self.n_blocks - N_KEPT, 0), self.n_blocks))

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> EncoderSize:
        """Sizes that the tensors of a file speak of.

        Raises:
            KeyError: they are not those of an encoder.
        """
        width, n_mels = tensors["conv1.weight"].shape[:2]
        return cls(width, 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")), n_mels)


@dataclass(frozen=True, slots=True)
class Reach:
    """How much of the sound a row may depend on.

    Attributes:
        grid: windows, in rows.
        encoded_rows: length of what the network is given; a window is padded with silence to it.
        eager: each window is encoded as soon as it can be, hearing nothing that comes later.
        suffix: what tells these features from those of the whole recording, in the extractor's name.
    """

    grid: WindowGrid
    encoded_rows: int = WINDOW_ROWS
    eager: bool = False
    suffix: str = ""


OFFLINE = Reach(WindowGrid(WINDOW_ROWS, WINDOW_ROWS - 2 * EDGE_ROWS, EDGE_ROWS))
STREAMING = Reach(WindowGrid(200, 10, 10), encoded_rows=250, eager=True, suffix="/streaming")
"""Each 0.2 s anew, 4 s heard, of which 0.2 s after the step: a row sees 0.2 to 0.4 s ahead."""


def log_mel(samples: Tensor, filters: Tensor) -> Tensor:
    """Whisper's log-mel picture of samples ``[N]``: ``[mels, (N - 400) // 160 + 1]``, about -1..1.

    Column j covers samples ``160·j .. 160·j + 400``; values more than 8 decades below the loudest are clamped.
    """
    window = torch.hann_window(N_FFT, device=samples.device)
    spectrum = torch.stft(samples, N_FFT, HOP, window=window, center=False, return_complex=True)
    log_power = torch.log10(torch.clamp(filters @ spectrum.abs() ** 2, min=1e-10))
    return (torch.maximum(log_power, log_power.max() - 8.0) + 4.0) / 4.0


class _Block(nn.Module):
    """Pre-norm transformer block: self-attention in heads of 64, then a feed-forward of four times the width."""

    def __init__(self, size: EncoderSize) -> None:
        super().__init__()
        self.n_heads = size.n_heads
        self.attention_norm = nn.LayerNorm(size.width)
        self.query_key_value = nn.Linear(size.width, 3 * size.width)
        self.attention_out = nn.Linear(size.width, size.width)
        self.feed_forward_norm = nn.LayerNorm(size.width)
        self.expand = nn.Linear(size.width, 4 * size.width)
        self.contract = nn.Linear(4 * size.width, size.width)

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, width = x.shape
        packed = self.query_key_value(self.attention_norm(x)).view(batch, rows, 3, self.n_heads, HEAD_WIDTH)
        query, key, value = packed.permute(2, 0, 3, 1, 4)  # each [B, heads, T, 64]
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attention_out(attended.transpose(1, 2).reshape(batch, rows, width))
        return x + self.contract(functional.gelu(self.expand(self.feed_forward_norm(x))))


class EncoderNetwork(nn.Module):
    """Whisper's audio encoder: two convolutions, positions, transformer blocks, a final layer norm."""

    def __init__(self, size: EncoderSize | None = None) -> None:
        super().__init__()
        self.size = size = size or EncoderSize()
        self.conv1 = nn.Conv1d(size.n_mels, size.width, 3, padding=1)
        self.conv2 = nn.Conv1d(size.width, size.width, 3, stride=2, padding=1)
        self.position = nn.Parameter(torch.zeros(WINDOW_ROWS, size.width), requires_grad=False)
        self.blocks = nn.ModuleList(_Block(size) for _ in range(size.n_blocks))
        self.norm = nn.LayerNorm(size.width)

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel ``[B, mels, 2·T]``, T ≤ 1500, to the last blocks side by side, ``[B, T, 3·width]``.

        The last of them is normalised, as Whisper's decoder gets it.
        """
        x = functional.gelu(self.conv2(functional.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.position[: x.shape[1]]
        kept = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.size.kept:
                kept.append(self.norm(x) if index == self.size.n_blocks - 1 else x)
        return torch.cat(kept, dim=-1)


def row_count(clip: AudioClip) -> int:
    """Feature rows of a clip: the last one may cover less than 20 ms."""
    return -(-len(clip.samples) // SAMPLES_PER_ROW)


class WhisperEncoder:
    """Turns sound into encoder rows; tiny's holds 8 M weights (33 MB in float32).

    Args:
        weights: encoder.safetensors written by convert_whisper, of any size of Whisper.
        device: where the network runs.
        reach: ``OFFLINE`` or ``STREAMING``.

    Raises:
        ModelFileError: the weights are missing, corrupt or of something else.
    """

    rate_hz = float(RATE_HZ)
    first_s = 0.5 / RATE_HZ

    def __init__(self, weights: Path, device: torch.device | str = "cpu", reach: Reach = OFFLINE) -> None:
        self._device = torch.device(device)
        self._reach = reach
        network, model = _load_network(weights)
        self._network = network.to(self._device).eval()
        filters = mel_filters(network.size.n_mels, N_FFT, SAMPLE_RATE_HZ)
        self._filters = torch.from_numpy(filters).to(self._device)
        self.stands_for = f"{model}/blocks-{'-'.join(str(index + 1) for index in network.size.kept)}"
        self.name = self.stands_for + reach.suffix
        self.width = network.size.width * len(network.size.kept)

    def extract(self, clip: AudioClip) -> AudioFeatures:
        """Features ``[T, width]`` at 50 Hz of a 16 kHz clip, T = ceil(samples / 320)."""
        values = np.empty((row_count(clip), self.width), np.float32)
        for first, rows in self.extract_windows(clip):
            values[first : first + len(rows)] = rows
        return AudioFeatures(values, self.rate_hz, self.name)

    def extract_windows(self, clip: AudioClip) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same in pieces of at most 30 s, in order: (first row, rows ``[t, width]``)."""
        if clip.sample_rate_hz != SAMPLE_RATE_HZ:
            raise ValueError(f"Whisper hears 16 kHz, got {clip.sample_rate_hz} Hz")
        return self.extract_stream(pieces_of(clip.samples))

    def extract_stream(self, pieces: Iterable[NDArray[np.float32]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The same of 16 kHz samples that arrive in pieces of any size, each row as soon as its window is complete."""
        reach = self._reach
        reads = {"underread": -_FIRST_SAMPLE, "overread": 0 if reach.eager else _OVERREAD}
        for window, buffer in windows_of_stream(pieces, reach.grid, SAMPLES_PER_ROW, eager=reach.eager, **reads):
            rows = self._encode(self._heard(buffer, window))
            yield window.keep_from, rows[window.keep_from - window.first : window.keep_to - window.first]

    def _heard(self, buffer: SampleBuffer, window: Window) -> NDArray[np.float32]:
        """The samples a window's transforms touch."""
        start = window.first * SAMPLES_PER_ROW + _FIRST_SAMPLE
        stop = start + 2 * self._reach.encoded_rows * HOP + N_FFT - HOP
        return buffer.read(start, stop, window.stop * SAMPLES_PER_ROW if self._reach.eager else None)

    @torch.inference_mode()
    def _encode(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        mel = log_mel(torch.from_numpy(samples).to(self._device), self._filters)
        return self._network(mel[None])[0].cpu().numpy()


def _load_network(weights: Path) -> tuple[EncoderNetwork, str]:
    """The network and the name of the model it comes from."""
    if not weights.is_file():
        raise ModelFileError(f"{weights}: the speech encoder is missing; run scripts/setup.sh, which fetches it")
    try:
        with safe_open(weights, framework="pt") as stored:
            about = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
        if about.get("schema") != SCHEMA:
            raise RuntimeError(f"schema is {about.get('schema')!r}, expected {SCHEMA!r}")
        network = EncoderNetwork(EncoderSize.of(tensors))
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"{weights}: not this project's speech encoder ({first_line(error)}); run scripts/setup.sh"
        ) from error
    return network, about["model"]
