"""2-D landmarks over time, and every landmark index table of the project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
LM131 = BROWS + EYES + INNER_LIP + OUTER_LIP + FACE_OVAL + (64, 4, 294)
# fmt: on

OUTER_EYE_CORNERS = (33, 263)
LIP_GAP_PAIRS = ((13, 14), (82, 87), (312, 317))
"""Upper and lower inner-lip points whose mean distance is the lip opening."""
LIP_CORNERS = (61, 291)


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
            temporary, schema=np.array(LANDMARKS_SCHEMA), points=self.points, depth=self.depth, valid=self.valid,
            blendshapes=self.blendshapes,
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> Landmarks2D:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            if "schema" not in data or str(data["schema"]) != LANDMARKS_SCHEMA:
                raise ValueError(f"{path} does not hold landmarks of schema {LANDMARKS_SCHEMA}")
            return cls(data["points"], data["depth"], data["valid"], data["blendshapes"])


def inter_ocular_px(points: NDArray) -> NDArray:
    """Distance between the outer eye corners, px: points ``[..., 478, 2]`` to ``[...]``."""
    left, right = OUTER_EYE_CORNERS
    return np.linalg.norm(points[..., left, :] - points[..., right, :], axis=-1)


def lip_opening(points: NDArray) -> NDArray:
    """Mean inner-lip gap over the inter-ocular distance: points ``[..., 478, 2]`` to ``[...]``."""
    gaps = [np.linalg.norm(points[..., a, :] - points[..., b, :], axis=-1) for a, b in LIP_GAP_PAIRS]
    return np.mean(gaps, axis=0) / inter_ocular_px(points)
