"""Which devices a video is rendered on."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from modules.commons.device import DeviceName, pick_device
from modules.commons.errors import BackendUnavailableError, ConfigError

logger = logging.getLogger(__name__)

FRAMES_PER_DEVICE = 1000
"""A further GPU must first load the person, which takes as long as some hundred frames."""


def parse_devices(text: str) -> tuple[int, ...]:
    """Numbers of GPUs from ``0,1``.

    Raises:
        ConfigError: that is not what it is, or one is named twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) != len(parts):
        raise ConfigError(f"--devices {text!r}: give the numbers of GPUs such as 0,1, each once")
    return tuple(int(part) for part in parts)


def render_devices(name: DeviceName, numbers: Sequence[int], n_frames: int) -> list[torch.device]:
    """Where the frames of a video are rendered; the first is the main one.

    Args:
        name: the device asked for.
        numbers: of GPUs; none = as many of those there are as the length of the video is worth.
        n_frames: of the video.

    Raises:
        ConfigError: GPUs are named, but not wanted.
        BackendUnavailableError: there is no such GPU.
    """
    picked = pick_device(name)
    if picked.type != "cuda":
        if numbers:
            given = ",".join(str(number) for number in numbers)
            raise ConfigError(f"--devices {given} names GPUs, but --device {name} means the CPU here; leave one out")
        return [picked]
    there = torch.cuda.device_count()
    missing = [number for number in numbers if number >= there]
    if missing:
        raise BackendUnavailableError(f"--devices names GPU {missing[0]}, but there are {there}, numbered from 0")
    chosen = list(numbers) or list(range(min(there, max(n_frames // FRAMES_PER_DEVICE, 1))))
    if len(chosen) > 1:
        logger.info("rendering on GPUs %s", ", ".join(str(number) for number in chosen))
    return [torch.device("cuda", number) for number in chosen]
