"""Settings of the 3DMM fit: how landmarks are weighed and what is assumed of a face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.structures.landmarks import EYES, FACE_OVAL, INNER_LIP, IRISES, N_MEDIAPIPE, OUTER_LIP, WITHIN_LIPS

INNER_LIP_GAPS = tuple((INNER_LIP[i], INNER_LIP[-i]) for i in range(1, 10))
"""Upper and lower inner-lip points that face each other: their difference is the opening of the lips."""


@dataclass(frozen=True, slots=True)
class FitConfig:
    """How landmarks are weighed and what is assumed of a face.

    Attributes:
        lip_weight: weight of the lip contours; within_lip_weight: of the points between them.
        eye_weight: weight of the eyelids. iris_weight: of the irises. contour_weight: of the face's outline, which
            MediaPipe draws along the silhouette. Every other point weighs 1.
        gap_weight: weight of each upper-minus-lower inner-lip vector, so that closed lips fit as closed.
        turned_weight: what is left of a point's weight where its skin faces away from the camera.
        noise_dm: standard deviation of a landmark of weight 1, dm; neighbours err together, so it is far above the
            jitter of a point.
        robust_dm: residual whose influence has dropped to a quarter, dm.
        expression_spread: factor of the model's own spread of an expression around the expected one.
        bound_slack: how far a unit may lean beyond its bounds, about (standard deviation of the excess).
        identity_weight: weight of the identity's unit-variance prior per frame it is solved from; errors that stay the
            same over the clip must not add up to evidence.
        focal_spread: standard deviation of the logarithm of an unknown focal length around the usual one.
        pose_smoothness: standard deviation of the second difference per frame of angles (rad) and translation (dm).
        mouth_smoothness, face_smoothness: the same of the units that speech drives and the eyelids, and of the others.
        sudden_change: second difference of a mouth's or lid's unit whose smoothing has dropped to a quarter.
        identity_frames: frames the identity is solved from, spread over poses and expressions.
        identity_iterations, frame_iterations: Gauss-Newton steps at most.
        max_residual: mean error, fraction of the inter-ocular distance, above which a frame is no evidence.
        correct_expression: also learn how this person's expressions differ from the model's.
    """

    lip_weight: float = 5.0
    within_lip_weight: float = 1.0
    eye_weight: float = 3.0
    iris_weight: float = 0.5
    contour_weight: float = 0.6
    gap_weight: float = 12.0
    turned_weight: float = 0.1
    noise_dm: float = 0.025
    robust_dm: float = 0.15
    expression_spread: float = 2.0
    bound_slack: float = 0.01
    identity_weight: float = 0.05
    focal_spread: float = 0.3
    pose_smoothness: float = 0.0013
    mouth_smoothness: float = 0.06
    face_smoothness: float = 0.02
    sudden_change: float = 0.2
    identity_frames: int = 100
    identity_iterations: int = 8
    frame_iterations: int = 3
    max_residual: float = 0.2
    correct_expression: bool = False


def point_weights(config: FitConfig) -> Tensor:
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
