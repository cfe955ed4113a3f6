"""Who speaks anew: what is heard, who is cast, who is left alone and said to be, and whose turn it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import casting
from inference.casting import FaceList, asks_the_head, cast_faces, listen, plan_job_timeline, rehearse
from inference.face_choice import FaceChoice
from inference.jobs import ArbitraryJob
from inference.prepared import open_video
from modules.commons.errors import (
    AudioReadError,
    ConfigError,
    FitDivergedError,
    NoFaceError,
    OutputError,
    VideoReadError,
)
from modules.commons.progress import silent
from modules.structures.faces import TrackedFace
from modules.structures.spans import Reason
from modules.structures.tracks import FrameStatus, track_of_boxes
from tests.support.edited_clips import WOMAN, small_frames, write_frames
from tests.support.tiny_run import FRAMES, cut, listening, own_folders, tiny_run, write_wav

COUNT = 14


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def here(tmp_path_factory, demo_dir):
    root = tmp_path_factory.mktemp("cast")
    write_frames(root / "clip.mp4", *small_frames(WOMAN, FRAMES[0], FRAMES[0] + COUNT))
    whole = load_audio_16k(demo_dir / "obama_speech.wav")
    write_wav(root / "a.wav", cut(whole, 0.9, 1.6))
    write_wav(root / "b.wav", cut(whole, 2.0, 2.4))
    with own_folders(root):
        yield root


@pytest.fixture(scope="module")
def job(here):
    def make(**changes):
        given = {"src_video": here / "clip.mp4", "drv_aud": here / "a.wav", "out_name": here / "out.mp4", **changes}
        return ArbitraryJob.from_mapping(given)

    return make


@pytest.fixture(scope="module")
def video(here):
    return open_video(here / "clip.mp4", silent)


@pytest.fixture(scope="module")
def crowd(video):
    """The same video with two more faces in its table: the same person, once called too small to be worked on
    throughout, and once in all frames but one.
    """
    boxes = video.faces.track_over_video(0).boxes
    small = track_of_boxes(boxes, np.ones(COUNT, bool))
    small.status[:] = FrameStatus.TOO_SMALL
    seldom = replace(small, status=small.status.copy())
    seldom.status[3] = FrameStatus.DETECTED
    more = (TrackedFace(track, np.zeros(COUNT, np.float32), (0,)) for track in (small, seldom))
    table = replace(video.faces, faces=(*video.faces.faces, *more))
    table.save(video.workspace.faces)
    yield replace(video, faces=table)
    video.faces.save(video.workspace.faces)


# ---- listening ----


def test_every_sound_is_heard_once_and_needs_no_video(here, job):
    text = here / "text.mp4"
    text.write_text("no video, but nobody looks yet")
    heard = listen(job(src_video=text, drv_aud={0: here / "a.wav", 1: here / "b.wav", 4: here / "a.wav"}))
    assert list(heard) == [here / "a.wav", here / "b.wav"]
    for path, (speech, motion) in heard.items():
        assert speech.duration_s == load_audio_16k(path).duration_s
        assert motion.duration_s == pytest.approx(speech.duration_s, abs=0.05)


def test_a_sound_that_is_none_is_named(here, job):
    text = here / "text.wav"
    text.write_text("no sound")
    with pytest.raises(AudioReadError, match=r"text\.wav"):
        listen(job(drv_aud={0: here / "a.wav", 1: text}))


# ---- casting ----


def test_one_face_speaks_all_the_time(here, job, video):
    (cast,) = cast_faces(job(), video, silent)
    assert cast.source.face == 0 and cast.sound == here / "a.wav" and cast.on.tolist() == [True] * COUNT


def test_of_several_faces_one_that_fails_is_left_alone_and_said(here, job, crowd):
    with listening() as said:
        (cast,) = cast_faces(job(drv_aud={1: here / "a.wav", 0: here / "b.wav"}), crowd, silent)
    assert cast.source.face == 0 and cast.sound == here / "b.wav"
    (warning,) = [text for level, text in said if level == "WARNING"]
    assert warning.startswith(f"face 1 is left as it is: {here / 'clip.mp4'}: none of {COUNT} frames")
    assert not crowd.workspace.of_face(1).coeffs.exists()


def test_where_the_only_chosen_face_fails_the_job_does(here, job, crowd):
    for changes in ({"face": 1}, {"drv_aud": {1: here / "b.wav"}}):
        with pytest.raises(FitDivergedError, match=r"clip\.mp4: none of"):
            cast_faces(job(**changes), crowd, silent)


def test_a_face_that_nobody_can_learn_from(here, job, crowd):
    """It can be followed, but one frame teaches nothing."""
    asked = job(face=2)
    heard, casts = listen(asked), cast_faces(asked, crowd, silent)
    assert [cast.source.face for cast in casts] == [2] and casts[0].source.evidence.valid.sum() == 1
    timeline = plan_job_timeline(asked, crowd, casts, heard)
    with pytest.raises(NoFaceError, match=rf"clip\.mp4: .*only \d of {COUNT} frames"):
        rehearse(asked, crowd, casts, heard, timeline, silent)


def test_one_head_is_not_put_on_two_people(here, job, crowd, run):
    sounds = {0: here / "a.wav", 1: here / "a.wav"}
    with pytest.raises(ConfigError, match="is the head of one person, but 2 faces are chosen"):
        cast_faces(job(drv_aud=sounds, head_ckpt=run.identity), crowd, silent)
    assert len(cast_faces(job(face=0, head_ckpt=run.identity), crowd, silent)) == 1


# ---- turns ----


@pytest.mark.parametrize(
    ("mode", "device", "asked"),
    [
        ("auto", "cpu", False), ("auto", "cuda", True), ("head", "cpu", True), ("appearance", "cuda", False),
        ("hands", "cuda", False), ("off", "cuda", False),
    ],
)  # fmt: skip
def test_the_head_judges_where_that_costs_little_or_is_wanted(job, monkeypatch, mode, device, asked):
    monkeypatch.setattr(casting, "pick_device", torch.device)
    assert asks_the_head(job(occlusion=mode, device=device)) == asked


def test_frames_of_another_speaker_are_his(job, video, run):
    """The mask of turns is one of source frames; where the picture goes back and forth it goes with it."""
    asked = job(head_ckpt=run.identity, fade_s=0.0, length="pingpong")
    heard = listen(asked)
    (cast,) = cast_faces(asked, video, silent)
    on = np.arange(COUNT) >= 6
    turns = [replace(cast, on=on)]
    timeline = plan_job_timeline(asked, video, turns, heard)
    assert len(timeline) > COUNT or timeline.rows[-1] != len(timeline) - 1, "it goes back"
    (part,) = rehearse(asked, video, turns, heard, timeline, silent)
    others = [reason is Reason.OTHER_SPEAKS for reason in part.plan.reasons]
    assert others == (~on[timeline.rows]).tolist() and not part.plan.edited[others].any()
    assert part.plan.edited.any()
    (always,) = rehearse(asked, video, [cast], heard, timeline, silent)
    assert Reason.OTHER_SPEAKS not in always.plan.reasons and always.plan.edited.sum() > part.plan.edited.sum()


def test_a_turn_fades_at_its_borders(job, video, run):
    asked = job(head_ckpt=run.identity, fade_s=0.1)
    heard = listen(asked)
    (cast,) = cast_faces(asked, video, silent)
    turns = [replace(cast, on=np.arange(COUNT) >= 6)]
    (part,) = rehearse(asked, video, turns, heard, plan_job_timeline(asked, video, turns, heard), silent)
    strength = part.plan.strength
    assert not strength[:6].any() and 0 < strength[6] < strength[7] < 1 and strength[9:].max() == 1


def test_the_longest_sound_makes_the_length(here, job, video, run):
    asked = job(length="hold", drv_aud=here / "a.wav", head_ckpt=run.identity)
    heard = listen(job(drv_aud={0: here / "a.wav", 1: here / "b.wav"}))
    (cast,) = cast_faces(asked, video, silent)
    for sounds in (("a", "b"), ("b", "a")):
        casts = [replace(cast, sound=here / f"{name}.wav") for name in sounds]
        timeline = plan_job_timeline(asked, video, casts, heard)
        assert timeline.duration_s == pytest.approx(heard[here / "a.wav"][0].duration_s, abs=1 / 23)


@pytest.mark.slow
def test_the_one_who_speaks_is_found_by_his_own_sound(here, demo_dir):
    """Two men at a desk: one speaks, the other looks on."""
    clip = demo_dir / "obama_speech.mp4"
    asked = ArbitraryJob.from_mapping(
        {"src_video": clip, "drv_aud": here / "a.wav", "out_name": here / "out.mp4", "face": "speaking"}
    )
    video = open_video(clip, silent)
    assert len(video.faces) >= 2
    casts = cast_faces(asked, video, silent)
    speaker = max(casts, key=lambda cast: int(cast.on.sum()))
    boxes = video.faces.track_over_video(speaker.source.face).boxes
    assert np.nanmedian(boxes[:, [0, 2]].mean(axis=1)) > 160, "he stands in the right half"
    assert speaker.on.mean() > 0.5
    assert np.sum([cast.on for cast in casts], axis=0).max() == 1, "one at a time"


# ---- the list of faces ----


def test_what_a_list_of_faces_may_be_called(here):
    clip = here / "clip.mp4"
    assert FaceList(clip, here / "faces", None).picture == here / "faces.png"
    assert FaceList(clip, here / "faces.jpg", FaceChoice("left")).picture == here / "faces.png"
    with pytest.raises(VideoReadError, match=r"none\.mp4"):
        FaceList(here / "none.mp4", here / "faces.png", None)
    (here / "taken.png").mkdir()
    (here / "folder").mkdir()
    for sheet in ("folder", "taken.png", "taken"):
        with pytest.raises(OutputError, match="the output is a folder"):
            FaceList(clip, here / sheet, None)
    with pytest.raises(OutputError, match="also an input; choose another --list_faces"):
        FaceList(clip, clip, None)
