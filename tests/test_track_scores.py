"""The judge is judged: tables made up so that every figure is known beforehand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.structures.boxes import BoundingBox
from modules.structures.tracks import FaceTrack, FrameStatus, track_of_boxes
from tests.support.annotations import DATA_DIR, FaceAnnotation, FaceSpan, IgnoredRegion, Person, load_annotation
from tests.support.track_scores import (
    box_jitter,
    failures,
    false_faces_of,
    score_table,
    table_of_tracks,
    text_table,
)

FRAMES = 20
LEFT, RIGHT = BoundingBox(10, 10, 50, 60), BoundingBox(110, 10, 150, 60)


def person(name, box, *spans):
    return Person(name, tuple(FaceSpan(first, stop, {first: box}) for first, stop in spans or [(0, FRAMES)]))


def annotated(*people, cuts=(), ignore=()):
    return FaceAnnotation("made_up.mp4", FRAMES, tuple(cuts), people, tuple(ignore))


TWO = annotated(person("A", LEFT), person("B", RIGHT))


def track(*boxes):
    """A face that is seen in ``boxes`` from frame 0 on; None is not seen."""
    rows = np.array([box.as_array() if box is not None else np.full(4, np.nan) for box in boxes])
    return track_of_boxes(rows, np.array([box is not None for box in boxes]))


def table(*tracks):
    return table_of_tracks(tracks, (200, 200), np.arange(FRAMES) / 25)


def scored(annotation, *tracks, **options):
    return score_table(table(*tracks), annotation, **options)


def test_a_perfect_table():
    scores = scored(TWO, track(*[LEFT] * FRAMES), track(*[RIGHT] * FRAMES))
    assert (scores.precision, scores.recall, scores.mean_iou) == (1.0, 1.0, 1.0)
    assert (scores.swaps, scores.relinks, scores.jitter) == (0, 0, 0.0)
    assert scores.fragments == {"A": 1, "B": 1}
    assert len(scores.meetings) == 2 * FRAMES
    assert failures(scores) == ""


def test_nothing_followed_is_precise_and_recalls_nothing():
    scores = scored(TWO)
    assert (scores.precision, scores.recall) == (1.0, 0.0)
    assert np.isnan(scores.jitter)
    assert np.isnan(scores.mean_iou)
    assert scored(annotated()).recall == 1.0


def test_missed_frames_cost_recall_and_extra_faces_cost_precision():
    scores = scored(
        TWO,
        track(*[LEFT] * 15, *[None] * 5),
        track(*[RIGHT] * FRAMES),
        track(*[LEFT.shifted(0, 100)] * 5),
    )
    assert scores.recall == 35 / 40
    assert scores.precision == 35 / 40
    assert scores.missed == tuple((frame, "A") for frame in range(15, 20))
    assert {face for _, face in scores.false} == {2}
    assert failures(scores) == "missed A: 15-19\nfalse, face 2: 0-4"


def test_a_second_face_on_one_person_is_false_and_the_closer_one_counts():
    scores = scored(annotated(person("A", LEFT)), track(*[LEFT.shifted(4, 0)] * FRAMES), track(*[LEFT] * FRAMES))
    assert scores.mean_iou == 1.0
    assert scores.recall == 1.0
    assert scores.precision == 0.5


def test_pairs_are_those_of_the_most_overlap_in_all():
    """A face between two people goes to the one the other face cannot reach."""
    first, second = BoundingBox(0, 0, 40, 40), BoundingBox(14, 0, 54, 40)
    between, aside = BoundingBox(10, 0, 50, 40), BoundingBox(22, 0, 62, 40)
    assert between.iou(second) > between.iou(first) > 0.35 > first.iou(aside)
    scores = scored(
        annotated(person("A", first), person("B", second)), track(*[between] * FRAMES), track(*[aside] * FRAMES)
    )
    assert (scores.precision, scores.recall, scores.swaps) == (1.0, 1.0, 0)
    assert {(meeting.face, meeting.person) for meeting in scores.meetings} == {(0, "A"), (1, "B")}


@pytest.mark.parametrize(("shift", "met"), [(19.0, True), (19.6, False)])
def test_the_least_overlap(shift, met):
    """Two boxes 40 wide, apart by s, share (40 - s) / (40 + s): 0.35 at s = 19.26."""
    scores = scored(annotated(person("A", LEFT)), track(*[LEFT.shifted(shift, 0)] * FRAMES))
    assert (scores.recall, scores.precision) == ((1.0, 1.0) if met else (0.0, 0.0))
    assert scored(annotated(person("A", LEFT)), track(*[LEFT.shifted(shift, 0)] * FRAMES), min_iou=0.3).recall == 1.0


def test_only_the_statuses_asked_about_count():
    status = np.full(FRAMES, FrameStatus.DETECTED, np.uint8)
    status[5:8], status[8:10] = FrameStatus.PROFILE, FrameStatus.PREDICTED
    face = FaceTrack(np.tile(LEFT.as_array(), (FRAMES, 1)), status, np.ones(FRAMES, np.float32))
    truth = annotated(person("A", LEFT))
    assert scored(truth, face).recall == 15 / 20
    assert scored(truth, face, counted=[FrameStatus.DETECTED, FrameStatus.PROFILE]).recall == 18 / 20
    assert scored(annotated(), face, counted=[FrameStatus.PREDICTED]).false == ((8, 0), (9, 0))


def test_ignored_regions_neither_ask_nor_punish():
    truth = annotated(person("A", LEFT), ignore=[IgnoredRegion(0, 10, RIGHT), IgnoredRegion(15, 20, None)])
    scores = scored(truth, track(*[LEFT] * 5), track(*[RIGHT] * FRAMES))
    assert scores.missed == tuple((frame, "A") for frame in range(5, 15))
    assert len(scores.meetings) == 5
    assert scores.false == tuple((frame, 0) for frame in range(10, 15)), "the larger face is number 0"


def test_a_marked_false_face_is_punished_even_where_all_is_ignored():
    truth = annotated(ignore=[IgnoredRegion(0, FRAMES, None)])
    marked = [IgnoredRegion(0, 10, RIGHT.scaled(1.5))]
    scores = scored(truth, track(*[RIGHT] * FRAMES), false_faces=marked)
    assert scores.on_false_faces == len(scores.false) == 10
    assert scores.precision == 0.0
    assert scored(truth, track(*[LEFT] * FRAMES), false_faces=marked).precision == 1.0


def test_a_face_that_changes_its_person_is_a_swap_each_time():
    scores = scored(TWO, track(*[LEFT] * 5, *[None] * 3, *[RIGHT] * 5, *[LEFT] * 7))
    assert (scores.precision, scores.swaps, scores.relinks) == (1.0, 2, 0)
    assert failures(scores).endswith("swap, face 0: A at 4 to B at 8\nswap, face 0: B at 12 to A at 13")
    assert scores.fragments == {"A": 1, "B": 1}


def test_two_faces_that_trade_places_are_two_swaps():
    scores = scored(TWO, track(*[LEFT] * 9, *[RIGHT] * 11), track(*[RIGHT] * 9, *[LEFT] * 11))
    assert (scores.precision, scores.recall, scores.swaps) == (1.0, 1.0, 2)
    assert scores.fragments == {"A": 2, "B": 2}


def test_a_swap_over_a_cut_is_a_wrong_relink():
    truth = annotated(person("A", LEFT, (0, 8)), person("B", RIGHT, (8, 14), (14, 20)), cuts=[8, 14])
    scores = scored(truth, track(*[LEFT] * 8, *[RIGHT] * 12))
    assert (scores.swaps, scores.relinks) == (1, 1)
    apart = scored(truth, track(*[LEFT] * 8), track(*[None] * 8, *[RIGHT] * 6), track(*[None] * 14, *[RIGHT] * 6))
    assert (apart.swaps, apart.fragments) == (0, {"A": 1, "B": 2})


def test_small_faces_can_be_left_out():
    small = BoundingBox(10, 10, 26, 30)
    truth = annotated(person("A", small), person("B", RIGHT))
    faces = track(*[small] * FRAMES), track(*[RIGHT] * 10)
    scores = scored(truth, *faces, min_height_px=24.0)
    assert (scores.precision, scores.recall, len(scores.meetings)) == (1.0, 0.5, 10)
    assert scored(truth, *faces).recall == 0.75


def test_jitter_is_the_second_difference_in_face_sizes():
    """x = t² moves with a second difference of 2 px; the side is 40 px."""
    t = np.arange(12.0)
    boxes = np.stack([t**2, 0 * t, t**2 + 40, 0 * t + 40], axis=1)
    assert box_jitter(boxes) == pytest.approx(np.full(10, (2 / 40) ** 2))
    assert len(box_jitter(boxes, [6])) == 8
    boxes[3] = np.nan
    assert len(box_jitter(boxes)) == 7
    assert len(box_jitter(boxes[:2])) == 0


def test_jitter_does_not_look_across_cuts():
    truth = annotated(cuts=[10])
    face = track(*[LEFT] * 10, *[RIGHT] * 10)
    assert scored(truth, face).jitter == 0.0
    leaps = 2 * (100**2 / LEFT.area) / (FRAMES - 2)
    assert scored(annotated(), face).jitter == pytest.approx(np.sqrt(leaps))


def test_a_table_of_another_length_is_refused():
    short = table_of_tracks([], (200, 200), np.arange(FRAMES - 1) / 25)
    with pytest.raises(ValueError, match=r"made_up\.mp4: the table has 19 frames, not 20"):
        score_table(short, TWO)


def test_the_text_table_has_a_line_per_clip():
    scores = scored(TWO, track(*[LEFT] * FRAMES))
    lines = text_table({"one.mp4": scores, "another.mp4": scores}).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["one.mp4", "40", "1.000", "0.500", "0", "0", "0", "0", "1", "1.00", "0.0000"]
    assert len(lines[0].split()) == len(lines[1].split())


@settings(max_examples=25)
@given(st.lists(st.sampled_from(["left", "right", "aside", "gone"]), min_size=2 * FRAMES, max_size=2 * FRAMES))
def test_every_asked_face_is_met_or_missed_and_every_counted_one_met_or_false(places):
    boxes = {"left": LEFT, "right": RIGHT, "aside": LEFT.shifted(0, 100), "gone": None}
    faces = [[boxes[place] for place in places[start : start + FRAMES]] for start in (0, FRAMES)]
    scores = scored(TWO, *(track(*face) for face in faces))
    counted = sum(box is not None for face in faces for box in face)
    assert len(scores.meetings) + len(scores.missed) == 2 * FRAMES
    assert len(scores.meetings) + len(scores.false) == counted
    turned = scored(TWO, *(track(*face) for face in reversed(faces)))
    assert (turned.precision, turned.recall) == (scores.precision, scores.recall)


def test_the_skull_is_marked():
    clip = "signing_help_hands_640x480_30fps.mkv"
    (skull,) = false_faces_of(clip)
    truth = load_annotation(DATA_DIR / "faces_signing_help_hands_640x480_30fps.json")
    assert (skull.first, skull.stop) == (0, truth.frames)
    print_box = skull.box
    assert print_box is not None
    assert all(box.iou(print_box) == 0.0 for frame in range(truth.frames) for box in truth.faces_at(frame).values())
    assert false_faces_of("coffee_no_face_1280x720_30fps.mp4") == ()
