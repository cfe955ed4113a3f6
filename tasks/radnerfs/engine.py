"""One step of training a head: draw rays, render them, compare, go one step; the same work in every step.

Nothing in a step waits for the device or decides on the host, so on CUDA the whole of it is replayed as one graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from modules.radnerfs.person import PersonField
from modules.radnerfs.surface_sampling import samples_around_surface
from tasks.configs import LossConfig, RADNeRFTaskConfig
from tasks.cuda_graph import GraphedCall
from tasks.distributed import Ranks
from tasks.radnerfs.losses import charbonnier, code_penalty, psnr
from tasks.radnerfs.missed_occluders import UsualErrors
from tasks.radnerfs.optimizer import Optimizer
from tasks.radnerfs.ray_table import PATCH_ROOM_PX, PatchMap, RayBatch, RayTable, Shares, draw_batch, patch_map

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
LEAST_WEIGHT = 0.25
"""Pixels of patches that weigh less are taken out: their error is beyond twice what is allowed."""
AUTO_PRECISION = {"cpu": "float32", "cuda": "bfloat16"}

Scalars = Mapping[str, Tensor]
PatchLoss = Callable[[Tensor, Tensor], Tensor]


class TrainingEngine:
    """Fits a person's field to the colours of rays.

    Attributes:
        person: with the weights as they are now.
        average: the same person with the running mean of the weights, which is what rendering uses.
        believed: float32 ``[F]``, 0 for training frames that are not learnt from.
        usual: what rays weigh that show something else than the head.

    Args:
        config: sizes of a step, losses, rates.
        person: on its device.
        rays: on the same device.
        conditions: z-scored condition windows ``[F, W, 204]`` of the training frames, there too.
        px_per_unit: frame pixels per unit of the field's cube.
        ranks: the other processes that train the same person.
    """

    def __init__(
        self,
        config: RADNeRFTaskConfig,
        person: PersonField,
        rays: RayTable,
        conditions: Tensor,
        px_per_unit: float,
        ranks: Ranks,
    ) -> None:
        self.config, self.person, self.rays, self.ranks = config, person, rays, ranks
        self.device = rays.position.device
        self._conditions = conditions
        self._position_noise = config.loss.position_noise_px / px_per_unit
        self._shell = person.config.render.shell_dm * float(person.box_scale)
        self._shares = Shares(config.mouth_share, config.eye_share)
        self.generator = torch.Generator(device=self.device).manual_seed(config.seed + ranks.rank)
        self.average = copy.deepcopy(person).requires_grad_(False)
        self.precision = PRECISIONS[
            AUTO_PRECISION[self.device.type] if config.precision == "auto" else config.precision
        ]
        scaler = torch.amp.GradScaler(self.device.type) if self.precision == torch.float16 else None
        self.optimizer = Optimizer(person, self.average, config.optim, config.max_updates, scaler)
        self.believed = torch.ones(rays.n_frames, device=self.device)
        self.usual = UsualErrors(config.loss.unusual_error, self.device)
        self._patches, self._patch_loss = self._prepare_patches()
        self._work = self._graphed()

    def _prepare_patches(self) -> tuple[PatchMap | None, PatchLoss | None]:
        if self.config.loss.patch_weight == 0:
            return None, None
        from tasks.radnerfs.perceptual import make_patch_loss

        room_px = max(PATCH_ROOM_PX, self.config.loss.patch_size // 2)
        return patch_map(self.rays, room_px), make_patch_loss(self.config.loss, self.device)

    def _graphed(self) -> tuple[Callable[[], Scalars], Callable[[], None]]:
        """Learning and updating as they are called in a step; alone they are one piece, and the second is empty."""
        alone = self.ranks.count == 1
        learn: Callable[[], Scalars] = self._learn_and_update if alone else self._learn
        update = _nothing if alone else self.optimizer.update
        is_recordable = self.device.type == "cuda" and self.person.radnerf.backend.name == "triton"
        if not (self.config.cuda_graph and is_recordable):
            return learn, update
        graphed_update = _nothing if alone else GraphedCall(update, self.generator, self.device)
        return GraphedCall(learn, self.generator, self.device), graphed_update

    def go_on_with(self, shares: Shares, loss: LossConfig) -> None:
        """Draw other rays and minimise something else from the next step on, which is recorded anew."""
        self._shares, self.config = shares, replace(self.config, loss=loss)
        self._patches, self._patch_loss = self._prepare_patches()
        self._work = self._graphed()

    def step(self) -> Scalars:
        """One update; returns detached scalars, which the next call may overwrite."""
        learn, update = self._work
        scalars = learn()
        if self.ranks.count > 1:
            self.ranks.average(self.optimizer.gradients())
        update()
        return scalars

    def _learn_and_update(self) -> Scalars:
        scalars = self._learn()
        self.optimizer.update()
        return scalars

    def _learn(self) -> Scalars:
        loss, scalars = self.loss()
        self.optimizer.backward(loss)
        return scalars | {"loss": loss.detach()}

    def draw(self) -> RayBatch:
        """Rays of one step."""
        config = self.config
        frames = config.frames_per_step
        return draw_batch(self.rays, frames, config.rays_per_step // frames, self._shares, self.generator)

    def loss(self) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised over newly drawn rays, and scalars worth logging."""
        config = self.config.loss
        batch = self.draw()
        rgb, ambient = self.render(batch, self._position_noise)
        weight = self.believed[batch.frame][:, None] * self._weigh(batch, rgb)
        color = charbonnier(rgb.flatten(0, 1), batch.rgb.flatten(0, 1), weight.flatten(), config.charbonnier_eps)
        loss = color + config.ambient_weight * ambient.mean()
        loss = loss + config.code_weight * code_penalty(self.person.radnerf.individual_embeddings)
        scalars = {"psnr": psnr(rgb.detach(), batch.rgb)}
        if self._patch_loss is not None:
            patch = self._loss_of_patches(self._patch_loss)
            loss = loss + config.patch_weight * patch
            scalars["patch_loss"] = patch.detach()
        return loss, scalars

    def _weigh(self, batch: RayBatch, rgb: Tensor, *, is_new: bool = True) -> Tensor:
        """What rays ``[B, R]`` weigh by how unusual their error is; ``is_new`` lets it count as usual from now on."""
        error = (rgb.detach().float() - batch.rgb).abs().mean(dim=-1)
        weight = self.usual.weights(batch.position, error)
        if is_new:
            self.usual.learn(batch.position, error)
        return weight

    def render(self, batch: RayBatch, position_noise: float) -> tuple[Tensor, Tensor]:
        """Colours ``[B, R, 3]`` and use of the motion ``[B, R]`` of rays, with training's noise; differentiable."""
        conditions = self._conditions[batch.frame]
        noise = torch.randn(conditions.shape, device=self.device, generator=self.generator)
        condition = self.person.encode(conditions + self.config.loss.condition_noise * noise)
        position = batch.position
        if position_noise:
            noise = torch.randn(position.shape, device=self.device, generator=self.generator)
            position = position + position_noise * noise
        code = self.person.radnerf.individual_embeddings[batch.frame]
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return shade_frames(self.person, position, batch.direction, condition, code, self._shell, self.generator)

    def _loss_of_patches(self, patch_loss: PatchLoss) -> Tensor:
        from tasks.radnerfs.patches import draw_patches

        config = self.config.loss
        assert self._patches is not None
        size = config.patch_size
        batch, mask = draw_patches(self.rays, self._patches, config.patches_per_step, size, self.generator)
        rgb, _ = self.render(batch, 0.0)
        known = mask * self.believed[batch.frame][:, None]
        known = known * (self._weigh(batch, rgb, is_new=False) > LEAST_WEIGHT)
        rendered = torch.where(known[..., None] > 0, rgb, batch.rgb)
        pictures = [side.transpose(1, 2).unflatten(2, (size, size)) for side in (rendered, batch.rgb)]
        return patch_loss(pictures[0], pictures[1])

    def render_plainly(self, batch: RayBatch, windows: Tensor | None = None) -> Tensor:
        """Colours ``[B, R, 3]`` of rays as inference shows them: averaged weights, no noise, the mean code.

        Args:
            batch: of training frames, or of any others with their ``windows``.
            windows: z-scored condition windows ``[B, W, 204]`` of the batch's frames.
        """
        person = self.average
        with torch.no_grad():
            condition = person.encode(self._conditions[batch.frame] if windows is None else windows)
            code = person.mean_code()[None]
            return shade_frames(person, batch.position, batch.direction, condition, code, self._shell)[0]


def shade_frames(
    person: PersonField,
    position: Tensor,
    direction: Tensor,
    condition: Tensor,
    code: Tensor,
    shell: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """What surface points of several frames show; as ``PersonField.shade``, worked on once per frame where it can be.

    Args:
        person: whose field.
        position: ``[B, R, 3]`` in the cube.
        direction: unit ``[B, R, 3]``.
        condition: ``[B, C]`` encoded.
        code: ``[B, D]`` or ``[1, D]``.
        shell: half its thickness, in units of the cube.
        generator: jitters the samples in their shell; None puts them in the middle.

    Returns:
        Colours ``[B, R, 3]`` and the sum of ``|ambient|`` over each ray's samples ``[B, R]``.
    """
    field, render = person.radnerf, person.config.render
    if render.n_samples == 1:
        out = field(position, direction, condition[:, None], code[:, None])
        return out.rgb, out.ambient.abs().sum(dim=-1)
    n_rays = position.shape[:2]
    flat = position.flatten(0, 1), direction.flatten(0, 1)
    samples, deltas = samples_around_surface(*flat, render.n_samples, shell, generator)
    out = field(samples.unflatten(0, n_rays), direction[:, :, None], condition[:, None, None], code[:, None, None])
    sigma = out.sigma.flatten(0, 1) * render.density_scale
    image, _ = field.backend.composite_opaque(sigma, out.rgb.flatten(0, 1), deltas / shell)
    return image.unflatten(0, n_rays), out.ambient.abs().sum(dim=(-1, -2))


def _nothing() -> None:
    pass
