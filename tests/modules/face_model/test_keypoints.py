"""Condition key points: windows, statistics, smoothing and blinks against naive loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modules.face_model.keypoints import (
    KeypointStatistics,
    condition_windows,
    eye_area_percent,
    idexp_keypoints,
    inject_blinks,
    smooth_features,
)


@given(st.integers(1, 12), st.integers(1, 9))
def test_windows_equal_a_loop(count, size):
    features = torch.arange(1.0, count * 2 + 1).reshape(count, 1, 2)
    windows = condition_windows(features, size)
    for frame in range(count):
        for slot in range(size):
            row = frame - size // 2 + slot
            expected = features[row] if 0 <= row < count else torch.zeros(1, 2)
            assert torch.equal(windows[frame, slot], expected)


@given(st.integers(1, 15))
def test_smoothing_equals_a_loop_with_mirrored_ends(count):
    features = torch.rand(count, 3, generator=torch.Generator().manual_seed(count), dtype=torch.float64)
    ping_pong = torch.cat([features, features.flip(0)] * 8)
    smooth = smooth_features(features, 7)
    for frame in range(count):
        rows = [ping_pong[(frame + k) % (2 * count)] for k in range(-3, 4)]
        torch.testing.assert_close(smooth[frame], torch.stack(rows).mean(dim=0))


def test_offsets_equal_a_loop():
    generator = torch.Generator().manual_seed(0)
    identity, expression = torch.randn(4, generator=generator), torch.randn(3, 2, generator=generator)
    id_basis, exp_basis = torch.randn(5, 3, 4, generator=generator), torch.randn(5, 3, 2, generator=generator)
    offsets = idexp_keypoints(identity, expression, id_basis, exp_basis)
    for t in range(3):
        for k in range(5):
            torch.testing.assert_close(offsets[t, k], 10 * (id_basis[k] @ identity + exp_basis[k] @ expression[t]))


def test_statistics_round_trip_and_constant_coordinates():
    points = torch.rand(20, 5, 3, generator=torch.Generator().manual_seed(1))
    points[:, 2] = 0.25
    statistics = KeypointStatistics.of(points)
    scores = statistics.normalize(points)
    assert torch.isfinite(scores).all() and scores[:, 2].abs().max() == 0
    torch.testing.assert_close(scores[:, 0].std(dim=0), torch.ones(3))
    torch.testing.assert_close(statistics.denormalize(scores), points)
    with pytest.raises(ValueError, match="two frames"):
        KeypointStatistics.of(points[:1])


def test_eye_area_of_known_hexagons():
    points = torch.zeros(1, 68, 3)
    square = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0], [0.0, 1.0]]) * 2 - 1
    points[0, 36:42, :2] = square
    assert eye_area_percent(points).item() == pytest.approx(100.0)


def test_blinks_close_the_eyes_fully_once_per_period():
    points = torch.rand(300, 68, 3, generator=torch.Generator().manual_seed(2))
    blinked, area = inject_blinks(points, open_area=0.5, closed_area=0.1)
    assert (area[:, 0] == 0.1).nonzero().ravel().tolist() == [78, 178, 278]
    for frame in (78, 178, 278):
        torch.testing.assert_close(blinked[frame, 37], blinked[frame, 41])
    assert torch.equal(blinked[:, :36], points[:, :36]) and torch.equal(blinked[:, 48:], points[:, 48:])


def test_a_clip_that_ends_within_a_blink():
    blinked, area = inject_blinks(torch.rand(77, 68, 3), open_area=0.5, closed_area=0.1)
    assert blinked.shape == (77, 68, 3) and area.shape == (77, 1)
