"""Frames edited in batches: the same on one device and on several, taken up anywhere, and near those of the CPU."""

from itertools import islice

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import edited_frames
from inference.arbitrary_video import plan_video, predict_motion
from inference.edited_frames import Wanted, edited_on_devices, edited_one_by_one
from inference.face_choice import SpeechFiles
from inference.frame_editor import FrameEditor
from inference.jobs import ArbitraryJob
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import open_source
from inference.seen_occluders import seen_from
from modules.commons.progress import silent
from modules.structures.device_patch import DevicePatch
from modules.video.reader import VideoReader
from tests.support.edited_clips import is_same_picture
from tests.support.tiny_run import mouth_in_view, own_folders, tiny_run

FIRST, STOP = 20, 28
"""Her hand comes up in between."""
CPU = torch.device("cpu")


class UploadingRenderer(IdentityRenderer):
    """Renders batches frame by frame, so that only what happens to the patches differs, and each frame once."""

    def render_patch(self, *arguments, **named):
        key = arguments[1].tobytes(), arguments[2].tobytes()
        if key not in self.rendered:
            self.rendered[key] = super().render_patch(*arguments, **named)
        return self.rendered[key]

    def render_patches(self, frames, cond_windows, region="lower_face"):
        camera = self.camera
        shown = [None] * len(frames) if frames.shown is None else frames.shown
        rows = zip(frames.expression, frames.euler, frames.translation, cond_windows, shown, strict=True)
        patches = [
            self.render_patch(frames.identity, new, euler, place, camera, window, before, region)
            for new, euler, place, window, before in rows
        ]
        return [DevicePatch(p.bounds, torch.from_numpy(p.rgb), torch.from_numpy(p.alpha)) for p in patches]


@pytest.fixture(scope="module")
def scene(tmp_path_factory, demo_dir):
    """Makes editors; and the frames."""
    run = tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")
    job = ArbitraryJob(run.clip, SpeechFiles(run.speech), run.root / "never_written.mp4", blend_mode="alpha")
    with own_folders(run.root):
        source = mouth_in_view(seen_from("hands", open_source(run.clip, silent)))
    plan = plan_video(source, predict_motion(job, load_audio_16k(run.speech)))
    assert plan.edited[FIRST:STOP].all()
    plan.strength[FIRST + 4] = 0  # passes through: colour is forgotten after it
    plan.strength[FIRST + 1] = 0.5
    renderer = UploadingRenderer(run.identity, source.face_model, "cpu")
    renderer.camera, renderer.rendered = source.coeffs.camera, {}
    with VideoReader(run.clip) as reader:
        frames = list(islice(reader.frames(), FIRST, STOP))
    return lambda: FrameEditor(job, source, renderer, plan), frames


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(edited_frames, "FRAMES_PER_BATCH", 2)


def wanted(*kept):
    return Wanted(lambda number: number in kept, alpha=True)


@pytest.fixture(scope="module")
def plain(scene):
    """What the CPU path makes of the frames, with two faces that are the same one, and states."""
    make, frames = scene
    return list(edited_one_by_one(frames, [make(), make()], wanted(FIRST + 3, STOP - 1)))


def on_devices(scene, count, frames=None, states=({}, {}), kept=(FIRST + 3, STOP - 1)):
    make, all_frames = scene
    workers = [(CPU, [make(), make()]) for _ in range(count)]
    with edited_on_devices(frames or all_frames, workers, states, wanted(*kept)) as edited:
        return list(edited)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("count", [1, 2])
def test_batches_give_the_frames_records_and_states_of_the_cpu(scene, plain, count):
    made = on_devices(scene, count)
    assert [one.frame.index for one in made] == list(range(FIRST, STOP))
    for one, other in zip(plain, made, strict=True):
        for expected, found in zip(one.frame.planes, other.frame.planes, strict=True):
            # two faces, one over the other: a code that was rounded the other way may be so twice
            assert np.abs(expected.astype(int) - found.astype(int)).max() <= 2
            assert (expected != found).mean() < 1e-3
        assert one.edits.keys() == other.edits.keys() == ({0, 1} if one.frame.index != FIRST + 4 else set())
        for number, edit in one.edits.items():
            same = other.edits[number]
            assert edit.bounds == same.bounds and edit.is_occluded == same.is_occluded
            assert same.area_px == pytest.approx(edit.area_px, rel=1e-5)
            assert np.abs(edit.alpha - same.alpha).max() < 1e-6
        assert (one.states is None) == (other.states is None)
        for state, found in zip(one.states or (), other.states or (), strict=True):
            assert state.keys() == found.keys() and int(state["last"]) == int(found["last"])
            assert np.abs(state["field"] - found["field"]).max() < 1e-3
    assert any(edit.is_occluded for one in made for edit in one.edits.values())
    assert not is_same_picture(made[0].frame, made[0].before)
    assert made[4].frame is made[4].before


@pytest.mark.usefixtures("small_batches")
def test_two_devices_give_the_very_frames_of_one(scene):
    one, two, three = (on_devices(scene, count) for count in (1, 2, 3))
    for a, b, c in zip(one, two, three, strict=True):
        assert is_same_picture(a.frame, b.frame) and is_same_picture(a.frame, c.frame)
        for state, other in zip(a.states or (), b.states or (), strict=True):
            assert all(np.array_equal(state[name], other[name]) for name in state)


@pytest.mark.usefixtures("small_batches")
def test_work_taken_up_from_a_state_goes_on_exactly(scene):
    whole = on_devices(scene, 2)
    states = whole[3].states
    assert states is not None and len(states) == 2
    rest = on_devices(scene, 1, frames=scene[1][4:], states=states)
    assert all(is_same_picture(a.frame, b.frame) for a, b in zip(whole[4:], rest, strict=True))


def test_the_memory_goes_on_into_a_batch(scene):
    """Taken up without the state, frames after the first differ: what is handed over matters."""
    _, frames = scene
    states = on_devices(scene, 1, frames=frames[:2], kept=(FIRST + 1,))[1].states
    assert states is not None
    told, untold = (on_devices(scene, 1, frames=frames[2:4], states=s)[0] for s in (states, ({}, {})))
    assert not is_same_picture(told.frame, untold.frame)


def test_large_frames_make_small_batches(scene, monkeypatch):
    _, frames = scene
    size = sum(plane.nbytes for plane in frames[0].planes)
    for fit, expected in ((8, 8), (7, 4), (1, 1), (0.5, 1)):
        monkeypatch.setattr(edited_frames, "BATCH_BYTES", int(fit * size))
        batches = [len(batch) for batch in edited_frames._batches(frames)]
        assert max(batches) <= expected and sum(batches) == len(frames)
    assert list(edited_frames._batches([])) == []


@pytest.mark.usefixtures("small_batches")
def test_an_error_while_rendering_reaches_the_caller(scene):
    make, frames = scene
    broken = make()
    broken.patches = lambda numbers: (_ for _ in ()).throw(RuntimeError("out of memory"))
    workers = [(CPU, [make()]), (CPU, [broken])]
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        edited_on_devices(frames, workers, [{}], wanted()) as edited,
    ):
        list(edited)
