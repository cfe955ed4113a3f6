"""Schedules and the running mean of weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tasks.audio2motion.schedule import RunningMean, learning_rate_share, rising_share


def test_learning_rate_rises_then_falls():
    shares = [learning_rate_share(step, 100) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and max(shares) == shares[9] == shares[10] == 1.0
    assert np.all(np.diff(shares[10:]) < 0) and shares[-1] < 1e-3


def test_rising_share():
    assert [rising_share(step, 10, 0.5) for step in (0, 1, 5, 9)] == pytest.approx([0.0, 0.2, 1.0, 1.0])
    assert rising_share(0, 10, 0.0) == 1.0


def test_running_mean_follows_and_goes_on():
    network = torch.nn.BatchNorm1d(2)
    mean = RunningMean(network, 0.9)
    values = []
    for step in range(200):
        network.weight.data.fill_(float(step % 2))
        mean.update(network, step)
        values.append(float(mean.values["weight"][0]))
    assert values[-1] == pytest.approx(0.5, abs=0.06) and values[3] > 0.4
    other = RunningMean(torch.nn.BatchNorm1d(2), 0.9)
    other.load(mean.values)
    network.num_batches_tracked.fill_(7)
    other.copy_to(network)
    assert float(network.weight[0]) == pytest.approx(values[-1]) and int(network.num_batches_tracked) == 7
