"""Segments: a killed job goes on and gives the same bytes; the result is the plain writer's, frame by frame."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.commons.errors import AudioReadError, OutputError
from modules.commons.workspace import ROOT
from modules.structures.frames import Frame, PlaneLayout, VideoInfo
from modules.video.reader import VideoReader
from modules.video.segments import SegmentedWriter, decoding_times
from modules.video.sound import AudioTrack
from modules.video.writer import EncodeConfig, VideoWriter
from tests.support.synthetic_video import read_audio, write_tone

LOSSY = EncodeConfig(preset="medium")
LOSSLESS = EncodeConfig(preset="ultrafast", lossless=True)
N_FRAMES = 40
PER_SEGMENT = 12
STEADY = tuple(507 + 1001 * i for i in range(N_FRAMES))
UNEVEN = tuple(int(t) for t in 90_000 + np.cumsum(np.where(np.arange(N_FRAMES) // 5 % 2, 40, 4000)))
"""Where a plain copy of every segment's own decoding times would run backwards."""


class Stop(Exception):
    """Stands in for whatever ends a job."""


def video(path, size_wh=(64, 48), pixel_format="yuv420p", depth=8, rotation_deg=0, pts=STEADY):
    width, height = size_wh
    shift = (0, 0) if "444" in pixel_format else (1, 1)
    layout = PlaneLayout(pixel_format, shift, "left", False, "bt709", depth)
    info = VideoInfo(
        path, width, height, Fraction(30000, 1001), Fraction(1, 30000), rotation_deg, layout, (1, 1, 1, 1), False, None,
        Fraction(12, 11),
    )  # fmt: skip
    dtype = np.uint8 if depth == 8 else np.uint16
    y, x = np.mgrid[:height, :width]
    frames = []
    for i, shown in enumerate(pts):
        luma = (128 + 80 * np.sin(x / 9 + y / 14 + i / 3)) * (1 << (depth - 8))
        luma[i % height, :] = 40
        chroma = luma[:: 1 << shift[1], :: 1 << shift[0]]
        planes = tuple(np.rint(p).astype(dtype) for p in (luma, chroma, chroma[::-1]))
        frames.append(Frame(i, shown, info.time_base, planes, layout))
    return info, frames


def segmented(folder, out, info, **options):
    return SegmentedWriter(folder, out, info, key="k", frames_per_segment=PER_SEGMENT, **options)


def run(folder, out, info, frames, *, stop_at=None, **options):
    """Write what is missing; where asked, stop before frame ``stop_at`` as a crash would."""
    with segmented(folder, out, info, **options) as writer:
        for frame in frames[writer.finished_frames :]:
            if frame.index == stop_at:
                raise Stop
            writer.write(frame)
    return out


def stopped(folder, out, info, frames, stop_at, **options):
    with pytest.raises(Stop):
        run(folder, out, info, frames, stop_at=stop_at, **options)


def packets(path):
    with av.open(str(path)) as container:
        return [(p.pts, p.dts, p.is_keyframe) for p in container.demux(container.streams.video[0]) if p.size]


CASES = [
    (".mp4", LOSSY, {}),
    (".mp4", LOSSLESS, {"rotation_deg": 90}),
    (".mkv", LOSSY, {"rotation_deg": 270}),
    (".mkv", LOSSLESS, {}),
    (".mp4", LOSSY, {"size_wh": (175, 143)}),
    (".m4v", LOSSLESS, {"pixel_format": "yuv420p10le", "depth": 10}),
    (".mov", EncodeConfig(preset="ultrafast"), {"pixel_format": "yuv444p12le", "depth": 12}),
    (".mov", LOSSY, {"pts": UNEVEN}),
]


@pytest.mark.parametrize(("suffix", "quality", "shape"), CASES, ids=lambda v: v if isinstance(v, str) else "")
def test_a_stopped_job_gives_the_bytes_of_a_whole_one_and_the_frames_of_the_plain_writer(
    tmp_path, suffix, quality, shape
):
    info, frames = video(tmp_path / "source", **shape)
    tone = write_tone(tmp_path / "tone.wav", 1.5, onset_s=0.4)
    whole, out, plain = (tmp_path / f"{name}{suffix}" for name in ("whole", "out", "plain"))
    run(tmp_path / "a", whole, info, frames, quality=quality, audio=tone)
    for stop_at in (3, 30):
        stopped(tmp_path / "b", out, info, frames, stop_at, quality=quality, audio=tone)
        assert not out.exists()
    run(tmp_path / "b", out, info, frames, quality=quality, audio=tone)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["tone.wav", whole.name, out.name])
    with VideoWriter(plain, info, quality=quality, audio=tone) as writer:
        for frame in frames:
            writer.write(frame)
    assert_same_frames(plain, out, frames, is_lossless=quality.lossless)
    ours, expected = read_audio(out), read_audio(plain)
    assert ours[1:] == expected[1:] and np.array_equal(ours[0], expected[0])


def assert_same_frames(plain, joined, frames, *, is_lossless):
    """Header, times and, where nothing is lost, samples; a keyframe where each segment begins."""
    with VideoReader(plain) as one, VideoReader(joined) as other:
        assert replace(other.info, path=plain, duration_s=None) == replace(one.info, duration_s=None)
        before, after = list(one.frames()), list(other.frames())
    assert [f.time_s for f in after] == [f.time_s for f in before]
    if joined.suffix != ".mkv":
        assert [f.pts for f in after] == [f.pts for f in frames]
    for source, ours in zip(frames, after, strict=True):
        assert not is_lossless or all(np.array_equal(a, b) for a, b in zip(source.planes, ours.planes, strict=True))
    made, expected = packets(joined), packets(plain)
    assert [p[1] for p in made] == [p[1] for p in expected]
    assert {f.pts for f in after[::PER_SEGMENT]} <= {pts for pts, _, is_keyframe in made if is_keyframe}


def test_finished_frames_and_state_come_back(tmp_path):
    info, frames = video(tmp_path / "source")
    folder, out = tmp_path / "a", tmp_path / "out.mp4"
    with pytest.raises(Stop), segmented(folder, out, info) as writer:
        assert writer.finished_frames == 0 and writer.state is None
        for frame in frames[:30]:
            assert writer.ends_segment(frame.index) == (frame.index in (11, 23, 35))
            writer.write(frame, b"colour \x00 after %d" % frame.index)
        raise Stop
    with pytest.raises(Stop), segmented(folder, out, info) as writer:
        assert writer.finished_frames == 24 and writer.state == b"colour \x00 after 23"
        raise Stop


def test_another_key_or_quality_starts_anew(tmp_path):
    info, frames = video(tmp_path / "source")
    folder, out = tmp_path / "a", tmp_path / "out.mp4"
    for other in ({"key": "other"}, {"key": "k", "quality": LOSSLESS}, {"key": "k", "frames_per_segment": 10}):
        stopped(folder, out, info, frames, 30)
        with pytest.raises(Stop), SegmentedWriter(folder, out, info, **{"frames_per_segment": 12, **other}) as writer:
            assert writer.finished_frames == 0
            assert [p.name for p in folder.iterdir()] == ["manifest.json"]
            raise Stop


@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "record cut", "record empty", "record of another"])
def test_a_damaged_segment_is_made_again(tmp_path, harm):
    info, frames = video(tmp_path / "source")
    whole = run(tmp_path / "a", tmp_path / "whole.mp4", info, frames)
    folder, out = tmp_path / "b", tmp_path / "out.mp4"
    stopped(folder, out, info, frames, 39)
    file, record = folder / "000001.packets", folder / "000001.json"
    data = file.read_bytes()
    if harm == "cut":
        file.write_bytes(data[:-1])
    elif harm == "flip":
        file.write_bytes(data[:500] + bytes([data[500] ^ 1]) + data[501:])
    elif harm == "gone":
        file.unlink()
    elif harm == "record cut":
        record.write_text(record.read_text()[:-5])
    elif harm == "record empty":
        record.write_text("[]")
    else:
        record.write_text((folder / "000000.json").read_text())
    with pytest.raises(Stop), segmented(folder, out, info) as writer:
        assert writer.finished_frames == 12
        raise Stop
    assert run(folder, out, info, frames).read_bytes() == whole.read_bytes()


def test_a_kill_between_the_last_segment_and_the_result_only_joins_again(tmp_path, monkeypatch):
    def fail(self, packet):
        raise OSError("disk full")

    info, frames = video(tmp_path / "source")
    whole = run(tmp_path / "a", tmp_path / "whole.mp4", info, frames)
    folder, out = tmp_path / "b", tmp_path / "out.mp4"
    stopped(folder, out, info, frames, 39)
    tone = write_tone(tmp_path / "tone.wav", 1)
    with pytest.raises(OutputError), segmented(folder, out, info, audio=tone) as writer:
        for frame in frames[writer.finished_frames :]:
            writer.write(frame)
        monkeypatch.setattr(VideoWriter, "copy", fail)
    monkeypatch.undo()
    left = tmp_path / ".out.00000000.part.mp4"  # what a kill while joining leaves
    left.write_bytes(b"half")
    (folder / "joining.txt").write_text(str(left))
    with segmented(folder, out, info) as writer:
        assert writer.finished_frames == N_FRAMES
        with pytest.raises(ValueError, match="after the end"):
            writer.write(replace(frames[-1], pts=frames[-1].pts + 1))
    assert not left.exists() and not folder.exists()
    assert out.read_bytes() == whole.read_bytes()


def test_what_would_fail_at_the_end_fails_at_the_start(tmp_path):
    info, _ = video(tmp_path / "source")
    (tmp_path / "text.wav").write_text("words")
    with (
        pytest.raises(AudioReadError),
        segmented(tmp_path / "a", tmp_path / "o.mp4", info, audio=tmp_path / "text.wav"),
    ):
        pytest.fail("opened")
    with pytest.raises(OutputError, match="suffix"):
        segmented(tmp_path / "a", tmp_path / "o.avi", info)
    with pytest.raises(OutputError, match="no frame was written"), segmented(tmp_path / "a", tmp_path / "o.mp4", info):
        pass
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(OutputError, match="cannot write segments"),
        segmented(tmp_path / "file", tmp_path / "o.mp4", info),
    ):
        pytest.fail("opened")
    with pytest.raises(ValueError, match="at least one"):
        SegmentedWriter(tmp_path / "a", tmp_path / "o.mp4", info, key="", frames_per_segment=0)
    assert not list(tmp_path.glob("*.mp4")) and not list(tmp_path.glob(".*"))


def test_strangers_in_the_folder_stay(tmp_path):
    info, frames = video(tmp_path / "source")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "notes.txt").write_text("mine")
    run(tmp_path / "a", tmp_path / "out.mp4", info, frames)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["notes.txt"]


@settings(max_examples=50)
@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    delay=st.integers(0, 4),
    start=st.integers(-100, 100),
)
def test_decoding_times_rise_and_never_come_after_showing(steps, delay, start):
    shown = [start + sum(steps[:i]) for i in range(len(steps))]
    times = [t for t, _ in zip(decoding_times(shown, delay, 7), shown, strict=False)]
    assert len(times) == len(shown)
    assert all(a < b for a, b in pairwise(times))
    # packet n may hold any frame that the delay lets be decoded that late
    assert all(times[n] <= shown[max(n - delay, 0)] for n in range(len(shown)))
    assert times[delay:] == shown[: max(len(shown) - delay, 0)]


CHILD = """
import sys, time
from pathlib import Path
from tests.modules.video.test_segments import LOSSY, segmented, video
folder, out, tone = (Path(p) for p in sys.argv[1:])
info, frames = video(folder.parent / "source")
with segmented(folder, out, info, audio=tone) as writer:
    print("open", writer.finished_frames, flush=True)
    for frame in frames[writer.finished_frames :]:
        writer.write(frame)
        time.sleep(0.004)
"""


def test_kill_minus_nine_at_random_moments(tmp_path):
    info, frames = video(tmp_path / "source")
    tone = write_tone(tmp_path / "tone.wav", 1.5)
    whole = run(tmp_path / "a", tmp_path / "whole.mp4", info, frames, audio=AudioTrack(tone))
    out, moments = tmp_path / "out.mp4", np.random.default_rng(5).uniform(0.01, 0.25, 2)
    found = [0]
    for wait_s in moments:
        command = [sys.executable, "-c", CHILD, str(tmp_path / "b"), str(out), str(tone)]
        child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL)
        assert child.stdout is not None
        found.append(int(child.stdout.readline().split()[1]))
        time.sleep(wait_s)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert found == sorted(found) and all(n % PER_SEGMENT == 0 or n == N_FRAMES for n in found)
    run(tmp_path / "b", out, info, frames, audio=AudioTrack(tone))
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "tone.wav", "whole.mp4"]


def test_the_record_says_what_a_reader_needs(tmp_path):
    info, frames = video(tmp_path / "source")
    stopped(tmp_path / "a", tmp_path / "out.mp4", info, frames, 20)
    record = json.loads((tmp_path / "a" / "000000.json").read_text())
    assert sorted(record["pts"]) == list(STEADY[:PER_SEGMENT]) and record["delay"] == 2 and not record["is_last"]
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["key"] == "k" and manifest["codec"]["name"] == "libx264" and manifest["headers"]


def test_a_real_video_of_uneven_rate_keeps_its_times(tmp_path, shared_clips):
    source, out = shared_clips / "vfr_700x700.mp4", tmp_path / "out.mp4"
    with (
        VideoReader(source) as reader,
        SegmentedWriter(
            tmp_path / "a", out, reader.info, key="", quality=EncodeConfig(preset="ultrafast"), frames_per_segment=30
        ) as writer,
    ):
        times = []
        for frame in reader.frames():
            if frame.index == 100:
                break
            times.append(frame.pts)
            writer.write(frame)
        time_base = reader.info.time_base
    assert len({b - a for a, b in pairwise(times)}) > 1
    with VideoReader(out) as reader:
        assert reader.info.time_base == time_base
        assert [frame.pts for frame in reader.frames()] == times


def resident_mb():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts memory as Linux does")
def test_a_closed_segment_leaves_no_encoder_behind(tmp_path):
    info, frames = video(tmp_path / "source", (320, 180))
    with SegmentedWriter(tmp_path / "a", tmp_path / "out.mp4", info, key="", frames_per_segment=2) as writer:
        for frame in frames[:8]:
            writer.write(frame)
        before = resident_mb()
        for frame in frames[8:]:
            writer.write(frame)
        assert resident_mb() - before < 25  # 16 encoders of 6 MB each, were they kept
