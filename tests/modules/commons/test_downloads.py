"""Downloads from a server on this machine: broken off, altered, refused, and trusted on first use."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from dataclasses import replace

import pytest

from modules.commons import http_fetch
from modules.commons.download_fetch import Fetcher
from modules.commons.downloads import (
    DownloadFile,
    DownloadLock,
    Downloads,
    DownloadSet,
    begins_as,
    load_downloads,
    load_lock,
    state_of,
)
from modules.commons.errors import ConfigError, ModelFileError, OutputError
from modules.commons.http_fetch import TRIES, Transfer, fetch_part, is_safe_address
from modules.commons.progress import silent
from tests.modules.commons.test_unpacking import archive_of
from tests.support.local_http import local_server

CONTENT = b"PK\x03\x04" + bytes(range(256)) * 12_000  # 3 MB: three chunks
PATH = "checkpoints/net/net.bin"
SHA = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope="module")
def server():
    with local_server() as running:
        yield running


@pytest.fixture
def fetcher(tmp_path):
    return Fetcher(tmp_path, tmp_path / "lock.json", wait=lambda seconds: None)


def wanted(*urls: str, **changes) -> DownloadSet:
    file = replace(DownloadFile(PATH, "torch", urls, len(CONTENT), SHA), **changes)
    return DownloadSet("net", "a net", "MIT", "free", "https://page.invalid", (file,))


def left(root) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_file_comes_verified_and_is_not_fetched_again(server, fetcher, tmp_path):
    page = server.put("/net", CONTENT)
    assert fetcher.fetch(wanted(server.url("/net"))) == [PATH]
    assert (tmp_path / PATH).read_bytes() == CONTENT and left(tmp_path) == [PATH]
    assert fetcher.fetch(wanted(server.url("/net"))) == [] and len(page.asked) == 1


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server, fetcher, tmp_path):
    page = server.put("/net", CONTENT, break_after=[900_000, 600_000])
    fetcher.fetch(wanted(server.url("/net")))
    assert page.asked == ["", "bytes=900000-", "bytes=1500000-"]
    assert (tmp_path / PATH).read_bytes() == CONTENT


def test_a_later_run_goes_on_too(server, fetcher, tmp_path):
    page = server.put("/net", CONTENT, break_after=[400_000] * TRIES)
    with pytest.raises(ModelFileError, match=f"broke off {TRIES} times .*it goes on from 2.0 MB"):
        fetcher.fetch(wanted(server.url("/net")))
    assert left(tmp_path) == [f"{PATH}.part", f"{PATH}.part.json"]
    fetcher.fetch(wanted(server.url("/net")))
    assert page.asked[-1] == "bytes=2000000-" and left(tmp_path) == [PATH]


def test_an_interrupted_run_loses_nothing(server, fetcher, tmp_path):
    def interrupt(what: str, done: int, total: int) -> None:
        assert (what, done, total) == ("fetch net.bin, MB", 1, 3)
        raise KeyboardInterrupt

    page = server.put("/net", CONTENT)
    with pytest.raises(KeyboardInterrupt):
        replace(fetcher, progress=interrupt).fetch(wanted(server.url("/net")))
    assert left(tmp_path) == [f"{PATH}.part", f"{PATH}.part.json"]
    fetcher.fetch(wanted(server.url("/net")))
    assert page.asked == ["", f"bytes={1 << 20}-"] and (tmp_path / PATH).read_bytes() == CONTENT


def test_a_part_of_another_version_is_not_continued(server, fetcher, tmp_path):
    server.put("/net", b"PK\x03\x04" + b"old" * 1_000_000, break_after=[500_000] * TRIES)
    with pytest.raises(ModelFileError, match="broke off"):
        fetcher.fetch(wanted(server.url("/net"), size=None))
    page = server.put("/net", CONTENT)
    fetcher.fetch(wanted(server.url("/net")))
    assert page.asked == [f"bytes={500_000 * TRIES}-"] and (tmp_path / PATH).read_bytes() == CONTENT


@pytest.mark.parametrize("how", [{"ranges": False}, {"version": False}])
def test_servers_that_cannot_continue_begin_anew(server, fetcher, tmp_path, how):
    page = server.put("/net", CONTENT, break_after=[900_000], **how)
    fetcher.fetch(wanted(server.url("/net")))
    assert len(page.asked) == 2 and (tmp_path / PATH).read_bytes() == CONTENT


def test_a_part_that_was_complete_already(server, fetcher, tmp_path):
    """Killed between the last byte and the renaming: nothing is fetched twice, with or without a known size."""
    page = server.put("/net", CONTENT)
    for size in (len(CONTENT), None):
        part = tmp_path / f"{PATH}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(CONTENT)
        note = {"url": server.url("/net"), "version": page.etag}
        part.with_name(part.name + ".json").write_text(json.dumps(note))
        fetcher.fetch(wanted(server.url("/net"), size=size))
        (tmp_path / PATH).unlink()
    assert page.asked == [f"bytes={len(CONTENT)}-"]


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(server, fetcher):
    busy = server.put("/busy", CONTENT, status=[503, 429])
    fetcher.fetch(wanted(server.url("/busy")))
    assert len(busy.asked) == 3
    gone = server.put("/gone", status=[410] * 9)
    with pytest.raises(ModelFileError, match="the server answers 410 Gone") as caught:
        fetcher.fetch(wanted(server.url("/gone"), path="checkpoints/a/b"))
    assert len(gone.asked) == 1 and "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match="the server answers 404"):
        fetcher.fetch(wanted(server.url("/none"), path="checkpoints/a/b"))
    assert left(fetcher.root) == [PATH]


def test_the_next_address_is_tried(server, fetcher, tmp_path):
    server.put("/net", CONTENT)
    fetcher.fetch(wanted(server.url("/none"), server.url("/net")))
    assert (tmp_path / PATH).read_bytes() == CONTENT


def test_another_hash_is_refused_and_nothing_is_left(server, fetcher, tmp_path):
    server.put("/net", CONTENT[:-1] + b"x")
    with pytest.raises(ModelFileError, match=f"the manifest has {SHA}"):
        fetcher.fetch(wanted(server.url("/net")))
    server.put("/net", CONTENT + b"x")
    with pytest.raises(ModelFileError, match=r"has \d+ bytes, the manifest says"):
        fetcher.fetch(wanted(server.url("/net")))
    assert left(tmp_path) == []


def test_a_page_instead_of_the_file_is_told(server, fetcher, tmp_path):
    server.put("/net", b"<!DOCTYPE html><html>Quota exceeded</html>")
    with pytest.raises(ModelFileError, match=r"a web page came instead .*open https://page\.invalid in a browser"):
        fetcher.fetch(wanted(server.url("/net"), size=None, sha256=None))
    assert not (tmp_path / PATH).exists() and not fetcher.lock_file.exists()


def test_redirects_are_followed_and_never_to_unsafe_places(server, fetcher, tmp_path):
    server.put("/net", CONTENT, break_after=[1_200_000])
    hop = server.put("/hop", redirect=server.url("/net"))
    fetcher.fetch(wanted(server.url("/hop")))
    assert (tmp_path / PATH).read_bytes() == CONTENT and hop.asked == ["", "bytes=1200000-"]
    for unsafe in ("http://elsewhere.invalid/net", "file:///etc/passwd", "ftp://elsewhere.invalid/x"):
        server.put("/hop", redirect=unsafe)
        with pytest.raises(ModelFileError, match=r"only https is used|is not allowed"):
            fetcher.fetch(wanted(server.url("/hop"), path="checkpoints/a/b"))


def test_no_network_is_one_sentence(server, fetcher):
    with pytest.raises(ModelFileError, match=r"cannot be reached .*check the network") as caught:
        fetcher.fetch(wanted("https://models.invalid/net"))
    assert "\n" not in str(caught.value) and PATH in str(caught.value)
    assert left(fetcher.root) == []


def test_addresses():
    assert is_safe_address("https://a.b/c") and is_safe_address("http://localhost:8000/c")
    assert not is_safe_address("http://a.b/c") and not is_safe_address("file:///x") and not is_safe_address("")
    with pytest.raises(ValueError, match="only https"):
        wanted("http://a.b/c")


def test_a_full_disk_keeps_what_came(server, fetcher, tmp_path, monkeypatch):
    server.put("/net", CONTENT)
    free = type("Usage", (), {"free": 1_000_000})()
    with monkeypatch.context() as patch:
        patch.setattr(http_fetch.shutil, "disk_usage", lambda place: free)
        with pytest.raises(OutputError, match=r"3 MB are needed, 1 MB are free\); make room and run the same"):
            fetcher.fetch(wanted(server.url("/net")))

    class Full:
        def __init__(self, file) -> None:
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, chunk):
            if self.file.tell() > 1_000_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(chunk)

    real = http_fetch._try_once
    with monkeypatch.context() as patch:
        patch.setattr(http_fetch, "_try_once", lambda transfer, file, progress: real(transfer, Full(file), progress))
        with pytest.raises(OutputError, match=r"No space left on device\); make room"):
            fetcher.fetch(wanted(server.url("/net")))
    fetcher.fetch(wanted(server.url("/net")))
    assert server.pages["/net"].asked[-1].startswith("bytes=")
    assert (tmp_path / PATH).read_bytes() == CONTENT


def test_a_place_where_nobody_may_write(server, fetcher, tmp_path):
    server.put("/net", CONTENT)
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        fetcher.fetch(wanted(server.url("/net")))


def test_two_processes_do_not_write_one_part(server, fetcher, tmp_path):
    server.put("/net", CONTENT)
    part = tmp_path / f"{PATH}.part"
    part.parent.mkdir(parents=True)
    with http_fetch._alone(part), pytest.raises(ModelFileError, match="another process is fetching this file"):
        fetch_part(Transfer(server.url("/net"), part, None, begins_as("torch"), ""), silent)


# ---- trust on first use ----


def test_the_first_copy_is_told_and_demanded_ever_after(server, fetcher, tmp_path, caplog):
    free = wanted(server.url("/net"), size=None, sha256=None)
    server.put("/net", CONTENT)
    with caplog.at_level(logging.WARNING):
        fetcher.fetch(free)
    assert SHA in caplog.text and "trusted from now on" in caplog.text and str(fetcher.lock_file) in caplog.text
    assert load_lock(fetcher.lock_file).files[PATH].sha256 == SHA
    assert state_of(free.files[0], load_lock(fetcher.lock_file), tmp_path) == "verified"
    (tmp_path / PATH).write_bytes(CONTENT[:-1] + b"x")
    assert state_of(free.files[0], load_lock(fetcher.lock_file), tmp_path) == "altered"
    server.put("/net", CONTENT + b"changed")
    with pytest.raises(ModelFileError, match=r"its first copy here has .* delete its entry in .*lock\.json"):
        fetcher.fetch(free)
    assert (tmp_path / PATH).read_bytes() == CONTENT[:-1] + b"x"
    server.put("/net", CONTENT)
    caplog.clear()
    assert fetcher.fetch(free) == [PATH] and "trusted from now on" not in caplog.text


def test_a_file_put_there_by_hand_is_the_first_copy(fetcher, tmp_path, caplog):
    free = wanted(sha256=None, size=None)
    assert state_of(free.files[0], DownloadLock(), tmp_path) == "missing"
    with pytest.raises(ModelFileError, match=r"is not there, and no program may fetch it; get it from https://page"):
        fetcher.fetch(free)
    target = tmp_path / PATH
    target.parent.mkdir(parents=True)
    target.write_bytes(b"<html>not a model</html>")
    assert state_of(free.files[0], DownloadLock(), tmp_path) == "unknown"
    with pytest.raises(ModelFileError, match="is not a torch file"):
        fetcher.fetch(free)
    target.write_bytes(CONTENT)
    assert fetcher.fetch(free) == [] and SHA in caplog.text
    target.write_bytes(CONTENT + b"x")
    with pytest.raises(ModelFileError, match="was changed, and no program"):
        fetcher.fetch(free)


def test_a_damaged_lock_is_never_made_anew(server, fetcher):
    fetcher.lock_file.write_text('{"schema": "downloads-lock/1", "files": {"a": 3}}')
    with pytest.raises(ConfigError, match=r"lock\.json:1"):
        fetcher.fetch(wanted(server.url("/net")))


# ---- archives ----


def packed(server, content: bytes) -> DownloadSet:
    server.put("/nerf.zip", content)
    file = DownloadFile("checkpoints/nerf.zip", "zip", (server.url("/nerf.zip"),), unpack=("*.ckpt", "config.yaml"))
    return DownloadSet("nerf", "", "MIT", "free", "https://page.invalid", (file,))


@pytest.mark.parametrize("first", ["nerf/", ""])
def test_members_of_an_archive(server, fetcher, tmp_path, first):
    members = {f"{first}head/a.ckpt": b"1" * 5000, f"{first}head/config.yaml": b"a: 1", f"{first}head/run.py": b"evil"}
    one = packed(server, archive_of(members))
    fetcher.fetch(one)
    nerf = "checkpoints/nerf/head"
    assert left(tmp_path) == [f"{nerf}/a.ckpt", f"{nerf}/config.yaml", "lock.json"]
    assert fetcher.fetch(one) == []
    (tmp_path / nerf / "a.ckpt").write_bytes(b"2")
    assert state_of(one.files[0], load_lock(fetcher.lock_file), tmp_path) == "altered"
    assert fetcher.fetch(one) == ["checkpoints/nerf.zip"]
    (tmp_path / nerf / "a.ckpt").unlink()
    assert state_of(one.files[0], load_lock(fetcher.lock_file), tmp_path) == "missing"


def test_an_unpacked_folder_put_there_by_hand(server, fetcher, tmp_path):
    one = packed(server, b"never asked for")
    (tmp_path / "checkpoints" / "nerf").mkdir(parents=True)
    (tmp_path / "checkpoints" / "nerf" / "x.ckpt").write_bytes(b"1")
    assert fetcher.fetch(one) == [] and server.pages["/nerf.zip"].asked == []
    assert state_of(one.files[0], load_lock(fetcher.lock_file), tmp_path) == "verified"


def test_an_archive_that_is_refused_leaves_nothing(server, fetcher, tmp_path):
    with pytest.raises(ModelFileError, match="leads out of its folder"):
        fetcher.fetch(packed(server, archive_of({"../../out.ckpt": b"1"})))
    assert left(tmp_path) == []


# ---- the manifest ----


def test_what_files_begin_with():
    for kind, head in (
        ("json", b' {"a": 1}'), ("yaml", "lr: 5e-4 # größer".encode()), ("torch", b"\x80\x02\x8a"),
        ("zip", b"PK\x03\x04"), ("torch", b"PK\x03\x04"), ("npy", b"\x93NUMPY\x01"), ("tflite", b"\x1c\0\0\0TFL3"),
        ("mp4", b"\0\0\0 ftypisom"), ("mat", b"MATLAB 5.0 MAT-file"),
    ):  # fmt: skip
        assert begins_as(kind)(head), kind
        assert not begins_as(kind)(b"<!DOCTYPE html><html lang='en'>"), kind
        assert not begins_as(kind)(b""), kind
    assert not begins_as("yaml")(b"\x80\x02\x8a\x0a: ckpt") and not begins_as("json")(b"a: 1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": "other"}, "schema"),
        ({"path": "../x/y"}, "does not lie below"),
        ({"path": "modules/x.py"}, "does not lie below"),
        ({"urls": ["http://a.b/c"]}, "only https"),
        ({"sha256": "abc"}, "64 hexadecimal"),
        ({"unpack": ["*"]}, "only a zip"),
        ({"szie": 3}, "did you mean"),
    ],
)
def test_a_wrong_manifest_is_a_config_error(tmp_path, change, words):
    file = {"path": PATH, "kind": "torch", "urls": []} | {k: v for k, v in change.items() if k != "schema"}
    one = {"name": "a", "about": "", "licence": "", "terms": "", "page": "", "files": [file]}
    data = {"schema": change.get("schema", "downloads/1"), "sets": [one]}
    path = tmp_path / "downloads.json"
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(ConfigError, match=r"downloads\.json:") as caught:
        load_downloads(path)
    assert words in str(caught.value)


def test_names_and_paths_are_listed_once():
    with pytest.raises(ValueError, match=r"net, .*net\.bin|listed twice"):
        Downloads("downloads/1", (wanted(), wanted()))


def test_the_projects_manifest():
    downloads = load_downloads()
    assert {one.name for one in downloads.sets} == {
        "selfie_multiclass", "hubert", "lpips", "syncnet", "geneface", "may", "bfm2009",
    }  # fmt: skip
    for one in downloads.sets:
        assert one.licence and one.terms and one.about and one.page.startswith("https://")
        assert one.by_hand == (one.name == "bfm2009"), "BFM2009 may not be fetched by a program"
    hubert = downloads.named("hubert")
    assert hubert and hubert.files[1].sha256 and hubert.files[1].size is None and downloads.named("none") is None
