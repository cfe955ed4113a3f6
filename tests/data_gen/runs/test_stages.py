"""What the stages make of the configuration's face model."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from data_gen.runs import stages
from data_gen.runs.process_config import DetectConfig, ProcessVideoConfig
from data_gen.runs.process_video import STAGES, main, run_stages, stage_keys
from data_gen.runs.stages import StageInput
from data_gen.runs.stretches import stretches_at_once
from modules.commons.errors import ConfigError, ModelFileError, NoFaceError
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from modules.face_model import choice
from modules.face_model.bfm import BFM_FILE
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frame_index import FrameIndex
from modules.structures.masks import OcclusionTable
from modules.video.reader import VideoReader
from tests.support.real_frames import DEMO_CLIP
from tests.support.small_bfm import small_bfm, small_bfm_arrays, write_bfm
from tests.support.synthetic_head import SyntheticSpeaker

BFM = ProcessVideoConfig(face_model="bfm2009")


@pytest.fixture
def workspace(tmp_path):
    """A clip whose tables are there up to the fit: a painted head in the middle of the frame."""
    space = VideoWorkspace("clip", tmp_path / "data")
    space.processed.mkdir(parents=True)
    speaker = SyntheticSpeaker(1, size_hw=(360, 640), face_px=180)
    speaker.landmarks(speaker.coeffs(12)).save(space.landmarks)
    space.crop_metadata.write_text(CropMetadata((CropRegion(320.0, 180.0, 300.0),), (360, 640), 512).to_json())
    return space


def stage_input(workspace, config, tmp_path):
    return StageInput(tmp_path / "clip.mp4", "hash", workspace, config, silent)


def test_fitting_bfm2009_works_and_training_on_it_is_refused(workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "BFM2009_DIR", write_bfm(tmp_path / "bfm2009", *small_bfm_arrays()))
    for path in (workspace.hands, workspace.occlusion):
        OcclusionTable.nothing(12, 8).save(path)
    stages.fit_first(stage_input(workspace, BFM, tmp_path))
    stages.fit(stage_input(workspace, BFM, tmp_path))
    coeffs = FaceModelCoeffs.load(workspace.coeffs)
    assert coeffs.face_model_version == small_bfm().version
    assert coeffs.camera == CameraIntrinsics.geneface(512) and coeffs.expression.shape == (12, 64)
    assert np.nanmean(coeffs.residual) < 0.05
    with pytest.raises(ConfigError, match=r"fitted with BFM2009 \(bfm-.*set face_model to embedded"):
        stages.check_fitted_model(workspace)
    assert next(stage for stage in STAGES if stage.name == "binarize").check is stages.check_fitted_model
    stages.fit_first(stage_input(workspace, ProcessVideoConfig(), tmp_path))
    stages.fit(stage_input(workspace, ProcessVideoConfig(), tmp_path))
    stages.check_fitted_model(workspace)


def test_the_second_fit_is_made_only_where_more_is_hidden(workspace, tmp_path, monkeypatch):
    stage = stage_input(workspace, ProcessVideoConfig(), tmp_path)
    nothing = OcclusionTable.nothing(12, 8)
    for path in (workspace.hands, workspace.occlusion):
        nothing.save(path)
    stages.fit_first(stage)
    first = FaceModelCoeffs.load(workspace.first_coeffs)
    asked = []
    monkeypatch.setattr(stages, "_fit", lambda _, occluders, output: asked.append((occluders, output)))
    stages.fit(stage)
    copied = FaceModelCoeffs.load(workspace.coeffs)
    assert not asked
    for name in ("identity", "expression", "euler", "translation", "valid", "residual"):
        np.testing.assert_array_equal(getattr(copied, name), getattr(first, name))
    hidden = nothing.hidden.copy()
    hidden[3, 10:40] = True
    replace(nothing, hidden=hidden).save(workspace.occlusion)
    stages.fit(stage)
    assert asked == [(workspace.occlusion, workspace.coeffs)]


def test_a_missing_bfm2009_ends_the_job_before_it_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "BFM2009_DIR", tmp_path / "bfm2009")
    video = tmp_path / "clip.mp4"
    video.write_bytes(b"video")
    space = VideoWorkspace("clip", tmp_path / "data")
    with pytest.raises(ModelFileError, match=f"{tmp_path}/bfm2009 lacks {BFM_FILE}"):
        run_stages(STAGES, video, space, BFM, silent)
    assert not space.data_root.exists()


def test_the_command_line_names_a_model(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(choice, "BFM2009_DIR", tmp_path / "bfm2009")
    (tmp_path / "clip.mp4").write_bytes(b"video")
    asked = ["--video", str(tmp_path / "clip.mp4"), "--data_root", str(tmp_path / "data"), "--hparams"]
    assert main([*asked, "face_model=bfm2009"]) == 1
    assert f"lacks {BFM_FILE}" in caplog.text
    assert main([*asked, "face_model=flame"]) == 1
    assert "face_model" in caplog.text and "bfm2009" in caplog.text.splitlines()[-1]


KEYED = ("auto", "litert", "torch")


def keys_of(**detect):
    return stage_keys("hash", ProcessVideoConfig(detect=DetectConfig(**detect)), "model")


def test_what_the_networks_run_on_makes_no_result_stale():
    auto, litert, in_torch = (keys_of(extractor=name) for name in KEYED)
    assert auto == litert == in_torch
    assert keys_of(extractor="mediapipe")["track"] != auto["track"]
    assert keys_of(backend="blazeface")["track"] != auto["track"]


def test_the_runtime_follows_extractor_and_device():
    def runtime(extractor):
        return stages.networks_runtime(ProcessVideoConfig(device="cpu", detect=DetectConfig(extractor=extractor)))

    assert [runtime(name).extractor for name in (*KEYED, "mediapipe")] == ["litert", "litert", "torch", "litert"]


@pytest.fixture
def clip(workspace, demo_dir):
    """The demo clip's first frames in which a hand comes up, as far as the stage for hands is concerned."""
    video = demo_dir / DEMO_CLIP
    with VideoReader(video) as reader:
        frames = list(islice(reader.frames(), 72))
        time_base = reader.info.time_base
    FrameIndex(np.array([f.pts for f in frames], np.int64), time_base, np.zeros(1, np.int64)).save(
        workspace.frame_index
    )
    return video


def looked_through(workspace, video, count, monkeypatch, at_once):
    """The hands of a clip whose face stands still, looked through in stretches of 24 frames."""
    monkeypatch.setattr(stages, "HANDS_STRETCH", 24)
    monkeypatch.setattr(stages, "MOST_STRETCHES", at_once)
    monkeypatch.setattr(stages, "usable_cores", lambda: 8)
    speaker = SyntheticSpeaker(1, size_hw=(360, 640), face_px=180)
    speaker.landmarks(speaker.coeffs(count)).save(workspace.landmarks)
    told = []
    config = ProcessVideoConfig(device="cpu")
    stage = StageInput(video, "hash", workspace, config, lambda *heard: told.append(heard), key="k")
    facts = stages.hands(stage)
    return facts, told


@pytest.mark.slow
def test_stretches_looked_through_at_once_give_the_same_hands(workspace, clip, monkeypatch):
    tables = []
    for at_once in (1, 3):
        facts, told = looked_through(workspace, clip, 72, monkeypatch, at_once)
        assert facts == {"extractor": "litert"} and told[-1] == ("hands", 72, 72) and len(told) == 3
        table = OcclusionTable.load(workspace.hands)
        tables.append([np.array(values) for values in (table.coverage, table.hidden, table.rows, table.masks)])
    assert len(tables[0][2]), "a hand is there"
    for one_by_one, at_once in zip(*tables, strict=True):
        np.testing.assert_array_equal(one_by_one, at_once)


def test_as_many_stretches_at_a_time_as_cores_and_memory_allow():
    assert stretches_at_once(3, (512, 512), 16, 8) == 3
    assert stretches_at_once(40, (512, 512), 16, 8) == 8
    assert stretches_at_once(40, (512, 512), 2, 8) == 2
    assert stretches_at_once(40, (2160, 3840), 16, 8) == 1
    assert stretches_at_once(0, (512, 512), 4, 8) == 1


def test_stretches_that_are_done_are_kept_when_another_fails(workspace, clip, monkeypatch):
    done = []

    def table(frames, landmarks, metadata, detector, size, rows):
        seen = [frame.index for frame in frames]
        assert seen[0] == max(rows[0] - stages.HANDS_MARGIN, 0)
        if rows[0] == 24 and len(done) < 2:
            raise NoFaceError("this one fails")
        done.append(rows[0])
        return OcclusionTable.nothing(rows[1] - rows[0], size)

    monkeypatch.setattr(stages, "occlusion_table", table)
    monkeypatch.setattr(stages, "OcclusionDetector", lambda runtime: None)
    with pytest.raises(NoFaceError, match="this one fails"):
        looked_through(workspace, clip, 48, monkeypatch, 1)
    assert done == [0] and not workspace.hands.exists()
    done.append(-1)
    _, told = looked_through(workspace, clip, 48, monkeypatch, 1)
    assert done == [0, -1, 24], "the first stretch is not looked through again"
    assert told == [("hands", 48, 48)] and len(OcclusionTable.load(workspace.hands).coverage) == 48
