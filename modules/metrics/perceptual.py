"""LPIPS: how different two pictures look to a network that learned to see (Zhang et al. 2018), AlexNet version."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modules.commons.errors import BackendUnavailableError, CheckpointError, first_line

ALEXNET_FILE = "alexnet-owt-7be5be79.pth"
ALEXNET_ADDRESS = f"https://download.pytorch.org/models/{ALEXNET_FILE}"
LPIPS_LEAST_PX = 64
"""AlexNet's last layers see a sixteenth of the resolution: below this nearly all of it is border."""
_TAPS = (1, 4, 7, 9, 11)
"""Places of the five rectifiers whose outputs are compared, in AlexNet's stack of layers."""
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""Mean and deviation of the pictures AlexNet was trained on, for values in -1..1."""
_TINY = 1e-8
_UNREADABLE = (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError)

Window = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Lpips:
    """The network.

    Attributes:
        features: AlexNet's convolutional stack, frozen.
        linear: per tapped layer the learned weight of its channels, float32 ``[1, C, 1, 1]``, >= 0.
    """

    features: nn.Sequential
    linear: tuple[Tensor, ...]

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
        """LPIPS of ``[2, h, w, 3]``: squared difference of unit channel vectors, weighted, averaged, summed up."""
        device = self.linear[0].device
        planes = torch.from_numpy(pair.transpose(0, 3, 1, 2)).to(device).float() / 127.5 - 1
        shift, scale = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (_SHIFT, _SCALE))
        planes, total, taps = (planes - shift) / scale, 0.0, iter(self.linear)
        for place, layer in enumerate(self.features):
            planes = layer(planes)
            if place in _TAPS:
                unit = planes / (planes.square().sum(dim=1, keepdim=True) + _TINY).sqrt()
                total += float(((unit[:1] - unit[1:]).square() * next(taps)).sum(dim=1).mean())
        return total


def load_lpips(weights: Path, device: torch.device | str = "cpu") -> Lpips:
    """Build LPIPS-Alex from files on disk; nothing is downloaded.

    Args:
        weights: torchvision's public AlexNet weights (``ALEXNET_FILE``).
        device: where the network runs.

    Raises:
        BackendUnavailableError: torchvision cannot be imported, or a file of weights is missing.
        CheckpointError: ``weights`` holds something else.
    """
    try:
        from torchvision.models import alexnet
    except (ImportError, OSError, RuntimeError) as error:  # a build for another torch fails in any of these ways
        raise BackendUnavailableError(
            f"LPIPS needs torchvision, which cannot be imported beside torch {torch.__version__} "
            f"({first_line(error)}); install the torchvision release made for this torch."
        ) from error
    if not weights.is_file():
        raise BackendUnavailableError(
            f"LPIPS needs torchvision's AlexNet weights, and {weights} is not there; "
            f"fetch {ALEXNET_ADDRESS} and put it there."
        )
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        features = alexnet(weights=None).features
    _fill(features, weights)
    features.to(device).eval().requires_grad_(False)
    return Lpips(features, tuple(layer.to(device) for layer in _linear_layers()))


def _fill(features: nn.Sequential, file: Path) -> None:
    """Put the ``features.*`` tensors of a checkpoint into the stack."""
    state = _read_tensors(file)
    prefix = "features."
    own = {name.removeprefix(prefix): value.float() for name, value in state.items() if name.startswith(prefix)}
    try:
        features.load_state_dict(own, strict=True, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{file}: these are not AlexNet's weights ({first_line(error)}); fetch {ALEXNET_ADDRESS}."
        ) from error


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{file}: cannot be read as torch weights ({first_line(error)}); fetch {ALEXNET_ADDRESS}."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: holds no table of weights; fetch {ALEXNET_ADDRESS}.")
    return state


def _linear_layers() -> tuple[Tensor, ...]:
    """The five learned channel weights, which torchmetrics brings along."""
    file = Path(str(files("torchmetrics.functional.image"))) / "lpips_models" / "alex.pth"
    if not file.is_file():
        raise BackendUnavailableError(f"LPIPS needs {file}, which torchmetrics 1.9 brings along; install it again.")
    state = _read_tensors(file)
    return tuple(state[f"lin{layer}.model.1.weight"].float() for layer in range(len(_TAPS)))
