"""The optimiser: its schedule, its running mean, its layout in memory, and going on from a state."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tasks.configs import OptimConfig
from tasks.radnerfs.optimizer import Optimizer, flatten, learning_rate, parameter_groups


class Net(nn.Module):
    """A network and a 'grid', whose name decides its group."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 5)
        self.embedder = nn.Linear(5, 1, bias=False)

    def forward(self, x):
        return self.embedder(torch.relu(self.net(x)))


def pair(steps=20, seed=0, **changes):
    torch.manual_seed(seed)
    model = Net()
    average = copy.deepcopy(model).requires_grad_(False)
    return model, average, Optimizer(model, average, OptimConfig(**changes), steps)


def train(model, optimizer, steps):
    x = torch.linspace(-1, 1, 30).view(10, 3)
    for _ in range(steps):
        loss = ((model(x) - x.sum(dim=1, keepdim=True)) ** 2).mean()
        optimizer.backward(loss)
        optimizer.update()
    return float(loss.detach())


@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_learning_rate_rises_then_falls_to_its_share(schedule):
    config = OptimConfig(schedule=schedule)
    rates = [learning_rate(config, step, 1000) for step in (0, config.warmup_updates - 1, 500, 1000)]
    assert rates[0] < rates[1] > rates[2] > rates[3]
    assert rates[3] == pytest.approx(config.lr * config.final_lr_share, rel=0.01)
    assert rates[0] == pytest.approx(config.lr / config.warmup_updates, rel=0.01)


def test_cosine_stays_high_for_longer():
    rates = [learning_rate(OptimConfig(schedule=s, warmup_updates=1), 300, 1000) for s in ("cosine", "exponential")]
    assert rates[0] > 1.5 * rates[1]


def test_grids_learn_faster():
    model = Net()
    groups = parameter_groups(dict(model.named_parameters()), OptimConfig(grid_lr_scale=7.0))
    assert [(len(values), scale) for values, scale in groups] == [(2, 1.0), (1, 7.0)]
    assert groups[1][0][0] is model.embedder.weight


def test_steps_are_those_of_adam_with_the_schedules_rates():
    model, _, optimizer = pair(weight_decay=0.1, warmup_updates=4, lr=0.01)
    plain = copy.deepcopy(model)
    scales = {"net.weight": 1.0, "net.bias": 1.0, "embedder.weight": 10.0}
    adam = torch.optim.AdamW(
        [{"params": [value], "scale": scales[name]} for name, value in plain.named_parameters()],
        betas=(0.9, 0.99), eps=1e-15, weight_decay=0.1,
    )  # fmt: skip
    x = torch.linspace(-1, 1, 30).view(10, 3)
    for step in range(6):
        for group in adam.param_groups:
            group["lr"] = learning_rate(OptimConfig(warmup_updates=4, lr=0.01), step, 20) * group["scale"]
        adam.zero_grad()
        ((plain(x) - x.sum(dim=1, keepdim=True)) ** 2).mean().backward()
        adam.step()
    train(model, optimizer, 6)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_running_mean_forgets_the_start():
    model, average, optimizer = pair(ema_decay=0.9)
    expected = [value.detach().clone() for value in model.parameters()]
    for step in range(5):
        train(model, optimizer, 1)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = [
            torch.lerp(mean, value.detach(), 1 - decay)
            for mean, value in zip(expected, model.parameters(), strict=True)
        ]
    for mean, value in zip(expected, average.parameters(), strict=True):
        torch.testing.assert_close(mean, value)


def test_parameters_become_views_of_one_buffer():
    model = Net()
    before = [value.detach().clone() for value in model.parameters()]
    flat = flatten(dict(model.named_parameters()))
    for value, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(value.detach(), old)
        assert value.data_ptr() % 256 == flat.data_ptr() % 256
    flat.zero_()
    assert all(not value.any() for value in model.parameters())


def test_a_state_goes_on_to_the_same_weights():
    straight, _, optimizer = pair()
    train(straight, optimizer, 9)
    first, _, before = pair()
    train(first, before, 4)
    state = {
        group: {name: value.clone() for name, value in tensors.items()} for group, tensors in before.state().items()
    }
    resumed, average, after = pair(seed=1)
    resumed.load_state_dict(first.state_dict())
    after.load_state(state)
    after.start_at(4)
    train(resumed, after, 5)
    for value, same in zip(straight.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(value, same, rtol=0, atol=0)
    np.testing.assert_array_equal(average.net.weight.numpy(), optimizer.average["net.weight"].numpy())
