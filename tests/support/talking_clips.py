"""Talking clips made by code: a mouth that moves at random, and features that tell linearly how."""

from __future__ import annotations

import numpy as np
import torch

from modules.audio2motion.motion_space import columns_of
from modules.face_model.model import FaceModel
from modules.structures.landmarks import LIP_CORNERS, LIP_GAP_PAIRS, OUTER_EYE_CORNERS
from modules.structures.speech_motion import SpeechMotionClip

BLOCK_WIDTH = 12
UNITS = ("jawOpen", "mouthPucker", "mouthSmileLeft", "mouthSmileRight")


def talking_clip(
    face_model: FaceModel, seed: int, *, speaker: str = "", rows: int = 150, renderings: int = 2, noise: float = 0.0
) -> SpeechMotionClip:
    """A clip whose units are the same function of its features for every seed, over a rest of its own."""
    rng = np.random.default_rng(seed)
    steps = rng.standard_normal((rows + 8, len(UNITS)))
    drive = np.stack([np.convolve(column, np.ones(9) / 6, mode="valid") for column in steps.T], axis=1)
    features = drive @ np.random.default_rng(999).standard_normal((len(UNITS), 3 * BLOCK_WIDTH))
    drive = drive + noise * rng.standard_normal((rows, len(UNITS)))
    expression = np.tile(rng.uniform(0.0, 0.1, face_model.n_expression), (rows, 1)).astype(np.float32)
    size = np.array([0.15, 0.2, 0.1, 0.1])
    expression[:, columns_of(face_model.expression_names, UNITS)] += size * np.clip(drive + 1.0, 0.0, 2.0)
    identity = rng.standard_normal(face_model.n_identity).astype(np.float32) * 0.3
    points = face_model.landmarks(torch.from_numpy(identity), torch.from_numpy(expression)).numpy()

    def distance(first: int, second: int) -> np.ndarray:
        return np.linalg.norm(points[:, first] - points[:, second], axis=1)

    eyes = distance(*OUTER_EYE_CORNERS)
    valid = np.ones(rows, dtype=bool)
    valid[:3] = False
    return SpeechMotionClip(
        name=f"clip{seed}",
        speaker=speaker or f"speaker{seed}",
        features=np.stack([features + 0.01 * k for k in range(renderings)]).astype(np.float16),
        expression=expression,
        identity=identity,
        opening=(np.mean([distance(a, b) for a, b in LIP_GAP_PAIRS], axis=0) / eyes).astype(np.float32),
        width=(distance(*LIP_CORNERS) / eyes).astype(np.float32),
        valid=valid,
        is_speech=np.ones(rows, dtype=bool),
        rate_hz=50.0,
        extractor="whisper-tiny.en/blocks-2-3-4",
        face_model_version=face_model.version,
    )
