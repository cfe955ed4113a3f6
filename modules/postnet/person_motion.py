"""How one person's mouth differs from what a general model predicts: size, asymmetry and habits.

Three things are put on a general prediction of the mouth units, in this order: every unit is scaled about its mean in
speech; a linear filter on the speech features adds what the general model misses of this person; and the whole is
stretched to the range in which this person's lips really open. Nothing here depends on how the general model is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modules.audio2motion.model import stretch


@dataclass(frozen=True, slots=True, eq=False)
class FeatureReducer:
    """Speech features, standardised as they are in this person's speech, on their main directions.

    Attributes:
        mean, scale: ``[C]``. directions: ``[C, R]``.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    directions: NDArray[np.float32]

    def __call__(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """``[T, C]`` to ``[T, R]``; row by row, so that long sound can be reduced in pieces."""
        return ((features - self.mean) / self.scale).astype(np.float32) @ self.directions


@dataclass(frozen=True, slots=True, eq=False)
class PersonMotion:
    """One person's way of speaking, on top of a general prediction.

    Attributes:
        columns: int64 ``[U]`` of the mouth units among the face model's coefficients.
        general_mean: ``[U]`` mean general deviation in this person's speech. own_mean: ``[U]`` the true one.
        scale: ``[U]`` of each unit about its mean.
        reducer: of the features. taps: ``[2·reach + 1, R, U]``, ``step`` rows apart. bias: ``[U]``.
        gain: stretch about ``own_mean`` that gives the lips their natural range.
        opening_effect: ``[U]`` lip opening, dm, that one unit adds. opening_floor: dm over rest, see ``stretch``.
        face_model_version, extractor: what the units and the features belong to.
    """

    columns: NDArray[np.int64]
    general_mean: NDArray[np.float32]
    own_mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    reducer: FeatureReducer
    taps: NDArray[np.float32]
    bias: NDArray[np.float32]
    step: int
    gain: float
    opening_effect: NDArray[np.float32]
    opening_floor: float
    face_model_version: str
    extractor: str

    def __call__(self, deviation: NDArray[np.floating], reduced: NDArray[np.floating]) -> NDArray[np.float32]:
        """This person's deviation from rest.

        Args:
            deviation: ``[T, E]`` the general one, in natural size and before any gate.
            reduced: ``[T, R]`` of ``reducer``.

        Returns:
            ``[T, E]``; columns that are not this person's own come back unchanged.

        Raises:
            ValueError: the arrays do not belong together.
        """
        if len(deviation) != len(reduced) or reduced.shape[1:] != self.taps.shape[1:2]:
            raise ValueError(f"motion {deviation.shape} and reduced features {reduced.shape} do not belong together")
        units = self.unstretched(deviation[:, self.columns], reduced)
        floor, effect = torch.tensor(self.opening_floor), torch.from_numpy(self.opening_effect)
        center = torch.from_numpy(self.own_mean)
        gain = torch.full_like(center, self.gain)
        result = np.array(deviation, np.float32)
        result[:, self.columns] = stretch(torch.from_numpy(units), gain, center, effect, floor).numpy()
        return result

    def unstretched(self, units: NDArray[np.floating], reduced: NDArray[np.floating]) -> NDArray[np.float32]:
        """``[T, U]`` of general mouth units ``[T, U]`` and reduced features, before the range is restored."""
        sized = self.own_mean + self.scale * (units - self.general_mean)
        return (sized + filtered(reduced, self.taps, self.step) + self.bias).astype(np.float32)


def neighbours(rows: NDArray[np.floating], reach: int, step: int) -> NDArray[np.floating]:
    """``[T, R]`` to ``[T, 2·reach + 1, R]``: each row with those ``step`` apart, edge rows repeated."""
    index = np.arange(len(rows))[:, None] + step * np.arange(-reach, reach + 1)
    return rows[index.clip(0, len(rows) - 1)]


def filtered(rows: NDArray[np.floating], taps: NDArray[np.floating], step: int) -> NDArray[np.floating]:
    """A linear filter ``taps [2·reach + 1, R, U]`` over ``rows [T, R]``: ``[T, U]``, tap by tap to save memory."""
    reach = len(taps) // 2
    result = np.zeros((len(rows), taps.shape[2]), np.float64)
    for number, tap in enumerate(taps):
        index = (np.arange(len(rows)) + step * (number - reach)).clip(0, max(len(rows) - 1, 0))
        result += rows[index] @ tap
    return result
