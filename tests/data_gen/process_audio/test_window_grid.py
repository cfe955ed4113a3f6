"""Windows over a stream: each row once, with its context, wherever the stream is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_audio.extract_whisper import OFFLINE, STREAMING
from data_gen.utils.process_audio.window_grid import SampleBuffer, WindowGrid, windows_of_stream

grids = st.builds(
    lambda stride, after, more: WindowGrid(stride + after + more, stride, after),
    st.integers(1, 9), st.integers(0, 5), st.integers(0, 12),
)  # fmt: skip


@given(grids, st.integers(1, 300), st.booleans())
def test_each_row_is_kept_once_with_its_context(grid, n_rows, eager):
    kept: list[int] = []
    windows = list(grid.windows(n_rows, eager=eager))
    for window in windows:
        kept += range(window.keep_from, window.keep_to)
        assert window.first <= window.keep_from and window.stop - window.first <= grid.content_rows
        before = grid.content_rows - grid.stride_rows - grid.after_rows
        assert window.first == 0 or window.keep_from - window.first == before
        assert window is windows[-1] or window.stop - window.keep_to == grid.after_rows
    assert kept == list(range(n_rows))


@given(grids, st.integers(0, 900), st.lists(st.integers(0, 900), max_size=12), st.booleans(), st.integers(0, 3))
def test_a_stream_gives_the_windows_of_the_whole(grid, n_samples, cuts, eager, overread):
    """Samples are their own index, so that what is read shows where it came from."""
    samples = np.arange(1, n_samples + 1, dtype=np.float32)
    rate = 4

    def heard(pieces):
        found = []
        for window, buffer in windows_of_stream(pieces, grid, rate, underread=overread, overread=overread, eager=eager):
            found.append((window, buffer.read(window.first * rate - overread, window.stop * rate + overread).tolist()))
        return found

    whole = heard([samples])
    assert heard(np.split(samples, sorted(cut for cut in cuts if cut <= n_samples))) == whole
    assert [window for window, _ in whole] == (
        list(grid.windows(-(-n_samples // rate), eager=eager)) if n_samples else []
    )
    for window, values in whole:
        place = np.arange(window.first * rate - overread, window.stop * rate + overread)
        np.testing.assert_array_equal(values, np.where((place >= 0) & (place < n_samples), place + 1, 0))


def test_windows_come_as_soon_as_they_can():
    grid, arrived, seen = WindowGrid(10, 2, 3), 0, []

    def pieces():
        nonlocal arrived
        for _ in range(40):
            arrived += 1
            yield np.zeros(1, np.float32)

    for window, _ in windows_of_stream(pieces(), grid, 1, eager=True):
        seen.append((window.keep_from, arrived))
    assert seen[:3] == [(0, 6), (2, 8), (4, 10)]


def test_forgotten_samples_cannot_be_read():
    buffer = SampleBuffer()
    buffer.append(np.ones(10, np.float32))
    buffer.forget(4)
    assert buffer.read(3 + 1, 12).tolist() == [1.0] * 6 + [0.0] * 2
    assert buffer.read(4, 9, visible_to=6).tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="forgotten"):
        buffer.read(3, 5)


def test_impossible_windows_are_refused():
    with pytest.raises(ValueError, match="cannot keep"):
        WindowGrid(10, 8, 3)


def test_the_two_reaches():
    assert OFFLINE.grid.content_rows == 1500 and not OFFLINE.eager
    # the first row of a step waits for the whole step and what comes after it
    assert (STREAMING.grid.stride_rows + STREAMING.grid.after_rows) / 50 <= 0.4
