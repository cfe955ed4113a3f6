"""One real clip edited in all ways: killed and run again, in part, longer, deeper, turned, with its other tracks."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.casting import cast_faces, listen, plan_job_timeline, rehearse
from inference.driving import MOUTH_ROWS, SMILE_ROWS
from inference.jobs import ArbitraryJob
from inference.prepared import open_video
from modules.commons.errors import OutputError
from modules.commons.progress import silent
from modules.commons.workspace import ROOT
from modules.structures.spans import Reason, SpanTable
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.writer import VideoWriter
from tests.support.edited_clips import (
    WOMAN,
    alphas,
    assert_untouched,
    deepened,
    is_same_picture,
    run_job,
    segments_of,
    small_frames,
    streams,
    with_tracks,
    write_frames,
)
from tests.support.synthetic_video import read_audio
from tests.support.tiny_run import FRAMES, InterruptedForTest, all_frames, cut, own_folders, tiny_run, write_wav

COUNT = FRAMES[1] - FRAMES[0]
PER_SEGMENT = 9
"""Does not divide the number of frames, so that the last segment is a short one."""
STEP_S = 1001 / 24000
PART = (9, 27)
"""Frames that are edited where a part is; her hand comes up in them."""
PART_S = ((PART[0] - 0.5) * STEP_S, (PART[1] - 0.5) * STEP_S)
SHORT = 14
DEMO_SPEECH = "obama_speech.wav"


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def here(run, tmp_path_factory):
    """A folder for this file's clips; prepared data go there too, and segments hold few frames."""
    root = tmp_path_factory.mktemp("edits")
    with own_folders(root), pytest.MonkeyPatch.context() as patch:
        segments_of(PER_SEGMENT, patch)
        yield root


@pytest.fixture(scope="module")
def sounds(here, demo_dir):
    """Speech of about 1.3, 0.9 and 0.4 s, and two that the clip has of its own."""
    whole = load_audio_16k(demo_dir / DEMO_SPEECH)
    places = {"long": (0.9, 2.2), "middle": (0.9, 1.8), "brief": (0.9, 1.3), "own": (3, 4.7), "dub": (5, 6.7)}
    return {name: write_wav(here / f"{name}.wav", cut(whole, *place)) for name, place in places.items()}


@pytest.fixture(scope="module")
def clip(here, sounds):
    """Forty frames with two sounds and subtitles."""
    info, frames = small_frames(WOMAN, *FRAMES)
    picture = write_frames(here / "picture.mp4", info, frames)
    return with_tracks(picture, here / "clip.mp4", (sounds["own"], sounds["dub"]))


@pytest.fixture(scope="module")
def short(here):
    """Fourteen frames without sound."""
    return write_frames(here / "short.mp4", *small_frames(WOMAN, FRAMES[0], FRAMES[0] + SHORT))


@pytest.fixture(scope="module")
def part_job(run, clip, sounds):
    """The job of most tests: a part of the clip, losslessly, everything else of it kept."""

    def job(folder, **changes):
        return {
            "src_video": clip, "drv_aud": sounds["long"], "out_name": folder / "out.mp4", "head_ckpt": run.identity,
            "start": PART_S[0], "end": PART_S[1], "fade_s": 0.1, "lossless": True, "keep_audio": True,
            "save_masks": folder / "masks.mp4", "occlusion": "hands", **changes,
        }  # fmt: skip

    return job


@pytest.fixture(scope="module")
def whole(here, part_job):
    """The folder of that job's uninterrupted run."""
    folder = here / "whole"
    run_job(part_job(folder))
    return folder


def short_job(run, short, sound, folder, **changes):
    return {
        "src_video": short, "drv_aud": sound, "out_name": folder / "out.mp4", "head_ckpt": run.identity,
        "lossless": True, "save_masks": folder / "masks.mp4", "fade_s": 0.0, **changes,
    }  # fmt: skip


def rehearsed(job):
    """What a job would show and do, without painting it."""
    job = ArbitraryJob.from_mapping(job)
    heard, video = listen(job), open_video(job.src_video, silent)
    casts = cast_faces(job, video, silent)
    timeline = plan_job_timeline(job, video, casts, heard)
    return timeline, rehearse(job, video, casts, heard, timeline, silent)


# ---- killed and run again ----


def counts(folder):
    """The record of a run without what may differ: where it was written to and how long it took."""
    record = json.loads((folder / "out.mp4.json").read_text())
    return {key: value for key, value in record.items() if key not in ("output", "seconds_per_stage", "warnings")}


def assert_is(folder, whole):
    """A run's files are those of the uninterrupted one, and nothing else is left."""
    for name in ("out.mp4", "masks.mp4"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    assert counts(folder) == counts(whole)
    assert sorted(path.name for path in folder.iterdir()) == [
        "masks.mp4", "out.mp4", "out.mp4.json", "out.mp4.provenance.json",
    ]  # fmt: skip


class Watched:
    """Progress that notes the frames that were edited, and stops before it is at ``stop``."""

    def __init__(self, stop: int | None = None) -> None:
        self.stop, self.seen = stop, []

    def __call__(self, what, done, total):
        if what == "edit":
            self.seen.append(done)
            assert total == COUNT
            if done == self.stop:
                raise InterruptedForTest


def test_an_interrupted_edit_goes_on_and_gives_the_same_bytes(whole, part_job, tmp_path):
    """The first try saves no masks, so that the second has two outputs of unequal length to go on with."""
    first, second, last = Watched(PER_SEGMENT + 5), Watched(3 * PER_SEGMENT + 6), Watched()
    with pytest.raises(InterruptedForTest):
        run_job(part_job(tmp_path, save_masks=None), first)
    with pytest.raises(InterruptedForTest):
        run_job(part_job(tmp_path), second)
    assert list(tmp_path.iterdir()) == []
    run_job(part_job(tmp_path), last)
    assert first.seen[0] == second.seen[0] == 1, "masks are made from the first frame on"
    assert last.seen == list(range(3 * PER_SEGMENT + 1, COUNT + 1)), "finished segments are not edited again"
    assert_is(tmp_path, whole)


CHILD = """
import json, sys
from pathlib import Path
import pytest
from tests.support.edited_clips import run_job, segments_of
from tests.support.tiny_run import own_folders
root, job, per_segment = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
def progress(what, done, total):
    print(what, done, flush=True)
with own_folders(root), pytest.MonkeyPatch.context() as patch:
    segments_of(per_segment, patch)
    run_job(job, progress)
"""


@pytest.mark.slow
def test_kill_minus_nine_in_the_middle(here, whole, part_job, tmp_path):
    job = json.dumps(part_job(tmp_path), default=str)
    command = [sys.executable, "-c", CHILD, str(here), job, str(PER_SEGMENT)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.split() == ["edit", str(2 * PER_SEGMENT + 7)]:
                os.kill(child.pid, signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    last = Watched()
    run_job(part_job(tmp_path), last)
    assert last.seen[0] in (PER_SEGMENT + 1, 2 * PER_SEGMENT + 1), "the encoder may lag a few frames behind"
    assert_is(tmp_path, whole)


def test_a_run_that_only_has_to_be_joined_still_knows_what_it_did(whole, part_job, tmp_path, monkeypatch):
    """Without masks, which would be joined first and then have to be made again."""

    def fail(self, packet):
        raise OSError("disk full")

    monkeypatch.setattr(VideoWriter, "copy", fail)
    with pytest.raises(OutputError):
        run_job(part_job(tmp_path, save_masks=None))
    monkeypatch.undo()
    last = Watched()
    run_job(part_job(tmp_path, save_masks=None), last)
    assert last.seen == [], "nothing is edited again"
    assert (tmp_path / "out.mp4").read_bytes() == (whole / "out.mp4").read_bytes()
    assert counts(tmp_path) == counts(whole)


def test_another_take_does_not_go_on_from_this_one(part_job, whole, sounds, tmp_path):
    """Frames of another motion, or of another way to paint, are never mixed in."""
    with pytest.raises(InterruptedForTest):
        run_job(part_job(tmp_path), Watched(3 * PER_SEGMENT))
    for change in ({"mouth_amp": 0.5}, {"region": "mouth"}):
        begun = Watched(2)
        with pytest.raises(InterruptedForTest):
            run_job(part_job(tmp_path, **change), begun)
        assert begun.seen == [1, 2]


# ---- a part of the video ----


def test_outside_the_part_every_sample_is_the_sources_own(clip, whole):
    before, after, masks = all_frames(clip), all_frames(whole / "out.mp4"), alphas(whole / "masks.mp4")
    assert [frame.time_s for frame in after] == [frame.time_s for frame in before] and len(after) == COUNT
    for number, (old, new) in enumerate(zip(before, after, strict=True)):
        is_inside = PART[0] <= number < PART[1]
        assert is_same_picture(old, new) != is_inside, number
        assert masks[number].any() == is_inside
        assert_untouched(old, new, masks[number])
    (face,) = counts(whole)["faces"]
    spans = SpanTable.from_json(face["spans"])
    assert np.flatnonzero(spans.edited).tolist() == list(range(*PART))
    assert set(np.array(spans.reasons)[~spans.edited]) == {Reason.OUTSIDE_PART}
    strength = spans.strength[spans.edited]
    assert strength[0] < 1 and strength[-1] < 1 and strength.max() == 1 and counts(whole)["frames_with_hand"] > 0


def heard(path, rate_hz=16000):
    """The first sound of a file on the clock of its first frame."""
    samples, rate, start_s = read_audio(path)
    assert rate == rate_hz
    place = round((start_s - float(all_frames(path)[0].time_s)) * rate)
    return np.concatenate([np.zeros(max(place, 0), np.float32), samples[max(-place, 0) :]])


def agreement(one, other):
    length = min(len(one), len(other))
    return float(np.corrcoef(one[:length], other[:length])[0, 1])


def test_outside_the_part_the_sound_is_the_sources_own(clip, whole, sounds):
    result, own, spoken = heard(whole / "out.mp4"), heard(clip), load_audio_16k(sounds["long"]).samples
    first, stop = (round(time_s * 16000) for time_s in PART_S)
    fade = 320
    assert agreement(result[:first], own[:first]) > 0.98
    assert agreement(result[stop + fade : 26000], own[stop + fade : 26000]) > 0.98
    assert agreement(result[first + fade : stop - fade], spoken[fade : stop - first - fade]) > 0.98
    assert len(result) == pytest.approx(COUNT * STEP_S * 16000, abs=1200)


def packets(path, number):
    with av.open(str(path)) as container:
        stream = container.streams[number]
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


def test_the_sources_other_tracks_come_along(clip, whole, part_job, tmp_path):
    assert [kind for kind, _ in streams(clip)] == ["video", "audio", "audio", "subtitle"]
    assert len({language for _, language in streams(clip)}) == 3, "they can be told apart"
    kept = streams(whole / "out.mp4")
    assert [kind for kind, _ in kept] == ["video", "audio", "audio", "audio", "subtitle"]
    for number, original in ((2, 1), (3, 2), (4, 3)):
        assert kept[number] == streams(clip)[original]
        assert packets(whole / "out.mp4", number) == packets(clip, original)
    out = tmp_path / "out.mp4"
    run_job(part_job(tmp_path, keep_audio=False, save_masks=None, end=PART_S[0] + 0.2))
    assert [kind for kind, _ in streams(out)] == ["video", "audio", "subtitle"], "the new sound alone; texts always"
    assert packets(out, 2) == packets(clip, 3)


def test_a_preview_is_that_frame_of_the_part(part_job, whole, tmp_path):
    after = all_frames(whole / "out.mp4")
    for number in (PART[0] + 1, PART[1] - 2, PART[1]):
        written = run_job(part_job(tmp_path, preview=number))
        shown = cv2.cvtColor(cv2.imread(str(written)), cv2.COLOR_BGR2RGB).astype(int)
        assert np.abs(shown - rgb_from_planes(after[number])).max() <= 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]


def test_an_offset_moves_lips_and_sound_together(run, short, sounds, tmp_path):
    late = 5
    offset_s = late * STEP_S
    usual, (plain,) = rehearsed(short_job(run, short, sounds["middle"], tmp_path))
    shifted, (moved,) = rehearsed(short_job(run, short, sounds["middle"], tmp_path, audio_offset=offset_s))
    early, (cut_off,) = rehearsed(short_job(run, short, sounds["middle"], tmp_path, audio_offset=-offset_s))
    mouths = [part.motion for part in (plain, moved, cut_off)]
    assert all(np.array_equal(motion.expression, mouths[0].expression) for motion in mouths)
    np.testing.assert_allclose(shifted.speech_s[late:], usual.speech_s[:-late], atol=1e-9)
    np.testing.assert_allclose(early.speech_s[:-late], usual.speech_s[late:], atol=1e-9)
    # A smile is kept from the source, whose frames stay where they are; how wide a mouth opens depends a little on it.
    quick, close = np.setdiff1d(MOUTH_ROWS, SMILE_ROWS), 1e-3
    np.testing.assert_allclose(
        moved.plan.expression[late:][:, quick], plain.plan.expression[:-late][:, quick], atol=close
    )
    np.testing.assert_allclose(
        cut_off.plan.expression[:-late][:, quick], plain.plan.expression[late:][:, quick], atol=close
    )
    assert list(moved.plan.reasons[:late]) == [Reason.BEFORE_SPEECH] * late
    assert shifted.speech_start_s - usual.speech_start_s == Fraction(offset_s)


def test_the_sound_of_a_result_is_as_late_as_was_asked(run, short, sounds, tmp_path):
    run_job(short_job(run, short, sounds["middle"], tmp_path, audio_offset=0.25, save_masks=None))
    result, spoken = heard(tmp_path / "out.mp4"), load_audio_16k(sounds["middle"]).samples
    assert np.abs(result[: 4000 - 64]).max() < 0.01
    assert agreement(result[4000:9000], spoken[:5000]) > 0.98


# ---- another length ----


@pytest.fixture(scope="module")
def lengths(run, short, sounds, here):
    """Folders of the three modes."""
    made = {}
    for mode, sound in (("trim", "brief"), ("pingpong", "middle"), ("hold", "middle")):
        made[mode] = here / mode
        run_job(short_job(run, short, sounds[sound], made[mode], length=mode))
    return made


@pytest.mark.parametrize(("mode", "sound"), [("trim", "brief"), ("pingpong", "middle"), ("hold", "middle")])
def test_the_result_is_as_long_as_was_asked(run, short, sounds, lengths, mode, sound):
    folder, spoken_s = lengths[mode], load_audio_16k(sounds[sound]).duration_s
    timeline, (part,) = rehearsed(short_job(run, short, sounds[sound], folder, length=mode))
    before, after, masks = all_frames(short), all_frames(folder / "out.mp4"), alphas(folder / "masks.mp4")
    assert len(after) == len(timeline) == len(masks) == int(np.ceil(spoken_s / STEP_S - 1e-6))
    assert (len(after) < SHORT) == (mode == "trim")
    pts = [frame.pts for frame in after]
    assert pts[: timeline.first_pass] == [frame.pts for frame in before[: timeline.first_pass]]
    assert set(np.diff(pts)) == {1001}
    for number, (row, new) in enumerate(zip(timeline.rows, after, strict=True)):
        assert_untouched(before[row], new, masks[number])
    shown_s = len(after) * STEP_S
    assert len(heard(folder / "out.mp4")) / 16000 == pytest.approx(shown_s, abs=0.07)
    assert agreement(heard(folder / "out.mp4"), load_audio_16k(sounds[sound]).samples) > 0.98
    assert part.plan.edited.sum() == masks.any(axis=(1, 2)).sum() == len(after), "every frame speaks"
    rows = timeline.rows[timeline.first_pass :]
    if mode == "hold":
        assert len(rows) and (rows == timeline.first_pass - 1).all()
    if mode == "pingpong":
        assert len(rows) and rows[0] == timeline.first_pass - 2, "it turns"


def test_a_preview_of_a_frame_that_is_shown_backwards(run, short, sounds, lengths, tmp_path):
    after = all_frames(lengths["pingpong"] / "out.mp4")
    number = len(after) - 2
    job = short_job(run, short, sounds["middle"], tmp_path, length="pingpong", preview=number)
    timeline, _ = rehearsed(job)
    assert number >= timeline.first_pass
    shown = cv2.cvtColor(cv2.imread(str(run_job(job))), cv2.COLOR_BGR2RGB).astype(int)
    assert np.abs(shown - rgb_from_planes(after[number])).max() <= 2


def test_an_interrupted_pingpong_goes_on(run, short, sounds, lengths, tmp_path):
    """Killed in the first pass and again on the way back, across segments of nine frames."""
    for stop in (11, 19):
        job = short_job(run, short, sounds["middle"], tmp_path, length="pingpong")
        with pytest.raises(InterruptedForTest):
            run_job(job, _stopping(stop))
    run_job(job)
    assert_is(tmp_path, lengths["pingpong"])


def _stopping(at):
    def progress(what, done, total):
        if what == "edit" and done == at:
            raise InterruptedForTest

    return progress


# ---- depth and rotation ----


def test_ten_bits_stay_ten_bits(run, short, sounds, tmp_path):
    with VideoReader(short) as reader:
        frames = [deepened(frame) for frame in list(reader.frames())[:10]]
        info = replace(reader.info, layout=frames[0].layout)
    clip = write_frames(tmp_path / "deep.mp4", info, frames)
    out = tmp_path / "out"
    run_job(short_job(run, clip, sounds["brief"], out))
    before, after, masks = all_frames(clip), all_frames(out / "out.mp4"), alphas(out / "masks.mp4")
    assert {frame.layout.pixel_format for frame in after} == {"yuv420p10le"} and masks.any(axis=(1, 2)).sum() == 10
    for old, new, mask, made in zip(before, after, masks, frames, strict=True):
        assert is_same_picture(old, made), "the clip holds what was put in"
        assert new.planes[0].dtype == np.uint16
        assert_untouched(old, new, mask)
    changed = after[5].planes[0][masks[5] > 250]
    assert len(np.unique(changed & 3)) == 4, "the edit uses the lowest bits too"


@pytest.mark.parametrize(
    "rotation_deg", [90, pytest.param(180, marks=pytest.mark.slow), pytest.param(270, marks=pytest.mark.slow)]
)
def test_a_turned_file_gets_the_same_lips(run, short, sounds, lengths, tmp_path, rotation_deg):
    with VideoReader(short) as reader:
        info, frames = replace(reader.info, rotation_deg=rotation_deg), list(reader.frames())
    clip = write_frames(tmp_path / "turned.mp4", info, frames)
    with av.open(str(clip)) as container:
        coded = container.streams.video[0]
        assert (coded.width > coded.height) == (rotation_deg == 180)
    out = tmp_path / "out"
    run_job(short_job(run, clip, sounds["brief"], out, length="trim"))
    upright, turned = (alphas(folder / "masks.mp4") > 127 for folder in (lengths["trim"], out))
    assert upright.shape == turned.shape
    assert (upright & turned).sum() / (upright | turned).sum() >= 0.98
    with VideoReader(out / "out.mp4") as reader:
        assert reader.info.rotation_deg == rotation_deg
    straight, edited = (all_frames(folder / "out.mp4") for folder in (lengths["trim"], out))
    masks = alphas(out / "masks.mp4")
    for old, new, reference, mask in zip(frames[: len(masks)], edited, straight, masks, strict=True):
        assert_untouched(old, new, mask)
        difference = rgb_from_planes(new).astype(int) - rgb_from_planes(reference)
        assert np.abs(difference)[mask > 0].mean() < 2
