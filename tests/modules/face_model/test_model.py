"""The committed face model: geometry, landmarks, regions, file handling."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from modules.commons.errors import CheckpointError
from modules.face_model.model import (
    ARKIT_NAMES,
    LABEL_EYE,
    LABEL_LIP,
    LABEL_MEMBRANE,
    LABEL_SKIN,
    MOUTH_UNITS,
    REGIONS,
    FaceModel,
    content_version,
)
from modules.structures.landmarks import (
    FACE_OVAL,
    IMAGE_LEFT_EYE,
    IMAGE_RIGHT_EYE,
    INNER_LIP,
    IRISES,
    MEDIAPIPE_BLENDSHAPES,
    NOSE_BRIDGE,
    OUTER_LIP,
)
from tests.support.synthetic_head import FACE_MODEL

LIP_PAIRS = [(INNER_LIP[i], INNER_LIP[-i]) for i in range(1, 10)]
"""Upper and lower inner-lip points that face each other."""


@pytest.fixture(scope="module")
def model():
    return FaceModel.load(FACE_MODEL)


def at(model, **units):
    """Landmarks ``[478, 3]`` of the mean person with some units set."""
    expression = torch.zeros(1, model.n_expression)
    for name, value in units.items():
        expression[0, model.unit(name)] = value
    return model.landmarks(torch.zeros(model.n_identity), expression)[0]


def gaps(points):
    return torch.stack([points[upper, 1] - points[lower, 1] for upper, lower in LIP_PAIRS])


def test_shapes_and_types(model):
    count = model.n_vertices
    assert 3000 <= count <= 4500
    assert model.identity_basis.shape == (count, 3, 80) and model.expression_basis.shape == (count, 3, 52)
    assert model.landmark_triangles.shape == (478, 3) and model.landmark_weights.shape == (478, 3)
    assert model.triangles.max() == count - 1 and model.triangles.min() == 0
    assert set(model.region_weights) == set(REGIONS)
    for name in ("mean", "identity_basis", "expression_basis", "canonical_vertices", "landmark_weights"):
        assert getattr(model, name).dtype == torch.float32 and torch.isfinite(getattr(model, name)).all()
    assert FACE_MODEL.stat().st_size <= 4_000_000


def test_names_follow_mediapipe():
    assert len(set(ARKIT_NAMES)) == 52 and ARKIT_NAMES[:51] == MEDIAPIPE_BLENDSHAPES[1:]
    assert {"jawOpen", "mouthClose", "mouthPucker", "cheekPuff"} <= set(MOUTH_UNITS)
    assert "tongueOut" not in MOUTH_UNITS and len(MOUTH_UNITS) == 28


def test_model_is_linear_and_lands_on_its_own_vertices(model):
    generator = torch.Generator().manual_seed(0)
    identity = torch.randn(80, generator=generator)
    expression = torch.rand(3, 52, generator=generator)
    vertices = model.vertices(identity, expression)
    by_hand = model.mean + torch.einsum("vci,i->vc", model.identity_basis, identity)
    by_hand = by_hand + torch.einsum("vce,te->tvc", model.expression_basis, expression)
    torch.testing.assert_close(vertices, by_hand, atol=1e-5, rtol=0)
    corners = vertices[:, model.landmark_triangles]  # [T, 478, 3, 3]
    expected = (corners * model.landmark_weights[..., None]).sum(dim=2)
    torch.testing.assert_close(model.landmarks(identity, expression), expected, atol=1e-5, rtol=0)


def test_landmarks_are_differentiable(model):
    identity = torch.zeros(80, requires_grad=True)
    expression = torch.zeros(2, 52, requires_grad=True)
    model.landmarks(identity, expression).square().sum().backward()
    assert identity.grad.abs().max() > 0 and expression.grad.abs().max() > 0


def test_axes(model):
    points = at(model)
    left_eye, right_eye = points[list(IMAGE_LEFT_EYE)].mean(dim=0), points[list(IMAGE_RIGHT_EYE)].mean(dim=0)
    assert left_eye[0] < -0.2 and right_eye[0] > 0.2  # the subject's left is on the image's right
    assert points[10, 1] > points[4, 1] > points[152, 1]  # forehead above nose above chin
    assert points[4, 2] > points[:, 2].max() - 0.03  # the nose points to the camera
    assert 0.75 < points[263, 0] - points[33, 0] < 1.0  # dm
    assert 1.3 < points[10, 1] - points[152, 1] < 1.8  # dm


def test_anchors_are_barycentric_on_real_triangles(model):
    weights = model.landmark_weights
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(478), atol=1e-5, rtol=0)
    assert weights.min() >= -1e-6
    triangles = {tuple(sorted(t)) for t in model.triangles.tolist()}
    assert all(tuple(sorted(t)) in triangles for t in model.landmark_triangles.tolist())


def test_mirror_symmetry(model):
    flip = torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(model.mean[model.mirror] * flip, model.mean, atol=1e-3, rtol=0)
    assert (model.mirror[model.mirror] == torch.arange(model.n_vertices)).all()
    pair = model.landmark_mirror
    assert (pair[pair] == torch.arange(478)).all()
    assert pair[33] == 263 and pair[61] == 291 and pair[468] == 473 and pair[13] == 13
    assert (pair[torch.tensor(NOSE_BRIDGE)] == torch.tensor(NOSE_BRIDGE)).all()
    points = at(model)
    off = (points[pair] * flip - points).norm(dim=1)
    assert off.median() < 0.005 and off.max() < 0.05
    for name in REGIONS:
        weight = model.region_weights[name]
        assert (weight[model.mirror] - weight).abs().max() < 1e-3


def test_shut_lips_touch_and_the_jaw_parts_them(model):
    assert gaps(at(model)).abs().max() < 0.003  # 0.3 mm
    opened = gaps(at(model, jawOpen=0.6))
    assert opened.min() > 0.01 and opened[4] > 0.15
    assert gaps(at(model, jawOpen=0.6, mouthClose=0.6))[4] < 0.3 * opened[4]


def test_lip_landmarks_lie_on_their_loops(model):
    for ring, loop in ((INNER_LIP, model.inner_lip), (OUTER_LIP, model.outer_lip)):
        corners, weights = model.landmark_triangles[list(ring)], model.landmark_weights[list(ring)]
        on_loop = torch.isin(corners, loop)
        assert (weights * ~on_loop).abs().max() < 1e-6
    # the loops run upper middle → image-right corner → lower middle → image-left corner
    y = model.mean[model.outer_lip, 1]
    assert y[0] > y[len(y) // 2] and model.mean[model.outer_lip[len(y) // 4], 0] > 0


def test_upper_and_lower_lip_move_apart_in_order(model):
    points = at(model, jawOpen=0.4)
    for ring in (INNER_LIP, OUTER_LIP):
        upper = points[list(ring[:11]), 0]
        lower = points[[ring[0], *ring[:10:-1], ring[10]], 0]
        assert (upper.diff() > 0).all() and (lower.diff() > 0).all()


def test_lids_meet_when_they_blink(model):
    shut, wide = at(model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0), at(model)
    for upper, lower in ((159, 145), (386, 374)):
        assert wide[upper, 1] - wide[lower, 1] > 0.06
        assert abs(shut[upper, 1] - shut[lower, 1]) < 0.01
    assert torch.isin(model.labels[model.landmark_triangles[list(IRISES)]], torch.tensor([LABEL_EYE])).all()


def test_units_move_what_their_names_say(model):
    rest = at(model)
    assert (at(model, jawOpen=1.0) - rest)[152, 1] < -0.2
    smile = at(model, mouthSmileLeft=1.0) - rest
    assert smile[291, 1] > 0.03 and smile[61].norm() < 0.3 * smile[291].norm()  # the subject's left only
    pucker = at(model, mouthPucker=1.0) - rest
    assert pucker[61, 0] > 0.03 and pucker[291, 0] < -0.03
    assert (at(model, browInnerUp=1.0) - rest)[[55, 285], 1].min() > 0.02


def test_membrane_closes_the_mouth(model):
    labels, triangles = model.labels, model.triangles
    edges = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    unique, count = torch.unique(edges.sort(dim=1).values, dim=0, return_counts=True)
    assert count.max() == 2  # a manifold
    border = unique[count == 1]
    near_mouth = torch.isin(labels[border], torch.tensor([LABEL_LIP, LABEL_MEMBRANE])).any(dim=1)
    assert not near_mouth.any()
    _, count = torch.unique(edges, dim=0, return_counts=True)
    assert count.max() == 1  # all triangles wind the same way


def test_canonical_mouth_has_room(model):
    corners = model.canonical_vertices[model.triangles]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    membrane = (model.labels[model.triangles] == LABEL_MEMBRANE).any(dim=1)
    assert membrane.sum() > 100
    assert normals[membrane, 2].min() > -1e-4  # faces the camera throughout
    assert normals[membrane].norm(dim=1).sum() / 2 > 0.05  # dm²
    lips = model.canonical_vertices[model.inner_lip]
    assert lips[0, 1] - lips[len(lips) // 2, 1] > 0.15
    # the middle of the membrane lies behind its rim
    inside = model.canonical_vertices[model.labels == LABEL_MEMBRANE]
    assert inside[:, 2].min() < lips[:, 2].max() - 0.05


def test_membrane_stays_behind_shut_lips(model):
    lips = model.mean[model.inner_lip]
    center = (model.labels == LABEL_MEMBRANE) & (model.mean[:, 0].abs() < 0.1)
    assert model.mean[center, 2].max() < lips[0, 2]


def test_regions(model):
    weights = model.region_weights
    for name in REGIONS:
        assert weights[name].min() == 0 and weights[name].max() == 1
        assert ((weights[name] > 0.02) & (weights[name] < 0.98)).float().mean() > 0.02
        lips = torch.isin(model.labels, torch.tensor([LABEL_LIP, LABEL_MEMBRANE]))
        assert (weights[name][lips] == 1).all()
    at_landmarks = {n: (w[model.landmark_triangles] * model.landmark_weights).sum(dim=1) for n, w in weights.items()}
    nose = [4, 1, 5, 195, 197, 6, 168]
    assert at_landmarks["lower_face"][nose].max() < 0.05 and at_landmarks["mouth"][[*nose, 152, 205, 425]].max() < 0.05
    assert at_landmarks["lower_face"][[33, 263, 10, 9, 50, 280]].max() < 0.05
    assert at_landmarks["lower_face"][[200, 199, 202, 422, 18, 57, 287]].min() > 0.95
    assert at_landmarks["lower_face"][152] > 0.5
    assert at_landmarks["face"][[4, 33, 263, 9, 50, 280, 200, 468]].min() > 0.95
    assert at_landmarks["face"][list(FACE_OVAL[:3])].max() < 0.3
    skin = model.labels == LABEL_SKIN
    neck = skin & (model.mean[:, 1] < -1.0)
    assert all(weights[name][neck].max() == 0 for name in REGIONS)


def test_identity_columns_have_the_size_of_people(model):
    moved = model.identity_basis.norm(dim=1)  # [V, 80]
    assert moved.max(dim=0).values.min() > 0.001 and moved.max() < 0.25  # dm
    face = model.region_weights["face"] > 0.9
    spread = model.identity_basis[face].square().sum(dim=(1, 2)).mean().sqrt()
    assert 0.03 < spread < 0.12  # dm, rms over the face


def test_rigid_motion_is_no_identity(model):
    face = model.region_weights["face"] > 0.5
    basis = model.identity_basis[face]
    shift = basis.mean(dim=0).norm(dim=0) / basis.norm(dim=1).mean(dim=0)
    assert shift.max() < 0.6 and shift.mean() < 0.2


def test_to_moves_every_tensor(model):
    moved = model.to("meta")
    tensors = [getattr(moved, f.name) for f in fields(moved)]
    tensors = [t for t in tensors if isinstance(t, torch.Tensor)] + list(moved.region_weights.values())
    assert len(tensors) == 18 and all(t.device.type == "meta" for t in tensors)
    assert model.mean.device.type == "cpu"


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"nowhere\.npz is missing"):
        FaceModel.load(tmp_path / "nowhere.npz")


def test_truncated_and_foreign_files(tmp_path):
    data = FACE_MODEL.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.npz").write_text("not a model")
    np.savez(tmp_path / "other.npz", values=np.zeros(3))
    for name in ("cut.npz", "text.npz", "other.npz"):
        with pytest.raises(CheckpointError, match=name):
            FaceModel.load(tmp_path / name)


def test_changed_content_is_noticed(tmp_path):
    with np.load(FACE_MODEL, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    stated = str(arrays["version"])
    content = {k: v for k, v in arrays.items() if k not in ("schema", "version")}
    assert content_version(content) == stated
    arrays["mean"] = arrays["mean"] + np.float32(0.001)
    np.savez(tmp_path / "edited.npz", **arrays)
    with pytest.raises(CheckpointError, match="damaged"):
        FaceModel.load(tmp_path / "edited.npz")


@pytest.fixture(scope="module")
def correction(model):
    return 0.3 * torch.randn(model.n_identity, model.n_expression, generator=torch.Generator().manual_seed(4))


def test_a_correction_moves_mesh_landmarks_and_rows_alike(model, correction):
    generator = torch.Generator().manual_seed(1)
    identity, expression = torch.randn(model.n_identity, generator=generator), torch.rand(3, model.n_expression)
    own = model.corrected(correction)
    brought_along = expression @ correction.T  # identity that each frame's expression brings along
    for part in ("vertices", "landmarks"):
        wanted = torch.stack(
            [
                getattr(model, part)(identity + more, frame[None])[0]
                for frame, more in zip(expression, brought_along, strict=True)
            ]
        )
        torch.testing.assert_close(getattr(own, part)(identity, expression), wanted, atol=1e-4, rtol=0)
    rows, plain = own.landmark_rows(), model.landmark_rows()
    torch.testing.assert_close(rows.expression, plain.expression + plain.identity @ correction, atol=1e-5, rtol=0)
    assert own.version == model.version and own.correction is not None
    assert (own.vertices(identity, 0 * expression) == model.vertices(identity, 0 * expression)).all()


def test_correcting_replaces_and_nothing_changes_nothing(model, correction):
    own = model.corrected(correction.numpy())
    assert model.corrected(None) is model and model.corrected(torch.zeros_like(correction)) is model
    assert own.corrected(correction) is own
    torch.testing.assert_close(own.corrected(None).expression_basis, model.expression_basis, atol=1e-6, rtol=0)
    assert own.corrected(None).correction is None
    other = own.corrected(2 * correction)
    torch.testing.assert_close(
        other.expression_basis, model.corrected(2 * correction).expression_basis, atol=1e-6, rtol=0
    )
    assert own.to("cpu").correction is not None


@pytest.mark.parametrize("wrong", ["shape", "nan"])
def test_a_correction_of_something_else_is_refused(model, correction, wrong):
    bad = correction[:-1] if wrong == "shape" else correction.clone().fill_(torch.nan)
    with pytest.raises(CheckpointError, match=r"needs \(80, 52\); prepare the video again") as error:
        model.corrected(bad)
    assert "\n" not in str(error.value)
