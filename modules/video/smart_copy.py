"""Which stretches of a source go into an output as they are, packet by packet, and what makes that legal.

Reads: the source's packets; nothing is decoded. A stretch can be copied from a frame at which decoding may begin anew
(an IDR picture) up to any frame whose packets all come before those of later frames; what is shown before a picture it
is decoded after (an open group) is never torn from it. Everything else is encoded anew.

One stream then holds pictures of two encoders, with two kinds of parameter sets. In H.264 ours get numbers that the
source does not use and all lie in the file's header, as the standard wants it. H.265's encoder cannot be given numbers,
so every key picture carries its own sets (the 'hev1' kind of MP4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from modules.commons.errors import OutputError, VideoReadError
from modules.structures.frames import VideoInfo
from modules.structures.spans import runs_of
from modules.video.codecs import Codec, EncodeConfig, codec_for
from modules.video.encoders import with_parameter_set_id
from modules.video.parameter_sets import Family, StreamHeaders, h264_ids, h264_merged, joined, read_headers, units_of
from modules.video.passengers import is_cover

_ENCODER_OF: dict[Family, str] = {"h264": "libx264", "hevc": "libx265"}
_MOST_SETS = 32
_SEEK_EARLIER_S = (0, 2, 30, 10_000)
SHORTEST_RUN = 8
"""Shorter stretches are encoded: each costs two key pictures, and nobody sees so few frames."""


@dataclass(frozen=True, slots=True)
class CopiedRun:
    """Frames ``first`` up to, not including, ``stop``, whose packets are copied."""

    first: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.first < self.stop:
            raise ValueError(f"a run covers at least one frame from 0 on, got {self.first} up to {self.stop}")


@dataclass(frozen=True, slots=True, eq=False)
class CopyPlan:
    """What of a source is copied into an output.

    Attributes:
        path: the source.
        runs: in order; where two meet, the second goes on where the first ended.
        pts: int64 ``[N]`` times of the source's frames.
        codec: that encodes the rest, so that its pictures can lie beside the source's.
        headers: the source's.
    """

    path: Path
    runs: tuple[CopiedRun, ...]
    pts: NDArray[np.int64]
    codec: Codec
    headers: StreamHeaders

    @property
    def frames(self) -> int:
        """How many frames are copied."""
        return sum(run.stop - run.first for run in self.runs)

    @property
    def repeats_sets(self) -> bool:
        """Whether every key picture carries the parameter sets it needs."""
        return self.headers.family == "hevc"

    def file_headers(self, own: bytes) -> bytes:
        """The output's parameter sets with start codes, given those ``own`` of the encoder."""
        return own if self.repeats_sets else h264_merged(units_of(own), self.headers.sets)

    def packets(self, run: CopiedRun) -> Iterator[av.Packet]:
        """The packets of a run in decoding order, units unchanged behind start codes, at the source's times.

        Raises:
            VideoReadError: the source is not what the plan was made for.
        """
        first, last, count = int(self.pts[run.first]), int(self.pts[run.stop - 1]), run.stop - run.first
        sets = self.headers.annex_b if self.repeats_sets else b""
        with _opened(self.path) as (container, stream):
            found = (packet for packet in _packets_from(container, stream, first) if first <= (packet.pts or 0) <= last)
            for packet in islice(found, count):
                count -= 1
                yield self._copied(packet, sets, first)
        if count:
            raise VideoReadError(f"{self.path} has other packets than when it was looked at; run the job again")

    def _copied(self, packet: av.Packet, sets: bytes, first: int) -> av.Packet:
        data = self.headers.with_start_codes(bytes(packet))
        copied = av.Packet((sets if packet.is_keyframe else b"") + data)
        # Only the order counts: the writer gives all packets decoding times when it joins them.
        copied.pts, copied.dts, copied.duration = packet.pts, first, packet.duration
        copied.is_keyframe = packet.is_keyframe
        return copied


@dataclass(frozen=True, slots=True, eq=False)
class _Packets:
    """What a source's packets are, in decoding order: times, and whether decoding may begin there anew."""

    pts: NDArray[np.int64]
    refreshes: NDArray[np.bool_]

    @property
    def before(self) -> NDArray[np.int64]:
        """``[n + 1]``: the latest time of the packets before position i."""
        return np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(self.pts)])

    @property
    def after(self) -> NDArray[np.int64]:
        """``[n + 1]``: the earliest time of the packets from position i on."""
        return np.concatenate([np.minimum.accumulate(self.pts[::-1])[::-1], [np.iinfo(np.int64).max]])

    @property
    def cuts(self) -> NDArray[np.bool_]:
        """bool ``[n + 1]``: whether all packets before position i are shown before all from i on."""
        return self.before < self.after


def check_copyable(path: Path, info: VideoInfo, suffix: str, quality: EncodeConfig) -> None:
    """Find out before any work whether packets of a source can lie in the output.

    Raises:
        OutputError: they cannot; the sentence says why.
    """
    with _opened(path) as (_, stream):
        _fitting(path, stream, info, suffix, quality)


def plan_copies(
    path: Path, info: VideoInfo, suffix: str, quality: EncodeConfig,
    pts: NDArray[np.int64], touched: NDArray[np.bool_], per_run: int,
) -> CopyPlan:  # fmt: skip
    """Find the stretches of a source that can be copied.

    Args:
        path: the source.
        info: of it.
        suffix: of the output.
        quality: of what is encoded; where it names no codec, the source's own is taken.
        pts: int64 ``[N]`` times of the source's frames from the first on.
        touched: bool ``[N]``: frames that are not the source's own in the output.
        per_run: longer stretches are divided near every so many frames, so that a killed job keeps what it had.

    Raises:
        OutputError: packets of this source cannot lie in the output.
        VideoReadError: the source is damaged.
    """
    with _opened(path) as (container, stream):
        codec, headers = _fitting(path, stream, info, suffix, quality)
        packets = _scan(path, container, stream, headers)
    runs = tuple(_divided(packets, pts, _runs(packets, pts, touched), per_run))
    return CopyPlan(path, runs, pts, codec, headers)


def _fitting(
    path: Path, stream: VideoStream, info: VideoInfo, suffix: str, quality: EncodeConfig
) -> tuple[Codec, StreamHeaders]:
    """The encoder whose pictures can lie beside a source's, and the source's headers."""
    name = stream.codec_context.name
    if name not in _ENCODER_OF:
        raise OutputError(f"--smart_copy copies h264 and hevc, but {path} holds {name}; leave it out")
    family = cast(Family, name)
    codec = codec_for(info, suffix, replace(quality, codec=family) if quality.codec == "auto" else quality)
    if codec.name != _ENCODER_OF[family]:
        raise OutputError(
            f"--smart_copy keeps parts of {path} as {name}, but the rest would be made by {codec.name}; leave out "
            "--codec and --encoder, or --smart_copy"
        )  # fmt: skip
    if info.is_interlaced:
        raise OutputError(f"--smart_copy: {path} is interlaced, whose packets are not whole frames; leave it out")
    stored = (stream.codec_context.pix_fmt or "").replace("yuvj", "yuv")
    if stored != info.layout.pixel_format:
        raise OutputError(f"--smart_copy: the {stored} of {path} becomes {info.layout.pixel_format}; leave it out")
    try:
        headers = read_headers(family, stream.codec_context.extradata or b"")
    except ValueError as error:
        raise OutputError(f"--smart_copy cannot copy from {path}: {error}; leave it out") from error
    return _beside(codec, headers, path, suffix), headers


def _beside(codec: Codec, headers: StreamHeaders, path: Path, suffix: str) -> Codec:
    """The encoder with what lets its pictures lie beside the source's."""
    if headers.family == "hevc":
        if suffix == ".mkv":
            return codec
        loss = "with --smart_copy its H.265 is of the kind hev1, which Apple's players do not show; .mkv is the same"
        return replace(codec, tag="hev1", losses=(*codec.losses, loss))
    free = sorted(set(range(_MOST_SETS)) - h264_ids(headers.sets))
    if not free:
        raise OutputError(f"--smart_copy: {path} uses every number of parameter sets there is; leave it out")
    return with_parameter_set_id(codec, free[0])


def _scan(path: Path, container: InputContainer, stream: VideoStream, headers: StreamHeaders) -> _Packets:
    """Look at every packet."""
    pts, refreshes = [], []
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None:
                raise OutputError(f"--smart_copy: the packets of {path} state no times; leave it out")
            pts.append(packet.pts)
            refreshes.append(packet.is_keyframe and headers.refreshes(bytes(packet)))
    except (ValueError, av.error.FFmpegError) as error:
        raise VideoReadError(f"{path} has damaged packets ({error}); copy or re-encode it") from error
    return _Packets(np.array(pts, np.int64), np.array(refreshes, bool))


def _runs(packets: _Packets, pts: NDArray[np.int64], touched: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Positions [first, stop) of the packets of every stretch that can be copied whole."""
    before, after, cuts = packets.before, packets.after, packets.cuts
    starts = np.flatnonzero(cuts[:-1] & packets.refreshes)
    for first, stop in runs_of(~touched):
        begin_pts, end_pts = int(pts[first]), int(pts[stop] if stop < len(pts) else pts[-1] + 1)
        begins = starts[(after[starts] >= begin_pts) & (packets.pts[starts] < end_pts)]
        if not len(begins):
            continue
        begin, end = int(begins[0]), int(np.flatnonzero(cuts & (before < end_pts))[-1])
        if end - begin >= SHORTEST_RUN and _are_the_frames(packets.pts[begin:end], pts):
            yield begin, end


def _are_the_frames(packets: NDArray[np.int64], pts: NDArray[np.int64]) -> bool:
    """Whether packets are whole frames, each shown, none missing."""
    shown = np.sort(packets)
    first = int(np.searchsorted(pts, shown[0]))
    return np.array_equal(pts[first : first + len(shown)], shown)


def _divided(
    packets: _Packets, pts: NDArray[np.int64], runs: Iterator[tuple[int, int]], per_run: int
) -> Iterator[CopiedRun]:
    """The stretches as frames, divided where that is possible."""
    cuts = packets.cuts
    for begin, end in runs:
        while begin < end:
            stop = end
            if end - begin > per_run:
                possible = np.flatnonzero(cuts[begin + per_run : end + 1])
                stop = begin + per_run + int(possible[0]) if len(possible) else end
            first = int(np.searchsorted(pts, packets.pts[begin:stop].min()))
            yield CopiedRun(first, first + stop - begin)
            begin = stop


def _packets_from(container: InputContainer, stream: VideoStream, pts: int) -> Iterator[av.Packet]:
    """Packets from a key packet on that is decoded before whatever is shown from ``pts`` on.

    Containers seek by decoding times too, which may lead to a later key packet; then from further back.
    """
    assert stream.time_base is not None
    for earlier_s in _SEEK_EARLIER_S:
        container.seek(pts - round(earlier_s / stream.time_base), stream=stream, backward=True, any_frame=False)
        packets = (packet for packet in container.demux(stream) if packet.size)
        landed = next(packets, None)
        if landed is not None and landed.pts is not None and landed.pts <= pts:
            yield landed
            yield from packets
            return


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoReadError(f"{path} cannot be opened for its packets ({error})") from error
    with container:
        yield container, next(stream for stream in container.streams.video if not is_cover(stream))


def with_sets(packet: av.Packet, headers: bytes) -> av.Packet:
    """A key packet of an encoder that carries its parameter sets; others as they are."""
    if not packet.is_keyframe:
        return packet
    complete = av.Packet(joined(units_of(headers)) + bytes(packet))
    complete.pts, complete.dts, complete.duration = packet.pts, packet.dts, packet.duration
    complete.time_base, complete.is_keyframe = packet.time_base, True
    return complete
