"""GeneFace++'s optimiser of portraits: Adam, its groups, and a rate that falls to a tenth."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modules.radnerfs.portrait import Portrait
from tasks.radnerfs.portrait_config import PortraitTaskConfig

GRID_LR, ATTENTION_LR = 10.0, 5.0


class PortraitOptimizer:
    """Adam over what of a portrait is trained."""

    def __init__(self, portrait: Portrait, config: PortraitTaskConfig) -> None:
        self._config = config
        self._adam = torch.optim.Adam(parameter_groups(portrait, config.lr), betas=(0.9, 0.999), eps=1e-15)
        self._rates = [group["lr"] for group in self._adam.param_groups]

    def update(self, loss: Tensor, step: int) -> None:
        """One step down a loss."""
        self._adam.zero_grad(set_to_none=True)
        loss.backward()
        share = learning_share(step, self._config)
        for group, rate in zip(self._adam.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self._adam.step()

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts by ``<parameter's number>.<name>``."""
        slots = self._adam.state_dict()["state"].items()
        return {f"{index}.{name}": torch.as_tensor(value) for index, slot in slots for name, value in slot.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave.

        Raises:
            KeyError: there is another number of parameters.
            RuntimeError: they have other sizes.
        """
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, slot = name.split(".", 1)
            slots.setdefault(int(index), {})[slot] = value
        parameters = [value for group in self._adam.param_groups for value in group["params"]]
        for index, value in enumerate(parameters):
            if index in slots and slots[index]["exp_avg"].shape != value.shape:
                raise RuntimeError(f"moments of parameter {index} are {tuple(slots[index]['exp_avg'].shape)}")
        self._adam.load_state_dict({**self._adam.state_dict(), "state": slots})


def learning_share(step: int, config: PortraitTaskConfig) -> float:
    """Share of the first learning rate: a tenth of it at the last step, and never below ``lowest_lr``."""
    return max(0.1 ** (step / config.max_updates), min(1.0, config.lowest_lr / config.lr))


def parameter_groups(portrait: Portrait, lr: float) -> list[dict[str, list[nn.Parameter] | float]]:
    """What is trained, in GeneFace++'s groups: networks and codes, grids (10 times the rate), attention (5 times)."""
    groups: dict[float, list[nn.Parameter]] = {1.0: [], GRID_LR: [], ATTENTION_LR: []}
    for name, parameter in portrait.named_parameters():
        if parameter.requires_grad:
            scale = GRID_LR if "_embedder." in name else ATTENTION_LR if "cond_att_net" in name else 1.0
            groups[scale].append(parameter)
    return [{"params": values, "lr": lr * scale} for scale, values in groups.items() if values]
