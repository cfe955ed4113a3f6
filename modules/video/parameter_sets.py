"""H.264's and H.265's units and parameter sets as bytes: what lets packets of two encoders lie in one stream.

A stream's packets come either with start codes (Annex B of both standards) or with each unit's length before it, as
MP4 and Matroska store them (ISO/IEC 14496-15); its parameter sets then lie in a record of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

START_CODE = b"\x00\x00\x00\x01"
_SHORT_START = b"\x00\x00\x01"
_H264_SPS, _H264_PPS, _H264_IDR = 7, 8, 5
_HEVC_SETS, _HEVC_IDR = frozenset({32, 33, 34}), frozenset({19, 20})
"""Video, sequence and picture parameter sets; instantaneous refreshes with and without leading pictures."""
_AVCC_HEAD, _HVCC_HEAD = 6, 23
"""Bytes of the records before their first list of parameter sets."""

Family = Literal["h264", "hevc"]


@dataclass(frozen=True, slots=True)
class StreamHeaders:
    """What decoders of a stream must know first.

    Attributes:
        family: which standard.
        sets: its parameter sets, each without a start code.
        length_size: bytes of the length before each unit of a packet; 0 = start codes.
    """

    family: Family
    sets: tuple[bytes, ...]
    length_size: int

    @property
    def annex_b(self) -> bytes:
        """The parameter sets with start codes."""
        return joined(self.sets)

    def with_start_codes(self, packet: bytes) -> bytes:
        """The packet's units, unchanged, behind start codes.

        Raises:
            ValueError: the packet is not what the headers say.
        """
        return packet if not self.length_size else joined(_length_prefixed(packet, self.length_size))

    def refreshes(self, packet: bytes) -> bool:
        """Whether a packet begins anew: nothing from it on refers to what came before.

        Raises:
            ValueError: the packet is not what the headers say.
        """
        units = _length_prefixed(packet, self.length_size) if self.length_size else units_of(packet)
        if self.family == "h264":
            return any(unit[0] & 31 == _H264_IDR for unit in units if unit)
        return any(_hevc_type(unit) in _HEVC_IDR for unit in units if unit)


def read_headers(family: Family, extradata: bytes) -> StreamHeaders:
    """Parse a stream's extradata, as a record or with start codes.

    Raises:
        ValueError: it is neither, or holds no parameter set.
    """
    try:
        if extradata[:1] != b"\x01":
            headers = StreamHeaders(family, tuple(unit for unit in units_of(extradata) if _is_set(family, unit)), 0)
        elif family == "h264":
            headers = _read_avcc(extradata)
        else:
            headers = _read_hvcc(extradata)
    except IndexError as error:
        raise ValueError(f"the {family} headers are cut off") from error
    if not headers.sets:
        raise ValueError(f"the {family} stream's headers hold no parameter set")
    return headers


def joined(units: Iterable[bytes]) -> bytes:
    """Units behind start codes."""
    return b"".join(START_CODE + unit for unit in units)


def units_of(data: bytes) -> list[bytes]:
    """The units of data with start codes of three or four bytes; no unit ends with a zero byte."""
    parts = data.split(_SHORT_START)[1:]
    return [unit for unit in (part.rstrip(b"\x00") for part in parts) if unit]


def h264_ids(sets: Iterable[bytes]) -> set[int]:
    """Numbers in use by the sequence and picture parameter sets of an H.264 stream."""
    found = set()
    for unit in sets:
        if unit[0] & 31 == _H264_SPS:
            found.add(_first_ue(unit[4:]))  # behind the unit's head, profile, constraints and level
        elif unit[0] & 31 == _H264_PPS:
            found.add(_first_ue(unit[1:]))
    return found


def h264_merged(*streams: Iterable[bytes]) -> bytes:
    """The parameter sets of several H.264 streams for one record, the most demanding sequence first.

    The record states profile and level of its first sequence, which decoders choose themselves by.
    """
    units = [unit for stream in streams for unit in stream]
    sequences = sorted((u for u in units if u[0] & 31 == _H264_SPS), key=lambda u: (u[1], u[3]), reverse=True)
    return joined([*sequences, *(u for u in units if u[0] & 31 == _H264_PPS)])


def _is_set(family: Family, unit: bytes) -> bool:
    return unit[0] & 31 in (_H264_SPS, _H264_PPS) if family == "h264" else _hevc_type(unit) in _HEVC_SETS


def _hevc_type(unit: bytes) -> int:
    return unit[0] >> 1 & 63


def _read_avcc(data: bytes) -> StreamHeaders:
    """AVCDecoderConfigurationRecord, ISO/IEC 14496-15, 5.3.3.1."""
    length_size = (data[4] & 3) + 1
    sets, at = [], _AVCC_HEAD
    for mask in (31, 255):  # sequence sets' count shares its byte
        count, at = data[at - 1] & mask, at
        for _ in range(count):
            unit, at = _sized(data, at)
            sets.append(unit)
        at += 1
    return StreamHeaders("h264", tuple(sets), length_size)


def _read_hvcc(data: bytes) -> StreamHeaders:
    """HEVCDecoderConfigurationRecord, ISO/IEC 14496-15, 8.3.3.1."""
    length_size, at = (data[21] & 3) + 1, _HVCC_HEAD
    sets = []
    for _ in range(data[22]):
        count = int.from_bytes(data[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            unit, at = _sized(data, at)
            if _is_set("hevc", unit):
                sets.append(unit)
    return StreamHeaders("hevc", tuple(sets), length_size)


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    """A unit behind its length of two bytes, and where the next one begins."""
    size = int.from_bytes(data[at : at + 2], "big")
    unit = data[at + 2 : at + 2 + size]
    if not size or len(unit) < size:
        raise ValueError("a stream's headers are cut off")
    return unit, at + 2 + size


def _length_prefixed(packet: bytes, length_size: int) -> Iterator[bytes]:
    at = 0
    while at < len(packet):
        size = int.from_bytes(packet[at : at + length_size], "big")
        at += length_size
        if at + size > len(packet):
            raise ValueError("a packet's unit reaches beyond its end")
        if size:
            yield packet[at : at + size]
        at += size


def _first_ue(data: bytes) -> int:
    """The first Exp-Golomb number of a unit's payload (H.264, 9.1)."""
    payload = data[:16].replace(b"\x00\x00\x03", b"\x00\x00")
    bits = "".join(f"{byte:08b}" for byte in payload)
    zeros = bits.index("1")
    return int(bits[zeros : 2 * zeros + 1], 2) - 1
