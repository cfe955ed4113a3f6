"""Tables and pictures of a clip → the dataset that portraits in GeneFace++'s manner are trained on.

Reads: portrait_plan.npz, portrait_speech.npz, coeff_fit_mp.npz, landmarks.npz, bg.png, names of pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.runs.portrait_pictures import jpg, png, read_picture
from data_gen.utils.process_video.portrait_framing import face_rect, lip_rect
from modules.commons.errors import CheckpointError
from modules.commons.workspace import BFM2009_DIR, FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.bfm import BFM_VERSION_PREFIX, BfmModel
from modules.face_model.keypoints import eye_area_percent
from modules.face_model.model import FaceModel
from modules.structures.cameras import CameraIntrinsics, crop_camera_matrix
from modules.structures.crops import transform_points
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import LM68, Landmarks2D
from modules.structures.portrait_dataset import PortraitDataset, PortraitSamples
from modules.structures.portrait_tables import PORTRAIT_SIDE, PortraitPlan, PortraitSpeech


def binarize_portrait(workspace: VideoWorkspace) -> PortraitDataset:
    """Put a portrait's dataset together.

    Raises:
        CheckpointError: the coefficients are of another face model than the one that is here.
    """
    plan, coeffs = PortraitPlan.load(workspace.portrait_plan), FaceModelCoeffs.load(workspace.coeffs)
    sound = PortraitSpeech.load(workspace.portrait_speech)
    rows = plan.source_rows
    expression = coeffs.expression[rows]
    return PortraitDataset(
        video_id=workspace.video_id,
        face_model_version=coeffs.face_model_version,
        identity=coeffs.identity[None],
        expression=expression,
        euler=coeffs.euler[rows],
        translation=coeffs.translation[rows],
        eye_area=eye_areas(coeffs, expression),
        background=read_picture(workspace.background_plate),
        camera=square_camera(coeffs, plan),
        samples=_samples(workspace, plan),
        speech=sound.speech,
        speech_extractor=sound.speech_extractor,
        mel=sound.mel,
        f0_hz=sound.f0_hz,
        correction=coeffs.correction,
    )


def square_camera(coeffs: FaceModelCoeffs, plan: PortraitPlan) -> CameraIntrinsics:
    """Camera of the portrait's square: that of the fit for BFM2009, else ``K_crop = crop_from_frame · K_frame``."""
    if coeffs.face_model_version.startswith(BFM_VERSION_PREFIX):
        return CameraIntrinsics.geneface(PORTRAIT_SIDE)
    matrix = crop_camera_matrix(coeffs.camera, plan.crops.crop_from_frame(0))
    fx, fy, cx, cy = (float(v) for v in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    return CameraIntrinsics(fx, fy, cx, cy, PORTRAIT_SIDE, PORTRAIT_SIDE)


def eye_areas(coeffs: FaceModelCoeffs, expression: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[T]`` of ``eye_area_percent``.

    Raises:
        CheckpointError: the face model that the coefficients belong to is not the one that is here.
    """
    is_bfm = coeffs.face_model_version.startswith(BFM_VERSION_PREFIX)
    model = BfmModel.load(BFM2009_DIR) if is_bfm else FaceModel.load(FACE_MODEL_FILE)
    if model.version != coeffs.face_model_version:
        raise CheckpointError(
            f"the clip was fitted with {coeffs.face_model_version}, and the face model here is {model.version}; "
            "prepare the video again"
        )
    if isinstance(model, FaceModel):
        model = model.corrected(coeffs.correction)
    with torch.no_grad():
        points = model.landmarks(torch.from_numpy(coeffs.identity), torch.from_numpy(expression))[:, list(LM68)]
        return eye_area_percent(points).numpy()


def _samples(workspace: VideoWorkspace, plan: PortraitPlan) -> PortraitSamples:
    landmarks, stored = Landmarks2D.load(workspace.landmarks), plan.samples.tolist()
    crop_from_frame, size_hw = plan.crops.crop_from_frame(0), (PORTRAIT_SIDE, PORTRAIT_SIDE)
    points = [transform_points(crop_from_frame, landmarks.points[plan.source_rows[row]][list(LM68)]) for row in stored]
    moves = any(workspace.bg_imgs.iterdir())
    return PortraitSamples(
        rows=plan.samples,
        is_train=plan.is_train,
        frame_files=tuple(_named(workspace, workspace.com_imgs / jpg(row)) for row in stored),
        head_files=tuple(_named(workspace, workspace.head_imgs / png(row)) for row in stored),
        torso_files=tuple(_named(workspace, workspace.inpaint_torso_imgs / png(row)) for row in stored),
        face_rect=np.array([face_rect(one, size_hw) for one in points], np.int64),
        lip_rect=np.array([lip_rect(one, size_hw) for one in points], np.int64),
        background_files=tuple(_named(workspace, workspace.bg_imgs / jpg(row)) for row in stored if moves),
    )


def _named(workspace: VideoWorkspace, path: Path) -> str:
    """A picture relative to the folder above the data, as GeneFace++ names it: ``data/processed/videos/...``."""
    return path.relative_to(workspace.data_root.parent).as_posix()
