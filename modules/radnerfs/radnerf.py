"""RAD-NeRF head field: position, view direction and facial motion → density, colour and ambient coordinates.

State-dict names and shapes are those of GeneFace++'s head, so its checkpoints load with ``load_state_dict``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from modules.radnerfs.backends import get_backend
from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.cond_encoder import AudioAttNet, AudioNet, add_blink, blink_layers
from modules.radnerfs.config import RADNeRFConfig
from modules.radnerfs.encoders.grid import GridEncoder
from modules.radnerfs.encoders.spherical_harmonics import SphericalHarmonicsEncoder

DENSITY_EXPONENT_LIMIT = 15.0
CODE_AMPLITUDE = 0.1
STEP_HISTORY = 16


@dataclass(frozen=True, slots=True, eq=False)
class FieldOutput:
    """Field values at points: sigma ``[...]``, rgb ``[..., 3]`` 0..1, ambient ``[..., A]`` in ±1."""

    sigma: Tensor
    rgb: Tensor
    ambient: Tensor


class RADNeRF(nn.Module):
    """The head field of one person.

    Attributes:
        individual_embeddings: ``[frames, dim]`` appearance code of each training frame; row 0 is used for new motion.
        aabb_train, aabb_infer: ``[6]`` box that is marched through (low xyz, high xyz).
        density_grid: ``[cascades, grid_size³]`` in Morton order, -1 = never seen; density_bitfield: uint8, packed.
        step_counter: int32 ``[16, 2]``, kept for checkpoints; the reference renderer sizes its buffers exactly.

    The boxes, the two occupancy buffers and the counter exist only with ``config.render.sampler == 'occupancy'``.
    """

    aabb_train: Tensor
    aabb_infer: Tensor
    density_grid: Tensor
    density_bitfield: Tensor
    step_counter: Tensor

    def __init__(self, config: RADNeRFConfig, backend: RenderBackend | None = None) -> None:
        super().__init__()
        self.config = config
        self.backend = backend or get_backend("auto")
        codes = torch.randn(config.individual_embedding_num, config.individual_embedding_dim) * CODE_AMPLITUDE
        self.individual_embeddings = nn.Parameter(codes)
        if config.render.sampler == "occupancy":
            self._register_occupancy()
        self._build_condition_nets()
        self._build_field_nets()

    @property
    def cascades(self) -> int:
        """Number of nested occupancy grids that cover the bound: 1 up to bound 1, one more per doubling."""
        return 1 + max(0, math.ceil(math.log2(self.config.bound)))

    def _register_occupancy(self) -> None:
        bound, cells = self.config.bound, self.config.render.grid_size**3
        box = torch.tensor([-bound, -bound / 2, -bound, bound, bound / 2, bound])
        self.register_buffer("aabb_train", box)
        self.register_buffer("aabb_infer", box.clone())
        self.register_buffer("density_grid", torch.zeros(self.cascades, cells))
        self.register_buffer("density_bitfield", torch.zeros(self.cascades * cells // 8, dtype=torch.uint8))
        self.register_buffer("step_counter", torch.zeros(STEP_HISTORY, 2, dtype=torch.int32))

    def _build_condition_nets(self) -> None:
        config = self.config
        self.cond_prenet = AudioNet(config.cond_in_dim, config.cond_out_dim, config.cond_win_size)
        self.cond_att_net = AudioAttNet(config.cond_out_dim, config.smo_win_size) if config.with_att else None
        if config.eye_blink_dim:
            self.blink_embedding, self.blink_encoder = blink_layers(config.eye_blink_dim)

    def _build_field_nets(self) -> None:
        config = self.config
        self.position_embedder = GridEncoder(config.position_grid, 3, self.backend)
        self.ambient_embedder = GridEncoder(config.ambient_grid, config.ambient_dim, self.backend)
        self.view_embedder = SphericalHarmonicsEncoder(config.sh_degree, self.backend)
        n_position, n_ambient = self.position_embedder.width, self.ambient_embedder.width
        self.ambient_net = BlockMLP(
            (n_position, config.cond_out_dim), config.hidden_dim_ambient, config.ambient_dim, config.num_layers_ambient
        )
        self.sigma_net = BlockMLP(
            (n_position, n_ambient), config.hidden_dim_sigma, 1 + config.geo_feat_dim, config.num_layers_sigma
        )
        color_blocks = (self.view_embedder.width, config.geo_feat_dim, config.individual_embedding_dim)
        self.color_net = BlockMLP(color_blocks, config.hidden_dim_color, 3, config.num_layers_color)

    def encode_condition(self, window: Tensor, eye_area: float | Tensor | None = None) -> Tensor:
        """Facial motion around a frame to its condition feature.

        Args:
            window: ``[W, time, cond_in_dim]`` with W = smo_win_size (any W without attention: one item).
            eye_area: eye opening as a fraction; None counts as 0. Ignored without a blink encoder.

        Returns:
            ``[cond_out_dim]``.
        """
        features = self.cond_prenet(window)
        if self.config.eye_blink_dim:
            embedded = self.blink_embedding.weight[0] * (0.0 if eye_area is None else eye_area)
            features = add_blink(features, self.blink_encoder(embedded))
        return features[0] if self.cond_att_net is None else self.cond_att_net(features)

    def encode_conditions(self, windows: Tensor, eye_areas: Tensor | None = None) -> Tensor:
        """``encode_condition`` of frames: windows ``[B, W, time, C]``, eye areas ``[B]`` to ``[B, cond_out_dim]``."""
        batch, width = windows.shape[:2]
        features = self.cond_prenet(windows.flatten(0, 1)).view(batch, width, -1)
        if self.config.eye_blink_dim:
            areas = windows.new_zeros(batch) if eye_areas is None else eye_areas
            features = add_blink(features, self.blink_encoder(self.blink_embedding.weight * areas[:, None])[:, None])
        return features[:, 0] if self.cond_att_net is None else self.cond_att_net(features)

    def forward(self, positions: Tensor, directions: Tensor, cond_feat: Tensor, individual_code: Tensor) -> FieldOutput:
        """Evaluate the field; the leading dimensions of all inputs broadcast against each other.

        Args:
            positions: ``[..., 3]``.
            directions: unit ``[..., 3]``.
            cond_feat: ``[..., cond_out_dim]``.
            individual_code: ``[..., individual_embedding_dim]``.

        A per-ray input given as ``[N, 1, C]`` beside positions ``[N, K, 3]`` is worked on once per ray.
        """
        head, ambient = self._geometry(positions, cond_feat)
        views = self.view_embedder(directions)
        rgb = torch.sigmoid(self.color_net(views, head[..., 1:], individual_code).float())
        return FieldOutput(truncated_exp(head[..., 0].float()), rgb, ambient)

    def density(self, positions: Tensor, cond_feat: Tensor) -> Tensor:
        """Sigma ``[...]`` alone."""
        return truncated_exp(self._geometry(positions, cond_feat)[0][..., 0].float())

    def _geometry(self, positions: Tensor, cond_feat: Tensor) -> tuple[Tensor, Tensor]:
        """Density logit and geometry features ``[..., 1 + geo_feat_dim]``, and the ambient coordinates."""
        located = self.position_embedder(positions * self.config.position_scale, self.config.bound)
        ambient = torch.tanh(self.ambient_net(located, cond_feat).float())
        return self.sigma_net(located, self.ambient_embedder(ambient)), ambient


class BlockMLP(nn.Module):
    """Bias-free ReLU MLP whose input is several feature blocks side by side.

    The blocks are never joined: each meets its own columns of the first weight, so blocks that are the same for many
    points (a frame's condition, a ray's direction) cost one row instead of one per point.
    """

    def __init__(self, widths_in: tuple[int, ...], hidden: int, dim_out: int, n_layers: int) -> None:
        super().__init__()
        self.widths_in = widths_in
        widths = [sum(widths_in), *[hidden] * (n_layers - 1), dim_out]
        self.net = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(widths, widths[1:], strict=False))

    def forward(self, *blocks: Tensor) -> Tensor:
        """Blocks ``[..., widths_in[i]]``, broadcast against each other, to ``[..., dim_out]``."""
        weights = [cast(nn.Linear, layer).weight for layer in self.net]
        columns = weights[0].split(self.widths_in, dim=1)
        products = [F.linear(block, weight) for block, weight in zip(blocks, columns, strict=True)]
        products.sort(key=Tensor.numel)  # the small ones meet first
        hidden = sum(products[1:], products[0])
        for weight in weights[1:]:
            hidden = F.linear(F.relu(hidden), weight)
        return hidden


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.exp(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * torch.exp(x.clamp(-DENSITY_EXPONENT_LIMIT, DENSITY_EXPONENT_LIMIT))


def truncated_exp(x: Tensor) -> Tensor:
    """``exp(x)`` whose gradient is ``exp(clamp(x, ±15))``, so one large logit cannot blow up training."""
    return _TruncatedExp.apply(x)
