"""A text file is the old one or the whole new one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modules.commons.errors import OutputError
from tasks.evaluation.files import write_parts


def test_parts_are_joined_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "new" / "page.html"
    write_parts(path, ("grün ", "∞\n"))
    assert path.read_bytes() == "grün ∞\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_half_way_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_text("old")

    def failing() -> Iterator[str]:
        yield "new"
        assert path.read_text() == "old"
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        write_parts(path, failing())
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/page\.html: cannot be written"):
        write_parts(tmp_path / "file" / "page.html", ("x",))
