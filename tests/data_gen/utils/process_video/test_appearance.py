"""Looks: pose leaves shape alone, colours are read where they are, and links never join people seen together."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from data_gen.utils.mp_feature_extractors.face_landmarker import build_landmarker, region_of_face
from data_gen.utils.process_video.appearance import (
    LINK_DISTANCE,
    PATCHES,
    STEADY,
    FaceLook,
    fit_rotation,
    link_tracks,
    look_distance,
    mean_face,
    patch_colour,
    pose_free_shape,
)
from data_gen.utils.process_video.centerface import CenterFace
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.landmarks import MOUTH
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader


@pytest.fixture(scope="module")
def reference():
    return mean_face(FaceModel.load(FACE_MODEL_FILE))


def look_of(shape=0.0, skin=50.0, sights=10, clothes=30.0, seed=0):
    """A made-up look: ``shape`` moves every point the same way, the colours are grey."""
    look = FaceLook()
    colours = np.tile([skin, 10.0, 10.0], (len(PATCHES), 1))
    colours[6:] = [clothes, 0.0, 0.0]
    direction = np.random.default_rng(seed).normal(size=(len(STEADY), 3))
    look.shape_sum, look.shape_weight = shape * direction * sights, float(sights)
    look.colour_sum, look.colour_count = colours * sights, np.full(len(PATCHES), float(sights))
    return look


@given(st.integers(0, 10_000))
def test_the_rotation_is_found(seed):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(20, 3))
    rotation, scale = Rotation.random(rng=rng).as_matrix(), rng.uniform(0.1, 10)
    found, factor = fit_rotation(source, scale * source @ rotation.T + rng.normal(size=3))
    np.testing.assert_allclose(found, rotation, atol=1e-9)
    assert factor == pytest.approx(scale)


def test_pose_and_size_leave_the_shape_alone(reference):
    person = reference * [1.08, 0.95, 1.0]
    straight, weight = pose_free_shape(person[:, :2] * 100, person[:, 2] * 100, reference)
    assert weight == 1.0
    assert 0.01 < np.sqrt((straight**2).sum(axis=1).mean()) < 0.2
    turned = person @ Rotation.from_euler("yxz", [15, -10, 40], degrees=True).as_matrix().T * 37 + [500, 200, 0]
    shape, weight = pose_free_shape(turned[:, :2], turned[:, 2], reference)
    assert 0.5 < weight <= 1
    np.testing.assert_allclose(shape, straight, atol=1e-9)
    side = person @ Rotation.from_euler("y", 60, degrees=True).as_matrix().T
    assert pose_free_shape(side[:, :2], side[:, 2], reference)[1] == 0.0


def test_the_mouth_is_no_part_of_the_shape():
    assert not set(MOUTH) & set(STEADY.tolist())
    assert len(STEADY) > 200


def test_colours_are_read_where_the_face_says():
    rgb = np.zeros((200, 200, 3), np.uint8)
    rgb[:, :] = (200, 30, 30)
    rgb[100:] = (30, 30, 200)
    red, blue = (
        cv2.cvtColor(np.array([[colour]], np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0]
        for colour in ((200, 30, 30), (30, 30, 200))
    )
    upright = np.array([100.0, 40.0]), np.array([100.0, 90.0])
    np.testing.assert_allclose(patch_colour(rgb, *upright, (0.0, 0.5, 0.1)), red, atol=1e-3)
    np.testing.assert_allclose(patch_colour(rgb, *upright, (0.0, 1.5, 0.1)), blue, atol=1e-3)
    lying = np.array([40.0, 96.0]), np.array([90.0, 96.0])  # the chin points right, so the face's left is up
    np.testing.assert_allclose(patch_colour(rgb, *lying, (-0.3, 0.5, 0.1)), blue, atol=1e-3)
    np.testing.assert_allclose(patch_colour(rgb, *lying, (0.5, 0.5, 0.1)), red, atol=1e-3)
    assert patch_colour(rgb, *upright, (0.0, 4.0, 0.1)) is None


def test_looks_add_up_and_survive_as_arrays(tmp_path):
    first, second = look_of(0.1), look_of(0.3, skin=70.0)
    both = first.merged(second)
    assert both.sights == 20
    assert both.shape is not None and first.shape is not None
    np.testing.assert_allclose(both.shape, first.shape * 2)
    np.testing.assert_allclose(both.colours[0], [60, 10, 10])
    np.savez(tmp_path / "look.npz", **both.to_arrays())
    with np.load(tmp_path / "look.npz", allow_pickle=False) as data:
        again = FaceLook.from_arrays(data)
    assert look_distance(both, again) == 0.0
    assert again.sights == 20
    assert look_distance(FaceLook(), first) == float("inf")


def test_nearer_looks_are_nearer():
    me = look_of()
    assert look_distance(me, look_of(0.002)) < LINK_DISTANCE
    assert look_distance(me, look_of(0.1)) > 1
    assert look_distance(me, look_of(0.002, clothes=90.0)) > look_distance(me, look_of(0.002))


def test_embeddings_decide_where_both_have_them(reference):
    rng = np.random.default_rng(0)
    me, other = (rng.normal(size=128) for _ in range(2))
    rgb, points = np.full((200, 200, 3), 90, np.uint8), reference[:, :2] * 30 + 100
    looks = []
    for person in (me, me + rng.normal(scale=0.3, size=128), other):
        look = FaceLook()
        for _ in range(3):
            look.add(rgb, points, reference[:, 2] * 30, reference, person / np.linalg.norm(person))
        looks.append(look)
    assert look_distance(looks[0], looks[1]) < LINK_DISTANCE < look_distance(looks[0], looks[2])
    assert link_tracks(looks, [(0, 1), (2, 3), (4, 5)]) == [[0, 1], [2]]
    both = FaceLook.from_arrays(looks[0].merged(looks[1]).to_arrays())
    assert look_distance(both, looks[0]) < LINK_DISTANCE
    assert len(looks[0].merged(look_of()).embedding_sum) == 128


def test_people_seen_together_are_never_one():
    looks = [look_of(), look_of(), look_of()]
    assert link_tracks(looks, [(0, 10), (5, 15), (20, 30)]) == [[0], [1], [2]], "twins: no telling which is the third"
    assert link_tracks(looks, [(0, 10), (10, 20), (20, 30)]) == [[0, 1, 2]]
    assert link_tracks(looks[:2], [(0, 10), (9, 20)]) == [[0], [1]]


def test_a_rival_nearly_as_near_prevents_a_link():
    me, again, other = look_of(), look_of(0.006), look_of(0.0125)
    spans = [(0, 10), (20, 30), (20, 30)]
    assert link_tracks([me, again, look_of(0.2)], spans) == [[0, 1], [2]]
    assert look_distance(me, again) < look_distance(me, other) < LINK_DISTANCE
    assert link_tracks([me, again, other], spans) == [[0, 1], [2]]
    assert link_tracks([me, again, look_of(0.0062)], spans) == [[0], [1], [2]]


def test_glimpses_are_linked_to_nobody():
    assert link_tracks([look_of(), look_of(sights=1)], [(0, 10), (20, 21)]) == [[0], [1]]
    assert link_tracks([], []) == []


@given(st.integers(0, 10_000), st.integers(1, 8))
def test_links_are_a_partition_without_overlaps(seed, count):
    rng = np.random.default_rng(seed)
    looks = [look_of(rng.uniform(0, 0.03), rng.uniform(48, 52)) for _ in range(count)]
    starts = rng.integers(0, 100, count)
    spans = [(int(s), int(s + rng.integers(1, 40))) for s in starts]
    groups = link_tracks(looks, spans)
    assert sorted(number for group in groups for number in group) == list(range(count))
    for group in groups:
        for a in group:
            assert all(a == b or spans[a][1] <= spans[b][0] or spans[b][1] <= spans[a][0] for b in group)


def test_real_people_halves_are_near_and_strangers_far(shared_clips, reference):
    """Two clips of two people, a few sights each: each half nearer to its own other half than to the stranger."""
    detector, landmarker = CenterFace(), build_landmarker()
    halves = []
    for clip in ("glasses_512_25fps.mp4", "moustache_480x360_30fps.mp4"):
        looks = FaceLook(), FaceLook()
        with VideoReader(shared_clips / clip) as reader:
            for frame in reader.frames():
                if frame.index >= 60:
                    break
                if frame.index % 10 == 0:
                    rgb = rgb_from_planes(frame)
                    seen = landmarker.detect(rgb, region_of_face(detector.detect(rgb, max_side=256)[0]))
                    looks[frame.index // 30].add(rgb, seen.points, seen.depth, reference)
        halves.append(looks)
    (a, b), (c, d) = halves
    assert max(look_distance(a, b), look_distance(c, d)) < LINK_DISTANCE
    assert min(look_distance(x, y) for x in (a, b) for y in (c, d)) > 1.5 * LINK_DISTANCE
    assert link_tracks([a, c, b, d], [(0, 1), (1, 2), (2, 3), (3, 4)]) == [[0, 2], [1, 3]]
