"""What was seen of a mouth, on disk and back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES
from modules.structures.seen_mouth import SeenMouth


def seen(count: int = 6) -> SeenMouth:
    rng = np.random.default_rng(0)
    column = rng.random((3, count)).astype(np.float32)
    scores = rng.random((count, len(MEDIAPIPE_BLENDSHAPES))).astype(np.float32)
    flags = np.arange(count) > 1
    return SeenMouth("n", "s", column[0], column[1], scores, flags, ~flags, column[2], 50.0)


def test_round_trip(tmp_path):
    mouth = seen()
    mouth.save(tmp_path / "m.npz")
    back = SeenMouth.load(tmp_path / "m.npz")
    for field in dataclasses.fields(SeenMouth):
        np.testing.assert_array_equal(getattr(back, field.name), getattr(mouth, field.name))
    assert [path.name for path in tmp_path.iterdir()] == ["m.npz"]
    np.testing.assert_array_equal(back.score("jawOpen"), mouth.scores[:, MEDIAPIPE_BLENDSHAPES.index("jawOpen")])


def test_foreign_files_and_uneven_rows_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(2))
    with pytest.raises(ValueError, match="schema"):
        SeenMouth.load(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="disagree"):
        dataclasses.replace(seen(), width=np.zeros(5, np.float32))
    with pytest.raises(ValueError, match="disagree"):
        dataclasses.replace(seen(), scores=np.zeros((6, 3), np.float32))
