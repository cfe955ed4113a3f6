"""The condition encoder arranged for one kernel: every layer a matrix over zero-padded widths, float32.

Only windows whose items are one time step (``cond_win_size`` 1) are packed: each convolution over time then meets its
input with its middle tap alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.radnerfs.radnerf import RADNeRF

ROWS = 16
"""A window's items, padded."""
TAPS = 4
"""A convolution's three taps, padded."""
ATTENTION_WIDTH = 16
"""Channels between the convolutions of the attention network, padded."""


@dataclass(frozen=True, slots=True)
class ConditionSizes:
    """What the kernel is compiled for.

    Attributes:
        window: items of a window. n_in: numbers per item. n_out: width of the condition feature, padded.
        item_widths: padded widths of the item network, input first.
        item_places, item_biases: where its matrices and biases start.
        attention_places, attention_biases: the same of the attention's convolutions; empty without attention.
        mix: where the last attention layer ``[16, 16]`` and, behind it, its bias start.
        blink: where the two rows start that an eye opening ``a`` adds ``a · first + second`` of; -1 without.
    """

    window: int
    n_in: int
    n_out: int
    item_widths: tuple[int, ...]
    item_places: tuple[int, ...]
    item_biases: tuple[int, ...]
    attention_places: tuple[int, ...]
    attention_biases: tuple[int, ...]
    mix: int
    blink: int


@dataclass(frozen=True, slots=True, eq=False)
class PackedCondition:
    """A condition encoder's numbers, flat float32, and what is where."""

    sizes: ConditionSizes
    weights: Tensor

    @classmethod
    def of(cls, field: RADNeRF) -> PackedCondition | None:
        """Pack a field's encoder; None where its windows are not of the kind that is packed."""
        config = field.config
        if config.cond_win_size != 1 or config.smo_win_size > ROWS:
            return None
        store = _Store()
        layers = _item_layers(field)
        widths = [_padded(layers[0][0].shape[1]), *(_padded(len(weight)) for weight, _ in layers)]
        places, biases = [], []
        for (weight, bias), n_in, n_out in zip(layers, widths, widths[1:], strict=False):
            places.append(store.add(_fitted(weight.T, n_in, n_out)))
            biases.append(store.add(_fitted(bias[None], 1, n_out)))
        attention_places, attention_biases, mix = _pack_attention(field, store, widths[-1])
        blink = store.add(_blink_rows(field, widths[-1])) if config.eye_blink_dim else -1
        sizes = ConditionSizes(
            window=config.smo_win_size if config.with_att else 1,
            n_in=config.cond_in_dim,
            n_out=widths[-1],
            item_widths=tuple(widths),
            item_places=tuple(places),
            item_biases=tuple(biases),
            attention_places=tuple(attention_places),
            attention_biases=tuple(attention_biases),
            mix=mix,
            blink=blink,
        )
        return cls(sizes, store.joined())


class _Store:
    """Collects arrays and remembers where each starts."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self.length = 0

    def add(self, values: Tensor) -> int:
        start = self.length
        self.parts.append(values.detach().float().reshape(-1))
        self.length += values.numel()
        return start

    def joined(self) -> Tensor:
        return torch.cat(self.parts).contiguous()


def _padded(width: int) -> int:
    return max(ROWS, 1 << (width - 1).bit_length())


def _fitted(matrix: Tensor, n_rows: int, n_columns: int) -> Tensor:
    return F.pad(matrix, (0, n_columns - matrix.shape[1], 0, n_rows - matrix.shape[0]))


def _item_layers(field: RADNeRF) -> list[tuple[Tensor, Tensor]]:
    """Weights ``[out, in]`` and biases of the item network; of each convolution the middle tap."""
    convolutions = [part for part in field.cond_prenet.encoder_conv if isinstance(part, nn.Conv1d)]
    linear = [part for part in field.cond_prenet.encoder_fc1 if isinstance(part, nn.Linear)]
    return [(part.weight[:, :, 1], cast(Tensor, part.bias)) for part in convolutions] + [
        (part.weight, cast(Tensor, part.bias)) for part in linear
    ]


def _pack_attention(field: RADNeRF, store: _Store, width: int) -> tuple[list[int], list[int], int]:
    """Convolutions as ``[width in, TAPS · 16]``, and the last layer transposed with its bias behind it."""
    if field.cond_att_net is None:
        return [], [], -1
    places, biases = [], []
    for part in field.cond_att_net.attentionConvNet:
        if not isinstance(part, nn.Conv1d):
            continue
        taps = part.weight.permute(1, 2, 0)  # [in, 3, out]
        padding = (0, ATTENTION_WIDTH - taps.shape[2], 0, TAPS - 3, 0, width - taps.shape[0])
        places.append(store.add(F.pad(taps, padding)))
        biases.append(store.add(_fitted(cast(Tensor, part.bias)[None], 1, ATTENTION_WIDTH)))
        width = ATTENTION_WIDTH
    last = cast(nn.Linear, field.cond_att_net.attentionNet[0])
    mix = store.add(_fitted(last.weight.T, ROWS, ROWS))
    store.add(_fitted(last.bias[None], 1, ROWS))
    return places, biases, mix


def _blink_rows(field: RADNeRF, width: int) -> Tensor:
    """The blink encoder is affine in the eye opening: its slope and its constant, ``[2, width]``."""
    first, second = (cast(nn.Linear, part) for part in field.blink_encoder)
    slope = second.weight @ (first.weight @ field.blink_embedding.weight[0])
    constant = second.weight @ first.bias + second.bias
    return _fitted(torch.stack([slope, constant]), 2, width)
