"""Landmarks of one face: out of the log block by block as out of memory at once, and on real clips."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_video import landmark_track
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.face_table import BeliefConfig, gather_sights
from data_gen.utils.process_video.landmark_smoothing import smooth_landmarks
from data_gen.utils.process_video.landmark_track import (
    check_faces,
    track_and_landmark,
    track_in_memory,
    write_landmarks,
)
from data_gen.utils.process_video.observation_log import Observations
from data_gen.utils.process_video.tracker_state import FollowConfig
from modules.commons.errors import NoFaceError
from modules.structures.landmarks import Landmarks2D, face_height_px, inter_ocular_px
from modules.structures.tracks import FrameStatus
from tests.data_gen.utils.process_video.face_sights import sighting, sights_of, table_of
from tests.data_gen.utils.process_video.moving_face import SquareDetector, SquareLandmarker, box_at, make_frame
from tests.support.real_frames import DEMO_CLIP, read_frames

COLUMNS = "points", "depth", "blendshapes"


@pytest.fixture(scope="module")
def real():
    return FaceLandmarker(), FaceDetector("centerface")


def drawn(scenes, **options):
    frames = (make_frame(index, faces) for index, faces in enumerate(scenes))
    return track_and_landmark(frames, SquareLandmarker(), SquareDetector(), **options)


def noisy(row, track=0, **given_):
    """A sight that looks different in every frame, so that no row can stand for another."""
    return sighting(row, track, score=0.9, noise=0.8, **{"at": (50 + row, 40 + row / 2), **given_})


def logged(sightings, count, segment_length):
    """The sightings in segments by frame, each frame's in the order given."""
    return [
        Observations.of([s for s in sightings if start <= s.row < start + segment_length])
        for start in range(0, count, segment_length)
    ]


def smoothed_at_once(sightings, table, face=0):
    """The plain way: everything in memory, unseen rows NaN, the whole clip smoothed in one go."""
    track = table.track_over_video(face)
    valid = np.isin(track.status, [FrameStatus.DETECTED, FrameStatus.OCCLUDED, FrameStatus.PROFILE])
    points = np.full((len(valid), 478, 2), np.nan, np.float32)
    depth, blendshapes = np.full((len(valid), 478), np.nan, np.float32), np.full((len(valid), 52), np.nan, np.float32)
    for seen in sightings:
        if valid[seen.row]:
            points[seen.row], depth[seen.row] = seen.result.points, seen.result.depth
            blendshapes[seen.row] = seen.result.blendshapes
    return smooth_landmarks(Landmarks2D(points, depth, valid, blendshapes), table.times_s, table.shot_starts)


def assert_same(made, expected):
    np.testing.assert_array_equal(made.valid, expected.valid)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(made, name), getattr(expected, name), err_msg=name)
        assert np.isnan(getattr(made, name)[~made.valid]).all()


# --- out of the log ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [1, 7, 16, 1024])
def test_blocks_join_to_what_smoothing_the_whole_clip_gives(tmp_path, monkeypatch, block):
    monkeypatch.setattr(landmark_track, "BLOCK", block)
    mine = [noisy(row) for row in range(70) if row not in (15, 16, 17, 40, 56)]
    other = [noisy(row, 1, at=(120, 60), size=40) for row in range(5, 70)]
    segments = logged([*mine, *other], 75, 16)
    table = table_of(gather_sights(segments), [[0], [1]], 75)
    for face, sightings in ((0, mine), (1, other)):
        path = tmp_path / f"landmarks{face}.npz"
        write_landmarks(table, face, segments, path)
        made = Landmarks2D.load(path)
        assert len(made) == 75
        assert_same(made, smoothed_at_once(sightings, table, face))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["landmarks0.npz", "landmarks1.npz"], "and nothing else stays"


@pytest.mark.parametrize("block", [1, 13, 64])
def test_frame_rates_and_cuts_reach_the_smoothing(tmp_path, monkeypatch, block):
    """60 fps, then uneven times: the stretch is longer in frames than at 25 fps; a cut without a jump ends it."""
    monkeypatch.setattr(landmark_track, "BLOCK", block)
    steps = np.where(np.arange(90) < 60, 1 / 60, 1 / 12) + np.random.default_rng(0).uniform(0, 0.02, 90)
    sightings = [noisy(row, 0 if row < 30 else 1) for row in range(90)]
    segments = logged(sightings, 90, 32)
    table = table_of(gather_sights(segments), [[0, 1]], 90, starts=(0, 30), times_s=np.cumsum(steps) - steps[0])
    write_landmarks(table, 0, segments, tmp_path / "landmarks.npz")
    made = Landmarks2D.load(tmp_path / "landmarks.npz")
    assert_same(made, smoothed_at_once(sightings, table))
    alone = table_of(gather_sights(logged(sightings[:30], 30, 32)), [[0]], 30, times_s=table.times_s[:30])
    np.testing.assert_array_equal(made.points[:30], smoothed_at_once(sightings[:30], alone).points)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.integers(0, 39), min_size=6, max_size=40, unique=True),
    leaps=st.sets(st.integers(1, 39), max_size=2),
    block=st.integers(1, 45),
    segment=st.integers(1, 45),
)
def test_any_gaps_leaps_blocks_and_segments_give_the_same(tmp_path, rows, leaps, block, segment):
    sightings = [noisy(row, at=(50 + 100 * sum(row >= leap for leap in leaps), 40)) for row in sorted(rows)]
    segments = logged(sightings, 40, segment)
    table = table_of(gather_sights(segments), [[0]], 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(landmark_track, "BLOCK", block)
        write_landmarks(table, 0, segments, tmp_path / "landmarks.npz")
    assert_same(Landmarks2D.load(tmp_path / "landmarks.npz"), smoothed_at_once(sightings, table))


def test_what_was_seen_looking_back_lies_in_a_later_segment_and_lands_in_its_own_row(tmp_path):
    before, later = [noisy(row) for row in range(20, 24)], [noisy(row) for row in range(24, 40)]
    segments = [Observations.of([]), Observations.of([later[0], *reversed(before), *later[1:]])]
    table = table_of(gather_sights(segments), [[0]], 40)
    write_landmarks(table, 0, segments, tmp_path / "landmarks.npz")
    made = Landmarks2D.load(tmp_path / "landmarks.npz")
    assert np.flatnonzero(made.valid).tolist() == list(range(20, 40))
    assert_same(made, smoothed_at_once([*before, *later], table))


def test_tracks_of_one_person_are_one_table(tmp_path):
    first, second = [noisy(row) for row in range(12)], [noisy(row, 5) for row in range(30, 44)]
    segments = logged([*first, *second], 50, 8)
    table = table_of(gather_sights(segments), [[0, 5]], 50, starts=(0, 30))
    write_landmarks(table, 0, segments, tmp_path / "landmarks.npz")
    assert_same(Landmarks2D.load(tmp_path / "landmarks.npz"), smoothed_at_once([*first, *second], table))


def test_only_frames_in_which_there_is_something_to_fit_are_valid(tmp_path):
    """Turned away and covered count; too small, predicted and lost do not."""
    sightings = [noisy(row) for row in range(10)]
    sightings += [noisy(row, yaw=1.3) for row in range(12, 32)]
    sightings += [noisy(row, size=14.0) for row in range(40, 80)]
    segments = logged(sightings, 90, 32)
    table = table_of(gather_sights(segments), [[0]], 90)
    status = table.track_over_video(0).status
    assert {FrameStatus(v) for v in status} == {
        FrameStatus.DETECTED, FrameStatus.PREDICTED, FrameStatus.PROFILE, FrameStatus.LOST, FrameStatus.TOO_SMALL
    }  # fmt: skip
    write_landmarks(table, 0, segments, tmp_path / "landmarks.npz")
    made = Landmarks2D.load(tmp_path / "landmarks.npz")
    np.testing.assert_array_equal(made.valid, (status == FrameStatus.DETECTED) | (status == FrameStatus.PROFILE))
    assert_same(made, smoothed_at_once(sightings, table))


def test_a_damaged_log_leaves_nothing_behind(tmp_path):
    sightings = [noisy(row) for row in range(20)]
    table = table_of(sights_of(sightings), [[0]], 20)

    def damaged():
        yield Observations.of(sightings[:10])
        raise ValueError("a segment is damaged")

    with pytest.raises(ValueError, match="damaged"):
        write_landmarks(table, 0, damaged(), tmp_path / "landmarks.npz")
    assert list(tmp_path.iterdir()) == []


# --- in memory --------------------------------------------------------------------------------------------------------


def test_the_stages_write_what_a_short_clip_gives_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(landmark_track, "BLOCK", 16)
    scenes = [[box_at(50 + i, 60)] if not 20 <= i < 23 else [] for i in range(50)]
    track, expected = drawn(scenes)
    frames = [make_frame(index, faces) for index, faces in enumerate(scenes)]
    table, segment, _ = landmark_track._track_in_memory(
        frames, SquareLandmarker(), SquareDetector(), None, BeliefConfig(), lambda *_: None
    )
    write_landmarks(table, 0, [segment], tmp_path / "landmarks.npz")
    assert_same(Landmarks2D.load(tmp_path / "landmarks.npz"), expected)
    np.testing.assert_array_equal(table.track_over_video(0).boxes, track.boxes)


def test_rows_without_a_face_are_false_and_nan():
    track, landmarks = drawn([[box_at(50 + i, 60)] if not 20 <= i < 23 else [] for i in range(50)])
    assert landmarks.valid.tolist() == [not 20 <= i < 23 for i in range(50)]
    assert np.isnan(landmarks.points[20:23]).all()
    assert np.isnan(landmarks.blendshapes[20:23]).all()
    np.testing.assert_array_equal(track.is_detected, landmarks.valid)
    assert (track.status[20:23] == FrameStatus.PREDICTED).all()
    assert track.box(21).center[0] == pytest.approx(71, abs=3)
    assert (track.confidence[20:23] == 0).all()


def test_of_two_faces_the_one_with_most_area_is_given():
    scenes = [[box_at(40, 40, 30), box_at(150, 80, 50)] for _ in range(30)]
    track, landmarks = drawn(scenes)
    assert track.box(10).center == pytest.approx((150, 80), abs=1)
    np.testing.assert_allclose(face_height_px(landmarks.points), 50, atol=1)
    frames = [make_frame(index, faces) for index, faces in enumerate(scenes)]
    assert len(track_in_memory(frames, SquareLandmarker(), SquareDetector())) == 2


def test_very_short_clips_are_believed():
    _, landmarks = drawn([[box_at(50, 60)]] * 2)
    assert landmarks.valid.all()


def test_flashes_are_not_believed():
    with pytest.raises(NoFaceError, match="no face was found in any of the 30 frames"):
        drawn([[box_at(50, 60)] if 10 <= i < 13 else [] for i in range(30)])


def test_no_face_and_too_small_a_face_are_one_sentence():
    with pytest.raises(NoFaceError, match=r"^no face was found in any of the 30 frames: the video must show a face$"):
        drawn([[]] * 30)
    with pytest.raises(NoFaceError, match=r"^no face was found: the video holds no frames$"):
        drawn([])
    with pytest.raises(
        NoFaceError, match=r"^the face is about 22 px high, at least 24 px are needed: use a larger video$"
    ):
        drawn([[box_at(50, 60, 22)]] * 12)
    _, landmarks = drawn([[box_at(50, 60, 22)]] * 12, believe=BeliefConfig(min_face_px=10))
    assert landmarks.valid.all()
    with pytest.raises(NoFaceError, match="no face was found"):
        drawn([[box_at(50, 60, 22)]] * 12, follow=FollowConfig(min_face_px=30))


def test_one_face_that_is_large_enough_is_enough():
    sights = sights_of([*(noisy(r, size=15) for r in range(40)), *(noisy(r, 1, size=30) for r in range(20, 30))])
    table = table_of(sights, [[0], [1]], 40)
    assert len(table) == 2
    check_faces(table, sights, 24)
    with pytest.raises(NoFaceError, match=r"about (29|30) px high, at least 31 px are needed"):
        check_faces(table, sights, 31)


def test_progress_is_told_and_frames_are_streamed():
    told, read = [], []

    def frames():
        for index in range(90):
            read.append(index)
            yield make_frame(index, [box_at(50, 60)])

    track_and_landmark(
        frames(), SquareLandmarker(), SquareDetector(), progress=lambda *event: told.append((event, len(read)))
    )
    assert [event for event, _ in told] == [("track", done, 0) for done in range(1, 91)]
    assert max(count - event[1] for event, count in told) < 50, "two seconds are held at most"


# --- real clips -------------------------------------------------------------------------------------------------------


def test_demo_clip_through_the_hand_before_the_mouth(demo_dir, real):
    track, landmarks = track_and_landmark(read_frames(demo_dir / DEMO_CLIP, 50, 130), *real)
    assert landmarks.valid.all()
    assert np.median(face_height_px(landmarks.points)) == pytest.approx(262, abs=20)
    assert (np.diff(track.boxes, axis=0) < 20).all()
    assert track.confidence.min() > 0.5


def test_small_face_of_carphone(demo_dir, real):
    _, landmarks = track_and_landmark(read_frames(demo_dir / "carphone_pristine.mp4", 0, 60), *real)
    assert landmarks.valid.all()
    assert np.median(face_height_px(landmarks.points)) == pytest.approx(60, abs=6)
    with pytest.raises(NoFaceError, match="at least 100 px"):
        clip = read_frames(demo_dir / "carphone_pristine.mp4", 0, 10)
        track_and_landmark(clip, *real, believe=BeliefConfig(min_face_px=100))


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


def test_cuts_give_a_face_only_where_there_is_one(shared_clips, real):
    clip = shared_clips / "promo_cuts_noface_320x180_30fps.mp4"
    _, landmarks = track_and_landmark(read_frames(clip, 45, 115), *real)
    assert landmarks.valid[11:26].all()
    assert not landmarks.valid[30:].any()


def test_a_profile_stays_followed(shared_clips, real):
    clip = shared_clips / "lectern_profile_editlist_640x360_30fps.mp4"
    _, landmarks = track_and_landmark(read_frames(clip, 240, 310), *real)
    assert landmarks.valid.all()


@pytest.mark.parametrize("quarters", [1, 2])
def test_a_face_that_lies_or_hangs_upside_down_is_followed_like_an_upright_one(demo_dir, real, quarters):
    """Turned in the pixels, so no display matrix tells of it; the landmarks are the upright ones, turned."""
    upright = list(read_frames(demo_dir / "single_face.mp4", 0, 16))
    height, width = upright[0].size_hw
    turned = [
        replace(frame, planes=tuple(np.ascontiguousarray(np.rot90(plane, quarters)) for plane in frame.planes))
        for frame in upright
    ]
    _, expected = track_and_landmark(upright, *real)
    _, found = track_and_landmark(turned, *real)
    assert found.valid.all()
    x, y = expected.points[..., 0], expected.points[..., 1]
    wanted = np.stack([y, width - x] if quarters == 1 else [width - x, height - y], axis=-1)
    error = np.linalg.norm(found.points - wanted, axis=-1).mean() / inter_ocular_px(wanted).mean()
    assert error < 0.03
