"""Reading from a frame on gives exactly what a full pass gives there, in whatever the video is coded and wrapped."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from modules.commons.errors import VideoReadError
from modules.video.reader import VideoReader
from modules.video.reader import _after_seek as after_seek
from tests.support.synthetic_video import ClipSpec, frame_planes, make_clip, video_frame

N = 36
GOP = {"g": "10", "bf": "3", "preset": "veryfast", "qp": "8"}  # x264 makes no B-frames at qp 0
IRREGULAR = (0, 1001, 1502, 3003, 8008, *range(9000, 9000 + 31 * 700, 700))
TS = Fraction(1, 90_000)


def spec(pixel_format="yuv420p", **given):
    return ClipSpec(**{"n_frames": N, "pixel_format": pixel_format, "options": GOP, **given})


def x264(**given):
    return {**GOP, "x264-params": ":".join(f"{key.replace('_', '-')}={value}" for key, value in given.items())}


HEVC = {"preset": "ultrafast", "x265-params": "keyint=10:min-keyint=10:bframes=3:open-gop=1:log-level=none:lossless=1"}
CASES = {
    "b-frames.mp4": spec(),
    "b-frames.mov": spec(),
    "b-frames.mkv": spec(time_base=Fraction(1, 1000)),
    "b-frames.ts": spec(time_base=TS),
    "open group.mp4": spec(options=x264(open_gop=1, b_adapt=0, scenecut=0)),
    "open group.mkv": spec(options=x264(open_gop=1, b_adapt=0, scenecut=0), time_base=Fraction(1, 1000)),
    "open group.ts": spec(options=x264(open_gop=1, b_adapt=0, scenecut=0), time_base=TS),
    "hevc open group.mp4": spec("yuv420p10le", codec="libx265", options=HEVC, width=96, height=80),
    "hevc open group.ts": spec(codec="libx265", options=HEVC, width=96, height=80, time_base=TS),
    "mpeg2.ts": spec(codec="mpeg2video", options={"g": "9", "bf": "2"}, time_base=Fraction(1, 25)),
    "mpeg2.mkv": spec(codec="mpeg2video", options={"g": "9", "bf": "2"}, time_base=Fraction(1, 25)),
    "refreshed without key frames.mp4": spec(options=x264(intra_refresh=1, bframes=0)),
    "refreshed without key frames.ts": spec(options=x264(intra_refresh=1, bframes=0), time_base=TS),
    "variable rate.mp4": spec(pts=IRREGULAR, time_base=Fraction(1, 30_000)),
    "late start.mp4": spec(pts=tuple(10_675 + 512 * i for i in range(N))),
    "late start.ts": spec(pts=tuple(500_000 + 3003 * i for i in range(N)), time_base=TS),
    "edit list.mp4": spec(hidden=14),
    "edit list.mov": spec(hidden=3, rotation_deg=90),
    "vp9.mkv": spec(codec="libvpx-vp9", options={"lossless": "1", "g": "10", "cpu-used": "8"}),
    "ffv1.mkv": spec("yuv422p12le", width=33, height=20),
}
SEEKABLE = {name for name in CASES if "refreshed" not in name}


def has_leading_frames(path):
    """Whether frames follow a key frame in the file that are shown before it."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.pts is not None]
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    return any(packets[i + 1].pts < packets[i].pts for i in keys if i + 1 < len(packets))


def assert_same_frames(found, wanted):
    assert [(f.index, f.pts) for f in found] == [(f.index, f.pts) for f in wanted]
    for a, b in zip(found, wanted, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a.planes, b.planes, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_reading_from_a_frame_on_is_the_rest_of_a_full_pass(tmp_path, monkeypatch, name):
    reader = VideoReader(make_clip(tmp_path / name.replace(" ", "_"), CASES[name]).path)
    full = list(reader.frames())
    assert len(full) >= N - 14 and ("open group" in name) <= has_leading_frames(reader.info.path)
    if name in SEEKABLE:  # not by the slow way
        monkeypatch.setattr(VideoReader, "_timed_from_start", lambda *_: pytest.fail("was decoded from the start"))
    for first in (*range(1, len(full) - 1, 3), len(full) - 1):
        assert_same_frames(list(reader.frames(first, full[first].pts)), full[first:])


def test_without_a_time_the_frames_before_are_decoded_and_passed_over(tmp_path):
    reader = VideoReader(make_clip(tmp_path / "clip.mp4", spec()).path)
    full = list(reader.frames())
    for first in (0, 1, 17, N - 1):
        assert_same_frames(list(reader.frames(first)), full[first:])
    assert list(reader.frames(N)) == list(reader.frames(N + 5, full[-1].pts + 10_000)) == []
    assert list(reader.times()) == [(f.index, f.pts) for f in full]
    with pytest.raises(ValueError, match="no frame -1"):
        next(reader.frames(-1))


def test_a_time_that_is_not_that_frame_s_is_an_error(tmp_path):
    reader = VideoReader(make_clip(tmp_path / "clip.mp4", spec()).path)
    with pytest.raises(VideoReadError, match="frame 12 at 6144, not at 6145"):
        next(reader.frames(12, 6145))


def test_a_stream_without_times_is_counted_from_the_start(tmp_path):
    path = tmp_path / "raw.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            container.mux(stream.encode(video_frame(frame_planes(ClipSpec(), i), "yuv420p", i, Fraction(1, 25))))
        container.mux(stream.encode(None))
    reader = VideoReader(path)
    full = list(reader.frames())
    assert_same_frames(list(reader.frames(13, full[13].pts)), full[13:])


def test_repeated_times_are_spread_as_in_a_full_pass(tmp_path, monkeypatch):
    """The file's own times are given twice; a place after them is found by counting, not by its time."""
    clip = make_clip(tmp_path / "clip.mp4", spec())
    given = VideoReader._timed.__globals__["_decoded"]

    def repeated(*args):
        for frame in given(*args):
            frame.pts = frame.pts // 1024 * 1024  # 0 0 1024 1024 ...
            yield frame

    monkeypatch.setitem(VideoReader._timed.__globals__, "_decoded", repeated)
    reader = VideoReader(clip.path)
    full = list(reader.frames())
    assert [f.pts for f in full[:4]] == [0, 1, 1024, 1025]
    for first in (10, 11, 21, 30):
        assert_same_frames(list(reader.frames(first, full[first].pts)), full[first:])


def test_damage_after_a_seek_names_the_time(tmp_path):
    clip = make_clip(tmp_path / "clip.mp4", spec(n_frames=60, width=160, height=120))
    data = bytearray(clip.path.read_bytes())
    reader = VideoReader(clip.path)
    times = list(reader.times())
    data[len(data) * 3 // 4 :] = np.random.default_rng(0).bytes(len(data) - len(data) * 3 // 4)
    clip.path.write_bytes(data)
    with pytest.raises(VideoReadError, match=r"after \d\.\d{3} s"):
        list(reader.frames(*times[20]))


def test_a_key_frame_shown_after_the_wanted_frame_is_not_begun_at(tmp_path):
    """Frames that lead an open group lack what they refer to there."""
    info = VideoReader(make_clip(tmp_path / "clip.mkv", CASES["open group.mkv"]).path).info
    with av.open(str(info.path)) as container:
        stream = container.streams.video[0]
        key_at, leading_at = 20 * 40, 19 * 40
        assert next(after_seek(container, stream, info, key_at, key_at))[0] == key_at
        assert list(after_seek(container, stream, info, key_at, leading_at)) == []


@pytest.mark.parametrize("name", ["lectern_profile_editlist_640x360_30fps.mp4", "vfr_700x700.mp4"])
def test_real_clips_can_be_entered_anywhere(shared_clips, name):
    reader = VideoReader(shared_clips / name)
    chosen = [frame for frame in reader.frames() if frame.index % 110 == 70]
    assert chosen
    for frame in chosen:
        assert_same_frames([next(reader.frames(frame.index, frame.pts))], [frame])
