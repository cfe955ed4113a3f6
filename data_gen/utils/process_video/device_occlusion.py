"""``occlusion_pass`` with its maths on a GPU: the same steps and numbers, masks equal but for rounding.

What is not worth a GPU stays on the CPU: outlines of face and hands, the sixty-four pixels square that exposure is
matched in, optical flow, and which connected parts are objects. The device is waited for twice a frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.process_video.device_evidence import DeviceColours, DeviceExpected, DeviceWeighing
from data_gen.utils.process_video.device_filter import DeviceGuide, DeviceTemporalFilter
from data_gen.utils.process_video.device_pictures import Filters, largest, smallest
from data_gen.utils.process_video.exposure_match import LEAST_GAIN, MOST_GAIN, exposure_gains
from data_gen.utils.process_video.occlusion_filter import grey_of
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


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What must be kept of a frame until its log-odds come back; ``on_device`` is the crop there."""

    crop: NDArray[np.uint8]
    on_device: Tensor
    small: Tensor
    settled: NDArray[np.bool_]
    face: FaceParts
    hand: NDArray[np.float32] | None


class DeviceRun:
    """State of one pass on ``device``; see ``occlusion_pass``."""

    def __init__(
        self, tables: PassTables, expectation: FaceExpectation | None, config: PassConfig, device: torch.device
    ) -> None:
        self._tables, self._expectation, self._config, self._device = tables, expectation, config, device
        self._filters = Filters(device)
        self._filter = DeviceTemporalFilter(config.filter, self._filters)
        self._colours = DeviceColours.nothing(device)
        self._seen: dict[int, _Seen] = {}
        self._starts = set(tables.shot_starts.tolist())

    @torch.no_grad()
    def push(self, row: int, crop: NDArray[np.uint8]) -> list[tuple[int, OcclusionMask]]:
        """Take a frame; returns what is finished."""
        size, fresh = self._config.working_size, row in self._starts
        reduced = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
        small = reduced.astype(np.float32) / np.float32(255)
        if fresh:
            self._colours = DeviceColours.nothing(self._device)
        evidence, seen = self._judge(row, crop, small)
        self._seen[row] = seen
        done = self._filter.push(row, evidence, seen.small, grey_of(small), fresh=fresh)
        return [(index, self._mask(index, log_odds)) for index, log_odds in done]

    @torch.no_grad()
    def finish(self) -> list[tuple[int, OcclusionMask]]:
        """The frames still held."""
        return [(done, self._mask(done, log_odds)) for done, log_odds in self._filter.finish()]

    def _judge(self, row: int, crop: NDArray[np.uint8], small: NDArray[np.float32]) -> tuple[Tensor, _Seen]:
        """Log-odds of one frame, without prior, and what is kept of it."""
        config, size = self._config, self._config.working_size
        hand, face = soft_hand(self._tables.hands, row, size), face_parts(self._tables, row, size)
        picture = self._planes(small)
        expected = None if self._expectation is None else self._expectation.at(row, size)
        if expected is None:
            settled, known = np.ones((size, size), bool), None
            odds = torch.full((size, size), 0.0 if hand is not None else -1.0, device=self._device)
        else:
            expected = replace(expected, known=expected.known * inside_frame(self._tables.metadata, row, size))
            settled = settled_places(expected, config) & ~face.lips
            matched = self._matched(expected, small, hand)
            odds, known = self._with_colours(picture, matched, settled & face.near, beside_hand(hand)), matched.known
        if hand is not None:
            odds = odds + self._hand_log_odds(self._put(hand), known)
        return odds, _Seen(crop, self._put(crop), picture, settled, face, hand)

    def _matched(
        self, expected: ExpectedFace, small: NDArray[np.float32], hand: NDArray[np.float32] | None
    ) -> DeviceExpected:
        """The expectation in the exposure of the picture."""
        rgb = self._planes(expected.rgb)
        gains = exposure_gains(expected.rgb, small, expected.spread, exposure_weight(expected, hand))
        if gains is not None:
            field = self._filters.enlarged(self._planes(gains), rgb.shape[-1])
            rgb = rgb * field.clamp(LEAST_GAIN, MOST_GAIN)
        return DeviceExpected(rgb, self._put(expected.spread), self._put(expected.known))

    def _with_colours(
        self,
        picture: Tensor,
        expected: DeviceExpected,
        settled: NDArray[np.bool_],
        beside: NDArray[np.float32] | None,
    ) -> Tensor:
        """Photometric log-odds; sure places teach what occluders look like, and are looked at again with that.

        Both outcomes are made, so that nobody waits to know whether there was anything sure.
        """
        config, filters = self._config, self._filters
        near_hand = None if beside is None else self._put(beside)
        weighing = DeviceWeighing.of(picture, expected, config.evidence, near_hand, filters)
        odds = weighing.log_odds()
        sure = self._put(settled) & (filters.box(odds, CALM_PX) > config.sure)
        taught = (sure.sum() >= config.least_area) | (self._colours.trust >= FORGOTTEN)
        colours = self._colours.updated_by(weighing.bins[0], sure)
        self._colours = replace(colours, counts=torch.where(taught, colours.counts, self._colours.counts))
        again = weighing.log_odds(colours)
        near = filters.gaussian(largest(sure.to(torch.float32), REACH_PX), FADE_PX)
        beyond = (1 - expected.known) * colours.log_odds_of(weighing.bins[0])
        return torch.where(taught, odds + near * (torch.maximum(again, odds) - odds + beyond), odds)

    def _hand_log_odds(self, hand: Tensor, known: Tensor | None) -> Tensor:
        """What a soft hand says, see ``occlusion_pass``."""
        elsewhere = hand.new_tensor(-1.0) if known is None else known - 1
        return torch.where(hand > HAND_FAINT, self._config.hand_log_odds * (2 * hand - 1), elsewhere)

    def _mask(self, row: int, log_odds: Tensor) -> OcclusionMask:
        """Objects among the filtered log-odds of a frame, refined at the crop's size."""
        seen, config = self._seen.pop(row), self._config
        guide = DeviceGuide.of(seen.small, config.guide_radius, config.guide_softness, self._filters)
        smooth = guide.refined(log_odds + config.prior, seen.small)
        objects = objects_among(smooth.cpu().numpy(), seen.settled, seen.face, seen.hand, config)
        values = np.zeros(seen.crop.shape[:2], np.float32)
        if objects.any():
            values = self._refined(smooth, self._put(objects), guide, seen.on_device).cpu().numpy()
        return OcclusionMask(values, "crop", np.zeros((0, 21, 2), np.float32))

    def _refined(self, smooth: Tensor, objects: Tensor, guide: DeviceGuide, crop: Tensor) -> Tensor:
        """Soft mask ``[L, L]`` 0..1 of ``objects`` ``[S, S]`` at the crop's size."""
        least = torch.where(smallest(objects, INNER_PX) > 0, FILLED, OFF)
        held = torch.where(objects > 0, torch.maximum(smooth, least), OFF)
        fine = guide.refined(held, crop.permute(2, 0, 1).to(torch.float32) / 255)
        values = (STEEPNESS * fine.clamp(-MOST_REFINED, MOST_REFINED)).sigmoid()
        grown = self._filters.enlarged(objects, crop.shape[0])
        return (torch.where(values < FAINT, 0.0, values) * grown).clamp(0, 1)

    def _put(self, values: NDArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)

    def _planes(self, picture: NDArray[np.float32]) -> Tensor:
        """``[3, S, S]`` of ``[S, S, 3]``."""
        return self._put(picture).permute(2, 0, 1).contiguous()
