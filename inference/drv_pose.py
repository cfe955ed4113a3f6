"""``--drv_pose``: which frames of the person's clip, or whose head, the classic command plays."""

from __future__ import annotations

from pathlib import Path

from modules.commons.errors import ConfigError

USAGE = (
    "use nearest (the clip back and forth), static (frame 0), A-B such as 0-100 (frames A up to, not including, B) or, "
    "for a portrait, a video whose head is followed"
)


def parse_drv_pose(text: str) -> tuple[int, int | None]:
    """Frames ``[first, stop)`` of the person's clip that ``--drv_pose`` means; stop None = the clip's end.

    Raises:
        ConfigError: not 'nearest', 'static' or 'A-B' with A < B.
    """
    if text in ("nearest", "static"):
        return 0, 1 if text == "static" else None
    first, _, stop = text.partition("-")
    if not (first.isdecimal() and stop.isdecimal() and int(first) < int(stop)):
        raise ConfigError(f"--drv_pose {text!r}: {USAGE}")
    return int(first), int(stop)


def pose_video(text: str) -> Path | None:
    """The video whose head is to be followed; None where ``--drv_pose`` names frames of the person's clip.

    Raises:
        ConfigError: it names neither.
    """
    path = Path(text)
    if text and path.is_file():
        return path
    parse_drv_pose(text)
    return None
