"""A prepared source that nothing had to be prepared for: a synthetic speaker's own coefficients as the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from inference.prepared import PreparedSource
from modules.commons.workspace import VideoWorkspace
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frames import VideoInfo
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.structures.tracks import FrameStatus
from tests.support.synthetic_head import SyntheticSpeaker


def source_of(
    speaker: SyntheticSpeaker,
    info: VideoInfo,
    coeffs: FaceModelCoeffs,
    landmarks: Landmarks2D,
    shot_starts: Sequence[int] = (0,),
    face: int = 0,
) -> PreparedSource:
    """These tables as a source of a video of 25 frames/s; frames without landmarks are lost."""
    count = len(coeffs)
    return PreparedSource(
        video=info.path,
        sha256="0" * 64,
        workspace=VideoWorkspace("made_up", Path("nowhere"), face),
        info=info,
        times_s=np.arange(count) / 25,
        landmarks=landmarks,
        coeffs=coeffs,
        crops=CropMetadata((CropRegion(20.0, 20.0, 20.0),), (info.height, info.width), 256),
        occlusion=OcclusionTable.nothing(count, 4, OcclusionEvidence.APPEARANCE),
        face_model=speaker.model,
        status=np.where(landmarks.valid, FrameStatus.DETECTED, FrameStatus.LOST).astype(np.uint8),
        shot_starts=np.array(shot_starts),
    )


def made_up_source(
    info: VideoInfo, count: int, valid: Sequence[bool] | None = None, shot_starts: Sequence[int] = (0,)
) -> PreparedSource:
    """A speaker in the middle of that video; frames that are not ``valid`` have neither landmarks nor a fit."""
    speaker = SyntheticSpeaker(5, size_hw=(info.height, info.width), face_px=0.5 * info.height)
    coeffs = speaker.coeffs(count)
    landmarks = speaker.landmarks(coeffs)
    if valid is not None:
        kept = np.array(valid)
        points = np.where(kept[:, None, None], landmarks.points, np.nan).astype(np.float32)
        landmarks, coeffs = replace(landmarks, points=points, valid=kept), replace(coeffs, valid=kept)
    return source_of(speaker, info, coeffs, landmarks, shot_starts)
