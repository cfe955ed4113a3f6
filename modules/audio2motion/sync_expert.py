"""Does this sound go with these lips? Two small networks whose outputs agree where it does.

Wav2Lip (Prajwal et al. 2020) judges generated lips by such an expert; here it sees the movement of lip points instead
of pictures, and is trained by telling the true moment from others of the same clip and from other clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class SyncExpertConfig:
    """Sizes and training of the expert.

    Attributes:
        hidden: channels. embedding: values that are compared. layers: convolutions of 5 rows in each network.
        dropout: in both networks.
        temperature: cosines are divided by it.
        max_lag_rows: moments of the same clip up to this far from the true one are told from it ...
        lag_step_rows: ... at this distance from each other; nearer ones may sound and look the same.
        max_updates: steps of its training. lr: peak of the learning rate.
    """

    hidden: int = 48
    embedding: int = 32
    layers: int = 3
    dropout: float = 0.3
    temperature: float = 0.1
    max_lag_rows: int = 24
    lag_step_rows: int = 4
    max_updates: int = 300
    lr: float = 2e-3

    def __post_init__(self) -> None:
        if min(self.hidden, self.embedding, self.layers, self.lag_step_rows, self.max_updates) < 1:
            raise ValueError(f"all sizes and steps must be at least 1: {self}")
        if self.temperature <= 0 or self.max_lag_rows < self.lag_step_rows or not 0 <= self.dropout < 1:
            raise ValueError(f"needs temperature > 0, max_lag_rows >= lag_step_rows and dropout in [0, 1): {self}")

    @property
    def lags(self) -> tuple[int, ...]:
        """Rows by which sound is moved against motion to make it wrong."""
        distances = range(self.lag_step_rows, self.max_lag_rows + 1, self.lag_step_rows)
        return tuple(sign * distance for distance in distances for sign in (1, -1))


class _Tower(nn.Module):
    def __init__(self, n_inputs: int, config: SyncExpertConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(n_inputs, config.hidden)
        self.layers = nn.ModuleList(
            nn.Conv1d(config.hidden, config.hidden, 5, padding=2, padding_mode="replicate")
            for _ in range(config.layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.leave = nn.Linear(config.hidden, config.embedding)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(functional.gelu(self.enter(x)))
        for layer in self.layers:
            x = x + self.dropout(functional.gelu(layer(x.transpose(1, 2)))).transpose(1, 2)
        return functional.normalize(self.leave(x), dim=-1)


class SyncExpert(nn.Module):
    """Agreement of sound and lip motion, row by row.

    Args:
        n_components: values of a row of sound.
        effect: ``[U, P]`` what one unit adds to each coordinate of the lip points, in units of their usual spread.
        config: sizes.
    """

    effect: Tensor

    def __init__(self, n_components: int, effect: Tensor, config: SyncExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("effect", effect)
        self.sound, self.motion = _Tower(n_components, config), _Tower(effect.shape[1], config)

    def loss(self, components: Tensor, units: Tensor, weights: Tensor) -> Tensor:
        """Cross-entropy of picking the true moment (InfoNCE, van den Oord et al. 2018, equation 4).

        Candidates for each row of motion are its own sound, that at ``config.lags``, and that of the next clip in the
        batch. Rows that a lag moves out of the window are no candidates.

        Args:
            components: ``[B, T, C]``.
            units: ``[B, T, U]`` motion.
            weights: ``[B, T]``; rows of weight 0 do not count and are no candidates.

        Returns:
            scalar, differentiable in both inputs.
        """
        scores = self.scores(components, units, weights)
        counted = weights * scores[..., 1:].isfinite().any(dim=-1)  # a row without an alternative proves nothing
        entropy = -functional.log_softmax(scores, dim=-1)[..., 0]
        return (torch.where(counted > 0, entropy, 0.0) * counted).sum() / counted.sum().clamp_min(1e-6)

    def scores(self, components: Tensor, units: Tensor, weights: Tensor) -> Tensor:
        """``[B, T, lags + 2]`` agreement over temperature, the true moment first; -inf where there is no candidate."""
        sound, motion, heard = self.sound(components), self.motion(units @ self.effect), weights > 0
        others = [self._lagged(sound, motion, heard, lag) for lag in self.config.lags]
        other_clip = self._lagged(sound.roll(1, dims=0), motion, heard.roll(1, dims=0) & (len(sound) > 1), 0)
        return torch.stack([self._lagged(sound, motion, torch.ones_like(heard), 0), *others, other_clip], dim=-1)

    def _lagged(self, sound: Tensor, motion: Tensor, heard: Tensor, lag: int) -> Tensor:
        rows = torch.arange(sound.shape[1], device=sound.device) + lag
        inside = (rows >= 0) & (rows < sound.shape[1])
        rows = rows.clamp(0, sound.shape[1] - 1)
        agreement = (sound[:, rows] * motion).sum(dim=-1) / self.config.temperature
        return agreement.masked_fill(~(inside & heard[:, rows]), -torch.inf)
