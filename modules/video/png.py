"""Pictures written as PNG files."""

from __future__ import annotations

import contextlib
from pathlib import Path

import cv2

from modules.commons.errors import OutputError
from modules.structures.frames import RgbImage


def write_png(image: RgbImage, target: Path) -> None:
    """Write a picture by way of a temporary name.

    Raises:
        OutputError: it cannot be written.
    """
    encoded = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    temporary = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(encoded.tobytes())
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):  # its folder may not be one
            temporary.unlink(missing_ok=True)
        raise OutputError(f"{target}: cannot be written ({error.strerror}); choose another place") from error
