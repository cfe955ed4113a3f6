"""Several processes train audio → motion: the same weights in each, and one checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from modules.commons.checkpoint import load_checkpoint
from modules.commons.workspace import FACE_MODEL_FILE, ROOT
from modules.face_model.model import FaceModel
from tests.support.talking_clips import talking_clip


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_two_processes_hold_the_same_weights(tmp_path, device):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two NVIDIA GPUs")
    clips, face_model = tmp_path / "clips", FaceModel.load(FACE_MODEL_FILE)
    clips.mkdir()
    for seed in range(4):
        talking_clip(face_model, seed).save(clips / f"{seed}.npz")
    for way, count in (("fit", 2), ("fit", 1), ("train", 2)):
        out = tmp_path / f"{way}{count}"
        out.mkdir()
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
        script = ["tests/support/train_speech_in_ranks.py", way, str(clips), str(out), device]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *launcher, *script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert load_checkpoint(tmp_path / "train2" / "audio2motion").extra["n_speakers"] == 3
    first, second = (torch.load(tmp_path / "fit2" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = torch.load(tmp_path / "fit1" / "rank0.pt", weights_only=True)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=0)
    assert any(not torch.equal(alone[name], value) for name, value in first.items()), "each draws windows of its own"
