"""Training of one person's head: casts the prepared clip onto the fitted face, then fits the field to its colours.

Reads: data/binary/videos/<video_id>/. Writes: the checkpoint directory it is told, and a work folder for states to
resume from, scalars and validation pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.config import dump_config
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, ConfigError, first_line
from modules.commons.progress import Progress, silent
from modules.commons.workspace import FACE_MODEL_FILE, ROOT, VideoWorkspace
from modules.face_model.correction import same_correction
from modules.face_model.model import FaceModel
from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import RADNeRFConfig
from modules.radnerfs.person import PersonField, single_code
from modules.radnerfs.trust import trust_cells
from modules.structures.dataset import NeRFDataset
from tasks.configs import RADNeRFTaskConfig
from tasks.distributed import Ranks, joined
from tasks.hooks import CallHook, ProgressHook, ScalarHook
from tasks.radnerfs.dataset_utils import RADNeRFDataset
from tasks.radnerfs.engine import TrainingEngine
from tasks.radnerfs.frame_errors import JUDGED_AT, judge_frames
from tasks.radnerfs.occupancy_training import train_occupancy
from tasks.radnerfs.plateau import HeldOutHook, Plateau, held_out_rays
from tasks.radnerfs.ray_table import Shares, draw_labelled
from tasks.radnerfs.validation import natural_sharpening, write_validation_images
from tasks.trainer import Hook, Trainer

log = logging.getLogger(__name__)

TRUST_FRAMES = 64
"""Frames that one look at how well the head is explained draws its rays from."""


class RADNeRFTask:
    """A person in training; ``Trainer`` counts the steps, ``TrainingEngine`` makes them.

    Args:
        config: the task's configuration.
        dataset: the clip, cast onto the head.
        device: where field and rays live.
        ranks: the other processes that train the same person.
    """

    def __init__(
        self, config: RADNeRFTaskConfig, dataset: RADNeRFDataset, device: torch.device, ranks: Ranks | None = None
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.device = device
        torch.manual_seed(config.seed)  # module initialisation has no generator argument
        px_per_unit = dataset.frame_px_per_dm() / dataset.box.scale
        sizes = fitted_sizes(config, px_per_unit, len(dataset.train_indices))
        bank = dataset.training_motion()
        rays = dataset.rays.to(device)
        correction = dataset.face_model.correction
        backend = get_backend(config.backend, device)
        self.person = PersonField(sizes, len(dataset.source.coeffs.identity), len(bank), correction, backend)
        self.person.motion_bank.copy_(bank)
        self._fill_person(rays.best_view)
        self.person.to(device)
        conditions = dataset.conditions[dataset.source.rows[dataset.train_indices]].to(device)
        self.engine = TrainingEngine(config, self.person, rays, conditions, px_per_unit, ranks or Ranks())
        self.plateau = Plateau(config.plateau)
        self._judged = self._on_lips = False
        self._trust_what_is_seen()

    def _fill_person(self, best_view: Tensor) -> None:
        source, box = self.dataset.source, self.dataset.box
        self.person.identity.copy_(torch.from_numpy(source.coeffs.identity))
        self.person.condition_mean.copy_(torch.from_numpy(source.condition_mean))
        self.person.condition_std.copy_(torch.from_numpy(source.condition_std))
        self.person.box_center.copy_(torch.from_numpy(box.center))
        self.person.box_scale.fill_(box.scale)
        self.person.px_per_dm.fill_(self.dataset.frame_px_per_dm())
        self.person.best_view.copy_(best_view)

    def training_step(self, step: int) -> Mapping[str, Tensor]:
        """One Adam step on random rays of random frames; frames that cannot be explained are dropped on the way."""
        if not self._judged and step >= JUDGED_AT * self.config.max_updates:
            self.engine.believed.copy_(judge_frames(self.engine))
            self._judged = True
        if not self._on_lips and step >= self.config.lips.start * self.config.max_updates:
            self._turn_to_lips()
        return self.engine.step()

    def _turn_to_lips(self) -> None:
        """From here on hardly anything but the mouth is learnt."""
        lips = self.config.lips
        loss = replace(self.config.loss, patch_weight=lips.patch_weight, patches_per_step=lips.patches_per_step)
        self.engine.go_on_with(Shares(lips.mouth_share), loss)
        self._on_lips = True

    def _trust_what_is_seen(self) -> None:
        """Until errors are measured, every part of the head that rays show is trusted."""
        engine = self.engine
        batch, mouth = draw_labelled(engine.rays, TRUST_FRAMES, (1 << 18) // TRUST_FRAMES, engine.generator)
        position = batch.position.flatten(0, 1)
        self.person.trust.copy_(trust_cells(position, torch.zeros_like(position[:, 0]), mouth.flatten()))

    def measure_trust(self, rays: int = 1 << 19, chunk: int = 1 << 14) -> None:
        """Write into the person how well each part of the head is explained, from random training rays."""
        engine, found = self.engine, []
        for _ in range(0, rays, chunk):
            batch, mouth = draw_labelled(engine.rays, TRUST_FRAMES, chunk // TRUST_FRAMES, engine.generator)
            error = ((engine.render_plainly(batch) - batch.rgb) ** 2).mean(dim=2)
            believed = engine.believed[batch.frame] > 0
            found.append([part[believed].flatten(0, 1) for part in (batch.position, error, mouth)])
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
            self.person.radnerf.backend,
        ).to(self.device)
        tensors = {**self.person.state_dict(), **self.engine.optimizer.average}
        name = "radnerf.individual_embeddings"
        tensors[name] = tensors[name].mean(dim=0, keepdim=True)
        person.load_state_dict(tensors)
        return person.eval()

    def start_from(self, tensors: Mapping[str, Tensor]) -> int:
        """Take the weights of another person where names and shapes agree; returns how many did."""
        own, average = self.engine.optimizer.parameters, self.engine.optimizer.average
        with torch.no_grad():
            matching = [name for name, value in tensors.items() if name in own and own[name].shape == value.shape]
            for name in matching:
                own[name].copy_(tensors[name])
                average[name].copy_(tensors[name])
        return len(matching)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Tensor groups to go on from: weights, their average, optimiser moments, random generator, judgements."""
        judged = torch.tensor(self._judged)
        return {
            "model": self.person.state_dict(),
            **self.engine.optimizer.state(),
            "random": {"generator": self.engine.generator.get_state()},
            "frames": {"believed": self.engine.believed, "judged": judged, "usual": self.engine.usual.usual},
            "plateau": self.plateau.state(),
        }

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]], step: int) -> None:
        """Take back what ``state`` gave after ``step`` steps.

        Raises:
            CheckpointError: when it belongs to other sizes.
        """
        engine = self.engine
        try:
            self.person.load_state_dict(dict(groups["model"]))
            engine.optimizer.load_state(groups)
            engine.believed.copy_(groups["frames"]["believed"])
            engine.usual.usual.copy_(groups["frames"]["usual"])
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"the saved training state has other sizes ({error}); use --reset") from error
        engine.optimizer.start_at(step)
        self._judged = bool(groups["frames"]["judged"])
        self.plateau.load_state(groups["plateau"])
        if engine.ranks.is_first:
            engine.generator.set_state(groups["random"]["generator"].cpu())
        else:  # only the first one's was kept
            engine.generator.manual_seed(self.config.seed + engine.ranks.rank + (step << 16))


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

    A configuration with ``sampler: occupancy`` trains a head like GeneFace++'s instead, on one device and in one go.
    Started by ``torchrun``, every process trains on rays of its own and the first one writes.

    Args:
        config: what to train on and how.
        out_dir: the checkpoint directory; it appears when training is complete.
        progress: told about casting and steps.
        reset: start anew even when there is a state to go on from.

    Raises:
        CheckpointError: the clip is not prepared, or a state or ``init_from`` cannot be used.
        ConfigError: several processes were started for a head with an occupancy grid.
        GeneFaceError: several processes train and their weights drifted apart.
    """
    with joined(config.device) as ranks:
        device = pick_device(config.device)
        dataset = load_dataset(config, FaceModel.load(FACE_MODEL_FILE), progress if ranks.is_first else silent)
        if config.radnerf.render.sampler == "occupancy":
            if ranks.count > 1:
                raise ConfigError("a head with an occupancy grid is trained by one process; start it without torchrun")
            train_occupancy(config, dataset, out_dir, device, progress)
            return
        task = RADNeRFTask(config, dataset, device, ranks)
        work = work_dir(config, out_dir)
        start = 0 if reset else resume(task, work / "state")
        if start == 0 and config.init_from:
            _start_from_checkpoint(task, Path(config.init_from))
        parameters = task.engine.optimizer.parameters.values()
        ranks.check_same(parameters, "before training")
        hooks = held_out_hooks(task, work)
        if ranks.is_first:
            hooks += writing_hooks(task, work, progress)
        trainer = Trainer(task, config.max_updates, hooks, start)
        trainer.fit()
        ranks.check_same(parameters, "after training")
        if ranks.is_first:
            save_person(task.averaged(), config, out_dir, dataset, trainer.step)
            _remove_state(work / "state")
        ranks.wait()


def held_out_hooks(task: RADNeRFTask, work: Path) -> list[Hook]:
    """What looks at held-out frames while training, if it is to and there are any; its curve goes into ``work``."""
    plateau = task.config.plateau
    if not plateau.every:
        return []
    rays = held_out_rays(task.dataset, plateau, task.device)
    if rays is None:
        log.warning("the clip holds out no frame: training goes on to its last step")
        return []
    return [HeldOutHook(task.engine, rays, task.plateau, work / "held_out.json")]


def writing_hooks(task: RADNeRFTask, work: Path, progress: Progress) -> list[Hook]:
    """What watches training and writes into the folder ``work``."""
    config = task.config

    def validate(step: int) -> None:
        write_validation_images(task.dataset, task.averaged(), work / "validation" / f"{step:06d}", config.val_images)

    return [
        ProgressHook(progress, "train"),
        ScalarHook(work / "tb_logs", config.log_interval),
        CallHook(lambda step: save_state(task, work / "state", step), config.state_interval, at_end=False),
        CallHook(lambda _: task.measure_trust(), 0),
        CallHook(lambda _: task.measure_sharpening(), 0),
        CallHook(validate, config.val_interval, at_end=config.val_images > 0),
    ]


def save_person(
    person: PersonField, config: RADNeRFTaskConfig, out_dir: Path, dataset: RADNeRFDataset, step: int
) -> None:
    """Write the finished checkpoint of ``step`` steps; grids are stored as float16, which is below their own noise."""
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
        step,
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
        n_identity, n_motion, backend = len(model["identity"]), len(model["motion_bank"]), get_backend("auto", device)
        person = PersonField(config.radnerf, n_identity, n_motion, model.get("correction"), backend)
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
    task.load_state(saved.tensors, saved.step)
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
