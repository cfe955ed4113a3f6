"""From sightings with chosen numbers to faces: belief, statuses, gaps, confidence and order."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video.appearance import FaceLook
from data_gen.utils.process_video.face_geometry import landmark_box
from data_gen.utils.process_video.face_table import (
    BeliefConfig,
    believed,
    frame_confidence,
    frame_status,
    gather_looks,
    gather_sights,
    liveliness,
)
from data_gen.utils.process_video.observation_log import Observations
from modules.structures.landmarks import face_height_px, lip_opening
from modules.structures.tracks import FrameStatus
from tests.data_gen.utils.process_video.face_sights import sighting, sights_of, table_of

DETECTED, LOST, PREDICTED = FrameStatus.DETECTED, FrameStatus.LOST, FrameStatus.PREDICTED
WHOLE = [(0, 1000)]


def scored(scores, **given_):
    """One sight per score, from frame 0 on."""
    return sights_of(sighting(row, score=score, **given_) for row, score in enumerate(scores))


def seen_at(rows, track=0, **given_):
    return [sighting(row, track, score=0.9, **given_) for row in rows]


# --- gathering --------------------------------------------------------------------------------------------------------


def test_sights_come_by_track_and_frame_with_what_their_landmarks_say():
    segments = [
        Observations.of([sighting(0, 3, size=50), sighting(0, 1), sighting(1, 3, size=52)]),
        Observations.of([]),
        Observations.of([sighting(4, 1, yaw=0.4), sighting(3, 1), sighting(2, 1)]),  # followed back from frame 4
    ]
    sights = gather_sights(segments)
    assert sights.tracks.tolist() == [1, 1, 1, 1, 3, 3]
    assert sights.rows.tolist() == [0, 2, 3, 4, 0, 1]
    for number, (row, track) in enumerate(zip(sights.rows, sights.tracks, strict=True)):
        source = next(s for s in segments if ((s.rows == row) & (s.tracks == track)).any())
        place = int(np.flatnonzero((source.rows == row) & (source.tracks == track))[0])
        points = source.points[place]
        np.testing.assert_array_equal(sights.boxes[number], landmark_box(points).as_array())
        assert sights.height[number] == np.float32(face_height_px(points))
        assert sights.opening[number] == np.float32(lip_opening(points))
        np.testing.assert_array_equal(sights.blendshapes[number], source.blendshapes[place])
    np.testing.assert_allclose(sights.yaw, [0, 0, 0, 0.4, 0, 0], atol=1e-6)


def test_of_two_sights_of_a_track_in_one_frame_the_first_counts():
    first, second = sighting(5, size=60), sighting(5, size=90)
    sights = gather_sights([Observations.of([sighting(4), first]), Observations.of([second, sighting(6)])])
    assert sights.rows.tolist() == [4, 5, 6]
    np.testing.assert_allclose(sights.height, 60, atol=1e-4)
    assert len(gather_sights([Observations.of([first, second])])) == 1


def test_a_log_without_a_sight_gives_an_empty_table():
    assert len(gather_sights([])) == len(gather_sights([Observations.of([])])) == 0
    table = table_of(gather_sights([]), [], 8)
    assert len(table) == 0
    assert table.shots == [(0, 8)]


def test_looks_at_a_track_add_up_over_segments():
    def look(level):
        made = FaceLook()
        made.colour_sum += level
        made.colour_count += 1
        return made

    def looked_at(row, track, level):
        return replace(sighting(row, track), look=look(level))

    segments = [
        Observations.of([looked_at(0, 2, 10.0), sighting(1, 2), looked_at(1, 7, 1.0)]),
        Observations.of([looked_at(9, 2, 30.0)]),
    ]
    looks = gather_looks(segments)
    assert sorted(looks) == [2, 7]
    np.testing.assert_array_equal(looks[2].colour_sum, 40)
    np.testing.assert_array_equal(looks[2].colour_count, 2)
    np.testing.assert_array_equal(looks[7].colour_sum, 1)


# --- belief -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "shots", "expected"),
    [
        ([0.9] * 5, WHOLE, True),
        ([0.9] * 4, WHOLE, False),
        ([0.9] * 3, [(0, 3), (3, 1000)], True),
        ([0.9] * 2, [(0, 3), (3, 1000)], False),
        ([0.9] + [np.nan] * 9, WHOLE, True),
        ([np.nan] * 10, WHOLE, False),
        ([0.9, 0.0] * 5, WHOLE, True),
        ([0.9, 0.0, 0.0] * 4, WHOLE, False),
        ([0.0] * 10, WHOLE, False),
        ([0.61] * 10, WHOLE, True),
        ([0.59] * 10, WHOLE, False),
        ([0.95] + [0.5] * 9, WHOLE, False),
    ],
    ids=[
        "five frames", "four frames", "all of a short shot", "part of a short shot", "asked once", "never asked",
        "half agreed", "a third agreed", "denied", "sure enough", "not sure enough", "sure once",
    ],
)  # fmt: skip
def test_what_is_believed(scores, shots, expected):
    assert believed(scored(scores), shots, BeliefConfig()) is expected


def test_pieces_of_one_person_are_believed_together():
    sights = sights_of([*seen_at(range(3)), *seen_at(range(6, 9), 1)])
    assert len(table_of(sights, [[0], [1]], 10)) == 0
    (face,) = table_of(sights, [[0, 1]], 10).faces
    assert face.tracks == (0, 1)


# --- statuses ---------------------------------------------------------------------------------------------------------


def test_what_the_nearest_look_denied_is_covered():
    status = frame_status(scored([0.9, np.nan, np.nan, np.nan, 0.0, np.nan, np.nan, 0.8]), BeliefConfig())
    covered = [row for row, value in enumerate(status) if value == FrameStatus.OCCLUDED]
    assert covered == [3, 4, 5], "row 2 is as near to both: the earlier look counts"
    assert (np.delete(status, covered) == DETECTED).all()


@given(st.lists(st.sampled_from([np.nan, 0.0, 0.7]), min_size=1, max_size=40), st.integers(0, 2**31))
def test_the_nearest_look_is_that_of_comparing_with_every_look(scores, seed):
    rows = np.sort(np.random.default_rng(seed).choice(200, len(scores), replace=False))
    sights = sights_of(sighting(int(row), score=score) for row, score in zip(rows, scores, strict=True))
    expected = []
    for row in rows:
        looks = [(abs(int(row) - int(r)), score) for r, score in zip(rows, scores, strict=True) if score == score]
        expected.append(FrameStatus.OCCLUDED if looks and min(looks, key=lambda x: x[0])[1] == 0 else DETECTED)
    assert frame_status(sights, BeliefConfig()).tolist() == expected


def test_statuses_of_a_long_face_take_little_memory():
    """A table of every frame against every look would take 6 GB here."""
    few = scored([0.9] * 4)
    count = 40_000
    places = np.arange(count) % 4
    many = replace(
        few.take(places), rows=np.arange(count),
        detector_score=np.where(np.arange(count) % 4 == 0, np.float32(0.9), np.float32(np.nan)),
    )  # fmt: skip
    tracemalloc.start()
    assert (frame_status(many, BeliefConfig()) == DETECTED).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(("degrees", "status"), [(60, DETECTED), (70, FrameStatus.PROFILE), (-70, FrameStatus.PROFILE)])
def test_a_face_turned_far_is_a_profile(degrees, status):
    assert (frame_status(scored([0.9] * 6, yaw=np.radians(degrees)), BeliefConfig()) == status).all()


def test_size_goes_before_profile_and_profile_before_cover():
    assert (frame_status(scored([0.0] * 6, yaw=1.3), BeliefConfig()) == FrameStatus.PROFILE).all()
    assert (frame_status(scored([0.0] * 6, yaw=1.3, size=20), BeliefConfig()) == FrameStatus.TOO_SMALL).all()


def test_a_face_about_as_high_as_the_limit_does_not_flicker():
    sizes = 24.4 + np.random.default_rng(0).normal(scale=0.6, size=80)
    sights = sights_of(sighting(row, size=float(size), score=0.9) for row, size in enumerate(sizes))
    assert (sights.height < 24).any()
    assert (frame_status(sights, BeliefConfig()) == DETECTED).all()
    growing = sights_of(sighting(row, size=10.0 + row / 2, score=0.9) for row in range(60))
    status = frame_status(growing, BeliefConfig())
    assert np.count_nonzero(np.diff((status == DETECTED).astype(int))) == 1
    assert np.flatnonzero(status == DETECTED)[0] == pytest.approx(28, abs=2)


# --- confidence -------------------------------------------------------------------------------------------------------


def test_confidence_is_presence_times_what_the_detector_said():
    np.testing.assert_allclose(frame_confidence(scored([0.8] * 30, presence=0.5)), 0.4, rtol=1e-5)
    sparse = frame_confidence(scored([0.8 if row % 10 == 0 else np.nan for row in range(30)]))
    np.testing.assert_allclose(sparse, 0.8, rtol=1e-5)
    assert (frame_confidence(scored([np.nan] * 5)) == 0).all()


def test_confidence_falls_smoothly_where_the_detector_stops_agreeing():
    confidence = frame_confidence(scored([0.9 if row < 30 else 0.0 for row in range(60)]))
    assert confidence[0] == pytest.approx(0.9, abs=1e-3)
    assert confidence[-1] == pytest.approx(0, abs=1e-3)
    steps = np.diff(confidence)
    assert (steps <= 1e-6).all()
    assert steps.min() > -0.1
    assert confidence.dtype == np.float32


# --- faces over time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gap", "status"), [(1, PREDICTED), (4, PREDICTED), (5, LOST), (20, LOST)])
def test_only_short_gaps_are_predicted(gap, status):
    rows = [*range(3, 20), *range(20 + gap, 40 + gap)]
    (face,) = table_of(sights_of(seen_at(rows)), [[0]], 80).faces
    assert (face.track.first_frame, len(face.track)) == (3, 37 + gap)
    assert face.track.status.tolist() == [DETECTED] * 17 + [status] * gap + [DETECTED] * 20
    missing = slice(17, 17 + gap)
    assert (face.track.confidence[missing] == 0).all()
    assert np.isnan(face.opening[missing]).all()
    assert np.isfinite(np.delete(face.opening, np.arange(17, 17 + gap))).all()
    assert np.isfinite(face.track.boxes).all()


def test_gaps_are_short_in_seconds_not_in_frames():
    rows = [*range(10), *range(15, 25)]
    at_60 = table_of(sights_of(seen_at(rows)), [[0]], 25, times_s=np.arange(25) / 60).faces[0]
    at_12 = table_of(sights_of(seen_at(rows)), [[0]], 25, times_s=np.arange(25) / 12).faces[0]
    assert (at_60.track.status[10:15] == PREDICTED).all()
    assert (at_12.track.status[10:15] == LOST).all()


@pytest.mark.parametrize(("cut", "status"), [(9, PREDICTED), (10, LOST), (11, LOST), (12, LOST), (13, PREDICTED)])
def test_nothing_is_predicted_across_a_cut(cut, status):
    """Seen up to frame 9 and again from frame 12 on: a cut at 10, 11 or 12 lies in the gap."""
    sights = sights_of(seen_at([*range(10), *range(12, 20)]))
    (face,) = table_of(sights, [[0]], 20, starts=(0, cut)).faces
    assert (face.track.status[10:12] == status).all()


def test_boxes_are_smoothed_and_predicted_within_a_shot_and_leap_at_a_cut():
    def at(row):
        return (40.0 + row, 40.0) if row < 20 else (150.0, 90.0)

    noisy = [sighting(r, at=at(r), score=0.9, noise=0.5) for r in range(40) if r not in (8, 9)]
    (face,) = table_of(sights_of(noisy), [[0]], 40, starts=(0, 20)).faces
    left = face.track.boxes[:, 0]
    truth = np.array([landmark_box(sighting(r, at=at(r)).result.points).x0 for r in range(40)])
    raw = np.array([landmark_box(s.result.points).x0 for s in noisy])
    seen = np.delete(np.arange(40), [8, 9])
    assert np.abs(np.diff(left[21:], 2)).mean() < 0.5 * np.abs(np.diff(raw[19:], 2)).mean(), "smoother"
    np.testing.assert_allclose(left[8:10], truth[8:10], atol=4, err_msg="bridged")
    np.testing.assert_allclose(left[[19, 20]], raw[np.searchsorted(seen, [19, 20])], atol=3, err_msg="not over the cut")


def test_a_shot_without_the_person_is_lost():
    sights = sights_of([*seen_at(range(10)), *seen_at(range(30, 40), 1, at=(120, 60))])
    (face,) = table_of(sights, [[0, 1]], 50, starts=(0, 10, 30)).faces
    assert face.track.status.tolist() == [DETECTED] * 10 + [LOST] * 20 + [DETECTED] * 10
    np.testing.assert_array_equal(face.track.boxes[10:30], np.repeat(face.track.boxes[9:10], 20, axis=0))


def test_the_face_with_most_area_over_time_comes_first_and_of_equals_the_earlier():
    large_but_short = seen_at(range(12, 18), 0, size=80)
    small_but_long = seen_at(range(30), 1, size=50)
    late, early = seen_at(range(10, 20), 2, size=30), seen_at(range(10), 3, size=30)
    sights = sights_of([*large_but_short, *small_but_long, *late, *early])
    table = table_of(sights, [[0], [1], [2], [3]], 30)
    assert [face.tracks for face in table.faces] == [(1,), (0,), (3,), (2,)]
    areas = [face.area for face in table.faces]
    assert areas == sorted(areas, reverse=True)


def test_what_is_no_face_is_left_out():
    sights = sights_of([*seen_at(range(20)), *(sighting(r, 1, score=0.0, at=(120, 40)) for r in range(20))])
    assert [face.tracks for face in table_of(sights, [[0], [1]], 20).faces] == [(0,)]


def test_what_never_changes_its_expression_is_left_out_beside_faces_that_do():
    living, statue = seen_at(range(30)), seen_at(range(30), 1, size=90, at=(120, 40), expression=0.01)
    assert [face.tracks for face in table_of(sights_of([*living, *statue]), [[0], [1]], 30).faces] == [(0,)]
    assert [face.tracks for face in table_of(sights_of(statue), [[1]], 30).faces] == [(1,)], "a video of a portrait"
    assert liveliness(sights_of(living)) > 0.02 > 0.009 > liveliness(sights_of(statue))


def test_of_what_was_seen_briefly_nobody_knows_whether_it_lives():
    living, brief = seen_at(range(30)), seen_at(range(9), 1, at=(120, 40), expression=0.0)
    assert len(table_of(sights_of([*living, *brief]), [[0], [1]], 30)) == 2
    assert liveliness(sights_of(brief)) == np.inf
    portrait = seen_at(range(30), 0, expression=0.0)
    assert len(table_of(sights_of([*portrait, *brief]), [[0], [1]], 30)) == 2, (
        "so it does not cost a portrait its place"
    )


@settings(max_examples=30)
@given(st.lists(st.integers(0, 79), min_size=5, max_size=60, unique=True), st.sets(st.integers(1, 79), max_size=4))
def test_every_row_of_a_face_is_a_sight_a_short_gap_or_lost(rows, cuts):
    starts = (0, *sorted(cuts))
    table = table_of(sights_of(seen_at(sorted(rows))), [[0]], 80, starts=starts)
    (face,) = table.faces
    track = table.track_over_video(0)
    assert np.flatnonzero(track.is_detected).tolist() == sorted(rows)
    assert np.isfinite(face.track.boxes).all()
    for row in np.flatnonzero(track.status == PREDICTED):
        before, after = max(r for r in rows if r < row), min(r for r in rows if r > row)
        assert (after - before) / 25 <= BeliefConfig().max_bridge_s + 1e-9
        assert not any(before < cut <= after for cut in cuts)
    for row in np.flatnonzero(track.status == LOST):
        assert track.confidence[row] == 0
