"""2-D landmarks over time, and every landmark index table of the project."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.array_file import ArrayFileWriter, mapped_npz

LANDMARKS_SCHEMA = "landmarks/1"

# MediaPipe's 478-point topology (468 mesh points + 10 iris points).
N_MEDIAPIPE = 478
N_MESH = 468

# fmt: off
INNER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
"""Inner lip contour, closed ring from the image-left corner over the upper lip."""
OUTER_LIP = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
"""Outer lip contour, same order as ``INNER_LIP``."""
WITHIN_LIPS = (
    76, 62, 184, 183, 74, 72, 73, 41, 38, 11, 12, 302, 268, 303, 271, 304, 272, 408, 407, 292, 306,
    325, 307, 319, 320, 403, 404, 316, 315, 15, 16, 86, 85, 179, 180, 89, 90, 96, 77,
)
"""Points on the lips between the two contours."""
MOUTH = INNER_LIP + OUTER_LIP + WITHIN_LIPS
MOUTH_GROWN = 1.3
"""By how much the box that pictures of a mouth are scored in is larger than the mouth."""
IMAGE_LEFT_EYE = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
IMAGE_RIGHT_EYE = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
EYES = IMAGE_LEFT_EYE + IMAGE_RIGHT_EYE
UPPER_EYELIDS = (161, 160, 159, 158, 157, 388, 387, 386, 385, 384)
BROWS = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149,
    150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
"""Outline of the face, closed ring from the top of the forehead towards the image's right."""
JAW_LINE = (454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234)
"""Ear to ear along the jaw; a part of ``FACE_OVAL``."""
IRISES = (468, 469, 470, 471, 472, 473, 474, 475, 476, 477)
UNMATCHED_BFM = (93, 127, 132, 234, 323, 356, 361, 454)
"""Points without a counterpart on GeneFace++'s BFM mesh: loss weight 0 there."""
NOSE_BRIDGE = (168, 6, 197, 195, 5, 4)
RIGID = (168, 6, 197, 195, 5, 4, 33, 133, 362, 263, 1, 2, 98, 327, 10)
"""Points that hardly move with expression: pose is read off these first."""

LM68 = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 78, 81, 13, 311, 308, 402, 14, 178,
)
"""68-point layout out of 478 (GeneFace++): jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67."""
LM68_MOUTH = LM68[48:]
"""Points 48-67 of the 68-point layout: what the field's landmark distance of the lips (LMD) looks at."""
LM131 = BROWS + EYES + INNER_LIP + OUTER_LIP + FACE_OVAL + (64, 4, 294)
# fmt: on

OUTER_EYE_CORNERS = (33, 263)
LIP_GAP_PAIRS = ((13, 14), (82, 87), (312, 317))
"""Upper and lower inner-lip points whose mean distance is the lip opening."""
LIP_CORNERS = (61, 291)

# fmt: off
BLENDSHAPE_SUBSET = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70, 78, 80,
    81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149, 150, 152, 153,
    154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195, 197, 234, 246, 249, 251,
    263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300, 308, 310, 311, 312, 314, 317, 318,
    321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375, 377, 378, 379, 380, 381, 382, 384, 385, 386,
    387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454, 466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
"""The 146 points MediaPipe's blendshape network reads."""
MEDIAPIPE_BLENDSHAPES = (
    "_neutral", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)
"""Columns of ``Landmarks2D.blendshapes``: ARKit's names less ``tongueOut``, ``_neutral`` first."""
LOWER_FACE_SCORES = tuple(
    i for i, name in enumerate(MEDIAPIPE_BLENDSHAPES) if name.startswith(("jaw", "mouth", "cheekPuff"))
)
"""Columns of the scores that speech moves."""
UPPER_FACE_SCORES = tuple(
    i for i, name in enumerate(MEDIAPIPE_BLENDSHAPES) if name.startswith(("brow", "eye", "cheekSquint", "noseSneer"))
)
"""Columns of the scores above the mouth; with ``LOWER_FACE_SCORES`` all but ``_neutral``."""

# MediaPipe's 21 hand points: wrist 0, then four joints each of thumb, index, middle, ring and little finger.
HAND_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
HAND_PALM = (0, 1, 5, 9, 13, 17)
"""Closed outline of the palm, wrist first."""
# fmt: on
FOREHEAD_CHIN = (10, 152)
"""Top of the forehead and chin: their distance is the face height."""


@dataclass(frozen=True, slots=True, eq=False)
class LandmarkResult:
    """What a landmarker found in one image.

    Attributes:
        points: ``[478, 2]`` float32 px of the image given.
        depth: ``[478]`` float32, relative z in px (smaller = nearer).
        score: face presence, 0..1.
        blendshapes: ``[52]`` float32 scores 0..1 (``MEDIAPIPE_BLENDSHAPES``).
    """

    points: NDArray[np.float32]
    depth: NDArray[np.float32]
    score: float
    blendshapes: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.points.shape != (N_MEDIAPIPE, 2) or self.depth.shape != (N_MEDIAPIPE,):
            raise ValueError(f"landmarks must be [478, 2] and [478], got {self.points.shape} and {self.depth.shape}")
        if self.blendshapes.shape != (len(MEDIAPIPE_BLENDSHAPES),):
            raise ValueError(f"blendshapes must be [52], got {self.blendshapes.shape}")

    def shifted(self, x: float, y: float) -> LandmarkResult:
        """The same result with points moved by (x, y) px: from a window's pixels to the frame's."""
        return replace(self, points=self.points + np.array([x, y], dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks2D:
    """MediaPipe landmarks over a clip, in frame pixels.

    Attributes:
        points: ``[T, 478, 2]`` float32 px, frame space; rows of invalid frames are NaN.
        depth: ``[T, 478]`` float32, MediaPipe's relative z in px (smaller = nearer).
        valid: ``[T]`` bool.
        blendshapes: ``[T, 52]`` float32 MediaPipe scores 0..1 (``_neutral`` first), NaN where invalid.
    """

    points: NDArray[np.float32]
    depth: NDArray[np.float32]
    valid: NDArray[np.bool_]
    blendshapes: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.valid)
        if self.points.shape != (count, N_MEDIAPIPE, 2) or self.depth.shape != (count, N_MEDIAPIPE):
            raise ValueError(f"landmarks must be [T, 478, 2] with depth [T, 478], got {self.points.shape}")
        if self.blendshapes.shape != (count, 52):
            raise ValueError(f"blendshapes must be [T, 52], got {self.blendshapes.shape}")

    def __len__(self) -> int:
        return len(self.valid)

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            schema=np.array(LANDMARKS_SCHEMA),
            points=self.points,
            depth=self.depth,
            valid=self.valid,
            blendshapes=self.blendshapes,
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Landmarks2D:
        """Map what ``save`` or ``writer`` wrote; rows are read from disk when they are looked at.

        Raises:
            ValueError: when the file is not this schema.
        """
        data = mapped_npz(path)
        if "schema" not in data or str(data["schema"]) != LANDMARKS_SCHEMA:
            raise ValueError(f"{path} does not hold landmarks of schema {LANDMARKS_SCHEMA}")
        return cls(data["points"], data["depth"], np.array(data["valid"]), data["blendshapes"])

    @staticmethod
    def writer(path: Path, valid: NDArray[np.bool_]) -> ArrayFileWriter:
        """Writes the table block by block (``append(points=…, depth=…, blendshapes=…)``); ``valid [T]`` is known."""
        count = len(valid)
        members = {
            "points": (np.float32, (count, N_MEDIAPIPE, 2)),
            "depth": (np.float32, (count, N_MEDIAPIPE)),
            "blendshapes": (np.float32, (count, len(MEDIAPIPE_BLENDSHAPES))),
        }
        return ArrayFileWriter(path, members, {"schema": np.array(LANDMARKS_SCHEMA), "valid": valid})


def inter_ocular_px(points: NDArray) -> NDArray:
    """Distance between the outer eye corners, px: points ``[..., 478, 2]`` to ``[...]``."""
    left, right = OUTER_EYE_CORNERS
    return np.linalg.norm(points[..., left, :] - points[..., right, :], axis=-1)


def lip_opening(points: NDArray) -> NDArray:
    """Mean inner-lip gap over the inter-ocular distance: points ``[..., 478, 2]`` to ``[...]``."""
    gaps = [np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1) for a, b in LIP_GAP_PAIRS]
    return np.mean(gaps, axis=0) / inter_ocular_px(points)


def face_height_px(points: NDArray) -> NDArray:
    """Distance from the top of the forehead to the chin, px: points ``[..., 478, 2]`` to ``[...]``."""
    top, chin = FOREHEAD_CHIN
    return np.linalg.norm(points[..., top, :] - points[..., chin, :], axis=-1)


def mouth_bounds(points: NDArray[np.floating]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Low and high corner (x, y) of the whole pixels around the mouth of ``[478, 2]`` px, grown by ``MOUTH_GROWN``."""
    mouth = points[list(MOUTH)]
    low, high = mouth.min(axis=0), mouth.max(axis=0)
    center, half = np.asarray((low + high) / 2, np.float64), (high - low) / 2 * MOUTH_GROWN
    return np.floor(center - half).astype(np.int64), np.ceil(center + half).astype(np.int64)
