"""Sizes of the post-net."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PostNetConfig:
    """Sizes.

    Attributes:
        width: values of a landmark row. hidden: channels.
        dilations: of its kernels of 3 rows, one residual layer each.
        dropout: share of channels dropped in training.
    """

    width: int = 204
    hidden: int = 32
    dilations: tuple[int, ...] = (1, 2, 4)
    dropout: float = 0.4

    def __post_init__(self) -> None:
        if min(self.width, self.hidden, *self.dilations) < 1 or not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"needs sizes of at least 1 and dropout in [0, 1), got {self}")
