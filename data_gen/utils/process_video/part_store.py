"""Finished parts of long work on disk: a killed run goes on with the first part that is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

T = TypeVar("T")


class Savable(Protocol):
    """Anything that writes itself to a file through a temporary name."""

    def save(self, path: Path) -> None:
        """Write to ``path``, whole or not at all."""
        ...


class PartStore:
    """Parts below ``folder``, named by the frame they begin at.

    Args:
        folder: of the parts.
        made_from: text that says what they depend on; parts of anything else are deleted.
    """

    def __init__(self, folder: Path, made_from: str) -> None:
        self.folder = folder
        record = folder / "made_from"
        if not (record.is_file() and record.read_text() == made_from):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            temporary = folder / "made_from.tmp"
            temporary.write_text(made_from)
            temporary.replace(record)

    def path(self, start: int) -> Path:
        return self.folder / f"{start:08d}.npz"

    def has(self, start: int) -> bool:
        """Whether the part that begins at ``start`` is finished."""
        return self.path(start).is_file()

    def save(self, start: int, part: Savable) -> None:
        """Keep a finished part."""
        part.save(self.path(start))

    def load(self, start: int, read: Callable[[Path], T]) -> T:
        """Read a part back."""
        return read(self.path(start))

    def starts(self) -> list[int]:
        """Where the finished parts begin, ascending."""
        return sorted(int(path.stem) for path in self.folder.glob("*.npz") if path.stem.isdecimal())

    def delete(self) -> None:
        """Remove the parts, when their whole is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
