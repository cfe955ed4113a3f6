"""What a fit amounts to in pixels, and how far it is from the landmarks it was made of.

Everything is computed for a stretch of frames at a time, so that memory grows with the tables only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.evaluate_fit.measures import REGIONS, region_errors, relative_errors, widest_open
from data_gen.utils.evaluate_fit.stability import turn_jitter_deg
from inference.prepared import PreparedSource
from modules.face_model.model import FaceModel
from modules.face_model.projection import project
from modules.structures.cameras import CAMERA_DISTANCE, rotation_matrices
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frame_index import shot_ranges
from modules.structures.landmarks import FACE_OVAL, LIP_CORNERS, MOUTH, Landmarks2D, lip_opening
from tasks.evaluation.curves import runs_of

NOSE_TIP = 4
AXIS_DM = 0.7
"""Length of the pose axes that are drawn."""
_CHUNK = 256


@dataclass(frozen=True, slots=True, eq=False)
class FittedFrame:
    """The face model where the fit puts it in one frame.

    Attributes:
        vertices: float64 ``[V, 3]`` dm in camera axes (x right, y up, z towards the camera).
        vertices_px: ``[V, 2]`` px. depth: ``[V]`` dm in front of the camera.
        landmarks_px: ``[478, 2]`` px.
        axes_px: ``[4, 2]`` px: the tip of the nose and the ends of the head's x, y and z axes from there.
    """

    vertices: NDArray[np.float64]
    vertices_px: NDArray[np.float64]
    depth: NDArray[np.float64]
    landmarks_px: NDArray[np.float64]
    axes_px: NDArray[np.float64]


class FittedFace:
    """The fitted person, frame by frame.

    Args:
        model: on the CPU.
        coeffs: of that model; the person's correction of the expression units is applied.
    """

    def __init__(self, model: FaceModel, coeffs: FaceModelCoeffs) -> None:
        self._coeffs = coeffs
        if coeffs.correction is not None:
            model = model.corrected(coeffs.correction)
        identity = torch.from_numpy(np.asarray(coeffs.identity, np.float32))
        rows = model.landmark_rows()
        self._slide = rows.slide
        self._points = rows.mean + rows.identity @ identity  # [478, 3]
        self._neutral = model.mean + model.identity_basis @ identity  # [V, 3]
        self._moves, self._basis = rows.expression, model.expression_basis  # [478, 3, E], [V, 3, E]

    def landmarks_px(self, first: int, stop: int) -> NDArray[np.float64]:
        """MediaPipe's points on the fitted face in frames ``first .. stop``: ``[stop - first, 478, 2]`` px."""
        expression, euler, translation = self._pose(first, stop)
        points = self._points + torch.einsum("kce,te->tkc", self._moves, expression)
        points[:, list(FACE_OVAL)] += self._slide.at(euler[:, 1].float())
        return project(points.double(), euler, translation, self._coeffs.camera)[0].numpy()

    def frame(self, row: int) -> FittedFrame:
        """Everything that is drawn of one frame."""
        expression, euler, translation = self._pose(row, row + 1)
        head = (self._neutral + self._basis @ expression[0])[None].double()
        vertices_px, depth = (value[0].numpy() for value in project(head, euler, translation, self._coeffs.camera))
        rotation = rotation_matrices(euler[0].numpy())
        landmarks = self.landmarks_px(row, row + 1)[0]
        nose = (self._points[NOSE_TIP] + self._moves[NOSE_TIP] @ expression[0]).double()
        axes = torch.cat([nose[None], nose + AXIS_DM * torch.eye(3, dtype=torch.float64)])
        axes_px = project(axes[None], euler, translation, self._coeffs.camera)[0][0].numpy()
        return FittedFrame(
            vertices=head[0].numpy() @ rotation + translation.numpy(),
            vertices_px=vertices_px,
            depth=depth,
            landmarks_px=landmarks,
            axes_px=axes_px,
        )

    def _pose(self, first: int, stop: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows = slice(first, stop)
        return (
            torch.from_numpy(np.asarray(self._coeffs.expression[rows], np.float32)),
            torch.from_numpy(self._coeffs.euler[rows].astype(np.float64)),
            torch.from_numpy(self._coeffs.translation[rows].astype(np.float64)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class FitErrors:
    """The fit against the landmarks, a row per frame of the video; NaN where there is nothing to tell.

    Errors are % of the distance between the tracked outer eye corners.

    Attributes:
        face: ``[T]`` mean error of the points that were seen. lips: ``[T]`` of those on the contours of the lips.
        opening: ``[T]`` tracked opening of the lips over the distance between the eyes.
        center: ``[T, 2]`` px, middle of the tracked face. mouth: ``[T, 2]`` px, between the corners of its mouth.
        face_size, mouth_size: ``[T, 2]`` width and height of the tracked face and of its mouth, px.
    """

    face: NDArray[np.float64]
    lips: NDArray[np.float64]
    opening: NDArray[np.float64]
    center: NDArray[np.float64]
    mouth: NDArray[np.float64]
    face_size: NDArray[np.float64]
    mouth_size: NDArray[np.float64]

    @classmethod
    def empty(cls, count: int) -> FitErrors:
        """Nothing is known of ``count`` frames."""
        one, two = (lambda: np.full(count, np.nan)), (lambda: np.full((count, 2), np.nan))
        return cls(one(), one(), one(), two(), two(), two(), two())


def measure_fit(
    fitted: FittedFace, landmarks: Landmarks2D, valid: NDArray[np.bool_], hidden: NDArray[np.bool_]
) -> FitErrors:
    """Compare the fit with its landmarks.

    Args:
        fitted: the fit.
        landmarks: what it was made of, ``T`` frames.
        valid: ``[T]`` frames with a fit.
        hidden: ``[T, 478]`` points that nobody saw.
    """
    errors = FitErrors.empty(len(landmarks))
    for first in range(0, len(landmarks), _CHUNK):
        part = slice(first, min(first + _CHUNK, len(landmarks)))
        tracked = np.asarray(landmarks.points[part], np.float64)
        errors.opening[part] = lip_opening(tracked)
        errors.mouth[part] = tracked[:, list(LIP_CORNERS)].mean(axis=1)
        errors.center[part] = (tracked.max(axis=1) + tracked.min(axis=1)) / 2
        errors.face_size[part] = np.ptp(tracked, axis=1)
        errors.mouth_size[part] = np.ptp(tracked[:, list(MOUTH)], axis=1)
        visible = (valid[part] & landmarks.valid[part])[:, None] & ~hidden[part]
        apart = relative_errors(fitted.landmarks_px(part.start, part.stop), tracked, visible)
        errors.face[part], errors.lips[part] = (region_errors(apart, REGIONS[name]) for name in ("face", "lips"))
    return errors


def pose_jitter_deg(euler: NDArray[np.floating], valid: NDArray[np.bool_], shot_starts: NDArray[np.int64]) -> float:
    """RMS change of the head's turn from one step between frames to the next, degrees; never over a cut or a gap.

    Args:
        euler: ``[T, 3]`` rad.
        valid: ``[T]``.
        shot_starts: first rows of the shots.

    Returns:
        NaN where no three frames with a fit follow each other.
    """
    runs: list[tuple[int, int]] = []
    for first, stop in shot_ranges(shot_starts, len(valid)):
        runs += [(first + int(a), first + int(b)) for a, b in runs_of(valid[first:stop]) if b - a >= 3]
    return turn_jitter_deg(euler, runs)


def summarise_fit(source: PreparedSource, errors: FitErrors, first: int, stop: int) -> dict[str, object]:
    """The figures of ``fit.json`` for frames ``first .. stop``; figures that cannot be given are None."""
    part, coeffs = slice(first, stop), source.coeffs
    camera, fits = coeffs.camera, np.isfinite(errors.face[part])
    starts = np.asarray([0] if source.shot_starts is None else source.shot_starts)
    inside = starts[(starts > first) & (starts < stop)] - first
    distance = CAMERA_DISTANCE - coeffs.translation[part][fits, 2]
    lips = np.where(fits, errors.lips[part], np.nan)
    widest = widest_open(np.where(np.isfinite(lips), errors.opening[part], np.nan))
    return {
        "schema": "fit-inspection/1",
        "video": str(source.video),
        "face": source.face,
        "face_model": coeffs.face_model_version,
        "has_correction": coeffs.correction is not None,
        "first_frame": first,
        "frames": stop - first,
        "frames_with_fit": int(fits.sum()),
        "shots": len(inside) + 1,
        "residual_percent": {
            "face": _spread(errors.face[part]),
            "lips": _spread(lips),
            "lips_widest_open_tenth": _spread(lips[widest]),
        },
        "pose_jitter_deg": _number(pose_jitter_deg(coeffs.euler[part], fits, inside)),
        "focal_px": _number(camera.fx),
        "focal_over_longer_side": _number(camera.fx / max(camera.width, camera.height)),
        "distance_dm": _number(_median(distance)),
        "face_height_px": _number(_median(errors.face_size[part, 1])),
    }


def _spread(percents: NDArray[np.float64]) -> dict[str, float | None]:
    known = percents[np.isfinite(percents)]
    if not len(known):
        return {"mean": None, "p95": None}
    return {"mean": _number(float(known.mean())), "p95": _number(float(np.percentile(known, 95)))}


def _median(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _number(value: float) -> float | None:
    """Four significant figures, None where there is none: JSON knows no NaN."""
    return float(f"{value:.4g}") if np.isfinite(value) else None
