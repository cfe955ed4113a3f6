"""Configurations of heads that train in seconds on the synthetic speaker's clip."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from tasks.configs import RADNeRFTaskConfig

GRID = GridConfig(n_levels=6, desired_resolution=256, log2_table_size=14, grid_type="hash")
SMALL = RADNeRFConfig(
    position_grid=GRID, ambient_grid=replace(GRID, n_levels=3, desired_resolution=32), ambient_dim=2,
    hidden_dim_ambient=32, hidden_dim_sigma=32, hidden_dim_color=32, num_layers_ambient=2, num_layers_sigma=2,
    geo_feat_dim=16, cond_out_dim=16, sh_degree=2, individual_embedding_dim=0,
    render=RenderConfig(sampler="surface", n_samples=1),
)  # fmt: skip


def tiny_config(root: Path, **changes) -> RADNeRFTaskConfig:
    """A few steps on ``prepare_synthetic_clip(root)``, on the CPU."""
    settings = {
        "video_id": "clip", "data_root": root, "device": "cpu", "max_updates": 6, "rays_per_step": 256,
        "state_interval": 3, "val_interval": 0, "val_images": 0, "log_interval": 2, "radnerf": SMALL,
    }  # fmt: skip
    return RADNeRFTaskConfig(**(settings | changes))
