"""pick_device: auto may fall back, a device named explicitly must not."""

import logging

import pytest
import torch

from modules.commons.device import pick_device
from modules.commons.errors import BackendUnavailableError


def test_cpu_is_always_there(caplog):
    with caplog.at_level(logging.INFO):
        assert pick_device("cpu") == torch.device("cpu")
    assert "device: cpu" in caplog.text


def test_auto_falls_back_and_cuda_does_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
    with pytest.raises(BackendUnavailableError, match="device cuda was asked for, but"):
        pick_device("cuda")


def test_auto_takes_cuda_when_it_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "test GPU")
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda", 1)


def test_unknown_name():
    with pytest.raises(BackendUnavailableError, match="'tpu' is unknown; use auto, cpu or cuda"):
        pick_device("tpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
def test_a_real_gpu_is_picked():
    assert pick_device("auto").type == "cuda"
