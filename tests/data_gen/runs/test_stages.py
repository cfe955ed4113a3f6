"""What the stages make of the configuration's face model."""

import numpy as np
import pytest

from data_gen.runs import stages
from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import STAGES, main, run_stages
from data_gen.runs.stages import StageInput
from modules.commons.errors import ConfigError, ModelFileError
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from modules.face_model import choice
from modules.face_model.bfm import BFM_FILE
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.face_coeffs import FaceModelCoeffs
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
    stages.fit(stage_input(workspace, BFM, tmp_path))
    coeffs = FaceModelCoeffs.load(workspace.coeffs)
    assert coeffs.face_model_version == small_bfm().version
    assert coeffs.camera == CameraIntrinsics.geneface(512) and coeffs.expression.shape == (12, 64)
    assert np.nanmean(coeffs.residual) < 0.05
    with pytest.raises(ConfigError, match=r"fitted with BFM2009 \(bfm-.*set face_model to embedded"):
        stages.check_fitted_model(workspace)
    assert next(stage for stage in STAGES if stage.name == "binarize").check is stages.check_fitted_model
    stages.fit(stage_input(workspace, ProcessVideoConfig(), tmp_path))
    stages.check_fitted_model(workspace)


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
