import numpy as np
import pytest

from modules.structures.faces import FaceTable, TrackedFace
from modules.structures.tracks import FaceTrack, FrameStatus


def face(first, count, size=10.0, tracks=(0,)):
    boxes = np.tile([0.0, 0.0, size, size], (count, 1)) + np.arange(count)[:, None]
    status = np.full(count, FrameStatus.DETECTED, np.uint8)
    status[1] = FrameStatus.PREDICTED
    track = FaceTrack(boxes, status, np.linspace(0.5, 1, count).astype(np.float32), first)
    opening = np.linspace(0, 1, count).astype(np.float32)
    opening[1] = np.nan
    return TrackedFace(track, opening, tracks)


def table(*faces, count=20, starts=(0, 12)):
    return FaceTable((90, 160), np.arange(count) / 25, np.array(starts, np.int64), faces)


@pytest.mark.parametrize("faces", [(), (face(3, 5),), (face(0, 20, tracks=(4, 7)), face(10, 6, tracks=()))])
def test_a_table_comes_back_from_disk(tmp_path, faces):
    made = table(*faces)
    made.save(tmp_path / "faces.npz")
    again = FaceTable.load(tmp_path / "faces.npz")
    assert again.size_hw == (90, 160)
    assert again.shots == [(0, 12), (12, 20)]
    assert len(again) == len(faces)
    for old, new in zip(faces, again.faces, strict=True):
        np.testing.assert_array_equal(new.track.boxes, old.track.boxes)
        np.testing.assert_array_equal(new.track.status, old.track.status)
        np.testing.assert_array_equal(new.opening, old.opening)
        assert (new.track.first_frame, new.tracks) == (old.track.first_frame, old.tracks)


def test_over_the_whole_video_a_face_is_lost_outside_its_life():
    made = table(face(3, 5))
    track = made.track_over_video(0)
    assert len(track) == 20
    assert np.flatnonzero(track.is_detected).tolist() == [3, 5, 6, 7]
    assert np.isnan(track.boxes[0]).all()
    assert np.flatnonzero(np.isfinite(made.opening_over_video(0))).tolist() == [3, 5, 6, 7]


def test_area_counts_frames_in_which_the_face_was_seen():
    assert face(0, 5, size=10).area == pytest.approx(4 * 100)


def test_wrong_tables_are_refused():
    with pytest.raises(ValueError, match="start at frame 0"):
        table(starts=(3, 5))
    with pytest.raises(ValueError, match="does not fit"):
        table(face(18, 5))
    with pytest.raises(ValueError, match="does not belong"):
        TrackedFace(face(0, 5).track, np.zeros(4, np.float32))


def test_another_file_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", schema=np.array("other"))
    with pytest.raises(ValueError, match="faces of schema"):
        FaceTable.load(tmp_path / "x.npz")
