"""The mouth in five numbers, as seen in a video and as predicted.

Lip opening and mouth width are distances of landmarks. Jaw, funnel and pucker are MediaPipe's scores of the face seen.
The face model's units of those names are not the scores (the fitted ``mouthFunnel`` even falls where the score rises),
so scores are read off predicted units by a linear map, which speakers of the training side teach.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from modules.face_model.model import FaceModel
from modules.structures.landmarks import LIP_CORNERS, LIP_GAP_PAIRS, OUTER_EYE_CORNERS
from modules.structures.seen_mouth import SeenMouth
from tasks.audio2motion.dataset_utils import TrainingClip

DISTANCES = ("opening", "width")
SCORES = ("jawOpen", "mouthFunnel", "mouthPucker")
MEASURES = (*DISTANCES, *SCORES)
OPENING = MEASURES.index("opening")
_CLIP_AT = 4.0
"""z-scores are cut off here."""
_READOUT_PENALTY = 0.01
"""Of the map, in units of a unit's mean square times the number of rows: units move together."""


def lip_distances(
    expression: NDArray[np.float32], identity: NDArray[np.float32], face_model: FaceModel
) -> NDArray[np.float64]:
    """Lip opening and mouth width over the distance of the outer eye corners, of the model's landmarks: ``[T, 2]``."""
    points = face_model.landmarks(torch.from_numpy(identity), torch.from_numpy(expression)).numpy().astype(np.float64)

    def distance(first: int, second: int) -> NDArray[np.float64]:
        return np.linalg.norm(points[:, first] - points[:, second], axis=1)

    eyes = distance(*OUTER_EYE_CORNERS)
    opening = np.mean([distance(a, b) for a, b in LIP_GAP_PAIRS], axis=0) / eyes
    return np.stack([opening, distance(*LIP_CORNERS) / eyes], axis=1)


def cut_to(seen: SeenMouth, clip: TrainingClip) -> SeenMouth:
    """The rows of ``seen`` that a training clip holds.

    Raises:
        ValueError: they are not of the same clip, or of another length.
    """
    rows = slice(clip.first_row, clip.first_row + len(clip))
    if seen.name != clip.clip.name or len(seen) < rows.stop:
        raise ValueError(f"{seen.name}, {len(seen)} rows, is not what was seen of {clip.clip.name}")
    arrays = ("opening", "width", "scores", "valid", "is_speech", "level_db")
    return replace(seen, **{name: getattr(seen, name)[rows] for name in arrays})


def seen_measures(seen: SeenMouth) -> NDArray[np.float64]:
    """``MEASURES`` of what was seen: ``[T, 5]``."""
    columns = [seen.opening, seen.width, *(seen.score(unit) for unit in SCORES)]
    return np.stack(columns, axis=1).astype(np.float64)


def z_scores(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Columns of ``[T, M]`` less their mean, over their spread, cut off at 4."""
    return np.clip((values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9), -_CLIP_AT, _CLIP_AT)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreReadout:
    """What units say of MediaPipe's scores, up to each clip's own level and size.

    Attributes:
        weight: ``[U, 3]`` of ``SCORES``.
    """

    weight: NDArray[np.float64]

    @classmethod
    def taught_by(
        cls, clips: Sequence[TrainingClip], seen: Sequence[SeenMouth], columns: NDArray[np.int64]
    ) -> ScoreReadout:
        """Ridge regression of the z-scored scores on the fitted units, each less its mean over the clip.

        Args:
            clips: whose fits teach.
            seen: what was seen of them, cut to their rows.
            columns: ``[U]`` of the units among the coefficients.
        """
        gram, mixed = np.zeros((len(columns), len(columns))), np.zeros((len(columns), len(SCORES)))
        for clip, mouth in zip(clips, seen, strict=True):
            rows = clip.clip.valid & mouth.valid
            units = clip.deviation(columns)[rows].astype(np.float64)
            units -= units.mean(axis=0)
            gram += units.T @ units
            mixed += units.T @ z_scores(seen_measures(mouth)[rows][:, len(DISTANCES) :])
        penalty = _READOUT_PENALTY * np.trace(gram) / len(gram)
        return cls(np.linalg.solve(gram + penalty * np.eye(len(gram)), mixed))

    def __call__(self, units: NDArray[np.floating]) -> NDArray[np.float64]:
        """``[T, U]`` to ``[T, 3]``."""
        return units.astype(np.float64) @ self.weight
