"""Render backends: one interface, chosen by name."""

from __future__ import annotations

import functools
import logging
from typing import Literal

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.backends.torch_reference import TorchReference

logger = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "triton"]


@functools.cache
def get_backend(name: str = "auto") -> RenderBackend:
    """The render backend of that name; ``auto`` picks one, says so in the log once, and never fails.

    Raises:
        BackendUnavailableError: a backend named explicitly cannot run here, or the name is unknown.
    """
    if name == "auto":
        logger.info("render backend: torch")
        return get_backend("torch")
    if name == "torch":
        return TorchReference()
    if name == "triton":
        raise BackendUnavailableError(
            "render backend triton was asked for, but this version has none; use torch or auto."
        )
    raise BackendUnavailableError(f"render backend {name!r} is unknown; use auto, torch or triton.")
