import numpy as np
import pytest

from data_gen.utils.process_video.box_smoothing import smooth_boxes, split_at_jumps


def walk(count=60, noise=0.0, seed=0):
    """A head that nods and drifts, with boxes 100 × 130 px."""
    t = np.arange(count)
    center = np.stack([300 + 2 * t, 200 + 25 * np.sin(t / 8)], axis=1)
    half = np.array([50, 65]) * (1 + 0.1 * np.sin(t / 15))[:, None]
    boxes = np.concatenate([center - half, center + half], axis=1)
    return boxes, boxes + np.random.default_rng(seed).normal(scale=noise, size=boxes.shape)


def test_noise_falls_and_motion_stays():
    true, seen = walk(noise=1.5)
    smoothed = smooth_boxes(seen, np.ones(len(seen), dtype=bool))
    assert np.sqrt(np.mean((smoothed - true) ** 2)) < 0.75 * np.sqrt(np.mean((seen - true) ** 2))
    jitter = np.abs(np.diff(smoothed, 2, axis=0)).mean()
    assert jitter < 0.4 * np.abs(np.diff(seen, 2, axis=0)).mean()


def test_a_still_box_stays_exactly():
    boxes = np.tile([10.0, 20.0, 110.0, 150.0], (20, 1))
    np.testing.assert_allclose(smooth_boxes(boxes, np.ones(20, dtype=bool)), boxes, atol=1e-6)


def test_gaps_are_bridged_on_the_way_and_ends_hold():
    true, _ = walk()
    is_detected = np.ones(len(true), dtype=bool)
    is_detected[20:26] = False
    is_detected[:3] = is_detected[-4:] = False
    seen = np.where(is_detected[:, None], true, np.nan)
    smoothed = smooth_boxes(seen, is_detected)
    assert np.isfinite(smoothed).all()
    assert np.abs(smoothed[20:26] - true[20:26]).max() < 4
    np.testing.assert_array_equal(smoothed[:3], np.tile(smoothed[3], (3, 1)))
    np.testing.assert_array_equal(smoothed[-4:], np.tile(smoothed[-5], (4, 1)))


def test_a_jump_cuts_the_track_instead_of_smearing_it():
    boxes = np.tile([10.0, 20.0, 110.0, 150.0], (30, 1))
    boxes[15:] += 400
    smoothed = smooth_boxes(boxes, np.ones(30, dtype=bool))
    np.testing.assert_allclose(smoothed, boxes, atol=1e-6)
    assert [len(piece) for piece in split_at_jumps(boxes, np.arange(30))] == [15, 15]


def test_growth_is_a_jump_too():
    boxes = np.tile([0.0, 0.0, 100.0, 100.0], (10, 1))
    boxes[5:] = [-100.0, -100.0, 200.0, 200.0]
    assert len(split_at_jumps(boxes, np.arange(10))) == 2


def test_no_detection_is_an_error():
    with pytest.raises(ValueError, match="without any detection"):
        smooth_boxes(np.zeros((3, 4)), np.zeros(3, dtype=bool))


def test_size_of_the_face_does_not_matter():
    _, seen = walk(noise=1.5)
    ones = np.ones(len(seen), dtype=bool)
    np.testing.assert_allclose(smooth_boxes(seen * 8, ones), smooth_boxes(seen, ones) * 8, rtol=1e-6, atol=1e-6)
