"""Putting things over frames: exact masks, blur that is a mean over instants, and nothing changed elsewhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh
from data_gen.utils.evaluate_occlusion.overlay import (
    SUBFRAMES,
    grain_of,
    kept_window,
    occluded_frames,
    places_of,
    skin_color,
)
from data_gen.utils.evaluate_occlusion.specification import SHUTTER, Kind, Pose2D, SequenceSpec, Way
from modules.commons.workspace import OCCLUDER_HAND_FILE
from modules.video.colour import rgb_from_planes
from tests.data_gen.utils.evaluate_occlusion.made_up import FACE_PX, SIDE, face_points, grey_frames

FRAME_S = 0.04
FAST = Way(Pose2D(-1.2, 0.0), Pose2D(1.2, 0.0), Pose2D(1.2, 0.1), (0.0, 0.4, 0.5, 0.6), wobble=0.0)
STILL = Way(Pose2D(0, 0), Pose2D(0, 0), Pose2D(0, 0), (0.0, 0.1, 0.2, 0.3), wobble=0.0)


@pytest.fixture(scope="module")
def hand() -> HandMesh:
    return HandMesh.load(OCCLUDER_HAND_FILE)


def spec(kind: Kind = "phone", way: Way = STILL, **others) -> SequenceSpec:
    return SequenceSpec("one", "clip", kind, way, **others)


def made(one: SequenceSpec, hand: HandMesh, n_frames: int = 12) -> list:
    return list(occluded_frames(grey_frames(n_frames), face_points(n_frames), one, hand, FRAME_S))


def test_frames_without_the_thing_are_the_clips_own(hand):
    frames = grey_frames(12)
    got = list(occluded_frames(frames, face_points(12), spec(), hand, FRAME_S))
    assert got[-1].frame is frames[-1] and not got[-1].mask.any()
    assert got[0].mask.any()


def test_without_shadow_only_what_the_mask_covers_changes(hand):
    window = kept_window(places_of(face_points(12)), (SIDE, SIDE))
    assert window == (0, 0, SIDE, SIDE)
    for one in made(spec(way=FAST), hand)[2:6]:
        changed = one.frame.planes[0] != grey_frames(1)[0].planes[0]
        assert not changed[one.mask == 0].any()
        assert changed[one.mask > 250].mean() > 0.95


def test_a_contact_shadow_darkens_beside_the_thing_and_is_not_in_the_mask(hand):
    plain, shaded = made(spec(), hand)[3], made(spec(shadow=0.4), hand)[3]
    assert np.array_equal(plain.mask, shaded.mask)
    darker = plain.frame.planes[0].astype(int) - shaded.frame.planes[0]
    assert darker[plain.mask == 0].max() > 20
    assert abs(darker[plain.mask == 255]).max() <= 1


def test_a_still_things_colour_is_its_own_where_it_covers(hand):
    one = made(spec(color=(0.1, 0.2, 0.6)), hand)[3]
    inside = rgb_from_planes(one.frame)[one.mask == 255].astype(float).mean(axis=0)
    assert inside[2] > inside[0] + 40, "a blue phone before skin"


def test_a_fast_thing_is_the_mean_of_its_instants(hand):
    """The mask of one blurred frame against the mean of the masks of sharp frames at each of its instants."""
    blurred = made(spec(way=FAST), hand, 4)[3].mask.astype(float)
    sharp = []
    for step in range(SUBFRAMES):
        pose = FAST.at((3 + SHUTTER * (step + 0.5) / SUBFRAMES) * FRAME_S)
        assert pose is not None
        there = Way(pose, pose, pose, (0.0, 0.1, 0.2, 0.3), wobble=0.0)
        sharp.append(made(spec(way=there), hand, 3)[2].mask.astype(float))
    assert np.abs(blurred - np.mean(sharp, axis=0)).max() <= 1.5
    assert ((blurred > 20) & (blurred < 235)).sum() > 2 * ((sharp[0] > 20) & (sharp[0] < 235)).sum()


def test_equal_seeds_give_equal_frames(hand):
    frames = [f.frame.planes[0] for f in made(spec(seed=3), hand, 4)]
    again = [f.frame.planes[0] for f in made(spec(seed=3), hand, 4)]
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))


def test_things_follow_the_face(hand):
    way = replace(STILL, times_s=(0.0, 0.1, 1.5, 1.6))
    frames = [frame for frame in grey_frames(40) if frame.index in (12, 28)]
    got = list(occluded_frames(frames, face_points(40, drift_px=1.0), spec(way=way), hand, FRAME_S))

    def middle(mask: np.ndarray) -> float:
        return float(np.nonzero(mask)[1].mean())

    assert middle(got[1].mask) - middle(got[0].mask) == pytest.approx(16, abs=0.6)


def test_a_part_out_of_the_frame_is_cut_off(hand):
    way = Way(Pose2D(1.2, 0), Pose2D(1.2, 0), Pose2D(1.2, 0), (0.0, 0.1, 0.2, 0.3), wobble=0.0)
    one = made(spec(way=way), hand)[3]
    assert one.mask[:, -1].any() and one.mask.shape == (SIDE, SIDE)
    gone = Way(Pose2D(5, 0), Pose2D(5, 0), Pose2D(5, 0), (0.0, 0.1, 0.2, 0.3), wobble=0.0)
    assert not made(spec(way=gone), hand)[3].mask.any()


def test_a_hand_takes_the_persons_colour(hand):
    frame = grey_frames(1)[0]
    color = skin_color(frame, face_points(1)[0])
    assert np.allclose(color, np.array([180, 140, 120]) / 255, atol=0.02)


def test_grain_is_estimated_and_flat_pictures_have_none():
    generator = np.random.default_rng(0)
    flat = np.full((96, 96, 3), 0.5, np.float32)
    assert grain_of(flat) == 0.0
    flat[:, 48:] = 0.9  # an edge is no grain
    noisy = flat + generator.normal(0, 0.02, (96, 96, 1)).astype(np.float32)
    assert grain_of(noisy) == pytest.approx(0.02, rel=0.15)


def test_natural_sizes_follow_the_face(hand):
    mask = made(spec(), hand)[3].mask.astype(float) / 255
    expected = 0.72 * 1.5 * (FACE_PX / 1.53) ** 2
    assert mask.sum() == pytest.approx(expected, rel=0.03)
