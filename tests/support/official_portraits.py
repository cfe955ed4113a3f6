"""Small portraits and datasets in GeneFace++'s own file formats, made here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from modules.radnerfs.config import (
    GridConfig,
    PortraitConfig,
    RADNeRFConfig,
    RenderConfig,
    SuperResolutionConfig,
    TorsoConfig,
)
from modules.radnerfs.official import KIND_OF_TASK
from modules.radnerfs.portrait import Portrait, official_names
from modules.structures.cameras import camera_pose, dataset_translation

SIDE = 16
GRID = GridConfig(desired_resolution=64, log2_table_size=8)
HPARAMS = {
    "task_cls": "", "video_id": "May", "cond_win_size": 1, "max_steps": 16, "dt_gamma": 0.00390625, "min_near": 0.05,
    "density_thresh": 10, "density_thresh_torso": 0.01, "torso_shrink": 0.8, "bound": 1, "camera_scale": 4.0,
    "camera_offset": [0, 0, 0], "grid_type": "tiledgrid", "grid_interpolation_type": "linear", "grid_size": 16,
    "log2_hashmap_size": 8, "desired_resolution": 64, "infer_smooth_camera_path": True,
    "infer_smooth_camera_path_kernel_size": 7, "lr": "5e-4", "gui_h": 512,
}  # fmt: skip


def small_config(kind: str) -> PortraitConfig:
    """Sizes of a small portrait of one of the four kinds."""
    with_sr, with_torso = kind.endswith("_sr"), kind.startswith("torso")
    head = RADNeRFConfig(
        GRID, GRID, hidden_dim_ambient=8, hidden_dim_sigma=8, hidden_dim_color=8, geo_feat_dim=8, cond_out_dim=16,
        smo_win_size=3 if with_sr else 5, eye_blink_dim=(4 if with_torso else 2) if with_sr else 0,
        individual_embedding_num=3, render=RenderConfig(grid_size=16, t_thresh=0.01),
    )  # fmt: skip
    torso = TorsoConfig(
        GRID, "landmarks" if with_sr else "pose", head_aware=with_sr, individual_embedding_num=3, hidden_dim_deform=8,
        hidden_dim_color=8, grid_size=8,
    )  # fmt: skip
    doubled = SuperResolutionConfig(SIDE, (6, 4))
    return PortraitConfig(
        head, torso if with_torso else None, doubled if with_sr else None, adaptive_ambient=kind == "head_sr"
    )


def small_portrait(kind: str, seed: int = 0) -> Portrait:
    """A portrait with random weights whose head and torso are there everywhere, and visibly so."""
    torch.manual_seed(seed)
    portrait = Portrait(small_config(kind)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in portrait.named_parameters():
            if name.endswith("embeddings"):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    portrait.head.density_grid.fill_(20.0)
    portrait.head.density_bitfield.fill_(255)
    if portrait.torso is not None:
        portrait.torso.density_grid_torso.fill_(0.5)
    return portrait


def hparams_of(kind: str) -> dict[str, Any]:
    """The keys of GeneFace++'s ``config.yaml`` of a small portrait."""
    (task_cls,) = (name for name, of in KIND_OF_TASK.items() if of == kind)
    return {**HPARAMS, "task_cls": task_cls}


def write_official(
    folder: Path, state: dict[str, torch.Tensor], hparams: dict[str, Any], *, step: int = 250000, legacy: bool = True
) -> Path:
    """A run's folder as GeneFace++ leaves it; returns the checkpoint file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"model_ckpt_steps_{step}.ckpt"
    saved = {
        "epoch": 3,
        "global_step": step,
        "checkpoint_callback_best": np.inf,
        "optimizer_states": [{"state": {0: {"step": torch.tensor(3.0), "lr": np.float64(1e-4)}}}],
        "state_dict": {"model": state},
    }
    torch.save(saved, file, _use_new_zipfile_serialization=not legacy)
    (folder / "config.yaml").write_text(yaml.safe_dump(hparams))
    return file


def write_small_portrait(folder: Path, kind: str, *, legacy: bool = True, data_root: Path | None = None) -> Portrait:
    portrait, hparams = small_portrait(kind), hparams_of(kind)
    if data_root is not None:
        hparams["binary_data_dir"] = str(data_root / "binary" / "videos")
    write_official(folder, official_names(portrait.state_dict()), hparams, legacy=legacy)
    return portrait


def official_dataset(n_frames: int = 22, side: int = 16, seed: int = 0) -> dict[str, Any]:
    """What ``trainval_dataset.npy`` of a clip holds."""
    rng = np.random.default_rng(seed)
    euler = rng.normal(0, 0.1, (n_frames, 3)).astype(np.float32)
    fitted = rng.normal(0, 0.3, (n_frames, 3)).astype(np.float32)
    poses = camera_pose(euler, fitted)
    samples = [
        {
            "idx": index,
            "head_img_fname": f"data/processed/videos/May/head_imgs/{index:08d}.png",
            "torso_img_fname": f"data/processed/videos/May/inpaint_torso_imgs/{index:08d}.png",
            "gt_img_fname": f"data/processed/videos/May/com_imgs/{index:08d}.jpg",
            "face_rect": np.array([2, 10, 3, 12]),
            "lip_rect": [4, 8, 7, 11],
            "c2w": poses[index],
        }
        for index in range(n_frames)
    ]
    n_train = n_frames // 11 * 10
    return {
        "bg_img": rng.integers(0, 256, (side, side, 3), dtype=np.uint8),
        "H": side,
        "W": side,
        "focal": np.float64(1015.0),
        "cx": 112.0,
        "cy": 112.0,
        "eye_area_percent": rng.uniform(0.1, 0.6, n_frames).astype(np.float32),
        "id": rng.normal(size=(1, 80)).astype(np.float32),
        "exp": rng.normal(size=(n_frames, 64)).astype(np.float32),
        "euler": euler,
        "trans": dataset_translation(fitted),
        "idexp_lm3d": rng.normal(size=(n_frames, 204)).astype(np.float32),
        "idexp_lm3d_mean": np.zeros(204, np.float32),
        "idexp_lm3d_std": np.ones(204, np.float32),
        "hubert": rng.normal(size=(2 * n_frames, 1024)).astype(np.float32),
        "mel": rng.normal(size=(2 * n_frames, 80)).astype(np.float32),
        "f0": rng.uniform(0, 200, 2 * n_frames).astype(np.float32),
        "train_samples": samples[:n_train],
        "val_samples": samples[n_train:],
    }
