"""Hands through MediaPipe's palm detector and hand landmark network, on LiteRT or in torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import (
    SHORT_RANGE_STRIDES,
    anchor_centers,
    decode,
    letterbox_region,
    weighted_nms,
)
from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network, pick_runtime
from data_gen.utils.mp_feature_extractors.regions import angle_between, region_of_points
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion, sample_region, transform_points

WRIST, MIDDLE_KNUCKLE = 0, 2
"""Palm key points that give the hand's direction."""
HAND_TOWARDS = (5, 9, 13)
"""Knuckles of index, middle and ring finger: the landmarks' direction, middle weighing double."""
STEADY_POINTS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
"""Landmarks the next frame's region is read off: all but the restless finger ends."""


@dataclass(frozen=True, slots=True, eq=False)
class PalmDetection:
    """A palm: its box, seven key points ``[7, 2]`` px (wrist first) and score 0..1."""

    box: BoundingBox
    keypoints: NDArray[np.float32]
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class HandResult:
    """One hand: 21 points ``[21, 2]`` px, presence score 0..1 and the square it was seen through."""

    points: NDArray[np.float32]
    score: float
    region: CropRegion


def region_of_palm(palm: PalmDetection) -> CropRegion:
    """Square that holds the whole hand of a palm, fingers up."""
    angle = angle_between(palm.keypoints[WRIST], palm.keypoints[MIDDLE_KNUCKLE], math.pi / 2)
    x, y = palm.box.center
    reach = 0.5 * palm.box.height
    side = 2.6 * max(palm.box.width, palm.box.height)
    return CropRegion(x + reach * math.sin(angle), y - reach * math.cos(angle), side, angle)


def region_of_hand(points: NDArray) -> CropRegion:
    """Square for the next look at a hand whose landmarks ``[21, 2]`` px are known, fingers up."""
    index, middle, ring = (points[i] for i in HAND_TOWARDS)
    towards = ((index + ring) / 2 + middle) / 2
    angle = angle_between(points[0], towards, math.pi / 2)
    return region_of_points(points[list(STEADY_POINTS)], angle, 2.0, shift_y=-0.1)


class HandLandmarker:
    """Finds palms, then 21 landmarks of each hand.

    Args:
        min_palm: palms below this score are dropped.
        min_presence: hands below this score are dropped.
        max_hands: the best-scored palms looked at.
        runtime: what the networks run on; by default torch on CUDA and LiteRT elsewhere.
    """

    def __init__(
        self,
        *,
        models: Path = MEDIAPIPE_DIR,
        min_palm: float = 0.5,
        min_presence: float = 0.5,
        max_hands: int = 2,
        runtime: Runtime | None = None,
    ) -> None:
        runtime = runtime or pick_runtime()
        self._palms = load_network(runtime, models / "palm_detection_full.tflite")
        self._hand = load_network(runtime, models / "hand_landmark_full.tflite")
        self._palm_size, self._hand_size = self._palms.input_shape[1], self._hand.input_shape[1]
        self._anchors = anchor_centers(self._palm_size, SHORT_RANGE_STRIDES)
        self._min_palm, self._min_presence, self._max_hands = min_palm, min_presence, max_hands

    def detect_palms(self, rgb: NDArray[np.uint8], area: BoundingBox | None = None) -> list[PalmDetection]:
        """Palms inside ``area`` of an RGB image, best first.

        Beyond the picture its edge is repeated, where MediaPipe pads with black: a palm that the picture's edge cuts
        off is then found in 85 instead of 40 of 100 frames (demo clip, area three times the face).
        """
        square = letterbox_region(rgb, area)
        image = sample_region(rgb, square, self._palm_size)
        outputs = self._palms.run_images(image[None])
        raw = decode(
            outputs["Identity"][0], outputs["Identity_1"][0, :, 0], self._anchors, self._palm_size, self._min_palm
        )
        found = weighted_nms(raw, min_iou=0.3)
        image_from_unit = square.frame_from_crop(1)
        palms = []
        for box, keypoints, score in zip(found.boxes, found.keypoints, found.scores, strict=True):
            (x0, y0), (x1, y1) = transform_points(image_from_unit, box.reshape(2, 2))
            points = transform_points(image_from_unit, keypoints).astype(np.float32)
            palms.append(PalmDetection(BoundingBox(float(x0), float(y0), float(x1), float(y1)), points, float(score)))
        return palms

    def landmarks(self, rgb: NDArray[np.uint8], region: CropRegion) -> HandResult | None:
        """The hand inside ``region``, or None when the network sees none there."""
        image = sample_region(rgb, region, self._hand_size)
        outputs = self._hand.run_images(image[None])
        presence = float(outputs["Identity_1"].ravel()[0])
        if presence < self._min_presence:
            return None
        points = outputs["Identity"].reshape(21, 3)[:, :2].astype(np.float64)
        rgb_from_crop = region.frame_from_crop(self._hand_size)
        return HandResult(transform_points(rgb_from_crop, points).astype(np.float32), presence, region)

    def detect(self, rgb: NDArray[np.uint8], area: BoundingBox | None = None) -> list[HandResult]:
        """Hands inside ``area`` of an RGB image, each once."""
        hands: list[HandResult] = []
        for palm in self.detect_palms(rgb, area)[: self._max_hands]:
            hand = self.landmarks(rgb, region_of_palm(palm))
            if hand is not None and not any(same_hand(hand.points, other.points) for other in hands):
                hands.append(hand)
        return hands


def same_hand(first: NDArray, second: NDArray) -> bool:
    """Whether two landmark sets ``[21, 2]`` lie on one hand: mean distance below a quarter of the hand's size."""
    size = max(float(np.ptp(first, axis=0).max()), float(np.ptp(second, axis=0).max()))
    return float(np.linalg.norm(first - second, axis=1).mean()) < 0.25 * size
