"""What square patches around the mouth are compared by: a network that learned to see, or edges and structure.

Colours alone are learnt best as their mean over frames that disagree, which is soft. These terms look at how
neighbouring pixels differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from modules.commons.errors import ConfigError
from modules.commons.workspace import ROOT
from modules.metrics.perceptual import VGG_FILE, load_lpips
from modules.metrics.picture_structure import SSIM_LEAST_PX, ssim_planes
from tasks.configs import LossConfig

log = logging.getLogger(__name__)

PatchLoss = Callable[[Tensor, Tensor], Tensor]
"""Rendered and filmed patches ``[B, 3, s, s]`` in 0..1 to one number, differentiable in the first."""
NETWORK_FILE = ROOT / "checkpoints" / "lpips" / VGG_FILE
"""Public weights; ``scripts/download_models.sh lpips`` puts them there."""
SCALES = 2
"""Gradients are compared at full resolution and at half of it."""


def make_patch_loss(config: LossConfig, device: torch.device, weights: Path = NETWORK_FILE) -> PatchLoss:
    """LPIPS (VGG-16) where its weights are on disk, ``structure_loss`` otherwise; the log says which.

    Args:
        config: its ``patch_size`` is checked.
        device: where patches are compared.
        weights: torchvision's public VGG-16 weights.

    Raises:
        ConfigError: patches are smaller than SSIM's window.
        BackendUnavailableError: the weights are there and torchvision is not.
        CheckpointError: the file holds something else.
    """
    if config.patch_size < SSIM_LEAST_PX:
        raise ConfigError(f"loss.patch_size is {config.patch_size}, patches need {SSIM_LEAST_PX} px; set a larger one")
    if not weights.is_file():
        log.info("patches are compared by edges and structure (no %s)", weights)
        return structure_loss
    network = load_lpips(weights, device, "vgg")
    log.info("patches are compared by LPIPS (%s)", weights)
    return lambda rendered, target: network.distances(rendered, target).mean()


def structure_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """Half of one minus SSIM, and the mean absolute difference of the gradients; float32 also below autocast.

    Args:
        rendered: ``[B, 3, s, s]`` in 0..1, differentiable; ``s`` at least 11.
        target: the same shape.

    Returns:
        A number: 0 where the patches are equal.
    """
    with torch.autocast(rendered.device.type, enabled=False):
        first, second = rendered.float(), target.float()
        return (1 - ssim_planes(first, second)[0].mean()) / 2 + gradient_loss(first, second)


def gradient_loss(rendered: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of horizontal and vertical differences of ``[B, 3, s, s]``, over ``SCALES`` scales."""
    error, total = rendered - target, rendered.new_zeros(())
    for scale in range(SCALES):
        level = functional.avg_pool2d(error, 2**scale) if scale else error
        total = total + level.diff(dim=-1).abs().mean() + level.diff(dim=-2).abs().mean()
    return total / SCALES
