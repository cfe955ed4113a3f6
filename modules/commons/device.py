"""Choice of the device, made once and said in the log."""

from __future__ import annotations

import logging
import os
from typing import Literal

import torch

from modules.commons.errors import BackendUnavailableError

logger = logging.getLogger(__name__)

DeviceName = Literal["auto", "cpu", "cuda"]


def pick_device(name: str = "auto") -> torch.device:
    """The torch device for ``auto`` (CUDA when there is one), ``cpu`` or ``cuda``.

    Raises:
        BackendUnavailableError: CUDA was asked for by name and cannot be used, or the name is unknown.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise BackendUnavailableError(f"device {name!r} is unknown; use auto, cpu or cuda.")
    has_cuda = name != "cpu" and torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        reason = "this torch is a CPU build" if torch.version.cuda is None else "torch finds no usable NVIDIA GPU"
        raise BackendUnavailableError(f"device cuda was asked for, but {reason}; use --device cpu or auto.")
    device = torch.device("cuda", torch.cuda.current_device()) if has_cuda else torch.device("cpu")
    detail = torch.cuda.get_device_name(device) if has_cuda else f"{torch.get_num_threads()} threads"
    logger.info("device: %s (%s)", device, detail)
    return device


def usable_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
