"""A real face of a given height somewhere in a large cluttered video: the whole tracker finds it, and nothing else."""

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.landmark_track import track_in_memory
from modules.structures.boxes import BoundingBox
from modules.structures.tracks import FrameStatus
from tests.support.pasted_faces import pasted_video
from tests.support.real_frames import DEMO_CLIP

HD, UHD = (1080, 1920), (2160, 3840)
CLIPS = (
    "address_1280x720_25fps.mp4",
    "anchor_german_512_25fps.mp4",
    "kitchen_beard_1080x1920_25fps.mp4",
    "moustache_480x360_30fps.mp4",
)


@pytest.fixture(scope="module")
def real():
    return FaceLandmarker(), FaceDetector("centerface")


def followed(video, real):
    """Status of the one face in each frame; everything that is seen must be it."""
    table = track_in_memory(video.frames, *real)
    assert len(table) == 1, "nothing but the face"
    track = table.track_over_video(0)
    for row in np.flatnonzero(track.is_detected):
        assert track.box(int(row)).iou(BoundingBox(*video.boxes[row].tolist())) > 0.35
    return track.status


def test_a_face_of_40_px_in_a_full_hd_video(demo_dir, real):
    video = pasted_video(demo_dir / DEMO_CLIP, 40, size_hw=HD, count=10, seed=1)
    assert (followed(video, real) == FrameStatus.DETECTED).all()


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("size_hw", [HD, UHD])
@pytest.mark.parametrize("height", [40, 60, 100, 200, 400])
def test_every_face_from_40_px_on_is_found(clip, size_hw, height, shared_clips, real):
    video = pasted_video(shared_clips / clip, height, size_hw=size_hw, count=32, seed=CLIPS.index(clip))
    assert (followed(video, real) == FrameStatus.DETECTED).all()


@pytest.mark.slow
@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("size_hw", [HD, UHD])
def test_a_face_of_24_px_is_followed(clip, size_hw, shared_clips, real):
    video = pasted_video(shared_clips / clip, 24, size_hw=size_hw, count=32, seed=CLIPS.index(clip))
    assert (followed(video, real) == FrameStatus.TOO_SMALL).all(), "seen, but too small to be edited"
