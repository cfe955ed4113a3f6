"""Settings of the 3DMM fit: how landmarks are weighed and what is assumed of a face."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from modules.face_model.fitting import ExpressionPrior
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
        touch_dm: standard deviation of the depth between the lips' inner rims where they meet in the picture, which
            does not show it; half of what they are open comes on top. Infinite = nothing is assumed.
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
    touch_dm: float = 0.01
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


@dataclass(frozen=True, slots=True, eq=False)
class FitTerms:
    """The cost's constants.

    Attributes:
        noise_dm: standard deviation of one landmark of weight 1. robust_dm: residual that counts a quarter.
        gap_weight: weight of a gap vector relative to its points'.
        turned_weight: what is left of the weight of skin that faces away.
        touch_dm: depth between the rims of shut lips, see ``FitConfig``.
        identity_precision: 1/variance of the identity per solved frame.
        focal_precision: 1/variance of the logarithm of the focal length.
        expression_precision: ``[E]`` 1/variance around the expected expression.
        bound_precision: 1/variance of what lies beyond ``lower`` and ``upper`` ``[E]``.
        pose_smoothness: 1/variance of the pose's second difference over time.
        unit_smoothness: ``[E]`` the same of the expression; a second difference of ``sudden`` ``[E]`` counts a quarter.
    """

    noise_dm: float
    robust_dm: float
    gap_weight: float
    turned_weight: float
    touch_dm: float
    identity_precision: float
    focal_precision: float
    expression_precision: Tensor
    bound_precision: float
    lower: Tensor
    upper: Tensor
    pose_smoothness: float
    unit_smoothness: Tensor
    sudden: Tensor

    @classmethod
    def of(cls, config: FitConfig, prior: ExpressionPrior, unit_smoothness: Tensor, sudden: Tensor) -> FitTerms:
        return cls(
            noise_dm=config.noise_dm,
            robust_dm=config.robust_dm,
            gap_weight=config.gap_weight,
            turned_weight=config.turned_weight,
            touch_dm=config.touch_dm,
            identity_precision=config.identity_weight,
            focal_precision=config.focal_spread**-2,
            expression_precision=(config.expression_spread * prior.std) ** -2,
            bound_precision=config.bound_slack**-2,
            lower=prior.lower,
            upper=prior.upper,
            pose_smoothness=config.pose_smoothness**-2,
            unit_smoothness=unit_smoothness,
            sudden=sudden,
        )


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
