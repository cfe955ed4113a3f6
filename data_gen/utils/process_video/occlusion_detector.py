"""Find hands in front of a face and the mask they cover.

Landmarkers do not notice a covered mouth: they invent lips. So hands need their own evidence: palm detector, hand
landmarks, and the outline the picture shows around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

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
from data_gen.utils.mp_feature_extractors.networks import Runtime
from data_gen.utils.process_video.face_geometry import landmark_box
from data_gen.utils.process_video.hand_outline import hand_mask, hand_size
from data_gen.utils.process_video.hand_tracker import HandFrame, HandTracker
from data_gen.utils.process_video.occlusion_pass import things_in_image
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.array_file import forget
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropMetadata, transform_points, warp_affine
from modules.structures.expected_face import ExpectedFace
from modules.structures.frames import Frame
from modules.structures.landmarks import Landmarks2D, face_height_px
from modules.structures.masks import OcclusionMask
from modules.video.colour import rgb_from_planes

WINDOW_SCALE = 4.0
"""Side of the part of a frame looked at, over the face's longer side: room for a whole hand below the chin."""
WORKING_FACE_PX = 150.0
"""Faces of twice this height and more are reduced before hands are looked for; the networks see less anyway."""


@dataclass(frozen=True, slots=True)
class OcclusionConfig:
    """When a hand is believed, and how its mask is drawn.

    Attributes:
        scan_scales: sides of the squares searched for palms, over the face's longer side: a hand that fills the face
            shows at the small ones, a palm half out of the picture at the large ones.
        min_palm: palm score that makes a candidate.
        min_presence: hand presence, after a second look through the hand's own square, that makes a hand. Real hands
            measured 0.96 and more, fingers or a neck taken for a whole hand 0.86 to 0.92.
        min_followed: hand presence that keeps a known hand.
        max_candidates: best candidates looked at per scan.
        size_range: hand size (wrist to middle knuckle) over face height that is plausible; real hands measured 0.46 to
            0.81, false ones (an ear, the shadow beside a nose) at most 0.22.
        grow: the mask is grown by this share of the hand's size, so that no rim of the hand is painted over.
        soften: standard deviation of its soft edge, over the hand's size.
    """

    scan_scales: tuple[float, ...] = (1.3, 3.0, 2.0, 4.0)
    min_palm: float = 0.3
    min_presence: float = 0.93
    min_followed: float = 0.65
    max_candidates: int = 4
    size_range: tuple[float, float] = (0.35, 1.4)
    grow: float = 0.025
    soften: float = 0.012


class OcclusionDetector:
    """Hands in front of faces, in single images or along a stream.

    Args:
        models: folder of MediaPipe's palm and hand networks.
        config: thresholds.
        runtime: what the networks run on; by default torch on CUDA and LiteRT elsewhere.
    """

    def __init__(
        self,
        *,
        models: Path = MEDIAPIPE_DIR,
        config: OcclusionConfig | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.config = config or OcclusionConfig()
        self._hands = HandLandmarker(
            models=models, min_palm=self.config.min_palm, min_presence=self.config.min_followed, runtime=runtime
        )

    def detect_hands(self, rgb: NDArray[np.uint8], region: BoundingBox | None = None) -> NDArray[np.float32]:
        """Landmarks ``[N, 21, 2]`` px of the hands on and around ``region`` (a face box; default the whole image)."""
        found = [hand.points for hand in self.find_hands(rgb, region)]
        return np.stack(found) if found else np.zeros((0, 21, 2), dtype=np.float32)

    def detect_face_occlusions(
        self, rgb: NDArray[np.uint8], face_bbox: BoundingBox, expected: ExpectedFace | None = None
    ) -> OcclusionMask:
        """What covers the face inside ``face_bbox``, as a mask in the pixels of ``rgb``.

        One image by itself; ``occlusion_stream`` and ``occlusion_pass`` see more, because they look along time.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            face_bbox: where the face is.
            expected: what the whole image should look like without occluders, ``[H, W]``; None = hands alone count.

        Raises:
            ValueError: when the expectation has another size than the image.
        """
        hands = self.mask_of_hands(rgb, self.detect_hands(rgb, face_bbox))
        if expected is None:
            return hands
        if expected.known.shape != rgb.shape[:2]:
            raise ValueError(f"image {rgb.shape[:2]} and expected face {expected.known.shape} differ in size")
        things = things_in_image(rgb, expected, hands.values)
        return OcclusionMask(np.maximum(hands.values, things), "frame", hands.hands)

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

    def find_hands(
        self, rgb: NDArray[np.uint8], face: BoundingBox | None = None, *, turn: int | None = None
    ) -> list[HandResult]:
        """Hands with their scores, best palm first.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            face: palms are searched in squares around it; None: in the whole image.
            turn: search at one scale only, another one for each number; None: at all scales.
        """
        scales = (
            self.config.scan_scales if turn is None else (self.config.scan_scales[turn % len(self.config.scan_scales)],)
        )
        areas = [None] if face is None else [_square(face, scale) for scale in scales]
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
    """Occlusion masks along a stream of images that share one space, filtered in time.

    Args:
        images: (frame index, RGB image, face box in its pixels or None without a face) in order.
        detector: finds and follows hands.

    Yields:
        (frame index, mask in the image's pixels), a bounded number of frames later than read.
    """
    tracker = HandTracker(detector)
    for index, rgb, face in images:
        yield from (_masked(detector, done) for done in tracker.step(index, rgb, face))
    yield from (_masked(detector, done) for done in tracker.finish())


def _masked(detector: OcclusionDetector, done: HandFrame) -> tuple[int, OcclusionMask]:
    points = [hand.points for hand in done.hands]
    stacked = np.stack(points) if points else np.zeros((0, 21, 2), dtype=np.float32)
    return done.index, detector.mask_of_hands(done.rgb, stacked, [hand.weight for hand in done.hands])


@dataclass(frozen=True, slots=True, eq=False)
class WindowOcclusion:
    """What covers the face of one frame, kept only for the part of the frame that was looked at.

    Attributes:
        index: the frame.
        values: float32 ``[h, w]`` 0..1, or None when nothing covers the face.
        frame_from_window: ``[3, 3]`` map of the mask's continuous pixels to the frame's.
        hands: ``[N, 21, 2]`` frame px.
    """

    index: int
    values: NDArray[np.float32] | None
    frame_from_window: NDArray[np.float64]
    hands: NDArray[np.float32]

    def over_frame(self, size_hw: tuple[int, int]) -> OcclusionMask:
        """The mask over a whole frame."""
        return self._over(np.eye(3), (size_hw[1], size_hw[0]), "frame")

    def over_crop(self, metadata: CropMetadata) -> OcclusionMask:
        """The mask in the pixels of the frame's crop."""
        size = (metadata.crop_size, metadata.crop_size)
        return self._over(metadata.crop_from_frame(self.index), size, "crop")

    def _over(
        self, dst_from_frame: NDArray[np.float64], size_wh: tuple[int, int], space: Literal["frame", "crop"]
    ) -> OcclusionMask:
        hands = transform_points(dst_from_frame, self.hands).astype(np.float32)
        if self.values is None:
            return OcclusionMask(np.zeros(size_wh[::-1], dtype=np.float32), space, hands)
        placed = warp_affine(
            self.values, dst_from_frame @ self.frame_from_window, size_wh, border_mode=cv2.BORDER_CONSTANT
        )
        return OcclusionMask(np.clip(placed, 0.0, 1.0).astype(np.float32), space, hands)


def frame_occlusions(
    frames: Iterable[Frame], landmarks: Landmarks2D, detector: OcclusionDetector
) -> Iterator[WindowOcclusion]:
    """What covers the tracked face in every frame of a video, filtered in time.

    Only the surroundings of the face are looked at, wide enough to show whole hands (a crop for the renderer is not:
    there, finger tips alone are not recognised), and reduced so that the face is about ``WORKING_FACE_PX`` high.

    Args:
        frames: upright frames in presentation order; indices are rows of ``landmarks``.
        landmarks: where the face is; frames without one are never occluded.
        detector: finds and follows hands.

    Yields:
        One result per frame in order, a bounded number of frames later than read.
    """
    tracker = HandTracker(detector)
    windows: dict[int, NDArray[np.float64]] = {}
    reduction = _reduction(landmarks)
    for frame in frames:
        rgb, face, frame_from_window = _window_of(frame, landmarks, reduction)
        windows[frame.index] = frame_from_window
        scale = frame_from_window[0, 0]
        origin = (frame_from_window[0, 2] / scale, frame_from_window[1, 2] / scale)
        for done in tracker.step(frame.index, rgb, face, origin):
            yield _placed(detector, done, windows.pop(done.index))
    for done in tracker.finish():
        yield _placed(detector, done, windows.pop(done.index))


def _reduction(landmarks: Landmarks2D) -> int:
    """One reduction for the whole clip, so that hands keep their size from frame to frame."""
    if not landmarks.valid.any():
        return 1
    median = np.nanmedian(face_height_px(landmarks.points))
    forget(landmarks.points)
    return max(1, int(median / WORKING_FACE_PX))


def _window_of(
    frame: Frame, landmarks: Landmarks2D, reduction: int
) -> tuple[NDArray[np.uint8], BoundingBox | None, NDArray[np.float64]]:
    """RGB around the face, the face box in it, and frame_from_window; a single pixel when there is no face."""
    height, width = frame.size_hw
    nothing = np.zeros((1, 1, 3), dtype=np.uint8), None, np.eye(3)
    if frame.index >= len(landmarks) or not landmarks.valid[frame.index]:
        return nothing
    face = landmark_box(landmarks.points[frame.index])
    bounds = _square(face, WINDOW_SCALE).pixel_bounds(width, height)
    if bounds is None:
        return nothing
    rgb, (x0, y0) = reduced_rgb(frame, bounds, reduction)
    matrix = np.array([[reduction, 0, x0], [0, reduction, y0], [0, 0, 1.0]])
    inside = BoundingBox(*((face.as_array() - (x0, y0, x0, y0)) / reduction))
    return rgb, inside, matrix


def reduced_rgb(
    frame: Frame, bounds: tuple[int, int, int, int], reduction: int
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """RGB of a part of a frame at 1/``reduction``, and the frame pixel its corner lies at (at or before the bounds').

    The planes are reduced before they become RGB, which costs a fraction of the exact conversion of a large part.
    Chroma moves by less than a reduced pixel, which no detector minds.
    """
    if reduction == 1:
        return rgb_from_planes(frame, bounds), bounds[:2]
    shift_x, shift_y = frame.layout.chroma_shift
    block_x, block_y = reduction << shift_x, reduction << shift_y
    x0, y0 = bounds[0] // block_x * block_x, bounds[1] // block_y * block_y
    blocks_x, blocks_y = -(-(bounds[2] - x0) // block_x), -(-(bounds[3] - y0) // block_y)
    planes = []
    for plane, (sx, sy) in zip(
        frame.planes, ((0, 0), frame.layout.chroma_shift, frame.layout.chroma_shift), strict=True
    ):
        width, height = blocks_x << (shift_x - sx), blocks_y << (shift_y - sy)
        part = plane[y0 >> sy : (y0 >> sy) + height * reduction, x0 >> sx : (x0 >> sx) + width * reduction]
        missing = height * reduction - part.shape[0], width * reduction - part.shape[1]
        padded = cv2.copyMakeBorder(part, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
        planes.append(cv2.resize(padded, (width, height), interpolation=cv2.INTER_AREA))
    return rgb_from_planes(replace(frame, planes=tuple(planes))), (x0, y0)


def _placed(detector: OcclusionDetector, done: HandFrame, frame_from_window: NDArray[np.float64]) -> WindowOcclusion:
    if not done.hands:
        return WindowOcclusion(done.index, None, frame_from_window, np.zeros((0, 21, 2), dtype=np.float32))
    _, mask = _masked(detector, done)
    hands = transform_points(frame_from_window, mask.hands).astype(np.float32)
    return WindowOcclusion(done.index, mask.values, frame_from_window, hands)
