"""Pictures and videos in the page."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

from tasks.evaluation import media
from tasks.evaluation.media import clip_html, sheet_html


def test_a_file_is_embedded_byte_for_byte(tmp_path: Path):
    file = tmp_path / "clip <1>.mp4"
    file.write_bytes(bytes(range(256)) * 5)
    found = re.search(r'<video [^>]*src="data:video/mp4;base64,([^"]*)"', clip_html("a < b", file, tmp_path / "r.html"))
    assert found and base64.b64decode(found.group(1), validate=True) == file.read_bytes()
    assert "a &lt; b" in clip_html("a < b", file, tmp_path / "r.html")
    picture = tmp_path / "sheet.PNG"
    picture.write_bytes(b"png")
    assert 'src="data:image/png;base64,cG5n"' in sheet_html('"quoted"', picture, tmp_path / "r.html")
    assert 'alt="&quot;quoted&quot;"' in sheet_html('"quoted"', picture, tmp_path / "r.html")


def test_a_large_file_is_named_relative_to_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(media, "MAX_EMBEDDED_BYTES", 3 * 2**20)
    file = tmp_path / "clips" / "side by side #1 & 100%.mp4"
    file.parent.mkdir()
    file.write_bytes(bytes(3 * 2**20))
    assert "base64" in clip_html("t", file, tmp_path / "page" / "report.html")
    file.write_bytes(bytes(3 * 2**20 + 1))
    text = clip_html("t", file, tmp_path / "page" / "report.html")
    assert 'src="../clips/side%20by%20side%20%231%20%26%20100%25.mp4"' in text
    assert "3 MB, too large to embed" in text and "../clips/side by side #1 &amp; 100%.mp4" in text


def test_a_missing_file_is_said_so(tmp_path: Path):
    for make in (clip_html, sheet_html):
        text = make("t", tmp_path / "gone.mp4", tmp_path / "report.html")
        assert "Is a directory" in make("t", tmp_path, tmp_path / "report.html")
        assert "gone.mp4 cannot be shown (No such file or directory)." in text and "src=" not in text
