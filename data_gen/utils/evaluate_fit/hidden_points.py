"""What hiding points does to the fit: 40 % of them, over the mouth or over one side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_fit.alignment import angles_between
from data_gen.utils.evaluate_fit.fitter import Clip, Fitter
from data_gen.utils.evaluate_fit.measures import (
    REGIONS,
    frame_seconds,
    mean_measure,
    region_errors,
    relative_errors,
    visible_points,
)
from data_gen.utils.evaluate_fit.tables import Column, Row, Table
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.commons.progress import Progress, silent
from modules.face_model.model import FaceModel
from modules.structures.cameras import rotation_matrices
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import N_MEDIAPIPE
from modules.structures.scores import Measure

HIDDEN_SHARE = 0.4
COLUMNS = (
    Column("turn", "pose changes °"),
    Column("worst_turn", "°, 95th percentile"),
    Column("seen", "visible points' error %"),
    Column("masked", "%, with the rest hidden"),
    Column("change", "change %", 1),
    Column("hidden", "hidden points' error %"),
    Column("lost", "frames not fitted", 0),
)
NOTES = (
    "40 % of the points are hidden in every frame (weight 0): the lowest ones of the mean face, which hold the whole "
    "mouth, or those farthest to one side. Errors are % of the eye distance, as in the clips' table.",
    "Person given: from the fit without hidden points; all hidden: identity and focal length are fitted with the "
    "points hidden throughout as well.",
    "Pose changes: angle between the head's turn with and without hidden points. Change: of the visible points' mean "
    "error.",
)


def hidden_sets(face_model: FaceModel) -> dict[str, NDArray[np.int64]]:
    """Point numbers that are hidden, by name."""
    mean = face_model.landmark_rows().mean.numpy()
    count = round(HIDDEN_SHARE * N_MEDIAPIPE)
    lowest, leftmost = (np.argsort(mean[:, axis], kind="stable")[:count] for axis in (1, 0))
    return {"mouth and lower face": lowest, "one side": leftmost}


def hidden_points_table(clips: list[Clip], fitter: Fitter, progress: Progress = silent) -> Table:
    """Every clip with either set of points hidden."""
    rows = []
    sets = hidden_sets(fitter.face_model)
    for number, clip in enumerate(clips):
        progress("hidden points", number, len(clips))
        seen = fitter.fit(clip.landmarks, clip.size_wh)
        for name, points in sets.items():
            weights = np.ones((len(clip.landmarks), N_MEDIAPIPE), np.float32)
            weights[:, points] = 0
            for how, person in (("person given", seen.person), ("all hidden", None)):
                masked = fitter.fit(clip.landmarks, clip.size_wh, person=person, weights=weights)
                figures = masked_figures(clip, seen, masked, weights, fitter.face_model)
                rows.append(Row(clip.name, f"{name}, {how}", figures))
    progress("hidden points", len(clips), len(clips))
    return Table("occlusion", "Hidden points", COLUMNS, tuple(rows), NOTES)


def masked_figures(
    clip: Clip, seen: FaceModelCoeffs, masked: FaceModelCoeffs, weights: NDArray[np.float32], face_model: FaceModel
) -> dict[str, Measure]:
    """Figures of a fit with hidden points beside the one without."""
    both = seen.valid & masked.valid
    turns = angles_between(*(rotation_matrices(c.euler[both].astype(np.float64)) for c in (masked, seen)))
    evidence = visible_points(clip.landmarks) & both[:, None]
    errors = [relative_errors(fitted_points(c, face_model), clip.landmarks.points, evidence) for c in (seen, masked)]
    shown = weights > 0.5
    without, with_hidden = (region_errors(np.where(shown, values, np.nan), REGIONS["face"]) for values in errors)
    hidden = region_errors(np.where(shown, np.nan, errors[1]), REGIONS["face"])
    frame_s = frame_seconds(clip.times_s)
    ratio = float(np.nanmean(with_hidden) / np.nanmean(without))
    return {
        "turn": mean_measure(turns, frame_s),
        "worst_turn": Measure(float(np.quantile(turns, 0.95))) if len(turns) else Measure.missing("nothing fitted"),
        "seen": mean_measure(without, frame_s),
        "masked": mean_measure(with_hidden, frame_s),
        "change": Measure(100 * (ratio - 1)),
        "hidden": mean_measure(hidden, frame_s),
        "lost": Measure(float((seen.valid & ~masked.valid).sum())),
    }
