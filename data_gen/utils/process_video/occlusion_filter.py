"""Make occluder evidence agree with its neighbours: along flow in time, along edges in the picture.

In time, each pixel is a two-state chain (covered or not) that moves with the picture: what the frames before and a few
frames after say is carried along optical flow (Kroeger et al., 2016, as in OpenCV) and added to the frame's own
evidence, as the forward-backward algorithm of hidden Markov models does (Rabiner, 1989). In the picture, a guided
filter (He et al., 2013; its fast form of He and Sun, 2015) pulls the mask onto the edges it sees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.occlusion_evidence import YCC_FROM_RGB
from modules.structures.crops import moved_grid

Flow = NDArray[np.float32]
"""``[S, S, 2]`` px: where each pixel of one frame lies in another, relative to itself."""


BELIEF_BLUR_PX = 1.0
"""Differences of colour along flow are blurred by so much: single pixels say little."""


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """How evidence is carried.

    Attributes:
        look_ahead: frames waited for.
        appear, vanish: chance per frame that a clear pixel gets covered, and the reverse.
        trust: share of a frame's evidence that is new: the same misfit comes again in the next frame.
        mismatch: colour difference, 0..1, at which flow is hardly believed any more.
    """

    look_ahead: int = 3
    appear: float = 0.02
    vanish: float = 0.03
    trust: float = 0.6
    mismatch: float = 0.06


def transition(log_odds: NDArray[np.float32], appear: float, vanish: float) -> NDArray[np.float32]:
    """Log-odds one step later of a two-state chain: ``p' = p (1 - vanish) + (1 - p) appear``."""
    covered = 1 / (1 + np.exp(-log_odds))
    later = covered * np.float32(1 - vanish - appear) + np.float32(appear)
    return np.log(later / (1 - later)).astype(np.float32)


def carried(values: NDArray[np.float32], flow: Flow) -> NDArray[np.float32]:
    """``values`` of another frame at the pixels that ``flow`` leads to."""
    return _looked_up(values, *moved_grid(flow))


def _looked_up(values: NDArray[np.float32], x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """A frame on its way: evidence, RGB 0..1, 8-bit grey, messages from before, flows to both neighbours."""

    index: int
    evidence: NDArray[np.float32]
    rgb: NDArray[np.float32]
    grey: NDArray[np.uint8]
    before: NDArray[np.float32]
    to_previous: Link | None


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """Where a frame's pixels lie in another, x and y ``[S, S]`` px, and how far that is believed, 0..1."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    belief: NDArray[np.float32]

    @classmethod
    def of(cls, flow: Flow, rgb: NDArray[np.float32], other_rgb: NDArray[np.float32], mismatch: float) -> Link:
        """Flow is believed where it leads to the same colours."""
        x, y = moved_grid(flow)
        red, green, blue = cv2.split(cv2.absdiff(_looked_up(other_rgb, x, y), rgb))
        away = cv2.GaussianBlur(np.maximum(np.maximum(red, green), blue), (0, 0), BELIEF_BLUR_PX) / np.float32(mismatch)
        return cls(x, y, np.exp(-away * away))

    def message(self, log_odds: NDArray[np.float32], config: FilterConfig) -> NDArray[np.float32]:
        """What the other frame's ``log_odds`` say about this one's pixels, 0 where flow fails."""
        stationary = np.float32(np.log(config.appear / config.vanish))
        there = _looked_up(log_odds + stationary, self.x, self.y)
        return (transition(there, config.appear, config.vanish) - stationary) * self.belief


class FlowFinder:
    """Optical flow between the frames of one pass."""

    def __init__(self) -> None:
        self._finder = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)

    def found(self, grey: NDArray[np.uint8], other: NDArray[np.uint8]) -> Flow:
        """Where the pixels of ``grey`` lie in ``other``."""
        return np.asarray(self._finder.calc(grey, other, np.zeros((*grey.shape, 2), np.float32)), np.float32)


def grey_of(rgb: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What flow is found in, ``[S, S]`` of ``[S, S, 3]`` 0..1."""
    return np.round(rgb @ np.array(YCC_FROM_RGB[0], np.float32) * 255).astype(np.uint8)


class TemporalFilter:
    """Takes evidence frame by frame and returns log-odds a few frames later.

    Evidence and results are without the prior odds of being covered.
    """

    def __init__(self, config: FilterConfig | None = None) -> None:
        self.config = config or FilterConfig()
        self._flow = FlowFinder()
        self._held: deque[_Held] = deque()
        self._links_ahead: deque[Link | None] = deque()

    def push(
        self, index: int, evidence: NDArray[np.float32], rgb: NDArray[np.float32], *, fresh: bool
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Take a frame; yields what is finished.

        Args:
            index: handed back.
            evidence: ``[S, S]`` log-odds of this frame alone.
            rgb: ``[S, S, 3]`` 0..1.
            fresh: nothing before has to do with it (a cut).
        """
        if fresh:
            yield from self.finish()
        own = evidence * np.float32(self.config.trust)
        grey = grey_of(rgb)
        before, back = np.zeros_like(own), None
        if self._held:
            last = self._held[-1]
            back = self._link(rgb, grey, last.rgb, last.grey)
            self._links_ahead.append(self._link(last.rgb, last.grey, rgb, grey))
            before = back.message(last.before + last.evidence, self.config)
        self._held.append(_Held(index, own, rgb, grey, before, back))
        if len(self._held) > self.config.look_ahead:
            yield self._finish_oldest()

    def finish(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The frames still held."""
        while self._held:
            yield self._finish_oldest()

    def _finish_oldest(self) -> tuple[int, NDArray[np.float32]]:
        after = np.zeros_like(self._held[0].evidence)
        for position in range(len(self._held) - 1, 0, -1):
            link = self._links_ahead[position - 1]
            assert link is not None
            after = link.message(after + self._held[position].evidence, self.config)
        frame = self._held.popleft()
        if self._links_ahead:
            self._links_ahead.popleft()
        return frame.index, frame.before + frame.evidence + after

    def _link(
        self,
        rgb: NDArray[np.float32],
        grey: NDArray[np.uint8],
        other_rgb: NDArray[np.float32],
        other: NDArray[np.uint8],
    ) -> Link:
        return Link.of(self._flow.found(grey, other), rgb, other_rgb, self.config.mismatch)


def box_mean(values: NDArray[np.float32], radius: int) -> NDArray[np.float32]:
    """Mean over a square window, smaller at the border (it repeats by reflection)."""
    side = 2 * radius + 1
    return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)


def guided_refinement(
    values: NDArray[np.float32],
    guide: NDArray[np.float32],
    fine_guide: NDArray[np.float32],
    radius: int,
    softness: float,
) -> NDArray[np.float32]:
    """``values`` as a locally linear function of the picture's colours, at the size of ``fine_guide``.

    Args:
        values: ``[S, S]``.
        guide: RGB ``[S, S, 3]`` 0..1.
        fine_guide: RGB ``[L, L, 3]`` 0..1, the same picture in more detail.
        radius: of the window, px of ``values``.
        softness: colour steps below this, 0..1, are no edges.

    Returns:
        float32 ``[L, L]``.
    """
    return Guide.of(guide, radius, softness).refined(values, fine_guide)


@dataclass(frozen=True, slots=True, eq=False)
class Guide:
    """A picture whose edges masks are pulled onto.

    In every window ``values ≈ a · colour + b`` with ridge ``softness²`` on ``a`` (He et al., 2013, eq. 19..21); the
    means of ``a`` and ``b`` are enlarged and applied to the fine picture.

    Attributes:
        planes: float32 ``[3, S, S]``, its colours. means: the same over windows.
        inverse: six planes of each window's ``(covariance + ridge I)⁻¹``: xx, xy, xz, yy, yz, zz.
        radius: of the windows, px.
    """

    planes: tuple[NDArray[np.float32], ...]
    means: tuple[NDArray[np.float32], ...]
    inverse: tuple[NDArray[np.float32], ...]
    radius: int

    @classmethod
    def of(cls, rgb: NDArray[np.float32], radius: int, softness: float) -> Guide:
        """See ``guided_refinement``."""
        planes = _split(rgb)
        means = tuple(box_mean(plane, radius) for plane in planes)
        moments = [np.subtract(box_mean(planes[i] * planes[j], radius), means[i] * means[j]) for i, j in PAIRS]
        return cls(planes, means, inverted(moments, softness**2), radius)

    def refined(
        self, values: NDArray[np.float32], fine: NDArray[np.float32] | NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """``values`` ``[S, S]`` at the size of the same picture ``fine`` ``[L, L, 3]``, 0..1 or uint8."""
        mean = box_mean(values, self.radius)
        right = [
            box_mean(plane * values, self.radius) - own * mean
            for plane, own in zip(self.planes, self.means, strict=True)
        ]
        xx, xy, xz, yy, yz, zz = self.inverse
        slopes = [_dot((xx, xy, xz), right), _dot((xy, yy, yz), right), _dot((xz, yz, zz), right)]
        offset = mean - _dot(slopes, self.means)
        linear = [box_mean(plane, self.radius) for plane in (*slopes, offset)]
        if fine.shape[:2] != values.shape:
            linear = [cv2.resize(plane, fine.shape[1::-1], interpolation=cv2.INTER_LINEAR) for plane in linear]
        unit = np.float32(1 / 255 if fine.dtype == np.uint8 else 1)
        return np.asarray(_dot(linear[:3], _split(fine)) * unit + linear[3], np.float32)


PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
"""Rows and columns of a symmetric matrix that are kept."""


def _split(picture: NDArray[np.float32] | NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    """Planes ``[S, S]`` of a picture ``[S, S, 3]``."""
    return tuple(np.asarray(plane, np.float32) for plane in cv2.split(picture))


def _dot(ones: Sequence[NDArray], others: Sequence[NDArray]) -> NDArray[np.float32]:
    return ones[0] * others[0] + ones[1] * others[1] + ones[2] * others[2]


def inverted(moments: Sequence[NDArray[np.float32]], ridge: float) -> tuple[NDArray[np.float32], ...]:
    """Per pixel ``(M + ridge I)⁻¹`` for symmetric 3 × 3 matrices, both given as in ``PAIRS``: by cofactors."""
    xx, xy, xz, yy, yz, zz = moments
    xx, yy, zz = xx + np.float32(ridge), yy + np.float32(ridge), zz + np.float32(ridge)
    c00, c01, c02 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c11, c12, c22 = xx * zz - xz * xz, xz * xy - xx * yz, xx * yy - xy * xy
    scale = 1 / np.maximum(xx * c00 + xy * c01 + xz * c02, np.float32(ridge**3))
    return tuple(np.asarray(cofactor * scale, np.float32) for cofactor in (c00, c01, c02, c11, c12, c22))
