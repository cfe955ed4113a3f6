"""What classes of pixels say: where a face should be seen, hands, clothes and held things are in front of it.

The segmentation names what it sees, whatever the face should look like there; it sees 256 px and no more, so it says
little of thin things, and its borders are rough.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.landmarks import JAW_LINE, face_height_px
from modules.structures.masks import filled
from modules.structures.segmentation import SelfieClass

LEAST_SHARE = 0.02
"""No network is surer than 50 : 1."""
BELOW_GLASSES = (361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 2)
"""The jaw from mouth to mouth and the foot of the nose: below a person's own glasses, which are accessories, too."""


class Segmenter(Protocol):
    """Whatever tells the class of pixels."""

    def segment_classes(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability ``[H, W, 6]`` of each ``SelfieClass``."""
        ...


@dataclass(frozen=True, slots=True)
class SegmentConfig:
    """How far a segmentation is believed.

    Attributes:
        doubt: log-odds that count as none: it must be surer than that (1.1 = 3 : 1).
        weight: of what is left.
        most, least: of what it says for an occluder and against one; where the face looks as it should, that outweighs
            it, and where nobody knows how it should look, it can make an object by itself.
        rim: the border between face and neck is left out so far into the face, in face heights.
    """

    doubt: float = 1.1
    weight: float = 1.5
    most: float = 2.5
    least: float = -0.2
    rim: float = 0.04


def segment_log_odds(
    classes: NDArray[np.float32], points: NDArray[np.floating], config: SegmentConfig
) -> NDArray[np.float32]:
    """Log-odds ``[S, S]`` of an occluder by the classes of its pixels; 0 outside the lower face.

    Skin of the body, clothes and background speak for one, skin of the face and hair against it. Accessories speak for
    one below the nose, where nobody wears any, and nowhere else.

    Args:
        classes: ``[S, S, 6]`` probabilities.
        points: ``[478, 2]``, where the face's landmarks lie in the picture.
        config: how far they are believed.
    """
    size_hw = classes.shape[:2]
    inside = filled(np.asarray(points[list(JAW_LINE)]), (size_hw[0], size_hw[1]))
    below = inside & filled(np.asarray(points[list(BELOW_GLASSES)]), (size_hw[0], size_hw[1]))
    thing = classes[..., SelfieClass.BODY_SKIN] + classes[..., SelfieClass.CLOTHES]
    thing = thing + classes[..., SelfieClass.BACKGROUND] + classes[..., SelfieClass.OTHERS] * below
    face = classes[..., SelfieClass.FACE_SKIN] + classes[..., SelfieClass.HAIR]
    odds = np.log((thing + np.float32(LEAST_SHARE)) / (face + np.float32(LEAST_SHARE)))
    sure = np.sign(odds) * np.maximum(np.abs(odds) - np.float32(config.doubt), 0)
    believed = np.clip(config.weight * sure, config.least, config.most)
    return (believed * _within(inside, config.rim * float(face_height_px(points)))).astype(np.float32)


def _within(area: NDArray[np.bool_], rim_px: float) -> NDArray[np.float32]:
    """0 outside an area ``[S, S]`` and up to ``rim_px`` inside it, 1 from twice that on."""
    padded = cv2.copyMakeBorder(area.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    return np.clip(depth / max(rim_px, 1.0) - 1, 0, 1).astype(np.float32)
