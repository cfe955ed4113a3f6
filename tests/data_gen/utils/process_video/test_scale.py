"""A real face at many heights on a cluttered picture: found from 40 px on at 1080p and 4K, and nothing else is."""

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.region_confirmer import RegionConfirmer
from data_gen.utils.process_video.face_detector import FaceDetector
from modules.video.colour import rgb_from_planes
from tests.support.pasted_faces import clutter, cut_heads, paste, pasted_video
from tests.support.real_frames import DEMO_CLIP, read_frame

HD, UHD = (1080, 1920), (2160, 3840)
FREE = {
    "coffee_no_face_1280x720_30fps.mp4": (0, 60, 120, 180, 230, 280),
    "promo_cuts_noface_320x180_30fps.mp4": (30, 90, 120, 330, 390),
}
"""Frames of the shared clips without a face."""
PERSONS = {
    "kitchen_beard_1080x1920_25fps.mp4": 20,
    "address_1280x720_25fps.mp4": 30,
    "glasses_512_25fps.mp4": 10,
    "vfr_700x700.mp4": 20,
}


@pytest.fixture(scope="module")
def detector():
    return FaceDetector("centerface")


@pytest.fixture(scope="module")
def sky(demo_dir):
    return [rgb_from_planes(read_frame(demo_dir / "no_face.mp4", index)) for index in (0, 40, 90)]


def pasted(background, head, seed):
    """A copy of ``background`` with ``head`` somewhere, and the box of its landmarks."""
    rng = np.random.default_rng(seed)
    picture = background.copy()
    margin = np.array(head.alpha.shape[::-1]) / 2 + 2
    return picture, paste(picture, head, tuple(rng.uniform(margin, np.array(picture.shape[1::-1]) - margin)))


def found_alone(detector, background, head, seed, max_side=None):
    """Paste ``head`` somewhere and assert that it alone is found."""
    picture, box = pasted(background, head, seed)
    found = detector.detect_face_bbox(picture, max_side=max_side)
    assert len(found) == 1, f"{head.height:.0f} px: {found}"
    assert found[0].box.iou(box) > 0.5
    middle = head.points[[33, 263]].mean(axis=0) + (np.array(box.as_array()[:2]) - head.points.min(axis=0))
    assert np.linalg.norm(found[0].keypoints[:2].mean(axis=0) - middle) < 0.15 * head.height


@pytest.mark.parametrize("height", [40, 100, 400])
def test_a_face_on_clutter_is_found_alone(height, detector, demo_dir, sky):
    head = cut_heads(demo_dir / DEMO_CLIP, 0)[0]
    found_alone(detector, clutter(HD, sky, seed=height), head.scaled(height / head.height), seed=height)


@pytest.fixture(scope="module")
def pictures(shared_clips, sky):
    return sky + [rgb_from_planes(read_frame(shared_clips / name, i)) for name, at in FREE.items() for i in at]


@pytest.mark.slow
@pytest.mark.parametrize("size", [HD, UHD], ids=["1080p", "4K"])
@pytest.mark.parametrize("height", [40, 60, 100, 200, 400])
@pytest.mark.parametrize("clip", PERSONS)
def test_every_person_at_every_height(clip, height, size, detector, shared_clips, pictures):
    head = cut_heads(shared_clips / clip, PERSONS[clip])[0]
    seed = height + size[0] + PERSONS[clip]
    background, head = clutter(size, pictures, seed), head.scaled(height / head.height)
    found_alone(detector, background, head, seed, max_side=2560)
    found_alone(detector, background, head, seed)


@pytest.mark.slow
@pytest.mark.parametrize("size", [HD, UHD], ids=["1080p", "4K"])
def test_most_faces_of_24_px_are_found_at_their_own_size(size, detector, shared_clips, pictures):
    """One of four scores too low in 4K, and a thumb scores 0.52; a second look at it does not take it for a face."""
    confirmer, seen = RegionConfirmer(), 0
    for clip, index in PERSONS.items():
        head = cut_heads(shared_clips / clip, index)[0]
        seed = 24 + size[0] + index
        picture, box = pasted(clutter(size, pictures, seed), head.scaled(24 / head.height), seed)
        for face in detector.detect_face_bbox(picture, max_side=size[1]):
            if face.box.iou(box) > 0.5:
                seen += 1
            else:
                assert face.score < 0.6
                assert confirmer.confirm(picture, face.box) < 0.5
    assert seen >= 3


@pytest.mark.slow
@pytest.mark.parametrize("size", [HD, UHD], ids=["1080p", "4K"])
def test_clutter_alone_holds_no_face(size, detector, pictures):
    for seed in range(2):
        assert detector.detect_face_bbox(clutter(size, pictures, seed)) == []


def test_the_pasted_video_holds_what_it_says(detector, demo_dir):
    video = pasted_video(demo_dir / DEMO_CLIP, 60, size_hw=(360, 640), count=6, seed=4, speed=0.1)
    assert len(video.frames) == len(video.boxes) == 6
    assert [frame.index for frame in video.frames] == list(range(6))
    assert all(frame.size_hw == (360, 640) for frame in video.frames)
    heights = video.boxes[:, 3] - video.boxes[:, 1]
    np.testing.assert_allclose(heights, 60, rtol=0.1)
    steps = np.diff((video.boxes[:, :2] + video.boxes[:, 2:]) / 2, axis=0)
    assert 3 < np.linalg.norm(steps, axis=1).mean() < 9
    for index in (0, 5):
        (face,) = detector.detect_face_bbox(rgb_from_planes(video.frames[index]))
        assert face.box.iou(video.box(index)) > 0.5
    still = np.ones((360, 640), dtype=bool)
    for box in video.boxes[[0, 5]]:
        x0, y0, x1, y1 = (int(v) for v in box)
        still[max(0, y0 - 60) : y1 + 60, max(0, x0 - 60) : x1 + 60] = False
    first, last = video.frames[0].planes[0], video.frames[5].planes[0]
    assert (first[still] == last[still]).all()
