"""A small web server on this machine that misbehaves on demand: ranges, broken transfers, redirects, pages."""

from __future__ import annotations

import _socket
import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

HOST = "127.0.0.1"


@dataclass
class Page:
    """What is behind one address.

    Attributes:
        content: of the file. ranges: whether parts may be asked for. version: whether there is an ETag.
        break_after: bytes after which each of the next transfers breaks off, used up one by one.
        status: answered instead of the file, used up one by one. redirect: address that is answered.
        asked: the Range header of each request so far.
    """

    content: bytes = b""
    ranges: bool = True
    version: bool = True
    break_after: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    redirect: str = ""
    asked: list[str] = field(default_factory=list)

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


class Server:
    """Pages by path; ``server.url("/x")`` is an address."""

    def __init__(self, port: int) -> None:
        self.pages: dict[str, Page] = {}
        self._port = port

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self._port}{path}"

    def put(self, path: str, content: bytes = b"", **how) -> Page:
        self.pages[path] = Page(content, **how)
        return self.pages[path]


class _Web(ThreadingHTTPServer):
    pages: dict[str, Page]

    def handle_error(self, request, client_address) -> None:
        """Whoever asked is gone: that is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Web

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            return self.send_error(404)
        page.asked.append(self.headers.get("Range", ""))
        if page.status:
            return self.send_error(page.status.pop(0))
        if not page.redirect:
            return self._send(page)
        self.send_response(302)
        self.send_header("Location", page.redirect)
        self.end_headers()

    def _send(self, page: Page) -> None:
        start, total = self._start(page), len(page.content)
        if start >= total > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{total}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if page.version:
            self.send_header("ETag", page.etag)
        body = page.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: page.break_after.pop(0)] if page.break_after else body)
        self.close_connection = True

    def _start(self, page: Page) -> int:
        """Where the piece that is asked for begins; 0 = the whole file is sent."""
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        if not (wanted and page.ranges) or condition != page.etag:
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def log_message(self, format: str, *args) -> None:
        """Says nothing."""


def _connect(self: socket.socket, address) -> None:
    assert address[0] == HOST
    return _socket.socket.connect(self, address)


def _addresses(host, port, *args, **kwargs):
    if host != HOST:
        raise socket.gaierror(-2, "Name or service not known")
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]


@contextmanager
def local_server() -> Iterator[Server]:
    """Runs until the body is left; the network, which is closed for tests, lets this machine itself through."""
    web = _Web((HOST, 0), _Handler)
    server = Server(web.server_port)
    web.pages = server.pages
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket.socket, "connect", _connect)
            patch.setattr(socket, "getaddrinfo", _addresses)
            yield server
    finally:
        web.shutdown()
        thread.join()
        web.server_close()
