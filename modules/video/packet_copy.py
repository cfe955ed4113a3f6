"""Packets of a file's streams carried into an output unchanged, at their own times, as the picture grows."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.stream import Discard, Stream

from modules.commons.errors import AudioReadError


class CopiedStreams:
    """Copies packets of several streams of one file; it is read once, in its own order.

    Memory is one packet and what the muxer holds between the streams.

    Args:
        path: of the file, for messages.
        source: the file, opened; closed with this object.
        targets: stream index in the file → the output's stream.
        output: that all targets belong to.
    """

    def __init__(
        self, path: Path, source: InputContainer, targets: Mapping[int, Stream], output: OutputContainer
    ) -> None:
        self._path, self._source, self._output, self._targets = path, source, output, dict(targets)
        for stream in source.streams:
            if stream.index not in targets:
                stream.discard = Discard.all  # the picture need not be read from the disk
        self._packets = source.demux([source.streams[index] for index in targets])
        self._waiting: av.Packet | None = None

    def advance(self, until_s: Fraction) -> None:
        """Copy packets up to the first one that is shown at or after ``until_s``.

        Raises:
            AudioReadError: the file is damaged here.
        """
        while (packet := self._next()) is not None:
            if _time_s(packet) >= until_s:
                self._waiting = packet
                return
            self._copy(packet)

    def finish(self, until_s: Fraction) -> None:
        """Copy what is left before ``until_s``; a file may hold a stream's packets long after another's."""
        open_streams = set(self._targets)
        while open_streams and (packet := self._next()) is not None:
            if _time_s(packet) < until_s:
                self._copy(packet)
            else:
                open_streams.discard(packet.stream_index)

    def close(self) -> None:
        """Release the file."""
        self._source.close()

    def _next(self) -> av.Packet | None:
        """The next packet that holds data, None after the last."""
        packet, self._waiting = self._waiting, None
        try:
            while packet is None or not packet.size:  # the last, empty ones only flush decoders
                packet = next(self._packets)
        except StopIteration:
            return None
        except av.error.FFmpegError as error:
            raise AudioReadError(f"{self._path} has damaged sound ({error.strerror}); re-encode it") from error
        return packet

    def _copy(self, packet: av.Packet) -> None:
        if packet.dts is None:  # cover pictures have no time
            packet.dts = packet.pts = packet.pts or 0
        packet.stream = self._targets[packet.stream_index]
        self._output.mux(packet)


def _time_s(packet: av.Packet) -> Fraction:
    time = packet.dts if packet.pts is None else packet.pts
    return Fraction(time or 0) * packet.time_base
