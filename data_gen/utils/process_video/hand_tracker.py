"""Follow hands through a stream with bounded look-back.

A palm half out of the picture is found in one frame of many, but a known hand is easily followed. So every frame is
searched at one of several scales in turn; each hand found is followed forwards, and backwards through the frames held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.hand_landmarker import HandResult, same_hand
from data_gen.utils.process_video.hand_outline import hand_size
from modules.structures.boxes import BoundingBox

LOOK_BACK = 20
"""Frames held back, hence how far a hand found late is followed backwards."""
MAX_MISSES = 3
"""Frames a followed hand may be lost and come back; its points are interpolated there."""
HOLD = 2
"""Frames a hand's mask fades out after its last sight and in before its first."""
MAX_RESHAPE = 0.16
"""Mean change of the landmarks' shape per frame, in hand sizes, that one hand can show (99 % stay below 0.12). More
means that the network has slipped onto another hand, or onto a neck."""
MIN_SIGHTS = 3
"""A hand seen in fewer frames is a false alarm."""


class HandFinder(Protocol):
    """The part of ``OcclusionDetector`` that tracking needs."""

    def find_hands(
        self, rgb: NDArray[np.uint8], face: BoundingBox | None = None, *, turn: int | None = None
    ) -> list[HandResult]:
        """Hands around a face, searched at one scale (``turn`` picks it) or all."""
        ...

    def follow_hand(
        self, rgb: NDArray[np.uint8], points: NDArray[np.float32], face: BoundingBox | None
    ) -> HandResult | None:
        """The hand that was at ``points`` a moment ago."""
        ...


Origin = tuple[float, float]
"""Where an image's corner lies in the space all images of a stream share."""


@dataclass(slots=True)
class _Hand:
    """One hand over time: landmarks by step."""

    points: dict[int, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def first(self) -> int:
        return min(self.points)

    @property
    def last(self) -> int:
        return max(self.points)


@dataclass(frozen=True, slots=True, eq=False)
class SeenHand:
    """A hand in one frame: landmarks ``[21, 2]`` px and weight 0..1 (below 1 while it fades)."""

    points: NDArray[np.float32]
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class HandFrame:
    """A finished frame: its index, image and hands (in the image's pixels)."""

    index: int
    rgb: NDArray[np.uint8]
    hands: list[SeenHand]
    origin: Origin


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    step: int
    index: int
    rgb: NDArray[np.uint8]
    face: BoundingBox | None
    origin: Origin

    def to_shared(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        return points + np.array(self.origin, dtype=np.float32)

    def to_image(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        return points - np.array(self.origin, dtype=np.float32)


class HandTracker:
    """Takes frames in order and returns each ``LOOK_BACK`` frames later with its hands."""

    def __init__(self, finder: HandFinder) -> None:
        self._finder = finder
        self._held: deque[_Held] = deque()
        self._hands: list[_Hand] = []
        self._step = -1

    def step(
        self, index: int, rgb: NDArray[np.uint8], face: BoundingBox | None, origin: Origin = (0.0, 0.0)
    ) -> Iterator[HandFrame]:
        """Take a frame; yields the frames that are finished by that.

        Args:
            index: handed back with the result.
            rgb: ``[H, W, 3]`` uint8, a part of the frame around the face for instance.
            face: face box in its pixels; None: no face, so no hand matters.
            origin: where the image's corner lies in the space that the hands move in.
        """
        self._step += 1
        self._held.append(_Held(self._step, index, rgb, face, origin))
        if face is not None:
            self._follow(self._held[-1])
            self._scan(self._held[-1])
        while len(self._held) > LOOK_BACK:
            yield self._finish_oldest()

    def finish(self) -> Iterator[HandFrame]:
        """The frames still held, at the end of the stream."""
        while self._held:
            yield self._finish_oldest()

    def _follow(self, frame: _Held) -> None:
        for hand in self._hands:
            if frame.step in hand.points or frame.step - hand.last > MAX_MISSES:
                continue
            points = self._followed(frame, hand, hand.last)
            if points is not None and not self._is_taken(frame.step, points):
                hand.points[frame.step] = points

    def _followed(self, frame: _Held, hand: _Hand, known: int) -> NDArray[np.float32] | None:
        """The hand in ``frame``, going by where it was at step ``known``."""
        seen = self._finder.follow_hand(frame.rgb, frame.to_image(hand.points[known]), frame.face)
        if seen is None:
            return None
        points = frame.to_shared(seen.points)
        return points if reshaping(hand.points[known], points) < MAX_RESHAPE * abs(frame.step - known) else None

    def _scan(self, frame: _Held) -> None:
        for seen in self._finder.find_hands(frame.rgb, frame.face, turn=frame.step):
            points = frame.to_shared(seen.points)
            if self._is_taken(frame.step, points):
                continue
            hand = _Hand({frame.step: points})
            self._trace_back(hand)
            self._hands.append(hand)

    def _trace_back(self, hand: _Hand) -> None:
        """Follow a new hand backwards until it is lost or meets a hand already known."""
        for frame in reversed(list(self._held)[:-1]):
            if frame.face is None or hand.first - frame.step > MAX_MISSES:
                return
            points = self._followed(frame, hand, hand.first)
            if points is None:
                continue
            if self._is_taken(frame.step, points):
                return
            hand.points[frame.step] = points

    def _is_taken(self, step: int, points: NDArray[np.float32]) -> bool:
        return any(step in hand.points and same_hand(hand.points[step], points) for hand in self._hands)

    def _finish_oldest(self) -> HandFrame:
        frame = self._held.popleft()
        seen = [hand for hand in (_at(hand, frame.step) for hand in self._hands) if hand is not None]
        # a hand is forgotten once neither a held frame nor its fading can need it
        self._hands = [hand for hand in self._hands if hand.last + HOLD > frame.step]
        hands = [SeenHand(frame.to_image(hand.points), hand.weight) for hand in seen]
        return HandFrame(frame.index, frame.rgb, hands if frame.face is not None else [], frame.origin)


def reshaping(before: NDArray[np.float32], after: NDArray[np.float32]) -> float:
    """Mean change of a hand's landmarks ``[21, 2]`` beyond its translation, in hand sizes."""
    shape_before, shape_after = before - before.mean(axis=0), after - after.mean(axis=0)
    return float(np.linalg.norm(shape_after - shape_before, axis=1).mean()) / hand_size(before)


def _at(hand: _Hand, step: int) -> SeenHand | None:
    """The hand at a step: seen, interpolated inside a gap, fading just outside its life, or None."""
    if len(hand.points) < MIN_SIGHTS:
        return None
    if step in hand.points:
        return SeenHand(hand.points[step], 1.0)
    beyond = max(hand.first - step, step - hand.last)
    if beyond > 0:
        nearest = hand.first if step < hand.first else hand.last
        return SeenHand(hand.points[nearest], 1.0 - beyond / (HOLD + 1)) if beyond <= HOLD else None
    before = max(known for known in hand.points if known < step)
    after = min(known for known in hand.points if known > step)
    share = (step - before) / (after - before)
    points = (1 - share) * hand.points[before] + share * hand.points[after]
    return SeenHand(points.astype(np.float32), 1.0)
