"""A portrait in the place of the filmed person: where it is put, what stays, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from inference.edit_plan import EditPlan
from inference.frame_editor import final_alpha
from inference.genefacepp_infer import GeneFace2Infer
from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary
from inference.portrait_editor import PortraitEditor, portrait_identity
from inference.portrait_performance import Performance
from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.workspace import VideoWorkspace
from modules.radnerfs.official import ImportedPortraitConfig, OfficialPortrait, save_portrait
from modules.structures.cameras import CameraIntrinsics
from modules.structures.spans import Reason, SpanTable
from modules.video.rgb_video import rgb_frame
from tests.support.official_portraits import small_portrait
from tests.support.portrait_clips import write_own_clip

SIDE, WIDTH, HEIGHT = 32, 50, 40
LEFT, TOP = 10, 4
"""Of the square in the frame, which is shown at its own size."""
OPTIONS = SimpleNamespace(lle_percent=0.0, raymarching_end_threshold=0.01, region="lower_face", blend_mode="delta")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A portrait on disk, its clip (each frame before its own background), and that clip as a prepared source."""
    root = tmp_path_factory.mktemp("ann")
    clip = write_own_clip(root, 11, SIDE, moving=True)
    portrait = small_portrait("torso_sr")
    settings = ImportedPortraitConfig(video_id="Ann", data_root=root / "data", portrait=portrait.config)
    save_portrait(OfficialPortrait(portrait, settings, root, 1), root / "torso", {})
    head = small_portrait("head_sr")
    settings = replace(settings, portrait=head.config)
    save_portrait(OfficialPortrait(head, settings, root, 1), root / "head", {})
    space = VideoWorkspace("Ann", root / "data")
    space.processed.mkdir(parents=True, exist_ok=True)
    space.manifest.write_text(json.dumps({"source_sha256": "5" * 64}))
    square = clip.camera
    camera = CameraIntrinsics(square.fx, square.fy, square.cx + LEFT, square.cy + TOP, WIDTH, HEIGHT)
    coeffs = SimpleNamespace(
        camera=camera, euler=clip.euler, translation=clip.translation, face_model_version=clip.face_model_version
    )
    source = SimpleNamespace(
        sha256="5" * 64, video="ann.mp4", coeffs=coeffs, times_s=np.arange(11) / 25, occlusion=None, hands=None,
        shot_starts=None, crops=None, info=SimpleNamespace(width=WIDTH, height=HEIGHT),
    )  # fmt: skip
    return root, clip, source


@pytest.fixture
def editor(made, monkeypatch):
    monkeypatch.setattr("inference.portrait_editor.occlusion_in", lambda *_: None)
    root, clip, source = made
    plan = EditPlan(clip.expression[[3, 4, 5]], SpanTable(np.array([1, 0.5, 1], np.float32), (Reason.EDITED,) * 3))
    return PortraitEditor(OPTIONS, source, root / "torso", plan, np.array([3, 4, 5]), "cpu")


def frame(index: int):
    rng = np.random.default_rng(index)
    return rgb_frame(index, 0, rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def test_the_picture_lies_where_its_square_is(editor, made):
    patch = editor.patch(0)
    assert patch.bounds == (LEFT, TOP, LEFT + SIDE, TOP + SIDE)
    clip = made[1]
    wanted = next(editor.player.pictures(Performance(clip.expression[[3]], np.array([3])), lle_percent=0.0))
    still = wanted.finest.permute(1, 2, 0).numpy()
    assert np.abs(patch.rgb - still).mean() < 0.05  # the classic command smooths the camera


def test_all_else_stays_the_sources(editor):
    before = frame(0)
    after, patch, occlusion = editor.edit(before)
    assert occlusion is None
    alpha = np.zeros((HEIGHT, WIDTH), np.float32)
    x0, y0, x1, y1 = patch.bounds
    alpha[y0:y1, x0:x1] = final_alpha(patch, occlusion)
    assert alpha.max() > 0.9
    change = np.abs(after.planes[0].astype(int) - before.planes[0].astype(int))
    assert not change[alpha == 0].any() and change[alpha > 0.9].any()
    for new, old in zip(after.planes[1:], before.planes[1:], strict=True):
        np.testing.assert_array_equal(new[: TOP // 2], old[: TOP // 2])


def test_edges_inside_the_frame_are_soft_and_the_frames_own_are_not(editor, made):
    border = editor._inside(SIDE)
    assert border[:, 0].max() < 0.5 and border[:, -1].max() < 0.5 and border[0].max() < 0.5
    assert border[SIDE // 2, SIDE // 2] == 1
    camera = replace(made[1].camera, width=SIDE, height=SIDE)
    fitting = SimpleNamespace(
        **{**vars(made[2]), "coeffs": SimpleNamespace(**{**vars(made[2].coeffs), "camera": camera})}
    )
    plan = editor.plan
    whole = PortraitEditor(OPTIONS, fitting, made[0] / "torso", plan, np.array([3, 4, 5]), "cpu")
    assert whole._inside(SIDE).min() == 1 and whole.patch(0).bounds == (0, 0, SIDE, SIDE)


def test_strength_and_each_frames_own_background(editor):
    full, half = editor.patch(0).alpha.max(), editor.patch(1).alpha.max()
    assert half == pytest.approx(0.5 * full, rel=0.1)
    first, third = (editor.player.background(row)[0] for row in (3, 5))
    assert float(third[0] - first[0]) == pytest.approx(2 / 255, abs=1e-4)


def test_nothing_is_remembered(editor):
    one = editor.edit(frame(2))[0].planes[0]
    editor.resume(editor.state())
    editor.edit(frame(0))
    np.testing.assert_array_equal(editor.edit(frame(2))[0].planes[0], one)
    assert editor.state() == {} and not editor.runs_in_batches and editor.colour_rows(np.arange(3.0), 2) == []


def test_whose_portrait_it_is(made):
    root, _, source = made
    assert portrait_identity(root / "torso", source).checkpoint == root / "torso"
    with pytest.raises(ConfigError, match="is a portrait's head alone"):
        portrait_identity(root / "head", source)
    with pytest.raises(ConfigError, match=r"made of another video than ann\.mp4"):
        portrait_identity(root / "torso", SimpleNamespace(**{**vars(source), "sha256": "6" * 64}))
    other = SimpleNamespace(**{**vars(source.coeffs), "face_model_version": "mh-0"})
    wrong = SimpleNamespace(**{**vars(source), "coeffs": other})
    plan = EditPlan(np.zeros((1, 52), np.float32), SpanTable(np.ones(1, np.float32), (Reason.EDITED,)))
    with pytest.raises(CheckpointError, match=r"with the face model .*, the video with mh-0"):
        PortraitEditor(OPTIONS, wrong, root / "torso", plan, np.array([0]), "cpu")


def test_the_arbitrary_command_is_the_classic_one_and_more():
    assert issubclass(GeneFace2InferArbitrary, GeneFace2Infer)
