"""From 21 hand landmarks to the hand's real outline: rays from the skeleton stop at the edge the picture shows.

Hand and face are the same skin, so colour cannot tell them apart; the shading edge around a finger can. Each finger
gets a sequence of rays (up one side, around the tip, down the other); along every ray the strongest colour step near
the expected thickness wins, and neighbouring rays must agree (dynamic programming), which bridges places without edge.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.landmarks import HAND_FINGERS, HAND_PALM

WORK_SIZE = 160.0
"""Outlines are traced at this hand size, px: finer does not help, coarser loses thin fingers."""
JOINT_RADII = (0.10, 0.095, 0.085, 0.078, 0.075)
"""Expected half-thickness at wrist or metacarpal, knuckle, two joints and tip, in hand sizes."""
THUMB_RADII = (0.12, 0.115, 0.10, 0.09, 0.085)
WRIST_RADII = (0.30, 0.27, 0.25)
WRIST_LENGTH = 0.5
"""How far past the wrist the arm is masked, in palm lengths: it lies before the chin when a hand covers the mouth."""
WEB = (0, 1, 2, 5)
"""The skin between thumb and index finger."""
RADIUS_STEPS = np.linspace(0.5, 1.75, 22)
"""Radii tried along a ray, over the expected one."""
PRIOR_WIDTH = 0.3
"""How far (standard deviation) an outline may lie from the expected thickness before its edge counts less."""
WEAK_EDGE = 6.0
"""Colour step (levels per radius step) that counts as much as the prior alone."""
SMOOTHNESS = 0.6
"""Cost of one radius step between neighbouring rays."""
SAMPLES_PER_BONE = 5
TIP_RAYS = 7


def hand_size(points: NDArray) -> float:
    """Wrist → middle knuckle length in px, or what its width and fingers say when it is foreshortened."""
    palm = np.linalg.norm(points[9] - points[0])
    width = np.linalg.norm(points[17] - points[5])
    middle = np.linalg.norm(np.diff(points[list(HAND_FINGERS[2])], axis=0), axis=1).sum()
    return float(max(palm, 1.3 * width, 1.1 * middle, 1e-3))


def hand_mask(rgb: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Mask ``[H, W]`` (255 = hand) of the hand with landmarks ``[21, 2]`` px in an RGB image."""
    size = hand_size(points)
    height, width = rgb.shape[:2]
    margin = 0.35 * size
    x0, y0 = np.floor(np.clip(points.min(axis=0) - margin, 0, (width, height))).astype(int)
    x1, y1 = np.ceil(np.clip(points.max(axis=0) + margin, 0, (width, height))).astype(int)
    mask = np.zeros((height, width), dtype=np.uint8)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return mask
    window = rgb[y0:y1, x0:x1]
    scale = min(1.0, WORK_SIZE / size)
    work_wh = (max(2, round((x1 - x0) * scale)), max(2, round((y1 - y0) * scale)))
    image = cv2.resize(window, work_wh, interpolation=cv2.INTER_AREA) if scale < 1 else window
    factor = np.array([work_wh[0] / (x1 - x0), work_wh[1] / (y1 - y0)])
    traced = _trace(np.asarray(image, dtype=np.uint8), (points - (x0, y0)) * factor)
    mask[y0:y1, x0:x1] = cv2.resize(traced, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    return mask


def _trace(image: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
    size = hand_size(points)
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
    mask = np.zeros(image.shape[:2], dtype=np.uint8)
    polygons = [points[list(HAND_PALM)], points[list(WEB)]]
    chains: list[tuple[NDArray, tuple[float, ...]]] = [(_wrist_chain(points), WRIST_RADII)]
    for finger in HAND_FINGERS:
        expected = THUMB_RADII if finger is HAND_FINGERS[0] else JOINT_RADII
        chains.append((points[[0, *finger]], expected))
    for joints, expected in chains:
        origins, directions, radii = finger_rays(joints, np.array(expected) * size)
        polygons.append(origins + directions * trace_rays(smooth, origins, directions, radii)[:, None])
    for polygon in polygons:
        # drawn with pixel centres on integers, 4 fractional bits
        cv2.fillPoly(mask, [np.round((polygon - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _wrist_chain(points: NDArray) -> NDArray:
    """From the middle of the palm over the wrist a little up the arm: ``[3, 2]``."""
    wrist, knuckles = points[0], points[[5, 9, 13, 17]].mean(axis=0)
    return np.stack([(wrist + knuckles) / 2, wrist, wrist + WRIST_LENGTH * (wrist - knuckles)])


def finger_rays(joints: NDArray, radii: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Rays around a chain of joints ``[J, 2]``: origins ``[R, 2]``, unit directions ``[R, 2]``, expected radii ``[R]``.

    They run up the left side, fan around the last joint and come down the right side.
    """
    steps = np.linspace(0, len(joints) - 1, (len(joints) - 1) * SAMPLES_PER_BONE + 1)
    knots = np.arange(len(joints))
    along = np.stack([np.interp(steps, knots, joints[:, axis]) for axis in range(2)], axis=1)
    radius = np.interp(steps, knots, radii)
    tangent = _unit(np.gradient(along, axis=0))
    left = np.stack([tangent[:, 1], -tangent[:, 0]], axis=1)
    angles = np.linspace(0, np.pi, TIP_RAYS + 2)[1:-1, None]
    fan = np.cos(angles) * left[-1] + np.sin(angles) * tangent[-1]
    origins = np.concatenate([along, np.repeat(along[-1:], TIP_RAYS, axis=0), along[::-1]])
    directions = np.concatenate([left, fan, -left[::-1]])
    return origins, directions, np.concatenate([radius, np.full(TIP_RAYS, radius[-1]), radius[::-1]])


def _unit(vectors: NDArray) -> NDArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6)


def trace_rays(image: NDArray[np.float32], origins: NDArray, directions: NDArray, radii: NDArray) -> NDArray:
    """Radius ``[R]`` at which each ray leaves the hand, px."""
    tried = radii[:, None] * RADIUS_STEPS
    places = origins[:, None] + directions[:, None] * tried[..., None]
    colour = cv2.remap(
        image,
        (places[..., 0] - 0.5).astype(np.float32),
        (places[..., 1] - 0.5).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    edge = np.linalg.norm(np.gradient(np.asarray(colour), axis=1), axis=-1)
    prior = -0.5 * ((RADIUS_STEPS - 1.0) / PRIOR_WIDTH) ** 2
    best = best_path(np.log1p(edge / WEAK_EDGE) * 2 + prior, SMOOTHNESS)
    return np.take_along_axis(tried, best[:, None], axis=1)[:, 0]


def best_path(gain: NDArray, step_cost: float) -> NDArray[np.intp]:
    """Column per row of ``gain`` ``[R, K]`` that maximises the sum of gains less ``step_cost`` × |column change|."""
    rows, columns = gain.shape
    change = step_cost * np.abs(np.arange(columns)[:, None] - np.arange(columns)[None])
    total, came_from = gain[0], np.zeros((rows, columns), dtype=np.intp)
    for row in range(1, rows):
        options = total[None] - change
        came_from[row] = options.argmax(axis=1)
        total = gain[row] + options.max(axis=1)
    path = np.empty(rows, dtype=np.intp)
    path[-1] = int(total.argmax())
    for row in range(rows - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return path
