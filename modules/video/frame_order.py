"""Frames of a video in the order a timeline shows them, backwards too, in bounded memory.

Reads: the video, anew at every turn. A stretch that is shown backwards is decoded forwards in blocks of at most
``BLOCK_S`` seconds or ``BLOCK_BYTES``, whichever is less, and each block once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import pairwise, repeat

import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import VideoReadError
from modules.structures.frames import Frame
from modules.structures.timeline import Timeline
from modules.video.reader import VideoReader

BLOCK_S = 2
BLOCK_BYTES = 256 * 2**20


class TimelineReader:
    """A video as a timeline shows it, for whatever takes a reader.

    Its frames carry the output's numbers and times; ``timeline.rows[frame.index]`` is the source frame one shows.
    """

    def __init__(self, reader: VideoReader, timeline: Timeline, first: int = 0) -> None:
        self._reader = reader
        self._timeline = timeline
        self._first = first

    def frames(self) -> Generator[Frame, None, None]:
        """See ``frames_in_order``."""
        return frames_in_order(self._reader, self._timeline, first=self._first)


def frames_in_order(
    reader: VideoReader, timeline: Timeline, *, first: int = 0, block_bytes: int = BLOCK_BYTES
) -> Generator[Frame, None, None]:
    """The source's frames as the timeline shows them, numbered and timed as the output's.

    Args:
        reader: of the source.
        timeline: which frame is shown when.
        first: number of the output frame to begin with.
        block_bytes: of planes that may be held while going backwards; one frame always is.

    Raises:
        VideoReadError: while iterating, where the video is damaged or not the one the timeline was made for.
    """
    if timeline.time_base != reader.info.time_base:
        raise _changed(reader)
    with closing(_walk(reader, timeline, first, block_bytes)) as walk:
        for index, frame in enumerate(walk, first):
            yield replace(frame, index=index, pts=int(timeline.pts[index]))


def _walk(reader: VideoReader, timeline: Timeline, begin: int, block_bytes: int) -> Generator[Frame, None, None]:
    """Source frames in the timeline's order from output frame ``begin`` on, as they were read."""
    rows = timeline.rows[begin:]
    steps = np.diff(rows, prepend=timeline.rows[begin - 1] if begin else -1)
    borders = [0, *(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)] if len(rows) else []
    frame: Frame | None = None
    for first, stop in pairwise(borders):
        leg = rows[first:stop]
        first_row, stop_row = int(leg.min()), int(leg.max()) + 1
        if steps[first] == 0:
            frame = frame or next(frames_between(reader, timeline.pts, first_row, stop_row))
            yield from repeat(frame, len(leg))
            continue
        if steps[first] > 0:
            frames = frames_between(reader, timeline.pts, first_row, stop_row)
        else:
            frames = _backwards(reader, timeline.pts, first_row, stop_row, block_bytes)
        for frame in frames:
            yield frame


def _backwards(reader: VideoReader, pts: NDArray[np.int64], first: int, stop: int, block_bytes: int) -> Iterator[Frame]:
    """Frames ``stop - 1`` down to ``first``; ``pts`` are those of the source's frames."""
    while stop > first:
        begin = _block_begin(reader, pts, first, stop, block_bytes)
        block = list(frames_between(reader, pts, begin, stop))
        while block:
            yield block.pop()
        stop = begin


def _block_begin(reader: VideoReader, pts: NDArray[np.int64], first: int, stop: int, block_bytes: int) -> int:
    """Where the block that ends before ``stop`` begins."""
    info = reader.info
    shift_x, shift_y = info.layout.chroma_shift
    samples = info.width * info.height * (1 + 2 / (1 << (shift_x + shift_y)))
    frames = max(int(block_bytes // (samples * (2 if info.layout.bit_depth > 8 else 1))), 1)
    earliest = int(np.searchsorted(pts[:stop], int(pts[stop - 1]) - float(BLOCK_S / info.time_base)))
    return max(first, stop - frames, min(earliest, stop - 1))


def frames_between(reader: VideoReader, pts: NDArray[np.int64], first: int, stop: int) -> Iterator[Frame]:
    """Source frames ``first`` up to ``stop``, all of them or an error.

    Args:
        reader: of the source.
        pts: of its frames from 0 on, as far as they are needed.
        first: frame number.
        stop: frame number after the last one wanted.

    Raises:
        VideoReadError: while iterating, where the video is damaged or has other times.
    """
    wanted = first
    with closing(reader.frames(first, int(pts[first]))) as frames:
        for frame in frames:
            if frame.pts != pts[wanted]:
                raise _changed(reader)
            yield frame
            wanted += 1
            if wanted == stop:
                return
    raise VideoReadError(f"{reader.info.path} ends before frame {wanted}; copy it again")


def _changed(reader: VideoReader) -> VideoReadError:
    return VideoReadError(f"{reader.info.path} has other frame times than when it was prepared; run the job again")
