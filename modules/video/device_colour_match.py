"""The torch twin of ``colour_match`` for a batch of patches: no step waits for the device.

Sizes and whether anything was found differ from patch to patch; all are worked on at the largest size, with weights
of 0 where a patch has no cells. The membrane is solved directly, by eliminating every other row of cells until one is
left (cyclic reduction), in double precision because known cells outweigh unknown ones by 10 powers of ten.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.video.colour_follow import NO_CHANGE
from modules.video.colour_match import (
    DIRICHLET,
    FIELD_SIZE,
    GRID,
    LEAST_SPREAD,
    MAX_LOG_GAIN,
    NEARLY_NOTHING,
    PASSES,
    RingConfig,
    grid_size,
)
from modules.video.device_planes import Windows, host_buffer
from modules.video.linear_light import BT709, LightCurve


@dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """Where patches lie in their windows and how their grids are laid out, on the device.

    Attributes:
        offset: float32 ``[2, B]``, (row, column) of each patch in the inner part of its window.
        size: float32 ``[2, B]``, height and width of the patches.
        cells: float32 ``[2, B]``, rows and columns of their grids.
    """

    offset: Tensor
    size: Tensor
    cells: Tensor

    @classmethod
    def of(cls, windows: Windows, device: torch.device) -> Placement:
        """The placement of a batch."""
        table = host_buffer((3, 2, len(windows)), torch.float32, device.type == "cuda")
        for number, (x0, y0, x1, y1) in enumerate(windows.bounds):
            rows = (windows.offset(number), (y1 - y0, x1 - x0), grid_size(y1 - y0, x1 - x0))
            table[:, :, number] = torch.tensor(rows, dtype=torch.float32)
        offset, size, cells = table.to(device, non_blocking=True)
        return cls(offset, size, cells)


def estimate_fields(
    source: Tensor,
    patch: Tensor,
    alpha: Tensor,
    weight: Tensor | None,
    placement: Placement,
    ring: RingConfig,
    light: LightCurve = BT709,
) -> tuple[Tensor, Tensor]:
    """``colour_match.estimate_field`` for each patch of a batch.

    Args:
        source: RGB ``[B, 3, H, W]`` in 0..1 of the windows' inner parts.
        patch: RGB ``[B, 3, H, W]`` of what was rendered there; read only inside the ring.
        alpha: ``[B, H, W]`` the patches' own alpha, 0 around them.
        weight: ``[B, H, W]`` 0..1, how far a pixel may be compared; None = fully.
        placement: of the patches.
        ring: which pixels count.
        light: what coded values mean.

    Returns:
        Fields ``[B, 3, FIELD_SIZE, FIELD_SIZE]`` (0 where nothing was found) and bool ``[B]``, whether enough pixels
        could be compared.
    """
    in_ring = (alpha > ring.low) & (alpha < ring.high)
    trusted = in_ring.float() if weight is None else torch.where(in_ring, weight, 0)
    inside = trusted > 0.05
    found = inside.sum((1, 2)) >= ring.min_pixels
    trusted = torch.where(inside, trusted, 0)
    ratio, mass = _cells(source, torch.where(inside[:, None], patch, 0), trusted, placement, light)
    known = mass > NEARLY_NOTHING
    common = _median(ratio, known)[..., None, None]
    field = common.expand_as(ratio)
    for number in range(PASSES):
        agreement = _agreement(ratio - field, known, ring.outlier)
        kept = mass * torch.where(agreement < ring.dropped, 0, agreement)
        stiffness = ring.stiffness if number == PASSES - 1 else max(ring.stiffness, 1.0)
        field = common + membranes(ratio - common, kept, stiffness, placement.cells, ring.screen)
    rows, columns = (_stretch(cells, FIELD_SIZE, GRID) for cells in placement.cells)
    sized = _resampled(field, rows, columns).clamp(-MAX_LOG_GAIN, MAX_LOG_GAIN)
    return torch.where(found[:, None, None, None], sized, 0), found


def apply_fields(patch: Tensor, fields: Tensor, placement: Placement, light: LightCurve = BT709) -> Tensor:
    """The patches ``[B, 3, H, W]`` in 0..1 with the gains of ``fields`` ``[B, 3, S, S]`` put on their light."""
    maps = []
    for axis, length in enumerate(patch.shape[2:]):
        at = torch.arange(length, device=patch.device) + 0.5 - placement.offset[axis][:, None]
        maps.append(_hats(at * (FIELD_SIZE / placement.size[axis][:, None]) - 0.5, FIELD_SIZE))
    factors = _resampled((fields * light.exponent).exp(), *maps)
    return ((patch + light.offset) * factors - light.offset).clamp_(0, 1)


def followed(before: Tensor, found: Tensor, share: Tensor) -> Tensor:
    """``colour_follow.followed`` on fields ``[3, S, S]``; ``share`` is a tensor of one number."""
    change = found - before
    common = change.mean((1, 2), keepdim=True)
    agreed = common.square().sum()
    scatter = change.var((1, 2), correction=0).sum()
    trust = agreed / (agreed + scatter).clamp(min=NO_CHANGE)
    return before + share * change + (1 - share) * trust * common


def membranes(values: Tensor, mass: Tensor, stiffness: float, cells: Tensor, screen: float = 0.0) -> Tensor:
    """``colour_match.membrane`` on each grid of a batch.

    Args:
        values: ``[B, C, G, G]``, read where ``mass`` is above 0.
        mass: ``[B, G, G]`` >= 0.
        stiffness: 0 keeps the known values.
        cells: ``[2, B]`` rows and columns that each grid really has; the others come out as 0.
        screen: see there.
    """
    size = mass.shape[-1]
    index = torch.arange(size, device=mass.device)
    hold = mass.double()
    if stiffness == 0:
        hold, stiffness = DIRICHLET * (mass > NEARLY_NOTHING).double(), 1.0
    in_rows, in_columns = (index < count[:, None] for count in cells)
    to_next_row, to_next_column = (index < count[:, None] - 1 for count in cells)
    right = stiffness * (in_rows[:, :, None] & to_next_column[:, None, :]).double()
    down = stiffness * (to_next_row[:, :, None] & in_columns[:, None, :]).double()
    diagonal = hold + right + down
    diagonal[:, :, 1:] += right[:, :, :-1]
    diagonal[:, 1:] += down[:, :-1]
    exists = in_rows[:, :, None] & in_columns[:, None, :]
    diagonal = torch.where(exists, diagonal + max(stiffness * screen, NEARLY_NOTHING), 1.0)
    blocks = torch.diag_embed(diagonal) - torch.diag_embed(right[..., :-1], 1) - torch.diag_embed(right[..., :-1], -1)
    known = torch.where((mass > 0)[:, None], values.double(), 0) * hold[:, None]
    solved = _solve_rows(blocks, torch.diag_embed(-down[:, :-1]), known.permute(0, 2, 3, 1))
    return solved.permute(0, 3, 1, 2).float()


def _solve_rows(blocks: Tensor, links: Tensor, right: Tensor) -> Tensor:
    """Solve a symmetric block-tridiagonal system by cyclic reduction.

    Args:
        blocks: ``[B, n, m, m]`` on the diagonal.
        links: ``[B, n - 1, m, m]`` from row k to row k + 1, above the diagonal.
        right: ``[B, n, m, C]``.

    Returns:
        ``[B, n, m, C]``.
    """
    count, size = blocks.shape[1:3]
    if count == 1:
        return torch.linalg.inv_ex(blocks)[0] @ right
    if count % 2 == 0:  # a row that stands alone lets every odd row have two neighbours
        alone = torch.eye(size, dtype=blocks.dtype, device=blocks.device).expand(len(blocks), 1, size, size)
        nothing = right.new_zeros((len(right), 1, *right.shape[2:]))
        padded = torch.cat([blocks, alone], 1), torch.cat([links, torch.zeros_like(alone)], 1)
        return _solve_rows(*padded, torch.cat([right, nothing], 1))[:, :-1]
    inverse = torch.linalg.inv_ex(blocks[:, 0::2])[0]
    up, down = links[:, 0::2], links[:, 1::2]
    above, below = up.mT @ inverse[:, :-1], down @ inverse[:, 1:]
    even = right[:, 0::2]
    reduced = blocks[:, 1::2] - above @ up - below @ down.mT
    next_links = -below[:, :-1] @ up[:, 1:]
    odd = _solve_rows(reduced, next_links, right[:, 1::2] - above @ even[:, :-1] - below @ even[:, 1:])
    rest = even.clone()
    rest[:, :-1] -= up @ odd
    rest[:, 1:] -= down.mT @ odd
    solved = torch.empty_like(right)
    solved[:, 0::2], solved[:, 1::2] = inverse @ rest, odd
    return solved


def _cells(
    source: Tensor, patch: Tensor, trusted: Tensor, placement: Placement, light: LightCurve
) -> tuple[Tensor, Tensor]:
    """Log ratio of the light of each cell ``[B, 3, G, G]`` and how well it is known ``[B, G, G]``."""
    weight = trusted[:, None]
    layers = torch.cat([source * weight, patch * weight, weight], 1)
    rows, columns = (
        _areas(placement.offset[axis], placement.size[axis], placement.cells[axis], trusted.shape[1 + axis])
        for axis in (0, 1)
    )
    means = _resampled(layers, rows, columns)
    mass = means[:, 6]
    of_source, of_patch = (means[:, :6] / mass.clamp(min=NEARLY_NOTHING)[:, None]).split(3, 1)
    ratio = (of_source + light.offset) / (of_patch.clamp(0, 1) + light.offset)
    return ratio.log() / light.exponent, mass


def _areas(offset: Tensor, size: Tensor, cells: Tensor, length: int) -> Tensor:
    """``[B, G, length]``: share of each pixel in the mean over each cell; 0 in cells that a grid does not have."""
    pixel = torch.arange(length, device=size.device) - offset[:, None]
    cell = torch.arange(GRID, device=size.device)
    step = (size / cells)[:, None, None]
    start = cell[:, None] * step
    shared = torch.minimum(start + step, pixel[:, None] + 1) - torch.maximum(start, pixel[:, None])
    return torch.where((cell < cells[:, None])[:, :, None], shared.clamp(min=0) / step, 0)


def _stretch(cells: Tensor, length: int, count: int) -> Tensor:
    """``[B, length, count]``: linear interpolation to ``length`` of the first ``cells`` of ``count`` samples."""
    at = torch.arange(length, device=cells.device) + 0.5
    position = at * (cells[:, None] / length) - 0.5
    return _hats(torch.minimum(position, cells[:, None] - 1), count)


def _hats(position: Tensor, count: int) -> Tensor:
    """Weights ``[B, n, count]`` of linear interpolation at ``position`` ``[B, n]`` between samples 0 to count - 1."""
    position = position.clamp(0, count - 1)
    return (1 - (position[..., None] - torch.arange(count, device=position.device)).abs()).clamp_(min=0)


def _resampled(layers: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows`` ``[B, h, H]`` · layers ``[B, C, H, W]`` · ``columns`` ``[B, w, W]`` transposed."""
    return rows[:, None] @ layers @ columns.mT[:, None]


def _median(values: Tensor, known: Tensor) -> Tensor:
    """Median over the known cells, ``[B, C]`` of ``[B, C, G, G]``; the mean of the middle two, as numpy's."""
    flat = torch.where(known[:, None], values, torch.inf).flatten(2).sort(-1).values
    count = known.sum((1, 2))[:, None, None].expand(-1, flat.shape[1], 1)
    middle = [flat.gather(2, torch.div(count - odd, 2, rounding_mode="floor").clamp(min=0)) for odd in (1, 0)]
    return (0.5 * (middle[0] + middle[1]))[..., 0]


def _agreement(residual: Tensor, known: Tensor, outlier: float) -> Tensor:
    """Cauchy weights ``[B, G, G]`` of how near each known cell is to the field."""
    distance = residual.square().sum(1).sqrt()
    spread = (1.4826 * _median(distance[:, None], known)).clamp(min=LEAST_SPREAD)[..., None]
    return 1 / (1 + (distance / (outlier * spread)).square())
