"""What would have been seen of the made-up talkers."""

from __future__ import annotations

import numpy as np

from modules.face_model.model import FaceModel
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES
from modules.structures.seen_mouth import SeenMouth
from modules.structures.speech_motion import SpeechMotionClip

SCORED = ("jawOpen", "mouthFunnel", "mouthPucker")


def seen_of(clip: SpeechMotionClip, face_model: FaceModel, *, noise: float = 0.0) -> SeenMouth:
    """A tracking of ``clip`` whose scores are linear in its units; funnel falls where its unit rises."""
    rng = np.random.default_rng(len(clip.name))
    jaw, pucker, smile = (clip.expression[:, face_model.unit(u)] for u in ("jawOpen", "mouthPucker", "mouthSmileLeft"))
    scores = np.zeros((len(clip), len(MEDIAPIPE_BLENDSHAPES)), np.float32)
    for unit, values in zip(SCORED, (0.8 * jaw, 0.5 * jaw - 0.3 * smile, pucker - 0.2 * jaw), strict=True):
        scores[:, MEDIAPIPE_BLENDSHAPES.index(unit)] = values
    opening, width = (a + noise * a.std() * rng.standard_normal(len(clip)) for a in (clip.opening, clip.width))
    return SeenMouth(
        name=clip.name,
        speaker=clip.speaker,
        opening=opening.astype(np.float32),
        width=width.astype(np.float32),
        scores=scores,
        valid=clip.valid,
        is_speech=clip.is_speech,
        level_db=(-30.0 + 20.0 * clip.opening).astype(np.float32),
        rate_hz=clip.rate_hz,
    )
