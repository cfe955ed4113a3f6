"""What a report says of the machine."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.commons.machine import Machine


def test_this_machine():
    machine = Machine.here()
    assert machine.cpu and machine.system and machine.python.count(".") == 2
    assert machine.cores >= 1 and machine.torch_threads == torch.get_num_threads()
    assert (machine.torch, machine.numpy) == (str(torch.__version__), np.__version__)
    assert (machine.gpu is None) == (not torch.cuda.is_available())


def test_where_the_system_says_nothing(monkeypatch):
    def refuses(*_, **__):
        raise PermissionError

    monkeypatch.setattr(Path, "read_text", refuses)
    monkeypatch.delattr(os, "getloadavg", raising=False)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    machine = Machine.here()
    assert machine.load is None and machine.cpu and machine.cores >= 1


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="this system does not say its load")
def test_load_is_rounded(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.2345, 0.0, 0.0))
    assert Machine.here().load == 1.23
