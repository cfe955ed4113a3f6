"""Where a video may be turned back or stopped without being noticed, and what would give it away.

Reads: tables of the tracked face; ``background_motion`` alone looks at pictures, and only at a thumbnail of each.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.face_geometry import landmark_boxes
from inference.prepared import PreparedSource
from inference.timeline import TimeOptions, build_timeline, warn_of_cut_speech
from modules.structures.frame_index import FrameIndex
from modules.structures.frames import Frame
from modules.structures.landmarks import BROWS, EYES, FACE_OVAL, RIGID, inter_ocular_px
from modules.structures.spans import Reason
from modules.structures.timeline import SourceClock, Timeline, Turns
from modules.video.frame_order import frames_between
from modules.video.reader import VideoReader

logger = logging.getLogger(__name__)

TURN_WINDOW_S = 1.0
"""A turning point is looked for this near the end of what can be shown."""
_WINDOW_SHARE = 1 / 3
"""... and within this share of the stretch at either end, so that the way between them stays long."""
_SPEED_REACH_S = 0.08
"""Speed is measured over this on either side: shorter measures the landmarks' jitter."""
_GAP_S = 0.2
"""Shorter losses of the face do not end the stretch that is played."""
_SHORT_LOOP_S = 1.0
"""A stretch shorter than this flutters when it goes back and forth."""
_IDLE_END_S = 0.5
"""Leaving out a longer end without a usable face is worth a word."""
THUMBNAIL_PX = 96
"""Longer side of the thumbnails that motion is looked for in."""
_LAG_S = 0.2
"""A thumbnail is compared with the one this long before: slow walkers show, sensor noise averages out."""
_CHANGED = 0.03
"""A thumbnail's pixel has changed when its luma (0..1) differs by more than this."""
_HEAD_MARGIN = (0.5, 0.7)
"""The head with its hair reaches this far beyond the face's box, in box widths and heights."""
MOVING_SHARE = 0.02
"""The picture around the head moves when more of it than this has changed."""
_MOVING_FRAMES = 0.1
"""... in at least this share of the frames that are shown backwards."""


def plan_timeline(source: PreparedSource, index: FrameIndex, options: TimeOptions, speech_s: float) -> Timeline:
    """What the output shows when; warns of what a viewer may notice.

    Args:
        source: the video and what was tracked in it. Its pictures are looked at only where they will go back and forth.
        index: its frames' times and shots.
        options: what was asked for.
        speech_s: how long the speech is.

    Raises:
        ConfigError: the part or the speech lies outside the video.
        VideoReadError: the video cannot be read.
    """
    clock = SourceClock(index.pts, index.time_base, source.info.frame_rate)
    turns = None
    if options.needs_more_frames(clock, speech_s):
        usable = np.array([reason is Reason.EDITED for reason in source.evidence.reasons()], bool)
        speed = head_speed(source.landmarks.points, clock.times_s, index.shot_starts)
        turns = find_turns(speed, usable, clock.times_s, index.shot_starts)
        warn_of_turns(turns, usable, clock.times_s, goes_back=options.length == "pingpong")
    timeline = build_timeline(clock, options, speech_s, turns)
    if turns is not None and options.length == "pingpong":
        with VideoReader(source.video) as reader:
            frames = frames_between(reader, index.pts, turns.first, turns.last + 1)
            shown = source.landmarks.points[turns.first : turns.last + 1, list(FACE_OVAL)]
            moving = background_motion(frames, landmark_boxes(shown))
        warn_of_backward_motion(turns, clock.times_s, source.occlusion.rows, moving)
    warn_of_cut_speech(timeline, speech_s)
    return timeline


def head_speed(
    points: NDArray[np.float32], times_s: NDArray[np.float64], shot_starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How fast the head and the upper face move, whatever the lips do.

    Args:
        points: ``[T, 478, 2]`` landmarks px; NaN where there are none.
        times_s: ``[T]`` rising.
        shot_starts: ascending rows that begin a shot, 0 first.

    Returns:
        float64 ``[T]``, inter-ocular distances per second; NaN where unknown. Never measured across a cut.
    """
    count = len(times_s)
    if count < 2:
        return np.full(count, np.nan)
    chosen = sorted({*RIGID, *BROWS, *EYES})
    upper, size_px = points[:, chosen].astype(np.float64), inter_ocular_px(points.astype(np.float64))
    reach = max(round(_SPEED_REACH_S / float(np.median(np.diff(times_s)))), 1)
    stops = np.append(shot_starts[1:], count)
    shot = np.searchsorted(shot_starts, np.arange(count), side="right") - 1
    before = np.maximum(np.arange(count) - reach, shot_starts[shot])
    after = np.minimum(np.arange(count) + reach, stops[shot] - 1)
    moved = np.linalg.norm(upper[after] - upper[before], axis=2).mean(axis=1)
    elapsed_s = times_s[after] - times_s[before]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(elapsed_s > 0, moved / (size_px * elapsed_s), np.nan)


def find_turns(
    speed: NDArray[np.float64],
    usable: NDArray[np.bool_],
    times_s: NDArray[np.float64],
    shot_starts: NDArray[np.int64],
) -> Turns:
    """Still moments near both ends of the last stretch of the last shot in which the face can be repainted.

    Args:
        speed: ``[T]``, see ``head_speed``.
        usable: bool ``[T]``: the face can be repainted.
        times_s: ``[T]`` rising.
        shot_starts: ascending rows that begin a shot, 0 first.
    """
    begin, stop = int(shot_starts[-1]), len(times_s)
    shown = np.flatnonzero(usable[begin:]) + begin
    if len(shown):
        lost = np.flatnonzero(np.diff(times_s[shown]) > _GAP_S)
        begin = int(shown[lost[-1] + 1]) if len(lost) else int(shown[0])
        stop = int(shown[-1]) + 1
    window_s = min(TURN_WINDOW_S, _WINDOW_SHARE * float(times_s[stop - 1] - times_s[begin]))
    rows = np.arange(begin, stop)
    cost = np.where(usable[rows], np.nan_to_num(speed[rows], nan=np.inf), np.inf)
    near_end = times_s[rows] >= times_s[stop - 1] - window_s
    last = int(rows[near_end][::-1][np.argmin(cost[near_end][::-1])])
    near_begin = (times_s[rows] <= times_s[begin] + window_s) & (rows <= last)
    return Turns(int(rows[near_begin][np.argmin(cost[near_begin])]), last)


def warn_of_turns(
    turns: Turns,
    usable: NDArray[np.bool_],
    times_s: NDArray[np.float64],
    *,
    goes_back: bool,
) -> None:
    """Say what a viewer loses where a video is made longer.

    Args:
        turns: where it turns or stops.
        usable: bool ``[T]``: the face can be repainted.
        times_s: ``[T]`` rising.
        goes_back: ping-pong, not hold.
    """
    if not usable[turns.last]:
        logger.warning(
            "the last shot shows no usable face, so the speech that outlasts the video moves no lips; use --length trim"
        )
    elif times_s[-1] - times_s[np.flatnonzero(usable)[-1]] > _IDLE_END_S:
        left_out_s = float(times_s[-1] - times_s[turns.last])
        logger.warning("the last %.1f s of the video are left out: no usable face is left there", left_out_s)
    loop_s = float(times_s[turns.last] - times_s[turns.first])
    if goes_back and loop_s < _SHORT_LOOP_S:
        logger.warning("only %.1f s of the video can be played back and forth; --length hold may look calmer", loop_s)


def warn_of_backward_motion(
    turns: Turns, times_s: NDArray[np.float64], hand_rows: NDArray[np.int64], moving: NDArray[np.float32]
) -> None:
    """Say where going back would show hands, a passer-by or the background moving backwards.

    Args:
        turns: between which the picture goes back and forth.
        times_s: ``[T]`` rising.
        hand_rows: source frames with something in front of the face, ascending.
        moving: ``background_motion`` of the frames ``turns.first .. turns.last``.
    """
    hands = np.zeros(turns.last - turns.first + 1, bool)
    inside = hand_rows[(hand_rows >= turns.first) & (hand_rows <= turns.last)]
    hands[inside - turns.first] = True
    for what, seen in (("hands in front of the face", hands), ("motion around the head", _lasting(moving))):
        if seen.any():
            first_s, last_s = times_s[np.flatnonzero(seen)[[0, -1]] + turns.first]
            logger.warning(
                "--length pingpong shows %s backwards (seen in %.0f %% of the stretch, from %.1f to %.1f s); "
                "--length hold does not", what, 100 * seen.mean(), first_s, last_s,
            )  # fmt: skip


def _lasting(moving: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The frames with motion around the head, none where it is so rare that nobody sees it."""
    seen = moving > MOVING_SHARE
    return seen if seen.mean() >= _MOVING_FRAMES else np.zeros(len(seen), bool)


def background_motion(frames: Iterable[Frame], boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    """How much of the picture around the head moves, frame by frame.

    Memory is a fifth of a second of thumbnails.

    Args:
        frames: of one shot, in order.
        boxes: ``[N, 4]`` the face's box in each, px; NaN where there is none: then all of the picture counts.

    Returns:
        float32 ``[N]`` share 0..1 of the picture outside the head that differs from a moment before; 0 at first.
    """
    moving = np.zeros(len(boxes), np.float32)
    earlier: deque[tuple[float, NDArray[np.float32], NDArray[np.bool_]]] = deque()
    for number, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
        time_s, small, around = float(frame.time_s), _thumbnail(frame), _around_head(frame, box)
        while len(earlier) > 1 and earlier[1][0] <= time_s - _LAG_S:
            earlier.popleft()
        if earlier:
            counted = around & earlier[0][2]
            changed = np.abs(small - earlier[0][1]) > _CHANGED
            moving[number] = float(changed[counted].mean()) if counted.any() else 0.0
        earlier.append((time_s, small, around))
    return moving


def _thumbnail_size(frame: Frame) -> tuple[int, int]:
    """(width, height)."""
    height, width = frame.size_hw
    scale = min(THUMBNAIL_PX / max(height, width), 1.0)
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _thumbnail(frame: Frame) -> NDArray[np.float32]:
    """The luma at a reduced size, 0..1."""
    small = cv2.resize(frame.planes[0], _thumbnail_size(frame), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / np.float32((1 << frame.layout.bit_depth) - 1)


def _around_head(frame: Frame, box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The thumbnail's pixels outside the head."""
    (width, height), (frame_height, frame_width) = _thumbnail_size(frame), frame.size_hw
    outside = np.ones((height, width), bool)
    if np.isfinite(box).all():
        margin_x, margin_y = _HEAD_MARGIN[0] * (box[2] - box[0]), _HEAD_MARGIN[1] * (box[3] - box[1])
        x0, x1 = (np.array([box[0] - margin_x, box[2] + margin_x]) * width / frame_width).round().astype(int)
        y0, y1 = (np.array([box[1] - margin_y, box[3] + margin_y]) * height / frame_height).round().astype(int)
        outside[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)] = False
    return outside
