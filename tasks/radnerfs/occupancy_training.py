"""Training of a head as GeneFace++ has it: rays of a crop through the ±1 box, stepping over an occupancy grid.

There is no head mask in a prepared clip: pixels on the fitted mesh are learnt, all others are to be empty, and a random
colour behind the head tells the two apart. Such a head is no ``PersonField``; it renders with ``render_occupancy``.

Reads: data/binary/videos/<video_id>/. Writes: the checkpoint directory it is told.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.commons.checkpoint import save_checkpoint
from modules.commons.errors import CheckpointError
from modules.commons.progress import Progress
from modules.radnerfs.backends import get_backend
from modules.radnerfs.occupancy_grid import dilate, fresh_densities, merged
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.rays import RayBundle
from modules.radnerfs.renderer import render_occupancy
from modules.structures.cameras import camera_pose, ngp_pose
from tasks.configs import RADNeRFTaskConfig
from tasks.hooks import ProgressHook
from tasks.radnerfs.dataset_utils import FrameRays, RADNeRFDataset
from tasks.radnerfs.losses import charbonnier, psnr
from tasks.radnerfs.optimizer import Optimizer, flatten
from tasks.trainer import Trainer

log = logging.getLogger(__name__)

REFRESH_EVERY = 16
"""Steps between refreshes of the occupancy grid; a refresh shows up in the steps after the next one's start."""
MOST_FRAMES = 1000
"""Crops that are kept on the device, evenly over the training frames: 1 GB at 512 px."""
BITS = (1, 2, 4, 8, 16, 32, 64, 128)


@dataclass(frozen=True, slots=True, eq=False)
class CropTable:
    """Whole crops on the device.

    Attributes:
        rgb: uint8 ``[F, S, S, 3]``. on_head: bool ``[F, S, S]`` pixels that see the mesh with nothing in front.
        hidden: bool ``[F, S, S]`` pixels with something in front, which teach nothing.
        head_from_pixel: float32 ``[F, 3, 3]`` pixel (x, y, 1) to its direction in the box, not of unit length.
        origin: float32 ``[F, 3]`` of the camera in the box.
        windows: z-scored condition windows ``[F, W, 204]``.
    """

    rgb: Tensor
    on_head: Tensor
    hidden: Tensor
    head_from_pixel: Tensor
    origin: Tensor
    windows: Tensor

    def __len__(self) -> int:
        return len(self.rgb)


def crop_table(dataset: RADNeRFDataset, device: torch.device, progress: Progress) -> CropTable:
    """The training crops of a clip, at most ``MOST_FRAMES``.

    Raises:
        CheckpointError: no crop shows the face.
    """
    source, train = dataset.source, dataset.train_indices
    chosen = train[np.linspace(0, len(train) - 1, min(len(train), MOST_FRAMES)).round().astype(int)]

    def crop(number: int, frame: FrameRays) -> tuple[np.ndarray, ...]:
        index = int(chosen[number])
        on_head = np.zeros((source.crop_size, source.crop_size), dtype=bool)
        x0, y0, x1, y1 = frame.hits.bounds
        on_head[y0:y1, x0:x1] = frame.hits.mask
        in_front = source.hidden(index)
        hidden = np.zeros_like(on_head) if in_front is None else in_front
        pose, row = dataset.pose(index), int(source.rows[index])
        world_from_camera = ngp_pose(camera_pose(pose.euler, pose.translation))
        turned = world_from_camera[:3, :3] @ np.linalg.inv(source.camera_matrix(index))
        windows = dataset.conditions[row].numpy()
        return source.crop(index), on_head & ~hidden, hidden, turned, world_from_camera[:3, 3], windows

    parts = dataset.cast(chosen, crop, progress)
    if not parts:
        raise CheckpointError(f"{source.crops_dir}: no crop shows the face; prepare the video again")
    columns = [torch.from_numpy(np.stack(column)).to(device) for column in zip(*parts, strict=True)]
    rgb, on_head, hidden, turned, origin, windows = columns
    return CropTable(rgb, on_head, hidden, turned.float(), origin.float(), windows)


class OccupancyRefresh:
    """Keeps a field's occupancy grid up to date beside training.

    On CUDA a copy of the weights is evaluated on a stream of its own; what it finds is taken over when the next refresh
    starts, so no training step waits for it.
    """

    def __init__(self, field: RADNeRF, parameters: Tensor, generator: torch.Generator) -> None:
        self._field, self._parameters, self._generator = field, parameters, generator
        self._device = parameters.device
        self._copy = copy.deepcopy(field).requires_grad_(False)
        self._copied = flatten(dict(self._copy.named_parameters()))
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._bits = torch.tensor(BITS, dtype=torch.uint8, device=self._device)
        self._pending: tuple[Tensor, Tensor] | None = None

    def __call__(self, window: Tensor) -> None:
        """Take over the refresh under way and start one with the motion of ``window [W, 204]``."""
        first = self._pending is None
        self._take_over()
        self._copied.copy_(self._parameters)
        grid = self._field.density_grid.clone()
        if self._stream is None:
            self._pending = self._evaluate(grid, window)
        else:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):
                self._pending = self._evaluate(grid, window)
        if first:  # there is nothing to march through yet
            self._take_over()

    def _take_over(self) -> None:
        if self._pending is None:
            return
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        grid, bits = self._pending
        self._field.density_grid.copy_(grid)
        self._field.density_bitfield.copy_(bits)

    @torch.no_grad()
    def _evaluate(self, grid: Tensor, window: Tensor) -> tuple[Tensor, Tensor]:
        """New densities, and their bits; the threshold is never read back."""
        field, render = self._copy, self._copy.config.render
        condition = field.encode_conditions(window[None, :, None])[0]
        fresh = dilate(fresh_densities(field, condition, self._generator), render.grid_size, field.backend)
        grid = merged(grid, fresh, render.density_decay)
        threshold = grid.clamp(min=0).mean().clamp(max=render.density_thresh)
        bits = ((grid.reshape(-1, 8) > threshold).to(torch.uint8) * self._bits).sum(dim=1, dtype=torch.uint8)
        return grid, bits


class OccupancyTask:
    """One frame's random pixels per step, as GeneFace++ trains its head."""

    def __init__(self, config: RADNeRFTaskConfig, crops: CropTable, field: RADNeRF) -> None:
        self.config, self.crops, self.field = config, crops, field
        self.device = crops.rgb.device
        self.average = copy.deepcopy(field).requires_grad_(False)
        self.optimizer = Optimizer(field, self.average, config.optim, config.max_updates)
        self.generator = torch.Generator(device=self.device).manual_seed(config.seed)
        self._frames = torch.Generator().manual_seed(config.seed)  # which frame is known to the host
        beside = torch.Generator(device=self.device).manual_seed(config.seed + 1)
        self._refresh = OccupancyRefresh(field, self.optimizer.flat, beside)

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """One Adam step on random pixels of a random frame."""
        crops, config = self.crops, self.config
        frame = int(torch.randint(len(crops), (1,), generator=self._frames))
        if step % REFRESH_EVERY == 0:
            self._refresh(crops.windows[frame])
        rays, target, weight, background = self._draw(frame)
        condition = self.field.encode_conditions(crops.windows[frame][None, :, None])[0]
        jitter = torch.rand(len(rays), generator=self.generator, device=self.device)
        code = self.field.individual_embeddings[frame]
        out = render_occupancy(self.field, rays, condition, code, background, training=True, jitter=jitter)
        loss = charbonnier(out.rgb, target, weight, config.loss.charbonnier_eps)
        loss = loss + config.loss.ambient_weight * out.ambient.mean()
        self.optimizer.backward(loss)
        self.optimizer.update()
        return {"loss": loss.detach(), "psnr": psnr(out.rgb.detach(), target)}

    def _draw(self, frame: int) -> tuple[RayBundle, Tensor, Tensor, Tensor]:
        """Rays of random pixels, what they should show, how much they count, and the colour behind them."""
        crops, side = self.crops, self.crops.rgb.shape[1]
        count = self.config.rays_per_step
        y, x = torch.randint(side, (2, count), generator=self.generator, device=self.device)
        pixels = torch.stack([x + 0.5, y + 0.5, torch.ones_like(x, dtype=torch.float32)], dim=1)
        directions = torch.nn.functional.normalize(pixels @ crops.head_from_pixel[frame].T, dim=1)
        background = torch.rand(count, 3, generator=self.generator, device=self.device)
        shown = crops.rgb[frame][y, x].float() / 255
        target = torch.where(crops.on_head[frame][y, x][:, None], shown, background)
        weight = 1.0 - crops.hidden[frame][y, x].float()
        return RayBundle(crops.origin[frame].expand_as(directions), directions), target, weight, background


def train_occupancy(
    config: RADNeRFTaskConfig, dataset: RADNeRFDataset, out_dir: Path, device: torch.device, progress: Progress
) -> None:
    """Train a head with an occupancy grid and write its averaged weights.

    Raises:
        CheckpointError: no crop of the clip shows the face.
    """
    crops = crop_table(dataset, device, progress)
    finished = replace(config, radnerf=replace(config.radnerf, individual_embedding_num=len(crops)))
    torch.manual_seed(config.seed)  # module initialisation has no generator argument
    field = RADNeRF(finished.radnerf, get_backend(config.backend, device)).to(device)
    task = OccupancyTask(finished, crops, field)
    Trainer(task, config.max_updates, [ProgressHook(progress, "train")]).fit()
    task.average.density_grid.copy_(field.density_grid)
    task.average.density_bitfield.copy_(field.density_bitfield)
    version = dataset.source.coeffs.face_model_version
    save_checkpoint(
        out_dir, {"model": task.average.state_dict()}, finished, config.max_updates, {}, face_model_version=version
    )
    log.info("%s written (%d frames)", out_dir, len(crops))
