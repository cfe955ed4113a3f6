"""Whether the face of a frame can be repainted: one rule for the job and the evaluation."""

import numpy as np
import pytest

from inference.usable_faces import CLEAN_COVER, MAX_COVER, MAX_RESIDUAL, FaceEvidence, hidden_mouths
from modules.structures.spans import Reason
from modules.structures.tracks import FrameStatus

FREE = 0.0
HAND = (CLEAN_COVER + MAX_COVER) / 2


def evidence(*rows, status=None):
    """Of (valid, residual, coverage) per frame."""
    valid, residual, coverage = zip(*rows, strict=True)
    return FaceEvidence(
        np.array(valid), np.array(residual, np.float32), np.array(coverage, np.float32),
        None if status is None else np.array(status, np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("valid", "residual", "coverage", "expected"),
    [
        (True, 0.02, FREE, Reason.EDITED),
        (True, MAX_RESIDUAL, CLEAN_COVER, Reason.EDITED),
        (True, 0.2, FREE, Reason.POOR_FIT),
        (True, np.nan, FREE, Reason.POOR_FIT),
        (True, 0.2, HAND, Reason.EDITED),  # hidden points are guesses: they say nothing of the fit
        (True, 0.2, MAX_COVER + 0.01, Reason.COVERED),
        (True, 0.02, MAX_COVER + 0.01, Reason.COVERED),
        (False, np.nan, FREE, Reason.NO_FACE),
    ],
)
def test_what_the_fit_and_the_hands_say(valid, residual, coverage, expected):
    assert evidence((valid, residual, coverage)).reasons() == (expected,)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (FrameStatus.DETECTED, Reason.EDITED),
        (FrameStatus.PREDICTED, Reason.LOST),
        (FrameStatus.LOST, Reason.LOST),
        (FrameStatus.OCCLUDED, Reason.COVERED),
        (FrameStatus.PROFILE, Reason.PROFILE),
        (FrameStatus.TOO_SMALL, Reason.TOO_SMALL),
    ],
)
def test_what_following_says_comes_first(status, expected):
    assert evidence((True, 0.02, FREE), status=[status]).reasons() == (expected,)
    if status is not FrameStatus.DETECTED:
        assert evidence((False, np.nan, FREE), status=[status]).reasons() == (expected,)


def test_every_status_has_an_answer():
    for status in FrameStatus:
        (reason,) = evidence((True, 0.02, FREE), status=[status]).reasons()
        assert (reason is Reason.EDITED) == (status is FrameStatus.DETECTED)


def test_a_found_face_without_a_fit_is_not_used():
    assert evidence((False, np.nan, FREE), status=[FrameStatus.DETECTED]).reasons() == (Reason.NO_FACE,)


def test_the_limit_can_be_chosen():
    assert evidence((True, 0.1, FREE)).reasons(max_residual=0.2) == (Reason.EDITED,)


def test_only_frames_whose_neighbours_answer_for_them_are_bridged():
    rows = [(True, 0.02, FREE)] * 7
    rows[3] = (True, 1.4 * MAX_RESIDUAL, FREE)
    rows[5] = (True, 1.6 * MAX_RESIDUAL, FREE)
    assert evidence(*rows).bridgeable().tolist() == [True, True, True, True, True, False, True]
    status = [FrameStatus.DETECTED] * 7
    status[1], status[4] = FrameStatus.PREDICTED, FrameStatus.LOST
    rows[1] = rows[4] = (False, np.nan, FREE)
    assert evidence(*rows, status=status).bridgeable().tolist() == [True, True, True, True, False, False, True]
    rows[2] = (True, 0.02, HAND)  # what covers the frame beside it may cover the predicted mouth
    assert evidence(*rows, status=status).bridgeable().tolist() == [True, False, False, False, False, False, True]


@pytest.mark.parametrize("status", [FrameStatus.OCCLUDED, FrameStatus.LOST])
def test_a_hidden_or_lost_face_is_never_bridged(status):
    assert not evidence((True, 0.02, FREE), status=[status]).bridgeable().any()


@pytest.mark.parametrize("status", [FrameStatus.PROFILE, FrameStatus.TOO_SMALL])
def test_a_face_that_is_seen_at_the_limit_is_bridged_with_its_own_fit(status):
    assert evidence((True, 0.02, FREE), status=[status]).bridgeable().all()
    assert not evidence((False, np.nan, FREE), status=[status]).bridgeable().any()


def test_tables_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="disagree"):
        FaceEvidence(np.ones(2, bool), np.zeros(2, np.float32), np.zeros(3, np.float32))


def clear_face(count, **more):
    return FaceEvidence(
        np.ones(count, bool), np.full(count, 0.02, np.float32), np.zeros(count, np.float32), **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mouth", "hidden"),
    [
        ([0, 0.4, 0.49, 0.4, 0], [0, 0, 0, 0, 0]),  # never reaches the upper threshold
        ([0, 0.4, 0.7, 0.4, 0.2, 0.4], [0, 1, 1, 1, 0, 0]),  # holds on until the lower one, on both sides
        ([1, 1], [1, 1]),
        ([], []),
    ],
)
def test_a_hidden_mouth_has_two_thresholds(mouth, hidden):
    assert hidden_mouths(np.array(mouth, np.float32)).tolist() == [bool(value) for value in hidden]


def test_a_hidden_mouth_is_covered_and_a_doubtful_one_unsure():
    mouth, unsure = np.array([0, 0.9, 0.9, 0], np.float32), np.array([0, 0, 1, 1], bool)
    reasons = clear_face(4, mouth=mouth, unsure=unsure).reasons()
    assert reasons == (Reason.EDITED, Reason.COVERED, Reason.COVERED, Reason.UNSURE)
    assert str(Reason.COVERED) == "occluded"


def test_no_face_says_more_than_what_is_in_front_of_it():
    gone = FaceEvidence(
        np.zeros(1, bool), np.array([np.nan], np.float32), np.zeros(1, np.float32), mouth=np.ones(1, np.float32),
        unsure=np.ones(1, bool),
    )  # fmt: skip
    assert gone.reasons() == (Reason.NO_FACE,)
