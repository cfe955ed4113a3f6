"""The colour match over time: exposure at once, shape slowly, nothing across cuts, the same when taken up again."""

import numpy as np
import pytest
import torch

from modules.video.colour_follow import ColourFollower, followed
from modules.video.colour_match import FIELD_SIZE, RingConfig
from modules.video.device_colour_match import followed as followed_on_device

BOX = (10, 10, 110, 90)


def skin(height=80, width=100):
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    alpha = np.clip((0.95 - radius) / 0.3, 0, 1).astype(np.float32)
    rgb = np.stack([0.6 + 0.1 * x / width, 0.45 + 0.05 * y / height, 0.4 + 0 * x], 2).astype(np.float32)
    return rgb, alpha


def run(follower, source, rgb, alpha, number):
    return follower.update(source, rgb, alpha, np.ones_like(alpha), number / 25, BOX)


def test_flicker_of_the_light_is_followed_at_once():
    rgb, alpha = skin()
    follower, rng = ColourFollower(RingConfig(), smoothing_s=5.0), np.random.default_rng(0)
    run(follower, rgb, rgb, alpha, 0)
    for number, gain in enumerate(rng.uniform(0.9, 1.1, 10), start=1):
        field = run(follower, np.clip((rgb + 0.099) * gain - 0.099, 0, 1).astype(np.float32), rgb, alpha, number)
        assert np.allclose(field, np.log(gain) / 0.45, atol=0.01)


def test_a_change_on_one_side_is_followed_slowly():
    rgb, alpha = skin()
    follower = ColourFollower(RingConfig(), smoothing_s=0.4)
    run(follower, rgb, rgb, alpha, 0)
    tilt = 1 + 0.1 * np.linspace(-1, 1, 100, dtype=np.float32)[None, :, None]
    lit = np.clip(rgb * tilt, 0, 1)
    first = run(follower, lit, rgb, alpha, 1)
    alone = run(ColourFollower(RingConfig(), 0.0), lit, rgb, alpha, 1)
    assert np.abs(first).max() < 0.35 * np.abs(alone).max()
    for number in range(2, 40):
        last = run(follower, lit, rgb, alpha, number)
    assert np.abs(last - alone).max() < 0.1 * np.abs(alone).max()


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_followed_takes_the_common_part_whole_and_the_rest_by_its_share(share):
    before = np.zeros((FIELD_SIZE, FIELD_SIZE, 3), np.float32)
    level = before + np.float32([0.1, 0.05, -0.2])
    assert np.allclose(followed(before, level, share), level, atol=1e-6)
    wave = before.copy()
    wave[::2], wave[1::2] = 0.1, -0.1  # no common part at all
    assert np.allclose(followed(before, wave, share), share * wave, atol=1e-6)
    assert np.array_equal(followed(level, level, share), level)


def test_the_device_follows_as_the_cpu_does():
    rng = np.random.default_rng(1)
    before, found = rng.normal(0.05, 0.1, (2, FIELD_SIZE, FIELD_SIZE, 3)).astype(np.float32)
    planes = [torch.from_numpy(field.transpose(2, 0, 1)) for field in (before, found)]
    answer = followed_on_device(*planes, torch.tensor(0.3)).numpy().transpose(1, 2, 0)
    assert np.allclose(answer, followed(before, found, 0.3), atol=1e-6)


def test_cuts_and_states():
    rgb, alpha = skin()
    lit = np.clip(rgb * np.linspace(0.9, 1.1, 100, dtype=np.float32)[None, :, None], 0, 1)
    follower = ColourFollower(RingConfig(), smoothing_s=10.0)
    run(follower, rgb, rgb, alpha, 0)
    other = ColourFollower(RingConfig(), smoothing_s=10.0)
    other.resume(follower.state())
    assert np.array_equal(run(follower, lit, rgb, alpha, 1), run(other, lit, rgb, alpha, 1))
    alone = run(ColourFollower(RingConfig(), 10.0), lit, rgb, alpha, 2)
    follower.reset()
    assert follower.state() == {} and np.array_equal(run(follower, lit, rgb, alpha, 2), alone)
    later = other.update(lit, rgb, alpha, np.ones_like(alpha), 2.5, BOX)
    assert np.array_equal(later, alone)  # after a gap nothing is carried over
    hidden = other.update(lit, rgb, alpha, np.zeros_like(alpha), 2.54, BOX)
    assert np.array_equal(hidden, later)
    assert ColourFollower(RingConfig(), 1.0).update(lit, rgb, alpha, np.zeros_like(alpha), 0.0, BOX) is None


def test_another_estimator_is_asked_and_a_negative_time_refused():
    rgb, alpha = skin()
    field = np.full((FIELD_SIZE, FIELD_SIZE, 3), 0.25, np.float32)
    follower = ColourFollower(RingConfig(), 0.4, estimate=lambda *pictures: field)
    assert np.array_equal(run(follower, rgb, rgb, alpha, 0), field)
    with pytest.raises(ValueError, match="negative"):
        ColourFollower(RingConfig(), -0.1)
