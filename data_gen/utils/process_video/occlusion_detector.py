"""Find hands in front of a face and the mask they cover.

Landmarkers do not notice a covered mouth: they invent lips. So hands need their own evidence: palm detector, hand
landmarks, and the outline the picture shows around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.hand_landmarker import (
    HandLandmarker,
    HandResult,
    region_of_hand,
    region_of_palm,
    same_hand,
)
from data_gen.utils.process_video.hand_outline import hand_mask, hand_size
from data_gen.utils.process_video.hand_tracker import HandTracker, SeenHand
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox
from modules.structures.masks import OcclusionMask


@dataclass(frozen=True, slots=True)
class OcclusionConfig:
    """When a hand is believed, and how its mask is drawn.

    Attributes:
        scan_scales: sides of the squares searched for palms, over the face's longer side. A palm half out of the
            picture shows at the large one, a hand that fills the face at the small one.
        min_palm: palm score that makes a candidate.
        min_presence: hand presence, after a second look through the hand's own square, that makes a hand.
        max_candidates: best candidates looked at per scan.
        size_range: hand size (wrist to middle knuckle) over face height that is plausible.
        grow: the mask is grown by this share of the hand's size, so that no rim of the hand is painted over.
        soften: standard deviation of its soft edge, over the hand's size.
    """

    scan_scales: tuple[float, ...] = (1.3, 3.0)
    min_palm: float = 0.3
    min_presence: float = 0.85
    max_candidates: int = 4
    size_range: tuple[float, float] = (0.15, 1.3)
    grow: float = 0.02
    soften: float = 0.012


class OcclusionDetector:
    """Hands in front of faces, in single images or along a stream.

    Args:
        models: folder of MediaPipe's palm and hand networks.
        config: thresholds.
    """

    def __init__(self, *, models: Path = MEDIAPIPE_DIR, config: OcclusionConfig | None = None) -> None:
        self.config = config or OcclusionConfig()
        self._hands = HandLandmarker(models=models, min_palm=self.config.min_palm, min_presence=0.5)

    def detect_hands(self, rgb: NDArray[np.uint8], region: BoundingBox | None = None) -> NDArray[np.float32]:
        """Landmarks ``[N, 21, 2]`` px of the hands on and around ``region`` (a face box; default the whole image)."""
        found = [hand.points for hand in self.find_hands(rgb, region)]
        return np.stack(found) if found else np.zeros((0, 21, 2), dtype=np.float32)

    def detect_face_occlusions(self, rgb: NDArray[np.uint8], face_bbox: BoundingBox) -> OcclusionMask:
        """What covers the face inside ``face_bbox``, as a mask in the pixels of ``rgb``.

        One image by itself; ``occlusion_stream`` sees more, because it follows hands through time.
        """
        return self.mask_of_hands(rgb, self.detect_hands(rgb, face_bbox))

    def generate_occlusion_aware_mask(
        self, face_mask: NDArray[np.float32], occlusion: OcclusionMask
    ) -> NDArray[np.float32]:
        """The part of ``face_mask`` ``[H, W]`` (0..1) that nothing covers.

        Raises:
            ValueError: when the two masks differ in size.
        """
        if face_mask.shape != occlusion.values.shape:
            raise ValueError(f"face mask {face_mask.shape} and occlusion {occlusion.values.shape} differ in size")
        return (face_mask * (1.0 - occlusion.values)).astype(np.float32)

    def find_hands(self, rgb: NDArray[np.uint8], face: BoundingBox | None = None) -> list[HandResult]:
        """Hands with their scores, best palm first; palms are searched in squares around the face."""
        height, width = rgb.shape[:2]
        whole = BoundingBox(0, 0, width, height)
        areas = [whole] if face is None else [_square(face, scale) for scale in self.config.scan_scales]
        palms = [palm for area in areas for palm in self._hands.detect_palms(rgb, area)]
        palms.sort(key=lambda palm: -palm.score)
        hands: list[HandResult] = []
        for palm in palms[: self.config.max_candidates]:
            first = self._hands.landmarks(rgb, region_of_palm(palm))
            if first is None or any(same_hand(first.points, hand.points) for hand in hands):
                continue
            hand = self.follow_hand(rgb, first.points, face)
            if hand is not None and hand.score >= self.config.min_presence and _is_new(hand, hands):
                hands.append(hand)
        return hands

    def follow_hand(
        self, rgb: NDArray[np.uint8], points: NDArray[np.float32], face: BoundingBox | None
    ) -> HandResult | None:
        """The hand that was at ``points`` ``[21, 2]`` a moment ago, or None when it is gone."""
        if not self._is_plausible(points, face, rgb.shape[:2]):
            return None
        hand = self._hands.landmarks(rgb, region_of_hand(points))
        return hand if hand is not None and self._is_plausible(hand.points, face, rgb.shape[:2]) else None

    def mask_of_hands(
        self, rgb: NDArray[np.uint8], hands: NDArray[np.float32], weights: Sequence[float] | None = None
    ) -> OcclusionMask:
        """Soft mask of hands ``[N, 21, 2]`` px in an image; ``weights`` 0..1 fade single hands."""
        values = np.zeros(rgb.shape[:2], dtype=np.float32)
        for index, points in enumerate(hands):
            soft = self._soft_hand(rgb, points)
            np.maximum(values, soft * (1.0 if weights is None else weights[index]), out=values)
        return OcclusionMask(values, "frame", hands)

    def _soft_hand(self, rgb: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.float32]:
        hard = hand_mask(rgb, points)
        size = hand_size(points)
        reach = max(1, round(self.config.grow * size))
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
        grown = cv2.dilate(hard, disc)
        return cv2.GaussianBlur(grown, (0, 0), max(0.7, self.config.soften * size)).astype(np.float32) / 255.0

    def _is_plausible(self, points: NDArray, face: BoundingBox | None, size_hw: tuple[int, ...]) -> bool:
        low, high = points.min(axis=0), points.max(axis=0)
        inside = high[0] > 0 and high[1] > 0 and low[0] < size_hw[1] and low[1] < size_hw[0]
        if not inside or face is None:
            return bool(inside)
        smallest, largest = self.config.size_range
        return smallest * face.height < hand_size(points) < largest * face.height


def _is_new(hand: HandResult, hands: list[HandResult]) -> bool:
    return not any(same_hand(hand.points, other.points) for other in hands)


def _square(face: BoundingBox, scale: float) -> BoundingBox:
    half = max(face.width, face.height) * scale / 2
    cx, cy = face.center
    return BoundingBox(cx - half, cy - half, cx + half, cy + half)


def occlusion_stream(
    images: Iterable[tuple[int, NDArray[np.uint8], BoundingBox | None]], detector: OcclusionDetector
) -> Iterator[tuple[int, OcclusionMask]]:
    """Occlusion masks along a stream, filtered in time.

    Args:
        images: (frame index, RGB image, face box in its pixels or None without a face) in order. All images of a
            clip share one space, a slowly moving crop for instance; a jump (a cut) just starts new hands.
        detector: finds and follows hands.

    Yields:
        (frame index, mask in the image's pixels), a bounded number of frames later than read.
    """
    tracker = HandTracker(detector)
    for index, rgb, face in images:
        for done in tracker.step(index, rgb, face):
            yield done.index, _mask(detector, done.rgb, done.hands)
    for done in tracker.finish():
        yield done.index, _mask(detector, done.rgb, done.hands)


def _mask(detector: OcclusionDetector, rgb: NDArray[np.uint8], hands: list[SeenHand]) -> OcclusionMask:
    points = np.stack([hand.points for hand in hands]) if hands else np.zeros((0, 21, 2), dtype=np.float32)
    return detector.mask_of_hands(rgb, points, [hand.weight for hand in hands])
