"""Find shot boundaries while frames stream by, with PySceneDetect's detectors on small pictures.

A hard cut is a change that stands out from the changes around it (``AdaptiveDetector``), so a panning camera is none;
a fade is a return from black or white (``ThresholdDetector``). Either counts only when the pictures before and after
it are built differently (the hash of ``HashDetector``): a flash or a sweeping hand leaves the same scene behind.
The package knows no dissolves, so one rule is our own: half-way through, the picture is a mixture of the two ends and
nothing else, which no moving camera and no moving person brings about.
Reads: frames. Keeps: a fraction of a second of small pictures, and the shots found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

import cv2
import numpy as np
from numpy.typing import NDArray
from scenedetect import FrameTimecode
from scenedetect.detector import SceneDetector
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HashDetector, ThresholdDetector

from modules.structures.frames import Frame, RgbImage

PICTURE_WH = (96, 54)
COUNTING_RATE = Fraction(25)
"""Any rate will do: the detectors only count frames, so that variable frame rates change nothing."""
WEIGHTS = ContentDetector.Components(delta_hue=0.2, delta_sat=0.5, delta_lum=1.0)
"""The hue of dark and grey pixels is noise: with equal weights a key frame in a dark hall looks like a cut."""
MIXTURE_WH = (48, 27)
DISSOLVES_S = (0.2, 0.32, 0.64)
"""Spans that are looked at; longer dissolves are seen in part."""
BLANK_CONTRAST = 12.0
"""Standard deviation of levels under which a picture is as good as blank."""
REST_S = 1.0
"""After a dissolve was found the rest of it is not a second one."""
CLOCK_SLACK_S = 1e-6
"""Differences of times are rounded: 0.6 s - 0.4 s is less than 0.2 s."""
MEMORY_FRAMES = 512
"""Bounds the memory when time stands still in a broken file."""


@dataclass(frozen=True, slots=True)
class ShotConfig:
    """What counts as a new shot.

    Attributes:
        min_shot_s: what is shorter is no shot of its own: of two boundaries closer than this the first counts, and a
            change that is undone within this time is a flash.
        min_change: least mean change of hue, saturation and luma from one frame to the next, 0..255.
        outlier: how many times the mean change of the two frames before and after it a cut must be.
        min_difference: least share of differing hash bits, 0..1, between any picture shortly before and any after.
        max_residual: most energy, as a share of the difference between the ends of a dissolve, that a picture inside it
            may hold besides their mixture.
        black: mean level 0..255 under which a picture is faded out.
        white: mean level 0..255 from which a picture is faded out.
    """

    min_shot_s: float = 0.2
    min_change: float = 12.0
    outlier: float = 3.0
    min_difference: float = 0.25
    max_residual: float = 0.06
    black: int = 12
    white: int = 243

    def __post_init__(self) -> None:
        if not (self.min_shot_s >= 0 and self.min_change > 0 and self.outlier > 1):
            raise ValueError(f"shot thresholds out of range: {self}")
        if not (0 <= self.min_difference <= 1 and self.max_residual >= 0 and 0 <= self.black < self.white <= 255):
            raise ValueError(f"shot thresholds out of range: {self}")


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    index: int
    time_s: float
    picture: RgbImage

    def mixture(self) -> NDArray[np.float32]:
        """The picture as a vector, small enough to hide slow motion."""
        return np.asarray(cv2.resize(self.picture, MIXTURE_WH, interpolation=cv2.INTER_AREA), np.float32).ravel()


class ShotFinder:
    """Takes frames one by one and knows the shots at the end; what it keeps of the past does not grow."""

    def __init__(self, config: ShotConfig | None = None) -> None:
        self._config = config or ShotConfig()
        self._detectors = _detectors(self._config)
        self._memory: deque[_Seen] = deque(maxlen=MEMORY_FRAMES)
        self._proposed: list[int] = []
        self._shots: list[int] = []
        self._shot_s = self._dissolve_s = -np.inf

    def step(self, frame: Frame) -> None:
        """Take the next frame."""
        seen = _Seen(frame.index, float(frame.time_s), small_picture(frame))
        if not self._shots:
            self._shots, self._shot_s = [seen.index], seen.time_s
        self._memory.append(seen)
        for detector in self._detectors:
            self._propose(detector.process_frame(FrameTimecode(seen.index, COUNTING_RATE), seen.picture))
        self._decide(seen.time_s)
        self._look_for_dissolve(seen)
        # A proposal comes up to two frames late and waits min_shot_s; the pictures before it must still be here then.
        span_s = max(3 * self._config.min_shot_s, 1.1 * DISSOLVES_S[-1])
        while self._memory[0].time_s < seen.time_s - span_s and len(self._memory) > 8:
            self._memory.popleft()

    @property
    def shots(self) -> list[int]:
        """The first frames of the shots known so far."""
        return self._shots

    def finish(self) -> NDArray[np.int64]:
        """The first frame of each shot, ascending; empty when there was no frame."""
        self._decide(np.inf)
        return np.array(self._shots, np.int64)

    def _propose(self, cuts: list[FrameTimecode]) -> None:
        new = {cut.frame_num for cut in cuts} - set(self._proposed)
        self._proposed = sorted({*self._proposed, *new})

    def _decide(self, now_s: float) -> None:
        """Judge the proposals whose aftermath has been seen."""
        while self._proposed:
            first = next((seen for seen in self._memory if seen.index == self._proposed[0]), None)
            if first is not None and now_s < first.time_s + self._config.min_shot_s:
                return
            self._proposed.pop(0)
            if first is not None and self._is_new_shot(first):
                self._shots.append(first.index)
                self._shot_s = first.time_s

    def _is_new_shot(self, first: _Seen) -> bool:
        window = self._config.min_shot_s
        if first.index <= self._shots[-1] or first.time_s - self._shot_s < window - CLOCK_SLACK_S:
            return False
        near = [seen for seen in self._memory if self._near(seen, first, window) and not self._is_faded_out(seen)]
        before = [_structure(seen.picture) for seen in near if seen.index < first.index]
        after = [_structure(seen.picture) for seen in near if seen.index >= first.index]
        differences = [float(np.mean(old != new)) for old in before for new in after]
        # Nothing but black on one side is nothing alike.
        return min(differences, default=1.0) >= self._config.min_difference

    def _look_for_dissolve(self, now: _Seen) -> None:
        """Start a shot half-way through a dissolve that ends now, or whose middle part does."""
        if now.time_s - self._dissolve_s < REST_S:
            return
        for lag_s in DISSOLVES_S:
            first_s = max(self._shot_s, self._memory[0].time_s)
            if now.time_s - lag_s < first_s or now.time_s - self._shot_s < self._config.min_shot_s + lag_s:
                return
            middle = self._dissolved(now, lag_s)
            if middle is not None:
                self._shots.append(middle.index)
                self._shot_s, self._dissolve_s = middle.time_s, now.time_s
                return

    def _dissolved(self, end: _Seen, lag_s: float) -> _Seen | None:
        """The middle of a dissolve over the last ``lag_s``, None when there was none."""
        times = np.array([seen.time_s for seen in self._memory])
        wanted = end.time_s - lag_s * np.array([1.0, 0.75, 0.5, 0.25])
        rows = [int(np.abs(times - time).argmin()) for time in wanted]
        if len({*rows}) < len(rows) or rows[-1] == len(times) - 1:
            return None
        start, *inside = (self._memory[row] for row in rows)
        if not is_mixture([start.mixture(), *(seen.mixture() for seen in inside), end.mixture()], self._config):
            return None
        # A fade is a mixture with a blank picture; its boundary is found where it comes back.
        if min(start.picture.std(), end.picture.std()) < BLANK_CONTRAST:
            return None
        differs = float(np.mean(_structure(start.picture) != _structure(end.picture)))
        return inside[1] if differs >= self._config.min_difference else None

    def _is_faded_out(self, seen: _Seen) -> bool:
        """Such a picture has no structure of its own, or a dim rest of the scene that it fades from or into."""
        return not self._config.black <= seen.picture.mean() < self._config.white

    @staticmethod
    def _near(seen: _Seen, first: _Seen, window_s: float) -> bool:
        return seen.index in (first.index - 1, first.index) or abs(seen.time_s - first.time_s) < window_s


def find_shots(frames: Iterable[Frame], config: ShotConfig | None = None) -> NDArray[np.int64]:
    """The first frame of each shot of a video, ascending; the video's first frame opens the list.

    Args:
        frames: upright frames in presentation order; read once, in constant memory.
        config: thresholds.

    Returns:
        int64 ``[S]`` frame indices; empty for a video without frames.
    """
    finder = ShotFinder(config)
    for frame in frames:
        finder.step(frame)
    return finder.finish()


def marked_shots(frames: Iterable[Frame], config: ShotConfig | None = None) -> Iterator[tuple[Frame, bool]]:
    """Pass frames on with whether each starts a shot; they come a fraction of a second late.

    Args:
        frames: upright frames in presentation order.
        config: thresholds.
    """
    config = config or ShotConfig()
    finder, held = ShotFinder(config), deque[Frame]()
    # A cut is judged when the time of a shot has passed since it; the middle of a dissolve when that is over.
    late_s = max(2 * config.min_shot_s, 0.6 * DISSOLVES_S[-1])
    for frame in frames:
        finder.step(frame)
        held.append(frame)
        while len(held) > 4 and frame.time_s - held[0].time_s > late_s:
            yield held[0], held[0].index in finder.shots
            held.popleft()
    shots = set(finder.finish().tolist())
    yield from ((frame, frame.index in shots) for frame in held)


def is_mixture(pictures: Sequence[NDArray[np.floating]], config: ShotConfig) -> bool:
    """Whether the pictures between the first and the last are mixtures of these two, ever more of the last.

    Args:
        pictures: five or more vectors of one size, in order of time.
        config: ``min_change`` is how far the ends must be apart at least, ``max_residual`` what may be unexplained.
    """
    start, *inside, end = pictures
    way = end - start
    length = float(way @ way)
    if np.abs(way).mean() < config.min_change:
        return False
    shares = [float((picture - start) @ way) / length for picture in inside]
    if not (shares[0] > 0.15 and shares[-1] < 0.85 and 0.3 < shares[len(shares) // 2] < 0.7):
        return False
    if sorted(shares) != shares:
        return False
    rests = (picture - start - share * way for picture, share in zip(inside, shares, strict=True))
    return max(float(rest @ rest) for rest in rests) <= config.max_residual * length


def small_picture(frame: Frame) -> RgbImage:
    """A frame as BGR uint8 ``[54, 96, 3]``, black at 0.

    Every few samples are enough to tell shots apart, and reading all of a 4K frame costs milliseconds.
    """
    layout = frame.layout
    height, width = frame.size_hw
    step = max(1, isqrt(height * width // (4 * PICTURE_WH[0] * PICTURE_WH[1])))
    across, down = (max(1, 2 * step >> shift) for shift in layout.chroma_shift)
    luma, blue, red = frame.planes
    small = [_shrunk(luma[::step, ::step], layout.bit_depth)]
    small += [_shrunk(plane[::down, ::across], layout.bit_depth) for plane in (red, blue)]
    if not layout.full_range:
        lifted = cv2.convertScaleAbs(np.maximum(small[0], 16), alpha=255 / 219, beta=-16 * 255 / 219)
        small[0] = np.asarray(lifted, np.uint8)
    return np.asarray(cv2.cvtColor(cv2.merge(small), cv2.COLOR_YCrCb2BGR), np.uint8)


def _shrunk(samples: NDArray, bit_depth: int) -> NDArray[np.uint8]:
    samples = np.ascontiguousarray(samples)
    if bit_depth > 8:
        samples = (samples >> (bit_depth - 8)).astype(np.uint8)
    return np.asarray(cv2.resize(samples, PICTURE_WH, interpolation=cv2.INTER_AREA), np.uint8)


def _structure(picture: RgbImage) -> NDArray[np.bool_]:
    """Perceptual hash ``[8, 8]``: which low spatial frequencies are strong; brightness hardly matters."""
    return HashDetector.hash_frame(picture, 8, 2)


def _detectors(config: ShotConfig) -> list[SceneDetector]:
    """The package's detectors; shots too short are judged here, by presentation time, not by them."""
    cuts = AdaptiveDetector(
        adaptive_threshold=config.outlier, min_scene_len=0, min_content_val=config.min_change, weights=WEIGHTS
    )
    # With this bias a fade ends where the picture comes back.
    black = ThresholdDetector(config.black, min_scene_len=0, fade_bias=1.0)
    white = ThresholdDetector(config.white, min_scene_len=0, fade_bias=1.0, method=ThresholdDetector.Method.CEILING)
    return [cuts, black, white]
