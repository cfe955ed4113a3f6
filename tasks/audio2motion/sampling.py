"""Windows of rows drawn at random from talking clips, in memory or from disk.

What is drawn depends on nothing but the generator it is drawn with: a run that seeds it by its step goes on after an
interruption with what it would have drawn anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from modules.commons.errors import ConfigError

_TRIES = 100


@dataclass(frozen=True, slots=True, eq=False)
class ClipRows:
    """One clip as training sees it.

    Attributes:
        components: ``[K, T, C]``, K renderings of the same sound.
        targets: ``[T, U]``.
        weights: ``[T]``, 0 where there is no evidence.
        closed_below: lip opening, dm over rest, under which the lips count as closed; -inf where that is not known.
    """

    components: Tensor
    targets: Tensor
    weights: Tensor
    closed_below: float = -math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Windows.

    Attributes:
        components: ``[B, T, C]``. targets: ``[B, T, U]``. weights: ``[B, T]``.
        closed_below: ``[B]``, see ``ClipRows``.
    """

    components: Tensor
    targets: Tensor
    weights: Tensor
    closed_below: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``."""
        parts = (self.components, self.targets, self.weights, self.closed_below)
        return Batch(*(part.to(device, non_blocking=True) for part in parts))


class ClipSource(Protocol):
    """Where clips come from."""

    def pick(self, count: int, rng: np.random.Generator, step: int) -> list[ClipRows]:
        """``count`` clips for training step ``step``; what is picked depends on the arguments alone."""
        ...


class ResidentClips:
    """Clips held in memory; long ones are picked more often."""

    def __init__(self, clips: Sequence[ClipRows]) -> None:
        self._clips = clips
        lengths = np.array([len(clip.targets) for clip in clips], dtype=np.float64)
        self._chances = lengths / lengths.sum()

    def pick(self, count: int, rng: np.random.Generator, step: int) -> list[ClipRows]:
        """See ``ClipSource``."""
        return [self._clips[int(index)] for index in rng.choice(len(self._clips), count, p=self._chances)]


class StoredClips:
    """A pool of clips in memory, some of which are exchanged for others from disk with every step.

    For corpora larger than memory: reading is bounded however large a batch is. Each place of the pool holds a clip for
    ``pool_clips / refresh_clips`` steps; which one follows from the place, the step and the seed.

    Args:
        files: one clip each; its size tells how often it is read.
        read: makes rows of a file, or says None where it holds too little.
        pool_clips: clips in memory. refresh_clips: of them exchanged with each step.
        seed: of the choice, several numbers.
    """

    def __init__(
        self,
        files: Sequence[Path],
        read: Callable[[Path], ClipRows | None],
        pool_clips: int,
        refresh_clips: int,
        seed: Sequence[int],
    ) -> None:
        self._files, self._read, self._seed = list(files), read, list(seed)
        self._pool: list[tuple[int, ClipRows] | None] = [None] * pool_clips
        self._refresh = refresh_clips
        self._cumulated = np.cumsum([file.stat().st_size for file in files], dtype=np.float64)

    def pick(self, count: int, rng: np.random.Generator, step: int) -> list[ClipRows]:
        """See ``ClipSource``."""
        return [self._at(int(place), step) for place in rng.integers(0, len(self._pool), count)]

    def _at(self, place: int, step: int) -> ClipRows:
        size = len(self._pool)
        exchanges = (step * self._refresh + size - 1 - place) // size  # places take turns
        held = self._pool[place]
        if held is None or held[0] != exchanges:
            held = (exchanges, self._next(place, exchanges))
            self._pool[place] = held
        return held[1]

    def _next(self, place: int, exchanges: int) -> ClipRows:
        rng = np.random.default_rng([*self._seed, place, exchanges])
        for _ in range(_TRIES):
            index = int(np.searchsorted(self._cumulated, rng.random() * self._cumulated[-1], side="right"))
            if (rows := self._read(self._files[min(index, len(self._files) - 1)])) is not None:
                return rows
        raise ConfigError(f"{self._files[0].parent}: {_TRIES} clips in a row hold too little face; build them anew")


class WindowSampler:
    """Draws windows.

    Args:
        source: the clips.
        window_rows: rows of a window; shorter clips are filled up with rows of weight 0.
        speed_range: sound and motion of a window run faster or slower together, by up to this share.
    """

    def __init__(self, source: ClipSource, window_rows: int, speed_range: float = 0.0) -> None:
        self._source, self._rows, self._speed_range = source, window_rows, speed_range

    def draw(self, count: int, rng: np.random.Generator, step: int = 0) -> Batch:
        """``count`` windows for training step ``step``; all randomness is ``rng``'s."""
        parts = [self._window(clip, rng) for clip in self._source.pick(count, rng, step)]
        components, targets, weights, closed = zip(*parts, strict=True)
        return Batch(torch.stack(components), torch.stack(targets), torch.stack(weights), torch.tensor(closed))

    def _window(self, clip: ClipRows, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
        span = self._speed_range
        speed = float(np.exp(rng.uniform(-math.log1p(span), math.log1p(span)))) if span else 1.0
        length, needed = len(clip.targets), math.ceil((self._rows - 1) * speed) + 1
        start = int(rng.integers(0, max(1, length - needed + 1)))
        rendering = clip.components[int(rng.integers(0, len(clip.components)))]
        places = start + speed * torch.arange(self._rows, dtype=torch.float64)
        low = places.floor().long()
        inside = low < length
        low = low.clamp_max(length - 1)
        if not span:
            return rendering[low], clip.targets[low], clip.weights[low] * inside, clip.closed_below
        high = (low + 1).clamp_max(length - 1)
        share = (places - places.floor()).float()[:, None]
        weights = torch.minimum(clip.weights[low], clip.weights[high]) * inside
        components = torch.lerp(rendering[low], rendering[high], share)
        return components, torch.lerp(clip.targets[low], clip.targets[high], share), weights, clip.closed_below
