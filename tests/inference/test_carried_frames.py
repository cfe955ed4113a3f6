"""Blend mode delta in batches: near the frames of the CPU, with its states, on one device and on several."""

from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import edited_frames, filmed_mouths
from inference.arbitrary_video import plan_video, predict_motion
from inference.carried_frames import CarriedOnDevice
from inference.edited_frames import Wanted, edited_on_devices, edited_one_by_one
from inference.face_choice import SpeechFiles
from inference.frame_editor import FrameEditor
from inference.jobs import ArbitraryJob
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import open_source
from modules.commons.progress import silent
from modules.radnerfs import mouth_choice
from modules.video.reader import VideoReader
from modules.video.spread import Relay
from tests.support.edited_clips import is_same_picture
from tests.support.tiny_run import mouth_in_view, own_folders, tiny_run

FIRST, STOP = 22, 30
"""Her hand comes up in between."""
PASSING = FIRST + 4, FIRST + 5
CPU = torch.device("cpu")


class RememberingRenderer(IdentityRenderer):
    """Renders each pair of motions once."""

    def render_everything(self, frames, cond_windows, region):
        patches = []
        for row in range(len(frames)):
            key = frames.expression[row].tobytes(), frames.euler[row].tobytes()
            if key not in self.rendered:
                rows = np.array([row])
                self.rendered[key] = super().render_everything(frames.rows(rows), cond_windows[rows], region)[0]
            patches.append(self.rendered[key])
        return patches


@pytest.fixture(scope="module")
def scene(tmp_path_factory, demo_dir):
    """Makes editors; and the frames."""
    run = tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")
    job = ArbitraryJob(run.clip, SpeechFiles(run.speech), run.root / "never_written.mp4", blend_mode="delta")
    with own_folders(run.root):
        source = mouth_in_view(open_source(run.clip, silent))
    plan = plan_video(source, predict_motion(job, load_audio_16k(run.speech)))
    plan.strength[list(PASSING)] = 0  # pass through: what was is forgotten after them
    plan.strength[FIRST + 1] = 0.5
    source.coeffs.translation[FIRST + 6] += (90, 0, 0)  # out of sight
    renderer = RememberingRenderer(run.identity, source.face_model, "cpu")
    renderer.rendered = {}
    with VideoReader(run.clip) as reader:
        frames = list(islice(reader.frames(), FIRST, STOP))
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(filmed_mouths, "LEAST_MOUTHS", 4)
        patches.setattr(mouth_choice, "SHUT_DM", (-1.0, 0.0))  # these lips hardly part
        mouths = filmed_mouths.filmed_mouths_for(job, source, silent)
        assert mouths is not None
        yield lambda **options: FrameEditor(replace(job, **options), source, renderer, plan, mouths=mouths), frames


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(edited_frames, "FRAMES_PER_BATCH", 2)


def wanted(*kept):
    return Wanted(lambda number: number in kept, alpha=True)


def on_devices(scene, count, frames=None, states=({},), kept=(FIRST + 3, STOP - 1), **options):
    make, all_frames = scene
    workers = [(CPU, [make(**options) for _ in states]) for _ in range(count)]
    with edited_on_devices(frames or all_frames, workers, states, wanted(*kept)) as edited:
        return list(edited)


@pytest.fixture(scope="module")
def batches(scene):
    """Made in batches of two."""
    size, edited_frames.FRAMES_PER_BATCH = edited_frames.FRAMES_PER_BATCH, 2
    try:
        return on_devices(scene, 1)
    finally:
        edited_frames.FRAMES_PER_BATCH = size


def test_batches_give_the_frames_records_and_states_of_the_cpu(scene, batches):
    make, frames = scene
    plain = list(edited_one_by_one(frames, [make()], wanted(FIRST + 3, STOP - 1)))
    assert [one.frame.index for one in batches] == list(range(FIRST, STOP))
    for one, other in zip(plain, batches, strict=True):
        for expected, found in zip(one.frame.planes, other.frame.planes, strict=True):
            off = np.abs(expected.astype(int) - found.astype(int))
            assert (off > 1).mean() < 1e-4 and (off > 0).mean() < 1e-3
        assert one.edits.keys() == other.edits.keys() == ({0} if one.frame.index not in PASSING else set())
        for number, edit in one.edits.items():
            same = other.edits[number]
            assert edit.bounds == same.bounds and edit.is_occluded == same.is_occluded
            assert same.area_px == pytest.approx(edit.area_px, rel=0.01)
            assert (np.abs(edit.alpha - same.alpha) > 0.01).mean() < 0.01
        assert (one.states is None) == (other.states is None)
        for state, found in zip(one.states or (), other.states or (), strict=True):
            assert_near(state, found)
    assert any(edit.is_occluded for one in batches for edit in one.edits.values())
    assert not is_same_picture(batches[0].frame, batches[0].before)
    assert all(batches[k].frame is batches[k].before for k in (4, 5, 6))


def test_filmed_mouths_stand_in_for_rendered_ones_in_both(scene):
    make, frames = scene
    editor, rendered = make(), make()
    rendered._stand_ins = None
    frame = frames[2]
    carried = editor.carried(frame.index)
    assert carried.real is not None and carried.real[..., 3].max() == 255
    made, patch, _ = editor.edit(frame)
    other, _, _ = rendered.edit(frame)
    x0, y0, x1, y1 = patch.bounds
    differ = made.planes[0][y0:y1, x0:x1] != other.planes[0][y0:y1, x0:x1]
    near = cv2.dilate((carried.rendered > 0).astype(np.uint8), np.ones((15, 15), np.uint8)) > 0
    assert differ[carried.rendered > 0.9].mean() > 0.5 and differ[~near].mean() < 0.01


def assert_near(state, found):
    """The state of the CPU; a cell of pixels that hardly changes may count as still."""
    assert state.keys() == found.keys() and int(state["last"]) == int(found["last"])
    for name, values in state.items():
        other = found[name]
        assert values.dtype == other.dtype and values.shape == other.shape
        if name == "changed":
            assert (values != other).mean() < 0.01 and values.any()
        else:
            np.testing.assert_allclose(other, values, rtol=0.1, atol=5e-7)  # a few pixels count or not


@pytest.mark.usefixtures("small_batches")
def test_two_devices_give_the_very_frames_of_one(scene, batches):
    two = on_devices(scene, 2)
    for one, other in zip(batches, two, strict=True):
        assert is_same_picture(one.frame, other.frame)
        for state, found in zip(one.states or (), other.states or (), strict=True):
            assert all(np.array_equal(state[name], found[name]) for name in state)


@pytest.mark.usefixtures("small_batches")
def test_work_taken_up_from_a_state_goes_on_exactly(scene, batches):
    _, frames = scene
    states = on_devices(scene, 1, frames=frames[:2], kept=(FIRST + 1,))[1].states
    assert states is not None
    noisy = tuple({**state, "variances": state["variances"] * np.array([[100.0], [1.0]])} for state in states)
    told, otherwise = (on_devices(scene, 1, frames=frames[2:4], states=s) for s in (states, noisy))
    assert all(is_same_picture(a.frame, b.frame) for a, b in zip(batches[2:4], told, strict=True))
    differ = told[0].frame.planes[0] != otherwise[0].frame.planes[0]
    assert differ.sum() > 100, "what was handed over matters"


@pytest.mark.usefixtures("small_batches")
def test_two_faces_are_changed_one_after_the_other(scene, batches):
    twice = on_devices(scene, 1, frames=scene[1][:2], states=({}, {}))
    assert twice[0].edits.keys() == {0, 1} and twice[0].edits[0].bounds == batches[0].edits[0].bounds
    assert not is_same_picture(twice[0].frame, batches[0].frame)


def test_other_modes_have_nothing_to_carry(scene):
    make, frames = scene
    face = CarriedOnDevice(make(blend_mode="alpha"), CPU, Relay({}))
    with pytest.raises(ValueError, match="delta"):
        face.start(0, frames[:1], wanted())
