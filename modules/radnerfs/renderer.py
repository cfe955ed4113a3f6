"""Turns rays into colours: through the occupancy grid as GeneFace++ does, or from samples around the fitted surface."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modules.radnerfs.backends.base import MarchConfig, MarchedBlock, RaySums
from modules.radnerfs.radnerf import FieldOutput, RADNeRF
from modules.radnerfs.rays import RayBundle, RenderOutput

TRAIN_T_THRESH = 1e-4
MOST_STEPS_AT_ONCE = 8


def march_config(field: RADNeRF) -> MarchConfig:
    """The step rule of a field's occupancy grid: steps between ``2√3 / max_steps`` and one cell's diagonal."""
    config, render = field.config, field.config.render
    longest = 2 * math.sqrt(3) * 2 ** (field.cascades - 1) / render.grid_size
    shortest = min(longest, 2 * math.sqrt(3) / render.max_steps)
    return MarchConfig(config.bound, render.grid_size, field.cascades, render.dt_gamma, shortest, longest)


def render_occupancy(
    field: RADNeRF,
    rays: RayBundle,
    cond_feat: Tensor,
    individual_code: Tensor,
    background: Tensor,
    *,
    training: bool,
    jitter: Tensor | None = None,
    t_thresh: float | None = None,
) -> RenderOutput:
    """Render rays through the occupancy grid; whole frames on a GPU are ``frame_renderer.FrameRenderer``'s.

    Args:
        field: with occupancy buffers (``sampler: occupancy``).
        rays: ``N`` rays in world units.
        cond_feat: ``[C]`` encoded condition.
        individual_code: ``[D]`` appearance code.
        background: ``[N, 3]`` or ``[3]`` colour behind the head, 0..1.
        training: differentiable, one pass over all samples; else in blocks, ending rays early.
        jitter: ``[N]`` in 0..1, fraction of a step the samples are shifted by (training).
        t_thresh: transmittance at which a ray ends; default of the config in inference, 1e-4 in training.

    Returns:
        ``rgb`` over the background; depth 0..1 from where the ray enters the box to where it leaves.

    Raises:
        ValueError: the field carries no occupancy grid.
    """
    if field.config.render.sampler != "occupancy":
        raise ValueError("this field has no occupancy grid; its config says sampler: surface, so use render_surface")
    box = field.aabb_train if training else field.aabb_infer
    near, far = field.backend.near_far(rays, box, field.config.render.min_near)
    if training:
        thresh = TRAIN_T_THRESH if t_thresh is None else t_thresh
        sums = _sum_training(field, rays, near, far, cond_feat, individual_code, jitter, thresh)
    else:
        thresh = field.config.render.t_thresh if t_thresh is None else t_thresh
        sums = sum_inference(field, rays, near, far, cond_feat, individual_code, thresh)
    rgb = sums.image + (1 - sums.opacity)[:, None] * background
    depth = (sums.depth - near).clamp(min=0) / (far - near)
    return RenderOutput(rgb.clamp(0, 1), sums.opacity, torch.where(far > near, depth, 0.0), sums.ambient)


def _sum_training(
    field: RADNeRF,
    rays: RayBundle,
    near: Tensor,
    far: Tensor,
    cond_feat: Tensor,
    code: Tensor,
    jitter: Tensor | None,
    t_thresh: float,
) -> RaySums:
    render = field.config.render
    samples = field.backend.march_train(
        rays, near, far, field.density_bitfield, march_config(field), render.max_steps, jitter
    )
    out = field(samples.positions, samples.directions, cond_feat, code)
    sigma, ambient = out.sigma * render.density_scale, out.ambient.abs().sum(dim=-1)
    return field.backend.composite_train(sigma, out.rgb, ambient, samples, t_thresh)


def sum_inference(
    field: RADNeRF, rays: RayBundle, near: Tensor, far: Tensor, cond_feat: Tensor, code: Tensor, t_thresh: float
) -> RaySums:
    """March and composite in blocks; the block grows as rays end, by a rule over all rays (as GeneFace++).

    A block has ``clamp(N // alive, 1, 8)`` steps, so a ray may get a few more than ``max_steps`` samples.
    """
    n_rays, march = len(rays), march_config(field)
    zeros = near.new_zeros(n_rays)
    sums = RaySums(near.new_zeros(n_rays, 3), zeros, zeros.clone(), zeros.clone())
    alive, distance, step = torch.arange(n_rays, device=near.device), near.clone(), 0
    while step < field.config.render.max_steps and len(alive):
        n_steps = max(1, min(n_rays // len(alive), MOST_STEPS_AT_ONCE))
        part = RayBundle(rays.origins[alive], rays.directions[alive])
        block = field.backend.march_infer(part, distance[alive], far[alive], field.density_bitfield, march, n_steps)
        sigma, rgb, ambient = _at_samples(field, block, part.directions, cond_feat, code)
        own = RaySums(sums.image[alive], sums.opacity[alive], sums.depth[alive], sums.ambient[alive])
        own, going = field.backend.composite_infer(own, sigma, rgb, ambient, block, t_thresh)
        for whole, piece in ((sums.image, own.image), (sums.opacity, own.opacity), (sums.depth, own.depth)):
            whole[alive] = piece
        sums.ambient[alive] = own.ambient
        distance[alive] = block.ends[:, -1]
        alive, step = alive[going], step + n_steps
    return sums


def _at_samples(
    field: RADNeRF, block: MarchedBlock, directions: Tensor, cond_feat: Tensor, code: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Density ``[N, K]``, colour ``[N, K, 3]`` and ambient ``[N, K]`` of a block; zeros where a ray has no sample left.

    Most slots of most blocks are empty: rays miss the head, or end in it.
    """
    filled = block.deltas > 0
    along = directions[:, None].expand(*filled.shape, 3)[filled]
    out = field(block.positions[filled], along, cond_feat, code)
    found = torch.cat([out.sigma[:, None] * field.config.render.density_scale, out.rgb], dim=1)
    found = torch.cat([found, out.ambient.abs().sum(dim=-1, keepdim=True)], dim=1)
    values = block.deltas.new_zeros(*filled.shape, 5)
    values[filled] = found.to(values)
    return values[..., 0], values[..., 1:4], values[..., 4]


def render_surface(
    field: RADNeRF, positions: Tensor, deltas: Tensor, directions: Tensor, cond_feat: Tensor, individual_code: Tensor
) -> RenderOutput:
    """Render pixels from samples around the fitted head; the last sample of each is opaque, so nothing shines through.

    Args:
        field: any sampler.
        positions: ``[N, K, 3]`` in canonical head space, dm, near to far.
        deltas: ``[N, K]`` interval lengths, dm.
        directions: unit ``[N, 3]``.
        cond_feat: ``[C]`` for one frame, or ``[N, C]``.
        individual_code: ``[D]`` or ``[N, D]``.

    Returns:
        Opacity is 1; depth is the expected distance (dm) from the first interval's start to the middle of a sample's;
        ``weights`` ``[N, K]``.
    """
    out: FieldOutput = field(positions, directions[:, None], _per_ray(cond_feat), _per_ray(individual_code))
    image, weights = field.backend.composite_opaque(out.sigma * field.config.render.density_scale, out.rgb, deltas)
    middles = deltas.cumsum(dim=1) - deltas / 2
    ambient = out.ambient.abs().sum(dim=(1, 2))
    return RenderOutput(image, weights.sum(dim=1), (weights * middles).sum(dim=1), ambient, weights)


def _per_ray(values: Tensor) -> Tensor:
    """``[N, C]`` to ``[N, 1, C]``; ``[C]`` stays."""
    return values[:, None] if values.ndim == 2 else values
