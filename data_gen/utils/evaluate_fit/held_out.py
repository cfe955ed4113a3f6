"""How well a fitted person explains frames that were not fitted: the clips' table."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_fit.fitter import Clip, Fitter, cut
from data_gen.utils.evaluate_fit.measures import (
    BLOCK_S,
    REGIONS,
    correlation,
    frame_seconds,
    mean_measure,
    region_errors,
    relative_errors,
    visible_points,
    widest_open,
)
from data_gen.utils.evaluate_fit.tables import Column, Row, Table
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.commons.progress import Progress, silent
from modules.structures.dataset import last_eleventh
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, Landmarks2D, lip_opening
from modules.structures.scores import Measure

JAW_OPEN = "jawOpen"
MEAN_FACE, WITHOUT, WITH = "mean face", "correction off", "correction on"

COLUMNS = (
    Column("face", "face %"),
    Column("lips", "lips %"),
    Column("inner_lips", "inner lips %"),
    Column("eyes", "eyes %"),
    Column("brows", "brows %"),
    Column("oval", "oval %"),
    Column("open_lips", "lips %, widest-open tenth"),
    Column("open_lips_all", "lips %, widest-open tenth of all frames"),
    Column("jaw_r", "jawOpen r"),
    Column("jaw_bias", "jawOpen bias"),
    Column("frames", "held-out frames", 0),
    Column("lost", "of them not fitted", 0),
    Column("focal", "focal / side"),
)
NOTES = (
    "Identity, focal length and correction are fitted on the first 10/11 of the frames, then given; figures are of the "
    "last 1/11 of the frames.",
    "Mean distance of fitted from tracked points over the points of a region and then over frames, in % of the tracked "
    "distance between the outer eye corners in the same frame. Frames that were not fitted are left out and counted.",
    f"Ranges are 95 % intervals of a moving-block bootstrap (blocks of {BLOCK_S:g} s); none where frames hold less "
    "than two blocks.",
    "The widest-open tenth is chosen by the tracked lip opening; of all frames: those fitted and those held out.",
    "jawOpen: correlation with MediaPipe's own score, and mean of fitted minus score.",
    "Mean face: the same fit with identity 0 given, and the focal length of the fit beside it.",
)
SMOOTHED = "Reference: the landmarks that were fitted. They are smoothed over time; lips only follow the smoothed head."
UNSMOOTHED = "Reference: the landmarker's answer frame by frame, before any smoothing; the fit got the smoothed ones."


def held_out_tables(clips: list[Clip], fitter: Fitter, progress: Progress = silent) -> list[Table]:
    """One table against the smoothed landmarks, and one against the unsmoothed ones where they are known."""
    smoothed: list[Row] = []
    unsmoothed: list[Row] = []
    for number, clip in enumerate(clips):
        progress("held-out frames", number, len(clips))
        for variant, coeffs in fits_of(clip, fitter):
            smoothed.append(Row(clip.name, variant, _figures(clip, clip.landmarks, coeffs, fitter)))
            if clip.unsmoothed is not None:
                unsmoothed.append(Row(clip.name, variant, _figures(clip, clip.unsmoothed, coeffs, fitter)))
    progress("held-out frames", len(clips), len(clips))
    notes = (SMOOTHED, *NOTES)
    tables = [Table("clips", "Clips: held-out frames", COLUMNS, (*smoothed, *_means(smoothed)), notes)]
    if unsmoothed:
        title = "Clips: held-out frames, against unsmoothed landmarks"
        rows = (*unsmoothed, *_means(unsmoothed))
        tables.append(Table("clips_unsmoothed", title, COLUMNS, rows, (UNSMOOTHED, *NOTES)))
    return tables


def fits_of(clip: Clip, fitter: Fitter) -> Iterator[tuple[str, FaceModelCoeffs]]:
    """Coefficients of all frames of a clip, the held-out ones fitted with the person given, by variant."""
    is_train = last_eleventh(len(clip.landmarks)).is_train
    first, last = cut(clip.landmarks, is_train), cut(clip.landmarks, ~is_train)
    for variant, corrected in ((WITHOUT, False), (WITH, True)):
        chosen = fitter.corrected(corrected)
        known = chosen.fit(first, clip.size_wh)
        yield variant, joined(known, chosen.fit(last, clip.size_wh, person=known.person))
        if not corrected:
            mean = fitter.corrected(False)
            person = fitter.mean_face(known.camera)
            fits = [mean.fit(part, clip.size_wh, person=person) for part in (first, last)]
            yield MEAN_FACE, joined(*fits)


def joined(first: FaceModelCoeffs, last: FaceModelCoeffs) -> FaceModelCoeffs:
    """Frames of two fits of one person, one after the other."""
    moving = ("expression", "euler", "translation", "valid", "residual")
    rows = {name: np.concatenate([getattr(first, name), getattr(last, name)]) for name in moving}
    return FaceModelCoeffs(
        identity=first.identity, camera=first.camera, face_model_version=first.face_model_version,
        correction=first.correction, **rows,
    )  # fmt: skip


def _figures(clip: Clip, reference: Landmarks2D, coeffs: FaceModelCoeffs, fitter: Fitter) -> dict[str, Measure]:
    """A row of the table."""
    held = last_eleventh(len(coeffs)).is_held_out
    visible = visible_points(reference) & coeffs.valid[:, None]
    errors = relative_errors(fitted_points(coeffs, fitter.face_model), reference.points, visible)
    lips = region_errors(errors, REGIONS["lips"])
    opening = np.where(coeffs.valid & reference.valid, lip_opening(reference.points), np.nan)
    frame_s = frame_seconds(clip.times_s)
    figures = {name: mean_measure(region_errors(errors[held], points), frame_s) for name, points in REGIONS.items()}
    held_rows = np.flatnonzero(held)
    wide = held_rows[widest_open(opening[held])]
    figures["open_lips"] = mean_measure(lips[wide], frame_s)
    figures["open_lips_all"] = mean_measure(lips[widest_open(opening)], frame_s)
    figures |= _jaw(reference, coeffs, held, fitter, frame_s)
    usable = held & reference.valid
    figures["frames"] = Measure(float(usable.sum()))
    figures["lost"] = Measure(float((usable & ~coeffs.valid).sum()))
    figures["focal"] = Measure(coeffs.camera.fx / max(clip.size_wh))
    return figures


def _jaw(
    reference: Landmarks2D, coeffs: FaceModelCoeffs, held: NDArray[np.bool_], fitter: Fitter, frame_s: float
) -> dict[str, Measure]:
    score = reference.blendshapes[held, MEDIAPIPE_BLENDSHAPES.index(JAW_OPEN)].astype(np.float64)
    score[~coeffs.valid[held]] = np.nan
    jaw = coeffs.expression[held, fitter.face_model.unit(JAW_OPEN)]
    return {"jaw_r": Measure(correlation(jaw, score)), "jaw_bias": mean_measure(jaw - score, frame_s)}


def _means(rows: list[Row]) -> list[Row]:
    """A row per variant with the mean over clips of each error, when there are several clips."""
    if len({row.name for row in rows}) < 2:
        return []
    keys = [column.key for column in COLUMNS if column.key not in ("frames", "lost", "focal")]
    means = []
    for variant in dict.fromkeys(row.variant for row in rows):
        chosen = [row.measures for row in rows if row.variant == variant]
        values = {key: float(np.nanmean([measures[key].value for measures in chosen])) for key in keys}
        means.append(Row("mean of the clips", variant, {k: Measure(v, count=len(chosen)) for k, v in values.items()}))
    return means
