"""Fetches the sets of ``checkpoints/downloads.json``: every file verified, or trusted on first use and said so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from modules.commons.downloads import (
    DownloadFile,
    DownloadLock,
    DownloadSet,
    LockedFile,
    begins_as,
    load_lock,
    save_lock,
    state_of,
    unpacked_members,
    wanted_sha256,
)
from modules.commons.errors import ModelFileError, OutputError
from modules.commons.hashing import file_sha256
from modules.commons.http_fetch import Transfer, drop_part, fetch_part
from modules.commons.progress import Progress, silent
from modules.commons.unpacking import unpack_members

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Brings files of sets to their places.

    Attributes:
        root: the repository. lock_file: where hashes of first copies are kept.
        progress: told megabytes. wait: called with seconds between tries.
    """

    root: Path
    lock_file: Path
    progress: Progress = silent
    wait: Callable[[float], None] = field(default=time.sleep)

    def fetch(self, wanted: DownloadSet) -> list[str]:
        """Bring what is missing; files that are there and verified are left alone.

        Returns:
            Paths of the files fetched now.

        Raises:
            ModelFileError: a file cannot be had from any address, has another hash than it must have, or is one that
                only the user may put there.
            OutputError: it cannot be written.
            ConfigError: the lock is damaged.
        """
        return [file.path for file in wanted.files if self._bring(file, wanted)]

    def _bring(self, file: DownloadFile, wanted: DownloadSet) -> bool:
        """Whether the file was fetched now."""
        lock = load_lock(self.lock_file)
        state = state_of(file, lock, self.root)
        if state == "verified":
            return False
        if state == "unknown":
            self._trust_what_is_there(file, lock)
            return False
        if not file.urls:
            how = "is not there" if state == "missing" else "was changed"
            raise ModelFileError(
                f"{self.root / file.path}: {how}, and no program may fetch it; get it from {wanted.page}"
            )
        if state == "altered":
            logger.warning("%s has another content than it must have; it is fetched again", file.path)
        self._fetch(file, wanted, lock)
        return True

    def _trust_what_is_there(self, file: DownloadFile, lock: DownloadLock) -> None:
        """A file that the user put there, and that nobody names a hash of, is what its name says from now on."""
        if file.unpack:
            folder = self.root / file.folder
            members = {name: file_sha256(folder / name) for name in unpacked_members(folder, file.unpack)}
            record = LockedFile("", members=members)
        else:
            target = self.root / file.path
            with target.open("rb") as stream:
                if not begins_as(file.kind)(stream.read(512)):
                    raise ModelFileError(f"{target}: is not a {file.kind} file; delete it, or put the right one there")
            record = LockedFile(file_sha256(target))
        self._record(file, record, lock)

    def _fetch(self, file: DownloadFile, wanted: DownloadSet, lock: DownloadLock) -> None:
        problems: list[str] = []
        for url in file.urls:
            part = self.root / f"{file.path}.part"
            transfer = Transfer(url, part, file.size, begins_as(file.kind), wanted.page)
            try:
                fetch_part(transfer, self.progress, self.wait)
                found = self._verified(file, transfer, lock)
                self._install(file, transfer, LockedFile(found, url), lock)
                return
            except ModelFileError as error:
                problems.append(str(error))
        raise ModelFileError(f"{file.path}: cannot be fetched: {'; '.join(problems)}")

    def _verified(self, file: DownloadFile, transfer: Transfer, lock: DownloadLock) -> str:
        """The hash of the part, which is the one it must have, if there is one.

        Raises:
            ModelFileError: it is another; the part is gone.
        """
        found, must = file_sha256(transfer.part), wanted_sha256(file, lock)
        if must and found != must:
            drop_part(transfer)
            remedy = "" if file.sha256 else (
                f"; when its publisher has changed it and you trust that, delete its entry in {self.lock_file}"
            )  # fmt: skip
            whose = "the manifest" if file.sha256 else "its first copy here"
            raise ModelFileError(f"{transfer.url}: has the sha256 {found}, {whose} has {must}{remedy}")
        return found

    def _install(self, file: DownloadFile, transfer: Transfer, record: LockedFile, lock: DownloadLock) -> None:
        target = self.root / file.path
        try:
            if file.unpack:  # from the part, which is still there when there is no room for what is in it
                folder = self.root / file.folder
                names = self._unpacked(transfer, folder, file)
                record = LockedFile(record.sha256, record.url, {name: file_sha256(folder / name) for name in names})
                drop_part(transfer)
            else:
                transfer.part.chmod(0o644)
                transfer.part.replace(target)
                transfer.note.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
        logger.info("fetched %s from %s", file.path, record.url)
        self._record(file, record, lock)

    def _unpacked(self, transfer: Transfer, folder: Path, file: DownloadFile) -> tuple[str, ...]:
        try:
            return unpack_members(transfer.part, folder, file.unpack)
        except ModelFileError:
            drop_part(transfer)  # it will not get better by being fetched to its end again
            raise

    def _record(self, file: DownloadFile, record: LockedFile, lock: DownloadLock) -> None:
        """Keep what cannot be looked up in the manifest, and tell the user what is trusted."""
        if file.sha256 and not file.unpack:
            return
        if not file.sha256 and file.path not in lock.files:
            logger.warning(
                "%s: no sha256 of it is publicly known, so this copy is trusted from now on: %s (kept in %s)",
                file.path, record.sha256 or record.members, self.lock_file,
            )  # fmt: skip
        save_lock(lock.with_file(file.path, record), self.lock_file)
