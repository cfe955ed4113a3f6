import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.face_follower import FollowConfig, Observation
from data_gen.utils.process_video.landmark_track import believed_rows, track_and_landmark
from modules.commons.errors import NoFaceError
from modules.structures.landmarks import LandmarkResult, face_height_px
from tests.data_gen.utils.process_video.moving_face import (
    SquareDetector,
    SquareLandmarker,
    box_at,
    face_template,
    make_frame,
)
from tests.support.real_frames import DEMO_CLIP, read_frames


@pytest.fixture(scope="module")
def real():
    return FaceLandmarker(), FaceDetector("centerface")


def drawn(scenes, **options):
    frames = (make_frame(index, faces) for index, faces in enumerate(scenes))
    return track_and_landmark(frames, SquareLandmarker(), SquareDetector(), **options)


def observe(run, *, shot=0, person=1, agreed=None, size=100.0):
    points = face_template() * np.float32(size)
    zeros = np.zeros(478, dtype=np.float32)
    result = LandmarkResult(points.astype(np.float32), zeros, 1.0, np.zeros(52, dtype=np.float32))
    return Observation(result, run, shot, person, agreed)


def test_rows_without_a_face_are_false_and_nan_and_the_track_predicts():
    track, landmarks = drawn([[box_at(50 + i, 60)] if not 20 <= i < 28 else [] for i in range(50)])
    assert landmarks.valid.tolist() == [not 20 <= i < 28 for i in range(50)]
    assert np.isnan(landmarks.points[20:28]).all()
    assert np.isnan(landmarks.blendshapes[20:28]).all()
    np.testing.assert_array_equal(track.is_detected, landmarks.valid)
    assert np.isfinite(track.boxes).all()
    assert (track.scores[20:28] == 0).all()
    assert track.box(24).center[0] == pytest.approx(74, abs=3)


def test_flashes_and_unconfirmed_runs_are_not_believed():
    nothing = Observation(None, 1, 0, 1, None)
    rows = (
        [observe(0, agreed=True if i == 0 else None) for i in range(20)] + [nothing] * 3 + [observe(1, agreed=True)] * 3
    )
    believed = believed_rows(rows, FollowConfig())
    assert believed.tolist() == [True] * 20 + [False] * 6
    doubtful = [observe(0, agreed=(i == 0) if i % 5 == 0 else None) for i in range(40)]
    assert not believed_rows(doubtful, FollowConfig()).any(), "one agreement in eight questions"


def test_each_shot_keeps_its_main_person():
    rows = [observe(0, person=1, agreed=True)] * 6 + [observe(1, person=2, agreed=True)] * 20
    rows += [observe(2, shot=1, person=3, agreed=True)] * 6
    assert believed_rows(rows, FollowConfig()).tolist() == [False] * 6 + [True] * 26


def test_very_short_clips_are_believed():
    _, landmarks = drawn([[box_at(50, 60)]] * 2)
    assert landmarks.valid.all()


def test_no_face_and_too_small_a_face_are_one_sentence():
    with pytest.raises(NoFaceError, match="no face was found in any of the 30 frames"):
        drawn([[]] * 30)
    with pytest.raises(NoFaceError, match="holds no frames"):
        drawn([])
    with pytest.raises(NoFaceError, match="about 14 px high, at least 24 px are needed"):
        drawn([[box_at(50, 60, 14)]] * 12)
    _, landmarks = drawn([[box_at(50, 60, 14)]] * 12, min_face_px=10)
    assert landmarks.valid.all()


def test_progress_is_told_and_frames_are_streamed():
    told, alive = [], []

    def frames():
        for index in range(12):
            alive.append(index)
            yield make_frame(index, [box_at(50, 60)])

    track_and_landmark(
        frames(), SquareLandmarker(), SquareDetector(), progress=lambda *event: told.append((event, len(alive)))
    )
    assert told == [(("track", done, 0), done) for done in range(1, 13)]


def test_demo_clip_through_the_hand_before_the_mouth(demo_dir, real):
    track, landmarks = track_and_landmark(read_frames(demo_dir / DEMO_CLIP, 50, 130), *real)
    assert landmarks.valid.all()
    assert np.median(face_height_px(landmarks.points)) == pytest.approx(262, abs=20)
    assert (np.diff(track.boxes, axis=0) < 20).all()
    assert track.scores.min() > 0.5


def test_small_face_of_carphone(demo_dir, real):
    _, landmarks = track_and_landmark(read_frames(demo_dir / "carphone_pristine.mp4", 0, 60), *real)
    assert landmarks.valid.all()
    assert np.median(face_height_px(landmarks.points)) == pytest.approx(60, abs=6)
    with pytest.raises(NoFaceError, match="at least 100 px"):
        track_and_landmark(read_frames(demo_dir / "carphone_pristine.mp4", 0, 10), *real, min_face_px=100)


@pytest.mark.parametrize(
    ("name", "start", "stop", "first", "last"),
    [("face_noface.mov", 55, 85, 55, 71), ("noface_face.mov", 85, 112, 96, 111)],
)
def test_faces_that_come_and_go(demo_dir, real, name, start, stop, first, last):
    _, landmarks = track_and_landmark(read_frames(demo_dir / name, start, stop), *real)
    rows = np.flatnonzero(landmarks.valid) + start
    assert rows[0] == pytest.approx(first, abs=1)
    assert rows[-1] == pytest.approx(last, abs=1)
    assert len(rows) == rows[-1] - rows[0] + 1


def test_clip_without_a_face(demo_dir, real):
    with pytest.raises(NoFaceError, match="no face was found"):
        track_and_landmark(read_frames(demo_dir / "no_face.mp4", 0, 20), *real)


def test_hands_pouring_coffee_are_no_face(shared_clips, real):
    clip = shared_clips / "coffee_no_face_1280x720_30fps.mp4"
    with pytest.raises(NoFaceError, match="no face was found"):
        track_and_landmark(read_frames(clip, 0, 30), *real)


@pytest.mark.slow
def test_hands_pouring_coffee_are_no_face_in_the_whole_clip(shared_clips, real):
    with pytest.raises(NoFaceError, match="no face was found"):
        track_and_landmark(read_frames(shared_clips / "coffee_no_face_1280x720_30fps.mp4"), *real)


def test_cuts_give_a_face_only_where_there_is_one(shared_clips, real):
    clip = shared_clips / "promo_cuts_noface_320x180_30fps.mp4"
    _, landmarks = track_and_landmark(read_frames(clip, 45, 115), *real)
    assert landmarks.valid[11:26].all()
    assert not landmarks.valid[30:].any()


def test_a_profile_stays_followed(shared_clips, real):
    clip = shared_clips / "lectern_profile_editlist_640x360_30fps.mp4"
    _, landmarks = track_and_landmark(read_frames(clip, 240, 310), *real)
    assert landmarks.valid.all()
