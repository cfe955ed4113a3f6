"""Part of a video: a stretch whose frame times are known, as a source for ``pipeline.decoding``, or chosen frames."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice

from modules.structures.frame_index import FrameIndex
from modules.structures.frames import Frame
from modules.video.reader import VideoReader


@dataclass(frozen=True, slots=True)
class FrameRange:
    """Frames ``first .. stop`` of a reader; ``stop`` None is the end.

    Attributes:
        reader: of the video.
        index: its frame times, which let reading begin in the middle.
        first: index of the first frame.
        stop: index after the last one.
    """

    reader: VideoReader
    index: FrameIndex
    first: int = 0
    stop: int | None = None

    def frames(self) -> Iterator[Frame]:
        """The frames, in order."""
        frames = self.reader.frames(self.first, int(self.index.pts[self.first]) if self.first else None)
        yield from frames if self.stop is None else islice(frames, self.stop - self.first)


def frames_at(reader: VideoReader, numbers: Collection[int]) -> Iterator[Frame]:
    """The frames of those numbers, in order; nothing after the last of them is decoded."""
    last = max(numbers, default=-1)
    if last < 0:
        return
    for frame in reader.frames():
        if frame.index in numbers:
            yield frame
        if frame.index >= last:
            return
