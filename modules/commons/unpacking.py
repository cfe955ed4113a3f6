"""Chosen members out of a zip archive, and nothing else: no path leads out, no link, no surprise in size."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from modules.commons.errors import ModelFileError, OutputError, first_line

_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, KeyError)
"""What reading an archive that is damaged, encrypted or packed in a way unknown here raises."""


def unpack_members(archive: Path, folder: Path, patterns: Sequence[str]) -> tuple[str, ...]:
    """Take the members whose names fit a pattern out of an archive.

    Args:
        archive: zip file. A first folder in it that is called like ``folder`` is left out.
        folder: where they go; files of the same names are replaced, others stay.
        patterns: for the last part of a name, such as ``*.ckpt``.

    Returns:
        Paths of what was taken, relative to ``folder``, in order.

    Raises:
        ModelFileError: damaged, no member fits, or one that fits leads out of the folder.
        OutputError: no room, or the folder cannot be written.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            chosen = _chosen(opened, archive, folder.name, patterns)
            _check_space(sum(info.file_size for info in chosen.values()), folder.parent, archive)
            return _write(opened, chosen, folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}); check room and rights") from error
    except _DAMAGE as error:
        raise ModelFileError(f"{archive}: cannot be unpacked ({first_line(error)}); fetch it again") from error


def _chosen(
    opened: zipfile.ZipFile, archive: Path, name: str, patterns: Sequence[str]
) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Members by the path they get."""
    chosen: dict[PurePosixPath, zipfile.ZipInfo] = {}
    for info in opened.infolist():
        path = PurePosixPath(info.filename)
        if info.is_dir() or not any(fnmatch(path.name, pattern) for pattern in patterns):
            continue
        if path.is_absolute() or ".." in path.parts or "\\" in info.filename or stat.S_ISLNK(info.external_attr >> 16):
            raise ModelFileError(f"{archive}: refused: {info.filename!r} in it leads out of its folder")
        inner = path.relative_to(name) if path.parts[0] == name and len(path.parts) > 1 else path
        if inner in chosen:
            raise ModelFileError(f"{archive}: refused: it holds {str(inner)!r} twice")
        chosen[inner] = info
    if not chosen:
        raise ModelFileError(f"{archive}: holds nothing called {' or '.join(patterns)}; it is another archive")
    return chosen


def _check_space(needed: int, place: Path, archive: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OutputError(
            f"{archive}: unpacking needs {needed / 1e6:.0f} MB in {place}, {free / 1e6:.0f} MB are free; make room"
        )


def _write(opened: zipfile.ZipFile, chosen: dict[PurePosixPath, zipfile.ZipInfo], folder: Path) -> tuple[str, ...]:
    """Members go into a folder beside the target first, so that none is half there under its name."""
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.tmp.", dir=folder.parent) as temporary:
        for inner, info in chosen.items():
            made = Path(temporary) / inner
            made.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(info) as packed, made.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)
        for inner in chosen:
            target = folder / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            (Path(temporary) / inner).replace(target)
    return tuple(sorted(str(inner) for inner in chosen))
