"""The end-to-end benchmark: what it enlarges fits together, what it repeats is long enough, and a CPU runs it too."""

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.benchmark_gpu import end_to_end
from inference.benchmark_gpu.end_to_end import _enlarged, _repeated, measured, open_scene, rows
from inference.casting import Cast
from inference.driving import occlusion_in
from inference.prepared import open_face, open_video
from modules.commons.errors import GeneFaceError
from modules.commons.progress import silent
from modules.video.reader import VideoReader
from tests.support.tiny_run import own_folders, tiny_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


def test_the_speech_is_repeated_until_the_video_ends(run, tmp_path):
    once = load_audio_16k(run.speech)
    longer = load_audio_16k(_repeated(run.speech, 3.0, tmp_path / "longer.wav"))
    assert longer.duration_s == pytest.approx(3.0, abs=1e-3)
    count = len(once.samples)
    assert np.abs(longer.samples[count : 2 * count] - once.samples).max() < 1e-3


def test_tables_are_enlarged_with_the_picture(run, tmp_path, monkeypatch):
    monkeypatch.setattr(end_to_end, "ENLARGED", 2)
    with own_folders(run.root):
        video = open_video(run.clip, silent)
        source = open_face(video, 0, silent)
    cast = Cast(source, run.speech, np.ones(len(source), bool))
    larger, (enlarged,) = _enlarged(video, [cast], tmp_path / "large.mp4")
    with VideoReader(larger.video) as reader:
        assert (reader.info.width, reader.info.height) == (2 * video.info.width, 2 * video.info.height)
        frames = list(reader.frames())
    assert [frame.pts for frame in frames] == list(video.index.pts)
    result = enlarged.source
    head = np.array([0.3, -0.2, 9.0])
    small, large = (s.coeffs.camera.matrix() @ head for s in (source, result))
    assert np.allclose(2 * small[:2], large[:2])
    row = int(source.occlusion.rows[0])
    size = (video.info.width, video.info.height)
    before = occlusion_in(source, row, np.eye(3), size)
    after = occlusion_in(result, row, np.eye(3), (2 * size[0], 2 * size[1]))
    assert np.abs(after.values[::2, ::2] - before.values).mean() < 0.01
    assert result.face_height_px == pytest.approx(2 * source.face_height_px, rel=1e-5)


@pytest.mark.slow
def test_every_stage_and_the_whole_are_timed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(end_to_end, "IDENTITIES", run.identity.parent)
    monkeypatch.setattr(end_to_end, "PERSON", run.identity.name)
    monkeypatch.setattr(end_to_end, "REPEATS", 1)
    monkeypatch.setattr(end_to_end, "HELD_FRAMES", 2)
    seen = []
    with own_folders(run.root):
        scene = open_scene(run.clip, run.speech, CPU, tmp_path, silent)
        monkeypatch.setattr(end_to_end, "_edit", lambda scene: seen.append(scene) or len(scene.timeline))
        found = measured(scene, CPU, silent)
    assert [row.what.split()[0].strip(",") for row in found] == ["decode", "render", "composite", "encode", "decode"]
    assert all(row.value > 0 and row.unit == "frames/s" for row in found)
    assert found[-1].goal == ">= 60" and "frames edited" in found[-1].detail and seen[0] is scene
    assert not list(tmp_path.glob("encoded*"))


@pytest.mark.parametrize("missing", ["video", "speech", "person"])
def test_missing_material_is_one_clear_sentence(missing, run, tmp_path, monkeypatch):
    monkeypatch.setattr(end_to_end, "IDENTITIES", tmp_path if missing == "person" else run.identity.parent)
    monkeypatch.setattr(end_to_end, "PERSON", run.identity.name)
    nothing = tmp_path / "nothing.mp4"
    video, speech = (nothing if missing == "video" else run.clip), (nothing if missing == "speech" else run.speech)
    with pytest.raises(GeneFaceError, match="there is no such"):
        rows(CPU, silent, video, speech)
