import numpy as np
import pytest

from data_gen.utils.process_video.scene_cuts import CutDetector
from tests.data_gen.utils.process_video.moving_face import LAYOUT, box_at, make_frame
from tests.support.real_frames import DEMO_CLIP, read_frames


def cuts_of(frames):
    detector = CutDetector()
    return [frame.index for frame in frames if detector.is_cut(frame)]


def test_a_moving_face_is_no_cut_and_a_new_background_is():
    frames = [make_frame(i, [box_at(40 + 3 * i, 60)], background=20 if i < 12 else 150) for i in range(20)]
    assert cuts_of(frames) == [12]


def test_the_first_frame_is_no_cut():
    assert cuts_of([make_frame(0, [], background=200)]) == []


def test_restless_pictures_raise_the_bar():
    rng = np.random.default_rng(0)
    frames = [make_frame(i, [], background=int(rng.integers(60, 160))) for i in range(40)]
    assert len([index for index in cuts_of(frames) if index > 15]) <= 1


def test_ten_bit_planes_count_the_same():
    from dataclasses import replace

    layout = replace(LAYOUT, bit_depth=10)
    frames = []
    for index, level in enumerate((20, 20, 20, 30, 160, 160)):
        frame = make_frame(index, [], background=level)
        planes = tuple(plane.astype(np.uint16) * 4 for plane in frame.planes)
        frames.append(replace(frame, planes=planes, layout=layout))
    assert cuts_of(frames) == [4]


def test_real_clips(demo_dir):
    assert cuts_of(read_frames(demo_dir / "face_noface.mov", 60, 90)) == [72, 73], "black frame between"
    assert cuts_of(read_frames(demo_dir / DEMO_CLIP, 40, 140)) == [], "a hand before the face is no cut"


def test_promo_has_many_cuts(shared_clips):
    clip = shared_clips / "promo_cuts_noface_320x180_30fps.mp4"
    assert len(cuts_of(read_frames(clip, 0, 300))) == pytest.approx(9, abs=6)
