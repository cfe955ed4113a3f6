"""A trained field arranged for the fused kernels: half-precision tables and matrices, and what is constant per frame.

A matrix is stored input-major ``[K, N]`` and padded with zeros. Rows that belong to grid features are ``level · R +
feature``, ``R`` being 2, or more where a grid has fewer than 8 levels, so that a product has at least 16 rows. Outputs
of 1 to 3 numbers take 16 columns: the rounded weights from column 0, what rounding lost from column 8 on. The density
network's last layer and the colour network's first have no ReLU between them, so they are one matrix here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.backends.base import GridLevels
from modules.radnerfs.backends.torch_directions import sh_encode
from modules.radnerfs.backends.torch_grid import grid_encode, level_tables
from modules.radnerfs.radnerf import BlockMLP, RADNeRF

MIN_DOT = 16
"""Tensor cores multiply at least this many rows or columns."""
LOST = 8
"""First column of an output's rounding remainders."""
LEVEL_INTS = 7
"""Numbers per level: bits of the float32 scale, multipliers of x, y and z, wrap mask, first row, 1 where hashed."""
MOST_LEVELS = 16
HOPPER = 9
"""Major compute capability of the GPUs whose tensor cores read matrices from shared memory as the kernels want."""
SCRATCH_BYTES = 48 << 10
"""Shared memory a program needs beside the matrices."""
WIDTHS = (16, 32, 64, 128)


@dataclass(frozen=True, slots=True)
class GridSizes:
    """What is known of a grid when kernels are compiled.

    Attributes:
        n_dims, n_levels: 2 or 3, and 1..16.
        padded: ``n_levels`` rounded up to a power of two.
        copies: rows per level of the matrix that meets the features (R above).
        hashed, smooth: as ``GridLevels``.
        drops_axis: some levels leave out the last axis, so half of their corners are the other half.
    """

    n_dims: int
    n_levels: int
    padded: int
    copies: int
    hashed: bool
    smooth: bool
    drops_axis: bool

    @property
    def rows(self) -> int:
        """Rows of the matrix that meets the features."""
        return self.padded * self.copies


@dataclass(frozen=True, slots=True)
class WeightPlaces:
    """Where each matrix starts in ``PackedField.weights``; -1 = this field has none."""

    ambient_in: int
    ambient_hidden: int
    ambient_out: int
    sigma_position: int
    sigma_ambient: int
    sigma_hidden: int
    density: int
    geometry: int
    view: int
    color_hidden: int
    color_out: int


@dataclass(frozen=True, slots=True)
class FieldSizes:
    """What kernels are compiled for; hashable.

    Attributes:
        position, ambient: the two grids.
        ambient_hidden, sigma_hidden, color_hidden: widths of the three networks.
        sh_degree: spherical-harmonics bands, 1..4.
        to_unit: factor on positions that, with 0.5 added, gives grid coordinates 0..1.
        at: places of the matrices.
    """

    position: GridSizes
    ambient: GridSizes
    ambient_hidden: int
    sigma_hidden: int
    color_hidden: int
    sh_degree: int
    to_unit: float
    at: WeightPlaces

    @property
    def matrices(self) -> tuple[tuple[int, int, int], ...]:
        """Place, rows and columns of each matrix, in the order of ``WeightPlaces``; place -1 = this field has none."""
        at, hidden, density, color = self.at, self.ambient_hidden, self.sigma_hidden, self.color_hidden
        return (
            (at.ambient_in, self.position.rows, hidden),
            (at.ambient_hidden, hidden, hidden),
            (at.ambient_out, hidden, MIN_DOT),
            (at.sigma_position, self.position.rows, density),
            (at.sigma_ambient, self.ambient.rows, density),
            (at.sigma_hidden, density, density),
            (at.density, density, MIN_DOT),
            (at.geometry, density, color),
            (at.view, MIN_DOT, color),
            (at.color_hidden, color, color),
            (at.color_out, color, MIN_DOT),
        )


@dataclass(frozen=True, slots=True, eq=False)
class FrameTerms:
    """Each frame's part of the first ambient and first colour layer, half precision.

    Attributes:
        ambient: ``[2, F, H]``: rounded values, and what rounding lost.
        color: ``[2, F, H]``, the same.
    """

    ambient: Tensor
    color: Tensor

    @property
    def n_frames(self) -> int:
        return self.ambient.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class PackedField:
    """A field's numbers as the kernels read them; a copy, so later training does not show.

    Attributes:
        sizes: compile-time sizes.
        weights: float16, flat; ``sizes.at`` says where what lies.
        position_table, ambient_table: int32 ``[rows]``, two float16 features in each number.
        levels: int32 ``[2, LEVEL_INTS, 16]`` of the position and the ambient grid.
        condition_weight: ``[H, C]`` columns of the first ambient layer that meet the condition.
        code_weight: ``[H, D]`` columns of the first colour layer that meet the appearance code.
        grids: geometry of both grids.
    """

    sizes: FieldSizes
    weights: Tensor
    position_table: Tensor
    ambient_table: Tensor
    levels: Tensor
    condition_weight: Tensor
    code_weight: Tensor
    grids: tuple[GridLevels, GridLevels]

    @classmethod
    def of(cls, field: RADNeRF) -> PackedField:
        """Pack a field on its own device.

        Raises:
            BackendUnavailableError: sizes the fused kernels do not have, or a GPU they were not proven on.
        """
        require_supported(field)
        position, ambient = field.position_embedder, field.ambient_embedder
        sizes = grid_sizes(position.levels), grid_sizes(ambient.levels)
        matrices, condition_weight, code_weight = _matrices(field, *sizes)
        weights, at = _join(matrices)
        _require_room(weights)
        config = field.config
        return cls(
            sizes=FieldSizes(
                position=sizes[0],
                ambient=sizes[1],
                ambient_hidden=config.hidden_dim_ambient,
                sigma_hidden=config.hidden_dim_sigma,
                color_hidden=config.hidden_dim_color,
                sh_degree=config.sh_degree,
                to_unit=config.position_scale / (2 * config.bound),
                at=at,
            ),
            weights=weights,
            position_table=_pack_table(position.embeddings),
            ambient_table=_pack_table(ambient.embeddings),
            levels=torch.stack([_level_ints(encoder.levels, weights.device) for encoder in (position, ambient)]),
            condition_weight=condition_weight,
            code_weight=code_weight,
            grids=(position.levels, ambient.levels),
        )

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def terms(self, cond_feats: Tensor, codes: Tensor) -> FrameTerms:
        """What ``F`` frames add to the first layers.

        Args:
            cond_feats: ``[F, C]`` encoded conditions.
            codes: ``[F, D]`` or ``[D]`` appearance codes.
        """
        ambient = cond_feats.float() @ self.condition_weight.T
        color = codes.float().expand(len(cond_feats), codes.shape[-1]) @ self.code_weight.T
        return FrameTerms(torch.stack(_halves(ambient)), torch.stack(_halves(color)))


def require_supported(field: RADNeRF) -> None:
    """Raise ``BackendUnavailableError`` unless the fused kernels exist for a field's sizes."""
    config = field.config
    grids = config.position_grid, config.ambient_grid
    layers = config.num_layers_ambient, config.num_layers_sigma, config.num_layers_color
    widths = config.hidden_dim_ambient, config.hidden_dim_sigma, config.hidden_dim_color
    fits = (
        all(grid.n_levels <= MOST_LEVELS and grid.features_per_level == 2 for grid in grids)
        and set(layers) <= {2, 3}
        and set(widths) <= set(WIDTHS)
    )
    if not fits:
        raise BackendUnavailableError(
            f"the fused field has networks of 2 or 3 layers, {WIDTHS} wide, and grids of at most {MOST_LEVELS} levels "
            f"with 2 features, but this field has layers {layers}, widths {widths} and grids {grids}; "
            "render it with render_occupancy or render_surface."
        )


def _require_room(weights: Tensor) -> None:
    """Raise ``BackendUnavailableError`` on a GPU whose multiprocessors cannot hold all matrices as the kernels do."""
    if weights.device.type != "cuda":
        return
    properties = torch.cuda.get_device_properties(weights.device)
    needed = weights.numel() * weights.element_size() + SCRATCH_BYTES
    if properties.major != HOPPER or needed > properties.shared_memory_per_multiprocessor:
        raise BackendUnavailableError(
            f"the fused field was proven on GPUs of compute capability {HOPPER}.x with {needed >> 10} KB of shared "
            f"memory, but {properties.name} is of {properties.major}.{properties.minor} with "
            f"{properties.shared_memory_per_multiprocessor >> 10} KB; render with render_occupancy or render_surface."
        )


def grid_sizes(levels: GridLevels) -> GridSizes:
    """Compile-time sizes of a grid."""
    n_levels = len(levels.scales)
    padded = 1 << (n_levels - 1).bit_length()
    multipliers = level_tables(levels, torch.device("cpu"), torch.float32).multiplier[-1]
    drops = bool((multipliers == 0).any())
    return GridSizes(levels.n_dims, n_levels, padded, max(2, MIN_DOT // padded), levels.hashed, levels.smooth, drops)


def _matrices(field: RADNeRF, position: GridSizes, ambient: GridSizes) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The matrices ``[K, N]`` by name, and the condition's and the code's columns."""
    ambient_net, sigma_net, color_net = (
        [weight.detach().double() for weight in layer_weights(net)]
        for net in (field.ambient_net, field.sigma_net, field.color_net)
    )
    to_position, from_condition = ambient_net[0].split(field.ambient_net.widths_in, dim=1)
    sigma_position, sigma_ambient = sigma_net[0].split(field.sigma_net.widths_in, dim=1)
    views, from_geometry, from_code = color_net[0].split(field.color_net.widths_in, dim=1)
    matrices = {
        "ambient_in": _feature_rows(to_position, position),
        "ambient_hidden": _hidden(ambient_net),
        "ambient_out": _output_columns(ambient_net[-1]),
        "sigma_position": _feature_rows(sigma_position, position),
        "sigma_ambient": _feature_rows(sigma_ambient, ambient),
        "sigma_hidden": _hidden(sigma_net),
        "density": _output_columns(sigma_net[-1][:1]),
        "geometry": (from_geometry @ sigma_net[-1][1:]).T,
        "view": F.pad(views.T, (0, 0, 0, MIN_DOT - views.shape[1])),
        "color_hidden": _hidden(color_net),
        "color_out": _output_columns(color_net[-1]),
    }
    return {name: m.half() for name, m in matrices.items()}, from_condition.float(), from_code.float()


def layer_weights(net: BlockMLP) -> list[Tensor]:
    """A network's weights ``[out, in]``, first layer first."""
    return [cast(nn.Linear, layer).weight for layer in net.net]


def _hidden(weights: Sequence[Tensor]) -> Tensor:
    """The middle layer of three, input-major; empty where there are two."""
    return weights[1].T if len(weights) == 3 else weights[0].new_empty(0)


def _feature_rows(weight: Tensor, grid: GridSizes) -> Tensor:
    """Columns ``[H, 2 · levels]`` that meet grid features, as rows ``[padded · copies, H]``."""
    rows = weight.new_zeros(grid.padded, grid.copies, len(weight))
    rows[: grid.n_levels, :2] = weight.T.view(grid.n_levels, 2, -1)
    return rows.flatten(0, 1)


def _output_columns(weight: Tensor) -> Tensor:
    """An output layer ``[1..3, H]`` as ``[H, 16]``: rounded, and from column ``LOST`` on what rounding lost."""
    columns = weight.new_zeros(weight.shape[1], MIN_DOT)
    rounded, lost = _halves(weight)
    columns[:, : len(weight)] = rounded.T
    columns[:, LOST : LOST + len(weight)] = lost.T
    return columns


def _halves(values: Tensor) -> tuple[Tensor, Tensor]:
    """Float16 values, and what rounding lost, float16 too."""
    rounded = values.half()
    return rounded, (values - rounded).half()


def _join(matrices: dict[str, Tensor]) -> tuple[Tensor, WeightPlaces]:
    starts, start = {}, 0
    for name, matrix in matrices.items():
        starts[name] = start if matrix.numel() else -1
        start += matrix.numel()
    return torch.cat([matrix.reshape(-1) for matrix in matrices.values()]), WeightPlaces(**starts)


def _pack_table(table: Tensor) -> Tensor:
    return table.detach().half().contiguous().view(torch.int32)[:, 0].contiguous()


def _level_ints(levels: GridLevels, device: torch.device) -> Tensor:
    tables = level_tables(levels, torch.device("cpu"), torch.float32)
    n_levels = len(levels.scales)
    ints = torch.zeros(LEVEL_INTS, MOST_LEVELS, dtype=torch.int32)
    ints[0, :n_levels] = tables.scale[:, 0].view(torch.int32)
    ints[1 : 1 + levels.n_dims, :n_levels] = tables.multiplier[..., 0]
    ints[4, :n_levels], ints[5, :n_levels] = tables.mask[:, 0, 0], tables.offset[:, 0, 0]
    ints[6, tables.n_flat : n_levels] = 1
    return ints.to(device)


def evaluate_reference(
    packed: PackedField, positions: Tensor, directions: Tensor, frame: Tensor, terms: FrameTerms
) -> tuple[Tensor, Tensor]:
    """What the fused kernels compute, in plain torch and rounding where they round: their specification.

    Args:
        packed: the field.
        positions: ``[M, 3]``, finite.
        directions: unit ``[M, 3]``.
        frame: int ``[M]`` row of ``terms`` each point belongs to.
        terms: per-frame parts.

    Returns:
        Sigma ``[M]`` and rgb ``[M, 3]``, float32.
    """
    sizes, at = packed.sizes, packed.sizes.at
    located = _features(packed, 0, positions * sizes.to_unit + 0.5)
    hidden = located @ _matrix(packed, at.ambient_in, sizes.ambient_hidden, located.shape[1])
    hidden = _rectified(hidden + terms.ambient.float().sum(dim=0)[frame])
    out = _tail(packed, hidden, at.ambient_hidden, at.ambient_out)
    ambient = torch.tanh(out[:, : sizes.ambient.n_dims])
    coordinates = _features(packed, 1, (ambient + 1) / 2)
    hidden = located @ _matrix(packed, at.sigma_position, sizes.sigma_hidden, located.shape[1])
    hidden = _rectified(
        hidden + coordinates @ _matrix(packed, at.sigma_ambient, sizes.sigma_hidden, coordinates.shape[1])
    )
    if at.sigma_hidden >= 0:
        hidden = _rectified(hidden @ _matrix(packed, at.sigma_hidden, sizes.sigma_hidden, sizes.sigma_hidden))
    sigma = torch.exp(_tail(packed, hidden, -1, at.density)[:, 0])
    views = F.pad(sh_encode(directions, sizes.sh_degree), (0, MIN_DOT - sizes.sh_degree**2)).half().float()
    shade = hidden @ _matrix(packed, at.geometry, sizes.color_hidden, sizes.sigma_hidden)
    shade = shade + views @ _matrix(packed, at.view, sizes.color_hidden, MIN_DOT)
    shade = _rectified(shade + terms.color.float().sum(dim=0)[frame])
    return sigma, torch.sigmoid(_tail(packed, shade, at.color_hidden, at.color_out)[:, :3])


def _features(packed: PackedField, which: int, unit: Tensor) -> Tensor:
    """Rounded grid features ``[M, padded · copies]`` of the position (0) or the ambient (1) grid."""
    table = (packed.position_table, packed.ambient_table)[which]
    grid = (packed.sizes.position, packed.sizes.ambient)[which]
    features = grid_encode(unit, table[:, None].view(torch.float16).float(), packed.grids[which])
    rows = features.new_zeros(len(unit), grid.padded, grid.copies)
    rows[:, : grid.n_levels, :2] = features.view(len(unit), grid.n_levels, 2)
    return rows.flatten(1).half().float()


def _matrix(packed: PackedField, start: int, n_columns: int, n_rows: int) -> Tensor:
    return packed.weights[start : start + n_rows * n_columns].view(n_rows, n_columns).float()


def _rectified(hidden: Tensor) -> Tensor:
    return F.relu(hidden).half().float()


def _tail(packed: PackedField, hidden: Tensor, middle: int, last: int) -> Tensor:
    """Hidden values through the middle layer, if there is one, and the output layer: ``[M, 8]``."""
    width = hidden.shape[1]
    if middle >= 0:
        hidden = _rectified(hidden @ _matrix(packed, middle, width, width))
    columns = hidden @ _matrix(packed, last, MIN_DOT, width)
    return columns[:, :LOST] + columns[:, LOST:]
