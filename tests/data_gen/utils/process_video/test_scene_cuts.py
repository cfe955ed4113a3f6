from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_gen.utils.process_video.scene_cuts import (
    ShotConfig,
    ShotFinder,
    find_shots,
    is_mixture,
    marked_shots,
    small_picture,
)
from modules.structures.frames import Frame, PlaneLayout
from modules.video.reader import VideoReader
from tests.data_gen.utils.process_video.moving_face import make_frame
from tests.support.annotations import annotation_of
from tests.support.real_frames import DEMO_CLIP, read_frames

LIMITED_420 = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
WH = (192, 108)


def scene(seed: int, width: int = WH[0]) -> np.ndarray:
    """A made-up view in YCbCr, float ``[108, width, 3]``: blobs of all sizes."""
    rng = np.random.default_rng(seed)
    view = np.zeros((WH[1], width, 3), np.float32)
    for cells in (3, 6, 12, 24):
        coarse = rng.uniform(-1, 1, (cells, cells * width // WH[1], 3)).astype(np.float32)
        view += cv2.resize(coarse, (width, WH[1]), interpolation=cv2.INTER_CUBIC) / cells**0.5
    return np.clip(rng.uniform(100, 150) + 50 * view * (1.0, 0.4, 0.4), 20, 230).astype(np.float32)


def frame_of(index: int, view: np.ndarray, time_s: Fraction | None = None) -> Frame:
    """A limited-range 4:2:0 frame of YCbCr; frame rate 25 when no time is given."""
    luma, blue, red = (np.round(view[..., channel]).astype(np.uint8) for channel in range(3))
    time = Fraction(index, 25) if time_s is None else time_s
    return Frame(index, round(time * 9000), Fraction(1, 9000), (luma, blue[::2, ::2], red[::2, ::2]), LIMITED_420)


def film(views: list[np.ndarray]) -> list[Frame]:
    return [frame_of(index, view) for index, view in enumerate(views)]


def noisy(view: np.ndarray, seed: int) -> np.ndarray:
    grain = np.random.default_rng(seed).normal(0, 1.5, (WH[1] // 2, WH[0] // 2, 1)).repeat(2, 0).repeat(2, 1)
    return np.clip(view + grain, 16, 235)


def shots_of(views: list[np.ndarray], config: ShotConfig | None = None) -> list[int]:
    return find_shots(film(views), config).tolist()


@settings(max_examples=10)
@given(st.lists(st.integers(5, 12), min_size=2, max_size=4), st.integers(0, 200))
@example([5, 5, 5, 5], 0)  # 0.6 s - 0.4 s < 0.2 s in floating point
def test_every_cut_between_different_scenes_is_found_however_close(lengths, seed):
    views = [noisy(scene(1000 * seed + k), i) for k, length in enumerate(lengths) for i in range(length)]
    assert shots_of(views) == [0, *np.cumsum(lengths[:-1]).tolist()]


def test_a_panning_camera_makes_no_shots():
    wide = scene(3, width=600)
    for speed in (2, 6, 12):
        assert shots_of([wide[:, speed * i : speed * i + WH[0]] for i in range(30)]) == [0], speed


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("colour", [(235, 128, 128), (16, 128, 128), (150, 100, 180)], ids=["white", "black", "red"])
def test_a_flash_makes_no_shot(length, colour):
    flash = np.full((WH[1], WH[0], 3), colour, np.float32)
    dimmed = 0.15 * scene(5) + 0.85 * flash
    views = [noisy(dimmed if 12 <= i < 12 + length else scene(5), i) for i in range(40)]
    assert shots_of(views) == [0]


def test_another_picture_for_less_than_a_shot_is_no_shot_and_for_longer_it_is_two():
    def views(length):
        return [noisy(scene(8 if 12 <= i < 12 + length else 7), i) for i in range(40)]

    assert shots_of(views(3)) == [0]
    assert shots_of(views(6)) == [0, 12, 18]
    assert shots_of(views(6), ShotConfig(min_shot_s=0.5)) == [0]


@pytest.mark.parametrize("level", [16, 235], ids=["black", "white"])
@pytest.mark.parametrize("length", [10, 20])
def test_a_fade_is_a_boundary_where_the_picture_comes_back(level, length):
    blank = np.full((WH[1], WH[0], 3), (level, 128, 128), np.float32)
    ramp = np.linspace(0, 1, length)
    views = [scene(1)] * 20 + [(1 - w) * scene(1) + w * blank for w in ramp]
    views += [(1 - w) * blank + w * scene(2) for w in ramp] + [scene(2)] * 20
    shots = shots_of(views)
    assert len(shots) == 2 and 18 + length <= shots[1] <= 20 + length + 4


@pytest.mark.parametrize("length", [6, 12, 20])
def test_a_dissolve_is_a_boundary_inside_it(length):
    mixed = [(1 - w) * scene(1) + w * scene(2) for w in np.linspace(0, 1, length + 2)[1:-1]]
    views = [noisy(view, i) for i, view in enumerate([scene(1)] * 25 + mixed + [scene(2)] * 25)]
    shots = shots_of(views)
    assert len(shots) == 2 and 25 <= shots[1] < 25 + length


def test_a_picture_that_only_grows_darker_or_a_caption_that_fades_in_is_no_dissolve():
    captioned = scene(1)
    captioned[80:100, 10:150] = (20, 128, 128)
    for end in (0.5 * scene(1) + 0.5 * np.array((16, 128, 128)), captioned):
        assert shots_of([(1 - w) * scene(1) + w * end for w in np.clip(np.linspace(-1, 2, 45), 0, 1)]) == [0]


def test_a_mixture_is_told_from_motion():
    rng = np.random.default_rng(0)
    start, end, other = (rng.uniform(0, 255, 500).astype(np.float32) for _ in range(3))
    mixed = [start + w * (end - start) for w in (0, 0.25, 0.5, 0.75, 1)]
    assert is_mixture(mixed, ShotConfig())
    assert not is_mixture([*mixed[:2], other, *mixed[3:]], ShotConfig()), "something else in the middle"
    assert not is_mixture([mixed[k] for k in (0, 3, 2, 1, 4)], ShotConfig()), "forth and back"
    assert not is_mixture([mixed[k] for k in (0, 0, 0, 4, 4)], ShotConfig()), "a hard cut"
    assert not is_mixture([start + 5 * w for w in (0, 1, 2, 3, 4)], ShotConfig(min_change=21)), "hardly a change"


def test_a_black_frame_between_two_scenes_is_one_boundary():
    blank = np.full((WH[1], WH[0], 3), (16, 128, 128), np.float32)
    assert shots_of([scene(1)] * 15 + [blank] + [scene(2)] * 15) == [0, 15]


def test_times_change_nothing_but_the_shortest_shot():
    rng = np.random.default_rng(4)
    views = [noisy(scene(k), i) for k in range(4) for i in range(12)]
    gaps = [Fraction(int(n), 60) for n in rng.choice([1, 4, 24], len(views))]
    uneven = [frame_of(i, view, sum(gaps[:i], Fraction(7))) for i, view in enumerate(views)]
    assert find_shots(uneven).tolist() == [0, 12, 24, 36] == shots_of(views)


def test_ten_bits_mean_the_same_as_eight():
    frames = film([noisy(scene(k), i) for k in range(3) for i in range(10)])
    deep = [
        replace(
            frame,
            planes=tuple(plane.astype(np.uint16) * 4 for plane in frame.planes),
            layout=replace(frame.layout, bit_depth=10, pixel_format="yuv420p10le"),
        )
        for frame in frames
    ]
    assert all(np.array_equal(small_picture(a), small_picture(b)) for a, b in zip(frames, deep, strict=True))
    assert find_shots(deep).tolist() == [0, 10, 20]


@pytest.mark.parametrize("size_hw", [(2160, 3840), (1920, 1080), (36, 64), (9, 7)])
def test_the_small_picture_has_one_size_and_true_colours(size_hw):
    planes = [
        np.full(size_hw, 126, np.uint8),
        *(np.full([-(-n // 2) for n in size_hw], c, np.uint8) for c in (90, 170)),
    ]
    small = small_picture(Frame(0, 0, Fraction(1, 25), (planes[0], planes[1], planes[2]), LIMITED_420))
    assert small.shape == (54, 96, 3) and (small == small[0, 0]).all()
    blue, green, red = small[0, 0].astype(int)
    assert red > 160 and blue < 90 and blue < green < red


def test_limited_range_black_and_white_are_black_and_white():
    levels = [
        small_picture(make_frame(0, [], background=16)),
        *map(small_picture, film([scene(0) * 0 + (16, 128, 128)])),
    ]
    assert levels[0].mean() == pytest.approx(16, abs=1), "full range"
    assert levels[1].max() <= 1


def test_a_part_of_a_video_keeps_its_frame_numbers():
    frames = film([noisy(scene(k), i) for k in range(3) for i in range(10)])
    assert find_shots(frames[5:]).tolist() == [5, 10, 20]


@pytest.mark.parametrize("config", [ShotConfig(), ShotConfig(min_shot_s=0.04)], ids=["usual", "short"])
def test_frames_come_marked_one_by_one_as_all_at_once(config):
    mixed = [(1 - w) * scene(3) + w * scene(4) for w in np.linspace(0, 1, 22)[1:-1]]
    views = (
        [scene(0)] * 15 + [scene(1)] * 6 + [scene(2)] * 3 + [scene(3)] * 25 + mixed + [scene(4)] * 30 + [scene(5)] * 4
    )
    frames = film([noisy(view, i) for i, view in enumerate(views)])
    marked = list(marked_shots(iter(frames), config))
    assert [frame.index for frame, _ in marked] == list(range(len(frames)))
    shots = find_shots(frames, config).tolist()
    assert [frame.index for frame, starts in marked if starts] == shots
    assert {0, 15, 21} <= set(shots) and any(49 <= shot < 69 for shot in shots)


def test_no_frames_no_shots():
    assert find_shots([]).tolist() == []
    assert find_shots(film([scene(0)])).tolist() == [0]


def test_what_is_remembered_does_not_grow():
    finder, views = ShotFinder(), [scene(seed) for seed in range(4)]
    for index in range(160):
        finder.step(frame_of(index, views[index // 40]))
        assert len(finder._memory) <= 20
    assert finder.finish().tolist() == [0, 40, 80, 120]
    stopped = ShotFinder()
    for index in range(600):
        stopped.step(frame_of(index, views[0], Fraction(0)))
    assert len(stopped._memory) <= 512, "a broken clock must not fill the memory"


@pytest.mark.parametrize(
    "changes",
    [{"min_shot_s": -1}, {"outlier": 0.5}, {"min_difference": 1.5}, {"black": 250}, {"min_change": float("nan")}],
)
def test_senseless_thresholds_are_refused(changes):
    with pytest.raises(ValueError, match="out of range"):
        ShotConfig(**changes)


@pytest.mark.parametrize("clip", ["promo_cuts_noface_320x180_30fps.mp4", "concert_cuts_hands_640x360_30fps.mp4"])
def test_real_cuts_are_found_and_nothing_else(clip, shared_clips):
    assert find_shots(read_frames(shared_clips / clip)).tolist() == [0, *annotation_of(clip).cuts]


@pytest.mark.parametrize(
    "clip",
    [
        "tall_moving_camera_480x908_30fps.mp4",
        "dancers_four_faces_682x360_25fps.mp4",
        "lectern_profile_editlist_640x360_30fps.mp4",
        "moustache_480x360_30fps.mp4",
        "vfr_700x700.mp4",
    ],
    ids=["moving camera", "dancers", "flashes", "dark", "vfr"],
)
def test_one_shot_stays_one(clip, shared_clips):
    with VideoReader(shared_clips / clip) as reader:
        assert find_shots(reader.frames()).tolist() == [0]


def test_demo_clips(demo_dir):
    assert find_shots(read_frames(demo_dir / "face_noface.mov", 60, 90)).tolist() == [60, 72]
    assert find_shots(read_frames(demo_dir / DEMO_CLIP, 40, 140)).tolist() == [40], "a hand before the face is no cut"
