"""Fit the face model to tracked landmarks: pose, then identity over the clip, then expression per frame.

Reads: ``landmarks.npz``, ``crop_metadata.json`` and, when present, the occlusion table of a workspace.
Writes: ``coeff_fit_mp.npz``. Needs no frames, so memory grows only with the landmark table; frames are solved in
windows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.process_video.fit_residuals import (
    POSE_SIZE,
    LandmarkBasis,
    Observations,
    weak_perspective_pose,
)
from data_gen.utils.process_video.fit_solver import FitTerms, LandmarkFit, frame_chunks
from modules.commons.errors import FitDivergedError, GeneFaceError
from modules.commons.workspace import VideoWorkspace
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.crops import CropMetadata
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import (
    EYES,
    FACE_OVAL,
    INNER_LIP,
    IRISES,
    MEDIAPIPE_BLENDSHAPES,
    MOUTH,
    N_MEDIAPIPE,
    OUTER_LIP,
    RIGID,
    UNMATCHED_BFM,
    UPPER_EYELIDS,
    WITHIN_LIPS,
    Landmarks2D,
    inter_ocular_px,
)
from modules.structures.masks import OcclusionTable

logger = logging.getLogger(__name__)

INNER_LIP_GAPS = tuple((INNER_LIP[i], INNER_LIP[-i]) for i in range(1, 10))
"""Upper and lower inner-lip points that face each other: their difference is the opening of the lips."""

_WINDOW, _LOOK_AHEAD, _CONTEXT = 192, 12, 2
_MIN_POINTS, _MIN_STEADY_POINTS = 30, 6
_CUT_JUMP = 0.5
_GOOD_LOSS_DM2 = 1e-3  # weighted 3 mm: below it a fit that was nearly exact at the start may give a little
_MIN_DISTANCE_DM = 5.0
_INTER_OCULAR_DM = 0.9


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How landmarks are weighed and what is assumed of a face.

    Attributes:
        lip_weight: weight of the lip contours; within_lip_weight: of the points between them.
        eye_weight: weight of the eyelids. iris_weight: of the irises. contour_weight: of the face's outline, which
            MediaPipe draws along the silhouette. Every other point weighs 1.
        gap_weight: weight of each upper-minus-lower inner-lip vector, so that closed lips fit as closed.
        noise_dm: standard deviation of a landmark of weight 1, dm; neighbours err together, so it is far above the
            jitter of a point.
        robust_dm: residual whose influence has dropped to a quarter, dm.
        expression_std: spread of an expression unit around MediaPipe's own score for it.
        identity_weight: weight of the identity's unit-variance prior per frame it is solved from; errors that stay the
            same over the clip must not add up to evidence.
        lower_bound, upper_bound: range of the expression units.
        pose_smoothness: standard deviation of the second difference per frame of angles (rad) and translation (dm).
        mouth_smoothness, face_smoothness: the same of the units that speech drives, and of the others.
        identity_frames: frames the identity is solved from, spread over poses and expressions.
        identity_iterations, frame_iterations, pose_iterations: Gauss-Newton steps at most.
        max_residual: mean error, fraction of the inter-ocular distance, above which a frame is no evidence.
    """

    lip_weight: float = 5.0
    within_lip_weight: float = 1.0
    eye_weight: float = 3.0
    iris_weight: float = 0.5
    contour_weight: float = 0.3
    gap_weight: float = 12.0
    noise_dm: float = 0.07
    robust_dm: float = 0.15
    expression_std: float = 0.3
    identity_weight: float = 0.06
    lower_bound: float = 0.0
    upper_bound: float = 1.0
    pose_smoothness: float = 0.01
    mouth_smoothness: float = 0.15
    face_smoothness: float = 0.05
    identity_frames: int = 100
    identity_iterations: int = 8
    frame_iterations: int = 6
    pose_iterations: int = 5
    max_residual: float = 0.2


def landmark_loss_weights(
    count: int, *, eyes: float = 3.0, upper_eyelids: float = 20.0, lips: float = 5.0, unmatched: float = 0.0
) -> Tensor:
    """GeneFace++'s weight of each of the first ``count`` MediaPipe landmarks, ``[count]``."""
    weights = torch.ones(count)
    weights[list(EYES)] = eyes
    weights[list(UPPER_EYELIDS)] = upper_eyelids
    weights[list(INNER_LIP + OUTER_LIP)] = lips
    weights[list(UNMATCHED_BFM)] = unmatched
    return weights


def cal_lan_loss_mp_with_occlusion(proj_lan: Tensor, gt_lan: Tensor, occlusion_mask: Tensor | None = None) -> Tensor:
    """GeneFace++'s landmark loss, blind to hidden points: mean of weight · (1 - occlusion) · squared difference.

    Args:
        proj_lan: ``[T, K, 2]`` projected landmarks, K ≥ 468, any unit.
        gt_lan: ``[T, K, 2]`` tracked ones; values of wholly hidden points may be anything, NaN included.
        occlusion_mask: ``[T, K]`` 0..1, 1 = hidden; None = all seen.

    Returns:
        Scalar, differentiable in ``proj_lan``.
    """
    weights = landmark_loss_weights(proj_lan.shape[-2]).to(proj_lan).expand(proj_lan.shape[:-1])
    visible = weights if occlusion_mask is None else weights * (1.0 - occlusion_mask.to(proj_lan))
    squared = torch.where(visible[..., None] > 0, proj_lan - gt_lan, 0.0).square()
    return (visible[..., None] * squared).mean()


def fit_3dmm(
    landmarks: Landmarks2D,
    camera: CameraIntrinsics,
    face_model: FaceModel,
    config: FitConfig | None = None,
    weights: NDArray[np.float32] | None = None,
) -> FaceModelCoeffs:
    """Fit one person's coefficients to a clip.

    Args:
        landmarks: T frames; frames without a face are marked invalid.
        camera: intrinsics of the whole frame, e.g. ``camera_for_landmarks``.
        face_model: the model to fit.
        config: see ``FitConfig``.
        weights: ``[T, 478]`` 0..1, 0 = hidden and ignored; None = all seen.

    Returns:
        Coefficients of all T frames, free of NaN; frames without usable landmarks are interpolated and invalid.

    Raises:
        FitDivergedError: when no frame has usable landmarks or the result is not finite.
    """
    config = config or FitConfig()
    seen, rows = _observations(landmarks, camera, face_model, config, weights)
    basis = LandmarkBasis.of(face_model, INNER_LIP_GAPS, torch.float32)
    fit = LandmarkFit(basis, camera, _terms(face_model, config))
    identity = torch.zeros(face_model.n_identity)
    seen, params, usable = _started(basis, seen, camera)
    seen, params, rows = seen.rows(usable), params[usable], rows[usable.numpy()]
    if len(rows) == 0:
        raise FitDivergedError(f"none of {len(landmarks)} frames has landmarks that a face model can be fitted to")
    params = fit.fit_pose(identity, params, seen, config.pose_iterations)
    at_start = _landmark_loss(fit, identity, params, seen)
    chosen = _spread_frames(params, config.identity_frames)
    identity, solved = fit.fit_identity(identity, params[chosen], seen.rows(chosen), config.identity_iterations)
    params[chosen] = solved
    params = fit.fit_pose(identity, params, seen, 2)
    params = _fit_windows(fit, identity, params, seen, config.frame_iterations)
    if not bool(torch.isfinite(params).all() and torch.isfinite(identity).all()):
        raise FitDivergedError(f"the face-model fit of {len(landmarks)} frames did not stay finite")
    at_end = _landmark_loss(fit, identity, params, seen)
    if at_end > 1.5 * at_start + _GOOD_LOSS_DM2:
        raise FitDivergedError(
            f"fitting {len(landmarks)} frames made their landmark loss worse ({at_start:.3g} to {at_end:.3g}); "
            "are these landmarks of a face?"
        )
    residual = _relative_errors(fit, identity, params, seen)
    return _coefficients(len(landmarks), camera, face_model, config, rows, identity, params, residual)


def camera_for_landmarks(landmarks: Landmarks2D, width: int, height: int) -> CameraIntrinsics:
    """Camera of an unknown lens whose nearest view of the face is at least half a metre away.

    The focal length hardly shows in landmarks (0.9 to 4 × the longer side fit equally well on seven clips), so the
    usual guess is kept unless a face that fills the frame, as in a video that was cropped before, would stand
    implausibly close to the lens.
    """
    camera = CameraIntrinsics.for_frame(width, height)
    sizes = inter_ocular_px(landmarks.points[landmarks.valid])
    sizes = sizes[np.isfinite(sizes)]
    if len(sizes) == 0:
        return camera
    nearest = float(np.quantile(sizes, 0.95)) / _INTER_OCULAR_DM * _MIN_DISTANCE_DM
    return CameraIntrinsics.for_frame(width, height, max(camera.fx, nearest) / max(width, height))


def fit_3dmm_for_a_video(
    workspace: VideoWorkspace, face_model: FaceModel, config: FitConfig | None = None
) -> FaceModelCoeffs:
    """Fit a prepared video and write its coefficients.

    Raises:
        GeneFaceError: when the landmarks or the crop metadata are missing, foreign or disagree.
        FitDivergedError: when nothing can be fitted.
    """
    landmarks = _read(workspace.landmarks, Landmarks2D.load)
    metadata = _read(workspace.crop_metadata, lambda path: CropMetadata.from_json(path.read_text(), path))
    weights = None
    if workspace.hands.is_file():
        hidden = _read(workspace.hands, OcclusionTable.load).hidden
        if hidden.shape != (len(landmarks), N_MEDIAPIPE):
            raise GeneFaceError(
                f"{workspace.hands} covers {len(hidden)} frames, {workspace.landmarks} {len(landmarks)}"
            )
        weights = (~hidden).astype(np.float32)
    height, width = metadata.frame_size_hw
    camera = camera_for_landmarks(landmarks, width, height)
    coeffs = fit_3dmm(landmarks, camera, face_model, config, weights)
    workspace.coeffs.parent.mkdir(parents=True, exist_ok=True)
    coeffs.save(workspace.coeffs)
    logger.info(
        "fitted %d of %d frames, mean landmark error %.1f %% of the inter-ocular distance",
        coeffs.valid.sum(), len(coeffs), 100 * float(np.nanmean(coeffs.residual)),
    )  # fmt: skip
    return coeffs


def _read(path: Path, load):  # noqa: ANN001, ANN202 - generic reader
    try:
        return load(path)
    except FileNotFoundError as error:
        raise GeneFaceError(f"{path} is missing; run the detect and crop stages of this video first") from error
    except (ValueError, OSError) as error:
        raise GeneFaceError(f"{path} cannot be used ({error}); delete it and prepare the video again") from error


def _point_weights(config: FitConfig) -> Tensor:
    """Weight of each of the 478 landmarks in the fit."""
    weights = torch.ones(N_MEDIAPIPE)
    for points, value in (
        (FACE_OVAL, config.contour_weight),
        (WITHIN_LIPS, config.within_lip_weight),
        (INNER_LIP + OUTER_LIP, config.lip_weight),
        (EYES, config.eye_weight),
        (IRISES, config.iris_weight),
    ):
        weights[list(points)] = value
    return weights


def _terms(face_model: FaceModel, config: FitConfig) -> FitTerms:
    units = face_model.n_expression
    spread = torch.full((POSE_SIZE + units,), config.face_smoothness)
    spread[:POSE_SIZE] = config.pose_smoothness
    for name in MOUTH_UNITS:
        spread[POSE_SIZE + face_model.unit(name)] = config.mouth_smoothness
    return FitTerms(
        noise_dm=config.noise_dm,
        robust_dm=config.robust_dm,
        gap_weight=config.gap_weight,
        identity_precision=config.identity_weight,
        expression_precision=torch.full((units,), config.expression_std**-2),
        smoothness=spread**-2,
        lower=torch.full((units,), config.lower_bound),
        upper=torch.full((units,), config.upper_bound),
    )


def _observations(
    landmarks: Landmarks2D, camera: CameraIntrinsics, face_model: FaceModel, config: FitConfig, weights: NDArray | None
) -> tuple[Observations, NDArray[np.int64]]:
    """Frames with enough seen, finite points, and their numbers."""
    if weights is not None and weights.shape != landmarks.depth.shape:
        raise ValueError(f"weights must be {landmarks.depth.shape}, got {weights.shape}")
    finite = np.asarray(np.all(np.isfinite(landmarks.points), axis=2), dtype=np.float32)
    visible = finite if weights is None else finite * weights
    enough = np.count_nonzero(visible, axis=1) >= _MIN_POINTS
    rows = np.flatnonzero(np.logical_and(landmarks.valid, enough))
    scores = landmarks.blendshapes[rows]
    scores = np.where(np.isfinite(scores), scores, 0.0)
    expected = np.zeros((len(rows), face_model.n_expression), np.float32)
    for column, name in enumerate(MEDIAPIPE_BLENDSHAPES[1:], start=1):
        expected[:, face_model.unit(name)] = scores[:, column]
    return Observations(
        points=torch.from_numpy(np.nan_to_num(landmarks.points[rows]).astype(np.float32)),
        weights=torch.from_numpy(visible[rows].astype(np.float32)) * _point_weights(config),
        px_per_dm=torch.ones(len(rows)),
        expected=torch.from_numpy(expected).clamp(config.lower_bound, config.upper_bound),
        index=torch.from_numpy(rows + _jumps(landmarks.points[rows])),
    ), rows


def _jumps(points: NDArray[np.float32]) -> NDArray[np.int64]:
    """How many shot cuts lie before each frame: ``[T, 478, 2]`` px to ``[T]``; nothing is smoothed over one.

    A cut is where the steady points move by more than half the inter-ocular distance from one frame to the next.
    """
    steady = points[:, list(RIGID)]
    moves = np.linalg.norm(np.diff(steady, axis=0), axis=2)
    seen = np.isfinite(moves)
    moved = np.where(seen, moves, 0.0).sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    jumped = moved > _CUT_JUMP * np.maximum(inter_ocular_px(points[1:]), 1e-6)
    return np.concatenate([np.zeros(min(len(points), 1), np.int64), np.cumsum(jumped)])


def _started(basis: LandmarkBasis, seen: Observations, camera: CameraIntrinsics) -> tuple[Observations, Tensor, Tensor]:
    """Where the fit starts: observations with their scale, parameters, and which frames have a pose at all.

    The pose is closed-form, from the points off mouth and outline; the expression is the expected one.
    """
    steady = torch.ones(N_MEDIAPIPE)
    steady[list(MOUTH + FACE_OVAL + IRISES)] = 0.0
    pose, scale = torch.empty(len(seen), POSE_SIZE), torch.empty(len(seen))
    for rows in frame_chunks(len(seen)):
        part = seen.rows(rows)
        visible = (part.weights > 0).float()
        enough = (visible * steady).sum(dim=1, keepdim=True) >= _MIN_STEADY_POINTS
        shape = basis.deformed(basis.mean, part.expected)
        weights = torch.where(enough, visible * steady, visible)
        pose[rows] = weak_perspective_pose(shape, part.points, weights, camera)
        posed = basis.posed(basis.mean, torch.cat([pose[rows], part.expected], dim=1))
        scale[rows] = camera.fx / (CAMERA_DISTANCE - posed[..., 2].mean(dim=1))
    usable = torch.isfinite(pose).all(dim=1) & (scale > 0)
    euler = torch.from_numpy(np.unwrap(pose[:, :3].nan_to_num().numpy(), axis=0))
    return replace(seen, px_per_dm=scale), torch.cat([euler, pose[:, 3:], seen.expected], dim=1), usable


def _spread_frames(params: Tensor, count: int) -> Tensor:
    """Rows that cover the clip's poses and expressions: half evenly in time, half farthest from those chosen."""
    total = len(params)
    if total <= count:
        return torch.arange(total)
    even = torch.linspace(0, total - 1, max(count // 2, 1)).round().long().unique()
    features = torch.cat([params[:, :3] / 0.2, params[:, POSE_SIZE:]], dim=1)
    nearest = torch.cdist(features, features[even]).amin(dim=1)
    chosen = even.tolist()
    while len(chosen) < count:
        farthest = int(nearest.argmax())
        chosen.append(farthest)
        nearest = torch.minimum(nearest, (features - features[farthest]).norm(dim=1))
    return torch.tensor(chosen).unique()


def _fit_windows(fit: LandmarkFit, identity: Tensor, params: Tensor, seen: Observations, iterations: int) -> Tensor:
    """Frames solved window after window; each starts from the two frames before it and looks a little ahead."""
    params = params.clone()
    for start in range(0, len(seen), _WINDOW):
        first = max(0, start - _CONTEXT)
        rows = slice(first, min(len(seen), start + _WINDOW + _LOOK_AHEAD))
        solved = fit.fit_frames(identity, params[rows], seen.rows(rows), iterations, context=start - first)
        params[rows] = solved
    return params


def _landmark_loss(fit: LandmarkFit, identity: Tensor, params: Tensor, seen: Observations) -> float:
    """GeneFace++'s loss of the fitted points in dm; what the solver minimises is robust, so this must fall with it."""
    total = 0.0
    for rows in frame_chunks(len(seen)):
        part = seen.rows(rows)
        scale = part.px_per_dm[:, None, None]
        hidden = (part.weights <= 0).float()
        loss = cal_lan_loss_mp_with_occlusion(
            fit.points_px(identity, params[rows]) / scale, part.points / scale, hidden
        )
        total += float(loss) * len(part.points)
    return total / len(seen)


def _relative_errors(fit: LandmarkFit, identity: Tensor, params: Tensor, seen: Observations) -> NDArray[np.float32]:
    """Mean error of each frame's visible landmarks over the fitted inter-ocular distance, ``[T]``."""
    relative = np.empty(len(seen), np.float32)
    for rows in frame_chunks(len(seen)):
        part = seen.rows(rows)
        fitted, visible = fit.points_px(identity, params[rows]), part.weights > 0
        errors = torch.where(visible, (fitted - part.points).norm(dim=-1), 0.0).sum(dim=1) / visible.sum(dim=1)
        relative[rows] = errors.numpy() / np.maximum(inter_ocular_px(fitted.numpy()), 1e-6)
    return relative


def _coefficients(
    count: int,
    camera: CameraIntrinsics,
    face_model: FaceModel,
    config: FitConfig,
    rows: NDArray[np.int64],
    identity: Tensor,
    params: Tensor,
    relative: NDArray[np.float32],
) -> FaceModelCoeffs:
    """Spread the solved frames over the clip; the rest is interpolated."""
    good = relative <= config.max_residual
    if not good.any():
        raise FitDivergedError(
            f"the face model fits none of {count} frames: the best error is {100 * relative.min():.0f} % of the "
            "inter-ocular distance; are these landmarks of a face?"
        )
    valid = np.zeros(count, bool)
    valid[rows[good]] = True
    residual = np.full(count, np.nan, np.float32)
    residual[rows[good]] = relative[good]
    solved = params.numpy()[good]
    filled = np.stack([np.interp(np.arange(count), rows[good], column) for column in solved.T], axis=1)
    filled = filled.astype(np.float32)
    return FaceModelCoeffs(
        identity=identity.numpy(),
        expression=filled[:, POSE_SIZE:],
        euler=filled[:, :3],
        translation=filled[:, 3:POSE_SIZE],
        valid=valid,
        residual=residual,
        camera=camera,
        face_model_version=face_model.version,
    )
