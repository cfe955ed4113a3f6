"""Encoded packets on disk exactly as the encoder gave them: what a segment of an unfinished video is kept in.

No container is exact for every codec and time base; this one is a header per packet and its bytes.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import av

_HEADER = struct.Struct("<qqqBI")
"""pts, dts, duration, is a keyframe, number of bytes."""
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class WrittenPackets:
    """What a closed file holds.

    Attributes:
        pts: of the packets, in decoding order.
        delay: how many frames decoding runs ahead of showing.
        sha256: of the file.
    """

    pts: tuple[int, ...]
    delay: int
    sha256: str


class PacketFileWriter:
    """Appends packets to a new file and hashes it on the way; used as a context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._hash = hashlib.sha256()
        self._pts: list[int] = []
        self._early = 0

    def __enter__(self) -> PacketFileWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, packet: av.Packet) -> None:
        """Append one packet of an encoder.

        Raises:
            ValueError: when it has no time.
            OSError: when the disk is full.
        """
        if packet.pts is None:
            raise ValueError("a packet without a time cannot be kept")
        dts = packet.pts if packet.dts is None else packet.dts
        self._pts.append(packet.pts)
        self._early += dts < self._pts[0]
        data = bytes(packet)
        header = _HEADER.pack(packet.pts, dts, packet.duration or 0, packet.is_keyframe, len(data))
        for part in (header, data):
            self._file.write(part)
            self._hash.update(part)

    def written(self) -> WrittenPackets:
        """What was written so far."""
        return WrittenPackets(tuple(self._pts), max(self._early, _reordering(self._pts)), self._hash.hexdigest())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_packets(path: Path) -> Iterator[av.Packet]:
    """The packets in the order they were written; their time base and stream are the caller's."""
    with path.open("rb") as file:
        while header := file.read(_HEADER.size):
            pts, dts, duration, is_keyframe, size = _HEADER.unpack(header)
            packet = av.Packet(file.read(size))
            packet.pts, packet.dts, packet.duration = pts, dts, duration
            packet.is_keyframe = bool(is_keyframe)
            yield packet


def _reordering(pts: list[int]) -> int:
    """How many frames at most are decoded before one that is shown earlier."""
    rank = {time: k for k, time in enumerate(sorted(pts))}
    return max((n - rank[time] for n, time in enumerate(pts)), default=0)
