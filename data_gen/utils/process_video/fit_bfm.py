"""Fit BFM2009 as GeneFace++ does: landmarks in the pixels of the square crop, seen by its centred camera.

Official checkpoints expect coefficients of that camera, whatever the frame around the crop was filmed with.
Reads: ``landmarks.npz``, ``crop_metadata.json`` and, when present, the occlusion table of a workspace.
Writes: ``coeff_fit_mp.npz``.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_video.fit_3dmm_landmark import fit_3dmm, landmark_loss_weights, store_fit
from data_gen.utils.process_video.fit_config import FitConfig
from data_gen.utils.process_video.fit_tables import FitTables
from modules.commons.workspace import VideoWorkspace
from modules.face_model.bfm import BfmModel
from modules.structures.cameras import CameraIntrinsics, dataset_translation
from modules.structures.crops import CropMetadata, transform_points
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import N_MEDIAPIPE, Landmarks2D

_HEAVIEST = 20.0
"""Weight of GeneFace++'s heaviest landmarks, those of the upper eyelids."""


def landmarks_in_crop(landmarks: Landmarks2D, metadata: CropMetadata) -> Landmarks2D:
    """The same landmarks in crop pixels, each frame through its own square; frame numbers count from 0."""
    points, depth = np.array(landmarks.points, np.float32), np.array(landmarks.depth, np.float32)
    for row in range(len(landmarks)):
        crop_from_frame = metadata.crop_from_frame(row)
        points[row] = transform_points(crop_from_frame, landmarks.points[row])
        depth[row] *= metadata.crop_size / metadata.region(row).side
    return replace(landmarks, points=points, depth=depth)


def bfm_fit_config(config: FitConfig | None = None) -> FitConfig:
    """``config`` with GeneFace++'s balance of landmarks, coefficients and their change over time.

    Its loss per frame is ``Σ w·r² / 936 + 0.6 / 64 · Σ exp² + 0.2 / 80 · Σ id²`` (r in px of the 224 px canvas, where
    a decimetre is about 110 px), and a second difference d of a coefficient or of the pose costs ``d² / (4 · 64)`` or
    ``0.3 · d² / (4 · 3)``; here all of it is relative to ``exp²``. Groups of landmarks weigh the same and points that
    are turned away too: GeneFace++'s weights are the points' own, see ``_geneface_weights``.
    """
    return replace(
        config or FitConfig(),
        lip_weight=1.0,
        within_lip_weight=1.0,
        eye_weight=1.0,
        contour_weight=1.0,
        gap_weight=0.0,
        turned_weight=1.0,
        touch_dm=math.inf,
        noise_dm=0.027 / math.sqrt(_HEAVIEST),
        expression_spread=1.0,
        identity_weight=0.27,
        pose_smoothness=0.6,
        mouth_smoothness=1.5,
        face_smoothness=1.5,
        correct_expression=False,
    )


def _geneface_weights() -> NDArray[np.float32]:
    """GeneFace++'s weights ``[478]`` as shares of the heaviest point's: what a fit is told of a point is at most 1."""
    weights = landmark_loss_weights(N_MEDIAPIPE, upper_eyelids=_HEAVIEST)
    return (weights / _HEAVIEST).numpy()


def fit_bfm_in_crop(
    landmarks: Landmarks2D,
    metadata: CropMetadata,
    model: BfmModel,
    config: FitConfig | None = None,
    visible: NDArray[np.float32] | None = None,
    *,
    device: torch.device | str = "cpu",
) -> FaceModelCoeffs:
    """Fit BFM2009 to a clip in GeneFace++'s camera, with its weights of the landmarks.

    Args:
        landmarks: T frames, in frame pixels.
        metadata: where the crop lies in each frame.
        model: the user's BFM2009.
        config: what is assumed of a face; its weights of landmark groups do not count here.
        visible: ``[T, 478]`` 0..1, 0 = hidden and ignored; None = all seen.
        device: where frames are solved.

    Returns:
        Coefficients whose ``camera`` is the crop's, ``CameraIntrinsics.geneface(crop_size)``. They are the same for a
        crop of 256 and of 512 px.

    Raises:
        FitDivergedError: when no frame has usable landmarks or the result is not finite.
    """
    weights = np.broadcast_to(_geneface_weights(), landmarks.depth.shape) * (1.0 if visible is None else visible)
    camera = CameraIntrinsics.geneface(metadata.crop_size)
    in_crop = landmarks_in_crop(landmarks, metadata)
    return fit_3dmm(in_crop, camera, model, bfm_fit_config(config), weights.astype(np.float32), device=device)


def fit_bfm_for_a_video(
    workspace: VideoWorkspace,
    model: BfmModel,
    config: FitConfig | None = None,
    occluders: Path | None = None,
    output: Path | None = None,
    *,
    device: torch.device | str = "cpu",
) -> FaceModelCoeffs:
    """Fit a prepared video and write its coefficients.

    Args:
        workspace: the prepared tables.
        model: to be fitted.
        config: see ``FitConfig``.
        occluders: table of what hides landmarks; None = ``workspace.occlusion`` where that exists.
        output: where the coefficients go; None = ``workspace.coeffs``.
        device: where frames are solved.

    Raises:
        GeneFaceError: a table is missing, is something else, or disagrees with the others.
        FitDivergedError: when nothing can be fitted.
    """
    tables = FitTables.load(workspace, occluders)
    coeffs = fit_bfm_in_crop(tables.landmarks, tables.metadata, model, config, tables.visible, device=device)
    store_fit(coeffs, output or workspace.coeffs)
    return coeffs


def dataset_coefficients(coeffs: FaceModelCoeffs) -> dict[str, NDArray[np.float32]]:
    """Coefficients under the names and in the convention of GeneFace++'s datasets.

    Returns:
        ``id`` [1, 80], ``exp`` [T, 64], ``euler`` [T, 3] and ``trans`` [T, 3] (z minus 10).
    """
    return {
        "id": coeffs.identity[None],
        "exp": coeffs.expression,
        "euler": coeffs.euler,
        "trans": dataset_translation(coeffs.translation),
    }
