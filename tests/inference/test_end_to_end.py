"""The whole pipeline on forty real frames with the network closed: times, sound, untouched samples, records, reuse."""

import json
import time
from fractions import Fraction

import cv2
import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.arbitrary_video import plan_video, predict_motion
from inference.driving import occluder_in_frame, speech_track
from inference.evaluation.motion import model_opening
from inference.face_choice import SpeechFiles
from inference.frame_editor import FrameEditor, final_alpha
from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary, main
from inference.identity import find_identity, training_config
from inference.jobs import ArbitraryJob
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import open_source
from inference.seen_occluders import seen_from
from inference.summary import SUMMARY_SCHEMA
from modules.commons.checkpoint import load_checkpoint
from modules.commons.progress import silent
from modules.structures.audio import AudioClip
from modules.structures.landmarks import lip_opening
from modules.structures.spans import SpanTable
from modules.video.colour import chroma_alpha, rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.sound import AudioTrack
from modules.video.writer import VideoWriter
from tests.support.synthetic_video import read_audio
from tests.support.tiny_run import (
    FRAMES,
    STATE_EVERY,
    STEPS,
    all_frames,
    listening,
    mouth_in_view,
    own_folders,
    scaled,
    tiny_run,
    write_wav,
)

COUNT = FRAMES[1] - FRAMES[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def pictures(run):
    """(source frame, result frame, mask frame) of every frame."""
    return list(zip(all_frames(run.clip), all_frames(run.out), all_frames(run.masks), strict=True))


@pytest.fixture(scope="module")
def summary(run):
    return json.loads(run.out.with_name("out.mp4.json").read_text())


@pytest.fixture(scope="module")
def face(summary):
    """The record of the one face that was edited."""
    (one,) = summary["faces"]
    return one


def test_size_count_and_times_are_the_sources(run, pictures):
    assert len(pictures) == COUNT
    with VideoReader(run.clip) as source, VideoReader(run.out) as result:
        assert (result.info.width, result.info.height) == (source.info.width, source.info.height) == (640, 360)
        assert result.info.color_tags == source.info.color_tags and result.info.layout == source.info.layout
        assert result.info.frame_rate == source.info.frame_rate
    assert [after.time_s for _, after, _ in pictures] == [before.time_s for before, _, _ in pictures]
    assert pictures[0][0].time_s > 1, "the clip begins after 0, so that an offset cannot hide"


def test_samples_outside_the_mask_are_the_sources_own(pictures):
    edited = 0
    for before, after, mask in pictures:
        alpha = mask.planes[0]
        outside = (alpha == 0, *2 * (chroma_alpha(alpha.astype(np.float32), before.layout) == 0,))
        for old, new, untouched in zip(before.planes, after.planes, outside, strict=True):
            np.testing.assert_array_equal(new[untouched], old[untouched])
        changed = after.planes[0] != before.planes[0]
        assert not changed.any() or alpha[changed].min() > 0
        edited += bool(changed.any())
    assert edited > COUNT // 2


def test_the_mask_is_the_lower_face(run, pictures, face):
    areas = np.array([(mask.planes[0] / 255.0).sum() for *_, mask in pictures])
    share = areas[areas > 0].mean() / (640 * 360)
    assert 0.01 < share < 0.25
    assert share == pytest.approx(face["edited_area_share"], rel=0.02)


def test_what_is_edited_beside_a_hand_leaves_the_hand_out(run, pictures):
    job = ArbitraryJob(run.clip, SpeechFiles(run.speech), run.root / "never_written.mp4", blend_mode="alpha")
    with own_folders(run.root):
        source = mouth_in_view(seen_from("hands", open_source(run.clip, silent)))
    plan = plan_video(source, predict_motion(job, load_audio_16k(run.speech)))
    row = int(np.argmax(np.where(plan.strength == 1, source.occlusion.coverage, 0)))
    editor = FrameEditor(job, source, IdentityRenderer(run.identity, source.face_model), plan)
    _, patch, occlusion = editor.edit(pictures[row][0])
    x0, y0, x1, y1 = patch.bounds
    alpha = np.zeros((360, 640), np.float32)
    alpha[y0:y1, x0:x1] = final_alpha(patch, occlusion)
    hand = occluder_in_frame(source.occlusion, source.crops, row, (640, 360))
    assert patch.alpha[hand[y0:y1, x0:x1] > 0.9].mean() > 0.2, "the hand lies over the region"
    assert alpha.max() > 0.9 and alpha[hand > 0.9].mean() < 0.05


def test_every_mask_is_shown_over_the_source(run, pictures):
    """As many frames at the same times; where nothing is drawn it is the source, where the hand is it is not."""
    overlay = all_frames(run.overlay)
    assert [frame.time_s for frame in overlay] == [before.time_s for before, *_ in pictures]
    with own_folders(run.root):
        source = seen_from("hands", open_source(run.clip, silent))
    for row in (0, int(source.occlusion.rows[-1])):
        shown, before = (rgb_from_planes(frame).astype(int) for frame in (overlay[row], pictures[row][0]))
        changed = np.abs(shown - before).max(axis=2) > 25
        hand = occluder_in_frame(source.occlusion, source.crops, row, (640, 360))
        assert changed[60:].mean() < 0.2
        assert (hand is None) == (row == 0)
        if hand is not None:
            assert changed[hand > 0.9].mean() > 0.8


def test_after_the_speech_the_source_goes_on(run, pictures, face):
    end_s = load_audio_16k(run.speech).duration_s
    start = pictures[0][0].time_s
    late = [p for p in pictures if float(p[0].time_s - start) >= end_s]
    assert late, "the speech is shorter than the clip"
    for before, after, mask in late:
        assert all(np.array_equal(a, b) for a, b in zip(before.planes, after.planes, strict=True))
        assert not mask.planes[0].any()
    assert face["frames_passed_through"]["after the end of the speech"] == len(late)


def test_the_sound_is_the_new_speech_in_its_place(run, pictures):
    spoken = load_audio_16k(run.speech).samples
    heard, rate, start_s = read_audio(run.out)
    place = round((start_s - float(pictures[0][0].time_s)) * rate)
    clock = np.concatenate([np.zeros(max(place, 0), np.float32), heard[max(-place, 0) :]])
    assert rate == 16000
    correlation = np.correlate(clock, spoken[: len(clock)], "full")
    lag = int(np.argmax(correlation)) - (len(spoken[: len(clock)]) - 1)
    assert abs(lag) / rate < 0.002, f"the speech is {lag / rate:.3f} s off"
    length = min(len(clock), len(spoken))
    assert np.corrcoef(clock[:length], spoken[:length])[0, 1] > 0.98


def test_sound_that_begins_late_in_its_file_begins_as_late_in_the_result(run, tmp_path):
    """Motion is predicted on the file's clock, so the sound must stay on it."""
    late_s = Fraction(2, 5)
    with VideoReader(run.clip) as reader:
        begins_s = next(reader.frames()).time_s
    speech = tmp_path / "late.mp4"
    write_with_sound(run.clip, speech, AudioTrack(run.speech, start_s=begins_s + late_s))
    heard_on = load_audio_16k(speech).samples
    onset_s = float(np.argmax(np.abs(heard_on) > 0.02)) / 16000
    track = speech_track(speech, run.clip)
    assert track.start_s is not None and abs(track.start_s - begins_s - late_s) < 0.07  # the coder fills in 64 ms
    write_with_sound(run.clip, tmp_path / "out.mp4", track)
    samples, rate, start_s = read_audio(tmp_path / "out.mp4")
    onset_in_result_s = start_s + float(np.argmax(np.abs(samples) > 0.02)) / rate - float(begins_s)
    assert onset_s > late_s and onset_in_result_s == pytest.approx(onset_s, abs=0.004)
    assert speech_track(run.speech, run.clip) == AudioTrack(run.speech)


def write_with_sound(clip, target, track):
    """The frames of a clip with another sound."""
    with VideoReader(clip) as reader, VideoWriter(target, reader.info, audio=track) as writer:
        for frame in reader.frames():
            writer.write(frame)


def test_the_record_of_the_run(run, pictures, summary, face):
    assert summary["schema"] == SUMMARY_SCHEMA
    assert summary["src_video"] == str(run.clip) and face["drv_aud"] == str(run.speech)
    assert summary["output"] == str(run.out) and face["identity"] == str(run.identity)
    assert face["face"] == 0 and face["identity_trained_now"] is True
    assert summary["frame_size"] == [640, 360] and summary["frames"] == COUNT
    masked = sum(bool(mask.planes[0].any()) for *_, mask in pictures)
    assert summary["frames_edited"] == masked
    assert face["frames_edited"] == masked and masked + sum(face["frames_passed_through"].values()) == COUNT
    spans = SpanTable.from_json(face["spans"])
    assert spans.edited.tolist() == [bool(mask.planes[0].any()) for *_, mask in pictures]
    assert {reason: n for reason, n in spans.counts().items() if reason != "edited"} == face["frames_passed_through"]
    assert summary["frames_with_hand"] > 0
    assert 150 < face["face_height_px"] < 330
    assert any("Matroska" in text for text in summary["warnings"]), "what was warned of is on record"
    assert 0 < face["landmark_error_percent"] < 4
    assert {"listen", "prepare", "identity", "edit"} <= set(summary["seconds_per_stage"])
    assert sorted(p.name for p in run.out.parent.iterdir() if p.name.startswith(("out.mp4", "masks", "."))) == [
        "masks.mkv", "out.mp4", "out.mp4.json", "out.mp4.provenance.json",
    ]  # fmt: skip


def test_an_interrupted_training_goes_on_and_nothing_is_prepared_twice(run):
    said = [text for _, text in run.interrupted]
    assert any("track done" in text for text in said) and any("binarize done" in text for text in said)
    again = [text for _, text in run.messages]
    assert f"going on from step {STATE_EVERY}" in again
    assert not any(" done in " in text for text in again)
    checkpoint = load_checkpoint(run.identity, parts=())
    assert checkpoint.step == STEPS
    assert not list((run.root / "data" / "training").glob("*/state")), "the state is gone when training is complete"


def test_a_second_run_finds_the_person_and_prepares_nothing(run, tmp_path):
    out = tmp_path / "again.mp4"
    started = time.perf_counter()
    with own_folders(run.root), listening() as said:
        GeneFace2InferArbitrary().infer_once_arbitrary(run.job(out_name=out, length="shortest"))
    took = time.perf_counter() - started
    record = json.loads((tmp_path / "again.mp4.json").read_text())
    (face,) = record["faces"]
    assert face["identity_trained_now"] is False and face["identity"] == str(run.identity)
    assert record["seconds_per_stage"]["prepare"] < 5 and record["seconds_per_stage"]["identity"] < 5 and took < 120
    assert not any("done in" in text or "training one" in text for _, text in said)
    with VideoReader(out) as reader:
        times = [frame.time_s for frame in reader.frames()]
    assert len(times) == record["frames"] < COUNT
    spoken_s, shown_s = load_audio_16k(run.speech).duration_s, float(times[-1] - times[0])
    assert shown_s < spoken_s <= shown_s + 0.05


def test_the_same_preset_is_not_trained_again_and_another_is(run):
    record = json.loads((run.identity / "checkpoint.json").read_text())
    video_id = record["extra"]["video_id"]
    config = training_config(video_id, run.preset, "auto", run.root / "data")
    key = (record["extra"]["source_sha256"], record["face_model_version"])
    folder = run.root / "identities"
    assert find_identity(*key, config, 0, folder) == find_identity(*key, None, 0, folder) == run.identity
    assert find_identity(*key, training_config(video_id, None, "cpu", run.root / "data"), 0, folder) is None
    for sha256, version, face in (("0" * 64, key[1], 0), (key[0], "x", 0), (*key, 1)):
        assert find_identity(sha256, version, None, face, folder) is None


@pytest.mark.parametrize("which", ["first", "middle", "hand", "untouched"])
def test_a_preview_is_that_frame_of_the_result(run, pictures, tmp_path, which):
    edited = [i for i, (*_, mask) in enumerate(pictures) if (mask.planes[0] > 250).any()]
    number = {"first": edited[0], "middle": edited[len(edited) // 2], "hand": edited[-1], "untouched": COUNT - 1}[which]
    out = tmp_path / "frame.mp4"
    with own_folders(run.root):
        written = GeneFace2InferArbitrary().infer_once_arbitrary(run.job(out_name=out, preview=number))
    assert written == tmp_path / "frame.png" and [p.name for p in tmp_path.iterdir()] == ["frame.png"]
    shown = cv2.cvtColor(cv2.imread(str(written)), cv2.COLOR_BGR2RGB).astype(int)
    difference = np.abs(shown - rgb_from_planes(pictures[number][1])).max()
    assert difference <= 2


def test_silence_is_said_and_keeps_the_lips_shut(run, tmp_path):
    silence = write_wav(tmp_path / "silence.wav", AudioClip(np.zeros(20000, np.float32), 16000))
    job = ArbitraryJob(run.clip, SpeechFiles(silence), tmp_path / "out.mp4", preview=2)
    with own_folders(run.root):
        with listening() as said:
            GeneFace2InferArbitrary().infer_once_arbitrary(job)
        source = open_source(job.src_video, silent)
        plan = plan_video(source, predict_motion(job, load_audio_16k(silence)))
    assert [text for level, text in said if level == "WARNING" and "silent" in text]
    assert not list(tmp_path.glob("*.json")), "a preview has no record"
    driven = model_opening(source, plan.expression)  # of every frame, whether its edit is shown or not
    own = lip_opening(source.landmarks.points[source.landmarks.valid])
    assert driven.max() < max(0.02, own.min() + 0.02) and np.ptp(driven) < 0.01


def test_odd_frame_sizes(run, tmp_path):
    clip = scaled(run.clip, tmp_path / "odd.mkv", (175, 143), 12)
    out = tmp_path / "out.mp4"
    arguments = ["--src_video", clip, "--drv_aud", run.speech, "--out_name", out, "--head_ckpt", run.identity]
    arguments += ["--lossless", "--save_masks", tmp_path / "masks.mkv"]
    with own_folders(tmp_path):
        status = main([str(argument) for argument in arguments])
    assert status == 0
    for before, after, mask in zip(all_frames(clip), all_frames(out), all_frames(tmp_path / "masks.mkv"), strict=True):
        assert after.size_hw == before.size_hw == mask.size_hw == (143, 175) and after.time_s == before.time_s
        untouched = mask.planes[0] == 0
        assert untouched.mean() > 0.5
        np.testing.assert_array_equal(after.planes[0][untouched], before.planes[0][untouched])


def test_a_frame_that_does_not_exist(run, tmp_path, caplog):
    arguments = ["--src_video", run.clip, "--drv_aud", run.speech, "--out_name", tmp_path / "o.mp4", "--preview", COUNT]
    with own_folders(run.root):
        assert main([str(a) for a in arguments]) == 1
    assert f"has {COUNT} frames" in caplog.records[-1].getMessage()
    assert list(tmp_path.iterdir()) == []


def test_a_face_below_the_minimum_size_is_said(run, tmp_path, caplog):
    clip = scaled(run.clip, tmp_path / "small.mkv", (48, 28), 12)
    with own_folders(tmp_path):
        status = main(["--src_video", str(clip), "--drv_aud", str(run.speech), "--out_name", str(tmp_path / "o.mp4")])
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert status == 1 and "small.mkv: no face" in message and "\n" not in message
    assert not list(tmp_path.glob("o.*"))
