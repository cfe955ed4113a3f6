"""How skin moves between two expressions, and what becomes of the neck behind a chin that moves."""

from dataclasses import replace

import numpy as np
import pytest

from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.mesh_renderer import interpolate
from modules.face_model.model import FaceModel, Region
from modules.radnerfs.skin_motion import (
    FACE_WEIGHT,
    LIP_EDGES,
    FaceInMotion,
    FacePlaces,
    Reach,
    above_lips,
    carried_on,
    face_ends,
    gives_way,
    lip_distance,
    lip_motion_px,
    moves_far,
    shut_px,
    skin_motion,
    upper_lip,
    within_picture,
)
from modules.radnerfs.surface import FacePose, edge_radius_px, project_mesh, region_weight, surface_hits
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import moved_grid

SIZE = 256
BOUNDS = (0, 0, SIZE, SIZE)


@pytest.fixture(scope="module")
def model():
    return FaceModel.load(FACE_MODEL_FILE)


@pytest.fixture(scope="module")
def camera():
    return CameraIntrinsics(900.0, 900.0, SIZE / 2, SIZE / 2, SIZE, SIZE).matrix()


def pose(model, **units):
    expression = np.zeros(model.n_expression, np.float32)
    for name, value in units.items():
        expression[model.unit(name)] = value
    zeros = np.zeros(3, np.float32)
    return FacePose(np.zeros(model.n_identity, np.float32), expression, zeros, zeros)


def motion_of(model, camera, new, old, region: Region = "lower_face"):
    meshes = [project_mesh(model, one, camera) for one in (new, old)]
    hits = [surface_hits(model, p, camera, BOUNDS, region, m) for p, m in zip((new, old), meshes, strict=True)]
    face = FaceInMotion(hits[0], hits[1], meshes[0], meshes[1], edge_radius_px(camera, new.translation))
    return face, skin_motion(model, face, FacePlaces.of(model))


def test_equal_expressions_move_nothing_and_render_nothing(model, camera):
    _, motion = motion_of(model, camera, pose(model, jawOpen=0.3), pose(model, jawOpen=0.3))
    assert not motion.flow.any() and not motion.rendered.any()


def test_the_motion_is_that_of_the_vertices(model, camera):
    face, motion = motion_of(model, camera, pose(model, jawOpen=0.5), pose(model))
    moved = face.old_mesh.pixels - face.new_mesh.pixels
    chin = np.flatnonzero((lip_distance(model) > 0.3) & (np.linalg.norm(moved, axis=1) > 2))
    weights = model.region_weights["lower_face"].numpy()
    tried = 0
    for vertex in chin[weights[chin] > 0.9][::7]:
        column, row = np.floor(face.new_mesh.pixels[vertex]).astype(int)
        depth = face.new.fragments.depth[row, column]
        if face.new.mask[row, column] and abs(depth - face.new_mesh.depth[vertex]) < 0.02:
            tried += 1
            assert np.linalg.norm(motion.flow[row, column] - moved[vertex]) < 0.5 + 0.15 * np.linalg.norm(moved[vertex])
    assert tried > 5
    assert motion.rendered[~face.new.mask].max() == 0 and motion.rendered.max() == 1


def test_a_still_head_stands_still_while_its_mouth_speaks(model, camera):
    """Above the lower face nothing is carried, compared or rendered."""
    speaking, still = pose(model, jawOpen=0.7, mouthPucker=0.4), pose(model)
    seen, motion = motion_of(model, camera, speaking, still)
    top = int(seen.old_mesh.pixels[model.region_weights["lower_face"].numpy() > 0, 1].min()) - 2
    assert seen.new.mask[:top].sum() > 2000
    assert not any(values[:top].any() for values in (motion.flow, motion.compared, motion.rendered))


def test_a_pose_that_trembles_does_not_shake_the_face_against_the_head(model, camera):
    """Both expressions stand in one pose, so its error is no motion: at most 0.1 px away from the lips' edges."""
    new, old = pose(model, jawOpen=0.4), pose(model)
    _, motion = motion_of(model, camera, new, old)
    shift = np.array([4 / 90, 0, 0], np.float32)  # 4 px to the right
    seen, other = motion_of(model, camera, replace(new, translation=shift), replace(old, translation=shift))
    inside = (seen.new.weight > 0.9) & (other.paintable > 0)
    assert inside.sum() > 3000
    change = np.linalg.norm(other.flow[:, 4:] - motion.flow[:, :-4], axis=2)[inside[:, 4:]]
    assert np.quantile(change, 0.8) <= 0.1


@pytest.mark.parametrize(("new", "old"), [(0.0, 0.6), (0.6, 0.0)])
def test_beyond_the_chin_lines_never_fold_and_motion_ends(model, camera, new, old):
    face, motion = motion_of(model, camera, pose(model, jawOpen=new), pose(model, jawOpen=old))
    column = SIZE // 2
    seen = np.flatnonzero(face.new.weight[:, column] > 0)
    chin = int(seen[-1])
    below = motion.flow[chin - 2 :, column, 1]
    assert np.diff(below + np.arange(len(below))).min() > 0.1, "what was above stays above"
    assert np.abs(below[:3]).max() > 1 and not below[60:].any()
    assert not motion.region[chin + 80 :, column].any()


def test_a_chin_that_comes_forward_bends_less_of_its_surroundings():
    known = np.zeros((80, 60), bool)
    known[:40] = True
    forward, back = (np.zeros((80, 60, 2), np.float32) for _ in range(2))
    forward[..., 1], back[..., 1] = -8, 8  # where it stood: above it, below it
    reach = [int(np.flatnonzero(carried_on(flow, known, 3.0)[:, 30].any(axis=1))[-1]) - 40 for flow in (forward, back)]
    assert 2 <= reach[0] <= 12 and 15 <= reach[1] <= 30


def test_no_old_chin_stays_where_a_jaw_closes(model, camera, monkeypatch):
    """What is seen at the old chin's end came from below it; a neck that stood still would show the chin again."""
    new, old = pose(model), pose(model, jawOpen=0.4)

    def seen_from(column=SIZE // 2):
        face, motion = motion_of(model, camera, new, old)
        chin = int(np.flatnonzero(region_weight(model, face.old, "face")[:, column] >= FACE_WEIGHT)[-1])
        return motion.flow[chin - 5 : chin + 1, column, 1] + np.arange(-5, 1)  # relative to the old chin

    yielding = seen_from()
    monkeypatch.setattr("modules.radnerfs.skin_motion.SHUT_EDGES", (1e4, 1e5))
    standing = seen_from()
    assert yielding.min() > 0 and standing.min() < -1.5


def test_a_neck_gives_way_smoothly_and_only_to_a_jaw_that_closes():
    ends = np.array([[0.0, 0.0], [30.0, 40.0]])  # 50 px apart, in any direction
    assert shut_px(ends, ends * 1.2) == pytest.approx(10) and shut_px(ends * 1.2, ends) == pytest.approx(-10)
    shut = np.linspace(-20, 20, 401)
    share = gives_way(shut, 4.0)
    assert not share[shut <= 0].any() and (share[shut >= 2] == 1).all() and np.diff(share).max() < 0.1
    two = gives_way(np.array([1.0, 1.0]), np.array([4.0, 2.0]))
    assert np.array_equal(two, [gives_way(np.array(1.0), 4.0), 1]) and two[0] == 0.5


def test_more_is_rendered_above_an_upper_lip_that_moves_far(model, camera):
    shown = pose(model)
    shares = []
    for units in ({"jawOpen": 0.5}, {"mouthUpperUpLeft": 1.0, "mouthUpperUpRight": 1.0, "mouthFunnel": 0.8}):
        face, motion = motion_of(model, camera, pose(model, **units), shown)
        lip = lip_motion_px(*(mesh.pixels[upper_lip(model)] for mesh in (face.new_mesh, face.old_mesh)))
        assert (lip / face.edge_px > LIP_EDGES[1]) == ("jawOpen" not in units)
        seen = np.column_stack([lip_distance(model), above_lips(model)])
        values = interpolate(face.new.fragments, model.triangles.numpy(), seen)
        ring = (values[..., 0] > 0.31) & (values[..., 0] < 0.34) & (motion.paintable > 0)
        shares.append([motion.rendered[ring & (values[..., 1] == side)].mean() for side in (0, 1)])
    near, far = np.array(shares)
    assert near.max() < 0.05 and far[1] > 0.5 and far[0] < 0.05, "below the mouth the source's skin stays"


def test_the_reach_of_the_rendering_rises_smoothly():
    moved = np.linspace(0, 20, 201)
    far = moves_far(moved, 4.0)
    assert not far[moved <= 6.4].any() and (far[moved >= 10.4] == 1).all() and np.diff(far).min() >= 0
    assert np.diff(far).max() < 0.04 and moves_far(np.array([8.0]), np.array([9.0])) == 0


@pytest.mark.parametrize(("far", "reach"), [(Reach(1.5, 1.0, 9.0), 8), (Reach(1.5, 2.0, 3.0), 9)])
def test_a_held_motion_fades_after_it(far, reach):
    known = np.zeros((90, 60), bool)
    known[:40] = True
    flow = np.zeros((90, 60, 2), np.float32)
    flow[..., 1] = 8
    held = carried_on(flow, known, 3.0, far)[:, 30, 1]
    assert held[39 + reach] > 5.5 and not held[40 + reach + 18 :].any()
    assert held[39 + reach] > 1.3 * carried_on(flow, known, 3.0, Reach(1.5))[39 + reach, 30, 1]
    assert np.diff(held + np.arange(90)).min() > 0


def test_what_does_not_draw_back_is_not_held():
    """Held is the chin: beside it, where a contour slides or comes forward, motion ends as soon as ever."""
    known = np.zeros((80, 60), bool)
    known[:40] = True
    for x, y in ((8, 0), (0, -8)):
        flow = np.zeros((80, 60, 2), np.float32)
        flow[:] = x, y
        held, usual = (carried_on(flow, known, 3.0, far) for far in (Reach(1.5, 2.0, 3.0), Reach(1.5)))
        assert np.array_equal(held, usual) and held[40:].any()


def test_nothing_is_read_from_beyond_the_picture():
    """Beside a border motion shrinks with what is left of the picture, and lines never fold."""
    flow = np.zeros((40, 50, 2), np.float32)
    flow[..., 0], flow[..., 1] = -3, 12
    flow[:, 25:, 0] = 9
    made = within_picture(flow)
    x, y = moved_grid(made)
    assert x.min() >= 0 and x.max() <= 49 and y.max() <= 39 and not made[-1, :, 1].any()
    assert np.array_equal(made[:4, 9:24], flow[:4, 9:24]), "far from the border nothing changes"
    assert np.diff(y, axis=0).min() == pytest.approx(0.65, abs=1e-5), "what is left is drawn out evenly"


def test_a_chin_beside_the_border_draws_back_as_far_as_there_is_picture(model, camera, monkeypatch):
    place = np.array([0, -0.6, 0], np.float32)
    new, old = (replace(one, translation=place) for one in (pose(model), pose(model, jawOpen=0.5)))

    def lowest_read():
        face, motion = motion_of(model, camera, new, old)
        assert face.old_mesh.pixels[face_ends(model)[1], 1] > SIZE - 12 and motion.flow[-20:, :, 1].max() > 3
        return float(moved_grid(motion.flow)[1].max())

    assert lowest_read() <= SIZE - 1
    monkeypatch.setattr("modules.radnerfs.skin_motion.BORDER_SHARE", 1e3)
    assert lowest_read() > SIZE + 2


def test_nothing_known_is_nothing_moved():
    assert not carried_on(np.ones((20, 20, 2), np.float32), np.zeros((20, 20), bool), 3.0).any()


def test_a_smaller_region_moves_and_compares_less(model, camera):
    new, old = pose(model, jawOpen=0.5), pose(model)
    _, lower = motion_of(model, camera, new, old)
    _, mouth = motion_of(model, camera, new, old, "mouth")
    assert (mouth.region > 0).sum() < (lower.region > 0).sum()
    assert mouth.compared.sum() < lower.compared.sum()


def test_skin_seen_before_is_compared_and_the_neck_is_not(model, camera):
    face, motion = motion_of(model, camera, pose(model, jawOpen=0.5), pose(model, jawOpen=0.2))
    neck = face.old.mask & (face.old.weight == 0)
    assert motion.compared.max() > 0.99 and motion.compared[neck].max() == 0
    assert (motion.matched <= motion.compared).all()
    assert motion.mouth_shown.max() == 1
