"""Writing a text file piece by piece: readers see the old file or the whole new one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from modules.commons.errors import OutputError


def write_parts(path: Path, parts: Iterable[str]) -> None:
    """Write ``parts`` one after the other (UTF-8) under a temporary name, then take ``path``'s place.

    Raises:
        OutputError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for part in parts:
                file.write(part)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); choose another folder.") from error
    finally:
        with suppress(OSError):  # there is nothing to remove where nothing could be written
            temporary.unlink()
