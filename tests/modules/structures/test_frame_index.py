from fractions import Fraction

import numpy as np
import pytest

from modules.structures.frame_index import FrameIndex


def test_it_comes_back_from_disk_and_counts_seconds_from_the_first_frame(tmp_path):
    made = FrameIndex(np.array([100, 140, 200]), Fraction(1, 1000), np.array([0, 2]))
    made.save(tmp_path / "i.npz")
    again = FrameIndex.load(tmp_path / "i.npz")
    assert len(again) == 3
    np.testing.assert_array_equal(again.pts, made.pts)
    np.testing.assert_allclose(again.times_s, [0, 0.04, 0.1])
    assert (again.time_base, again.shot_starts.tolist()) == (Fraction(1, 1000), [0, 2])


def test_wrong_indices_and_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must rise"):
        FrameIndex(np.array([0, 0]), Fraction(1), np.array([0]))
    with pytest.raises(ValueError, match="start at frame 0"):
        FrameIndex(np.array([0, 1]), Fraction(1), np.array([], np.int64))
    np.savez(tmp_path / "x.npz", schema=np.array("other"))
    with pytest.raises(ValueError, match="frame index of schema"):
        FrameIndex.load(tmp_path / "x.npz")
