"""Smart copy: untouched stretches keep their packets; every frame is there, in order and time, in two decoders."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imageio_ffmpeg import get_ffmpeg_exe

from modules.commons.errors import OutputError, VideoReadError
from modules.structures.frames import FramePatch
from modules.video.codecs import EncodeConfig
from modules.video.colour import blend_patch
from modules.video.open_segment import SegmentPlan, check_frames, frame_check
from modules.video.parameter_sets import read_headers
from modules.video.reader import VideoReader
from modules.video.segments import SegmentedWriter
from modules.video.smart_copy import CopiedRun, check_copyable, plan_copies
from tests.support.synthetic_video import ClipSpec, make_clip, read_video

QUALITY = EncodeConfig(preset="veryfast", crf=20)
CLOSED = {"qp": "22", "preset": "slow", "g": "12", "x264-params": "b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}
OPEN = {**CLOSED, "x264-params": CLOSED["x264-params"] + ":open-gop=1"}
HEVC = {"crf": "20", "preset": "fast", "x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3:no-open-gop=1"}
HEVC_OPEN = {**HEVC, "x265-params": HEVC["x265-params"].replace("no-open-gop=1", "open-gop=1")}
N = 60
SLOW = pytest.mark.slow


def clip_of(path, options=CLOSED, **changes):
    spec = ClipSpec(96, 64, N, options=options, color_tags=(1, 1, 1, 1))
    return make_clip(path, replace(spec, **{"codec": "libx265" if "x265-params" in options else None, **changes}))


def touched_frames(*spans, n=N):
    touched = np.zeros(n, bool)
    for first, stop in spans:
        touched[first:stop] = True
    return touched


def planned(reader, touched, suffix, quality=QUALITY, per_run=1000):
    pts = np.array([pts for _, pts in reader.times()], np.int64)
    return plan_copies(reader.info.path, reader.info, suffix, quality, pts, touched, per_run)


def edited(frame):
    """Something that nobody could take for the source's."""
    height, width = frame.size_hw
    square = (width // 4, height // 4, width // 2, height // 2)
    shape = (square[3] - square[1], square[2] - square[0])
    grey = np.full((*shape, 3), 0.5 + 0.3 * (frame.index % 2), np.float32)
    return blend_patch(frame, FramePatch(square, grey, np.ones(shape, np.float32)))


def write(source, out, touched, *, stop_at=None, per_segment=16, quality=QUALITY, per_run=1000):
    """What a job does; returns the plan."""
    with VideoReader(source) as reader:
        plan = planned(reader, touched, out.suffix, quality, per_run)
        with SegmentedWriter(
            out.parent / "segments", out, reader.info, key="k", quality=quality, frames_per_segment=per_segment,
            copies=plan,
        ) as writer:  # fmt: skip
            for frame in reader.frames():
                if frame.index == stop_at:
                    raise KeyboardInterrupt
                if frame.index >= writer.finished_frames:
                    writer.write(edited(frame) if touched[frame.index] else frame)
    return plan


def by_ffmpeg(path):
    """(time in s, md5 of the samples) of every frame, by FFmpeg's own program."""
    command = [get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-map", "0:v", "-fps_mode", "passthrough"]
    command[1:1] = ["-copyts"]
    command += ["-enc_time_base", "demux", "-f", "framemd5", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not done.stderr, "a decoder that complains shows players what to stumble over"
    lines = done.stdout.splitlines()
    tick = next(Fraction(line.split()[2]) for line in lines if line.startswith("#tb"))
    rows = [line.split(",") for line in lines if not line.startswith("#")]
    return [(int(row[2]) * tick, row[5].strip()) for row in rows]


def payloads(path):
    """The units of every picture's packet by time, without lengths, parameter sets or what else comes before."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        headers = read_headers(stream.codec_context.name, stream.codec_context.extradata)
        return {p.pts * p.time_base: headers.with_start_codes(bytes(p)) for p in container.demux(stream) if p.size}


def assert_copied(source, out, plan, touched):
    """Copied frames are the source's own to the bit in two decoders; all others are there, and close."""
    times, images, _ = read_video(source)
    new_times, new_images, _ = read_video(out)
    copied = {number for run in plan.runs for number in range(run.first, run.stop)}
    assert copied and not copied & set(np.flatnonzero(touched))
    slack = Fraction(1, 2000) if out.suffix == ".mkv" and source.suffix != ".mkv" else 0
    assert len(new_times) == len(times)
    assert all(abs(a - b) <= slack for a, b in zip(new_times, times, strict=True))
    for number, (before, after) in enumerate(zip(images, new_images, strict=True)):
        is_same = all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
        assert is_same == (number in copied), number
    old, new = by_ffmpeg(source), by_ffmpeg(out)
    assert len(old) == len(new) == len(times)
    assert all(abs(a[0] - b[0]) <= slack for a, b in zip(old, new, strict=True))
    assert {number for number in range(len(old)) if old[number][1] == new[number][1]} == copied
    if not slack:
        before, after = payloads(source), payloads(out)
        assert all(after[times[number]].endswith(before[times[number]]) for number in copied)


@pytest.mark.parametrize(
    ("suffix", "options", "changes", "wanted"),
    [
        pytest.param(".mp4", CLOSED, {}, [(0, 20), (36, 60)], id="mp4"),
        pytest.param(".mov", CLOSED, {"pixel_format": "yuv420p10le"}, [(0, 20), (36, 60)], id="mov-10bit", marks=SLOW),
        pytest.param(".mkv", CLOSED, {"rotation_deg": 90}, [(0, 20), (36, 60)], id="mkv-turned", marks=SLOW),
        pytest.param(".mp4", OPEN, {}, [(0, 20)], id="open-gop"),
        pytest.param(".mp4", HEVC, {}, [(0, 20), (36, 60)], id="hevc"),
        pytest.param(".mkv", HEVC, {"pixel_format": "yuv420p10le"}, [(0, 20), (36, 60)], id="hevc-mkv", marks=SLOW),
        pytest.param(".mov", HEVC_OPEN, {}, [(0, 20)], id="hevc-open-gop", marks=SLOW),
    ],
)
def test_untouched_stretches_are_the_sources_packets(tmp_path, suffix, options, changes, wanted):
    """Edited: frames 20 to 29. From a refresh on, copying goes up to the edit; after it, from the next refresh on."""
    clip, touched = clip_of(tmp_path / "in.mp4", options, **changes), touched_frames((20, 30))
    plan = write(clip.path, tmp_path / f"out{suffix}", touched)
    found = [(run.first, run.stop) for run in plan.runs]
    assert [run[0] for run in found] == [run[0] for run in wanted] and len(found) == len(wanted)
    for (_, stop), (_, most) in zip(found, wanted, strict=True):
        assert most - 4 <= stop <= most  # B-frames before the edit that need a frame in it are encoded
    assert_copied(clip.path, tmp_path / f"out{suffix}", plan, touched)


@pytest.mark.parametrize(
    ("spans", "options"),
    [
        pytest.param([(13, 14), (37, 40)], CLOSED, id="h264-inside"),
        pytest.param([(0, 5), (55, 60)], HEVC, id="hevc-ends"),
        pytest.param([(13, 14), (37, 40)], HEVC, id="hevc-inside", marks=SLOW),
        pytest.param([(0, 5), (55, 60)], CLOSED, id="h264-ends", marks=SLOW),
        pytest.param([(0, 1)], CLOSED, id="h264-first", marks=SLOW),
        pytest.param([(59, 60)], HEVC, id="hevc-last", marks=SLOW),
    ],
)
def test_any_place_may_be_edited_and_any_frame_found_again(tmp_path, spans, options):
    clip, touched, out = clip_of(tmp_path / "in.mp4", options), touched_frames(*spans), tmp_path / "out.mp4"
    plan = write(clip.path, out, touched, per_run=7)
    assert_copied(clip.path, out, plan, touched)
    assert all(a.stop <= b.first for a, b in pairwise(plan.runs))
    assert any(a.stop == b.first for a, b in pairwise(plan.runs))  # long stretches are divided
    with VideoReader(out) as reader:
        whole = list(reader.frames())
        for first in (1, 12, 14, 30, 37, 41, 59):
            found = next(reader.frames(first, whole[first].pts))
            assert all(np.array_equal(a, b) for a, b in zip(found.planes, whole[first].planes, strict=True))


def test_seeking_players_get_the_right_parameter_sets(tmp_path):
    """A decoder that starts at any key picture shows what one that comes from the start does."""
    touched = touched_frames((14, 30), (49, 50))
    for name, options in (("h264", CLOSED), ("hevc", HEVC)):
        clip, out = clip_of(tmp_path / f"{name}.mp4", options), tmp_path / f"{name}_out.mp4"
        write(clip.path, out, touched)
        times, images, _ = read_video(out)
        with av.open(str(out)) as container:
            stream = container.streams.video[0]
            keys = [packet.pts for packet in container.demux(stream) if packet.size and packet.is_keyframe]
        assert len(keys) > 5
        for key in keys:
            with av.open(str(out)) as container:
                container.seek(key, stream=container.streams.video[0])
                frame = next(container.decode(video=0))
                assert frame.pts == key
                luma = np.frombuffer(frame.planes[0], np.uint8).reshape(frame.height, -1)[:, : frame.width]
                assert np.array_equal(luma, images[times.index(key * frame.time_base)][0])


@pytest.mark.parametrize("stop_at", [21, *(pytest.param(n, marks=SLOW) for n in (5, 34, 59))])
def test_a_stopped_job_goes_on_and_gives_the_same_bytes(tmp_path, stop_at):
    clip, touched = clip_of(tmp_path / "in.mp4"), touched_frames((20, 30))
    write(clip.path, tmp_path / "whole.mp4", touched, per_segment=7, per_run=5)
    with pytest.raises(KeyboardInterrupt):
        write(clip.path, tmp_path / "out.mp4", touched, stop_at=stop_at, per_segment=7, per_run=5)
    assert not (tmp_path / "out.mp4").exists()
    write(clip.path, tmp_path / "out.mp4", touched, per_segment=7, per_run=5)
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_frame_that_was_changed_after_all_is_found_out(tmp_path):
    clip, out = clip_of(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    with VideoReader(clip.path) as reader:
        plan = planned(reader, touched_frames((20, 30)), ".mp4")
        with (
            pytest.raises(OutputError, match="frame 3 of the result does not decode to the source's own"),
            SegmentedWriter(tmp_path / "s", out, reader.info, key="k", quality=QUALITY, copies=plan) as writer,
        ):
            for frame in reader.frames():
                writer.write(edited(frame) if frame.index == 3 else frame)
    assert not out.exists() and not list(tmp_path.glob(".out*"))


def test_a_result_is_compared_frame_by_frame(tmp_path):
    clip = clip_of(tmp_path / "in.mp4", n_frames=4)
    with VideoReader(clip.path) as reader:
        written = [(frame.pts, frame_check(frame)) for frame in reader.frames()]
        base = reader.info.time_base
    check_frames(clip.path, [(pts, None) for pts, _ in written], base)
    check_frames(clip.path, written, base)
    for wrong, words in (
        (written[:3], "frame 3 of the result is one too many"),
        ([*written, (99999, None)], "frame 4 of the result is missing"),
        ([*written[:2], (written[2][0] + 1, None), written[3]], "frame 2 of the result is shown at another time"),
        ([(written[0][0], written[1][1]), *written[1:]], "frame 0 of the result does not decode"),
    ):
        with pytest.raises(OutputError, match=words):
            check_frames(clip.path, wrong, base)


def test_frames_hidden_by_an_edit_list_are_no_place_to_begin(tmp_path):
    """The first group begins before the first shown frame; its packets would show what was cut off."""
    clip = clip_of(tmp_path / "in.mp4", hidden=4)
    n = len(clip.pts)
    touched = touched_frames((30, 33), n=n)
    plan = write(clip.path, tmp_path / "out.mp4", touched)
    assert plan.runs[0].first == 8
    assert_copied(clip.path, tmp_path / "out.mp4", plan, touched)


def test_short_and_touched_stretches_are_encoded(tmp_path):
    clip = clip_of(tmp_path / "in.mp4")
    with VideoReader(clip.path) as reader:
        assert planned(reader, touched_frames((0, N)), ".mp4").runs == ()
        assert planned(reader, touched_frames((0, 12), (19, N)), ".mp4").runs == ()
        assert planned(reader, touched_frames((0, 12), (21, N)), ".mp4").frames >= 8
        assert planned(reader, touched_frames(), ".mp4").runs == (CopiedRun(0, N),)
    write(clip.path, tmp_path / "all.mp4", touched_frames((0, N)))
    assert len(read_video(tmp_path / "all.mp4")[0]) == N


@pytest.mark.parametrize(
    ("name", "changes", "suffix", "quality", "words"),
    [
        ("in.mkv", {"codec": "ffv1", "options": {}}, ".mkv", QUALITY, "copies h264 and hevc, but .* holds ffv1"),
        ("in.mp4", {}, ".mkv", replace(QUALITY, codec="ffv1"), "as h264, but the rest would be made by ffv1"),
        ("in.mp4", {}, ".mp4", replace(QUALITY, codec="hevc"), "as h264, but the rest would be made by libx265"),
        ("in.mkv", {"options": {**CLOSED, "x264-params": "tff=1"}}, ".mp4", QUALITY, "is interlaced"),
        ("in.mp4", {"pixel_format": "yuv422p", "rotation_deg": 90}, ".mp4", QUALITY, "yuv422p of .* becomes yuv444p"),
    ],
)
def test_what_cannot_be_copied_is_one_sentence(tmp_path, name, changes, suffix, quality, words):
    clip = clip_of(tmp_path / name, **{"options": CLOSED, **changes, "n_frames": 12})
    with VideoReader(clip.path) as reader, pytest.raises(OutputError, match=words) as caught:
        check_copyable(clip.path, reader.info, suffix, quality)
    assert "\n" not in str(caught.value) and "--smart_copy" in str(caught.value)


def test_a_source_that_changed_meanwhile_is_noticed(tmp_path):
    clip = clip_of(tmp_path / "in.mp4")
    with VideoReader(clip.path) as reader:
        plan = planned(reader, touched_frames((20, 30)), ".mp4")
    clip_of(tmp_path / "in.mp4", n_frames=10)
    with pytest.raises(VideoReadError, match="other packets"):
        list(plan.packets(plan.runs[-1]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), max_size=6), st.integers(1, 7))
def test_segments_cover_every_frame_once(lengths, per_segment):
    """The same borders whether asked from a segment's first frame or its last."""
    borders = np.cumsum([0, *lengths])
    runs = tuple(CopiedRun(int(a), int(b)) for k, (a, b) in enumerate(pairwise(borders)) if k % 2)
    plan, at, ends = SegmentPlan(per_segment, runs), 0, []
    while at < borders[-1] + 20:
        stop = plan.stop_of(at)
        assert at < stop and (plan.run_from(at) is not None or stop - at <= per_segment)
        ends.append(stop - 1)
        at = stop
    assert [index for index in range(at) if plan.ends_with(index)] == ends
    with pytest.raises(ValueError, match="out of order"):
        SegmentPlan(3, (CopiedRun(4, 9), CopiedRun(2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "span"),
    [
        ("address_1280x720_25fps.mp4", (120, 180)), ("vfr_700x700.mp4", (40, 60)),
        ("lectern_profile_editlist_640x360_30fps.mp4", (300, 420)), ("moustache_480x360_30fps.mp4", (100, 150)),
        ("kitchen_beard_1080x1920_25fps.mp4", (480, 490)), ("signing_book_hands_640x480_30fps.mkv", (40, 60)),
    ],
)  # fmt: skip
def test_real_clips_keep_their_untouched_seconds(tmp_path, shared_clips, name, span):
    source = shared_clips / name
    with VideoReader(source) as reader:
        n = sum(1 for _ in reader.times())
    touched, out = touched_frames(span, n=n), tmp_path / f"out{source.suffix}"
    plan = write(source, out, touched)
    assert_copied(source, out, plan, touched)
