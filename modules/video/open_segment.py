"""One segment of an unfinished video while it grows: pictures being encoded, or packets that a source already has."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

import av
import numpy as np

from modules.commons.errors import OutputError
from modules.structures.frames import Frame, VideoInfo
from modules.video.codecs import Codec, encodable
from modules.video.packet_file import PacketFileWriter, WrittenPackets
from modules.video.reader import VideoReader
from modules.video.smart_copy import CopiedRun, CopyPlan, with_sets
from modules.video.writer import add_picture, open_container

FRAMES_PER_SEGMENT = 128
"""What a kill costs at most; a keyframe every five seconds costs next to nothing."""
_MATROSKA_TICK_S = Fraction(1, 1000)


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Where segments begin and end, whatever interrupts the job.

    Attributes:
        per_segment: frames of an encoded segment; fewer where a copied one follows.
        runs: copied segments, in order.
    """

    per_segment: int
    runs: tuple[CopiedRun, ...] = ()

    def __post_init__(self) -> None:
        if self.per_segment < 1:
            raise ValueError(f"a segment holds at least one frame, got {self.per_segment}")
        ends = [border for run in self.runs for border in (run.first, run.stop)]
        if ends != sorted(ends):
            raise ValueError("copied segments overlap or are out of order")

    def run_from(self, first: int) -> CopiedRun | None:
        """The copied segment that begins with frame ``first``, None where an encoded one does."""
        return next((run for run in self.runs if run.first == first), None)

    def stop_of(self, first: int) -> int:
        """The frame after the last one of the segment that begins with frame ``first``."""
        run = self.run_from(first)
        if run is not None:
            return run.stop
        begins = [run.first for run in self.runs if run.first > first]
        return min([first + self.per_segment, *begins[:1]])

    def ends_with(self, index: int) -> bool:
        """Whether frame ``index`` is the last one of its segment."""
        if any(run.first <= index < run.stop for run in self.runs):
            return any(run.stop == index + 1 for run in self.runs)
        begin = max((run.stop for run in self.runs if run.stop <= index), default=0)
        is_followed = any(run.first == index + 1 for run in self.runs)
        return is_followed or (index + 1 - begin) % self.per_segment == 0


class OpenSegment(Protocol):
    """A segment being written."""

    n_frames: int
    checks: list[int]

    def write(self, frame: Frame) -> None:
        """Take the next frame."""
        ...

    def finish(self) -> WrittenPackets:
        """Close the packets' file, now complete."""
        ...

    def close(self) -> None:
        """Let go of everything; the file may be incomplete."""
        ...


class Encoder:
    """The output's own encoder without an output: its container is never started, so no file is made."""

    def __init__(self, folder: Path, info: VideoInfo, codec: Codec, suffix: str) -> None:
        self.codec = codec
        self._container = open_container(folder / f"never_written{suffix}", info)
        self.stream = add_picture(self._container, info, codec)

    def headers(self) -> bytes:
        """What decoders need to know first; it opens the encoder."""
        self.stream.codec_context.open(strict=False)
        return self.stream.codec_context.extradata or b""

    def close(self) -> None:
        """Let go of the encoder: unclosed, stream and container would keep each other and its memory alive."""
        self._container.close()


class EncodedSegment:
    """A fresh encoder and its packets' file.

    Args:
        path: of the packets; replaced.
        info: of the video.
        encoder: fresh.
        repeats_sets: every key packet shall carry the parameter sets it needs.
    """

    def __init__(self, path: Path, info: VideoInfo, encoder: Encoder, repeats_sets: bool = False) -> None:
        self._turns = info.rotation_deg // 90
        self._encoder = encoder
        self._headers = encoder.headers() if repeats_sets else b""
        self._time_base: Fraction = info.time_base
        path.unlink(missing_ok=True)
        self._file = PacketFileWriter(path)
        self.n_frames = 0
        self.checks: list[int] = []

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        self._keep(self._encoder.stream.encode(encodable(frame, self._turns, self._encoder.codec.pixel_format)))
        self.n_frames += 1

    def finish(self) -> WrittenPackets:
        """Flush the encoder and close the file."""
        self._keep(self._encoder.stream.encode(None))
        self.close()
        written = self._file.written()
        if len(written.pts) != self.n_frames:
            raise OSError(f"the encoder gave {len(written.pts)} packets for {self.n_frames} frames")
        return written

    def close(self) -> None:
        """Let go of encoder and file."""
        self._file.close()
        self._encoder.close()

    def _keep(self, packets: Iterable[av.Packet]) -> None:
        for packet in packets:
            if packet.time_base != self._time_base:
                raise OSError(f"the encoder counts time in {packet.time_base}, not in {self._time_base}")
            self._file.write(with_sets(packet, self._headers) if self._headers else packet)


class CopiedSegment:
    """Packets of the source; the decoded frames only tell what they must become again.

    Args:
        path: of the packets; replaced.
        copies: what is copied.
        run: which of it.
    """

    def __init__(self, path: Path, copies: CopyPlan, run: CopiedRun) -> None:
        self._copies, self._run = copies, run
        path.unlink(missing_ok=True)
        self._file = PacketFileWriter(path)
        self.n_frames = 0
        self.checks: list[int] = []

    def write(self, frame: Frame) -> None:
        """Note what a frame is."""
        self.checks.append(frame_check(frame))
        self.n_frames += 1

    def finish(self) -> WrittenPackets:
        """Copy the packets and close the file."""
        for packet in self._copies.packets(self._run):
            self._file.write(packet)
        self.close()
        return self._file.written()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def frame_check(frame: Frame) -> int:
    """A number that another picture hardly has: CRC-32 of all planes."""
    check = 0
    for plane in frame.planes:
        check = zlib.crc32(np.ascontiguousarray(plane).data, check)
    return check


def check_frames(path: Path, written: Iterable[tuple[int, int | None]], time_base: Fraction) -> None:
    """See that a video holds just the frames that were written, each at its time.

    Args:
        path: of the video, which is decoded once.
        written: of every frame the time and its ``frame_check``; None = encoded, so only its time counts.
        time_base: of those times.

    Raises:
        OutputError: a frame is missing, comes at another time, or is another picture.
    """
    with VideoReader(path) as reader:
        slack = 0 if reader.info.time_base == time_base else _MATROSKA_TICK_S / 2
        pairs: Iterator[tuple[Frame | None, tuple[int, int | None] | None]] = zip_longest(reader.frames(), written)
        for number, (frame, wanted) in enumerate(pairs):
            if frame is None or wanted is None:
                wrong = "is missing" if frame is None else "is one too many"
            elif abs(frame.time_s - wanted[0] * time_base) > slack:
                wrong = "is shown at another time"
            elif wanted[1] is not None and frame_check(frame) != wanted[1]:
                wrong = "does not decode to the source's own"
            else:
                continue
            raise OutputError(f"--smart_copy: frame {number} of the result {wrong}; run again without --smart_copy")
