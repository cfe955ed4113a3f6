"""Render backends: one interface, chosen by name and device."""

from __future__ import annotations

import functools
import importlib.util
import logging
from typing import Literal

import torch

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.backends.torch_reference import TorchReference

logger = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "triton"]


def get_backend(name: str = "auto", device: torch.device | str = "cpu") -> RenderBackend:
    """The render backend of that name for tensors of ``device``.

    ``auto`` takes Triton on CUDA where it is installed and plain torch elsewhere, says so in the log once, and never
    fails; on a machine without CUDA it never touches Triton.

    Raises:
        BackendUnavailableError: a backend named explicitly cannot run here, or the name is unknown.
    """
    return _backend(name, torch.device(device).type)


@functools.cache
def _backend(name: str, device_type: str) -> RenderBackend:
    if name == "auto":
        chosen = "triton" if device_type == "cuda" and importlib.util.find_spec("triton") else "torch"
        logger.info("render backend: %s", chosen)
        return _backend(chosen, device_type)
    if name == "torch":
        return TorchReference()
    if name == "triton":
        if device_type != "cuda":
            raise BackendUnavailableError(
                f"render backend triton was asked for on {device_type}; it needs an NVIDIA GPU: use torch or auto."
            )
        if importlib.util.find_spec("triton") is None:
            raise BackendUnavailableError(
                "render backend triton was asked for, but triton is not installed; use torch."
            )
        from modules.radnerfs.backends.triton_kernels.backend import TritonBackend

        return TritonBackend()
    raise BackendUnavailableError(f"render backend {name!r} is unknown; use auto, torch or triton.")
