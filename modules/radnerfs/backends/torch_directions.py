"""Spherical harmonics and frequency encoding in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def sh_encode(directions: Tensor, degree: int) -> Tensor:
    """Real spherical harmonics ``[..., degree ** 2]`` of unit vectors ``[..., 3]``, degree 1..4.

    Raises:
        ValueError: degree outside 1..4.
    """
    if not 1 <= degree <= 4:
        raise ValueError(f"spherical harmonics exist here for degree 1..4, got {degree}")
    x, y, z = directions.unbind(-1)
    bands = [torch.full_like(x, 0.28209479177387814)]
    if degree > 1:
        bands += [-0.48860251190291987 * y, 0.48860251190291987 * z, -0.48860251190291987 * x]
    if degree > 2:
        bands += _second_band(x, y, z)
    if degree > 3:
        bands += _third_band(x, y, z)
    return torch.stack(bands, dim=-1)


def _second_band(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    return [
        1.0925484305920792 * x * y,
        -1.0925484305920792 * y * z,
        0.94617469575755997 * z * z - 0.31539156525251999,
        -1.0925484305920792 * x * z,
        0.54627421529603959 * (x * x - y * y),
    ]


def _third_band(x: Tensor, y: Tensor, z: Tensor) -> list[Tensor]:
    xx, yy, zz = x * x, y * y, z * z
    return [
        0.59004358992664352 * y * (yy - 3.0 * xx),
        2.8906114426405538 * x * y * z,
        0.45704579946446572 * y * (1.0 - 5.0 * zz),
        0.3731763325901154 * z * (5.0 * zz - 3.0),
        0.45704579946446572 * x * (1.0 - 5.0 * zz),
        1.4453057213202769 * z * (xx - yy),
        0.59004358992664352 * x * (3.0 * yy - xx),
    ]


def freq_encode(values: Tensor, degree: int) -> Tensor:
    """``[..., D] -> [..., D * (1 + 2 * degree)]``: the values, then sine and cosine of 2^k times them, k = 0.. ."""
    blocks = [values]
    for octave in range(degree):
        angles = values * float(2**octave)
        blocks += [torch.sin(angles), torch.cos(angles)]
    return torch.cat(blocks, dim=-1)
