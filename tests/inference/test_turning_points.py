"""Turning points: still, near the ends, inside a shot; and what going back would give away."""

import logging
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.timeline import TimeOptions
from inference.turning_points import (
    MOVING_SHARE,
    TURN_WINDOW_S,
    background_motion,
    find_turns,
    head_speed,
    plan_timeline,
    warn_of_backward_motion,
    warn_of_turns,
)
from inference.usable_faces import FaceEvidence
from modules.structures.frame_index import FrameIndex
from modules.structures.frames import Frame, PlaneLayout, VideoInfo
from modules.structures.landmarks import MOUTH
from modules.structures.timeline import Turns
from modules.video.reader import VideoReader
from tests.support.synthetic_video import ClipSpec, make_clip

ONE_SHOT = np.array([0])


def times(n, fps=25.0):
    return np.arange(n) / fps


def moving_head(x_px, size=100.0):
    """``[T, 478, 2]`` a cloud of points that stands at ``x_px`` ``[T]``; its eyes are ``size`` apart."""
    cloud = np.random.default_rng(0).uniform(0, size, (478, 2))
    cloud[33], cloud[263] = (0, 0), (size, 0)
    return (cloud + np.stack([x_px, np.zeros(len(x_px))], axis=1)[:, None]).astype(np.float32)


# ---- speed ----


@pytest.mark.parametrize(("fps", "size"), [(25.0, 100.0), (60.0, 100.0), (24.0, 300.0)])
def test_speed_is_inter_ocular_distances_per_second(fps, size):
    speed = head_speed(moving_head(50 * times(60, fps), size), times(60, fps), ONE_SHOT)
    np.testing.assert_allclose(speed, 50 / size, rtol=1e-3)


def test_lips_are_no_head_motion():
    points = moving_head(np.zeros(40))
    points[:, list(MOUTH)] += np.random.default_rng(1).normal(0, 30, (40, len(MOUTH), 2)).astype(np.float32)
    assert head_speed(points, times(40), ONE_SHOT).max() == 0


def test_a_nod_is_still_where_it_turns():
    swing = 20 * np.sin(2 * np.pi * times(100))  # a swing per second
    speed = head_speed(moving_head(swing), times(100), ONE_SHOT)
    assert int(np.argmin(speed[3:10])) + 3 == 6 and int(np.argmin(speed[16:22])) + 16 == 19, "at 0.25 and 0.75 s"
    assert speed[12] > 5 * speed[6], "it is fastest midway"


def test_speed_is_unknown_beside_lost_frames_and_never_measured_across_a_cut():
    points = moving_head(np.where(np.arange(40) < 20, 0.0, 500.0))
    assert np.nanmax(head_speed(points, times(40), np.array([0, 20]))) == 0
    assert np.nanmax(head_speed(points, times(40), ONE_SHOT)) > 10
    points[10] = np.nan
    speed = head_speed(points, times(40), np.array([0, 20]))
    assert np.isnan(speed[[8, 12]]).all() and speed[[7, 13]].tolist() == [0, 0]


@pytest.mark.parametrize("n", [1, 2])
def test_speed_of_hardly_any_frames(n):
    assert head_speed(moving_head(np.zeros(n)), times(n), ONE_SHOT).shape == (n,)
    assert np.isnan(head_speed(moving_head(np.zeros(3)), times(3), np.arange(3))).all(), "shots of one frame"


# ---- turns ----


def turns_of(speed, usable=None, shot_starts=ONE_SHOT, fps=25.0):
    speed = np.asarray(speed, float)
    usable = np.ones(len(speed), bool) if usable is None else usable
    return find_turns(speed, usable, times(len(speed), fps), shot_starts)


def test_it_turns_at_the_stillest_moments_near_both_ends():
    speed = np.ones(200)
    speed[[10, 100, 190]] = 0.1, 0.0, 0.1
    assert turns_of(speed) == Turns(10, 190), "the stillest of all is in the middle of the way"


def test_between_equals_the_longest_way_is_taken():
    assert turns_of(np.ones(200)) == Turns(0, 199)
    assert turns_of(np.full(200, np.nan)) == Turns(0, 199)


def test_it_stays_in_the_last_shot():
    speed = np.ones(200)
    speed[110] = 0.0
    assert turns_of(speed, shot_starts=np.array([0, 50, 100])) == Turns(110, 199)


def test_it_stays_where_the_face_is_usable():
    usable = np.ones(200, bool)
    usable[:20] = usable[60:70] = usable[180:] = False
    usable[100:103] = False  # a moment's loss ends nothing
    assert turns_of(np.ones(200), usable) == Turns(70, 179)
    usable[100:150] = usable[177] = False
    speed = np.ones(200)
    speed[177] = 0.0
    assert turns_of(speed, usable) == Turns(150, 179), "never at a frame that is not usable"


def test_a_last_shot_without_a_face_is_played_all_the_same():
    assert turns_of(np.ones(200), np.arange(200) < 100, np.array([0, 120])) == Turns(120, 199)


@given(st.data())
def test_turns_lie_near_the_ends_of_the_stretch(data):
    n = data.draw(st.integers(1, 120))
    speed = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0, np.nan]), min_size=n, max_size=n)))
    usable = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    cuts = sorted(data.draw(st.sets(st.integers(1, 119))))
    starts = np.array([0, *(cut for cut in cuts if cut < n)])
    turns, clock = turns_of(speed, usable, starts), times(n)
    assert starts[-1] <= turns.first <= turns.last < n
    if usable[starts[-1] :].any():
        assert usable[turns.first] and usable[turns.last]
        assert clock[np.flatnonzero(usable)[-1]] - clock[turns.last] <= TURN_WINDOW_S + 1e-9


# ---- what a viewer would notice ----


def said(caplog):
    return [record.getMessage() for record in caplog.records]


def test_what_is_lost_at_the_end_is_said(caplog):
    usable = np.ones(200, bool)
    with caplog.at_level(logging.WARNING):
        warn_of_turns(Turns(0, 190), usable, times(200), goes_back=True)
        assert said(caplog) == []
        usable[150:] = False
        warn_of_turns(Turns(0, 145), usable, times(200), goes_back=False)
        assert "the last 2.2 s of the video are left out" in said(caplog)[0]
        warn_of_turns(Turns(160, 199), usable, times(200), goes_back=False)
        assert "no usable face" in said(caplog)[1]
        warn_of_turns(Turns(120, 130), usable, times(200), goes_back=True)
        assert any("only 0.4 s" in text for text in said(caplog)[2:])


def test_hands_and_motion_that_go_backwards_are_said(caplog):
    still = np.zeros(91, np.float32)
    with caplog.at_level(logging.WARNING):
        warn_of_backward_motion(Turns(10, 100), times(200), np.array([0, 9, 101, 150]), still)
        rare = still.copy()
        rare[3:8] = 1.0
        warn_of_backward_motion(Turns(10, 100), times(200), np.zeros(0, np.int64), rare)
        assert said(caplog) == [], "outside the stretch, or for a moment"
        warn_of_backward_motion(Turns(10, 100), times(200), np.array([0, 35, 60]), still)
        assert "hands in front of the face backwards" in said(caplog)[0] and "from 1.4 to 2.4 s" in said(caplog)[0]
        walker = still.copy()
        walker[40:65] = 2 * MOVING_SHARE
        warn_of_backward_motion(Turns(10, 100), times(200), np.zeros(0, np.int64), walker)
    assert "motion around the head backwards" in said(caplog)[1] and "27 %" in said(caplog)[1]


# ---- the picture around the head ----


@dataclass
class Scene:
    """A street of noise with a head in the middle; a walker of ``width`` px passes at ``walk`` px per frame."""

    walk: float = 0.0
    width: int = 40
    noise: float = 1.0
    talks: bool = True
    depth: int = 8
    n: int = 40
    fps: int = 25

    box = np.array([140.0, 60.0, 180.0, 110.0])

    def frames(self):
        generator = np.random.default_rng(3)
        street = cv2.GaussianBlur(generator.uniform(40, 200, (180, 320)), (0, 0), 3)
        layout = PlaneLayout(
            "yuv420p" if self.depth == 8 else "yuv420p10le", (1, 1), "left", False, "bt709", self.depth
        )
        for i in range(self.n):
            luma = street + generator.normal(0, self.noise, street.shape)
            if self.walk:
                left = int(10 + self.walk * i)
                luma[50:170, left : left + self.width] = 30
            if self.talks:
                luma[70:108, 142:178] = generator.uniform(0, 255, (38, 36))
            plane = np.clip(luma * (1 << (self.depth - 8)), 0, (1 << self.depth) - 1)
            plane = plane.astype(np.uint8 if self.depth == 8 else np.uint16)
            yield Frame(i, i, Fraction(1, self.fps), (plane, plane, plane), layout)

    def motion(self, box=None):
        return background_motion(self.frames(), np.tile(self.box if box is None else box, (self.n, 1)))


@pytest.mark.parametrize("depth", [8, 10])
def test_a_talking_head_before_a_still_street_moves_nothing(depth):
    assert Scene(depth=depth, noise=4.0).motion().max() < MOVING_SHARE / 4


@pytest.mark.parametrize(("walk", "fps"), [(4.0, 25), (1.0, 60), (0.6, 25)])
@pytest.mark.parametrize("depth", [8, 10])
def test_a_walker_is_seen_at_any_pace(walk, fps, depth):
    moving = Scene(walk=walk, fps=fps, depth=depth, n=30).motion()
    assert moving[15:].min() > MOVING_SHARE / 2 and np.median(moving[15:]) > (MOVING_SHARE if walk > 0.6 else 0.01)


def test_without_a_face_all_of_the_picture_counts():
    assert Scene().motion(np.full(4, np.nan))[1:].min() > MOVING_SHARE / 2
    assert Scene().motion(np.array([-50.0, -50.0, 400.0, 300.0])).max() == 0, "nothing but head"


def test_a_single_frame_does_not_move():
    assert Scene(n=1).motion().tolist() == [0.0]


def test_frames_and_boxes_belong_together():
    with pytest.raises(ValueError, match="zip"):
        background_motion(Scene(n=3).frames(), np.zeros((2, 4)))


# ---- all of it ----


@dataclass
class Tracked:
    """What a prepared source tells a timeline."""

    video: Path
    info: VideoInfo
    landmarks: SimpleNamespace
    evidence: FaceEvidence
    occlusion: SimpleNamespace


COUNT = 50
PTS = tuple(1000 + 512 * i + (100 if i % 4 == 1 else 0) for i in range(COUNT))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Two shots; in the second the face rests around frames 24 and 45 and is lost from 48 on."""
    clip = make_clip(tmp_path_factory.mktemp("turns") / "clip.mp4", ClipSpec(pts=PTS))
    speed = np.ones(COUNT)
    speed[23:28] = speed[43:48] = 0.0
    points = moving_head(np.cumsum(speed) * 2)
    points[48:] = np.nan
    valid = np.isfinite(points[:, 0, 0])
    evidence = FaceEvidence(valid, np.where(valid, 0.02, np.nan).astype(np.float32), np.zeros(COUNT, np.float32))
    with VideoReader(clip.path) as reader:
        info = reader.info
    return Tracked(clip.path, info, SimpleNamespace(points=points), evidence, SimpleNamespace(rows=np.array([30])))


def index_of(tracked):
    return FrameIndex(np.array(PTS, np.int64), tracked.info.time_base, np.array([0, 20]))


def test_a_timeline_turns_where_the_video_is_still(tracked, caplog):
    index = index_of(tracked)
    with caplog.at_level(logging.WARNING):
        whole = plan_timeline(tracked, index, TimeOptions(), 1.0)
        assert whole.is_source and whole.pts.tolist() == list(PTS) and said(caplog) == []
        longer = plan_timeline(tracked, index, TimeOptions(length="pingpong"), 6.0)
    assert longer.rows[: longer.first_pass].tolist() == list(range(46))
    assert (longer.rows[longer.first_pass :].min(), longer.rows.max()) == (24, 45)
    assert longer.duration_s >= 6.0 and longer.shot_starts(index.shot_starts).tolist() == [0, 20]
    texts = said(caplog)
    assert any("hands" in text for text in texts), "at frame 30"
    assert any("motion around the head" in text for text in texts), "the clip's gradients move everywhere"
    assert any("played back and forth" in text for text in texts), "0.8 s"


def test_to_hold_a_frame_no_picture_is_looked_at(tracked, monkeypatch, caplog):
    monkeypatch.delattr("inference.turning_points.background_motion")
    with caplog.at_level(logging.WARNING):
        held = plan_timeline(tracked, index_of(tracked), TimeOptions(length="hold"), 6.0)
        assert held.first_pass == 46 and set(held.rows[46:]) == {45} and said(caplog) == []
        plan_timeline(tracked, index_of(tracked), TimeOptions(length="trim"), 6.0)
    assert "its last 4.0 s are cut off" in said(caplog)[0]


@pytest.mark.parametrize("name", ["anchor_german_512_25fps.mp4", "interview_two_speakers_hand_1280x720_25fps.mp4"])
def test_real_motion_around_a_head(shared_clips, name):
    """A newsreader before a wall; two people who gesture."""
    with VideoReader(shared_clips / name) as reader:
        height, width = reader.info.height, reader.info.width
        head = np.array([0.34 * width, 0.25 * height, 0.76 * width, 0.79 * height])
        box = head if "anchor" in name else np.array([787.0, 82.0, 983.0, 315.0])
        moving = background_motion(islice(reader.frames(), 60), np.tile(box, (60, 1)))
    share = float((moving > MOVING_SHARE).mean())
    assert share < 0.02 if "anchor" in name else share > 0.9
