"""Configurations of the training tasks, and the one door through which any of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modules.commons.config import load_config, read_mapping
from modules.commons.device import DeviceName
from modules.commons.errors import ConfigError
from modules.face_model.model import Region
from modules.radnerfs.backends import BackendName
from modules.radnerfs.config import RADNeRFConfig
from tasks.evaluation.config import EvaluationConfig

Precision = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class DataConfig:
    """How the prepared clip becomes rays.

    Attributes:
        region: what will be rendered; training covers it and a margin.
        margin_share: margin around the region, share of the crop's side.
        ray_stride: keep every n-th pixel row outside the mouth.
    """

    region: Region = "lower_face"
    margin_share: float = 0.03
    ray_stride: int = 1

    def __post_init__(self) -> None:
        if self.ray_stride < 1 or not 0 <= self.margin_share <= 0.5:
            raise ValueError(f"needs ray_stride >= 1 and margin_share in 0..0.5: {self}")


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What is minimised.

    Attributes:
        charbonnier_eps: colour error e counts sqrt(e² + eps²) - eps: quadratic below eps, linear above.
        code_weight: pull of the per-frame appearance codes towards 0.
        ambient_weight: pull of the ambient coordinates, which carry the motion, towards rest (RAD-NeRF's own
            regulariser): without it light that changes with the head's turning is blamed on the lips.
        condition_noise: spread of the noise put on z-scored conditions in training; without it a short clip's frames
            are learnt by heart through their conditions (measured on held-out frames: 0.3 to 1 is +0.3 .. +1 dB).
        position_noise_px: spread, in frame pixels, of the noise on positions in training: a pixel is an area, and
            grid cells between its samples' points would keep noise (measured: +0.1 .. +1.6 dB).
        unusual_error: rays whose error is above this many times the usual one at their place of the head weigh less and
            less: what covers the face there was missed. 0 believes every ray.
        patch_weight: weight of ``perceptual``'s loss on square patches around the mouth; 0 draws none.
        patch_size: side of a patch, px. patches_per_step: patches of one step.
    """

    charbonnier_eps: float = 0.02
    code_weight: float = 1e-3
    ambient_weight: float = 1e-3
    condition_noise: float = 0.7
    position_noise_px: float = 0.5
    unusual_error: float = 5.0
    patch_weight: float = 0.0
    patch_size: int = 32
    patches_per_step: int = 8

    def __post_init__(self) -> None:
        if self.patch_weight < 0 or self.patch_size < 8 or self.patches_per_step < 1:
            raise ValueError(f"needs patch_weight >= 0, patch_size >= 8 and patches_per_step >= 1: {self}")
        if self.unusual_error != 0 and self.unusual_error < 1:
            raise ValueError(f"needs unusual_error 0 or at least 1: {self}")


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """How it is minimised (AdamW).

    Attributes:
        lr: networks; grids take ``grid_lr_scale`` times, the attention ``attention_lr_scale`` times as much.
        schedule: how the rate falls over ``max_updates`` to ``final_lr_share`` of itself: 'exponential', or 'cosine',
            which stays high for longer and then falls faster.
        warmup_updates: the rate rises linearly over these first steps.
        ema_decay: weights used for rendering are a running mean with this decay; 0 takes the last ones.
        weight_decay: decoupled, per step times the rate; it empties what no ray holds up.
    """

    lr: float = 1e-3
    grid_lr_scale: float = 10.0
    attention_lr_scale: float = 1.0
    final_lr_share: float = 0.05
    schedule: Literal["exponential", "cosine"] = "exponential"
    warmup_updates: int = 50
    ema_decay: float = 0.997
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        if not (self.lr > 0 and 0 < self.final_lr_share <= 1 and 0 <= self.ema_decay < 1 and self.weight_decay >= 0):
            raise ValueError(f"needs lr > 0, final_lr_share in (0, 1], ema_decay in [0, 1), weight_decay >= 0: {self}")


@dataclass(frozen=True, slots=True)
class PlateauConfig:
    """When training is done before its last step: held-out frames are no longer rendered better.

    Attributes:
        every: steps between looks at the held-out rays; 0 never looks.
        patience: looks without a gain after which training stops; 0 looks but never stops.
        min_gain_db: what counts as a gain.
        frames: held-out frames that are looked at, evenly over them. rays_per_frame: rays of each.
    """

    every: int = 0
    patience: int = 6
    min_gain_db: float = 0.02
    frames: int = 32
    rays_per_frame: int = 512

    def __post_init__(self) -> None:
        if min(self.every, self.patience, self.min_gain_db) < 0 or min(self.frames, self.rays_per_frame) < 1:
            raise ValueError(f"needs every, patience, min_gain_db >= 0 and frames, rays_per_frame >= 1: {self}")


@dataclass(frozen=True, slots=True)
class LipsConfig:
    """The last stretch of training, in which hardly anything but the mouth is learnt.

    Attributes:
        start: it begins at this share of the steps; 1 leaves it out.
        mouth_share: share of its rays on the mouth.
        patch_weight: ``loss.patch_weight`` of that stretch. patches_per_step: patches of one of its steps.
    """

    start: float = 1.0
    mouth_share: float = 0.9
    patch_weight: float = 0.3
    patches_per_step: int = 32

    def __post_init__(self) -> None:
        if not 0 <= self.start <= 1 or not 0 <= self.mouth_share <= 1:
            raise ValueError(f"needs start and mouth_share in 0..1: {self}")
        if self.patch_weight < 0 or self.patches_per_step < 1:
            raise ValueError(f"needs patch_weight >= 0 and patches_per_step >= 1: {self}")


@dataclass(frozen=True, slots=True)
class RADNeRFTaskConfig:
    """Training of one person's head.

    Attributes:
        video_id: the prepared clip, ``<data_root>/binary/videos/<video_id>/trainval_dataset.npz``.
        face: number of the face in it, most face area over time first.
        data_root: relative paths lie below the repository.
        backend: what computes the field's operations in training; a finished person is rendered with the best one for
            its device, whatever this says.
        init_from: a checkpoint whose weights are the start, where names and shapes agree; empty for none.
        precision: of the networks in training; weights, grids and their gradients stay float32. 'auto' is
            bfloat16 on CUDA (held-out rays of one clip tell it from float32 no better than two seeds of either; a third
            more steps per second, and no scaling of losses) and float32 on the CPU.
        cuda_graph: record the step once and replay it (CUDA with the Triton backend); False runs it anew each time.
        max_updates: steps, at most. rays_per_step: rays of one step, with several GPUs of each.
        rays_per_frame: a step's rays come from ``rays_per_step / rays_per_frame`` random frames.
        mouth_share: share of the rays on the mouth. eye_share: share on the eyes, where the region holds them
            and the mouth leaves room.
        grid_cells_per_px: the position grid's finest level has at most this many cells per frame pixel of the clip.
        state_interval: steps between states to resume from; 0 writes none.
        val_interval: steps between validations; 0 validates at the end only. val_images: pictures written each time.
    """

    task: Literal["radnerf"] = "radnerf"
    video_id: str = ""
    face: int = 0
    data_root: Path = Path("data")
    init_from: str = ""
    device: DeviceName = "auto"
    backend: BackendName = "auto"
    seed: int = 9999
    max_updates: int = 2000
    precision: Precision = "auto"
    cuda_graph: bool = True
    rays_per_step: int = 8192
    rays_per_frame: int = 64
    mouth_share: float = 0.5
    eye_share: float = 0.1
    grid_cells_per_px: float = 1.0
    log_interval: int = 20
    state_interval: int = 500
    val_interval: int = 1000
    val_images: int = 4
    radnerf: RADNeRFConfig = field(default_factory=RADNeRFConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    plateau: PlateauConfig = field(default_factory=PlateauConfig)
    lips: LipsConfig = field(default_factory=LipsConfig)

    @property
    def frames_per_step(self) -> int:
        return max(1, self.rays_per_step // self.rays_per_frame)

    def __post_init__(self) -> None:
        if self.max_updates < 1 or not 1 <= self.rays_per_frame <= self.rays_per_step:
            raise ValueError("needs max_updates >= 1 and rays_per_frame in 1..rays_per_step")
        if not (0 <= self.mouth_share <= 1 and 0 <= self.eye_share <= 1):
            raise ValueError("needs mouth_share in 0..1 and eye_share in 0..1")


def load_any(path: Path, overrides: Mapping[str, str] | None = None) -> Any:
    """Read a task's YAML as the dataclass that its ``task:`` key names.

    Raises:
        ConfigError: unreadable, unknown task, or a key that the task does not have.
    """
    from tasks.radnerfs.portrait_config import is_official_config, load_portrait_task

    overrides = overrides or {}
    if is_official_config(path):  # GeneFace++'s own keys, task_cls among them
        return load_portrait_task(path, overrides)
    task = read_mapping(path, overrides).get("task")
    if task == "portrait_training":
        return load_portrait_task(path, overrides)
    if task == "radnerf":
        return load_config(path, RADNeRFTaskConfig, overrides)
    if task == "audio2motion":
        from tasks.audio2motion.configs import AudioToMotionTaskConfig

        return load_config(path, AudioToMotionTaskConfig, overrides)
    if task == "postnet":
        from tasks.postnet.configs import PostNetTaskConfig

        return load_config(path, PostNetTaskConfig, overrides)
    if task == "evaluation":
        return load_config(path, EvaluationConfig, overrides)
    raise ConfigError(f"{path}: task is {task!r}; use radnerf, portrait_training, audio2motion, postnet or evaluation")
