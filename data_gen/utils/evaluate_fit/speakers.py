"""Errors of the fit on made-up speakers, whose coefficients are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.evaluate_fit.alignment import HeadPath, Similarity, angles_between, scale_to
from data_gen.utils.evaluate_fit.fitter import Fitter
from data_gen.utils.evaluate_fit.made_up_speakers import MadeUpSpeaker, face_height_dm
from data_gen.utils.evaluate_fit.measures import REGIONS, mean_measure, region_errors, relative_errors, visible_points
from data_gen.utils.evaluate_fit.tables import Column, Row, Table
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.commons.progress import Progress, silent
from modules.face_model.model import FaceModel
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES
from modules.structures.scores import Measure

FACE_MM = 160.0
"""Forehead to chin of the face that identity errors are told for."""
FACE_REGION = 0.5
"""Vertices whose weight in the ``face`` region is above it are compared."""
KNOWN, UNKNOWN = "focal length known", "focal length unknown"
MEAN_FACE, SCORES = "mean face, focal known", "MediaPipe's scores"

COLUMNS = (
    Column("rotation", "rotation °"),
    Column("rotation_raw", "rotation °, not aligned"),
    Column("translation", "translation %"),
    Column("translation_mesh", "translation %, scale of the meshes"),
    Column("jaw", "jawOpen MAE", 3),
    Column("units", "all units MAE", 3),
    Column("identity", "identity mm"),
    Column("focal", "focal length, % off"),
    Column("landmarks", "landmarks % of eye distance"),
    Column("worst_rotation", "rotation °, worst speaker"),
    Column("worst_translation", "translation %, worst speaker"),
    Column("worst_jaw", "jawOpen MAE, worst speaker", 3),
    Column("worst_identity", "identity mm, worst speaker"),
    Column("speakers", "speakers", 0),
)
NOTES = (
    "Means over frames and then over speakers, with 95 % bootstrap intervals over speakers; frames that could not be "
    "fitted are left out (none unless said).",
    "Alignment, once per speaker: the least-squares similarity from the fitted neutral mesh to the true one over the "
    "vertices of the face. Identity: their mean distance after it, at a face 16 cm high from forehead to chin.",
    "Rotation: angle between fitted and true turn of the head, the fitted head's axes taken through the alignment; not "
    "aligned: the coefficients as they are.",
    "Translation: distance of the fitted from the true head origin in % of its true distance, with the axes through "
    "the alignment and one free scale per speaker over the whole path (size, so distance, is not observable); with the "
    "scale of the meshes instead, an error of the focal length counts in full.",
    "Mean face: identity 0 is given. MediaPipe's scores: the score of a unit taken for its coefficient.",
)


def speaker_rows(
    kind: str,
    count: int,
    make: Callable[[int], MadeUpSpeaker],
    fitter: Fitter,
    progress: Progress = silent,
) -> list[Row]:
    """Figures of ``count`` speakers that ``make(number)`` gives, one row per way to fit them."""
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in (KNOWN, UNKNOWN, MEAN_FACE, SCORES)}
    for number in range(count):
        progress(f"speakers, {kind}", number, count)
        speaker = make(number)
        camera = speaker.truth.camera
        known = fitter.fit(speaker.landmarks, speaker.size_wh, camera=camera)
        unknown = fitter.fit(speaker.landmarks, speaker.size_wh)
        mean = fitter.fit(speaker.landmarks, speaker.size_wh, person=fitter.mean_face(camera))
        for variant, coeffs in ((KNOWN, known), (UNKNOWN, unknown), (MEAN_FACE, mean)):
            found[variant].append(speaker_errors(speaker, coeffs, fitter.face_model))
        found[SCORES].append(score_errors(speaker, fitter.face_model))
    progress(f"speakers, {kind}", count, count)
    return [Row(kind, variant, _summary(errors)) for variant, errors in found.items()]


def speakers_table(rows: list[Row], notes: tuple[str, ...]) -> Table:
    """Rows of all kinds of speakers in one table."""
    return Table("speakers", "Speakers with known truth", COLUMNS, tuple(rows), (*notes, *NOTES))


def speaker_errors(speaker: MadeUpSpeaker, fitted: FaceModelCoeffs, face_model: FaceModel) -> dict[str, float]:
    """Every error of one speaker's fit, by the keys of ``COLUMNS``."""
    truth = speaker.truth
    rows = fitted.valid
    shapes = [_neutral_face(coeffs, face_model) for coeffs in (fitted, truth)]
    alignment = Similarity.between(*shapes)
    true_path = HeadPath.of(truth.euler[rows], truth.translation[rows])
    raw_path = HeadPath.of(fitted.euler[rows], fitted.translation[rows])
    path = raw_path.in_axes_of(alignment)
    distance = np.linalg.norm(true_path.place, axis=1)
    free = scale_to(path.place, true_path.place)
    off = np.abs(fitted.expression[rows] - truth.expression[rows])
    vertex_dm = np.linalg.norm(alignment.apply(shapes[0]) - shapes[1], axis=1).mean()
    errors = relative_errors(
        fitted_points(fitted, face_model), fitted_points(truth, face_model),
        visible_points(speaker.landmarks) & rows[:, None],
    )  # fmt: skip
    return {
        "rotation": float(angles_between(path.rotation, true_path.rotation).mean()),
        "rotation_raw": float(angles_between(raw_path.rotation, true_path.rotation).mean()),
        "translation": _percent(free * path.place - true_path.place, distance),
        "translation_mesh": _percent(path.place - true_path.place, distance),
        "jaw": float(off[:, face_model.unit("jawOpen")].mean()),
        "units": float(off.mean()),
        "identity": float(vertex_dm * FACE_MM / face_height_dm(face_model, truth.identity)),
        "focal": 100 * abs(fitted.camera.fx / truth.camera.fx - 1),
        "landmarks": float(np.nanmean(region_errors(errors, REGIONS["face"]))),
    }


def score_errors(speaker: MadeUpSpeaker, face_model: FaceModel) -> dict[str, float]:
    """What taking MediaPipe's scores for coefficients would give."""
    units = [face_model.unit(name) for name in MEDIAPIPE_BLENDSHAPES[1:]]
    rows = speaker.landmarks.valid
    off = np.abs(speaker.landmarks.blendshapes[rows, 1:] - speaker.truth.expression[rows][:, units])
    jaw = MEDIAPIPE_BLENDSHAPES.index("jawOpen") - 1
    return {"jaw": float(off[:, jaw].mean()), "units": float(off.mean())}


def _percent(difference: NDArray[np.floating], distance: NDArray[np.floating]) -> float:
    return float((100 * np.linalg.norm(difference, axis=1) / distance).mean())


def _neutral_face(coeffs: FaceModelCoeffs, face_model: FaceModel) -> NDArray[np.float64]:
    """Vertices of the face at rest, ``[N, 3]`` dm."""
    still = torch.zeros(1, face_model.n_expression)
    vertices = face_model.vertices(torch.from_numpy(coeffs.identity), still)[0].numpy()
    return vertices[face_model.region_weights["face"].numpy() > FACE_REGION].astype(np.float64)


def _summary(errors: list[dict[str, float]]) -> dict[str, Measure]:
    """Means over speakers, and the worst of some."""
    columns = {key: np.array([error[key] for error in errors]) for key in errors[0]}
    figures = {key: mean_measure(values) for key, values in columns.items()}
    for key in ("rotation", "translation", "jaw", "identity"):
        if key in columns:
            figures[f"worst_{key}"] = Measure(float(columns[key].max()))
    return {**figures, "speakers": Measure(float(len(errors)))}
