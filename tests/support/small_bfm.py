"""A made-up small BFM: the files' arrays as GeneFace++'s have them, with 600 vertices."""

from functools import cache
from pathlib import Path

import numpy as np
import scipy.io

from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.bfm import BFM_FILE, MEDIAPIPE_INDEX_FILE, BfmModel
from modules.face_model.model import FaceModel
from modules.structures.landmarks import N_MESH, UNMATCHED_BFM

VERTICES = 600


@cache
def _face() -> np.ndarray:
    return FaceModel.load(FACE_MODEL_FILE).landmark_rows().mean[:N_MESH].numpy()


def small_bfm_arrays(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays of ``BFM_model_front.mat`` and the MediaPipe index: landmarks of a face among other points of its skin.

    Bases are bumps made orthogonal; indices of the mat file count from 1; ``UNMATCHED_BFM`` have no vertex (-1).
    """
    rng = np.random.default_rng(seed)
    face = _face()
    skin = face[rng.integers(0, N_MESH, VERTICES - N_MESH)] + rng.normal(0, 0.05, (VERTICES - N_MESH, 3))
    place = rng.permutation(VERTICES)
    mean = np.empty((VERTICES, 3))
    mean[place] = np.concatenate([face, skin])

    centre = mean[rng.integers(0, VERTICES, 144)]
    near = np.exp(-np.square(mean[:, None] - centre).sum(-1) / 0.08)
    bumps = (near[:, None, :] * rng.normal(size=(3, 144))).reshape(VERTICES * 3, 144)
    basis = np.linalg.qr(bumps)[0] * 0.02 * np.sqrt(VERTICES)  # each moves the vertices by 2 mm (root mean square)

    index = place[:N_MESH].copy()
    index[list(UNMATCHED_BFM)] = -1
    arrays = {
        "meanshape": mean.reshape(1, -1).astype(np.float32),
        "idBase": basis[:, :80].astype(np.float32),
        "exBase": basis[:, 80:].astype(np.float32),
        "tri": rng.integers(1, VERTICES + 1, (50, 3)).astype(np.float64),
        "keypoints": rng.integers(1, VERTICES + 1, (1, 68)).astype(np.int32),
    }
    return arrays, index


def small_bfm(seed: int = 0) -> BfmModel:
    return BfmModel.from_arrays(*small_bfm_arrays(seed))


def write_bfm(folder: Path, arrays: dict[str, np.ndarray], index: np.ndarray) -> Path:
    """The two files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / BFM_FILE, arrays)
    np.save(folder / MEDIAPIPE_INDEX_FILE, index)
    return folder
