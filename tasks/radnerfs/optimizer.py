"""Adam with a schedule and a running mean of the weights, none of which needs the host once training runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tasks.configs import OptimConfig

MOMENT_DECAYS = (0.9, 0.99)
ALIGNMENT = 64
"""Parameters start at multiples of this many numbers in their common buffer, as matrix kernels like it."""


class Optimizer:
    """AdamW over a model's parameters, and their running mean.

    The step's number lies on the device and picks the learning rates out of a table, so a step is the same work
    whatever its number, and can be replayed.

    Attributes:
        parameters, average: by name.
        flat: all parameters side by side.

    Args:
        model: moved to its device already; its parameters are laid out anew in one buffer.
        average: a model of the same make, whose parameters become the running mean.
        config: rates and decays.
        max_updates: length of the schedule.
        scaler: of losses in float16; None needs none.
    """

    def __init__(
        self,
        model: nn.Module,
        average: nn.Module,
        config: OptimConfig,
        max_updates: int,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.parameters = dict(model.named_parameters())
        self.average = dict(average.named_parameters())
        self.flat, self._flat_average = flatten(self.parameters), flatten(self.average)
        self._flat_average.copy_(self.flat)
        device = self.flat.device
        groups = parameter_groups(self.parameters, config)
        self._step = torch.zeros(1, dtype=torch.int64, device=device)
        self._table = rate_table(config, [scale for _, scale in groups], max_updates).to(device)
        self._rates = self._table[:1].clone()
        self._scaler = scaler
        self.adam = torch.optim.AdamW(
            [{"params": values, "lr": self._rates[0, number]} for number, (values, _) in enumerate(groups)],
            betas=MOMENT_DECAYS,
            eps=1e-15,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
            capturable=device.type == "cuda",
        )

    def gradients(self) -> list[Tensor]:
        """Of the last backward pass."""
        return [value.grad for value in self.parameters.values() if value.grad is not None]

    def backward(self, loss: Tensor) -> None:
        """New gradients of a loss."""
        self.adam.zero_grad(set_to_none=True)
        (loss if self._scaler is None else self._scaler.scale(loss)).backward()

    def update(self) -> None:
        """One step along the gradients, and the running mean after it; the mean is short at first."""
        torch.index_select(self._table, 0, self._step, out=self._rates)
        if self._scaler is None:
            self.adam.step()
        else:
            self._scaler.step(self.adam)
            self._scaler.update()
        with torch.no_grad():
            self._flat_average.lerp_(self.flat, self._rates[0, -1])
            self._step.add_(1)

    def start_at(self, step: int) -> None:
        """Go on from a step's number."""
        self._step.fill_(step)

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What a resumed run needs: running mean, moments, and the scale of losses."""
        moments = {}
        for index, slot in self.adam.state_dict()["state"].items():
            moments |= {f"{index}.{name}": torch.as_tensor(value) for name, value in slot.items()}
        scale = {} if self._scaler is None else {"scale": torch.tensor(self._scaler.get_scale())}
        return {"average": {**self.average}, "optimizer": moments, "scale": scale}

    def load_state(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take back what ``state`` gave.

        Raises:
            KeyError: a parameter is missing.
            RuntimeError: it belongs to other sizes.
        """
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in groups["optimizer"].items():
            index, slot = name.split(".", 1)
            state.setdefault(int(index), {})[slot] = value
        with torch.no_grad():
            for name, value in self.average.items():
                value.copy_(groups["average"][name])
        self.adam.load_state_dict({**self.adam.state_dict(), "state": state})
        for number, group in enumerate(self.adam.param_groups):  # loading copies the rates: put the table's back
            group["lr"] = self._rates[0, number]
        if self._scaler is not None and "scale" in groups.get("scale", {}):
            self._scaler.load_state_dict({**self._scaler.state_dict(), "scale": float(groups["scale"]["scale"])})


def flatten(parameters: Mapping[str, nn.Parameter]) -> Tensor:
    """Move parameters into one buffer, which is given back; each stays what it was, as a view of it."""
    sizes = [-(-value.numel() // ALIGNMENT) * ALIGNMENT for value in parameters.values()]
    first = next(iter(parameters.values()))
    flat = torch.zeros(sum(sizes), dtype=first.dtype, device=first.device)
    for value, part in zip(parameters.values(), flat.split(sizes), strict=True):
        place = part[: value.numel()].view(value.shape)
        place.copy_(value.detach())
        value.data = place
    return flat


def parameter_groups(parameters: Mapping[str, Tensor], config: OptimConfig) -> list[tuple[list[Tensor], float]]:
    """GeneFace++'s groups, networks, grids (faster) and attention, each with its factor on the rate."""
    groups: dict[str, list[Tensor]] = {"network": [], "grid": [], "attention": []}
    for name, value in parameters.items():
        kind = "grid" if "embedder" in name else "attention" if "cond_att_net" in name else "network"
        groups[kind].append(value)
    scales = {"network": 1.0, "grid": config.grid_lr_scale, "attention": config.attention_lr_scale}
    return [(groups[kind], scales[kind]) for kind in groups if groups[kind]]


def rate_table(config: OptimConfig, scales: list[float], max_updates: int) -> Tensor:
    """Per step, the rate of each group and how far the running mean moves: ``[max_updates, groups + 1]``."""
    rows = []
    for step in range(max_updates):
        rate = learning_rate(config, step, max_updates)
        decay = min(config.ema_decay, (1 + step) / (10 + step))
        rows.append([*(rate * scale for scale in scales), 1 - decay])
    return torch.tensor(rows)


def learning_rate(config: OptimConfig, step: int, max_updates: int) -> float:
    """The networks' rate at a step: linear warm-up, then a fall to ``final_lr_share`` at the last step."""
    share, final = step / max_updates, config.final_lr_share
    fall = (
        final**share if config.schedule == "exponential" else final + (1 - final) * (1 + math.cos(math.pi * share)) / 2
    )
    return config.lr * fall * min(1.0, (step + 1) / max(config.warmup_updates, 1))
