"""Fit the face model to tracked landmarks: pose, then identity over the clip, then expression per frame.

Reads: ``landmarks.npz``, ``crop_metadata.json``, the frame index and, when present, the occlusion table of a
workspace. Writes: ``coeff_fit_mp.npz``. Needs no frames; landmarks are read from their table a few at a time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.process_video.expression_correction import learn_correction
from data_gen.utils.process_video.fit_config import INNER_LIP_GAPS, FitConfig, FitTerms
from data_gen.utils.process_video.fit_residuals import POSE_SIZE, LandmarkBasis, corrected_rows
from data_gen.utils.process_video.fit_solver import LandmarkFit
from data_gen.utils.process_video.fit_start import ClipView, spread_frames, started, view_of
from data_gen.utils.process_video.fit_tables import FitTables
from modules.commons.errors import FitDivergedError, GeneFaceError
from modules.commons.workspace import VideoWorkspace
from modules.face_model.fitting import ExpressionPrior, FittableModel, LandmarkRows
from modules.face_model.model import ARKIT_NAMES, MOUTH_UNITS, FaceModel
from modules.structures.cameras import CameraIntrinsics
from modules.structures.face_coeffs import FaceModelCoeffs, FittedPerson
from modules.structures.landmarks import (
    EYES,
    INNER_LIP,
    OUTER_EYE_CORNERS,
    OUTER_LIP,
    UNMATCHED_BFM,
    UPPER_EYELIDS,
    Landmarks2D,
    inter_ocular_px,
)

logger = logging.getLogger(__name__)

_MIN_DISTANCE_DM = 5.0
_INTER_OCULAR_DM = 0.9
_FOCAL_RANGE = (0.3, 30.0)
"""Focal lengths over the longer side of the frame that a lens may have; outside, a head's depth is lost in rounding."""
_WIDEST_GUESS = 0.7
"""A phone's front camera; what looks wider still is an error of the landmarks."""


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


_LIDS = ("eyeBlink", "eyeSquint", "eyeWide")
_NEVER_SUDDEN = 1e3


def fit_3dmm(
    landmarks: Landmarks2D,
    camera: CameraIntrinsics | None,
    face_model: FittableModel,
    config: FitConfig | None = None,
    weights: NDArray | None = None,
    *,
    size_wh: tuple[int, int] | None = None,
    person: FittedPerson | None = None,
    device: torch.device | str = "cpu",
    shot_starts: NDArray[np.int64] | None = None,
) -> FaceModelCoeffs:
    """Fit one person's coefficients to a clip.

    Args:
        landmarks: T frames; frames without a face are marked invalid.
        camera: intrinsics of the whole frame; None = the focal length is estimated, ``size_wh`` must then be given.
        face_model: the model to fit; of K < 478 landmarks, the first K points are looked at.
        config: see ``FitConfig``.
        weights: ``[T, 478]`` 0..1, 0 = hidden and ignored; None = all seen.
        size_wh: width and height of the frames.
        person: identity, camera and correction that are known already; only the frames are then solved.
        device: where frames are solved.
        shot_starts: ``[S]`` frames that begin a shot; nothing is smoothed over a cut.

    Returns:
        Coefficients of all T frames, free of NaN; frames without usable landmarks are interpolated and invalid.

    Raises:
        FitDivergedError: when no frame has usable landmarks, the camera is absurd or the result is not finite.
        ValueError: when arguments are missing or disagree.
    """
    config, device = config or FitConfig(), torch.device(device)
    rows, prior = _on_device(face_model, device)
    usual = _plausible(_usual_camera(landmarks, camera, size_wh, person))
    terms = FitTerms.of(config, prior, *_unit_motion(face_model.expression_names, config, prior.std))
    fit = LandmarkFit(_basis(rows, person), usual, terms)
    view = view_of(landmarks, weights, fit.basis, prior, config, shot_starts)
    if person is None:
        focal_range = _focal_range(landmarks, usual) if camera is None else None
        person = _fit_person(fit, view, face_model, config, focal_range)
        basis = fit.basis if person.correction is None else _basis(rows, person)
        fit = LandmarkFit(basis, person.camera, terms)
    identity = torch.as_tensor(person.identity, dtype=torch.float32).to(device)
    view, params = _started(fit, identity, view)
    params = fit.fit_frames(identity, params, view, config.frame_iterations)
    if not bool(torch.isfinite(params).all() and torch.isfinite(identity).all()):
        raise FitDivergedError(f"the face-model fit of {len(landmarks)} frames did not stay finite")
    frames = _Solved(view.frames, params.cpu().numpy(), _relative_errors(fit, identity, params, view))
    return _coefficients(len(landmarks), person, face_model.version, config, frames)


def _on_device(face_model: FittableModel, device: torch.device) -> tuple[LandmarkRows, ExpressionPrior]:
    """Landmarks and likely expressions of a model as float32 on ``device``."""
    rows, prior = face_model.landmark_rows(), face_model.expression_prior()
    moved_rows = LandmarkRows(
        mean=rows.mean.to(device, torch.float32),
        identity=rows.identity.to(device, torch.float32),
        expression=rows.expression.to(device, torch.float32),
        slide=rows.slide.to(device),
        usable=None if rows.usable is None else rows.usable.to(device),
    )
    names = ("from_scores", "offset", "std", "lower", "upper")
    return moved_rows, ExpressionPrior(*(getattr(prior, name).to(device, torch.float32) for name in names))


def _unit_motion(names: tuple[str, ...], config: FitConfig, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weight ``[E]`` of each expression unit's second differences, and which of them counts as sudden.

    What has no name that is known moves as mouths do.
    """
    steady = {name for name in ARKIT_NAMES if name not in MOUTH_UNITS and not name.startswith(_LIDS)}
    quick = torch.tensor([name not in steady for name in names], device=like.device)
    smoothness = torch.where(quick, config.mouth_smoothness**-2, config.face_smoothness**-2).to(like)
    return smoothness, torch.where(quick, config.sudden_change, _NEVER_SUDDEN).to(like)


def _usual_camera(
    landmarks: Landmarks2D,
    camera: CameraIntrinsics | None,
    size_wh: tuple[int, int] | None,
    person: FittedPerson | None,
) -> CameraIntrinsics:
    if person is not None:
        return person.camera
    if camera is not None:
        return camera
    if size_wh is None:
        raise ValueError("a fit without a camera needs the size of the frames")
    return camera_for_landmarks(landmarks, *size_wh)


def _plausible(camera: CameraIntrinsics) -> CameraIntrinsics:
    """The camera itself.

    Raises:
        FitDivergedError: when no lens is like that.
    """
    low, high = (bound * max(camera.width, camera.height) for bound in _FOCAL_RANGE)
    if not (low <= camera.fx <= high and low <= camera.fy <= high):
        raise FitDivergedError(
            f"no lens has a focal length of {camera.fx:g} px in frames of {camera.width} × {camera.height}; "
            f"give one between {low:g} and {high:g} px"
        )
    return camera


def _started(fit: LandmarkFit, identity: Tensor, view: ClipView) -> tuple[ClipView, Tensor]:
    """Closed-form start of the frames that have a pose at all."""
    found, params = started(fit, identity, view)
    if len(found) == 0:
        raise FitDivergedError(f"none of {len(view.landmarks)} frames has landmarks that a face model can be fitted to")
    return found, params


def _basis(rows: LandmarkRows, person: FittedPerson | None) -> LandmarkBasis:
    """The model at its landmarks, with the person's own expression units."""
    if person is not None and person.correction is not None:
        rows = corrected_rows(rows, torch.as_tensor(person.correction).to(rows.mean))
    return LandmarkBasis.of(rows, INNER_LIP_GAPS, torch.float32)


def _fit_person(
    fit: LandmarkFit,
    view: ClipView,
    face_model: FittableModel,
    config: FitConfig,
    focal_range: tuple[float, float] | None,
) -> FittedPerson:
    """Identity, camera and, where it is wanted, the correction of the expression units, from some of the frames."""
    nobody = torch.zeros_like(fit.basis.identity[0, 0])
    view, params = _started(fit, nobody, view)
    chosen = spread_frames(params, config.identity_frames).to(params.device)
    seen = view.rows(chosen)
    shared = fit.fit_shared(nobody, params[chosen], seen, config.identity_iterations, focal_range=focal_range)
    if not config.correct_expression:
        return FittedPerson(shared.identity.cpu().numpy(), shared.camera)
    if not isinstance(face_model, FaceModel):
        raise GeneFaceError(
            f"expressions of the face model {face_model.version} cannot be corrected; set correct_expression to false"
        )
    units = learn_correction(fit.with_camera(shared.camera), shared.identity, shared.params, seen, face_model)
    return FittedPerson(units.identity.cpu().numpy(), shared.camera, units.correction.float().cpu().numpy())


def camera_for_landmarks(landmarks: Landmarks2D, width: int, height: int) -> CameraIntrinsics:
    """Camera of an unknown lens whose nearest view of the face is at least half a metre away.

    The usual guess is kept unless a face that fills the frame, as in a video that was cropped before, would stand
    implausibly close to the lens.
    """
    camera = CameraIntrinsics.for_frame(width, height)
    return CameraIntrinsics.for_frame(width, height, max(camera.fx, _least_focal(landmarks)) / max(width, height))


def _least_focal(landmarks: Landmarks2D) -> float:
    """Focal length, px, that puts the nearest view of the face half a metre away; 0 without any."""
    corners = np.asarray(landmarks.points[:, list(OUTER_EYE_CORNERS)])[landmarks.valid]
    corners = corners[np.isfinite(corners).all(axis=(1, 2))]
    sizes = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=-1)
    return float(np.quantile(sizes, 0.95)) / _INTER_OCULAR_DM * _MIN_DISTANCE_DM if len(sizes) else 0.0


def _focal_range(landmarks: Landmarks2D, usual: CameraIntrinsics) -> tuple[float, float]:
    """Focal lengths, px, that an estimate may have."""
    low, high = (bound * max(usual.width, usual.height) for bound in (_WIDEST_GUESS, _FOCAL_RANGE[1]))
    return max(low, min(_least_focal(landmarks), usual.fx)), high


def fit_3dmm_for_a_video(
    workspace: VideoWorkspace,
    face_model: FittableModel,
    config: FitConfig | None = None,
    occluders: Path | None = None,
    output: Path | None = None,
    *,
    device: torch.device | str = "cpu",
) -> FaceModelCoeffs:
    """Fit a prepared video and write its coefficients; shots are those of its frame index, when it has one.

    Args:
        workspace: the prepared tables.
        face_model: to be fitted.
        config: see ``FitConfig``.
        occluders: table of what hides landmarks; None = ``workspace.occlusion`` where that exists.
        output: where the coefficients go; None = ``workspace.coeffs``.
        device: where frames are solved.

    Raises:
        GeneFaceError: a table is missing, is something else, or disagrees with the others.
        FitDivergedError: when nothing can be fitted.
    """
    tables = FitTables.load(workspace, occluders)
    coeffs = fit_3dmm(
        tables.landmarks, None, face_model, config, tables.visible,
        size_wh=tables.size_wh, device=device, shot_starts=tables.shot_starts,
    )  # fmt: skip
    store_fit(coeffs, output or workspace.coeffs)
    return coeffs


def store_fit(coeffs: FaceModelCoeffs, path: Path) -> None:
    """Write the coefficients of a prepared video and say how well they fit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coeffs.save(path)
    logger.info(
        "fitted %s to %d of %d frames, mean landmark error %.1f %% of the inter-ocular distance",
        coeffs.face_model_version, coeffs.valid.sum(), len(coeffs), 100 * float(np.nanmean(coeffs.residual)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Solved:
    """Solved frames: their numbers ``[N]``, params ``[N, P]`` and relative errors ``[N]``."""

    frames: NDArray[np.int64]
    params: NDArray[np.float32]
    errors: NDArray[np.float32]


def _relative_errors(fit: LandmarkFit, identity: Tensor, params: Tensor, view: ClipView) -> NDArray[np.float32]:
    """Mean error of each frame's visible landmarks over the fitted inter-ocular distance, ``[N]``."""
    relative = []
    for rows in fit.chunks(len(view)):
        part, fitted = view.rows(rows), fit.points_px(identity, params[rows])
        visible = part.weights > 0
        errors = torch.where(visible, (fitted - part.points).norm(dim=-1), 0.0).sum(dim=1) / visible.sum(dim=1)
        eyes = torch.from_numpy(inter_ocular_px(fitted.cpu().numpy())).to(errors)
        relative.append((errors / eyes.clamp_min(1e-6)).cpu().numpy())
    return np.concatenate(relative)


def _coefficients(
    count: int, person: FittedPerson, version: str, config: FitConfig, solved: _Solved
) -> FaceModelCoeffs:
    """Spread the solved frames over the clip; the rest is interpolated."""
    good = solved.errors <= config.max_residual
    if not good.any():
        raise FitDivergedError(
            f"the face model fits none of {count} frames: the best error is {100 * solved.errors.min():.0f} % of the "
            "inter-ocular distance; are these landmarks of a face?"
        )
    frames = solved.frames[good]
    valid = np.zeros(count, bool)
    valid[frames] = True
    residual = np.full(count, np.nan, np.float32)
    residual[frames] = solved.errors[good]
    every = np.arange(count)
    filled = np.stack([np.interp(every, frames, column).astype(np.float32) for column in solved.params[good].T], axis=1)
    return FaceModelCoeffs(
        identity=person.identity,
        expression=filled[:, POSE_SIZE:],
        euler=filled[:, :3],
        translation=filled[:, 3:POSE_SIZE],
        valid=valid,
        residual=residual,
        camera=person.camera,
        face_model_version=version,
        correction=person.correction,
    )
