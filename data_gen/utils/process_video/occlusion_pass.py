"""From crops, hands and an expected face to filtered occluder masks: one pass, a few frames behind.

Per frame: match the exposure of the expected face, weigh it against the picture, add what hands, landmarks and classes
say, smooth along edges; then carry evidence along flow from both sides, drop what is no object, and refine at the
crop's own size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_video.device_occlusion import DeviceRun
from data_gen.utils.process_video.exposure_match import matched_exposure
from data_gen.utils.process_video.frame_hints import FrameHints
from data_gen.utils.process_video.occlusion_evidence import (
    OccluderColours,
    Weighing,
    colour_bins,
    colour_log_odds_of,
    photometric_log_odds,
    ycc,
)
from data_gen.utils.process_video.occlusion_filter import Guide, TemporalFilter
from data_gen.utils.process_video.occlusion_parts import (
    CALM_PX,
    FADE_PX,
    FAINT,
    FILLED,
    FORGOTTEN,
    HAND_FAINT,
    INNER_PX,
    MOST_REFINED,
    OFF,
    REACH_PX,
    STEEPNESS,
    FaceParts,
    PassConfig,
    PassTables,
    beside_hand,
    exposure_weight,
    face_parts,
    inside_frame,
    objects_among,
    settled_places,
    soft_hand,
)
from modules.structures.expected_face import ExpectedFace, FaceExpectation
from modules.structures.masks import OcclusionMask

PASS_MARGIN = 12
"""Frames before and after a stretch that its masks depend on: start reading that much earlier and later."""


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What must be kept of a frame until its log-odds come back."""

    crop: NDArray[np.uint8]
    small: NDArray[np.float32]
    settled: NDArray[np.bool_]
    face: FaceParts
    hand: NDArray[np.float32] | None


def occlusion_pass(
    crops: Iterable[tuple[int, NDArray[np.uint8]]],
    tables: PassTables,
    expectation: FaceExpectation | None,
    config: PassConfig | None = None,
    device: torch.device | None = None,
    hints: FrameHints | None = None,
) -> Iterator[tuple[int, OcclusionMask]]:
    """Masks (space "crop") of RGB crops, in order, a bounded number of frames later.

    Rows for which ``expectation`` is None or does not ``knows(row)`` are judged by hands, flow and colour alone.

    Args:
        crops: (row, uint8 ``[S, S, 3]``) of consecutive rows.
        tables: of the whole clip.
        expectation: predicts the clean face.
        config: how masks are decided.
        device: a GPU to do the maths on; None or the CPU = arrays.
        hints: what else is evidence; None = nothing.
    """
    config = config or PassConfig()
    if device is None or device.type == "cpu":
        run = _Run(tables, expectation, config, hints)
    else:
        run = DeviceRun(tables, expectation, config, device, hints=hints)
    for row, crop in crops:
        yield from run.push(row, crop)
    yield from run.finish()


class _Run:
    """State of one pass."""

    def __init__(
        self,
        tables: PassTables,
        expectation: FaceExpectation | None,
        config: PassConfig,
        hints: FrameHints | None = None,
    ) -> None:
        self._tables, self._expectation, self._config = tables, expectation, config
        self._hints = hints or FrameHints()
        self._filter = TemporalFilter(config.filter)
        self._colours = OccluderColours()
        self._seen: dict[int, _Seen] = {}
        self._starts = set(tables.shot_starts.tolist())

    def push(self, row: int, crop: NDArray[np.uint8]) -> Iterator[tuple[int, OcclusionMask]]:
        """Take a frame; yields what is finished."""
        size = self._config.working_size
        small = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)
        if row in self._starts:
            self._colours = OccluderColours()
        evidence, seen = self._judge(row, crop, small)
        self._seen[row] = seen
        for done, log_odds in self._filter.push(row, evidence, small, fresh=row in self._starts):
            yield done, self._mask(done, log_odds)

    def finish(self) -> Iterator[tuple[int, OcclusionMask]]:
        """The frames still held."""
        for done, log_odds in self._filter.finish():
            yield done, self._mask(done, log_odds)

    def _judge(
        self, row: int, crop: NDArray[np.uint8], small: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], _Seen]:
        """Log-odds of one frame, without prior, and what is kept of it."""
        config, size = self._config, self._config.working_size
        hand = soft_hand(self._tables.hands, row, size)
        face = face_parts(self._tables, row, size)
        expected = None if self._expectation is None else self._expectation.at(row, size)
        if expected is None:
            odds, known = np.full((size, size), 0 if hand is not None else -1, np.float32), np.float32(0)
            settled = np.ones((size, size), bool)
        else:
            known = expected.known * inside_frame(self._tables.metadata, row, size)
            matched = _matched(replace(expected, known=known), small, hand)
            settled = settled_places(matched, config) & ~face.lips
            odds = self._with_colours(small, matched, settled & face.near, beside_hand(hand))
        if hand is not None:
            odds = odds + _hand_log_odds(hand, known, config)
        hinted = self._hints.at(row, crop, self._tables, config)
        if hinted is not None:
            odds = odds + hinted
        return odds, _Seen(crop, small, settled, face, hand)

    def _with_colours(
        self,
        small: NDArray[np.float32],
        expected: ExpectedFace,
        settled: NDArray[np.bool_],
        beside: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """Photometric log-odds; sure places teach what occluders look like, and are looked at again with that."""
        weighing = Weighing.of(small, expected, self._config.evidence, beside)
        odds = weighing.log_odds()
        sure = settled & (cv2.blur(odds, (CALM_PX, CALM_PX)) > self._config.sure)
        if sure.sum() < self._config.least_area and self._colours.trust < FORGOTTEN:
            return odds
        bins = weighing.looks[0].bins if weighing.looks else colour_bins(np.moveaxis(ycc(small), -1, 0))
        self._colours = self._colours.updated_by(bins[sure])
        again = weighing.log_odds(self._colours)
        near = cv2.GaussianBlur(cv2.dilate(sure.astype(np.float32), np.ones((REACH_PX, REACH_PX))), (0, 0), FADE_PX)
        # beyond what is known of the face, only the thing's own colours can tell where it goes on
        beyond = (1 - expected.known) * colour_log_odds_of(bins, self._colours)
        return (odds + near * (np.maximum(again, odds) - odds + beyond)).astype(np.float32)

    def _mask(self, row: int, log_odds: NDArray[np.float32]) -> OcclusionMask:
        """Objects among the filtered log-odds of a frame, refined at the crop's size."""
        seen, config = self._seen.pop(row), self._config
        values = _refined(log_odds + config.prior, seen, config)
        return OcclusionMask(values, "crop", np.zeros((0, 21, 2), np.float32))


def things_in_image(
    rgb: NDArray[np.uint8], expected: ExpectedFace, hands: NDArray[np.float32], config: PassConfig | None = None
) -> NDArray[np.float32]:
    """What covers the face in one image by itself, 0..1.

    Args:
        rgb: ``[H, W, 3]`` uint8.
        expected: the same image without occluders, ``[H, W]``.
        hands: ``[H, W]`` 0..1, soft masks of hands.
        config: how masks are decided.
    """
    config = config or PassConfig()
    small = rgb.astype(np.float32) / np.float32(255)
    hand = hands if hands.any() else None
    matched = _matched(expected, small, hand)
    odds = photometric_log_odds(small, matched, config.evidence, near_hand=beside_hand(hand))
    if hand is not None:
        odds = odds + _hand_log_odds(hand, expected.known, config)
    everywhere = np.ones(hands.shape, bool)
    face = FaceParts(everywhere, everywhere, ~everywhere)
    seen = _Seen(rgb, small, settled_places(matched, config), face, hand)
    return _refined(odds + config.prior, seen, config)


def _matched(expected: ExpectedFace, small: NDArray[np.float32], hand: NDArray[np.float32] | None) -> ExpectedFace:
    """The expectation in the exposure of the picture, going by its steady places that no hand covers."""
    weight = exposure_weight(expected, hand)
    return replace(expected, rgb=matched_exposure(expected.rgb, small, expected.spread, weight))


def _hand_log_odds(
    hand: NDArray[np.float32], known: NDArray[np.float32] | np.float32, config: PassConfig
) -> NDArray[np.float32]:
    """What a soft hand says, ``[S, S]``: 0 on its outline; far from it, only where nothing else is known."""
    return np.where(hand > HAND_FAINT, config.hand_log_odds * (2 * hand - 1), known - 1).astype(np.float32)


def _refined(log_odds: NDArray[np.float32], seen: _Seen, config: PassConfig) -> NDArray[np.float32]:
    """Soft mask ``[L, L]`` 0..1 at the crop's size from log-odds ``[S, S]``."""
    guide = Guide.of(seen.small, config.guide_radius, config.guide_softness)
    smooth = guide.refined(log_odds, seen.small)
    objects = objects_among(smooth, seen.settled, seen.face, seen.hand, config)
    if not objects.any():
        return np.zeros(seen.crop.shape[:2], np.float32)
    inside = cv2.erode(objects, np.ones((INNER_PX, INNER_PX))) > 0
    held = np.where(objects > 0, np.maximum(smooth, np.where(inside, FILLED, OFF)), OFF).astype(np.float32)
    values = 1 / (1 + np.exp(-STEEPNESS * np.clip(guide.refined(held, seen.crop), -MOST_REFINED, MOST_REFINED)))
    grown = cv2.resize(objects, seen.crop.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.clip(np.where(values < FAINT, np.float32(0), values) * grown, 0, 1).astype(np.float32)
