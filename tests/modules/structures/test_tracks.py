import numpy as np
import pytest

from modules.structures.boxes import BoundingBox
from modules.structures.tracks import FaceTrack


def make_track(count=4):
    boxes = np.tile([1.0, 2.0, 5.0, 9.0], (count, 1))
    return FaceTrack(boxes, np.array([1, 0, 1, 4], np.uint8)[:count], np.linspace(0, 1, count, dtype=np.float32), 7)


def test_arrays_of_different_length_are_refused():
    with pytest.raises(ValueError, match="track arrays disagree"):
        FaceTrack(np.zeros((3, 4)), np.ones(2, dtype=bool), np.ones(2, dtype=np.float32))


def test_box_of_a_row():
    assert make_track().box(2) == BoundingBox(1, 2, 5, 9)
    assert len(make_track()) == 4


def test_save_and_load_round_trip(tmp_path):
    track = make_track()
    track.save(tmp_path / "track.npz")
    again = FaceTrack.load(tmp_path / "track.npz")
    np.testing.assert_array_equal(again.boxes, track.boxes)
    np.testing.assert_array_equal(again.is_detected, track.is_detected)
    np.testing.assert_array_equal(again.confidence, track.confidence)
    assert again.first_frame == 7
    assert [path.name for path in tmp_path.iterdir()] == ["track.npz"], "no temporary file stays"


def test_a_foreign_file_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", schema=np.array("landmarks/1"))
    with pytest.raises(ValueError, match=r"x\.npz does not hold a face track"):
        FaceTrack.load(tmp_path / "x.npz")
