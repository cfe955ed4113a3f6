"""The follower's logic on drawn squares: acquiring, losing, looking back, persons, takeovers."""

import numpy as np
import pytest

from data_gen.utils.process_video.face_follower import (
    FaceFollower,
    FollowConfig,
    RegionSmoother,
    is_face_shaped,
    landmark_box,
    moved_like_a_head,
)
from modules.structures.crops import CropRegion
from tests.data_gen.utils.process_video.moving_face import (
    SquareDetector,
    SquareLandmarker,
    box_at,
    face_template,
    make_frame,
)


def follow(scenes, config=None, detector=None):
    """Observations by row of frames with the given boxes each."""
    follower = FaceFollower(SquareLandmarker(), detector or SquareDetector(), config or FollowConfig())
    rows = {}
    for index, faces in enumerate(scenes):
        rows |= follower.step(make_frame(index, faces))
    assert sorted(rows) == list(range(len(scenes)))
    return [rows[index] for index in sorted(rows)]


def test_a_moving_face_is_one_run_with_few_detector_calls():
    detector = SquareDetector()
    seen = follow([[box_at(40 + 1.0 * i, 50 + 5 * np.sin(i / 4))] for i in range(75)], detector=detector)
    assert all(o.result is not None for o in seen)
    assert {(o.run, o.person) for o in seen} == {(seen[0].run, seen[0].person)}
    assert detector.calls < 10
    for index, o in enumerate(seen):
        assert o.result is not None
        assert landmark_box(o.result.points).center[0] == pytest.approx(40 + index, abs=1.5)


def test_an_absent_face_is_absent_and_a_new_one_is_found_to_the_frame():
    """It appears between two searches; the frames since the last one are looked at again."""
    scenes = [[box_at(50, 60)] if i < 10 or i >= 22 else [] for i in range(40)]
    seen = [o.result is not None for o in follow(scenes)]
    assert seen == [bool(faces) for faces in scenes]


def test_a_face_back_in_place_is_the_same_person_in_a_new_run():
    seen = follow([[box_at(50, 60)] if i < 10 or i >= 20 else [] for i in range(40)])
    assert seen[5].run != seen[30].run
    assert seen[5].person == seen[30].person


def test_a_face_elsewhere_is_somebody_else():
    seen = follow([[box_at(22, 25)] if i < 10 else [box_at(130, 90)] for i in range(30)])
    assert seen[5].person != seen[25].person


def test_after_a_detour_the_first_person_is_recognised_by_place():
    scenes = [[box_at(30, 40)]] * 10 + [[box_at(130, 90)]] * 10 + [[box_at(30, 40)]] * 10
    seen = follow(scenes)
    assert seen[5].person == seen[28].person != seen[15].person


def test_a_larger_face_takes_over_at_an_audit():
    config = FollowConfig(audit_s=0.4)
    scenes = [[box_at(30, 30, 20)] if i < 15 else [box_at(30, 30, 20), box_at(110, 70, 50)] for i in range(40)]
    seen = follow(scenes, config)
    last = seen[-1]
    assert last.result is not None
    assert landmark_box(last.result.points).width == pytest.approx(50, abs=1)
    assert last.person != seen[0].person


def test_a_cut_starts_a_new_shot():
    follower = FaceFollower(SquareLandmarker(), SquareDetector(), FollowConfig())
    rows = {}
    for index in range(20):
        rows |= follower.step(make_frame(index, [box_at(60, 60)], background=20 if index < 10 else 120))
    assert rows[9].shot == 0
    assert rows[10].shot == 1
    assert rows[10].result is not None, "found again in the very frame of the cut"


def test_a_face_the_detector_denies_is_given_up():
    class Denying(SquareDetector):
        def detect_face_bbox(self, rgb, area=None, *, max_side=None):
            found = super().detect_face_bbox(rgb, area, max_side=max_side)
            return found if self.calls <= 1 else []

    config = FollowConfig(confirm_s=0.1, max_missed=2)
    seen = follow([[box_at(60, 60)]] * 30, config, Denying())
    assert seen[0].result is not None
    assert all(o.result is None for o in seen[15:])


def test_memory_of_frames_is_bounded_while_no_face_is_there():
    follower = FaceFollower(SquareLandmarker(), SquareDetector(), FollowConfig(search_s=0.2))
    held = 0
    for index in range(60):
        follower.step(make_frame(index, []))
        held = max(held, len(follower._skipped))
    assert held <= 6


def test_region_smoother_ignores_jitter_and_follows_motion():
    smoother = RegionSmoother()
    smoother.reset(CropRegion(100, 100, 200))
    jittered = smoother.update(CropRegion(101, 100, 202))
    assert jittered.center_x == pytest.approx(100.1, abs=0.02)
    moved = smoother.update(CropRegion(140, 100, 200))
    assert moved.center_x == pytest.approx(140, abs=0.01)
    smoother.reset(CropRegion(0, 0, 100, 3.1))
    turned = smoother.update(CropRegion(0, 0, 100, -3.1))
    assert abs(np.remainder(turned.angle_rad - 3.1, 2 * np.pi)) < 0.1, "the short way round"


def test_shape_test_knows_a_face_from_a_jumble():
    face = face_template() * 100
    assert is_face_shaped(face)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    assert is_face_shaped(face @ turn.T), "roll does not matter"
    upside_down = face.copy()
    upside_down[[0, 17]], upside_down[[33, 133, 362, 263]] = face[33], face[0]
    assert not is_face_shaped(upside_down)
    assert not is_face_shaped(face * 0)
    assert not is_face_shaped(face * np.nan)


def test_heads_do_not_leap():
    face = face_template() * 100
    assert moved_like_a_head(face, face + 20)
    assert not moved_like_a_head(face, face + 80)
    assert not moved_like_a_head(face, face * 2)
