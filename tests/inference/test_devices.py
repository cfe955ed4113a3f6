"""Which GPUs render, and what is refused."""

import pytest
import torch

from inference.devices import FRAMES_PER_DEVICE, parse_devices, render_devices
from modules.commons.errors import BackendUnavailableError, ConfigError


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr("inference.devices.pick_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


def test_numbers_are_read_and_nonsense_is_refused():
    assert parse_devices("0") == (0,) and parse_devices("2, 0") == (2, 0)
    for text in ("", "a", "0,0", "-1", "0,", "cuda:0"):
        with pytest.raises(ConfigError, match="--devices"):
            parse_devices(text)


def test_without_cuda_the_cpu_renders_and_gpus_cannot_be_named():
    assert render_devices("cpu", (), 10**6) == [torch.device("cpu")]
    with pytest.raises(ConfigError, match="--devices 0,1"):
        render_devices("cpu", (0, 1), 10)


@pytest.mark.usefixtures("three_gpus")
def test_long_videos_take_all_gpus_and_short_ones_one():
    def numbers(n_frames, named=()):
        return [device.index for device in render_devices("cuda", named, n_frames)]

    assert numbers(10) == [0] and numbers(2 * FRAMES_PER_DEVICE) == [0, 1] and numbers(10**6) == [0, 1, 2]
    assert numbers(10, named=(2, 1)) == [2, 1]
    with pytest.raises(BackendUnavailableError, match="GPU 3, but there are 3"):
        numbers(10, named=(0, 3))
