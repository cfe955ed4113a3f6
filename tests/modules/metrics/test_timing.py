"""Spread, repeated runs on a made-up clock, and memory that is read from a made-up source."""

import statistics
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.metrics import timing
from modules.metrics.timing import PeakMemory, Spread, release_free_memory, resident_bytes, timed_runs

FINITE = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], (3, 3, 3)), ([5, 1], (3, 1, 5)), ([9, 1, 2], (2, 1, 9)), ([4, 1, 3, 2], (2.5, 1, 4))],
)
def test_spread_of_known_values(values, expected):
    found = Spread.of(values)
    assert (found.median, found.low, found.high) == expected


@given(st.lists(FINITE, min_size=1, max_size=9), st.floats(0.001, 1000))
def test_a_scaled_spread_is_the_spread_of_scaled_values(values, factor):
    found, scaled = Spread.of(values).scaled(factor), Spread.of([value * factor for value in values])
    assert (found.low, found.high) == (scaled.low, scaled.high)
    assert found.median == pytest.approx(statistics.median(value * factor for value in values), rel=1e-9, abs=1e-9)
    assert found.low <= found.median <= found.high


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_a_spread_of_nothing_or_of_no_number_is_refused(values):
    with pytest.raises(ValueError, match="finite"):
        Spread.of(values)


class Clock:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_runs_are_timed_one_by_one_and_what_lies_between_does_not_count():
    clock, lengths, seen = Clock(), iter([1.0, 4.0, 2.0]), []

    def run() -> None:
        clock.now += next(lengths)

    for seconds in timed_runs(run, 3, clock=clock):
        seen.append(seconds)
        clock.now += 1000.0
    assert seen == [1.0, 4.0, 2.0]


def test_queued_work_counts_and_what_was_queued_before_does_not():
    clock = Clock()
    queued = [50.0]

    def run() -> None:
        clock.now += 1.0
        queued.append(3.0)

    def settle() -> None:
        clock.now += sum(queued)
        queued.clear()

    assert list(timed_runs(run, 2, settle=settle, clock=clock)) == [4.0, 4.0]


def test_no_repeats_are_refused():
    with pytest.raises(ValueError, match="at least once"):
        list(timed_runs(lambda: None, 0))


def test_an_error_of_the_work_is_not_hidden():
    def run() -> None:
        raise KeyError("work")

    with pytest.raises(KeyError):
        list(timed_runs(run, 1))


def test_the_highest_of_the_looks_counts_from_the_first():
    looks, seen = iter([100, 130, 170, 120]), threading.Event()

    def read() -> int:
        value = next(looks, 110)
        if value == 120:
            seen.set()
        return value

    with PeakMemory(read, 0.0001) as memory:
        assert seen.wait(5)
    assert memory.rise_bytes == 70


def test_a_look_at_the_end_sees_what_the_thread_was_too_slow_for():
    looks = iter([100, 150])
    with PeakMemory(lambda: next(looks), 1000.0) as memory:
        pass
    assert memory.rise_bytes == 50


def test_memory_that_only_shrinks_rises_by_nothing():
    looks = iter([100])
    with PeakMemory(lambda: next(looks, 60), 1000.0) as memory:
        pass
    assert memory.rise_bytes == 0


def test_memory_that_cannot_be_read_is_not_made_up():
    threads = threading.active_count()
    with PeakMemory(lambda: None) as memory:
        assert threading.active_count() == threads
    assert memory.rise_bytes is None


def test_the_thread_ends_with_the_block_also_on_an_error():
    threads = threading.active_count()
    with pytest.raises(KeyError), PeakMemory(lambda: 1) as memory:
        assert threading.active_count() == threads + 1
        raise KeyError("work")
    assert threading.active_count() == threads and memory.rise_bytes == 0


def test_another_system_says_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(timing, "_STATM", tmp_path / "statm")
    assert resident_bytes() is None
    (tmp_path / "statm").write_text("7\n")
    assert resident_bytes() is None


@pytest.mark.skipif(resident_bytes() is None, reason="this system does not say how much memory a process uses")
def test_a_block_that_is_held_and_freed_again_shows():
    size = 96 * 2**20
    release_free_memory()
    with PeakMemory() as memory:
        block = np.ones(size, np.uint8)
        time.sleep(0.1)  # looks come late on a busy machine
        del block
    assert memory.rise_bytes is not None and 0.9 * size < memory.rise_bytes < 1.5 * size
