"""Several processes train one person: the same weights in each, and as good as one process with all their rays."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from modules.commons.checkpoint import load_checkpoint
from modules.commons.errors import GeneFaceError
from modules.commons.workspace import ROOT
from tasks import distributed
from tasks.distributed import Ranks, joined
from tests.support.synthetic_clip import prepare_synthetic_clip

STEPS = 60
RAYS = 1024


def test_alone_nothing_is_exchanged():
    with joined("cpu") as ranks:
        value = torch.tensor([3.0])
        ranks.average([value])
        ranks.check_same([value], "now")
        ranks.wait()
        assert ranks == Ranks(0, 1) and ranks.is_first
        assert float(ranks.total(value)) == 3.0 and ranks.agreed(True, torch.device("cpu"))


def test_weights_that_drifted_apart_are_an_error(monkeypatch):
    def reduced(tensor, op):
        tensor.add_(0.5 if op == distributed.distributed.ReduceOp.MAX else 0.0)

    monkeypatch.setattr(distributed.distributed, "all_reduce", reduced)
    with pytest.raises(GeneFaceError, match=r"weights differ by 0\.5 after training"):
        Ranks(0, 2).check_same([torch.zeros(3)], "after training")


def start(count: int, *arguments: object) -> None:
    """Run ``train_in_ranks`` in ``count`` processes of this machine."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"]
    script = ["tests/support/train_in_ranks.py", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *script], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_two_processes_hold_the_same_weights_and_learn_as_one_does(tmp_path, device):
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two NVIDIA GPUs")
    prepare_synthetic_clip(tmp_path / "data")
    for name in ("two", "one"):
        (tmp_path / name).mkdir()
    start(2, tmp_path / "data", tmp_path / "two", STEPS, RAYS // 2, device)
    start(2, tmp_path / "data", tmp_path / "two", 4, 0, device)
    start(1, tmp_path / "data", tmp_path / "one", STEPS, RAYS, device)
    first, second = (torch.load(tmp_path / "two" / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = torch.load(tmp_path / "one" / "rank0.pt", weights_only=True)
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    assert not torch.equal(first["drawn"], second["drawn"]), "each process draws rays of its own"
    assert first["psnr"] == pytest.approx(second["psnr"], abs=1e-3)
    assert first["psnr"] > alone["psnr"] - 0.5
    assert load_checkpoint(tmp_path / "two" / "person").step == 4
