"""Held-out figures of portraits, and what training sees of clips of this project's own."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from modules.commons.errors import CheckpointError
from modules.commons.progress import silent
from modules.face_model.portrait_face import portrait_face
from modules.radnerfs.official import load_portrait
from tasks import run
from tasks.radnerfs import portrait_evaluate
from tasks.radnerfs.portrait import PortraitTask, new_portrait, train_portrait
from tasks.radnerfs.portrait_config import PortraitTaskConfig
from tasks.radnerfs.portrait_data import PortraitClip
from tasks.radnerfs.portrait_evaluate import HeldOutPicture, held_out_pictures, score
from tests.support.official_portraits import small_config
from tests.support.portrait_clips import write_own_clip

FRAMES, SIDE = 22, 32
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Folder and dataset of a clip whose background changes from frame to frame."""
    root = tmp_path_factory.mktemp("ann")
    return root, write_own_clip(root, FRAMES, SIDE, moving=True)


def config(root, kind: str = "head", **changes) -> PortraitTaskConfig:
    sizes = small_config(kind)
    head = replace(sizes.head, individual_embedding_num=FRAMES)
    torso = sizes.torso and replace(sizes.torso, individual_embedding_num=FRAMES)
    given = {"max_updates": 3, "n_rays": 64, "device": "cpu", "backend": "torch", "save_interval": 0}
    sizes = replace(sizes, head=head, torso=torso, picture_side=16)
    return PortraitTaskConfig(video_id="Ann", data_root=root / "data", portrait=sizes, **(given | changes))


def clip_of(own, settings) -> PortraitClip:
    root, dataset = own
    return PortraitClip(dataset, portrait_face(dataset), settings.portrait, root, CPU)


def test_pictures_are_made_smaller_and_have_their_own_background(own):
    clip = clip_of(own, config(own[0]))
    assert (clip.side, clip.full_side) == (16, 16)
    example = clip.example(7)
    stored = cv2.imread(str(own[0] / own[1].samples.frame_files[7]))[..., ::-1].astype(np.float32) / 255
    small = stored.reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
    shown = example.full_target.permute(1, 2, 0).numpy()
    assert shown.shape == (16, 16, 3) and np.abs(shown - small).mean() < 0.03
    assert example.plate.view(16, 16, 3)[0, 0, 0] == pytest.approx((60 + 7) / 255, abs=1e-3)
    assert torch.equal(example.plate.view(16, 16, 3).permute(2, 0, 1), example.full_plate)
    left, right, top, bottom = example.lip_rect
    assert (left, right, top, bottom) == (4, 12, 4, 12)
    points, side = own[1].camera, 16 / SIDE
    matrix = clip.image_from_camera
    assert matrix[0, 2] == pytest.approx(points.cx * side) and matrix[0, 0] == pytest.approx(points.fx * side)
    assert [clip.example(index).frame.row for index in (0, 7, FRAMES - 1)] == [0, 7, 0]
    later = replace(own[1].samples, is_train=own[1].samples.is_train & (np.arange(FRAMES) > 4))
    shifted = clip_of((own[0], replace(own[1], samples=later)), config(own[0]))
    assert shifted.example(5).frame.row == 0 and shifted.example(7).frame.row == 2
    with pytest.raises(CheckpointError, match="frames are 32 px, the portrait makes 64 px"):
        clip_of(own, replace(config(own[0]), portrait=replace(small_config("head"), picture_side=64)))


def test_the_nearest_training_frame(own):
    clip = clip_of(own, config(own[0]))
    held = int(clip.held_out[0])
    points = clip._landmarks.numpy()
    rows = own[1].samples.rows
    apart = [np.square(points[rows[i]] - points[rows[held]]).sum() for i in clip.train]
    assert clip.nearest_train(held) == clip.train[int(np.argmin(apart))]


def test_decibels_of_known_errors(own):
    clip = clip_of(own, config(own[0]))
    example = replace(clip.example(0), on_face=torch.zeros(256, dtype=torch.bool), lip_rect=(4, 8, 6, 10))
    example.on_face[:32] = True
    filmed = torch.full((3, 16, 16), 0.5)
    made = filmed + 0.1
    made[:, :2] = 0.51
    made[:, 6:10, 4:8] = 0.501
    whole, face, mouth, *nearest = HeldOutPicture(0, filmed, made, filmed + 0.01, example).decibels()
    mse = (208 * 0.1**2 + 32 * 0.01**2 + 16 * 0.001**2) / 256
    assert whole == pytest.approx(-10 * np.log10(mse), abs=1e-3)
    assert (face, mouth) == (pytest.approx(40, abs=1e-2), pytest.approx(60, abs=0.1))
    assert nearest == [pytest.approx(40, abs=1e-2)] * 3


def test_a_head_stands_before_the_filmed_torso_and_a_torso_before_the_background(own):
    clip = clip_of(own, config(own[0]))
    for kind in ("head", "torso"):
        settings = config(own[0], kind, **({"head_ckpt": "x"} if kind == "torso" else {}))
        portrait = new_portrait(settings, settings.portrait, None, CPU)
        if portrait.torso is not None:
            portrait.torso.density_grid_torso.zero_()
        portrait.head.density_bitfield.zero_()
        picture = next(held_out_pictures(portrait, clip, 1))  # nothing is there but what is behind
        wanted = picture.example.frame.background if kind == "head" else picture.example.plate
        shown = picture.made.permute(1, 2, 0).reshape(-1, 3)
        torch.testing.assert_close(shown, wanted, atol=1e-5, rtol=0)


def test_figures_and_strips_by_the_command(own, tmp_path, monkeypatch):
    root = own[0]
    monkeypatch.setattr(run, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(portrait_evaluate, "PICTURES", 2)
    train_portrait(config(root), tmp_path / "Ann" / "head", silent)
    assert load_portrait(tmp_path / "Ann" / "head").config.workspace.data_root == root / "data"
    assert run.main(["--exp_name", "Ann/head", "--validate", "--hparams", "device=cpu"]) == 0
    looks = root / "data" / "training" / "Ann" / "head"
    scores = json.loads((looks / "evaluation" / "scores.json").read_text())
    assert scores["kind"] == "head" and scores["frames"] == 2 and 3 < scores["psnr"] < 60
    strips = sorted((looks / "evaluation").glob("*.png"))
    assert len(strips) == 2 and cv2.imread(str(strips[0])).shape == (16, 64, 3)
    assert run.main(["--exp_name", "Ann/head", "--infer"]) == 0
    assert len(list((looks / "pictures").glob("*.png"))) == 2


def test_what_cannot_be_asked_is_one_sentence(own, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(run, "CHECKPOINTS", tmp_path)
    train_portrait(config(own[0], max_updates=1), tmp_path / "head", silent)
    assert run.main(["--exp_name", "head"]) == 1
    assert "is a finished portrait; to train it again name its --config" in caplog.records[-1].getMessage()
    assert run.main(["--exp_name", "head", "--validate", "--hparams", "max_updates=2"]) == 1
    assert "of a finished portrait only device can be chosen" in caplog.records[-1].getMessage()
    whole = replace(own[1], samples=replace(own[1].samples, is_train=np.ones(FRAMES, bool)))
    clip = PortraitClip(whole, portrait_face(whole), config(own[0]).portrait, own[0], CPU)
    with pytest.raises(CheckpointError, match="Ann has no held-out frames"):
        score(load_portrait(tmp_path / "head").portrait, clip, None, silent)


def test_carving_leaves_the_head(own):
    settings = config(own[0], carving_frames=8)
    carved, free = (
        PortraitTask(one, new_portrait(one, one.portrait, None, CPU), clip_of(own, one))
        for one in (settings, config(own[0]))
    )
    empty = [(task.portrait.head.density_grid < 0).float().mean() for task in (carved, free)]
    assert empty[0] > empty[1] + 0.02
    carved.training_step(0)
    assert (carved.portrait.head.density_grid < 0).float().mean() == empty[0]


def test_the_lips_count_for_more(own):
    """An error of the lips alone weighs ``lips_share`` and its share of the picture, in rays and in whole frames."""
    for kind in ("head", "head_sr"):
        losses = {}
        for share in (0.0, 0.5):
            settings = config(own[0], kind, lips_share=share, n_rays=4096)
            clip = clip_of(own, settings)
            task = PortraitTask(settings, new_portrait(settings, settings.portrait, None, CPU), clip)
            task.portrait.head.density_bitfield.zero_()
            example = clip.example(0)
            behind = example.frame.background.view(16, 16, 3).clone()
            behind[4:12, 4:12] += 0.1
            wrong = replace(example, target=behind.reshape(-1, 3))
            losses[share] = float(task.stage.terms(wrong, 0)["mse"].detach())
        assert losses[0.0] == pytest.approx(0.25 * 0.01, rel=0.1)
        assert losses[0.5] == pytest.approx((0.5 * 0.25 + 0.5) * 0.01, rel=0.1)
