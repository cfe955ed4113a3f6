"""How steady a fitted head is, and whether the lips keep their quick movements."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.signal import detrend
from scipy.spatial.transform import Rotation

from data_gen.utils.evaluate_fit.fitter import Clip, Fitter
from data_gen.utils.evaluate_fit.measures import frame_seconds
from data_gen.utils.evaluate_fit.tables import Column, Row, Table
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.commons.progress import Progress, silent
from modules.structures.cameras import CAMERA_DISTANCE, rotation_matrices
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import RIGID, inter_ocular_px, lip_opening
from modules.structures.scores import Measure

CUT_HZ = 4.0
"""Slower movements of the lips are no test of smoothing."""
_JUMP = 0.5
"""A move of the steady points from frame to frame, in eye distances, above which a shot has changed."""

COLUMNS = (
    Column("turn", "jitter of turn °", 3),
    Column("turn_alone", "°, frame by frame", 3),
    Column("turn_ratio", "ratio"),
    Column("place", "jitter of place ‰", 3),
    Column("place_alone", "‰, frame by frame", 3),
    Column("place_ratio", "ratio"),
    Column("lips_tracked", "lips' quick energy / tracked"),
    Column("lips_alone", "/ frame by frame"),
    Column("lips_r", "quick r with tracked"),
    Column("jaw_alone", "jawOpen's quick energy / frame by frame"),
    Column("jaw_r", "quick r with frame by frame"),
    Column("frames", "frames", 0),
)
NOTES = (
    "Frame by frame: the same fit, person given, every frame a shot of its own: nothing is smoothed over time.",
    "Jitter: root mean square of the second difference from frame to frame, of the turn in degrees (change of the "
    "rotation from one step to the next) and of the place in ‰ of the distance; nothing counts across cuts and gaps.",
    f"Quick energy: of the movement above {CUT_HZ:g} Hz (Hann window, trend taken out), of the lip opening of the "
    "projected points over the eye distance, and of jawOpen; 1 = all is kept. Quick r: correlation of these movements.",
)


def stability_table(clips: list[Clip], fitter: Fitter, progress: Progress = silent) -> Table:
    """Jitter and quick energy of every clip."""
    rows = []
    for number, clip in enumerate(clips):
        progress("stability", number, len(clips))
        coeffs = fitter.fit(clip.landmarks, clip.size_wh)
        alone = fitter.fit(clip.landmarks, clip.size_wh, person=coeffs.person, frame_by_frame=True)
        rows.append(Row(clip.name, "", stability_figures(clip, coeffs, alone, fitter)))
    progress("stability", len(clips), len(clips))
    return Table("stability", "Stability", COLUMNS, tuple(rows), NOTES)


def stability_figures(
    clip: Clip, coeffs: FaceModelCoeffs, alone: FaceModelCoeffs, fitter: Fitter
) -> dict[str, Measure]:
    """Figures of a fit beside those of one that knows no time."""
    valid = coeffs.valid & alone.valid & clip.landmarks.valid
    runs = unbroken_runs(clip.landmarks.points, valid)
    rate_hz = 1 / frame_seconds(clip.times_s)
    turn, turn_alone = (turn_jitter_deg(fit.euler, runs) for fit in (coeffs, alone))
    place, place_alone = (place_jitter(fit.translation, runs) for fit in (coeffs, alone))
    lips, lips_alone = (lip_opening(fitted_points(fit, fitter.face_model)) for fit in (coeffs, alone))
    lips_tracked = lip_opening(clip.landmarks.points)
    unit = fitter.face_model.unit("jawOpen")
    jaw, jaw_alone = (fit.expression[:, unit] for fit in (coeffs, alone))

    def kept(values: NDArray, reference: NDArray) -> float:
        energy = quick_energy(reference, runs, rate_hz)
        return quick_energy(values, runs, rate_hz) / energy if energy > 0 else math.nan

    figures = {
        "turn": turn,
        "turn_alone": turn_alone,
        "turn_ratio": turn / turn_alone if turn_alone > 0 else math.nan,
        "place": 1000 * place,
        "place_alone": 1000 * place_alone,
        "place_ratio": place / place_alone if place_alone > 0 else math.nan,
        "lips_tracked": kept(lips, lips_tracked),
        "lips_alone": kept(lips, lips_alone),
        "lips_r": quick_correlation(lips, lips_tracked, runs, rate_hz),
        "jaw_alone": kept(jaw, jaw_alone),
        "jaw_r": quick_correlation(jaw, jaw_alone, runs, rate_hz),
        "frames": float(sum(stop - start for start, stop in runs)),
    }
    return {key: Measure(value) for key, value in figures.items()}


def unbroken_runs(points: NDArray[np.floating], valid: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Half-open ranges of three frames or more that are valid throughout and without a cut in them."""
    steady = points[:, list(RIGID)].astype(np.float64)
    moves = np.linalg.norm(np.diff(steady, axis=0), axis=2).mean(axis=1)
    together = valid[1:] & valid[:-1] & (moves <= _JUMP * inter_ocular_px(points[1:]))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], together, [False]]).astype(int)))
    return [(int(a), int(b) + 1) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 2]


def turn_jitter_deg(euler: NDArray[np.floating], runs: list[tuple[int, int]]) -> float:
    """Root mean square of how much the turn from frame to frame changes, degrees; NaN without a run."""
    changes = []
    for start, stop in runs:
        turns = rotation_matrices(euler[start:stop].astype(np.float64))
        steps = Rotation.from_matrix(np.swapaxes(turns[:-1], 1, 2) @ turns[1:]).as_rotvec(degrees=True)
        changes.append(np.diff(steps, axis=0))
    return _root_mean_square(changes)


def place_jitter(translation: NDArray[np.floating], runs: list[tuple[int, int]]) -> float:
    """Root mean square of the second difference of the head's place over its distance; NaN without a run."""
    changes = []
    for start, stop in runs:
        place = translation[start:stop].astype(np.float64) - [0.0, 0.0, CAMERA_DISTANCE]
        distance = np.linalg.norm(place, axis=1)
        changes.append(np.diff(place, n=2, axis=0) / distance[1:-1, None])
    return _root_mean_square(changes)


def _root_mean_square(vectors: list[NDArray[np.float64]]) -> float:
    """Of the lengths of vectors ``[N, 3]``."""
    if not vectors:
        return math.nan
    return float(np.sqrt((np.concatenate(vectors) ** 2).sum(axis=1).mean()))


def quick_part(values: NDArray[np.floating], rate_hz: float, cut_hz: float = CUT_HZ) -> NDArray[np.float64]:
    """What of a series ``[T]`` lies at or above ``cut_hz``, windowed (Hann) after its trend is taken out."""
    shaped = detrend(values.astype(np.float64)) * np.hanning(len(values) + 2)[1:-1]
    spectrum = np.fft.rfft(shaped)
    spectrum[np.fft.rfftfreq(len(values), 1 / rate_hz) < cut_hz] = 0
    return np.fft.irfft(spectrum, len(values))


def quick_energy(values: NDArray[np.floating], runs: list[tuple[int, int]], rate_hz: float) -> float:
    """Energy of the quick parts of all runs together."""
    return float(sum((quick_part(values[start:stop], rate_hz) ** 2).sum() for start, stop in runs))


def quick_correlation(
    first: NDArray[np.floating], second: NDArray[np.floating], runs: list[tuple[int, int]], rate_hz: float
) -> float:
    """Correlation of the quick parts of two series; NaN where one has none."""
    pairs = [(quick_part(first[a:b], rate_hz), quick_part(second[a:b], rate_hz)) for a, b in runs]
    shared = sum(float(x @ y) for x, y in pairs)
    energy = math.sqrt(sum(float(x @ x) for x, _ in pairs) * sum(float(y @ y) for _, y in pairs))
    return shared / energy if energy > 0 else math.nan
