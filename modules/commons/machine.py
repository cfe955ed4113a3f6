"""The machine this runs on, as reports say what their figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modules.commons.device import usable_cores


@dataclass(frozen=True, slots=True)
class Machine:
    """What figures were measured on.

    Attributes:
        cpu: model name. cores: that this process may use. torch_threads: of one operation.
        gpu: name, None without one.
        load: processes that wanted to run in the minute before, None where the system does not say.
        system, python, torch, numpy: names and versions.
    """

    cpu: str
    cores: int
    torch_threads: int
    gpu: str | None
    load: float | None
    system: str
    python: str
    torch: str
    numpy: str

    @classmethod
    def here(cls) -> Machine:
        """This one, now."""
        return cls(
            cpu=_cpu_model(),
            cores=usable_cores(),
            torch_threads=torch.get_num_threads(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            system=f"{platform.system()} {platform.machine()}",
            python=platform.python_version(),
            torch=str(torch.__version__),
            numpy=np.__version__,
        )


def _cpu_model() -> str:
    """The processor's name where the system says it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next((name for name in names if name), platform.processor() or platform.machine())
