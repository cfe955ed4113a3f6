"""What a pixel of a picture of a person shows, by class."""

from __future__ import annotations

from enum import IntEnum


class SelfieClass(IntEnum):
    """Classes of MediaPipe's multiclass selfie segmentation, in the order of its output's channels."""

    BACKGROUND = 0
    HAIR = 1
    BODY_SKIN = 2
    """Hands, arms, neck and shoulders."""
    FACE_SKIN = 3
    CLOTHES = 4
    OTHERS = 5
    """Accessories: glasses, hats, what is held."""
