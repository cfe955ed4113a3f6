"""Tracking of hands with a finder that is told where hands are."""

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.hand_landmarker import HandResult
from data_gen.utils.process_video.hand_tracker import HOLD, LOOK_BACK, HandTracker, reshaping
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion
from tests.data_gen.utils.process_video.test_hand_outline import open_hand

FACE = BoundingBox(0, 0, 100, 100)
SQUARE = CropRegion(0, 0, 1)


class ToldFinder:
    """Knows each frame's hands by a number in the image; palms show in few frames, known hands in all but ``blind``."""

    def __init__(self, places, palms, blind=()):
        self.places, self.palms, self.blind = places, set(palms), set(blind)

    def hands_in(self, rgb):
        return self.places[int(rgb[0, 0, 0])]

    def find_hands(self, rgb, face=None, *, turn=None):
        if int(rgb[0, 0, 0]) not in self.palms:
            return []
        return [HandResult(points, 0.99, SQUARE) for points in self.hands_in(rgb)]

    def follow_hand(self, rgb, points, face):
        if int(rgb[0, 0, 0]) in self.blind:
            return None
        near = [p for p in self.hands_in(rgb) if np.linalg.norm(p - points, axis=1).mean() < 40]
        return HandResult(near[0], 0.99, SQUARE) if near else None


def hand_at(x):
    return open_hand((x, 200.0)).astype(np.float32)


def image(number):
    return np.full((4, 4, 3), number, dtype=np.uint8)


def run(finder, count, faces=None, origins=None):
    tracker, out, held = HandTracker(finder), [], 0
    for index in range(count):
        face = FACE if faces is None else faces[index]
        out += list(tracker.step(index, image(index), face, origins[index] if origins else (0.0, 0.0)))
        held = max(held, len(tracker._held))
    out += list(tracker.finish())
    assert [frame.index for frame in out] == list(range(count)), "every frame once, in order"
    assert held <= LOOK_BACK + 1
    return out


def weights(frames):
    return [round(max((hand.weight for hand in frame.hands), default=0.0), 2) for frame in frames]


def test_a_hand_found_late_is_followed_back_and_forth():
    places = [[hand_at(50 + 2 * i)] if 5 <= i < 30 else [] for i in range(50)]
    frames = run(ToldFinder(places, palms=[15]), 50)
    seen = [w == 1.0 for w in weights(frames)]
    assert seen == [5 <= i < 30 for i in range(50)]
    np.testing.assert_allclose(frames[7].hands[0].points, hand_at(64))


def test_masks_fade_in_and_out():
    places = [[hand_at(50)] if 10 <= i < 20 else [] for i in range(40)]
    faded = weights(run(ToldFinder(places, palms=[12]), 40))
    assert faded[8:10] == [0.33, 0.67]
    assert faded[20:22] == [0.67, 0.33]
    assert faded[7] == faded[20 + HOLD] == 0


def test_a_hand_is_not_missing_between_two_sights():
    places = [[hand_at(50 + 4 * i)] for i in range(30)]
    frames = run(ToldFinder(places, palms=[3], blind=[10, 11]), 30)
    assert weights(frames) == [1.0] * 30
    np.testing.assert_allclose(frames[10].hands[0].points, hand_at(90), atol=1e-3)


def test_a_flash_is_a_false_alarm():
    places = [[hand_at(50)] if i in (10, 11) else [] for i in range(30)]
    assert weights(run(ToldFinder(places, palms=[10]), 30)) == [0.0] * 30


def test_two_hands_and_no_doubles():
    places = [[hand_at(50), hand_at(250)] for _ in range(20)]
    frames = run(ToldFinder(places, palms=range(20)), 20)
    assert [len(frame.hands) for frame in frames] == [2] * 20


def test_without_a_face_no_hand_matters():
    places = [[hand_at(50)] for _ in range(20)]
    faces = [FACE if i < 10 else None for i in range(20)]
    frames = run(ToldFinder(places, palms=[2]), 20, faces)
    assert [bool(frame.hands) for frame in frames] == [True] * 10 + [False] * 10


def test_a_moving_window_does_not_move_the_hand():
    """Images cut around a drifting face: the hand's pixels change, its place does not."""
    origins = [(5.0 * i, -3.0 * i) for i in range(20)]
    places = [[hand_at(150) - np.float32(origin)] for origin in origins]
    frames = run(ToldFinder(places, palms=[10]), 20, origins=origins)
    for frame, origin in zip(frames, origins, strict=True):
        np.testing.assert_allclose(frame.hands[0].points + np.float32(origin), hand_at(150), atol=1e-3)


def test_slipping_onto_another_shape_ends_the_hand():
    other = hand_at(50)[::-1].copy()
    assert reshaping(hand_at(50), other) > 0.16
    places = [[hand_at(50)] if i < 10 else [other] for i in range(40)]
    frames = run(ToldFinder(places, palms=[3]), 40)
    assert not any(frame.hands for frame in frames[10 + HOLD + 5 :])


def test_reshaping_ignores_translation():
    assert reshaping(hand_at(50), hand_at(90)) == pytest.approx(0, abs=1e-6)
