"""All rays of a clip as flat arrays, and how a training step draws from them.

A step draws frames and then rays of each of them, so what belongs to a frame (its condition, its appearance code) is
worked on once per frame and its gradient is a plain sum. Nothing here waits for the device: a CUDA graph can hold it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

POSITION_STEPS = 32767
"""Positions and directions are kept as int16 over -1..1: 3e-5 of the field's cube, at half the memory of float32."""
RAYS_AT_ONCE = 1 << 22
PATCH_ROOM_PX = 12
"""Patches may reach this many pixels beyond the mouth's rays."""


@dataclass(frozen=True, slots=True, eq=False)
class RayGroup:
    """Some of a table's rays, frame after frame.

    Attributes:
        index: int64 ``[Q]`` into the table, ascending.
        starts: int64 ``[F + 1]``: those of frame f are ``index[starts[f]:starts[f + 1]]``.
    """

    index: Tensor
    starts: Tensor

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> RayGroup:
        """The group on ``device``."""
        return RayGroup(self.index.to(device), self.starts.to(device))

    @classmethod
    def where(cls, chosen: Tensor, starts: Tensor) -> RayGroup:
        """The rays with ``chosen [P]`` True of a table whose frames begin at ``starts [F + 1]``."""
        index = torch.nonzero(chosen)[:, 0]
        return cls(index, torch.searchsorted(index, starts))


@dataclass(frozen=True, slots=True, eq=False)
class RayTable:
    """All training rays of a clip, flat and frame after frame.

    Attributes:
        position: int16 ``[P, 3]`` in the field's cube. direction: int16 ``[P, 3]``. rgb: uint8 ``[P, 3]``.
        pixel: int16 ``[P, 2]`` (x, y) of the crop, from which patches are made.
        starts: int64 ``[F + 1]``: rays of training frame f are ``starts[f]`` to ``starts[f + 1]``.
        row: int64 ``[F]`` clip row of each training frame (which condition).
        mouth: the rays on or around the mouth. eyes: those on the eyes, where they are rendered (else none).
        best_view: uint8 ``[G, G, G]`` how well the best frame shows each cell of the cube; worse views are left out.
    """

    position: Tensor
    direction: Tensor
    rgb: Tensor
    pixel: Tensor
    starts: Tensor
    row: Tensor
    mouth: RayGroup
    eyes: RayGroup
    best_view: Tensor

    def __len__(self) -> int:
        return len(self.position)

    @property
    def n_frames(self) -> int:
        return len(self.row)

    def to(self, device: torch.device) -> RayTable:
        """The table on ``device``."""
        return RayTable(*(getattr(self, field.name).to(device) for field in fields(self)))

    def frame_of(self, index: Tensor) -> Tensor:
        """Training frame ``[...]`` of rays ``[...]`` by number."""
        return torch.searchsorted(self.starts[1:], index, right=True)


@dataclass(frozen=True, slots=True, eq=False)
class RayBatch:
    """``R`` rays of each of ``B`` frames (a frame may come twice).

    Attributes:
        position: ``[B, R, 3]`` in the cube. direction: unit ``[B, R, 3]``. rgb: ``[B, R, 3]`` target colours 0..1.
        frame: int64 ``[B]`` running number of the training frame.
    """

    position: Tensor
    direction: Tensor
    rgb: Tensor
    frame: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PatchMap:
    """Which ray each pixel around the mouth is, so that square patches can be drawn.

    Attributes:
        index: int32 ``[F, H, W]`` ray by number, -1 where there is none (off the head, hidden, or beyond the window).
        size: int64 ``[F, 2]`` height and width of each frame's window, at most ``H`` and ``W``; 0 without a mouth.
    """

    index: Tensor
    size: Tensor

    def to(self, device: torch.device) -> PatchMap:
        """The map on ``device``."""
        return PatchMap(self.index.to(device), self.size.to(device))


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Shares of a step's rays that are drawn from the mouth and from the eyes; the rest come from anywhere."""

    mouth: float
    eyes: float = 0.0


def draw_batch(rays: RayTable, frames: int, per_frame: int, shares: Shares, generator: torch.Generator) -> RayBatch:
    """``per_frame`` random rays of each of ``frames`` random frames, drawn in proportion to the rays they have.

    Mouth rays come first in each frame, then eye rays. A frame without mouth or eyes gives rays from anywhere instead.
    """
    n_mouth = round(per_frame * shares.mouth) if len(rays.mouth) else 0
    n_eyes = min(round(per_frame * shares.eyes), per_frame - n_mouth) if len(rays.eyes) else 0
    frame, place, index = _draw_evenly(rays, frames, per_frame, generator)
    parts = []
    for group, first, count in ((rays.mouth, 0, n_mouth), (rays.eyes, n_mouth, n_eyes)):
        if count:
            some, part = (group.starts[frame + 1] > group.starts[frame])[:, None], slice(first, first + count)
            at = _ray_between(group.starts, frame, place[:, part]).clamp(max=len(group) - 1)
            parts.append(torch.where(some, group.index[at], index[:, part]))
    return gather(rays, torch.cat([*parts, index[:, n_mouth + n_eyes :]], dim=1), frame)


def _ray_between(starts: Tensor, frame: Tensor, place: Tensor) -> Tensor:
    """Numbers ``[B, R]`` at ``place [B, R]`` in 0..1 of the runs that belong to ``frame [B]``."""
    first = starts[frame][:, None]
    count = starts[frame + 1][:, None] - first
    return first + torch.minimum((place * count).long(), (count - 1).clamp(min=0))


def draw_labelled(rays: RayTable, frames: int, per_frame: int, generator: torch.Generator) -> tuple[RayBatch, Tensor]:
    """``per_frame`` random rays of each of ``frames`` frames, and which of them ``[B, R]`` lie on the mouth."""
    frame, _, index = _draw_evenly(rays, frames, per_frame, generator)
    on_mouth = torch.zeros_like(index, dtype=torch.bool)
    if len(rays.mouth):
        place = torch.searchsorted(rays.mouth.index, index).clamp(max=len(rays.mouth) - 1)
        on_mouth = rays.mouth.index[place] == index
    return gather(rays, index, frame), on_mouth


def _draw_evenly(
    rays: RayTable, frames: int, per_frame: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Random frames ``[B]``, random numbers 0..1 ``[B, R]`` and the rays ``[B, R]`` there, every ray as likely."""
    device = rays.position.device
    frame = rays.frame_of(torch.randint(len(rays), (frames,), generator=generator, device=device))
    place = torch.rand(frames, per_frame, generator=generator, device=device, dtype=torch.float64)
    return frame, place, _ray_between(rays.starts, frame, place)


def gather(rays: RayTable, index: Tensor, frame: Tensor) -> RayBatch:
    """Rays by number ``[B, R]`` of frames ``[B]``, as floats."""
    direction = rays.direction[index].float()
    return RayBatch(
        position=rays.position[index].float() / POSITION_STEPS,
        direction=direction / direction.norm(dim=-1, keepdim=True).clamp(min=1.0),
        rgb=rays.rgb[index].float() / 255,
        frame=frame,
    )


def patch_map(rays: RayTable, room_px: int = PATCH_ROOM_PX) -> PatchMap:
    """For each frame, which ray each pixel of the box around its mouth is, with ``room_px`` around it.

    Made once, on the table's device; 4 bytes per pixel of the largest mouth and frame.
    """
    device, n_frames, mouth = rays.starts.device, rays.n_frames, rays.mouth.index
    low = torch.full((n_frames, 2), 1 << 15, device=device)
    high = torch.full((n_frames, 2), -(1 << 15), device=device)
    owner, pixel = rays.frame_of(mouth)[:, None].expand(-1, 2), rays.pixel[mouth].long()
    low.scatter_reduce_(0, owner, pixel - room_px, "amin")
    high.scatter_reduce_(0, owner, pixel + room_px + 1, "amax")
    size = (high - low).clamp(min=0)  # width, height
    width, height = (int(side) for side in size.amax(dim=0))
    index = torch.full((n_frames, height, width), -1, dtype=torch.int32, device=device)
    for start in range(0, len(rays), RAYS_AT_ONCE):
        number = torch.arange(start, min(start + RAYS_AT_ONCE, len(rays)), device=device)
        frame, pixel = rays.frame_of(number), rays.pixel[number].long()
        inside = ((pixel >= low[frame]) & (pixel < high[frame])).all(dim=1)
        at = (pixel - low[frame])[inside]
        index[frame[inside], at[:, 1], at[:, 0]] = number[inside].int()
    return PatchMap(index, size.flip(1))
