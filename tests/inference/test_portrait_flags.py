"""What the classic command's flags do to a portrait of GeneFace++: its network, its head and its torso, made small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from scipy.io import wavfile

from inference import portrait_performance
from inference.genefacepp_infer import GeneFace2Infer
from inference.jobs import ClassicJob
from inference.portrait_video import PortraitPlayer
from modules.audio2motion.speech_vae import SpeechVAEConfig, build_speech_vae
from modules.audio2motion.vae import FlowVAEConfig
from modules.commons.workspace import VideoWorkspace
from modules.face_model.bfm import BfmModel
from modules.radnerfs.portrait import PortraitPicture
from tests.inference.test_official_motion import MadeUpExtractor
from tests.support.official_portraits import official_dataset, write_official, write_small_portrait
from tests.support.small_bfm import small_bfm

TINY = SpeechVAEConfig(
    n_audio=8, n_condition=6, vae=FlowVAEConfig(hidden=8, latent=4, encoder_layers=1, decoder_layers=1, flow_hidden=8)
)
EXTRACTORS = {"hubert": MadeUpExtractor("hubert", 8, 30.0), "f0": MadeUpExtractor("f0", 1, 3000.0)}
CLIP_FRAMES = 22
RATE_HZ = 44_100


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A portrait in GeneFace++'s files, its clip, and half a second and two seconds of noise in stereo."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portrait_performance, "build_extractor", EXTRACTORS.__getitem__)
        patch.setattr(BfmModel, "load", lambda: small_bfm())
        torch.manual_seed(0)
        write_official(folder / "a2m", build_speech_vae(TINY).state_dict(), {"motion_type": "exp"})
        write_small_portrait(folder / "may_torso", "torso_sr", data_root=folder / "data")
        binary = VideoWorkspace("May", folder / "data").binary
        binary.mkdir(parents=True)
        np.save(binary / "trainval_dataset.npy", official_dataset(CLIP_FRAMES))
        noise = np.random.default_rng(0).normal(0, 3000, (2 * RATE_HZ, 2)).astype(np.int16)
        wavfile.write(folder / "long.wav", RATE_HZ, noise)
        wavfile.write(folder / "short.wav", RATE_HZ, noise[: RATE_HZ // 2])
        yield folder


@dataclass
class Take:
    """What a job had rendered: the performance, how it was to be shown, and how far rendering ran ahead of writing."""

    written: Path
    expression: np.ndarray
    rows: list[int]
    shown: dict[str, Any]
    t_thresh: float
    lead: int


@pytest.fixture
def speak(home, tmp_path, monkeypatch):
    """Runs a job through the command's class; pictures are plain grey, and what they were to show is kept."""
    count = iter(range(100))

    def run(sound: str = "short.wav", **more) -> Take:
        rendered, leads, made = [0], [0], {}

        def pictures(player, performance, **shown):
            made.update(expression=performance.expression, rows=performance.rows.tolist(), shown=shown)
            made.update(t_thresh=player.options.t_thresh)
            for _ in range(len(performance)):
                rendered[0] += 1
                yield PortraitPicture(torch.full((3, 32, 32), 0.5), torch.ones(32, 32), torch.ones(32, 32))

        def progress(what: str, done: int, total: int) -> None:
            assert total == len(made["rows"])
            leads.append(rendered[0] - done)

        monkeypatch.setattr(PortraitPlayer, "pictures", pictures)
        job = {
            "drv_aud": home / sound, "out_name": tmp_path / f"{next(count)}.mp4", "torso_ckpt": home / "may_torso",
            "a2m_ckpt": home / "a2m", "device": "cpu", **more,
        }  # fmt: skip
        written = GeneFace2Infer(progress).infer_once(ClassicJob.from_mapping(job))
        return Take(written, **made, lead=max(leads))

    return run


def test_takes_mouth_and_memory(speak):
    usual, first = speak(), speak(temperature=0.8, seed=1)
    assert usual.shown == {"lle_percent": 0.2, "blinks": False} and usual.t_thresh == 0.01
    again = speak(seed=7, fast=True, low_memory_usage=True)
    np.testing.assert_array_equal(again.expression, usual.expression)  # nothing is drawn at temperature 0
    assert again.t_thresh == 0.05
    np.testing.assert_array_equal(speak(temperature=0.8, seed=1).expression, first.expression)
    assert np.abs(speak(temperature=0.8, seed=2).expression - first.expression).max() > 1e-4
    wide = speak(lle_percent=0.7, blink_mode="period", mouth_amp=3.0, raymarching_end_threshold=0.2)
    assert wide.shown == {"lle_percent": 0.7, "blinks": True} and wide.t_thresh == 0.2
    assert np.abs(wide.expression - usual.expression).max() > 1e-5, "the network hears how wide the mouth is to open"


def test_speech_may_be_longer_than_the_clip_and_is_streamed(speak):
    """The original reads beyond the end of the clip; here it goes back and forth."""
    take = speak("long.wav")
    forth = list(range(CLIP_FRAMES))
    assert take.rows == [*forth, *forth[-2:0:-1], *forth][:50] and len(take.expression) == 50
    assert take.lead <= 1, "no frame is rendered long before it is encoded: memory does not grow with the sound"
    with av.open(str(take.written)) as video:
        assert [(stream.rate, stream.channels) for stream in video.streams.audio] == [(RATE_HZ, 2)]
        assert sum(1 for _ in video.decode(video=0)) == 50


def test_which_frames_are_played(speak):
    assert set(speak(drv_pose="static").rows) == {0}
    assert speak(drv_pose="3-6").rows[:7] == [3, 4, 5, 4, 3, 4, 5]
