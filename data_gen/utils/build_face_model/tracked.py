"""Real faces for the face model's builder: frames chosen from tracked clips, and what the project's fit makes of them.

Reads: a folder of landmark tables as ``data_gen/runs/build_av_corpus.py`` keeps them (``X.npz`` beside
``X.times.npz``).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.fit_3dmm_landmark import fit_3dmm
from modules.commons.errors import FitDivergedError, GeneFaceError
from modules.face_model.model import FaceModel
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.landmarks import Landmarks2D, lip_opening

logger = logging.getLogger(__name__)

FRAMES_PER_CLIP = 20
TIMES_SUFFIX = ".times.npz"


@dataclass(frozen=True, slots=True, eq=False)
class ClipSample:
    """Some frames of one clip.

    Attributes:
        name: file stem of the table. landmarks: F frames, all valid. camera: of the whole frame.
        vote: weight of the clip; the clips of one person share that person's votes.
    """

    name: str
    landmarks: Landmarks2D
    camera: CameraIntrinsics
    vote: float


@dataclass(frozen=True, slots=True, eq=False)
class FittedClip:
    """A sample and its coefficients: identity ``[I]``, expression ``[F, E]``, euler and translation ``[F, 3]``.

    ``px_per_dm [F]`` is the image scale at the head.
    """

    sample: ClipSample
    identity: NDArray[np.float64]
    expression: NDArray[np.float64]
    euler: NDArray[np.float64]
    translation: NDArray[np.float64]

    @property
    def px_per_dm(self) -> NDArray[np.float64]:
        return self.sample.camera.fx / (CAMERA_DISTANCE - self.translation[:, 2])


def read_samples(folder: Path, speaker_of: Callable[[str], str]) -> list[ClipSample]:
    """Frames of every table in ``folder``, spread over time, poses and mouth openings.

    Args:
        folder: holds ``X.npz`` and ``X.times.npz`` per clip.
        speaker_of: name of the person in a clip of this name.

    Raises:
        GeneFaceError: when the folder holds no such tables, or one cannot be read.
    """
    tables = sorted(p for p in folder.glob("*.npz") if not p.name.endswith(TIMES_SUFFIX))
    if not tables:
        raise GeneFaceError(f"{folder} holds no landmark tables; make them with data_gen/runs/build_av_corpus.py")
    counts = Counter(speaker_of(p.stem) for p in tables)
    samples = []
    for path in tables:
        try:
            landmarks = Landmarks2D.load(path)
            with np.load(path.with_suffix(TIMES_SUFFIX), allow_pickle=False) as data:
                width, height = (int(v) for v in data["size_wh"])
        except (ValueError, OSError, KeyError) as error:
            raise GeneFaceError(f"{path} cannot be used ({error}); delete it and track the clip again") from error
        # clips of one person differ in pose, light and lens: together they know more than one clip, yet less than
        # as many persons
        vote = counts[speaker_of(path.stem)] ** -0.5
        samples.append(
            ClipSample(path.stem, _chosen(landmarks, FRAMES_PER_CLIP), CameraIntrinsics.for_frame(width, height), vote)
        )
    return samples


def _chosen(landmarks: Landmarks2D, count: int) -> Landmarks2D:
    """Half of the frames even in time, the other half even in the order of the mouth's opening."""
    rows = np.flatnonzero(landmarks.valid)
    if len(rows) > count:
        by_opening = rows[np.argsort(lip_opening(landmarks.points[rows]), kind="stable")]
        places = np.linspace(0, len(rows) - 1, count // 2).round().astype(int)
        rows = np.unique(np.concatenate([rows[places], by_opening[places]]))
    return Landmarks2D(
        np.array(landmarks.points[rows]),
        np.array(landmarks.depth[rows]),
        np.ones(len(rows), bool),
        np.array(landmarks.blendshapes[rows]),
    )


def fit_samples(model: FaceModel, samples: list[ClipSample]) -> list[FittedClip]:
    """Fit each clip by itself; one that no face fits is left out with a warning."""
    fitted = []
    for sample in samples:
        try:
            fitted.append(_fit(model, sample))
        except FitDivergedError as error:
            logger.warning("%s left out: %s", sample.name, error)
    if not fitted:
        raise GeneFaceError(f"none of {len(samples)} tracked clips could be fitted")
    return fitted


def _fit(model: FaceModel, sample: ClipSample) -> FittedClip:
    coeffs = fit_3dmm(_unrelated(sample.landmarks), sample.camera, model)
    rows = np.flatnonzero(coeffs.valid)
    kept = rows // 2
    marks = sample.landmarks
    kept_marks = Landmarks2D(marks.points[kept], marks.depth[kept], marks.valid[kept], marks.blendshapes[kept])
    return FittedClip(
        replace(sample, landmarks=kept_marks),
        *(np.asarray(v, np.float64) for v in (coeffs.identity, coeffs.expression[rows], coeffs.euler[rows],
                                              coeffs.translation[rows])),
    )  # fmt: skip


def _unrelated(landmarks: Landmarks2D) -> Landmarks2D:
    """The frames with an empty one after each, so that nothing is smoothed between them: they are far apart in time."""
    count = 2 * len(landmarks)

    def spread(values: NDArray) -> NDArray:
        out = np.full((count, *values.shape[1:]), np.nan, np.float32)
        out[::2] = values
        return out

    return Landmarks2D(
        spread(landmarks.points), spread(landmarks.depth), np.arange(count) % 2 == 0, spread(landmarks.blendshapes)
    )
