"""LPIPS: how different two pictures look to a network that learned to see (Zhang et al. 2018), AlexNet or VGG-16."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modules.commons.errors import BackendUnavailableError, CheckpointError, first_line

Network = Literal["alex", "vgg"]
ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
VGG_FILE = "vgg16-397923af.pth"
LPIPS_LEAST_PX = 64
"""AlexNet's last layers see a sixteenth of the resolution: below this nearly all of it is border."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""Mean and deviation of the pictures AlexNet was trained on, for values in -1..1."""
_TINY = 1e-8
_REMEDY = "fetch it with: bash scripts/download_models.sh lpips"
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)

Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A network: its name in torchvision, its public file of weights, and the rectifiers whose outputs are compared."""

    builder: str
    title: str
    file: str
    taps: tuple[int, ...]


_KINDS: dict[Network, _Kind] = {
    "alex": _Kind("alexnet", "AlexNet", ALEXNET_FILE, (1, 4, 7, 9, 11)),
    "vgg": _Kind("vgg16", "VGG-16", VGG_FILE, (3, 8, 15, 22, 29)),
}


@dataclass(frozen=True, slots=True, eq=False)
class Lpips:
    """The network.

    Attributes:
        features: the network's convolutional stack, frozen.
        linear: per tapped layer the learned weight of its channels, float32 ``[1, C, 1, 1]``, >= 0.
        taps: places of the compared rectifiers in the stack.
    """

    features: nn.Sequential
    linear: tuple[Tensor, ...]
    taps: tuple[int, ...]

    def distance(
        self, image: NDArray[np.uint8], target: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None,
        window: Window | None = None,
    ) -> float:  # fmt: skip
        """How different two RGB pictures look: 0 = the same, about 1 = nothing in common.

        Args:
            image: RGB ``[H, W, 3]``.
            target: the same shape.
            mask: bool ``[H, W]``; outside it the target's own pixels are taken, so that only masked pixels count.
            window: half-open x0, y0, x1, y1 inside the picture that the network is shown; None is all of it.

        Returns:
            The mean over the window; NaN when one of its sides is below 64 px or the mask is empty.

        Raises:
            ValueError: shapes differ.
        """
        if image.shape != target.shape or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"two RGB pictures of one size are needed, got {image.shape} and {target.shape}")
        x0, y0, x1, y1 = window or (0, 0, image.shape[1], image.shape[0])
        if min(x1 - x0, y1 - y0) < LPIPS_LEAST_PX or (mask is not None and not mask.any()):
            return float("nan")
        shown, wanted = image[y0:y1, x0:x1], target[y0:y1, x0:x1]
        if mask is not None:
            shown = np.where(mask[y0:y1, x0:x1, None], shown, wanted)
        return 0.0 if np.array_equal(shown, wanted) else self._compare(np.stack([shown, wanted]))

    @torch.inference_mode()
    def _compare(self, pair: NDArray[np.uint8]) -> float:
        """LPIPS of ``[2, h, w, 3]``."""
        planes = torch.from_numpy(pair.transpose(0, 3, 1, 2)).to(self.linear[0].device).float() / 255
        return float(self.distances(planes[:1], planes[1:])[0])

    def distances(self, first: Tensor, second: Tensor) -> Tensor:
        """LPIPS of pairs ``[B, 3, h, w]`` in 0..1 on the network's device: ``[B]``, float32, differentiable.

        Squared difference of unit channel vectors, weighted, averaged over the picture, summed over the layers.
        Layers that a small picture leaves nothing of are not reached.
        """
        with torch.autocast(first.device.type, enabled=False):
            channels = (torch.cat([first, second]).float() * 2 - 1).unbind(dim=1)
            # numbers, not tensors: nothing is copied to the device, so a CUDA graph can hold this
            scaled = [(values - a) / b for values, a, b in zip(channels, _SHIFT, _SCALE, strict=True)]
            planes = torch.stack(scaled, dim=1)
            total, linear = planes.new_zeros(len(first)), iter(self.linear)
            for place, layer in enumerate(list(self.features)[: self.taps[-1] + 1]):
                if isinstance(layer, nn.MaxPool2d) and min(planes.shape[2:]) < 3:
                    break
                planes = layer(planes)
                if place in self.taps:
                    unit = planes / (planes.square().sum(dim=1, keepdim=True) + _TINY).sqrt()
                    one, other = unit.chunk(2)
                    total = total + ((one - other).square() * next(linear)).sum(dim=1).mean(dim=(1, 2))
        return total


def load_lpips(weights: Path, device: torch.device | str = "cpu", network: Network = "alex") -> Lpips:
    """Build LPIPS from files on disk; nothing is downloaded.

    Args:
        weights: torchvision's public weights of the network (``ALEXNET_FILE``, ``VGG_FILE``).
        device: where the network runs.
        network: which one the weights are of.

    Raises:
        BackendUnavailableError: torchvision cannot be imported, or a file of weights is missing.
        CheckpointError: ``weights`` holds something else.
    """
    kind = _KINDS[network]
    try:
        from torchvision import models

        build = getattr(models, kind.builder)
    except (ImportError, OSError, RuntimeError) as error:  # a build for another torch fails in any of these ways
        raise BackendUnavailableError(
            f"LPIPS needs torchvision, which cannot be imported beside torch {torch.__version__} "
            f"({first_line(error)}); install the torchvision release made for this torch."
        ) from error
    if not weights.is_file():
        raise BackendUnavailableError(
            f"LPIPS needs torchvision's {kind.title} weights, and {weights} is not there; {_REMEDY}."
        )
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        features = build(weights=None).features
    for layer in features:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # a compared output is needed as it is
    _fill(features, weights, kind)
    features.to(device).eval().requires_grad_(False)
    return Lpips(features, tuple(layer.to(device) for layer in _linear_layers(network)), kind.taps)


def _fill(features: nn.Sequential, file: Path, kind: _Kind) -> None:
    """Put the ``features.*`` tensors of a checkpoint into the stack."""
    state = _read_tensors(file, f"{_REMEDY}.")
    prefix = "features."
    own = {name.removeprefix(prefix): value.float() for name, value in state.items() if name.startswith(prefix)}
    try:
        features.load_state_dict(own, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{file}: these are not {kind.title}'s weights ({first_line(error)}); {_REMEDY}."
        ) from error


def _read_tensors(file: Path, remedy: str) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{file}: cannot be read as torch weights ({first_line(error)}); {remedy}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: holds no table of weights; {remedy}")
    return state


def _linear_layers(network: Network) -> tuple[Tensor, ...]:
    """The five learned channel weights, which torchmetrics brings along."""
    package = find_spec("torchmetrics")  # the file only: importing it takes seconds and looks for other packages
    if package is None or package.origin is None:
        raise BackendUnavailableError("LPIPS needs torchmetrics 1.9, which is not installed.")
    file = Path(package.origin).parent / "functional" / "image" / "lpips_models" / f"{network}.pth"
    if not file.is_file():
        raise BackendUnavailableError(f"LPIPS needs {file}, which torchmetrics 1.9 brings along; install it again.")
    state = _read_tensors(file, "install torchmetrics again.")
    return tuple(state[f"lin{layer}.model.1.weight"].float() for layer in range(len(_KINDS[network].taps)))
