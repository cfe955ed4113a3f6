"""The torso as it goes on under the head: GeneFace++'s recipe for the hidden part of neck and collar.

A portrait draws the head over a picture of the torso, so that picture must reach under the chin. Formula: 1.6 (a) to
(d) of GeneFace++'s data preparation. Rows above the picture are left out; GeneFace++ writes them at its bottom.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from modules.structures.portrait_parts import HEAD_CLASSES, TORSO_CLASSES, is_class
from modules.structures.segmentation import SelfieClass

DARKENING = 0.98
"""Each pixel further up is this much darker."""
COLLAR_LENGTH, NECK_LENGTH = 9, 53
"""Pixels written upwards in a column, the one whose colour it is included."""
NECK_GROWTH, NECK_DEPTH = 3, 4
"""The neck's mask grows by so many rows up and down; its colour is taken so many rows below its top."""
BLUR_SIZE, BLUR_SIGMA = 5, 4.0


def inpaint_torso(rgb: NDArray[np.uint8], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The torso, continued upwards under the head.

    Args:
        rgb: ``[H, W, 3]``.
        classes: ``[H, W]`` of ``SelfieClass``; what is in front of the person must be ``OTHERS``, which counts as
            head and is left out.

    Returns:
        RGBA ``[H, W, 4]``, 0 where there is no torso.
    """
    head = is_class(classes, HEAD_CLASSES)
    picture = _kept(rgb, ~head)
    torso = classes == SelfieClass.CLOTHES
    collar, source, columns = _under_head(torso, head, 0, COLLAR_LENGTH)
    _write_upwards(picture, source, columns, COLLAR_LENGTH)
    skin = (classes == SelfieClass.BODY_SKIN).astype(np.uint8)
    neck = np.asarray(cv2.dilate(skin, np.ones((3, 1), np.uint8), iterations=NECK_GROWTH), bool)
    throat, source, columns = _under_head(neck, head, NECK_DEPTH, NECK_LENGTH)
    _write_upwards(picture, source, columns, NECK_LENGTH)
    soft = cv2.GaussianBlur(picture, (BLUR_SIZE, BLUR_SIZE), BLUR_SIGMA)
    picture[throat] = soft[throat]
    shown = neck | torso | throat | collar
    alpha = shown.astype(np.uint8) * np.uint8(255)
    return np.asarray(cv2.merge([*cv2.split(_kept(picture, shown)), alpha]), np.uint8)


def _kept(picture: NDArray[np.uint8], where: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A picture ``[H, W, 3]`` with 0 elsewhere; in OpenCV, as other threads go on meanwhile."""
    return np.asarray(cv2.bitwise_and(picture, picture, mask=where.astype(np.uint8)), np.uint8)


def without_occluder(
    rgb: NDArray[np.uint8], classes: NDArray[np.uint8], in_front: NDArray[np.bool_]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Picture and classes with the torso gone on behind what stands in front of it.

    Where there is torso above it in a column, what is in front hides torso, and shows the nearest that is seen;
    elsewhere it becomes ``OTHERS``.

    Args:
        rgb: ``[H, W, 3]``.
        classes: ``[H, W]`` of ``SelfieClass``, whatever they say of what is in front.
        in_front: bool ``[H, W]``.
    """
    classes = np.where(in_front, SelfieClass.OTHERS, classes).astype(np.uint8)
    torso = is_class(classes, TORSO_CLASSES)
    hidden = in_front & np.logical_or.accumulate(torso, axis=0)
    if not hidden.any():
        return rgb, classes
    nearest = np.asarray(distance_transform_edt(~torso, return_distances=False, return_indices=True))
    row, column = nearest[:, hidden]
    rgb, classes = rgb.copy(), classes.copy()
    rgb[hidden], classes[hidden] = rgb[row, column], classes[row, column]
    return rgb, classes


def _under_head(
    part: NDArray[np.bool_], head: NDArray[np.bool_], depth: int, length: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Where a part is to go on upwards.

    Returns:
        bool ``[H, W]`` of the pixels to be written, and per column written the row whose colour goes up and the column.
    """
    top, count = part.argmax(axis=0), part.sum(axis=0)
    columns = np.flatnonzero((count > 0) & (top > 0))
    columns = columns[head[top[columns] - 1, columns]]
    source = top[columns] + np.minimum(count[columns] - 1, depth)
    seen = ~head[source, columns]  # where a part is less deep than its growth, there is no colour of it
    source, columns = source[seen], columns[seen]
    rows = np.arange(len(part))[:, None]
    written = np.zeros_like(part)
    written[:, columns] = (rows <= source) & (rows > source - length)
    return written, source, columns


def _write_upwards(
    picture: NDArray[np.uint8], source: NDArray[np.int64], columns: NDArray[np.int64], length: int
) -> None:
    """Copy each column's colour at ``source`` upwards, darker and darker, in place."""
    colour = picture[source, columns].astype(np.float64)
    for step in range(length):
        rows = source - step
        inside = rows >= 0
        picture[rows[inside], columns[inside]] = (colour[inside] * DARKENING**step).astype(np.uint8)
