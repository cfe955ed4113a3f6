"""Rays, the samples on them and what they render to; rays of pixels under any camera matrix and pose.

The camera is OpenCV-like: x right, y down, z forward; ``world_from_camera`` is ``[4, 4]`` and acts on column vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class RayBundle:
    """``N`` rays: origins ``[N, 3]`` and unit directions ``[N, 3]`` in world units."""

    origins: Tensor
    directions: Tensor

    def __post_init__(self) -> None:
        if self.origins.ndim != 2 or self.origins.shape[1] != 3 or self.origins.shape != self.directions.shape:
            shapes = tuple(self.origins.shape), tuple(self.directions.shape)
            raise ValueError(f"rays need origins and directions [N, 3], got {shapes}")

    def __len__(self) -> int:
        return len(self.origins)

    def __repr__(self) -> str:
        return f"RayBundle(n={len(self)}, device={self.origins.device})"


@dataclass(frozen=True, slots=True, eq=False)
class RaySamples:
    """``M`` samples of ``N`` rays, packed ray after ray.

    Attributes:
        positions: ``[M, 3]``. directions: ``[M, 3]``.
        deltas: ``[M, 2]``: length of the sample's interval, and the distance at its end.
        ray_index: int64 ``[M]``, ascending. counts: int64 ``[N]`` samples of each ray.
    """

    positions: Tensor
    directions: Tensor
    deltas: Tensor
    ray_index: Tensor
    counts: Tensor

    def __repr__(self) -> str:
        return f"RaySamples(n_samples={len(self.positions)}, n_rays={len(self.counts)})"


@dataclass(frozen=True, slots=True, eq=False)
class RenderOutput:
    """What rays show.

    Attributes:
        rgb: ``[N, 3]`` 0..1, background included where there is one.
        opacity: ``[N]`` sum of the sample weights, 0..1.
        depth: ``[N]`` expected distance; its scale is the renderer's.
        ambient: ``[N]`` sum over the ray's samples of ``|ambient|``: how much the motion is used there.
        weights: ``[N, K]`` weight of each sample, where every ray has the same number of them.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    ambient: Tensor
    weights: Tensor | None = None

    def __repr__(self) -> str:
        return f"RenderOutput(n={len(self.rgb)}, device={self.rgb.device})"


def pixel_centres(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Centres of all pixels of an image, float32 ``[height * width, 2]`` (x, y) px, row after row."""
    rows = torch.arange(height, dtype=torch.float32, device=device) + 0.5
    columns = torch.arange(width, dtype=torch.float32, device=device) + 0.5
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x.reshape(-1), y.reshape(-1)], dim=1)


def pixel_rays(pixels_px: Tensor, image_from_camera: Tensor, world_from_camera: Tensor) -> RayBundle:
    """Rays through points of an image.

    Args:
        pixels_px: ``[N, 2]`` continuous (x, y); pixel (row r, column c) has its centre at (c+0.5, r+0.5).
        image_from_camera: ``[3, 3]`` camera matrix K, or ``crop_from_frame · K`` for a crop (rotation allowed).
        world_from_camera: ``[4, 4]`` pose.

    Returns:
        ``N`` rays in world units.
    """
    pose = world_from_camera.to(pixels_px)
    homogeneous = torch.cat([pixels_px, torch.ones_like(pixels_px[:, :1])], dim=1)
    camera_from_image = torch.linalg.inv(image_from_camera.double()).to(pixels_px)
    directions = torch.nn.functional.normalize(homogeneous @ camera_from_image.T, dim=1) @ pose[:3, :3].T
    return RayBundle(pose[:3, 3].expand_as(directions), directions)


def background_coordinates(height: int, width: int, device: torch.device | str = "cpu") -> Tensor:
    """Image coordinates of background and torso, ``[height * width, 2]``: (row, column), -1..1 from first to last."""
    rows = torch.linspace(-1, 1, height, device=device)
    columns = torch.linspace(-1, 1, width, device=device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([y.reshape(-1), x.reshape(-1)], dim=1)
