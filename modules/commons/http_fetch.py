"""One file over HTTP into a ``.part`` file: taken up where an earlier try stopped, in bounded memory.

A part remembers which version of which address it is the beginning of (``<part>.json``): only that version is
continued, so no file is ever glued together from two.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from modules.commons.errors import ModelFileError, OutputError, first_line
from modules.commons.progress import Progress

TRIES = 5
"""How often a transfer that broke off is taken up again."""
_TIMEOUT_S = 30.0
_CHUNK = 1 << 20
_HEAD = 512
"""Bytes that a file is recognised by."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BUSY = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that may do better a little later."""
_HEADERS = {"User-Agent": "lipsync-downloads/1", "Accept-Encoding": "identity"}


@dataclass(frozen=True, slots=True)
class Transfer:
    """What is to be fetched, and from where.

    Attributes:
        url: https, or http on this very machine.
        part: file that grows; complete when ``fetch_part`` returns.
        size: exact bytes, where they are known.
        begins_right: whether the first 512 bytes (fewer of a small file) are those of such a file.
        page: where a person finds the file, for messages.
    """

    url: str
    part: Path
    size: int | None
    begins_right: Callable[[bytes], bool]
    page: str

    @property
    def note(self) -> Path:
        """Says which version of which address the part is the beginning of."""
        return self.part.with_name(self.part.name + ".json")


class _BrokeOffError(Exception):
    """A transfer that may go on when it is asked for again."""


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as long as they stay on safe addresses."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not is_safe_address(newurl):
            raise ModelFileError(f"{req.full_url}: leads on to {newurl}, and only https is used")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def is_safe_address(url: str) -> bool:
    """Whether an address is https, or http on this very machine (a mirror of one's own)."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def fetch_part(transfer: Transfer, progress: Progress, wait: Callable[[float], None] = time.sleep) -> None:
    """Complete ``transfer.part``; what an earlier try left of the same version is kept.

    Args:
        transfer: what, and from where.
        progress: told megabytes.
        wait: called with seconds between tries.

    Raises:
        ModelFileError: the address cannot be reached, has no such file or something else, or broke off too often; the
            part stays where it can be continued.
        OutputError: the part cannot be written.
    """
    if not is_safe_address(transfer.url):
        raise ModelFileError(f"{transfer.url}: only https is used")
    try:
        transfer.part.parent.mkdir(parents=True, exist_ok=True)
        with _alone(transfer.part) as file:
            _complete(transfer, file, progress, wait)
    except OSError as error:
        raise _unwritable(transfer.part, error) from error


def drop_part(transfer: Transfer) -> None:
    """Delete what was fetched so far: its content is wrong."""
    transfer.part.unlink(missing_ok=True)
    transfer.note.unlink(missing_ok=True)


def _complete(transfer: Transfer, file: IO[bytes], progress: Progress, wait: Callable[[float], None]) -> None:
    for tried in range(1, TRIES + 1):
        try:
            return _try_once(transfer, file, progress)
        except _BrokeOffError as error:
            if tried == TRIES:
                raise ModelFileError(
                    f"{transfer.url}: broke off {TRIES} times ({error}); run the same command again, it goes on from "
                    f"{file.seek(0, os.SEEK_END) / 1e6:.1f} MB"
                ) from error
            wait(2.0 ** (tried - 1))


def _try_once(transfer: Transfer, file: IO[bytes], progress: Progress) -> None:
    start, version = _continued_from(transfer, file)
    if start and start == transfer.size:
        return
    headers = dict(_HEADERS)
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    with _open(transfer, headers, start) as response:
        if response is None:
            return
        if response.status != 206:
            start = 0
        total = _total_size(response, start)
        _check_total(transfer, total)
        _remember(transfer, file, response, start)
        _check_space(transfer.part, total, start)
        _receive(transfer, file, response, (start, total), progress)


def _open(transfer: Transfer, headers: dict[str, str], start: int) -> Any:
    """The answer to a request, a context; None inside it when nothing follows the ``start`` bytes that are there.

    Raises:
        ModelFileError: there is no such file, or nobody answers.
        _BrokeOffError: the server is busy, or the part is longer than the file (it will not be continued).
    """
    request = urllib.request.Request(transfer.url, headers=headers)
    try:
        return urllib.request.build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing follows what is there already
            if str(error.headers.get("Content-Range", "")) == f"bytes */{start}":
                return nullcontext()
            drop_note(transfer)
            raise _BrokeOffError("the part was longer than the file") from error
        if error.code in _BUSY:
            raise _BrokeOffError(f"the server answers {error.code}") from error
        raise ModelFileError(f"{transfer.url}: the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, (TimeoutError, ConnectionResetError)):
            raise _BrokeOffError(str(error.reason)) from error
        raise ModelFileError(f"{transfer.url}: cannot be reached ({error.reason}); check the network") from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokeOffError(first_line(error)) from error


def drop_note(transfer: Transfer) -> None:
    """Forget what a part belongs to, so that it is not continued."""
    transfer.note.unlink(missing_ok=True)


def _continued_from(transfer: Transfer, file: IO[bytes]) -> tuple[int, str]:
    """Bytes of the part that may be continued, and the version they are of."""
    try:
        note = json.loads(transfer.note.read_text(encoding="utf-8"))
        known = note["url"] == transfer.url and isinstance(note["version"], str)
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        return 0, ""
    return file.seek(0, os.SEEK_END), note["version"]


def _remember(transfer: Transfer, file: IO[bytes], response: Any, start: int) -> None:
    """Note the version that is coming; a part that is not continued is emptied first."""
    if start:
        return
    file.truncate(0)
    etag = response.headers.get("ETag") or ""
    strong = "" if etag.startswith("W/") else etag  # If-Range takes strong ones only
    version = strong or response.headers.get("Last-Modified")
    if version:
        transfer.note.write_text(json.dumps({"url": transfer.url, "version": version}) + "\n", encoding="utf-8")
    else:
        drop_note(transfer)


def _total_size(response: Any, start: int) -> int | None:
    """Bytes of the whole file, as the server says.

    Raises:
        ModelFileError: it sends another piece than it was asked for.
    """
    if response.status == 206:
        piece, _, total = str(response.headers.get("Content-Range", "")).removeprefix("bytes ").partition("/")
        if piece.partition("-")[0] != str(start):
            raise ModelFileError(f"{response.url}: the server sends {piece or 'no range'}, not what follows {start}")
        return int(total) if total.isdecimal() else None
    length = response.headers.get("Content-Length")
    return int(length) if length and length.isdecimal() else None


def _check_total(transfer: Transfer, total: int | None) -> None:
    if transfer.size is not None and total is not None and total != transfer.size:
        raise ModelFileError(f"{transfer.url}: has {total} bytes, the manifest says {transfer.size}")


def _check_space(part: Path, total: int | None, start: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - start > free:
        raise OSError(errno.ENOSPC, f"{(total - start) / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")


def _receive(
    transfer: Transfer, file: IO[bytes], response: Any, extent: tuple[int, int | None], progress: Progress
) -> None:
    """Append what comes; ``extent`` is where it starts and the size of the whole."""
    got, total = extent
    for chunk in _chunks(response):
        if got == 0 and not transfer.begins_right(chunk[:_HEAD]):
            drop_note(transfer)
            raise ModelFileError(_wrong_kind(transfer, chunk))
        file.write(chunk)
        got += len(chunk)
        progress(f"fetch {transfer.part.stem}, MB", -(-got // _CHUNK), -(-(total or 0) // _CHUNK))
    file.flush()
    if got < (total or 1):
        raise _BrokeOffError(f"{got} of {total or 'an unknown number of'} bytes came")


def _chunks(response: Any) -> Iterator[bytes]:
    """What comes, with every failure of the network told apart from those of the disk."""
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokeOffError(first_line(error)) from error
        if not chunk:
            return
        yield chunk


def _wrong_kind(transfer: Transfer, chunk: bytes) -> str:
    if chunk[:_HEAD].lstrip().lower().startswith((b"<!doctype", b"<html")):
        return (
            f"{transfer.url}: a web page came instead of the file (a limit, or a question to be answered); open "
            f"{transfer.page} in a browser"
        )
    return f"{transfer.url}: something else came than such a file; open {transfer.page} in a browser"


@contextmanager
def _alone(part: Path) -> Iterator[IO[bytes]]:
    """The part, opened by nobody else; it does not stay when it stays empty."""
    with part.open("ab+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelFileError(f"{part}: another process is fetching this file; wait until it is done") from error
        try:
            yield file
        finally:
            if file.seek(0, os.SEEK_END) == 0:
                part.unlink(missing_ok=True)  # nothing came


def _unwritable(part: Path, error: OSError) -> OutputError:
    remedy = "make room and run the same command again, it goes on from there" if error.errno == errno.ENOSPC else (
        "check who may write there"
    )  # fmt: skip
    return OutputError(f"{part}: cannot be written ({error.strerror or error}); {remedy}")
