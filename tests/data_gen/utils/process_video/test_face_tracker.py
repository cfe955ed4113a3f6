"""The tracker's logic on drawn squares: acquiring, losing, looking back, crossing, cuts, stopping and going on."""

import json
from collections import defaultdict

import numpy as np
import pytest

from data_gen.utils.process_video.face_geometry import landmark_box
from data_gen.utils.process_video.face_tracker import FaceTracker
from data_gen.utils.process_video.tracker_state import FollowConfig, TrackerState
from tests.data_gen.utils.process_video.moving_face import SquareDetector, SquareLandmarker, box_at, make_frame


def follow(scenes, config=None, detector=None, cuts=()):
    """Boxes by track and row of frames with the given boxes each."""
    tracker = FaceTracker(SquareLandmarker(), detector or SquareDetector(), config or FollowConfig())
    tracks = defaultdict(dict)
    for index, faces in enumerate(scenes):
        for seen in tracker.step(make_frame(index, faces), starts_shot=index in cuts):
            assert seen.row not in tracks[seen.track], "one sight per frame"
            tracks[seen.track][seen.row] = landmark_box(seen.result.points)
    return dict(tracks)


def test_a_moving_face_is_one_track_with_few_detector_calls():
    detector = SquareDetector()
    tracks = follow([[box_at(40 + 1.0 * i, 50 + 5 * np.sin(i / 4))] for i in range(75)], detector=detector)
    assert list(tracks) == [0]
    assert sorted(tracks[0]) == list(range(75))
    assert detector.calls < 13
    for index, box in tracks[0].items():
        assert box.center[0] == pytest.approx(40 + index, abs=1.5)


def test_two_faces_are_two_tracks_each_with_its_own():
    tracks = follow([[box_at(30, 40), box_at(120, 60, 40)] for _ in range(40)])
    centres = sorted({round(box.center[0]) for rows in tracks.values() for box in rows.values()})
    assert len(tracks) == 2
    assert centres == [30, 120]
    assert all(len(rows) == 40 for rows in tracks.values())


def test_an_absent_face_is_absent_and_a_new_one_is_found_to_the_frame():
    """It appears between two searches; the frames since the last one are looked at again."""
    scenes = [[box_at(50, 60)] if i < 10 or i >= 32 else [] for i in range(60)]
    rows = {row for track in follow(scenes).values() for row in track}
    assert rows == {i for i, faces in enumerate(scenes) if faces}


def test_a_second_face_that_enters_is_found_to_the_frame_as_well():
    scenes = [[box_at(30, 40)] if i < 20 else [box_at(30, 40), box_at(120, 60)] for i in range(50)]
    tracks = follow(scenes)
    assert sorted(tracks[1]) == list(range(20, 50))


@pytest.mark.parametrize("gap", [4, 30])
def test_after_a_gap_it_is_another_track_found_to_the_frame(gap):
    """Who appears where a face was lost may be somebody else."""
    tracks = follow([[box_at(50, 60)] if not 10 <= i < 10 + gap else [] for i in range(60)])
    assert sorted(tracks[0]) == list(range(10))
    assert sorted(tracks[1]) == list(range(10 + gap, 60))


def test_a_face_elsewhere_is_another_track():
    tracks = follow([[box_at(22, 25)] if i < 10 else [box_at(130, 90)] for i in range(40)])
    assert sorted(tracks[0]) == list(range(10))
    assert sorted(tracks[1]) == list(range(10, 40))


def test_of_two_tracks_on_one_face_the_one_that_had_to_leap_is_lost():
    """The left face vanishes behind the right one, which comes by."""
    scenes = [
        [box_at(60, 60), box_at(140 - 4 * i, 60)] if 140 - 4 * i > 85 else [box_at(140 - 4 * i, 60)] for i in range(22)
    ]
    tracks = follow(scenes)
    assert max(tracks[0]) < 16
    last = max(tracks[1])
    assert last == 21
    assert tracks[1][last].center[0] == pytest.approx(140 - 4 * 21, abs=2)


def test_a_cut_ends_every_track_and_the_face_is_found_in_its_first_frame():
    tracks = follow([[box_at(60, 60)]] * 20, cuts=(10,))
    assert sorted(tracks[0]) == list(range(10))
    assert sorted(tracks[1]) == list(range(10, 20))


def test_a_face_the_detector_denies_is_given_up():
    class Denying(SquareDetector):
        def detect_face_bbox(self, rgb, area=None, *, max_side=None):
            found = super().detect_face_bbox(rgb, area, max_side=max_side)
            return found if self.calls <= 1 else []

    tracks = follow([[box_at(60, 60)]] * 60, FollowConfig(audit_s=0.1, max_missed=2), Denying())
    assert max(tracks[0]) < 15


def test_faces_too_small_and_too_many_are_left_out():
    config = FollowConfig(min_face_px=25, max_faces=1)
    tracks = follow([[box_at(30, 40, 20), box_at(120, 60, 40), box_at(80, 30, 30)]] * 20, config)
    assert len(tracks) == 1
    assert all(box.width == pytest.approx(40, abs=1) for box in tracks[0].values())


def test_memory_of_frames_is_bounded():
    tracker = FaceTracker(SquareLandmarker(), SquareDetector(), FollowConfig())
    for index in range(60):
        tracker.step(make_frame(index, [box_at(60, 60)] if index > 30 else []))
        assert len(tracker._frames) == len(tracker.state.recent) <= 26


@pytest.mark.parametrize("stop", [1, 12, 23, 33, 47])
def test_stopped_and_going_on_it_sees_the_same(stop):
    """The state goes through JSON; only the frames held for looking back are handed over again."""
    scenes = [[box_at(40 + i, 50)] if i < 30 else [] for i in range(60)]
    for i in range(22, 60):
        scenes[i] = [*scenes[i], box_at(120, 80, 36)]
    frames = [make_frame(index, faces) for index, faces in enumerate(scenes)]

    def told(tracker, some):
        return [(s.row, s.track, s.result.points.tobytes(), s.detector_score) for f in some for s in tracker.step(f)]

    whole = FaceTracker(SquareLandmarker(), SquareDetector(), FollowConfig())
    expected = told(whole, frames)
    first = FaceTracker(SquareLandmarker(), SquareDetector(), FollowConfig())
    seen = told(first, frames[:stop])
    state = TrackerState.from_dict(json.loads(json.dumps(first.state.to_dict())))
    again = FaceTracker(SquareLandmarker(), SquareDetector(), FollowConfig(), state=state)
    for row, _ in state.recent:
        again.recall(frames[row])
    seen += told(again, frames[stop:])
    assert json.dumps(again.state.to_dict()) == json.dumps(whole.state.to_dict())
    assert [s[:3] for s in seen] == [s[:3] for s in expected]
    np.testing.assert_array_equal([s[3] for s in seen], [s[3] for s in expected])


@pytest.mark.parametrize(("score", "stays"), [(0.9, True), (0.3, False)])
def test_the_cheap_detectors_can_speak_for_a_face_the_large_one_denies(score, stays):
    class Denying(SquareDetector):
        def detect_face_bbox(self, rgb, area=None, *, max_side=None):
            found = super().detect_face_bbox(rgb, area, max_side=max_side)
            return found if self.calls <= 1 else []

    class Saying:
        def confirm(self, rgb, box, angle_rad=0.0):
            assert box.iou(box_at(60, 60)) > 0.9
            return score

    tracker = FaceTracker(SquareLandmarker(), Denying(), FollowConfig(audit_s=0.1, max_missed=2), confirmer=Saying())
    seen = [s for index in range(40) for s in tracker.step(make_frame(index, [box_at(60, 60)]))]
    assert (max(s.row for s in seen) == 39) is stays
    assert {round(s.detector_score, 2) for s in seen[1:] if np.isfinite(s.detector_score)} == {score if stays else 0.0}
