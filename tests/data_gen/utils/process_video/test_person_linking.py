"""Which tracks are one person: by place and time, by looks, and never against either."""

import numpy as np
import pytest

from data_gen.utils.process_video.appearance import PATCHES, STEADY, FaceLook
from data_gen.utils.process_video.face_table import Sights
from data_gen.utils.process_video.person_linking import LinkConfig, chain_tracks, link_persons

RED, BLUE = (50.0, 60.0, 40.0), (40.0, 10.0, -50.0)
TIMES = np.arange(400) / 25


def sights(*tracks):
    """Sightings of tracks given as (first row, count, x of the first box, px per frame)."""
    rows, numbers, boxes = [], [], []
    for number, (first, count, x, speed) in enumerate(tracks):
        for step in range(count):
            rows.append(first + step)
            numbers.append(number)
            boxes.append([x + speed * step, 50.0, x + speed * step + 40, 90.0])
    count = len(rows)
    zeros = np.zeros(count, np.float32)
    return Sights(
        np.array(rows), np.array(numbers), np.array(boxes), zeros + 40, zeros, zeros, zeros + 1, zeros + 0.9,
        np.zeros((count, 52), np.float32),
    )  # fmt: skip


def look(colour, shape=0.0, sights=5):
    made = FaceLook()
    made.shape_sum = np.full((len(STEADY), 3), shape) * sights
    made.shape_weight = float(sights)
    made.colour_sum = np.tile(np.array(colour), (len(PATCHES), 1)) * sights
    made.colour_count = np.full(len(PATCHES), float(sights))
    return made


def chains(seen, looks=None, shots=((0, 400),)):
    return sorted(chain_tracks(seen, looks or {}, shots, TIMES, LinkConfig()))


def test_a_track_goes_on_where_another_ended():
    assert chains(sights((0, 20, 100, 1), (23, 20, 123, 1))) == [[0, 1]]


@pytest.mark.parametrize(
    ("second", "why"),
    [
        ((23, 20, 220, 0), "too far away"),
        ((60, 20, 119, 0), "too late without a look"),
        ((10, 20, 109, 1), "at the same time"),
    ],
)
def test_what_cannot_be_the_same_face_stays_apart(second, why):
    assert chains(sights((0, 20, 100, 1), second)) == [[0], [1]], why


def test_longer_gaps_need_the_same_colours():
    seen = sights((0, 20, 100, 0), (38, 20, 104, 0))
    assert chains(seen, {0: look(RED), 1: look(RED)}) == [[0, 1]]
    assert chains(seen, {0: look(RED), 1: look(BLUE)}) == [[0], [1]]


def test_who_is_alone_in_a_shot_is_known_again_after_long_and_elsewhere():
    seen = sights((0, 20, 100, 0), (200, 20, 10, 0))
    assert chains(seen, {0: look(RED), 1: look(RED)}) == [[0, 1]]
    assert chains(seen, {0: look(RED), 1: look(BLUE)}) == [[0], [1]]
    crowd = sights((0, 20, 100, 0), (200, 20, 10, 0), (5, 20, 200, 0))
    looks = {0: look(RED), 1: look(RED), 2: look(BLUE)}
    assert chains(crowd, looks) == [[0], [1], [2]], "two were seen at once: it may be anybody"


def test_even_a_short_gap_does_not_join_two_people():
    seen = sights((0, 20, 100, 0), (22, 20, 102, 0))
    assert chains(seen, {0: look(RED), 1: look(BLUE)}) == [[0], [1]]


def test_nothing_is_joined_across_a_cut():
    seen = sights((0, 20, 100, 0), (20, 20, 100, 0))
    assert chains(seen, shots=((0, 20), (20, 400))) == [[0], [1]]


def test_of_two_that_pass_each_other_both_keep_their_own():
    seen = sights((0, 20, 100, 2), (0, 20, 180, -2), (23, 20, 146, 2), (23, 20, 134, -2))
    looks = {0: look(RED), 1: look(BLUE), 2: look(RED), 3: look(BLUE)}
    assert chains(seen, looks) == [[0, 2], [1, 3]]


def test_looks_join_over_cuts_and_long_absences():
    seen = sights((0, 20, 100, 0), (30, 20, 300, 0), (200, 20, 10, 0))
    looks = {0: look(RED, 0.0), 1: look(BLUE, 0.5), 2: look(RED, 0.0)}
    shots = ((0, 25), (25, 100), (100, 400))
    assert link_persons(seen, looks, shots, TIMES, LinkConfig()) == [[0, 2], [1]]


def test_without_looks_tracks_of_different_shots_are_different_people():
    seen = sights((0, 20, 100, 0), (200, 20, 100, 0))
    assert link_persons(seen, {}, ((0, 100), (100, 400)), TIMES, LinkConfig()) == [[0], [1]]
    assert link_persons(sights(), {}, ((0, 400),), TIMES, LinkConfig()) == []
