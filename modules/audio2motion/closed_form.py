"""What of audio → motion needs no gradient: principal components and ridge regression."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def principal_components(features: NDArray, n_blocks: int, count: int) -> tuple[Tensor, Tensor]:
    """Mean and leading directions of each block of feature rows.

    Args:
        features: ``[N, blocks · width]``.
        n_blocks: encoder blocks side by side in a row.
        count: directions per block.

    Returns:
        mean ``[blocks, width]`` and matrix ``[blocks, width, count]``, scaled so that a block's components have a
        mean square of 1 (their relative sizes stay: noise then hides small ones first).
    """
    blocks = features.reshape(len(features), n_blocks, -1)
    means, matrices = [], []
    for index in range(n_blocks):
        rows = blocks[:, index].astype(np.float64)
        mean = rows.mean(axis=0)
        power, directions = np.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
        power, directions = power[::-1][:count], directions[:, ::-1][:, :count]
        means.append(mean)
        matrices.append(directions / np.sqrt(power.mean()))
    return torch.from_numpy(np.stack(means)).float(), torch.from_numpy(np.stack(matrices)).float()


def window_rows(components: NDArray, reach: int, step: int) -> NDArray:
    """``[T, C]`` to ``[T, (2·reach + 1) · C]``: each row with neighbours ``step`` rows apart, edge rows repeated."""
    rows = np.arange(len(components))[:, None] + step * np.arange(-reach, reach + 1)
    return components[rows.clip(0, len(components) - 1)].reshape(len(components), -1)


@dataclass(frozen=True, slots=True, eq=False)
class RidgeRows:
    """Rows of one clip to regress on: inputs ``[T, C]``, targets ``[T, U]``, weights ``[T]``."""

    inputs: NDArray
    targets: NDArray
    weights: NDArray


def ridge_filter(clips: Iterable[RidgeRows], reach: int, step: int, penalty: float) -> tuple[NDArray, NDArray]:
    """Least squares with an l2 penalty on windows of rows; the bias is free.

    Args:
        clips: the rows; one clip is held expanded at a time.
        reach: taps to each side of a row.
        step: rows between taps.
        penalty: in units of the mean square of an input times the summed weight of all rows.

    Returns:
        weight ``[2·reach + 1, C, U]`` and bias ``[U]``.
    """
    gram, mixed = np.zeros((1, 1)), np.zeros((1, 1))  # grow to full size with the first clip
    for clip in clips:
        windows = window_rows(clip.inputs, reach, step)
        inputs = np.append(windows, np.ones((len(windows), 1), windows.dtype), axis=1)
        weighted = inputs * clip.weights[:, None].astype(windows.dtype)
        gram = gram + (weighted.T @ inputs).astype(np.float64)  # the product, which is nearly all work, in float32
        mixed = mixed + (weighted.T @ clip.targets).astype(np.float64)
    n_inputs = len(gram) - 1
    strength = penalty * float(np.mean(np.diag(gram)[:-1]))
    regular = gram + strength * np.diag(np.append(np.ones(n_inputs), 0.0))
    solved = np.linalg.solve(regular, mixed)
    return solved[:-1].reshape(2 * reach + 1, -1, mixed.shape[1]), solved[-1]
