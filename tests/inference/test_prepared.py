"""A prepared video and its faces: read back as measured, found again by content, refused with one sentence."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.motion import projected_landmarks
from inference.prepared import load_source, open_face, open_source, open_video, video_id_of
from modules.commons.errors import GeneFaceError, NoFaceError, VideoReadError
from modules.commons.progress import silent
from modules.structures.tracks import FrameStatus
from tests.support.tiny_run import FRAMES, all_frames, listening, own_folders, tiny_run

COUNT = FRAMES[1] - FRAMES[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def video(run):
    with own_folders(run.root):
        return open_video(run.clip, silent)


@pytest.fixture(scope="module")
def source(run):
    with own_folders(run.root):
        return open_source(run.clip, silent)


def test_a_video_knows_its_frames_and_faces(run, video):
    frames = all_frames(run.clip)
    assert video.index.pts.tolist() == [frame.pts for frame in frames] and len(video.index) == COUNT
    assert video.clock.durations.sum() == video.clock.end_pts - frames[0].pts
    assert video.clock.duration_s == pytest.approx(COUNT * 1001 / 24000, abs=1e-9)
    assert len(video.faces) == 1 and video.faces.size_hw == (360, 640)
    np.testing.assert_array_equal(video.faces.times_s, video.index.times_s)


def test_every_table_of_a_face_has_a_row_per_frame(source, video):
    assert source.face == 0 and len(source) == COUNT
    tables = (source.times_s, source.status, source.landmarks.points, source.coeffs.expression, source.occlusion)
    assert {len(table) for table in (*tables, source.evidence.valid)} == {COUNT}
    assert len(source.crops.regions) in (1, COUNT), "one square, or one per frame"
    np.testing.assert_array_equal(source.status, video.faces.track_over_video(0).status)
    assert source.shot_starts.tolist() == [0] and source.times_s[0] == 0
    assert (source.status == FrameStatus.DETECTED).sum() > COUNT // 2
    box = video.faces.faces[0].track.box(0)
    assert 0.5 * (box.y1 - box.y0) < source.face_height_px < 2 * (box.y1 - box.y0)


def test_the_height_of_a_face_that_was_never_seen_is_0(source):
    nobody = replace(source.landmarks, valid=np.zeros(COUNT, bool))
    assert replace(source, landmarks=nobody).face_height_px == 0


def test_nothing_is_measured_twice(run, source):
    with own_folders(run.root), listening() as said:
        again = open_source(run.clip, silent)
    assert not [text for _, text in said if "done in" in text]
    np.testing.assert_array_equal(again.coeffs.expression, source.coeffs.expression)


def test_the_same_content_elsewhere_is_the_same_video(run, video, tmp_path):
    elsewhere = tmp_path / run.clip.name
    shutil.copy(run.clip, elsewhere)
    with own_folders(run.root), listening() as said:
        again = open_video(elsewhere, silent)
    assert again.workspace == video.workspace and again.sha256 == video.sha256 and again.video == elsewhere
    assert not [text for _, text in said if "done in" in text]


def test_a_face_that_is_not_there(run, video):
    with own_folders(run.root):
        with pytest.raises(NoFaceError, match=r"clip\.mp4: there is no face 3: the video shows 1, numbered from 0"):
            open_face(video, 3, silent)
        with pytest.raises(NoFaceError, match=r"clip\.mp4: there is no face 1"):
            open_source(run.clip, silent, face=1)


def test_a_video_that_is_none(tmp_path):
    with pytest.raises(VideoReadError, match=r"none\.mp4"):
        open_video(tmp_path / "none.mp4", silent)


@pytest.mark.parametrize("table", ["frame_index", "track", "landmarks", "coeffs", "crop_metadata", "hands"])
def test_a_table_that_is_missing_or_of_something_else(run, source, tmp_path, table):
    copied = replace(source.workspace, data_root=tmp_path)
    shutil.copytree(source.workspace.processed, copied.processed)
    read = load_source(run.clip, source.sha256, copied, source.info)
    np.testing.assert_array_equal(read.coeffs.euler, source.coeffs.euler)
    file = getattr(copied, table)
    file.unlink()
    with pytest.raises((GeneFaceError, OSError), match=file.name):
        load_source(run.clip, source.sha256, copied, source.info)
    other = copied.hands if table == "landmarks" else copied.landmarks
    shutil.copy(other, file)
    with pytest.raises((GeneFaceError, ValueError)):
        load_source(run.clip, source.sha256, copied, source.info)


@given(st.text(max_size=80), st.text("0123456789abcdef", min_size=64, max_size=64))
def test_the_name_of_a_videos_folder_is_safe_and_tells_contents_apart(stem, sha256):
    name = video_id_of(Path(f"x{stem.replace('/', ' ').replace(chr(0), ' ')}.mp4"), sha256)
    assert name.endswith(f"-{sha256[:10]}") and len(name) <= 51
    assert all(c.isascii() and (c.isalnum() or c in "_-") for c in name) and not name.startswith((".", "-"))


def test_a_prepared_face_comes_with_its_own_expression_units(run, source, tmp_path):
    assert source.face_model.correction is None
    copied = replace(source.workspace, data_root=tmp_path)
    shutil.copytree(source.workspace.processed, copied.processed)
    correction = np.random.default_rng(0).normal(scale=0.2, size=(80, 52)).astype(np.float32)
    coeffs = replace(source.coeffs, correction=correction)
    coeffs.save(copied.coeffs)
    own = load_source(run.clip, source.sha256, copied, source.info)
    moved = projected_landmarks(own, coeffs.expression) - projected_landmarks(source, coeffs.expression)
    identity, expression = torch.from_numpy(coeffs.identity), torch.from_numpy(coeffs.expression)
    expected = source.face_model.corrected(correction).landmarks(identity, expression)
    np.testing.assert_array_equal(own.face_model.landmarks(identity, expression).numpy(), expected.numpy())
    assert np.abs(moved).max() > 0.5
    with np.load(copied.coeffs) as data:
        arrays = {**data, "correction": np.full((80, 52), np.nan, np.float32)}
    np.savez(copied.coeffs, **arrays)
    with pytest.raises(GeneFaceError, match=r"not finite.* prepare the video again"):
        load_source(run.clip, source.sha256, copied, source.info)
