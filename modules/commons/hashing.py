"""Hashes of files, by which work that was done before is known again."""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_sha256(path: Path) -> str:
    """The hash of a file's content; memory does not grow with it.

    Raises:
        OSError: when the file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
