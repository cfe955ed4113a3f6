"""Started by torchrun: trains the synthetic clip's person in several processes and writes what each of them holds.

torchrun --nproc_per_node=2 tests/support/train_in_ranks.py DATA_ROOT OUT STEPS RAYS DEVICE

With RAYS 0 it trains through the front door instead, which writes OUT/person.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from modules.commons.device import pick_device
from modules.commons.progress import silent
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.configs import OptimConfig, PlateauConfig
from tasks.distributed import joined
from tasks.radnerfs.plateau import held_out_rays
from tasks.radnerfs.radnerf import RADNeRFTask, load_dataset, train
from tests.support.tiny_heads import tiny_config


def main(root: Path, out: Path, steps: int, rays: int, device_name: str) -> None:
    """Train by hand and keep each process's weights and held-out PSNR, or train through the front door."""
    torch.set_num_threads(1)
    if rays == 0:
        train(replace(tiny_config(root, max_updates=steps), device=device_name), out / "person", silent)
        return
    optim = OptimConfig(lr=0.005, warmup_updates=10)
    config = replace(tiny_config(root, max_updates=steps, rays_per_step=rays, optim=optim), device=device_name)
    with joined(device_name) as ranks:
        dataset = load_dataset(config, FaceModel.load(FACE_MODEL_FILE), silent)
        task = RADNeRFTask(config, dataset, pick_device(device_name), ranks)
        for step in range(steps):
            task.training_step(step)
        held_out = held_out_rays(dataset, PlateauConfig(), task.device)
        assert held_out is not None
        first = task.engine.draw().rgb.flatten()[:8]
        kept = {"weights": task.engine.optimizer.flat.cpu(), "psnr": held_out.psnr(task.engine), "drawn": first.cpu()}
        torch.save(kept, out / f"rank{ranks.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
