"""Long work in stretches: everything once, nothing twice, and nothing half."""

import threading
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path

import pytest

from data_gen.runs.stretches import Stretch, in_stretches
from data_gen.utils.process_video.part_store import PartStore


@dataclass(frozen=True)
class Part:
    text: str

    def save(self, path: Path) -> None:
        path.write_text(self.text)


def worked(parts, count, at_once, fail_at=None):
    """(first frames worked on, progress told) of one go."""
    done, told = [], []

    def work(stretch: Stretch) -> Part:
        if stretch.first == fail_at:
            raise ValueError("this one fails")
        done.append(stretch.first)
        return Part(f"{stretch.first}-{stretch.stop}")

    def tell(what, number, total):
        told.append((what, number, total))

    in_stretches("look", count, 10, parts, work, tell, at_once=lambda missing: at_once)
    return sorted(done), told


@pytest.mark.parametrize("at_once", [1, 3])
def test_every_stretch_is_worked_on_once_and_told(tmp_path, at_once):
    parts = PartStore(tmp_path / "parts", "k")
    done, told = worked(parts, 25, at_once)
    assert done == [0, 10, 20] == parts.starts() and parts.path(20).read_text() == "20-25"
    assert told[-1] == ("look", 25, 25) and len(told) == 3
    assert worked(parts, 25, at_once) == ([], [])


def test_what_is_finished_stays_when_another_fails(tmp_path):
    parts = PartStore(tmp_path / "parts", "k")
    with pytest.raises(ValueError, match="this one fails"):
        worked(parts, 30, 1, fail_at=20)
    assert parts.starts() == [0, 10]
    assert worked(parts, 30, 1) == ([20], [("look", 30, 30)])


def test_a_stretch_that_is_stopped_gives_up_at_its_next_frame():
    stretch = Stretch(0, 5, threading.Event())
    frames = stretch.until_stopped(iter(["a", "b"]))  # pyright: ignore[reportArgumentType]
    assert next(frames) == "a"
    stretch.stopping.set()
    with pytest.raises(CancelledError):
        next(frames)


def test_margins_end_at_the_clip():
    stretch = Stretch(10, 20, threading.Event())
    assert stretch.with_margin(4, 100) == (6, 24) and stretch.with_margin(50, 22) == (0, 22)
