"""Spoil a person's own motion the way a general prediction does: other sizes, symmetric, damped, a little off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from tasks.postnet.configs import DistortionConfig

_NOISE_SIGMA_ROWS = 1.5


def mirrored_columns(names: tuple[str, ...], columns: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each of ``columns`` the position, among them, of the unit on the other side; itself where there is none."""
    chosen = [names[column] for column in columns]

    def other_side(name: str) -> str:
        for one, two in (("Left", "Right"), ("Right", "Left")):
            if name.endswith(one):
                return name.removesuffix(one) + two
        return name

    return np.array(
        [chosen.index(other) if (other := other_side(name)) in chosen else i for i, name in enumerate(chosen)]
    )


def distort(
    units: NDArray[np.floating],
    rest: NDArray[np.floating],
    mirror: NDArray[np.int64],
    config: DistortionConfig,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Spoilt mouth units.

    Args:
        units: ``[T, U]`` of consecutive frames.
        rest: ``[U]`` of the mouth at rest.
        mirror: ``[U]`` of ``mirrored_columns``.
        config: how much.
        rng: source of all randomness.
    """
    count = units.shape[1]
    spread = units.std(axis=0) + 1e-4
    gain = np.exp(config.common_gain * rng.standard_normal() + config.unit_gain * rng.standard_normal(count))
    share = 0.5 * config.mirror * rng.random()
    moved = (units - rest) * gain
    moved = (1.0 - share) * moved + share * moved[:, mirror]
    width = config.smoothing_rows * rng.random()
    if width > 0.1:
        moved = gaussian_filter1d(moved, width, axis=0, mode="nearest")
    noise = gaussian_filter1d(rng.standard_normal(units.shape), _NOISE_SIGMA_ROWS, axis=0, mode="nearest")
    noise /= noise.std() + 1e-9
    spoilt = rest + moved + spread * (config.offset * rng.standard_normal(count) + config.noise * noise)
    return spoilt.astype(np.float32)
