"""Training on a GPU: the recorded step is the step, and nothing ever becomes NaN."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from inference.benchmark_gpu.training import synthetic_engine
from modules.commons.workspace import EGS
from tasks.configs import RADNeRFTaskConfig, load_any

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs an NVIDIA GPU: the step is a CUDA graph of kernels"
    ),
]
SEEDS = 20
STEPS = 2000


def small(**changes) -> dict[str, object]:
    """The small preset's settings for a synthetic engine."""
    preset = load_any(EGS / "egs_bases" / "radnerf" / "cpu.yaml")
    assert isinstance(preset, RADNeRFTaskConfig)
    radnerf = replace(preset.radnerf, individual_embedding_num=400)
    settings = {"radnerf": radnerf, "loss": preset.loss, "optim": preset.optim, "rays_per_step": 1024}
    return settings | {"rays_per_frame": 32, "max_updates": STEPS} | changes


def test_the_recorded_step_is_the_step():
    device = torch.device("cuda")
    finals = []
    for graph in (True, False):
        engine = synthetic_engine(device, 1, **small(cuda_graph=graph, precision="float32"))
        losses = [float(engine.step()["loss"]) for _ in range(12)]
        finals.append((torch.tensor(losses), engine.optimizer.flat.clone()))
    torch.testing.assert_close(finals[0][0], finals[1][0], atol=2e-3, rtol=0)
    torch.testing.assert_close(finals[0][1].norm(), finals[1][1].norm(), atol=0, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["auto"])
def test_no_seed_ever_gives_nan(precision):
    device = torch.device("cuda")
    broken = []
    for seed in range(SEEDS):
        engine = synthetic_engine(device, 1, **small(seed=seed, precision=precision))
        bad = torch.zeros((), device=device)
        for _ in range(STEPS):
            bad += ~torch.isfinite(engine.step()["loss"])
        if float(bad) or not bool(torch.isfinite(engine.optimizer.flat).all()):
            broken.append(seed)
    assert broken == [], f"{len(broken)} of {SEEDS} seeds"
