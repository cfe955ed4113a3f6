import cv2
import numpy as np
import pytest

from data_gen.utils.process_video.hand_outline import WEB, best_path, finger_rays, hand_mask, hand_size, trace_rays
from modules.structures.landmarks import HAND_FINGERS, HAND_PALM


def open_hand(center=(160.0, 220.0), size=100.0):
    """Landmarks of an upright open hand: wrist below, five fingers fanned above."""
    points = np.zeros((21, 2))
    points[0] = (0, 0)
    for finger, (base, angle, length) in enumerate(
        [((-0.35, -0.35), -0.9, 0.7), ((-0.25, -0.95), -0.2, 0.8), ((0, -1), 0, 0.9), ((0.22, -0.95), 0.18, 0.8),
         ((0.42, -0.85), 0.4, 0.65)]
    ):  # fmt: skip
        direction = np.array([np.sin(angle), -np.cos(angle)])
        for joint in range(4):
            points[1 + 4 * finger + joint] = np.array(base) + direction * length * joint / 3
    return points * size + center


def draw_hand(points, radius, size_hw=(320, 320), skin=(205, 160, 140), around=(200, 152, 130)):
    """A hand of given finger half-thickness with a dark rim, on nearly the same skin; returns (image, truth)."""
    truth = np.zeros(size_hw, dtype=np.uint8)
    for outline in (HAND_PALM, WEB):
        cv2.fillPoly(truth, [np.round(points[list(outline)]).astype(np.int32)], 255)
    wrist = np.round(points[0]).astype(int)
    cv2.line(truth, wrist.tolist(), (int(wrist[0]), size_hw[0]), 255, 54)
    for finger in HAND_FINGERS:
        chain = np.round(points[[0, *finger]]).astype(np.int32)
        cv2.polylines(truth, [chain], False, 255, round(2 * radius))
    rim = cv2.dilate(truth, np.ones((5, 5), np.uint8)) - truth
    image = np.full((*size_hw, 3), around, dtype=np.uint8)
    image[rim > 0] = (150, 105, 90)
    image[truth > 0] = skin
    noise = np.random.default_rng(0).normal(scale=2, size=image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), truth


def iou(first, second):
    """Overlap above row 250: further down the arm goes on, the mask need not."""
    a, b = first[:250] > 127, second[:250] > 127
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("radius", [7, 9, 12])
def test_the_outline_finds_the_real_thickness(radius):
    """Fingers a fifth thinner to a third thicker than expected, on skin of nearly the same colour."""
    points = open_hand()
    image, truth = draw_hand(points, radius)
    guessed = iou(hand_mask(np.full_like(image, 128), points), truth)
    traced = iou(hand_mask(image, points), truth)
    assert traced > 0.8
    assert traced > guessed - 0.01 if radius == 9 else traced > guessed + 0.03


def test_without_any_edge_the_expected_thickness_is_drawn():
    points = open_hand()
    flat = np.full((320, 320, 3), 128, dtype=np.uint8)
    _, truth = draw_hand(points, 8.5)
    assert iou(hand_mask(flat, points), truth) > 0.8


def test_large_hands_are_traced_at_a_reduced_size():
    points = open_hand()
    image, truth = draw_hand(points, 9)
    large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    mask = hand_mask(np.asarray(large, dtype=np.uint8), points * 4)
    assert iou(cv2.resize(mask, (320, 320), interpolation=cv2.INTER_AREA), truth) > 0.88


def test_hands_beyond_the_picture_are_cut_off():
    image, _ = draw_hand(open_hand(), 9)
    assert hand_mask(image, open_hand(center=(160, 320)))[:100].max() == 0
    assert hand_mask(image, open_hand(center=(900, 900))).max() == 0


def test_size_survives_foreshortening():
    points = open_hand()
    assert hand_size(points) == pytest.approx(100, rel=0.2)
    squeezed = points * (1.0, 0.3)
    assert hand_size(squeezed) > 60, "the width still tells"


def test_rays_go_round_the_finger():
    joints = np.array([[0.0, 0.0], [0, -10], [0, -20], [0, -30], [0, -40]])
    origins, directions, radii = finger_rays(joints, np.full(5, 5.0))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    assert directions[0] @ directions[-1] == pytest.approx(-1)
    middle = len(origins) // 2
    np.testing.assert_allclose(directions[middle], (0, -1), atol=1e-9)
    assert len({len(origins), len(directions), len(radii)}) == 1


def test_rays_stop_at_a_circle():
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    cv2.circle(image, (50, 50), 20, (255, 255, 255), -1)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    found = trace_rays(image.astype(np.float32), np.full((40, 2), 50.5), directions, np.full(40, 18.0))
    np.testing.assert_allclose(found, 20.3, atol=1.2)


def test_best_path_equals_a_search_over_all_paths():
    from itertools import product

    gain = np.random.default_rng(0).normal(size=(5, 4))
    cost = 0.3

    def value(path):
        steps = sum(abs(a - b) for a, b in zip(path, path[1:], strict=False))
        return sum(gain[row, column] for row, column in enumerate(path)) - cost * steps

    best = max(product(range(4), repeat=5), key=value)
    assert tuple(best_path(gain, cost)) == best
