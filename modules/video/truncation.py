"""Tell from a container's own index that its end is missing, before hours are spent on the rest."""

from __future__ import annotations

from pathlib import Path

from av.video.stream import VideoStream

_EBML_HEADER = b"\x1a\x45\xdf\xa3"
_EBML_SEGMENT = b"\x18\x53\x80\x67"


def missing_bytes(path: Path, format_name: str, stream: VideoStream) -> int:
    """How many bytes the file's index promises beyond its end; 0 when it is whole or the container cannot tell.

    Args:
        path: the file itself, for its size and a Matroska header.
        format_name: FFmpeg's demuxer name, such as ``mov,mp4,m4a,3gp,3g2,mj2``.
        stream: its index entries are read for MP4 and MOV.
    """
    names = format_name.split(",")
    if "mp4" in names:
        promised = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    elif "matroska" in names:
        promised = _matroska_end(path)
    else:
        return 0
    return max(promised - path.stat().st_size, 0)


def _matroska_end(path: Path) -> int:
    """Where the Segment says it ends, 0 when its size is unknown (live recordings)."""
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.startswith(_EBML_HEADER):
        return 0
    size, start = _ebml_size(head, 4)
    at = start + size
    if size < 0 or head[at : at + 4] != _EBML_SEGMENT:
        return 0
    size, start = _ebml_size(head, at + 4)
    return start + size if size >= 0 else 0


def _ebml_size(data: bytes, at: int) -> tuple[int, int]:
    """(value or -1 when unknown, position after it) of an EBML variable-length size."""
    if at >= len(data) or data[at] == 0:
        return -1, at
    length = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
    return (-1 if value == (1 << 7 * length) - 1 else value), at + length
