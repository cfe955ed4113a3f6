"""What a pass over frames is told and decides by: settings, tables, where face and hands are, what is an object.

Nothing here looks at colours; both ways of doing the maths, on arrays and on a device, share it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.landmark_surprise import SurpriseConfig
from data_gen.utils.process_video.occlusion_evidence import EvidenceConfig
from data_gen.utils.process_video.occlusion_filter import FilterConfig
from data_gen.utils.process_video.picture_parts import connected_parts
from data_gen.utils.process_video.segment_evidence import SegmentConfig
from modules.structures.crops import CropMetadata, transform_points
from modules.structures.expected_face import ExpectedFace
from modules.structures.landmarks import FACE_OVAL, OUTER_LIP, Landmarks2D, face_height_px
from modules.structures.masks import OcclusionTable, filled

FILLED, OFF = 2.0, -4.0
"""Log-odds of a filled hole and of what is no object."""
FAINT = 0.03
"""Less of a mask is none."""
FORGOTTEN = 0.05
"""Trust in the colours of a thing that is long gone."""
STEADY = 0.1
"""Places of a larger spread say nothing about exposure."""
CALM_PX = 3
"""Side of the window over which an object must be sure, working px."""
REACH_PX, FADE_PX = 9, 4.0
"""Side of the square around sure places, and standard deviation of its fading, within which colours are looked for."""
INNER_PX = 5
"""Side of the square that must lie in an object for its middle to be filled, working px."""
MOST_REFINED, STEEPNESS = 6.0, 2.0
"""Refined log-odds are limited to so much, and this much steeper, so that edges are as sharp as the picture's."""
HAND_FAINT = 0.02
"""Less of a soft hand says nothing."""
HOLE_SHARE = 0.1
"""Holes up to this share of an object are its own."""
HAND_RIM = 0.01
"""Standard deviation of where a hand's outline really is, in crop sizes: the picture decides within it."""
SHADOW_REACH = 0.05
"""How far from a hand its shadow may have sharp edges, in crop sizes."""
FACE_MARGIN = 0.05
"""An object must reach this near to the face's outline, in face heights."""
LIPS_MARGIN = 0.02
"""What moves with the lips around them, in face heights."""


@dataclass(frozen=True, slots=True)
class PassConfig:
    """How masks are decided.

    Attributes:
        working_size: side of the pictures that are judged, px.
        prior: log-odds of a pixel being covered before anything is seen.
        sure: log-odds that an object must reach ...
        least_area: ... over at least this many working pixels of the face.
        hand_log_odds: what the middle of a hand's outline says.
        lively_spread: where the expected spread is larger, mouth or eye are moving.
        lively_share: an object needs at least this share of its pixels where they are not.
        island_share: an object smaller than this share of the face must reach over the face's outline.
        hand_share: of an object that hands cover; then it is one, wherever it is.
        guide_radius, guide_softness: of the edge-aware smoothing, working px and 0..1.
        evidence, filter, surprise, segment: of colours, time, strange landmarks and classes of pixels.
    """

    working_size: int = 256
    prior: float = -1.5
    sure: float = 2.0
    least_area: float = 14.0
    hand_log_odds: float = 5.0
    lively_spread: float = 0.05
    lively_share: float = 0.25
    hand_share: float = 0.3
    island_share: float = 0.015
    guide_radius: int = 2
    guide_softness: float = 0.02
    evidence: EvidenceConfig = field(default_factory=EvidenceConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)
    surprise: SurpriseConfig = field(default_factory=SurpriseConfig)
    segment: SegmentConfig = field(default_factory=SegmentConfig)


@dataclass(frozen=True, slots=True, eq=False)
class PassTables:
    """Whole-clip tables: landmarks (frame px), crops, hands' masks (crop space), and the first row of each shot."""

    landmarks: Landmarks2D
    metadata: CropMetadata
    hands: OcclusionTable
    shot_starts: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class FaceParts:
    """Bool ``[S, S]`` of one frame: near the face, outside its outline, and on the lips, by landmarks."""

    near: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    lips: NDArray[np.bool_]

    @property
    def extent(self) -> int:
        """Pixels of the face."""
        return max(int((~self.outside).sum()), 1)


def soft_hand(hands: OcclusionTable, row: int, size: int) -> NDArray[np.float32] | None:
    """Hands' mask at ``[size, size]``, softened by ``HAND_RIM``."""
    hard = hands.mask(row, size)
    if hard is None:
        return None
    return np.asarray(cv2.GaussianBlur(hard.astype(np.float32), (0, 0), size * HAND_RIM), np.float32)


def _filled(objects: NDArray[np.float32], log_odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Objects ``[S, S]`` with the small holes that they enclose: a thing may look like skin in places."""
    where = (objects > 0) & (log_odds > 0)
    labels, areas = connected_parts(~where, connectivity=4)
    small = areas <= HOLE_SHARE * max(int(where.sum()), 1)
    rim = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    small[rim] = False
    small[0] = False
    return np.where(small[labels], np.float32(1), objects)


def _count(labels: NDArray[np.intp], where: NDArray[np.bool_], count: int) -> NDArray[np.intp]:
    """Pixels of each of ``count`` parts that lie in ``where``."""
    return np.bincount(labels[where], minlength=count)


def points_in_crop(tables: PassTables, row: int, size: int) -> NDArray[np.float64]:
    """Landmarks ``[478, 2]`` of frame ``row`` in the pixels of its crop at ``[size, size]``."""
    scale = size / tables.metadata.crop_size
    return transform_points(tables.metadata.crop_from_frame(row), tables.landmarks.points[row]) * scale


def face_parts(tables: PassTables, row: int, size: int) -> FaceParts:
    """Where face and lips are in the crop of frame ``row``; near and outside are everywhere without a face."""
    if not tables.landmarks.valid[row]:
        everywhere = np.ones((size, size), bool)
        return FaceParts(everywhere, everywhere, ~everywhere)
    points = points_in_crop(tables, row, size)
    height = float(face_height_px(points))
    face, lips = (filled(points[list(ring)], (size, size)) for ring in (FACE_OVAL, OUTER_LIP))
    return FaceParts(_dilated(face, FACE_MARGIN * height), ~face, _dilated(lips, LIPS_MARGIN * height))


def _dilated(where: NDArray[np.bool_], reach_px: float) -> NDArray[np.bool_]:
    return grown(where.astype(np.uint8), max(1, round(reach_px))) > 0


def grown(values: NDArray, reach: int) -> NDArray:
    """``cv2.dilate`` of values ``[S, S]`` from 0 on with a disc of radius ``reach`` px, made only where anything is."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    left, top, width, height = cv2.boundingRect((values > 0).astype(np.uint8))
    made = np.zeros_like(values)
    if width:
        near = np.s_[max(top - reach, 0) : top + height + reach, max(left - reach, 0) : left + width + reach]
        made[near] = cv2.dilate(values[near], disc)
    return made


def beside_hand(hand: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """1 just outside the outline of a soft hand ``[S, S]``, where its shadow falls, 0 on it and far away."""
    if hand is None:
        return None
    near = grown(hand, round(hand.shape[0] * SHADOW_REACH))
    return np.asarray(np.clip(near - hand, 0, 1), np.float32)


def inside_frame(metadata: CropMetadata, row: int, size: int) -> NDArray[np.float32]:
    """1 where a crop's pixel lies in the frame, 0 where the crop only repeats the frame's edge."""
    frame_from_crop = metadata.frame_from_crop(row)
    centres = (np.arange(size) + 0.5) * metadata.crop_size / size
    ends = np.array([[x, y] for x in centres[[0, -1]] for y in centres[[0, -1]]])
    if _in_frame(transform_points(frame_from_crop, ends), metadata).all():  # then the rest is, too
        return np.ones((size, size), np.float32)
    x, y = np.meshgrid(centres, centres)
    return _in_frame(transform_points(frame_from_crop, np.stack([x, y], axis=-1)), metadata).astype(np.float32)


def _in_frame(points: NDArray[np.float64], metadata: CropMetadata) -> NDArray[np.bool_]:
    height, width = metadata.frame_size_hw
    return (points[..., 0] > 0) & (points[..., 0] < width) & (points[..., 1] > 0) & (points[..., 1] < height)


def objects_among(
    log_odds: NDArray[np.float32],
    settled: NDArray[np.bool_],
    face: FaceParts,
    hand: NDArray[np.float32] | None,
    config: PassConfig,
) -> NDArray[np.float32]:
    """Where objects are, a little grown, ``[S, S]`` 0..1: parts that are sure somewhere and not mouth alone.

    Things come from outside the face; only a large one may stand before it without reaching its outline.

    Args:
        log_odds: ``[S, S]``, smooth.
        settled: where neither mouth nor eyes move.
        face: of the frame.
        hand: soft mask of its hands.
        config: how masks are decided.
    """
    near = np.ones((3, 3), np.uint8)  # a striped straw is one thing
    labels, area = connected_parts(cv2.dilate((log_odds > 0).astype(np.uint8), near) > 0)
    count = len(area)
    sure = _count(labels, (log_odds > config.sure) & face.near, count)
    calm = _count(labels, settled, count) >= config.lively_share * area
    hands = np.zeros(count, np.intp) if hand is None else _count(labels, hand > 0.5, count)
    comes = (_count(labels, face.outside, count) > 0) | (area > config.island_share * face.extent)
    kept = (((sure >= config.least_area) & calm & comes) | (hands > config.hand_share * area)).astype(np.float32)
    kept[0] = 0
    return np.asarray(cv2.dilate(_filled(kept[labels], log_odds), near), np.float32)


def settled_places(expected: ExpectedFace, config: PassConfig) -> NDArray[np.bool_]:
    """Where neither mouth nor eyes move, ``[S, S]``."""
    return (expected.spread < config.lively_spread) | (expected.known < 0.5)


def exposure_weight(expected: ExpectedFace, hand: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """How far each place ``[S, S]`` says how light it is: steady ones that no hand covers."""
    weight = expected.known * (expected.spread < STEADY)
    return weight if hand is None else weight * (1 - hand)
