"""Which backend runs where: ``auto`` never fails and leaves Triton alone without CUDA; what cannot run says so."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from modules.commons.errors import BackendUnavailableError
from modules.commons.workspace import ROOT
from modules.radnerfs import backends
from modules.radnerfs.backends import get_backend

FIELD_ON_THE_CPU = """
import sys
import torch
sys.modules["triton"] = None  # importing it would fail
from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import RADNeRFConfig, RenderConfig
from modules.radnerfs.radnerf import RADNeRF
field = RADNeRF(RADNeRFConfig(individual_embedding_num=1), get_backend("auto", "cpu"))
assert field.backend.name == "torch"
field.position_embedder(torch.rand(4, 3))
del sys.modules["triton"]
found = [name for name in sys.modules if name.split(".")[0] == "triton" or "triton_kernels" in name]
assert not found, found
"""


def test_auto_on_a_cpu_never_touches_triton():
    run = subprocess.run(
        [sys.executable, "-c", FIELD_ON_THE_CPU], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_backends_by_name(caplog):
    backends._backend.cache_clear()
    with caplog.at_level(logging.INFO):
        assert get_backend("auto") is get_backend("auto", "cpu") is get_backend("torch", torch.device("cpu"))
    assert [record.message for record in caplog.records] == ["render backend: torch"]
    with pytest.raises(BackendUnavailableError, match="unknown"):
        get_backend("cuda")


def test_triton_asked_for_on_a_cpu_is_refused():
    with pytest.raises(BackendUnavailableError, match="needs an NVIDIA GPU"):
        get_backend("triton", "cpu")


def test_triton_asked_for_where_it_is_missing_is_refused(monkeypatch):
    backends._backend.cache_clear()
    monkeypatch.setattr(backends.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendUnavailableError, match="not installed"):
        get_backend("triton", "cuda")
    assert get_backend("auto", "cuda").name == "torch"
    backends._backend.cache_clear()


@pytest.mark.gpu
def test_auto_takes_triton_on_cuda():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert get_backend("auto", "cuda").name == get_backend("triton", torch.device("cuda", 0)).name == "triton"
