"""Training of GeneFace++'s portraits: its configuration, also in GeneFace++'s own keys."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from modules.commons.config import load_config
from modules.commons.device import DeviceName
from modules.commons.errors import ConfigError
from modules.commons.official_checkpoint import read_official_hparams
from modules.radnerfs.backends import BackendName
from modules.radnerfs.config import (
    PortraitConfig,
    RADNeRFConfig,
    RenderConfig,
    SuperResolutionConfig,
    TorsoConfig,
)
from modules.radnerfs.official import (
    KIND_OF_TASK,
    data_root_of_hparams,
    grid_of_hparams,
    is_portrait,
    number,
    offset_of_hparams,
)

log = logging.getLogger(__name__)

DONE_ELSEWHERE = frozenset((
    "accumulate_grad_batches", "ambient_loss_mode", "amp", "base_config", "clip_grad_norm", "clip_grad_value",
    "cond_dropout_rate", "cond_type", "cuda_ray", "debug", "dual_fm", "eval_max_batches", "exp_name", "far",
    "finetune_lips", "gui_fovy", "gui_h", "gui_max_spp", "gui_radius", "gui_w", "infer", "infer_audio_source_name",
    "infer_c2w_name", "infer_cond_name", "infer_lm3d_clamp_std", "infer_lm3d_lle_percent",
    "infer_lm3d_smooth_sigma", "infer_out_video_name", "infer_scale_factor", "infer_smo_std",
    "init_method", "lambda_dual_fm",
    "lambda_lap_ambient_loss", "load_ckpt", "load_imgs_to_memory", "lpips_mode", "max_ray_batch", "near",
    "nerf_keypoint_mode", "not_save_modules", "num_ckpt_keep", "num_sanity_val_steps", "num_steps",
    "num_train_samples", "num_updates", "num_valid_plots", "optimizer_adam_beta1", "optimizer_adam_beta2",
    "polygon_face_mask", "print_nan_grads", "processed_data_dir", "raw_data_dir", "resume_from_checkpoint",
    "save_best", "save_codes", "save_gt", "scheduler", "smooth_lips", "sr_start_iters", "start_rank",
    "tb_log_interval", "torso_train_mode", "upsample_steps", "use_mp_pose", "use_window_cond", "val_check_interval",
    "valid_infer_interval", "valid_monitor_key", "valid_monitor_mode", "validate", "warmup_updates", "weight_decay",
    "work_dir", "world_size", "zero_dummy",
))  # fmt: skip
"""Keys of GeneFace++ that change nothing here: unused there, decided by the command line, or built in."""
BUILT_IN: Mapping[str, Any] = {
    "accumulate_grad_batches": 1, "ambient_loss_mode": "mae", "clip_grad_norm": 0, "clip_grad_value": 0,
    "cond_dropout_rate": 0, "cond_type": "idexp_lm3d_normalized", "finetune_lips": True, "lambda_dual_fm": 0,
    "lambda_lap_ambient_loss": 0, "nerf_keypoint_mode": "lm68", "num_train_samples": 0, "optimizer_adam_beta1": 0.9,
    "optimizer_adam_beta2": 0.999, "polygon_face_mask": True, "sr_start_iters": 0, "torso_train_mode": 1,
    "use_mp_pose": False, "warmup_updates": 0,
}  # fmt: skip
"""Those of them that would change something there, with the value that always holds here: GeneFace++'s own."""


@dataclass(frozen=True, slots=True)
class PortraitTaskConfig:
    """Training of a portrait, one frame a step; with a torso, only torso (and its codes) is trained.

    Attributes:
        video_id: the clip, ``<data_root>/binary/videos/<video_id>/portrait_dataset.npz`` (or GeneFace++'s own file).
        data_root: relative paths lie below the repository; pictures are named relative to the folder above it.
        head_ckpt: the trained head that a torso goes with; its sizes are those of the checkpoint.
        portrait: sizes. With a torso those of the head and of super-resolution come from ``head_ckpt``.
        max_updates: steps. n_rays: rays of a step without super-resolution, which renders whole frames.
        occupancy_interval: steps between updates of the occupancy grid.
        lips_share: share of a head's losses of colour that goes to the box around the lips, beside its share of the
            picture; 0 = as GeneFace++, which has hours for what moves in a twentieth of the picture.
        carving_frames: training frames whose heads tell from the start where the grid is empty; 0 = as GeneFace++.
        lr: of the networks; grids learn ten times as fast, the attention five times. Falls to a tenth over
            ``max_updates``, at least ``lowest_lr``.
        entropy_weight: of ``opacity_entropy``. torso_shift_weight: of how far the torso bends, from step
            ``torso_shift_start`` on.
        ambient_weight: of ``ambient_loss``, reached at the last step; with ``adaptive_ambient`` in the portrait it is
            driven to ``target_ambient`` at ``ambient_rate`` instead.
        perceptual_weight: of ``perceptual``'s loss on pictures; 0 leaves it out (GeneFace++ has 0.01 of LPIPS, 0.001
            with super-resolution, by networks that are not shipped).
        fine_start: from here on pictures are compared (perceptual loss), every other step without super-resolution is
            on the lips alone, and the head's occupancy stays as it is.
        save_interval: steps between checkpoints; 0 writes one at the end only.
        smooth_camera_path, camera_kernel, background: how the portrait is shown, see ``ImportedPortraitConfig``.
    """

    task: Literal["portrait_training"] = "portrait_training"
    video_id: str = ""
    data_root: Path = Path("data")
    head_ckpt: str = ""
    portrait: PortraitConfig = field(default_factory=PortraitConfig)
    device: DeviceName = "auto"
    backend: BackendName = "auto"
    seed: int = 9999
    max_updates: int = 250000
    n_rays: int = 65536
    occupancy_interval: int = 16
    lips_share: float = 0.0
    carving_frames: int = 0
    lr: float = 5e-4
    lowest_lr: float = 1e-5
    entropy_weight: float = 1e-4
    ambient_weight: float = 1.0
    target_ambient: float = 1e-8
    ambient_rate: float = 0.01
    torso_shift_weight: float = 0.0
    torso_shift_start: int = 100000
    perceptual_weight: float = 0.0
    fine_start: int = 200000
    save_interval: int = 2000
    smooth_camera_path: bool = True
    camera_kernel: int = 7
    background: str = ""

    def __post_init__(self) -> None:
        if min(self.max_updates, self.n_rays, self.occupancy_interval) < 1 or not self.lr > 0:
            raise ValueError("needs max_updates, n_rays, occupancy_interval >= 1 and lr > 0")
        if self.carving_frames < 0 or not 0 <= self.lips_share < 1:
            raise ValueError("needs carving_frames >= 0 and lips_share in 0..1, less than 1")


def is_portrait_run(directory: Path) -> bool:
    """Whether a folder holds a portrait's checkpoint."""
    return directory.is_dir() and is_portrait(directory)


def is_official_config(path: Path) -> bool:
    """Whether a YAML is in GeneFace++'s keys: it names a ``task_cls``."""
    try:
        return "task_cls" in read_official_hparams(path)
    except ConfigError:
        return False  # whoever reads it as one of ours says what is wrong


def load_official_config(path: Path, overrides: Mapping[str, str]) -> PortraitTaskConfig:
    """A YAML of GeneFace++'s (``egs/datasets/<id>/*.yaml``) as this project's configuration.

    Args:
        path: with its own parents below it.
        overrides: of its flat keys, the texts read as YAML.

    Raises:
        ConfigError: an unknown ``task_cls`` or key, or a value of another type.
    """
    hparams = read_official_hparams(path)
    for key, text in overrides.items():
        try:
            hparams[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"override {key}={text}: not readable as YAML") from error
    try:
        return task_of_hparams(hparams)
    except (ValueError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error


def task_of_hparams(hparams: Mapping[str, Any]) -> PortraitTaskConfig:
    """GeneFace++'s flat keys as a configuration.

    Raises:
        ConfigError, ValueError: an unknown ``task_cls`` or key, or a value of another type.
    """
    read = _Reader(hparams)
    kind = KIND_OF_TASK.get(str(hparams.get("task_cls")))
    if kind is None:
        raise ConfigError(f"task_cls is {hparams.get('task_cls')!r}; use one of {', '.join(KIND_OF_TASK)}")
    portrait = _portrait(read, kind)
    task = PortraitTaskConfig(
        video_id=read.text("video_id"),
        data_root=data_root_of_hparams(read.taken("binary_data_dir")),
        head_ckpt=read.text("head_model_dir"),
        portrait=portrait,
        seed=read.whole("seed", 9999),
        max_updates=read.whole("max_updates", 250000),
        n_rays=read.whole("n_rays", 65536),
        occupancy_interval=read.whole("update_extra_interval", 16),
        lr=read.number("lr", 5e-4),
        entropy_weight=read.number("lambda_weights_entropy", 1e-4),
        ambient_weight=read.number("lambda_ambient", 1.0),
        target_ambient=read.number("target_ambient_loss", 1e-8),
        ambient_rate=read.number("lr_lambda_ambient", 0.01),
        torso_shift_weight=read.number("lambda_torso_deform", 0.0),
        perceptual_weight=read.number("lambda_lpips_loss", 0.0),
        fine_start=read.whole("finetune_lips_start_iter", read.whole("lpips_start_iters", 200000)),
        smooth_camera_path=read.flag("infer_smooth_camera_path", True),
        camera_kernel=read.whole("infer_smooth_camera_path_kernel_size", 7),
        background=read.text("infer_bg_img_fname"),
    )
    read.refuse_unknown()
    if portrait.torso is not None and not task.head_ckpt:
        raise ConfigError("a torso is trained onto a trained head; name it with head_model_dir")
    read.warn_of_built_in()
    return task


def _portrait(read: _Reader, kind: str) -> PortraitConfig:
    with_sr, with_torso = kind.endswith("_sr"), kind.startswith("torso")
    grid = grid_of_hparams(
        read.taken("grid_type", "grid_interpolation_type", "desired_resolution", "log2_hashmap_size")
    )
    read.taken("with_sr", "task_cls")
    eyes = read.whole("eye_blink_dim", 2) if read.flag("add_eye_blink_cond", False) else 0
    n_codes = read.whole("individual_embedding_num", 13000)
    head = RADNeRFConfig(
        position_grid=grid,
        ambient_grid=grid,
        ambient_dim=read.whole("ambient_coord_dim", 3),
        hidden_dim_ambient=read.whole("hidden_dim_ambient", 128),
        hidden_dim_sigma=read.whole("hidden_dim_sigma", 128),
        hidden_dim_color=read.whole("hidden_dim_color", 128),
        num_layers_ambient=read.whole("num_layers_ambient", 3),
        num_layers_sigma=read.whole("num_layers_sigma", 3),
        num_layers_color=read.whole("num_layers_color", 2),
        geo_feat_dim=read.whole("geo_feat_dim", 128),
        cond_out_dim=read.whole("cond_out_dim", 64),
        cond_win_size=read.whole("cond_win_size", 1),
        smo_win_size=read.whole("smo_win_size", 5),
        with_att=read.flag("with_att", True),
        eye_blink_dim=eyes,
        individual_embedding_num=n_codes,
        individual_embedding_dim=read.whole("individual_embedding_dim", 4),
        bound=read.number("bound", 1.0),
        render=RenderConfig(
            max_steps=read.whole("max_steps", 16),
            dt_gamma=read.number("dt_gamma", 1 / 256),
            t_thresh=0.01,
            min_near=read.number("min_near", 0.05),
            density_thresh=read.number("density_thresh", 10.0),
            grid_size=read.whole("grid_size", 128),
        ),
    )
    torso = TorsoConfig(
        grid=grid,
        cue="landmarks" if with_sr else "pose",
        head_aware=read.flag("torso_head_aware", False),
        individual_embedding_num=n_codes,
        individual_embedding_dim=read.whole("torso_individual_embedding_dim", 8),
        shrink=read.number("torso_shrink", 0.8),
        density_thresh=read.number("density_thresh_torso", 0.01),
    )
    return PortraitConfig(
        head=head,
        torso=torso if with_torso else None,
        super_resolution=SuperResolutionConfig() if with_sr else None,
        adaptive_ambient=kind == "head_sr",
        camera_scale=read.number("camera_scale", 4.0),
        camera_offset=offset_of_hparams(read.taken("camera_offset")),
    )


class _Reader:
    """Flat keys, each of which is either read, known to do nothing here, or refused."""

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        self._hparams = hparams
        self._read: set[str] = set()

    def taken(self, *keys: str) -> dict[str, Any]:
        """These keys, as far as they are there, for somebody else to read."""
        self._read.update(keys)
        return {key: self._hparams[key] for key in keys if key in self._hparams}

    def _value(self, key: str, default: Any) -> Any:
        value = self.taken(key).get(key)
        return default if value is None else value

    def text(self, key: str, default: str = "") -> str:
        return str(self._value(key, default))

    def number(self, key: str, default: float) -> float:
        return number({key: self._value(key, default)}, key, default)

    def whole(self, key: str, default: int) -> int:
        value = self.number(key, default)
        if value != int(value):
            raise ConfigError(f"{key} must be a whole number, got {value}")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise ConfigError(f"{key} must be true or false, got {value!r}")
        return value

    def warn_of_built_in(self) -> None:
        """Say so where a key asks for what cannot be had: nobody would see that it is not read."""
        for key, held in BUILT_IN.items():
            asked = self._hparams.get(key)
            if asked is not None and asked != held:
                log.warning("%s: %r is asked for, but here it is always %r", key, asked, held)

    def refuse_unknown(self) -> None:
        """Every key must have been read, or be known to do nothing.

        Raises:
            ConfigError: one is neither; the message proposes the nearest.
        """
        known = self._read | DONE_ELSEWHERE
        for key in self._hparams:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                raise ConfigError(f"unknown key {key}" + (f"; did you mean {close[0]}?" if close else ""))


def load_portrait_task(path: Path, overrides: Mapping[str, str]) -> PortraitTaskConfig:
    """A YAML in either project's keys.

    Raises:
        ConfigError: unreadable, or a key or value that is wrong.
    """
    if is_official_config(path):
        return load_official_config(path, overrides)
    return load_config(path, PortraitTaskConfig, overrides)
