"""Follow hands through a stream with bounded look-back.

A palm half out of the picture is found in one frame of many, but a known hand is easily followed. So palms are searched
for every few frames; each hand found is followed forwards, and backwards through the frames still held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.hand_landmarker import HandResult, same_hand
from modules.structures.boxes import BoundingBox

SCAN_EVERY = 3
"""Frames between palm searches (26 ms each); hands are followed (10 ms) in all frames."""
LOOK_BACK = 20
"""Frames held back, hence how far a hand found late is followed backwards."""
MAX_MISSES = 3
"""Frames a followed hand may be lost and come back; its points are interpolated there."""
HOLD = 2
"""Frames a hand's mask fades out after its last sight and in before its first."""
MIN_SIGHTS = 3
"""A hand seen in fewer frames is a false alarm."""


class HandFinder(Protocol):
    """The part of ``OcclusionDetector`` that tracking needs."""

    def find_hands(self, rgb: NDArray[np.uint8], face: BoundingBox | None = None) -> list[HandResult]: ...

    def follow_hand(
        self, rgb: NDArray[np.uint8], points: NDArray[np.float32], face: BoundingBox | None
    ) -> HandResult | None: ...


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
    """A finished frame: its index, image and hands."""

    index: int
    rgb: NDArray[np.uint8]
    hands: list[SeenHand]


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    step: int
    index: int
    rgb: NDArray[np.uint8]
    face: BoundingBox | None


class HandTracker:
    """Takes frames in order and returns each ``LOOK_BACK`` frames later with its hands."""

    def __init__(self, finder: HandFinder) -> None:
        self._finder = finder
        self._held: deque[_Held] = deque()
        self._hands: list[_Hand] = []
        self._step = -1

    def step(self, index: int, rgb: NDArray[np.uint8], face: BoundingBox | None) -> Iterator[HandFrame]:
        """Take a frame; yields the frames that are finished by that."""
        self._step += 1
        self._held.append(_Held(self._step, index, rgb, face))
        if face is not None:
            self._follow(self._held[-1])
            if self._step % SCAN_EVERY == 0:
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
            seen = self._finder.follow_hand(frame.rgb, hand.points[hand.last], frame.face)
            if seen is not None and not self._is_taken(frame.step, seen.points):
                hand.points[frame.step] = seen.points

    def _scan(self, frame: _Held) -> None:
        for seen in self._finder.find_hands(frame.rgb, frame.face):
            if self._is_taken(frame.step, seen.points):
                continue
            hand = _Hand({frame.step: seen.points})
            self._trace_back(hand)
            self._hands.append(hand)

    def _trace_back(self, hand: _Hand) -> None:
        """Follow a new hand backwards until it is lost or meets a hand already known."""
        for frame in reversed(list(self._held)[:-1]):
            if frame.face is None or hand.first - frame.step > MAX_MISSES:
                return
            seen = self._finder.follow_hand(frame.rgb, hand.points[hand.first], frame.face)
            if seen is None:
                continue
            if self._is_taken(frame.step, seen.points):
                return
            hand.points[frame.step] = seen.points

    def _is_taken(self, step: int, points: NDArray[np.float32]) -> bool:
        return any(step in hand.points and same_hand(hand.points[step], points) for hand in self._hands)

    def _finish_oldest(self) -> HandFrame:
        frame = self._held.popleft()
        seen = [hand for hand in (_at(hand, frame.step) for hand in self._hands) if hand is not None]
        self._hands = [hand for hand in self._hands if hand.last > frame.step - LOOK_BACK]
        return HandFrame(frame.index, frame.rgb, seen if frame.face is not None else [])


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
