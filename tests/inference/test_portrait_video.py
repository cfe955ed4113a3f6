"""Portraits that GeneFace++ trained speak by the classic command; BFM and extractors are made up."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from inference import portrait_performance
from inference.genefacepp_infer import main
from inference.portrait_performance import Performance
from inference.portrait_video import PortraitPlayer, still_background
from modules.audio2motion.speech_vae import SpeechVAEConfig, build_speech_vae
from modules.audio2motion.vae import FlowVAEConfig
from modules.commons.errors import ConfigError
from modules.commons.workspace import VideoWorkspace
from modules.face_model.bfm import BfmModel
from modules.face_model.portrait_face import PortraitFace
from modules.radnerfs.official import load_portrait
from modules.radnerfs.official_dataset import load_portrait_dataset
from modules.structures.audio import AudioClip
from modules.video.reader import VideoReader
from tests.inference.test_official_motion import MadeUpExtractor
from tests.support.official_portraits import official_dataset, write_official, write_small_portrait
from tests.support.small_bfm import small_bfm
from tests.support.tiny_run import write_wav

TINY = SpeechVAEConfig(
    n_audio=8, n_condition=6, vae=FlowVAEConfig(hidden=8, latent=4, encoder_layers=1, decoder_layers=1, flow_hidden=8)
)
EXTRACTORS = {"hubert": MadeUpExtractor("hubert", 8, 30.0), "f0": MadeUpExtractor("f0", 1, 3000.0)}


@pytest.fixture
def moved_in(tmp_path, monkeypatch):
    """GeneFace++'s folders as they are, and the models that may not be shipped."""
    theirs = tmp_path / "theirs"
    torch.manual_seed(0)
    write_official(theirs / "a2m", build_speech_vae(TINY).state_dict(), {"motion_type": "exp"})
    write_small_portrait(theirs / "may_torso", "torso_sr", data_root=tmp_path / "data")
    binary = VideoWorkspace("May", tmp_path / "data").binary
    binary.mkdir(parents=True)
    np.save(binary / "trainval_dataset.npy", official_dataset())
    monkeypatch.setattr(portrait_performance, "build_extractor", EXTRACTORS.__getitem__)
    monkeypatch.setattr(BfmModel, "load", lambda: small_bfm())
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, 16_000).astype(np.float32)
    write_wav(tmp_path / "speech.wav", AudioClip(speech, 16_000))
    return tmp_path


def small_face() -> PortraitFace:
    return PortraitFace.of(small_bfm().landmark_rows())


def run(folder, *more) -> int:
    flags = ["--torso_ckpt", folder / "theirs" / "may_torso", "--drv_aud", folder / "speech.wav", "--device", "cpu"]
    return main([str(flag) for flag in (*flags, "--out_name", folder / "out.mp4", *more)])


def pictures(path) -> np.ndarray:
    with VideoReader(path) as reader:
        return np.stack([frame.planes[0] for frame in reader.frames()]).astype(int)


def test_a_portrait_speaks(moved_in):
    assert run(moved_in, "--a2m_ckpt", moved_in / "theirs" / "a2m", "--blink_mode", "period") == 0
    with VideoReader(moved_in / "out.mp4") as reader:
        assert (reader.info.width, reader.info.height, reader.info.has_audio) == (32, 32, True)
        assert reader.info.frame_rate == 25
    shown = pictures(moved_in / "out.mp4")
    assert len(shown) == 25 and shown.std() > 5
    assert not list(moved_in.glob("*.tmp*"))


def test_what_is_missing_is_said_in_one_sentence(moved_in, caplog):
    dataset = VideoWorkspace("May", moved_in / "data").binary / "trainval_dataset.npy"
    assert run(moved_in) == 1
    assert "needs GeneFace++'s own audio-to-motion network; give --a2m_ckpt" in caplog.records[-1].getMessage()
    dataset.unlink()
    assert run(moved_in, "--a2m_ckpt", moved_in / "theirs" / "a2m") == 1
    assert "holds neither portrait_dataset.npz nor" in caplog.records[-1].getMessage()
    assert not (moved_in / "out.mp4").exists()


def test_backgrounds(moved_in):
    dataset = load_portrait_dataset(VideoWorkspace("May", moved_in / "data").binary)
    assert still_background(dataset, "") is dataset.background
    assert still_background(dataset, "white").min() == 255 and still_background(dataset, "black").max() == 0
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 200
    assert cv2.imwrite(str(moved_in / "red.png"), picture[..., ::-1])
    np.testing.assert_array_equal(still_background(dataset, str(moved_in / "red.png")), picture)
    with pytest.raises(ConfigError, match="cannot be read as a background"):
        still_background(dataset, "none.png")
    official = load_portrait(moved_in / "theirs" / "may_torso")
    white = replace(official, config=replace(official.config, background="white"))
    shown = [
        next(
            PortraitPlayer(one, dataset, small_face()).frames(Performance(np.zeros((1, 64), np.float32), np.array([0])))
        )
        for one in (official, white)
    ]
    assert not np.array_equal(*shown)


def test_frames_follow_pose_and_speech(moved_in):
    official = load_portrait(moved_in / "theirs" / "may_torso")
    dataset = load_portrait_dataset(VideoWorkspace("May", moved_in / "data").binary)
    player = PortraitPlayer(official, dataset, small_face())

    def play(expression, rows):
        return list(player.frames(Performance(expression, np.array(rows))))

    assert player.side == 16 and player.picture_side == 32
    expression = np.zeros((3, 64), np.float32)
    still = play(expression, [5, 5, 5])
    assert [frame.shape for frame in still] == [(32, 32, 3)] * 3 and still[0].dtype == np.uint8
    assert np.array_equal(still[1], play(expression, [5, 5, 5])[1])
    turned = play(expression, [5, 12, 5])
    assert not np.array_equal(turned[1], still[1])
    spoken = play(expression + dataset.expression[:3], [5, 5, 5])
    assert not np.array_equal(spoken[1], still[1])
