"""A small made-up face model and clips projected from it, for tests of the fit."""

from dataclasses import dataclass

import numpy as np
import torch

from modules.face_model.fitting import ExpressionPrior, LandmarkRows, OutlineSlide
from modules.face_model.model import ARKIT_NAMES, FaceModel
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics
from modules.structures.landmarks import INNER_LIP, MEDIAPIPE_BLENDSHAPES, Landmarks2D


@dataclass(frozen=True)
class Case:
    """What a clip was made from, and what was seen of it."""

    identity: torch.Tensor
    expression: torch.Tensor
    euler: torch.Tensor
    translation: torch.Tensor
    camera: CameraIntrinsics
    landmarks: Landmarks2D


def bump_model(seed: int = 0) -> FaceModel:
    """478 vertices on a face-sized shell, one per landmark; bases are smooth bumps. The inner lips touch at rest."""
    generator = torch.Generator().manual_seed(seed)
    across, up = (torch.rand(2, 478, generator=generator) * 2 - 1).unbind()
    mean = torch.stack(
        [0.7 * torch.sin(1.4 * across), 0.9 * torch.sin(1.4 * up), torch.cos(across) * torch.cos(up)], -1
    )
    for upper, lower in zip(INNER_LIP[1:10], INNER_LIP[:10:-1], strict=True):
        mean[lower] = mean[upper]

    def bumps(count: int, size: float) -> torch.Tensor:
        centre = mean[torch.randint(478, (count,), generator=generator)]
        direction = torch.randn(count, 3, generator=generator)
        near = torch.exp(-(mean[:, None] - centre).square().sum(-1) / 0.08)
        return (near[:, :, None] * direction * size).transpose(1, 2).contiguous()

    expression = bumps(52, 0.12)
    jaw = ARKIT_NAMES.index("jawOpen")
    expression[..., jaw] = 0.0
    expression[list(INNER_LIP[11:]), 1, jaw] = -0.3
    corners = torch.arange(478)[:, None].repeat(1, 3)
    nothing = torch.zeros(478, dtype=torch.int64)
    return FaceModel(
        version="bumps",
        mean=mean,
        identity_basis=bumps(80, 0.02),
        expression_basis=expression,
        expression_names=ARKIT_NAMES,
        triangles=corners[:1],
        landmark_triangles=corners,
        landmark_weights=torch.full((478, 3), 1 / 3),
        canonical_vertices=mean,
        region_weights={},
        labels=nothing,
        inner_lip=nothing,
        outer_lip=nothing,
        mirror=nothing,
        landmark_mirror=nothing,
        outline_slide=OutlineSlide.none(),
        score_gain=torch.ones(52),
        score_offset=torch.zeros(52),
        expression_std=torch.full((52,), 0.3),
    )


def made_clip(
    model: FaceModel, count: int, size_wh: tuple[int, int] = (640, 360), noise_px: float = 1.0, seed: int = 1
) -> Case:
    """A head that turns ±20°, moves and talks; MediaPipe's scores are the truth with an error of 0.1."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(count) / 25
    rates, phases = torch.rand(2, model.n_expression, generator=generator)
    waves = (torch.sin(t[:, None] * (1 + 5 * rates) + 6 * phases) - 0.3).clamp_min(0)
    expression = waves * (torch.rand(model.n_expression, generator=generator) < 0.4)
    expression[:, model.unit("jawOpen")] = torch.sin(6 * t).clamp_min(0)
    identity = 0.8 * torch.randn(model.n_identity, generator=generator)
    euler = torch.stack([0.1 * torch.sin(t), 0.35 * torch.sin(1.4 * t), 0.1 * torch.cos(t)], -1)
    translation = torch.stack([0.3 * torch.sin(t), 0.1 * torch.cos(t), 5 + 0.4 * torch.sin(0.6 * t)], -1)
    camera = CameraIntrinsics.for_frame(*size_wh)
    points, _ = project(model.landmarks(identity, expression), euler, translation, camera)
    points = points + noise_px * torch.randn(points.shape, generator=generator)
    scores = torch.zeros(count, len(MEDIAPIPE_BLENDSHAPES))
    for column, name in enumerate(MEDIAPIPE_BLENDSHAPES[1:], start=1):
        scores[:, column] = expression[:, model.unit(name)]
    scores = (scores + 0.1 * torch.randn(scores.shape, generator=generator)).clamp(0, 1)
    landmarks = Landmarks2D(
        points.numpy(), np.zeros((count, 478), np.float32), np.ones(count, bool), scores.float().numpy()
    )
    return Case(identity, expression, euler, translation, camera, landmarks)


@dataclass(frozen=True)
class PlainModel:
    """A model without names or bounds, of the first ``count`` landmarks only, as BFM2009 is."""

    whole: FaceModel
    count: int = 468
    version: str = "plain"

    @property
    def expression_names(self) -> tuple[str, ...]:
        return tuple(f"exp_{i}" for i in range(self.whole.n_expression))

    def landmark_rows(self) -> LandmarkRows:
        rows = self.whole.landmark_rows()
        usable = torch.ones(self.count, dtype=torch.bool)
        usable[[93, 127]] = False
        mean, identity, expression = (v[: self.count] for v in (rows.mean, rows.identity, rows.expression))
        return LandmarkRows(mean, identity, expression, rows.slide, usable)

    def expression_prior(self) -> ExpressionPrior:
        return ExpressionPrior.unbounded(torch.full((self.whole.n_expression,), 0.5))
