"""The same array from memory and from a file."""

from __future__ import annotations

import numpy as np
import pytest

from data_gen.utils.process_audio import sample_store
from data_gen.utils.process_audio.sample_store import SampleStore, mapped, pieces_of


@pytest.mark.parametrize("limit", [0, 50, 10_000])
def test_pieces_come_back_in_order(limit):
    pieces = [np.arange(n, dtype=np.float32) + 10 * n for n in (0, 3, 70, 1, 40)]
    store = SampleStore(limit)
    for piece in pieces:
        store.append(piece)
    store.append_silence(5)
    assert len(store) == 119
    joined = store.array()
    np.testing.assert_array_equal(joined, np.concatenate([*pieces, np.zeros(5, np.float32)]))
    assert joined.dtype == np.float32 and isinstance(joined, np.memmap) == (limit < 119)


def test_nothing():
    assert SampleStore().array().shape == (0,)


def test_mapped_leaves_the_source_alone(monkeypatch):
    monkeypatch.setattr(sample_store, "PIECE_SAMPLES", 7)
    samples = np.arange(30, dtype=np.float32)
    assert [len(piece) for piece in pieces_of(samples)] == [7, 7, 7, 7, 2]
    np.testing.assert_array_equal(mapped(samples, lambda piece: piece * 2), samples * 2)
    np.testing.assert_array_equal(samples, np.arange(30))
