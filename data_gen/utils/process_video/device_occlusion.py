"""``occlusion_pass`` with its maths on a GPU: the same steps and numbers, masks equal but for rounding.

Frames are judged in batches: a GPU is done with one frame's step before the next could be launched. What is not worth a
GPU is done by a few threads on the CPU: outlines of face and hands, optical flow (ahead), and which connected parts are
objects. The device is waited for twice a batch.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.utils.process_video.device_evidence import DeviceColours, DeviceExpected, DeviceWeighing, counted
from data_gen.utils.process_video.device_exposure import DeviceExposure
from data_gen.utils.process_video.device_filter import Batch, DeviceGuide, DeviceTemporalFilter
from data_gen.utils.process_video.device_frames import DeviceFrames, FrameStage, HostFrame
from data_gen.utils.process_video.device_pictures import Filters, largest, smallest
from data_gen.utils.process_video.frame_hints import FrameHints
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
    STEADY,
    STEEPNESS,
    PassConfig,
    PassTables,
    objects_among,
)
from modules.commons.device import usable_cores
from modules.structures.expected_face import FaceExpectation
from modules.structures.masks import OcclusionMask

BATCH_FRAMES = 16
"""Frames judged together."""
MOST_WORKERS = 4
"""Threads of a pass at most; several passes may run side by side."""

Masks = list[tuple[int, OcclusionMask]]


class DeviceRun:
    """State of one pass on ``device``; see ``occlusion_pass``.

    Args:
        tables: of the whole clip.
        expectation: predicts the clean face.
        config: how masks are decided.
        device: to judge on.
        most: frames of a batch; masks do not depend on it.
        hints: what else is evidence; None = nothing.
    """

    def __init__(
        self, tables: PassTables, expectation: FaceExpectation | None, config: PassConfig, device: torch.device,
        most: int = BATCH_FRAMES, hints: FrameHints | None = None,
    ) -> None:  # fmt: skip
        self._tables, self._expectation, self._config, self._hints = tables, expectation, config, hints or FrameHints()
        self._device, self._most = device, most
        self._filters = Filters(device)
        self._exposure = DeviceExposure(self._filters)
        self._filter = DeviceTemporalFilter(config.filter, self._filters)
        self._colours = DeviceColours.nothing(device)
        self._pool = ThreadPoolExecutor(min(MOST_WORKERS, usable_cores()))
        self._stage = FrameStage(tables, config, most, device, self._pool)
        self._held: deque[HostFrame] = deque()
        self._starts = set(tables.shot_starts.tolist())

    @torch.no_grad()
    def push(self, row: int, crop: NDArray[np.uint8]) -> Masks:
        """Take a frame; returns what is finished."""
        expected = None if self._expectation is None else self._expectation.at(row, self._config.working_size)
        hinted = self._hints.at(row, crop, self._tables, self._config)
        self._stage.add(row, crop, expected, hinted, fresh=row in self._starts)
        return self._judged_batch() if len(self._stage) == self._most else []

    @torch.no_grad()
    def finish(self) -> Masks:
        """The frames still held; the run is over."""
        done = self._judged_batch() if len(self._stage) else []
        rest = self._filter.finish()
        if rest is not None:
            done += self._masks(*rest)
        self._pool.shutdown()
        return done

    def _judged_batch(self) -> Masks:
        """Judge what was prepared; returns what is finished."""
        frames, on_device = self._stage.sent()
        self._held.extend(frames)
        evidence = self._evidence(on_device)
        batch = Batch(evidence, on_device.rgb, on_device.back, on_device.ahead, on_device.joined.to(torch.float32))
        return self._masks(*self._filter.push(batch))

    def _evidence(self, frames: DeviceFrames) -> Tensor:
        """Log-odds ``[N, S, S]`` of each frame, without prior."""
        judged, handled = frames.judged[:, None, None], frames.handled[:, None, None]
        odds = torch.where(judged, self._with_colours(frames), torch.where(handled, 0.0, -1.0))
        hands = self._config.hand_log_odds * (2 * frames.hand - 1)
        elsewhere = frames.expected.known - 1
        handed = torch.where(handled, torch.where(frames.hand > HAND_FAINT, hands, elsewhere), 0.0)
        return odds + handed + frames.hinted

    def _matched(self, frames: DeviceFrames) -> DeviceExpected:
        """The expectations in the exposure of the pictures."""
        expected = frames.expected
        weight = expected.known * (expected.spread < STEADY) * (1 - frames.hand)
        rgb = self._exposure.matched(expected.rgb, frames.rgb, expected.spread, weight)
        return DeviceExpected(rgb, expected.spread, expected.known)

    def _with_colours(self, frames: DeviceFrames) -> Tensor:
        """Photometric log-odds; sure places teach what occluders look like, and are looked at again with that.

        Both outcomes are made, so that nobody waits to know whether there was anything sure.
        """
        config, filters, expected = self._config, self._filters, self._matched(frames)
        weighing = DeviceWeighing.of(frames.rgb, expected, config.evidence, frames.beside, filters)
        odds, bins = weighing.log_odds(), weighing.bins[:, 0]
        calm = filters.box(odds, CALM_PX) > config.sure
        sure = frames.teaching & calm & frames.judged[:, None, None]
        colours, taught = self._learnt(counted(bins, sure, filters), frames, sure.flatten(1).sum(dim=1))
        again = weighing.log_odds(colours)
        near = filters.gaussian(largest(sure.to(torch.float32), REACH_PX), FADE_PX)
        beyond = (1 - expected.known) * colours.log_odds_of(bins)
        told = odds + near * (torch.maximum(again, odds) - odds + beyond)
        return torch.where(taught[:, None, None], told, odds)

    def _learnt(self, fresh: Tensor, frames: DeviceFrames, sure: Tensor) -> tuple[DeviceColours, Tensor]:
        """Colours of things ``[N, B ** 3]`` as known in each frame, and in which frames (bool ``[N]``) they are used.

        Args:
            fresh: ``[N, B ** 3]`` what each frame adds.
            frames: of this batch.
            sure: ``[N]`` how many pixels say so.
        """
        enough, joined = (sure >= self._config.least_area)[:, None], frames.joined.to(torch.float32)[:, None, None]
        used, taught = [], []
        for index in range(len(fresh)):
            before = DeviceColours(self._colours.counts * joined[index])
            learns = enough[index] | (before.trust >= FORGOTTEN)
            learns = learns & frames.judged[index]
            after = before.followed_by(fresh[index : index + 1])
            self._colours = DeviceColours(torch.where(learns, after.counts, before.counts))
            used.append(after.counts)
            taught.append(learns)
        return DeviceColours(torch.cat(used)), torch.cat(taught)

    def _masks(self, log_odds: Tensor, rgb: Tensor) -> Masks:
        """Objects among the filtered log-odds of the oldest frames, refined at the crop's size."""
        config, frames = self._config, [self._held.popleft() for _ in range(len(log_odds))]
        if not frames:
            return []
        guide = DeviceGuide.of(rgb, config.guide_radius, config.guide_softness, self._filters)
        smooth = guide.refined(log_odds + config.prior, rgb)
        objects = list(self._pool.map(self._objects, smooth.cpu().numpy(), frames))
        found = [index for index, there in enumerate(objects) if there.any()]
        values = [np.zeros(frame.crop.shape[:2], np.float32) for frame in frames]
        if found:
            kept = torch.tensor(found, device=self._device)
            crops = self._put(np.stack([frames[index].crop for index in found]))
            there = self._put(np.stack([objects[index] for index in found]))
            fine = self._refined(smooth[kept], there, guide.of_frames(kept), crops).cpu().numpy()
            for index, mask in zip(found, fine, strict=True):
                values[index] = mask
        hands = np.zeros((0, 21, 2), np.float32)
        return [(frame.row, OcclusionMask(v, "crop", hands)) for frame, v in zip(frames, values, strict=True)]

    def _objects(self, smooth: NDArray[np.float32], frame: HostFrame) -> NDArray[np.float32]:
        return objects_among(smooth, frame.settled, frame.face, frame.hand, self._config)

    def _refined(self, smooth: Tensor, objects: Tensor, guide: DeviceGuide, crops: Tensor) -> Tensor:
        """Soft masks ``[N, L, L]`` 0..1 of ``objects`` ``[N, S, S]`` at the size of ``crops`` ``[N, L, L, 3]``."""
        least = torch.where(smallest(objects, INNER_PX) > 0, FILLED, OFF)
        held = torch.where(objects > 0, torch.maximum(smooth, least), OFF)
        fine = guide.refined(held, crops.movedim(-1, 1).to(torch.float32) / 255)
        values = (STEEPNESS * fine.clamp(-MOST_REFINED, MOST_REFINED)).sigmoid()
        grown = self._filters.enlarged(objects, crops.shape[1])
        return (torch.where(values < FAINT, 0.0, values) * grown).clamp(0, 1)

    def _put(self, values: NDArray) -> Tensor:
        return torch.from_numpy(values).to(self._device)
