"""Sizes of the RAD-NeRF head and settings of its renderer; the defaults are GeneFace++'s (the 'May' head)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from modules.radnerfs.backends.base import GridLevels

GridType = Literal["tiled", "hash"]
Interpolation = Literal["linear", "smoothstep"]
Sampler = Literal["occupancy", "surface"]
TorsoCue = Literal["pose", "landmarks"]
Noise = Literal["off", "fixed", "random"]


@dataclass(frozen=True, slots=True)
class GridConfig:
    """A multi-resolution feature grid.

    Attributes:
        n_levels: resolutions between ``base_resolution`` and ``desired_resolution``, spaced geometrically.
        features_per_level: numbers stored per grid corner.
        base_resolution, desired_resolution: cells per axis of the coarsest and the finest level.
        log2_table_size: a level holds at most ``2 ** log2_table_size`` rows; finer ones share rows.
        grid_type: how rows are shared: 'tiled' wraps the flat index around (and drops the last axes of fine 3-D
            levels), 'hash' mixes all axes.
        interpolation: blend between corners, 'linear' or 'smoothstep'.
    """

    n_levels: int = 16
    features_per_level: int = 2
    base_resolution: int = 16
    desired_resolution: int = 2048
    log2_table_size: int = 16
    grid_type: GridType = "tiled"
    interpolation: Interpolation = "linear"

    def __post_init__(self) -> None:
        if self.n_levels < 1 or self.features_per_level < 1:
            raise ValueError(f"a grid needs at least one level and one feature: {self}")
        if not 1 <= self.base_resolution <= self.desired_resolution:
            raise ValueError(f"base_resolution must be in 1..desired_resolution: {self}")
        if not 3 <= self.log2_table_size <= 24:
            raise ValueError(f"log2_table_size must be in 3..24, got {self.log2_table_size}")
        terms = 1 if self.grid_type == "hash" else 3  # row numbers are xored or summed over the axes
        if terms * (self.desired_resolution + 2) << self.log2_table_size >= 2**31:
            raise ValueError(f"desired_resolution * 2**log2_table_size overflows 32-bit row numbers: {self}")

    @property
    def width(self) -> int:
        """Number of features a point gets."""
        return self.n_levels * self.features_per_level

    def levels(self, n_dims: int) -> GridLevels:
        """Scale, resolution and place in the table of each level of an ``n_dims``-dimensional grid."""
        octaves = np.float32(math.log2(self.desired_resolution / self.base_resolution) / max(self.n_levels - 1, 1))
        scales, resolutions, offsets = [], [], [0]
        for level in range(self.n_levels):
            # float32 on purpose: at 2048 cells the last bit of the scale moves a point by 1e-4 of a cell
            cells = np.exp2(np.float32(level) * octaves) * np.float32(self.base_resolution)
            resolution = math.ceil(float(cells) - 1e-3)  # whole numbers may land a rounding error above
            rows = min(2**self.log2_table_size, (resolution + 1) ** n_dims)
            scales.append(float(cells - np.float32(1)))
            resolutions.append(resolution)
            offsets.append(offsets[-1] + (rows + 7) // 8 * 8)
        smooth = self.interpolation == "smoothstep"
        return GridLevels(n_dims, tuple(scales), tuple(resolutions), tuple(offsets), self.grid_type == "hash", smooth)


@dataclass(frozen=True, slots=True)
class RenderConfig:
    """How a ray becomes a colour.

    Attributes:
        sampler: 'occupancy' marches through an occupancy grid as GeneFace++ does; 'surface' places ``n_samples``
            points in a shell around the fitted head and keeps no grid.
        max_steps: most samples per ray ('occupancy'); the step is ``2·√3 / max_steps``, at most ``2·√3 / grid_size``.
        dt_gamma: growth of the step with distance.
        t_thresh: in inference a ray ends one sample after its transmittance fell below this.
        min_near: nearest distance a sample may have.
        density_scale: factor on sigma; a new field has sigma near 1, so ``density_scale · interval`` should be near 1
            ('surface': 1 / shell_dm for intervals in dm, 1 for intervals in shell thicknesses).
        density_thresh: cells denser than this (or than the mean, if lower) are occupied.
        density_decay: factor on old densities in each occupancy update.
        grid_size: cells per axis of the occupancy grid, a power of two.
        n_samples, shell_dm: points per ray and half thickness of the shell ('surface').
    """

    sampler: Sampler = "occupancy"
    max_steps: int = 16
    dt_gamma: float = 1 / 256
    t_thresh: float = 1e-4
    min_near: float = 0.05
    density_scale: float = 1.0
    density_thresh: float = 10.0
    density_decay: float = 0.95
    grid_size: int = 128
    n_samples: int = 2
    shell_dm: float = 0.02

    def __post_init__(self) -> None:
        if self.max_steps < 1 or self.n_samples < 1:
            raise ValueError(f"a ray needs at least one sample: max_steps={self.max_steps}, n_samples={self.n_samples}")
        if self.grid_size < 2 or self.grid_size > 1024 or self.grid_size & (self.grid_size - 1):
            raise ValueError(f"grid_size must be a power of two in 2..1024, got {self.grid_size}")
        if not (self.shell_dm > 0 and self.density_scale > 0):
            raise ValueError(f"shell_dm and density_scale must be positive: {self.shell_dm}, {self.density_scale}")


@dataclass(frozen=True, slots=True)
class RADNeRFConfig:
    """Sizes of the head NeRF.

    Attributes:
        position_grid, ambient_grid: feature grids over space and over the learned ambient coordinates.
        ambient_dim: number of ambient coordinates (2 or 3): where in the ambient grid a point's appearance lies,
            given the facial motion.
        hidden_dim_*, num_layers_*: widths and depths of the three bias-free MLPs.
        geo_feat_dim: numbers handed from the density MLP to the colour MLP.
        sh_degree: spherical-harmonics bands of the view direction (1..4).
        cond_in_dim: numbers per time step of the condition (204 = 68 landmarks xyz).
        cond_out_dim: width of the encoded condition.
        cond_win_size: time steps per condition item (1, 2, 3, 4 or 16).
        smo_win_size: neighbouring items blended by attention; ``with_att`` False takes a single item.
        eye_blink_dim: channels of the condition the blink encoder adds to; 0 = no blink encoder.
        individual_embedding_num, individual_embedding_dim: one appearance code per training frame.
        bound: the field fills the cube ±bound (y is halved by the box used for marching).
        position_scale: factor on positions before everything else (dm of head space → field units).
        render: renderer settings; its ``sampler`` decides whether the model carries an occupancy grid.
    """

    position_grid: GridConfig = field(default_factory=GridConfig)
    ambient_grid: GridConfig = field(default_factory=GridConfig)
    ambient_dim: int = 3
    hidden_dim_ambient: int = 128
    hidden_dim_sigma: int = 128
    hidden_dim_color: int = 128
    num_layers_ambient: int = 3
    num_layers_sigma: int = 3
    num_layers_color: int = 2
    geo_feat_dim: int = 128
    sh_degree: int = 4
    cond_in_dim: int = 204
    cond_out_dim: int = 64
    cond_win_size: int = 1
    smo_win_size: int = 5
    with_att: bool = True
    eye_blink_dim: int = 0
    individual_embedding_num: int = 13000
    individual_embedding_dim: int = 4
    bound: float = 1.0
    position_scale: float = 1.0
    render: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        if self.ambient_dim not in (2, 3):
            raise ValueError(f"ambient_dim must be 2 or 3, got {self.ambient_dim}")
        if not 1 <= self.sh_degree <= 4:
            raise ValueError(f"sh_degree must be in 1..4, got {self.sh_degree}")
        if self.cond_win_size not in (1, 2, 3, 4, 16):
            raise ValueError(f"cond_win_size must be 1, 2, 3, 4 or 16, got {self.cond_win_size}")
        if min(self.num_layers_ambient, self.num_layers_sigma, self.num_layers_color) < 1:
            raise ValueError("every MLP needs at least one layer")
        if not 0 <= self.eye_blink_dim <= self.cond_out_dim:
            raise ValueError(f"eye_blink_dim must be in 0..cond_out_dim, got {self.eye_blink_dim}")
        if not (self.bound > 0 and self.position_scale > 0):
            raise ValueError(f"bound and position_scale must be positive: {self.bound}, {self.position_scale}")


@dataclass(frozen=True, slots=True)
class TorsoConfig:
    """Sizes of the torso: a flat picture that bends with the head.

    Attributes:
        grid: feature grid over the picture plane.
        cue: what it bends with: the camera's 'pose' (6 numbers) or the chin's 'landmarks' (7 points).
        head_aware: it also sees the rendered head at each pixel.
        individual_embedding_num, individual_embedding_dim: one appearance code per training frame.
        hidden_dim_deform, hidden_dim_color, num_layers: widths and depth of its two bias-free MLPs.
        shrink: picture coordinates are multiplied by this, so that bent points stay in the grid.
        grid_size: cells per axis of its occupancy grid. density_thresh: alpha above which a cell is worth rendering.
    """

    grid: GridConfig = field(default_factory=GridConfig)
    cue: TorsoCue = "pose"
    head_aware: bool = False
    individual_embedding_num: int = 13000
    individual_embedding_dim: int = 8
    hidden_dim_deform: int = 64
    hidden_dim_color: int = 32
    num_layers: int = 3
    shrink: float = 0.8
    grid_size: int = 128
    density_thresh: float = 0.01

    def __post_init__(self) -> None:
        if self.num_layers < 1 or self.grid_size < 2 or not 0 < self.shrink <= 1:
            raise ValueError(f"needs num_layers >= 1, grid_size >= 2 and shrink in (0, 1]: {self}")


@dataclass(frozen=True, slots=True)
class SuperResolutionConfig:
    """Sizes of the network that doubles a picture.

    Attributes:
        size: side of the picture it is given, px.
        channels: of the block at ``size`` and of the one at ``2 · size``.
        style_dim: length of the style vector; it is constant, so styles only scale the weights.
        noise: what is added inside where nothing else is asked for: nothing, a 'fixed' pattern, or a new one for each
            picture, as GeneFace++ does (its pictures flicker).
    """

    size: int = 256
    channels: tuple[int, int] = (128, 64)
    style_dim: int = 16
    noise: Noise = "fixed"

    def __post_init__(self) -> None:
        if min(self.size, self.style_dim, *self.channels) < 1:
            raise ValueError(f"all sizes must be at least 1: {self}")


@dataclass(frozen=True, slots=True)
class PortraitConfig:
    """A whole GeneFace++ renderer: head, and where there are any torso and super-resolution.

    Attributes:
        head: of the 3-D head; its sampler must be 'occupancy'.
        torso: None = head only. super_resolution: None = the picture has the size of its rays.
        adaptive_ambient: the weight of the ambient loss is part of the state (GeneFace++'s head with
            super-resolution).
        camera_scale, camera_offset: from GeneFace++'s camera poses to the head's cube, see ``cameras.ngp_pose``.
        picture_side: of the pictures without super-resolution, px; 0 = as large as the clip's frames.
    """

    head: RADNeRFConfig = field(default_factory=RADNeRFConfig)
    torso: TorsoConfig | None = None
    super_resolution: SuperResolutionConfig | None = None
    adaptive_ambient: bool = False
    camera_scale: float = 4.0
    camera_offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    picture_side: int = 0

    def __post_init__(self) -> None:
        if self.picture_side < 0:
            raise ValueError(f"picture_side must be 0 or more, got {self.picture_side}")
        if self.head.render.sampler != "occupancy":
            raise ValueError("a portrait's head marches through an occupancy grid; set head.render.sampler: occupancy")
        if not self.camera_scale > 0:
            raise ValueError(f"camera_scale must be positive, got {self.camera_scale}")
