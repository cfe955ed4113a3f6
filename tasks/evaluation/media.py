"""Pictures and videos for the page: embedded as data URIs, or named beside it when they are too large."""

from __future__ import annotations

import base64
import html
import os
from pathlib import Path
from urllib.parse import quote

MAX_EMBEDDED_BYTES = 20 * 2**20
MIME = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
}


def sheet_html(title: str, file: Path, page: Path) -> str:
    """A picture at the width of the page; a click shows every pixel, scrolling in its own box."""
    address, words = _address(file, page)
    if not address:
        return _figure(title, words, "")
    picture = f'<span class="scroll"><img alt="{html.escape(title)}" src="{address}"></span>'
    toggle = '<input type="checkbox" aria-label="show every pixel">'
    return _figure(title, f"{words} Click it to see every pixel.", f'<label class="zoom">{toggle}{picture}</label>')


def clip_html(title: str, file: Path, page: Path) -> str:
    """A video with controls."""
    address, words = _address(file, page)
    video = f'<video controls loop playsinline preload="metadata" src="{address}"></video>' if address else ""
    return _figure(title, words, video)


def _figure(title: str, words: str, content: str) -> str:
    caption = f"<b>{html.escape(title)}</b> {html.escape(words)}"
    return f'<figure class="media">{content}<figcaption>{caption}</figcaption></figure>\n'


def _address(file: Path, page: Path) -> tuple[str, str]:
    """The value of ``src`` ('' when the file cannot be read), and what the caption must say of it."""
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size <= MAX_EMBEDDED_BYTES else b""
    except OSError as error:
        return "", f"{file.name} cannot be shown ({error.strerror})."
    if size > MAX_EMBEDDED_BYTES:
        relative = Path(os.path.relpath(file.resolve(), page.resolve().parent)).as_posix()
        words = (
            f"{size / 2**20:.0f} MB, too large to embed: it lies beside this page as {relative}; keep them together."
        )
        return html.escape(quote(relative)), words
    mime = MIME.get(file.suffix.lower(), "application/octet-stream")
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}", ""
