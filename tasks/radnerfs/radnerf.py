"""Training of one person's head: casts the prepared clip onto the fitted face, then fits the field to its colours.

Reads: data/binary/videos/<video_id>/. Writes: the checkpoint directory it is told, and a work folder for states to
resume from, scalars and validation pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.config import dump_config
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, first_line
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, ROOT, VideoWorkspace
from modules.face_model.correction import same_correction
from modules.face_model.model import FaceModel
from modules.radnerfs.config import RADNeRFConfig
from modules.radnerfs.person import PersonField, single_code
from modules.radnerfs.rays import RenderOutput
from modules.radnerfs.trust import trust_cells
from modules.structures.dataset import NeRFDataset
from tasks.configs import OptimConfig, RADNeRFTaskConfig
from tasks.hooks import CallHook, ProgressHook, ScalarHook
from tasks.radnerfs.dataset_utils import RADNeRFDataset, RayBatch, draw_batch, draw_labelled
from tasks.radnerfs.frame_errors import FrameErrors
from tasks.radnerfs.losses import charbonnier, code_penalty, psnr
from tasks.radnerfs.validation import natural_sharpening, write_validation_images
from tasks.trainer import Trainer

log = logging.getLogger(__name__)


class RADNeRFTask:
    """The steps of training; ``Trainer`` counts them.

    Args:
        config: the task's configuration.
        dataset: the clip, cast onto the head.
        device: where field and rays live.
    """

    def __init__(self, config: RADNeRFTaskConfig, dataset: RADNeRFDataset, device: torch.device) -> None:
        self.config = config
        self.dataset = dataset
        self.device = device
        torch.manual_seed(config.seed)  # module initialisation has no generator argument
        self.px_per_unit = dataset.frame_px_per_dm() / dataset.box.scale
        sizes = fitted_sizes(config, self.px_per_unit, len(dataset.train_indices))
        bank = dataset.training_motion()
        self.rays = dataset.rays.to(device)
        correction = dataset.face_model.correction
        self.person = PersonField(sizes, len(dataset.source.coeffs.identity), len(bank), correction)
        self.person.motion_bank.copy_(bank)
        self._fill_person()
        self.person.to(device)
        self.conditions = dataset.conditions.to(device)
        self.generator = torch.Generator(device=device).manual_seed(config.seed)
        self.optimizer = build_optimizer(self.person, config.optim, device)
        self.average = {name: value.detach().clone() for name, value in self.person.named_parameters()}
        self.frames = FrameErrors(len(dataset.train_indices), device)
        self._trust_what_is_seen()

    def _fill_person(self) -> None:
        source, box = self.dataset.source, self.dataset.box
        self.person.identity.copy_(torch.from_numpy(source.coeffs.identity))
        self.person.condition_mean.copy_(torch.from_numpy(source.condition_mean))
        self.person.condition_std.copy_(torch.from_numpy(source.condition_std))
        self.person.box_center.copy_(torch.from_numpy(box.center))
        self.person.box_scale.fill_(box.scale)
        self.person.px_per_dm.fill_(self.dataset.frame_px_per_dm())
        self.person.best_view.copy_(self.rays.best_view)

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """One Adam step on random rays of all frames."""
        config = self.config
        set_learning_rate(self.optimizer, config.optim, step, config.max_updates)
        batch = draw_batch(self.rays, config.rays_per_step, config.mouth_share, self.generator)
        output = self.render(batch)
        rendered = output.rgb
        self.frames.watch(step / config.max_updates, batch.frame, (rendered - batch.rgb).detach())
        weight = self.frames.believed[batch.frame]
        color = charbonnier(rendered, batch.rgb, weight, config.loss.charbonnier_eps)
        loss = color + config.loss.ambient_weight * output.ambient.mean()
        loss = loss + config.loss.code_weight * code_penalty(self.person.radnerf.individual_embeddings)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self._update_average(step)
        return {"loss": loss.detach(), "psnr": psnr(rendered.detach(), batch.rgb)}

    def render(self, batch: RayBatch) -> RenderOutput:
        """What a batch of ``N`` rays shows; conditions are encoded once per frame in it."""
        rows, which = torch.unique(batch.row, return_inverse=True)
        conditions = self.conditions[rows]
        noise = torch.randn(conditions.shape, device=conditions.device, generator=self.generator)
        condition = self.person.encode(conditions + self.config.loss.condition_noise * noise)[which]
        code = self.person.radnerf.individual_embeddings[batch.frame]
        noise = torch.randn(batch.position.shape, device=self.device, generator=self.generator)
        position = batch.position + self.config.loss.position_noise_px / self.px_per_unit * noise
        return self.person.shade(position, batch.direction, condition, code, self.generator)

    def _update_average(self, step: int) -> None:
        """Running mean of the weights; short at the start, so that the first ones are forgotten."""
        decay = min(self.config.optim.ema_decay, (1 + step) / (10 + step))
        names, values = zip(*self.person.named_parameters(), strict=True)
        with torch.no_grad():
            torch._foreach_lerp_([self.average[name] for name in names], list(values), 1 - decay)

    def _trust_what_is_seen(self) -> None:
        """Until errors are measured, every part of the head that rays show is trusted."""
        batch, mouth = draw_labelled(self.rays, 1 << 18, self.generator)
        self.person.trust.copy_(trust_cells(batch.position, torch.zeros_like(batch.position[:, 0]), mouth))

    def measure_trust(self, rays: int = 1 << 19, chunk: int = 1 << 14) -> None:
        """Write into the person how well each part of the head is explained, from random training rays."""
        person, found = self.averaged(), []
        with torch.no_grad():
            for _ in range(0, rays, chunk):
                batch, mouth = draw_labelled(self.rays, chunk, self.generator)
                condition = person.encode(self.conditions[batch.row.unique()])
                rows = torch.searchsorted(batch.row.unique(), batch.row)
                rendered = person.shade(batch.position, batch.direction, condition[rows]).rgb
                error = ((rendered - batch.rgb) ** 2).mean(dim=1)
                believed = self.frames.believed[batch.frame] > 0
                found.append((batch.position[believed], error[believed], mouth[believed]))
        self.person.trust.copy_(trust_cells(*(torch.cat(part) for part in zip(*found, strict=True))))

    def measure_sharpening(self) -> None:
        """Write into the person how much its renderings are to be sharpened."""
        self.person.sharpen_share.fill_(natural_sharpening(self.dataset, self.averaged()))

    def averaged(self) -> PersonField:
        """A copy of the person with the averaged weights and one appearance code, as a checkpoint holds it."""
        person = PersonField(
            single_code(self.person.config),
            len(self.person.identity),
            len(self.person.motion_bank),
            self.person.correction,
        ).to(self.device)
        tensors = {**self.person.state_dict(), **self.average}
        name = "radnerf.individual_embeddings"
        tensors[name] = tensors[name].mean(dim=0, keepdim=True)
        person.load_state_dict(tensors)
        return person.eval()

    def start_from(self, tensors: Mapping[str, Tensor]) -> int:
        """Take the weights of another person where names and shapes agree; returns how many did."""
        own = dict(self.person.named_parameters())
        with torch.no_grad():
            matching = [name for name, value in tensors.items() if name in own and own[name].shape == value.shape]
            for name in matching:
                own[name].copy_(tensors[name])
                self.average[name].copy_(tensors[name])
        return len(matching)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Tensor groups to go on from: weights, their average, optimiser moments, random generator."""
        moments = {}
        for index, slot in self.optimizer.state_dict()["state"].items():
            moments |= {f"{index}.{name}": torch.as_tensor(value) for name, value in slot.items()}
        return {
            "model": self.person.state_dict(),
            "average": self.average,
            "optimizer": moments,
            "random": {"generator": self.generator.get_state()},
            "frames": self.frames.state(),
        }

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take back what ``state`` gave.

        Raises:
            CheckpointError: when it belongs to other sizes.
        """
        try:
            self.person.load_state_dict(dict(groups["model"]))
            self.average = {name: groups["average"][name].to(self.device) for name in self.average}
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the saved training state has other sizes ({error}); use --reset") from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["optimizer"].items():
            index, slot = name.split(".", 1)
            state.setdefault(int(index), {})[slot] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.frames.load_state(groups["frames"])
        self.generator.set_state(groups["random"]["generator"].cpu())


def fitted_sizes(config: RADNeRFTaskConfig, px_per_unit: float, n_frames: int) -> RADNeRFConfig:
    """The field's sizes for a clip: no level of the position grid is finer than the clip's own pixels.

    Args:
        config: the task's configuration.
        px_per_unit: frame pixels per unit of the field's cube, which is 2 units wide.
        n_frames: training frames, for the appearance codes.
    """
    grid = config.radnerf.position_grid
    finest = max(grid.base_resolution, round(2 * px_per_unit * config.grid_cells_per_px))
    fitted = replace(grid, desired_resolution=min(grid.desired_resolution, finest))
    return replace(config.radnerf, position_grid=fitted, individual_embedding_num=n_frames)


def build_optimizer(person: PersonField, config: OptimConfig, device: torch.device) -> torch.optim.AdamW:
    """AdamW with GeneFace++'s groups: networks, grids (faster), attention."""
    groups: dict[str, list[Tensor]] = {"network": [], "grid": [], "attention": []}
    for name, value in person.named_parameters():
        kind = "grid" if "embedder" in name else "attention" if "cond_att_net" in name else "network"
        groups[kind].append(value)
    scales = {"network": 1.0, "grid": config.grid_lr_scale, "attention": config.attention_lr_scale}
    return torch.optim.AdamW(
        [{"params": groups[kind], "lr_scale": scales[kind]} for kind in groups if groups[kind]],
        lr=config.lr,
        betas=(0.9, 0.99),
        eps=1e-15,
        weight_decay=config.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, config: OptimConfig, step: int, max_updates: int) -> None:
    """Linear warm-up, then exponential decay to ``final_lr_share`` at the last step."""
    rate = config.lr * config.final_lr_share ** (step / max_updates)
    rate *= min(1.0, (step + 1) / max(config.warmup_updates, 1))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]


def resolve_data_root(config: RADNeRFTaskConfig) -> Path:
    """Where data lies; relative paths start at the repository."""
    return config.data_root if config.data_root.is_absolute() else ROOT / config.data_root


def load_dataset(config: RADNeRFTaskConfig, face_model: FaceModel, progress: Progress) -> RADNeRFDataset:
    """The prepared clip, cast onto the head.

    Raises:
        CheckpointError: when the clip is not prepared, or with something else.
    """
    path = VideoWorkspace(config.video_id, resolve_data_root(config), config.face).dataset
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist; prepare the video first: "
            f"python data_gen/runs/process_video.py --video_id {config.video_id}"
            + (f" --face {config.face}" if config.face else "")
        )
    try:
        source = NeRFDataset.load(path)
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error
    return RADNeRFDataset(
        source,
        face_model,
        region=config.data.region,
        margin_px=round(config.data.margin_share * source.crop_size),
        window=config.radnerf.smo_win_size,
        ray_stride=config.data.ray_stride,
        progress=progress,
    )


def work_dir(config: RADNeRFTaskConfig, out_dir: Path) -> Path:
    """Folder for what training leaves beside its checkpoint: ``<data_root>/training/<name>``."""
    return resolve_data_root(config) / "training" / out_dir.name


def train(config: RADNeRFTaskConfig, out_dir: Path, progress: Progress, *, reset: bool = False) -> None:
    """Train a person's head and write its checkpoint; goes on from an interrupted run's state.

    Args:
        config: what to train on and how.
        out_dir: the checkpoint directory; it appears when training is complete.
        progress: told about casting and steps.
        reset: start anew even when there is a state to go on from.

    Raises:
        CheckpointError: the clip is not prepared, or a state or ``init_from`` cannot be used.
    """
    device = pick_device(config.device)
    face_model = FaceModel.load(FACE_MODEL_FILE)
    dataset = load_dataset(config, face_model, progress)
    task = RADNeRFTask(config, dataset, device)
    work = work_dir(config, out_dir)
    state_dir = work / "state"
    start = 0 if reset else resume(task, state_dir)
    if start == 0 and config.init_from:
        _start_from_checkpoint(task, Path(config.init_from))

    def validate(step: int) -> None:
        write_validation_images(dataset, task.averaged(), work / "validation" / f"{step:06d}", config.val_images)

    hooks = [
        ProgressHook(progress, "train"),
        ScalarHook(work / "tb_logs", config.log_interval),
        CallHook(lambda step: save_state(task, state_dir, step), config.state_interval, at_end=False),
        CallHook(lambda _: task.measure_trust(), 0),
        CallHook(lambda _: task.measure_sharpening(), 0),
        CallHook(validate, config.val_interval, at_end=config.val_images > 0),
    ]
    Trainer(task, config.max_updates, hooks, start).fit()
    save_person(task.averaged(), config, out_dir, dataset)
    _remove_state(state_dir)


def save_person(person: PersonField, config: RADNeRFTaskConfig, out_dir: Path, dataset: RADNeRFDataset) -> None:
    """Write the finished checkpoint; grids are stored as float16, which is below their own noise."""
    tensors = {
        name: value.half() if name.endswith(("embedder.embeddings", "motion_bank")) else value
        for name, value in person.state_dict().items()
    }
    source = dataset.source
    extra = {
        "video_id": source.video_id,
        "source_sha256": source.source_sha256,
        "face": config.face,
        "train_frames": len(dataset.train_indices),
        "rays": len(dataset.rays),
    }
    finished = replace(config, radnerf=person.config)
    save_checkpoint(
        out_dir,
        {"model": tensors},
        finished,
        config.max_updates,
        extra,
        face_model_version=source.coeffs.face_model_version,
    )
    log.info("%s written (%d train frames)", out_dir, len(dataset.train_indices))


def load_person(directory: Path, device: torch.device) -> tuple[PersonField, RADNeRFTaskConfig, str]:
    """Read a finished checkpoint: the person, how it was trained, and the face model's version.

    Raises:
        CheckpointError: missing, corrupt, or not a person.
    """
    checkpoint = load_checkpoint(directory, parts={"model"})
    config = checkpoint.config(RADNeRFTaskConfig)
    try:
        model = checkpoint.model
        person = PersonField(config.radnerf, len(model["identity"]), len(model["motion_bank"]), model.get("correction"))
        person.load_state_dict({name: value.float() if value.is_floating_point() else value
                                for name, value in model.items()})  # fmt: skip
    except (RuntimeError, KeyError) as error:
        raise CheckpointError(
            f"{directory} does not hold a person's head of this version ({first_line(error)}); train it again"
        ) from error
    return person.to(device).eval(), config, checkpoint.face_model_version


def save_state(task: RADNeRFTask, state_dir: Path, step: int) -> None:
    """Write all that an interrupted run needs to go on."""
    version = task.dataset.source.coeffs.face_model_version
    save_checkpoint(state_dir, task.state(), task.config, step, face_model_version=version)


def resume(task: RADNeRFTask, state_dir: Path) -> int:
    """Load an interrupted run's state if it was made with the same configuration; returns the step to go on from."""
    if not is_checkpoint(state_dir):
        return 0
    saved = load_checkpoint(state_dir)
    if (state_dir / "config.yaml").read_text(encoding="utf-8") != dump_config(task.config):
        log.warning("%s was made with another configuration and is not used", state_dir)
        return 0
    if not same_correction(saved.model.get("correction"), task.person.correction):
        log.warning("%s was made with another correction of the expression units and is not used", state_dir)
        return 0
    task.load_state(saved.tensors)
    log.info("going on from step %d", saved.step)
    return saved.step


def _start_from_checkpoint(task: RADNeRFTask, directory: Path) -> None:
    path = directory if directory.is_absolute() else ROOT / directory
    count = task.start_from(load_checkpoint(path, parts={"model"}).model)
    log.info("%d tensors taken from %s", count, path)
    if count == 0:
        raise CheckpointError(f"init_from: {path} has no tensor of this configuration's sizes; use the same preset")


def _remove_state(state_dir: Path) -> None:
    for file in sorted(state_dir.glob("*")):
        file.unlink()
    if state_dir.exists():
        state_dir.rmdir()


def spread(indices: np.ndarray, count: int) -> list[int]:
    """``count`` of ``indices``, evenly."""
    if len(indices) == 0 or count == 0:
        return []
    return [int(indices[i]) for i in np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)]
