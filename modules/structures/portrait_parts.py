"""Which classes of a segmentation make the parts of a portrait, and GeneFace++'s colours for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modules.structures.segmentation import SelfieClass

HEAD_CLASSES = (SelfieClass.HAIR, SelfieClass.FACE_SKIN, SelfieClass.OTHERS)
TORSO_CLASSES = (SelfieClass.BODY_SKIN, SelfieClass.CLOTHES)
CLASS_RGB: NDArray[np.uint8] = np.array(
    [(255, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (255, 0, 0), (0, 255, 0)], np.uint8
)
"""``[6, 3]`` GeneFace++'s colour of each ``SelfieClass`` in segment maps."""


def is_class(classes: NDArray[np.uint8], wanted: tuple[SelfieClass, ...]) -> NDArray[np.bool_]:
    """Which pixels ``[H, W]`` are of one of the wanted classes."""
    table = np.zeros(len(SelfieClass), bool)
    table[list(wanted)] = True
    return table[classes]


def segment_map(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Classes ``[H, W]`` as a picture RGB ``[H, W, 3]`` in GeneFace++'s colours."""
    return CLASS_RGB[classes]


def classes_of_map(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Inverse of ``segment_map``.

    Raises:
        ValueError: a colour is of no class.
    """
    code = (rgb > 127) @ _CODE_BITS
    classes = _CLASS_OF_CODE[code]
    if (classes == _NO_CLASS).any() or ((rgb != 0) & (rgb != 255)).any():
        raise ValueError("the picture holds colours that no class has")
    return classes


_NO_CLASS = 255
_CODE_BITS = np.array([4, 2, 1])
_CLASS_OF_CODE = np.full(8, _NO_CLASS, np.uint8)
_CLASS_OF_CODE[(CLASS_RGB > 127) @ _CODE_BITS] = np.arange(len(CLASS_RGB))
