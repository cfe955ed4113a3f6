"""What an edit would do to drawn occluders: the most that could be painted over them, from a prepared face's tables.

No head is rendered. Wherever the face model is seen, a head is taken to have a colour for it, so the alpha is the
largest that any trained person can give; a person that does not know a place paints less there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.driving import MOUTH_ROWS, SMILE_ROWS, occluder_in_frame, occlusion_in, source_motion
from inference.edit_plan import EditConfig, EditPlan, plan_edits
from inference.prepared import PreparedSource
from modules.radnerfs.surface import (
    FacePose,
    edge_radius_px,
    project_mesh,
    region_bounds,
    soft_alpha,
    surface_hits,
)
from modules.radnerfs.surface_batch import MARGIN_EDGES, MARGIN_PX
from modules.structures.crops import transform_points
from modules.structures.motion import MotionSequence
from tests.support.occluder_annotations import OccludedFace

REGION = "lower_face"
OPEN_JAW = 0.6
"""A new mouth may open so wide: the region is that of the source and of this mouth."""
IN_REGION = 0.5
"""From this alpha on a pixel lies in the edit region."""


@dataclass(frozen=True, slots=True)
class FaceScore:
    """One annotated face, as it would be edited.

    Attributes:
        frame: index.
        region_px: size of the edit region with nothing in front, as far as the annotation reaches.
        occluder_px: of these, how many the drawn occluders cover (sharp outlines and motion-blurred ones).
        edited_px: sum of the alpha over the drawn occluders; 0 in frames that pass through.
        edited_if_px: the same, were the frame edited in full.
        false_px: pixels of the region that count as occluder, from one half on, although nothing is drawn there.
        strength: of the frame's edit, 0..1.
        reason: why it is (not) edited.
        iou: of mask and drawing, both from one half on, inside the region; NaN where neither is.
    """

    frame: int
    region_px: float
    occluder_px: float
    edited_px: float
    edited_if_px: float
    false_px: float
    strength: float
    reason: str
    iou: float


def full_speech_plan(source: PreparedSource) -> EditPlan:
    """The plan when there is speech from the first frame to the last: only the picture decides what passes through."""
    times = np.asarray(source.times_s, np.float64) - float(source.times_s[0])
    count = int(np.ceil((times[-1] + 1) * 50))
    speech = MotionSequence(
        np.zeros((count, source.coeffs.expression.shape[1]), np.float32), np.ones(count, np.float32), 50.0, "test"
    )
    tracked = source_motion(source, np.arange(len(source)), times)
    zeros = np.zeros_like(source.coeffs.expression)
    return plan_edits(
        tracked, speech, zeros, mouth_units=MOUTH_ROWS, smile_units=SMILE_ROWS, config=EditConfig(),
        shot_starts=source.shot_starts,
    )  # fmt: skip


def region_alpha(source: PreparedSource, row: int) -> NDArray[np.float32]:
    """The most alpha ``[H, W]`` that an edit of frame ``row`` can have, with nothing in front of the face."""
    coeffs, size_wh = source.coeffs, (source.info.width, source.info.height)
    alpha = np.zeros(size_wh[::-1], np.float32)
    matrix = coeffs.camera.matrix()
    radius = edge_radius_px(matrix, coeffs.translation[row])
    shown = coeffs.expression[row]
    opened = shown.copy()
    opened[source.face_model.unit("jawOpen")] = OPEN_JAW
    poses = [FacePose(coeffs.identity, units, coeffs.euler[row], coeffs.translation[row]) for units in (shown, opened)]
    meshes = [project_mesh(source.face_model, pose, matrix) for pose in poses]
    weights = source.face_model.region_weights[REGION].numpy()
    pixels = np.concatenate([mesh.pixels for mesh in meshes])
    margin = round(MARGIN_EDGES * radius) + MARGIN_PX
    bounds = region_bounds(pixels, np.tile(weights, 2), size_wh, margin)
    if bounds is None:
        return alpha
    hits = [
        surface_hits(source.face_model, pose, matrix, bounds, REGION, mesh)
        for pose, mesh in zip(poses, meshes, strict=True)
    ]
    weight = np.maximum(hits[0].weight, hits[1].weight)
    x0, y0, x1, y1 = bounds
    alpha[y0:y1, x0:x1] = soft_alpha(weight, hits[1].mask, radius)
    return alpha


def score_face(source: PreparedSource, drawn: OccludedFace, plan: EditPlan, soft: bool | None = None) -> FaceScore:
    """Judge one drawn face; ``soft`` chooses outlines as ``OccludedFace.mask`` does."""
    row = drawn.frame
    size_wh, size_hw = (source.info.width, source.info.height), (source.info.height, source.info.width)
    strength, reason = float(plan.strength[row]), str(plan.reasons[row])
    truth, judged = drawn.mask(size_hw, soft), drawn.judged(size_hw)
    if not source.coeffs.valid[row]:
        return FaceScore(row, 0, 0, 0, 0, 0, strength, reason, float("nan"))
    region = region_alpha(source, row) * judged
    kept = occlusion_in(source, row, np.eye(3), size_wh)
    alpha = region if kept is None else region * (1 - kept.values)
    best = occluder_in_frame(source.occlusion, source.crops, row, size_wh)
    found = np.zeros(size_hw, bool) if best is None else best >= 0.5
    inside = region >= IN_REGION
    wanted = drawn.mask(size_hw) >= 0.5
    union = ((found | wanted) & inside).sum()
    return FaceScore(
        frame=row,
        region_px=float(inside.sum()),
        occluder_px=float((truth * inside).sum()),
        edited_px=float((truth * alpha).sum()) * strength,
        edited_if_px=float((truth * alpha).sum()),
        false_px=float((found & ~wanted & inside).sum()),
        strength=strength,
        reason=reason,
        iou=float((found & wanted & inside).sum() / union) if union else float("nan"),
    )


def score_faces(source: PreparedSource, faces: Sequence[OccludedFace], soft: bool | None = None) -> list[FaceScore]:
    """Judge the drawn faces that are ``source``'s: those whose box its landmarks lie in."""
    plan = full_speech_plan(source)
    return [score_face(source, face, plan, soft) for face in faces if is_of(source, face)]


def is_of(source: PreparedSource, drawn: OccludedFace) -> bool:
    """Whether the drawn face is the one that was prepared; where that was not followed, by its last known place."""
    known = np.flatnonzero(source.landmarks.valid)
    if not len(known):
        return False
    nearest = known[np.abs(known - drawn.frame).argmin()]
    x, y = transform_points(np.eye(3), source.landmarks.points[nearest]).mean(axis=0)
    box = drawn.face.scaled(1.3)
    return bool(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1)


def edited_share(scores: Sequence[FaceScore]) -> float:
    """Share of the drawn occluders in the edit region that is painted over."""
    covered = sum(score.occluder_px for score in scores)
    return sum(score.edited_px for score in scores) / covered if covered else 0.0
