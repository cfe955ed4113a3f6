"""The command that times masks: what it takes and refuses, and what it says of a made-up clip."""

import logging
from types import SimpleNamespace

import cv2
import pytest
import torch

from data_gen.runs import time_occlusion as command
from data_gen.runs.process_config import OcclusionStageConfig
from data_gen.runs.time_occlusion import main, parse_arguments
from data_gen.utils.process_video.frame_hints import FrameHints
from data_gen.utils.process_video.occlusion_parts import PassConfig
from modules.commons.errors import ConfigError
from tests.support.occluded_crops import Remembers, tables
from tests.support.talking_crops import talking_crops


@pytest.fixture
def threads():
    """The run sets the threads of OpenCV and torch."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    yield
    cv2.setNumThreads(before[0])
    torch.set_num_threads(before[1])


def test_flags_choose():
    options = parse_arguments(["a.mp4", "--data_root", "d", "--first", "7", "--frames", "9", "--device", "cuda"])
    assert (options.video.name, options.data.name, options.first, options.frames) == ("a.mp4", "d", 7, 9)
    assert options.device == "cuda" and options.repeats == 3
    with pytest.raises(ConfigError, match="--frames"):
        parse_arguments(["a.mp4", "--frames", "0"])


def test_a_video_that_was_not_prepared_is_refused(tmp_path, caplog):
    assert main([str(tmp_path / "a.mp4"), "--data_root", str(tmp_path)]) == 1
    assert "is not prepared" in caplog.text and "process_video.py" in caplog.text


def test_tables_of_another_version_are_refused(tmp_path, monkeypatch, caplog):
    (tmp_path / "hands.npz").touch()
    monkeypatch.setattr(command, "VideoWorkspace", lambda *_: SimpleNamespace(hands=tmp_path / "hands.npz"))

    def stale(*_):
        raise ValueError("hands.npz does not hold occlusion of schema 9")

    monkeypatch.setattr(command, "JudgedClip", SimpleNamespace(open=stale))
    assert main(["a.mp4"]) == 1
    assert "schema 9; run" in caplog.text


def test_a_clip_is_timed_by_arrays(tmp_path, monkeypatch, caplog, threads):
    made = talking_crops(3)
    wanted = []

    def crops(rows):
        wanted.extend(rows.tolist())
        return ((int(row), made.crops[row]) for row in rows)

    clip = SimpleNamespace(
        tables=tables(made), crops=crops, hints=FrameHints, config=OcclusionStageConfig(judge=PassConfig(64))
    )
    monkeypatch.setattr(command, "JudgedClip", SimpleNamespace(open=lambda *_: clip))
    monkeypatch.setattr(command, "learnt_face", lambda *_: Remembers(made))
    monkeypatch.setattr(command, "VideoWorkspace", lambda *_: SimpleNamespace(hands=tmp_path / "hands.npz"))
    (tmp_path / "hands.npz").touch()
    with caplog.at_level(logging.INFO):
        assert main(["made.mp4", "--first", "1", "--frames", "5", "--repeats", "1"]) == 0
    assert wanted == [1, 2]
    assert "cpu: " in caplog.text and "ms per frame" in caplog.text
    assert main(["made.mp4", "--first", "3"]) == 1
    assert "has only 3 frames" in caplog.text
