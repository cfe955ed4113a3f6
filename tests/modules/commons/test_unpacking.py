"""Chosen members of archives, and archives that are refused."""

from __future__ import annotations

import io
import zipfile

import pytest

from modules.commons import unpacking
from modules.commons.errors import ModelFileError, OutputError
from modules.commons.unpacking import unpack_members

PATTERNS = ("*.ckpt", "config.yaml")


def archive_of(members: dict[str, bytes], **attributes: int) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes.get("external_attr", 0)
            archive.writestr(info, content)
    return made.getvalue()


def flipped(content: bytes, place: int) -> bytes:
    """With one byte of the packed data changed."""
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def unpacked(tmp_path, content: bytes) -> tuple[str, ...]:
    (tmp_path / "nerf.zip").write_bytes(content)
    return unpack_members(tmp_path / "nerf.zip", tmp_path / "nerf", PATTERNS)


def test_only_what_is_wanted_comes_out_and_others_stay(tmp_path):
    (tmp_path / "nerf").mkdir()
    (tmp_path / "nerf" / "mine.txt").write_text("mine")
    names = unpacked(
        tmp_path, archive_of({"nerf/b/config.yaml": b"a: 1", "nerf/b/x.ckpt": b"1", "nerf/b/run.py": b"evil"})
    )
    assert names == ("b/config.yaml", "b/x.ckpt")
    assert sorted(p.name for p in (tmp_path / "nerf").rglob("*.*")) == ["config.yaml", "mine.txt", "x.ckpt"]


def test_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 10})())
    with pytest.raises(OutputError, match=r"unpacking needs 0 MB in .*; make room"):
        unpacked(tmp_path, archive_of({"a.ckpt": bytes(999)}))
    assert not (tmp_path / "nerf").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive_of({"../../out.ckpt": b"1"}), "leads out of its folder"),
        (archive_of({"/abs.ckpt": b"1"}), "leads out of its folder"),
        (archive_of({"a\\..\\b.ckpt": b"1"}), "leads out of its folder"),
        (archive_of({"link.ckpt": b"/etc/passwd"}, external_attr=0o120777 << 16), "leads out of its folder"),
        (archive_of({"nerf/a.ckpt": b"1", "a.ckpt": b"2"}), "holds 'a.ckpt' twice"),
        (archive_of({"readme.txt": b"1"}), "holds nothing called"),
        (archive_of({"a.ckpt": bytes(9999)})[:60], "cannot be unpacked"),
        (flipped(archive_of({"a.ckpt": bytes(range(256)) * 9}), 40), "cannot be unpacked"),
    ],
)
def test_archives_that_are_refused(tmp_path, content, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        unpacked(tmp_path, content)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["nerf.zip"] and "\n" not in str(
        caught.value
    )
