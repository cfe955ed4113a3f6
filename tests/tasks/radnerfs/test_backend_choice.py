"""Which backend a person gets: training takes the configured one, inference the best one for its device."""

from __future__ import annotations

import pytest
import torch

from modules.commons.checkpoint import save_checkpoint
from modules.commons.errors import BackendUnavailableError
from modules.commons.progress import silent
from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.person import PersonField
from tasks.configs import RADNeRFTaskConfig
from tasks.radnerfs.radnerf import load_person, train
from tests.support.synthetic_clip import prepare_synthetic_clip
from tests.support.tiny_heads import tiny_config


def small_config(backend) -> RADNeRFTaskConfig:
    grid = GridConfig(2, 2, 4, 8, 6)
    field = RADNeRFConfig(grid, grid, individual_embedding_num=1, render=RenderConfig(sampler="surface"))
    return RADNeRFTaskConfig(backend=backend, radnerf=field)


def test_a_person_trained_with_triton_is_rendered_on_a_cpu(tmp_path):
    config = small_config("triton")
    person = PersonField(config.radnerf, 80, 2)
    save_checkpoint(tmp_path / "head", {"model": person.state_dict()}, config, 1, face_model_version="x")
    loaded, saved, _ = load_person(tmp_path / "head", torch.device("cpu"))
    assert saved.backend == "triton"
    assert loaded.radnerf.backend is loaded.radnerf.position_embedder.backend is get_backend("torch")


def test_training_insists_on_the_configured_one(tmp_path):
    prepare_synthetic_clip(tmp_path, n_frames=11)
    with pytest.raises(BackendUnavailableError, match="triton was asked for on cpu"):
        train(tiny_config(tmp_path, backend="triton"), tmp_path / "head", silent)
