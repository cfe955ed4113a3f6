"""One owner of every path: what belongs to the video, to its first face and to the others never meets."""

from pathlib import Path

import pytest

from data_gen.runs.process_video import STAGES
from modules.commons.workspace import CHECKPOINTS, ROOT, VideoWorkspace

OF_VIDEO = ("frame_index", "observations", "faces")
OF_FACE = (
    "manifest", "track", "landmarks", "crop_metadata", "hands", "first_coeffs", "occlusion", "coeffs", "crops",
    "dataset",
)  # fmt: skip


@pytest.fixture
def workspace(tmp_path):
    return VideoWorkspace("clip", tmp_path)


def test_by_default_everything_lies_below_the_data_folder():
    assert VideoWorkspace("clip").dataset == ROOT / "data" / "binary" / "videos" / "clip" / "trainval_dataset.npz"
    assert VideoWorkspace("clip").raw_video == ROOT / "data" / "raw" / "videos" / "clip.mp4"
    assert CHECKPOINTS.is_dir()


def test_faces_share_what_belongs_to_the_video(workspace):
    for face in (0, 1, 12):
        for name in OF_VIDEO:
            assert getattr(workspace.of_face(face), name) == getattr(workspace, name)


def test_no_two_faces_share_anything_else(workspace):
    paths = [getattr(workspace.of_face(face), name) for face in (0, 1, 2, 12) for name in OF_FACE]
    assert len(set(paths)) == len(paths)
    assert not set(paths) & {getattr(workspace, name) for name in OF_VIDEO}


def test_other_faces_lie_in_folders_of_their_own_and_the_first_beside_them(workspace):
    third = workspace.of_face(3)
    assert third.processed == workspace.video_folder / "face_3"
    assert third.binary == workspace.binary / "face_3"
    assert workspace.processed == workspace.video_folder == third.video_folder


def test_the_way_back_to_the_video(workspace):
    assert workspace.of_face(3).of_video == workspace == workspace.of_video
    assert workspace.of_face(3) == VideoWorkspace("clip", workspace.data_root, 3)
    assert workspace.of_face(3).of_face(0) == workspace


def test_every_artefact_of_the_stages_is_one_of_these():
    written = {name: stage for stage in STAGES for name in stage.writes}
    assert {name for name, stage in written.items() if not stage.of_face} == set(OF_VIDEO)
    assert {name for name, stage in written.items() if stage.of_face} == set(OF_FACE) - {"manifest"}


def test_growing_outputs_are_kept_apart_and_found_again(workspace, tmp_path):
    one, other = tmp_path / "one.mp4", tmp_path / "other.mp4"
    assert workspace.segments(one) != workspace.segments(other)
    assert workspace.segments(one) == workspace.segments(Path(one.parent / "x" / ".." / "one.mp4"))
    assert workspace.segments(one).is_relative_to(tmp_path / "binary" / "videos" / "clip")
