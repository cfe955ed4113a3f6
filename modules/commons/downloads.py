"""What may be fetched on request and cannot be shipped: ``checkpoints/downloads.json``, and what was fetched of it.

Reads: that manifest, ``checkpoints/downloads.lock.json``. Writes: the files it lists, the lock.

A file's sha256 is pinned in the manifest wherever it is publicly known. Where it is not (``null``), the first copy is
trusted: its hash is told, kept in the lock and demanded ever after.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from modules.commons.config import load_config
from modules.commons.errors import OutputError
from modules.commons.hashing import file_sha256
from modules.commons.http_fetch import is_safe_address
from modules.commons.workspace import DOWNLOADS_FILE

FileKind = Literal["json", "yaml", "torch", "zip", "npy", "tflite", "mp4", "mat"]
FileState = Literal["missing", "verified", "unknown", "altered"]
"""Not there, or there: with the hash wanted, with nothing to compare with, with another hash."""
_HOMES = ("checkpoints", "data")


@dataclass(frozen=True, slots=True)
class DownloadFile:
    """One file of a set.

    Attributes:
        path: where it goes, relative to the repository, below checkpoints/ or data/. Of an archive that is unpacked
            this names the archive, and its members go into the folder of the same name without the suffix.
        kind: what it is, by which its first bytes are checked.
        urls: addresses, tried in order; none = it is put there by hand.
        size: exact bytes; None = not publicly known.
        sha256: None = not publicly known: the first copy is trusted.
        unpack: patterns of the members that are taken out of an archive; none = it is kept as it is.
        about: what it is for.
    """

    path: str
    kind: FileKind
    urls: tuple[str, ...] = ()
    size: int | None = None
    sha256: str | None = None
    unpack: tuple[str, ...] = ()
    about: str = ""

    def __post_init__(self) -> None:
        parts = Path(self.path).parts
        if Path(self.path).is_absolute() or ".." in parts or len(parts) < 2 or parts[0] not in _HOMES:
            raise ValueError(f"{self.path} does not lie below checkpoints/ or data/")
        unsafe = [url for url in self.urls if not is_safe_address(url)]
        if unsafe:
            raise ValueError(f"{unsafe[0]}: only https is used")
        if self.sha256 is not None and (len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef")):
            raise ValueError(f"{self.path}: sha256 must be 64 hexadecimal digits")
        if self.unpack and self.kind != "zip":
            raise ValueError(f"{self.path}: only a zip is unpacked")

    @property
    def folder(self) -> str:
        """Where members of an archive go."""
        return str(Path(self.path).with_suffix(""))


@dataclass(frozen=True, slots=True)
class DownloadSet:
    """Files that are wanted together, under one licence.

    Attributes:
        name: what the command calls it.
        about: what it is for.
        licence: in a word. terms: what that means for the user, shown before anything is fetched.
        page: where a person finds files and terms.
        files: of the set.
    """

    name: str
    about: str
    licence: str
    terms: str
    page: str
    files: tuple[DownloadFile, ...]

    @property
    def by_hand(self) -> bool:
        """Whether nothing of it may be fetched."""
        return not any(file.urls for file in self.files)


@dataclass(frozen=True, slots=True)
class Downloads:
    """The manifest."""

    schema: Literal["downloads/1"]
    sets: tuple[DownloadSet, ...]

    def __post_init__(self) -> None:
        names = [one.name for one in self.sets]
        paths = [file.path for one in self.sets for file in one.files]
        for values in (names, paths):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"{', '.join(sorted(twice))} is listed twice")

    def named(self, name: str) -> DownloadSet | None:
        """The set of that name."""
        return next((one for one in self.sets if one.name == name), None)


@dataclass(frozen=True, slots=True)
class LockedFile:
    """A copy that was verified, or trusted on first use.

    Attributes:
        sha256: of the file as it came (of an archive: before it was unpacked).
        url: it came from; '' = it lay there already.
        members: of an unpacked archive: path in its folder → sha256.
    """

    sha256: str
    url: str = ""
    members: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DownloadLock:
    """What was fetched here, by the path of the manifest."""

    schema: Literal["downloads-lock/1"] = "downloads-lock/1"
    files: dict[str, LockedFile] = field(default_factory=dict)

    def with_file(self, path: str, record: LockedFile) -> DownloadLock:
        """The lock with one more file."""
        return dataclasses.replace(self, files={**self.files, path: record})


def load_downloads(path: Path = DOWNLOADS_FILE) -> Downloads:
    """Read downloads.json (JSON is YAML, so the configuration reader checks it, with line numbers).

    Raises:
        ConfigError: it is not such a manifest.
    """
    return load_config(path, Downloads, {})


def load_lock(path: Path) -> DownloadLock:
    """What was fetched here; nothing where there is no lock.

    Raises:
        ConfigError: the file is damaged. It is never made anew silently: it holds the hashes that are trusted.
    """
    return load_config(path, DownloadLock, {}) if path.is_file() else DownloadLock()


def save_lock(lock: DownloadLock, path: Path) -> None:
    """Write the lock in one step.

    Raises:
        OutputError: it cannot be written.
    """
    temporary = path.with_name(f"{path.stem}.tmp.{os.getpid()}.json")
    try:
        temporary.write_text(json.dumps(dataclasses.asdict(lock), indent=1, sort_keys=True) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error


def wanted_sha256(file: DownloadFile, lock: DownloadLock) -> str | None:
    """The hash a copy must have: the manifest's, else that of the first copy; None = there was none yet."""
    record = lock.files.get(file.path)
    return file.sha256 or (record.sha256 if record else None)


def state_of(file: DownloadFile, lock: DownloadLock, root: Path) -> FileState:
    """How the copy below ``root`` (the repository) stands; every byte of it is read."""
    if file.unpack:
        return _state_of_members(file, lock, root)
    target = root / file.path
    if not target.is_file():
        return "missing"
    wanted = wanted_sha256(file, lock)
    if wanted is None:
        return "unknown"
    return "verified" if file_sha256(target) == wanted else "altered"


def _state_of_members(file: DownloadFile, lock: DownloadLock, root: Path) -> FileState:
    record, folder = lock.files.get(file.path), root / file.folder
    if record is None:
        return "unknown" if unpacked_members(folder, file.unpack) else "missing"
    if not all((folder / name).is_file() for name in record.members):
        return "missing"
    fits = all(file_sha256(folder / name) == wanted for name, wanted in record.members.items())
    return "verified" if fits else "altered"


def unpacked_members(folder: Path, patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Files in an archive's folder that could have come out of it, in order."""
    found = {path for pattern in patterns for path in folder.rglob(pattern) if path.is_file()}
    return tuple(sorted(str(path.relative_to(folder)) for path in found))


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else the last character is only cut in two
            return False
        text = head[: error.start].decode("utf-8")
    return bool(text.strip()) and "\0" not in text and not text.lstrip().startswith("<")


_BEGINNINGS: Mapping[FileKind, Callable[[bytes], bool]] = {
    "json": lambda head: _is_text(head) and head.lstrip()[:1] in (b"{", b"["),
    "yaml": lambda head: _is_text(head) and b":" in head,
    "torch": lambda head: head[:4] == b"PK\x03\x04" or head[:2] == b"\x80\x02",
    "zip": lambda head: head[:4] == b"PK\x03\x04",
    "npy": lambda head: head[:6] == b"\x93NUMPY",
    "tflite": lambda head: head[4:8] == b"TFL3",
    "mp4": lambda head: head[4:8] == b"ftyp",
    "mat": lambda head: head[:6] == b"MATLAB",
}


def begins_as(kind: FileKind) -> Callable[[bytes], bool]:
    """Whether bytes are the first ones of a file of that kind: tells it from a web page that says "too often"."""
    return _BEGINNINGS[kind]
