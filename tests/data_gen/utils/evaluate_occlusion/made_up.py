"""A grey picture with a face that is only points: enough for putting things over it and judging masks."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.frames import Frame
from modules.structures.landmarks import FOREHEAD_CHIN, JAW_LINE, N_MEDIAPIPE, OUTER_LIP
from modules.video.rgb_video import rgb_frame

SIDE = 192
FACE_PX = 80.0
CENTER = (96.0, 80.0)
"""Where the middle of the face lies; the mouth is a quarter of the face below."""


def face_points(n_frames: int, drift_px: float = 0.0) -> NDArray[np.float32]:
    """Landmarks ``[T, 478, 2]`` px of a round face that drifts to the right."""
    one = np.tile(np.array(CENTER), (N_MEDIAPIPE, 1))
    angles = np.linspace(0, np.pi, len(JAW_LINE))
    one[list(JAW_LINE)] += FACE_PX / 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    one[FOREHEAD_CHIN[0]] = CENTER[0], CENTER[1] - FACE_PX / 2
    one[list(OUTER_LIP)] += [0, FACE_PX / 4]
    drift = drift_px * np.arange(n_frames)[:, None, None] * np.array([1.0, 0.0])
    return (one + drift).astype(np.float32)


def grey_frames(n_frames: int) -> list[Frame]:
    """Skin-coloured frames."""
    rgb = np.full((SIDE, SIDE, 3), (180, 140, 120), np.uint8)
    return [rgb_frame(row, Fraction(row, 25), rgb) for row in range(n_frames)]


def whole_frame_crop(crop_size: int = 256) -> CropMetadata:
    """A crop that shows all of the frame."""
    return CropMetadata((CropRegion(SIDE / 2, SIDE / 2, SIDE),), (SIDE, SIDE), crop_size)
