"""What a step of a portrait's training minimises: the head's losses (with super-resolution), and the torso's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from modules.radnerfs.occupancy_grid import mark_untrained, update_occupancy
from modules.radnerfs.portrait import Portrait, head_alone, torso_layer
from modules.radnerfs.radnerf_torso import TorsoCues, updated_torso_grid
from modules.radnerfs.rays import RayBundle, background_coordinates
from modules.radnerfs.renderer import render_occupancy
from tasks.radnerfs.perceptual import PatchLoss
from tasks.radnerfs.portrait_carving import beside_the_head
from tasks.radnerfs.portrait_config import PortraitTaskConfig
from tasks.radnerfs.portrait_data import PortraitClip, PortraitExample
from tasks.radnerfs.portrait_losses import adapted_weight, ambient_loss, opacity_entropy

LEAST_PICTURE_PX = 11
"""Smaller pieces of a picture are not compared as pictures (SSIM's window)."""


class Stage(Protocol):
    """What is trained: loss terms of a frame, and the occupancy that goes with it."""

    def terms(self, example: PortraitExample, step: int) -> dict[str, Tensor]:
        """Weighted losses of a frame by name; their sum is minimised."""
        ...

    def refresh(self, example: PortraitExample) -> None:
        """Look at a frame to keep occupancy up to date."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Tools:
    """What both stages draw from and compare with."""

    config: PortraitTaskConfig
    generator: torch.Generator
    compare: PatchLoss | None

    def picks(self, count: int, total: int, device: torch.device) -> Tensor:
        """``count`` random numbers below ``total``, with repeats."""
        return torch.randint(total, (count,), generator=self.generator, device=device)

    def seen_difference(self, made: Tensor, wanted: Tensor) -> Tensor:
        """How different pictures ``[3, h, w]`` look; 0 where they are too small or nobody compares."""
        if self.compare is None or min(made.shape[1:]) < LEAST_PICTURE_PX:
            return made.new_zeros(())
        return self.compare(made[None], wanted[None])


class HeadStage:
    """The head, and super-resolution where the portrait has it."""

    def __init__(self, portrait: Portrait, clip: PortraitClip, tools: Tools) -> None:
        self.portrait, self.clip, self.tools = portrait, clip, tools
        head, config = portrait.head, portrait.head.config
        poses, seen_by = clip.cameras.poses[clip.dataset.samples.rows[clip.train]], clip.image_from_camera
        cells = config.bound, config.render.grid_size, head.backend
        head.density_grid.copy_(mark_untrained(head.density_grid, poses, seen_by, *cells, side_px=clip.side))
        count = min(tools.config.carving_frames, len(clip.train))
        if count:
            chosen = clip.train[np.linspace(0, len(clip.train) - 1, count).astype(int)].tolist()
            masks = torch.stack([clip.head_mask(index) for index in chosen])
            poses = clip.cameras.poses[clip.dataset.samples.rows[chosen]].to(masks.device)
            head.density_grid[:, beside_the_head(masks, poses, seen_by, *cells)] = -1.0

    def refresh(self, example: PortraitExample) -> None:
        head = self.portrait.head
        with torch.no_grad():
            condition = head.encode_condition(example.frame.window)
        update = update_occupancy(head, condition, self.tools.generator)
        head.density_grid.copy_(update.density_grid)
        head.density_bitfield.copy_(update.bitfield)

    def terms(self, example: PortraitExample, step: int) -> dict[str, Tensor]:
        if self.portrait.sr_net is None:
            return self._of_rays(example, step)
        return self._of_whole_frame(example, step)

    def _of_rays(self, example: PortraitExample, step: int) -> dict[str, Tensor]:
        """Random rays; from ``fine_start`` on every other step renders the lips as a picture."""
        config, side = self.tools.config, self.clip.side
        if step < config.fine_start or step % 2 == 0:
            picked, lips = self.tools.picks(config.n_rays, side * side, self.clip.device), self._lips(example)
            on_lips = round(config.lips_share * config.n_rays)
            if on_lips and len(lips):
                picked[:on_lips] = lips[self.tools.picks(on_lips, len(lips), self.clip.device)]
            return self._rendered(example, picked, step)[1]
        left, right, top, bottom = example.lip_rect
        picked = self._lips(example)
        rgb, terms = self._rendered(example, picked, step)
        if config.perceptual_weight > 0:
            shape = (bottom - top, right - left, 3)
            made, wanted = (part.view(shape).permute(2, 0, 1) for part in (rgb, example.target[picked]))
            terms["perceptual"] = config.perceptual_weight * self.tools.seen_difference(made, wanted)
        return terms

    def _lips(self, example: PortraitExample) -> Tensor:
        """Numbers of the rays in the box around the lips, row after row."""
        left, right, top, bottom = example.lip_rect
        side = self.clip.side
        return torch.arange(side * side, device=self.clip.device).view(side, side)[top:bottom, left:right].flatten()

    def _of_whole_frame(self, example: PortraitExample, step: int) -> dict[str, Tensor]:
        config, side = self.tools.config, self.clip.side
        rgb, terms = self._rendered(example, torch.arange(side * side, device=self.clip.device), step)
        picture, wanted = (part.view(side, side, 3).permute(2, 0, 1) for part in (rgb, example.target))
        assert self.portrait.sr_net is not None
        doubled = self.portrait.sr_net(picture[None], "random", self.tools.generator)[0]
        left, right, top, bottom = (2 * edge for edge in example.lip_rect)
        lips = (slice(None), slice(top, bottom), slice(left, right))
        whole, share = ((doubled - example.full_target) ** 2).mean(), config.lips_share
        terms["sr_mse"] = whole
        if share > 0 and doubled[lips].numel():
            near = self._lips(example)
            of_lips = ((doubled[lips] - example.full_target[lips]) ** 2).mean()
            terms["sr_mse"] = (1 - share) * whole + share * of_lips
            terms["mse"] = (1 - share) * terms["mse"] + share * ((rgb[near] - example.target[near]) ** 2).mean()
        if step >= config.fine_start and config.perceptual_weight > 0:
            compare, weight = self.tools.seen_difference, config.perceptual_weight
            terms["perceptual"] = weight * compare(picture, wanted)
            terms["sr_perceptual"] = weight / 2 * compare(doubled, example.full_target)
            terms["sr_lips"] = weight / 2 * compare(doubled[lips], example.full_target[lips])
        return terms

    def _rendered(self, example: PortraitExample, picked: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Colours ``[N, 3]`` of some rays, and the losses that rays have."""
        head, config, frame = self.portrait.head, self.tools.config, example.frame
        rays = RayBundle(example.rays.origins[picked], example.rays.directions[picked])
        jitter = torch.rand(len(picked), generator=self.tools.generator, device=self.clip.device)
        out = render_occupancy(
            head,
            rays,
            head.encode_condition(frame.window, frame.eye_area),
            head.individual_embeddings[frame.row],
            frame.background[picked],
            training=True,
            jitter=jitter,
        )
        ambient = ambient_loss(out.ambient, example.on_face[picked])
        terms = {
            "mse": ((out.rgb - example.target[picked]) ** 2).mean(),
            "entropy": config.entropy_weight * opacity_entropy(out.opacity),
            "ambient": self._ambient_weight(ambient, step) * ambient,
        }
        return out.rgb, terms

    def _ambient_weight(self, ambient: Tensor, step: int) -> Tensor | float:
        config = self.tools.config
        if not self.portrait.config.adaptive_ambient:
            return min(step / config.max_updates, 1.0) * config.ambient_weight
        weight = self.portrait.lambda_ambient.clone()
        adapted = adapted_weight(weight, ambient, config.target_ambient, config.ambient_rate)
        self.portrait.lambda_ambient.copy_(adapted)
        return weight[0]


class TorsoStage:
    """The torso before the still background; head and super-resolution stay as they are."""

    def __init__(self, portrait: Portrait, clip: PortraitClip, tools: Tools) -> None:
        self.portrait, self.clip, self.tools = portrait, clip, tools
        portrait.head.requires_grad_(False)
        if portrait.sr_net is not None:
            portrait.sr_net.requires_grad_(False)
        self._coordinates = background_coordinates(clip.side, clip.side, clip.device)

    def refresh(self, example: PortraitExample) -> None:
        torso, frame = self.portrait.torso, example.frame
        assert torso is not None
        cues = TorsoCues(frame.pose6, frame.landmarks68, torso.torso_individual_codes[frame.row])
        torso.density_grid_torso.copy_(updated_torso_grid(torso, cues, self.tools.generator))

    def terms(self, example: PortraitExample, step: int) -> dict[str, Tensor]:
        config, torso = self.tools.config, self.portrait.torso
        assert torso is not None
        picked = self._picked()
        head = None
        if torso.config.head_aware:
            with torch.no_grad():
                rays = RayBundle(example.rays.origins[picked], example.rays.directions[picked])
                head = head_alone(self.portrait, rays, example.frame, self.portrait.head.config.render.t_thresh)
        threshold = min(torso.config.density_thresh, float(torso.density_grid_torso.mean()))
        layer = torso_layer(self.portrait, self._coordinates[picked], example.frame, head, threshold)
        assert layer is not None
        shown, wanted = layer.over(example.plate[picked]), example.frame.background[picked]
        terms = {
            "mse": ((shown - wanted) ** 2).mean(),
            "entropy": config.entropy_weight * opacity_entropy(layer.alpha),
        }
        if config.torso_shift_weight > 0 and step >= config.torso_shift_start:
            terms["shift"] = config.torso_shift_weight * layer.shift.abs().mean()
        if self.portrait.sr_net is not None:
            terms |= self._doubled(shown, example, step)
        return terms

    def _picked(self) -> Tensor:
        config, total = self.tools.config, self.clip.side**2
        if self.portrait.sr_net is None:
            return self.tools.picks(config.n_rays, total, self.clip.device)
        return torch.arange(total, device=self.clip.device)

    def _doubled(self, shown: Tensor, example: PortraitExample, step: int) -> dict[str, Tensor]:
        """Losses after super-resolution, which is not trained here."""
        config, side, sr_net = self.tools.config, self.clip.side, self.portrait.sr_net
        assert sr_net is not None
        picture, wanted = (part.view(side, side, 3).permute(2, 0, 1) for part in (shown, example.frame.background))
        doubled = sr_net(picture[None], "random", self.tools.generator)[0]
        terms = {"sr_mse": ((doubled - example.full_behind) ** 2).mean()}
        if step >= config.fine_start and config.perceptual_weight > 0:
            compare, weight = self.tools.seen_difference, config.perceptual_weight / 2
            terms["perceptual"] = weight * compare(picture, wanted)
            terms["sr_perceptual"] = weight * compare(doubled, example.full_behind)
        return terms
