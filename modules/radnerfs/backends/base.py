"""The interface of every render backend: stateless maths over tensors; noise is passed in, modules own parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from modules.radnerfs.rays import RayBundle, RaySamples


@dataclass(frozen=True, slots=True)
class GridLevels:
    """Geometry of a multi-resolution grid whose rows lie level after level in one table.

    Attributes:
        n_dims: 2 or 3.
        scales: per level, ``cell = position * scale + 0.5`` for positions in 0..1.
        resolutions: per level, corners per axis minus one.
        offsets: first row of each level, and the total number of rows at the end.
        hashed: levels with more corners than rows mix the axes by hashing; else the flat index wraps around.
        smooth: interpolate with t²(3-2t) instead of t.
    """

    n_dims: int
    scales: tuple[float, ...]
    resolutions: tuple[int, ...]
    offsets: tuple[int, ...]
    hashed: bool
    smooth: bool

    @property
    def n_rows(self) -> int:
        return self.offsets[-1]


@dataclass(frozen=True, slots=True)
class MarchConfig:
    """Marching through ``cascades`` nested occupancy grids with ``dt = clamp(t · dt_gamma, dt_min, dt_max)``."""

    bound: float
    grid_size: int
    cascades: int
    dt_gamma: float
    dt_min: float
    dt_max: float


@dataclass(frozen=True, slots=True, eq=False)
class RaySums:
    """Sums along ``N`` rays: image ``[N, 3]`` (no background), opacity, depth and ambient ``[N]``."""

    image: Tensor
    opacity: Tensor
    depth: Tensor
    ambient: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MarchedBlock:
    """``S`` consecutive samples of each of ``A`` rays; an interval of length 0 ends a ray.

    Attributes:
        positions: ``[A, S, 3]``. deltas: ``[A, S]`` interval lengths, 0 where the ray has ended.
        ends: ``[A, S]`` distance at each interval's end.
    """

    positions: Tensor
    deltas: Tensor
    ends: Tensor


class RenderBackend(Protocol):
    """Ray maths. All tensors of one call share a device; floats are float32 (the reference also takes float64)."""

    name: str

    def grid_encode(self, positions: Tensor, table: Tensor, levels: GridLevels) -> Tensor:
        """Interpolate grid features.

        Args:
            positions: ``[M, D]`` in 0..1; a point with a coordinate outside gets zeros, a non-finite one gets NaN.
            table: ``[rows, F]``.
            levels: geometry, ``D`` and ``rows`` as above.

        Returns:
            ``[M, L * F]``, level after level; differentiable in ``positions`` (piecewise) and ``table``.
        """
        ...

    def sh_encode(self, directions: Tensor, degree: int) -> Tensor:
        """Real spherical harmonics ``[..., degree ** 2]`` of unit vectors ``[..., 3]``, degree 1..4; differentiable."""
        ...

    def freq_encode(self, values: Tensor, degree: int) -> Tensor:
        """``[..., D] -> [..., D * (1 + 2 * degree)]``: x, sin x, cos x, sin 2x, cos 2x, sin 4x, ...; differentiable."""
        ...

    def near_far(self, rays: RayBundle, aabb: Tensor, min_near: float) -> tuple[Tensor, Tensor]:
        """Distances ``[N]`` at which rays enter and leave the box ``aabb [6]`` (low xyz, high xyz).

        The entry is at least ``min_near``; a ray that misses gets the largest float32 twice.
        """
        ...

    def morton_encode(self, cells: Tensor) -> Tensor:
        """Cells ``[M, 3]`` (0..1023 each) to Morton numbers int64 ``[M]``: x in bit 0, y in bit 1, z in bit 2, ..."""
        ...

    def morton_decode(self, numbers: Tensor) -> Tensor:
        """Inverse of ``morton_encode``: int64 ``[M, 3]``."""
        ...

    def pack_bits(self, density: Tensor, threshold: float) -> Tensor:
        """``density [8 * B] > threshold`` as uint8 ``[B]``; bit i of byte n is cell ``8n + i``."""
        ...

    def march_train(
        self,
        rays: RayBundle,
        near: Tensor,
        far: Tensor,
        bitfield: Tensor,
        march: MarchConfig,
        max_steps: int,
        jitter: Tensor | None = None,
    ) -> RaySamples:
        """All samples of rays in occupied cells, at most ``max_steps`` per ray.

        Args:
            rays: ``N`` rays.
            near: ``[N]`` where they enter the box.
            far: ``[N]`` where they leave it.
            bitfield: uint8, one bit per cell in Morton order.
            march: step rule.
            max_steps: most samples per ray.
            jitter: ``[N]`` in 0..1, fraction of a step by which each ray starts later; None starts at ``near``.
        """
        ...

    def composite_train(
        self, sigmas: Tensor, rgbs: Tensor, ambient: Tensor, samples: RaySamples, t_thresh: float
    ) -> RaySums:
        """Volume rendering of packed samples.

        Args:
            sigmas: ``[M]``.
            rgbs: ``[M, 3]``.
            ambient: ``[M]``, summed *without* weights over the visited samples.
            samples: intervals and rays.
            t_thresh: a ray ends after the sample that brings its transmittance below this.

        Returns:
            Sums per ray; image and opacity are differentiable in sigmas and rgbs, ambient in ambient, depth in none.
        """
        ...

    def march_infer(
        self, rays: RayBundle, start: Tensor, far: Tensor, bitfield: Tensor, march: MarchConfig, n_steps: int
    ) -> MarchedBlock:
        """The next ``n_steps`` samples of each ray from distance ``start [A]`` on."""
        ...

    def composite_infer(
        self, sums: RaySums, sigmas: Tensor, rgbs: Tensor, ambient: Tensor, block: MarchedBlock, t_thresh: float
    ) -> tuple[RaySums, Tensor]:
        """Add a block of samples (``[A, S]``, rgbs ``[A, S, 3]``) to the rays' running sums.

        A ray ends where an interval is 0, and after a sample *before* which its transmittance was below ``t_thresh``.

        Returns:
            The new sums, and bool ``[A]``: the ray used the whole block and goes on.
        """
        ...

    def composite_opaque(self, sigmas: Tensor, rgbs: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
        """Volume rendering of ``K`` samples per ray, the last of which is opaque.

        Args:
            sigmas: ``[N, K]``.
            rgbs: ``[N, K, 3]``.
            deltas: ``[N, K]``.

        Returns:
            Image ``[N, 3]`` and weights ``[N, K]`` (each row sums to 1); differentiable in sigmas and rgbs.
        """
        ...
