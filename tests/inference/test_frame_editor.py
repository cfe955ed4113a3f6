"""Repainting frame by frame: the colour of earlier frames is remembered, handed on, and forgotten where it must be."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.arbitrary_video import plan_video, predict_motion
from inference.edit_plan import EditPlan, fade_edges
from inference.face_choice import SpeechFiles
from inference.frame_editor import MEMORY_S, MEMORY_STEP_S, FrameEditor, colour_memory, final_alpha
from inference.jobs import ArbitraryJob
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import open_source
from inference.seen_occluders import seen_from
from modules.commons.progress import silent
from modules.structures.frames import FramePatch
from modules.structures.masks import OcclusionMask
from modules.structures.spans import Reason, SpanTable
from modules.video.reader import VideoReader
from tests.support.edited_clips import is_same_picture
from tests.support.tiny_run import all_frames, mouth_in_view, own_folders, tiny_run

FIRST, STOP = 23, 28
"""Her hand comes up in between."""


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def scene(run):
    """(job, source, renderer, plan, some frames)."""
    files = (run.clip, SpeechFiles(run.speech), run.root / "never_written.mp4")
    job = ArbitraryJob(*files, blend_mode="alpha")  # whose colours follow the frames before; for delta see below
    with own_folders(run.root):
        source = mouth_in_view(seen_from("hands", open_source(run.clip, silent)))
    plan = plan_video(source, predict_motion(job, load_audio_16k(run.speech)))
    assert plan.edited[FIRST:STOP].all()
    with VideoReader(run.clip) as reader:
        frames = list(islice(reader.frames(), FIRST, STOP))
    return job, source, IdentityRenderer(run.identity, source.face_model), plan, frames


@pytest.fixture
def editor(scene):
    """Makes an editor of the scene, with another source or other rows."""
    job, source, renderer, plan, _ = scene

    def make(**changes):
        rows = changes.pop("rows", None)
        return FrameEditor(job, replace(source, **changes), renderer, plan, rows)

    return make


@pytest.fixture(scope="module")
def edited(scene):
    """The frames, edited in one go."""
    job, source, renderer, plan, frames = scene
    one = FrameEditor(job, source, renderer, plan)
    return [one.edit(frame)[0] for frame in frames]


def test_an_editor_goes_on_exactly_where_another_was(editor, scene, edited):
    *_, frames = scene
    first = editor()
    for frame in frames[:3]:
        first.edit(frame)
    state = first.state()
    assert int(state["last"]) == FIRST + 2 and all(isinstance(array, np.ndarray) for array in state.values())
    second = editor()
    second.resume(state)
    assert all(is_same_picture(second.edit(frame)[0], made) for frame, made in zip(frames[3:], edited[3:], strict=True))
    assert not is_same_picture(editor().edit(frames[3])[0], edited[3]), "what was remembered shows"
    assert not any(is_same_picture(frame, made) for frame, made in zip(frames, edited, strict=True))


def test_nothing_is_remembered_at_first_and_over_a_gap(editor, scene):
    *_, frames = scene
    fresh = editor()
    assert fresh.state() == {}
    fresh.resume({})
    alone = fresh.edit(frames[4])[0]
    gone = editor()
    gone.edit(frames[1])
    assert is_same_picture(gone.edit(frames[4])[0], alone)
    resumed = editor()
    resumed.resume(gone.state())  # knows that frame 4 was the last
    assert is_same_picture(resumed.edit(frames[4])[0], alone)


def test_colour_is_forgotten_at_a_cut(editor, scene, edited):
    *_, frames = scene
    cut = editor(shot_starts=np.array([0, FIRST + 2]))
    made = [cut.edit(frame)[0] for frame in frames[:3]]
    assert is_same_picture(made[1], edited[1]) and not is_same_picture(made[2], edited[2])
    assert is_same_picture(made[2], editor().edit(frames[2])[0])


def test_a_preview_remembers_what_the_run_would(editor, scene, edited):
    *_, frames = scene
    times_s = scene[1].times_s
    preview = editor(shot_starts=np.array([0, FIRST]))
    rows = preview.colour_rows(times_s, FIRST + 4)
    assert rows == [FIRST + 3, FIRST + 2, FIRST + 1, FIRST], "a frame each, back to the cut"
    for frame in frames[:4]:
        preview.remember_colour(frame)
    assert is_same_picture(preview.edit(frames[4])[0], edited[4])
    assert len(editor().colour_rows(times_s, FIRST + 4)) == FIRST + 4, "0.04 s apart, so all of them count"


def test_frames_that_pass_through_need_no_colour(editor, scene):
    plan, times_s = scene[3], scene[1].times_s
    last = len(plan.edited) - 1
    assert not plan.edited[last] and editor().colour_rows(times_s, last) == []


def test_cuts_are_those_of_the_rows_that_are_shown(editor, scene):
    """Going back over a cut is a cut too."""
    count = len(scene[3].edited)
    rows = np.concatenate([np.arange(10), np.arange(8, -1, -1), np.full(count - 19, 0)])
    one = editor(shot_starts=np.array([0, 5]), rows=rows)
    times_s = np.arange(count) / 25
    assert min(one.colour_rows(times_s, 9)) == 5 and min(one.colour_rows(times_s, 4)) == 0
    assert min(one.colour_rows(times_s, 13)) == 5, "rows 5 6 7 8 9 8 7 6 5"
    assert min(one.colour_rows(times_s, 16)) == 14, "rows 4 3 2"


@given(
    st.lists(st.floats(0.005, 0.2), min_size=1, max_size=80),
    st.lists(st.booleans(), min_size=80, max_size=80),
    st.lists(st.booleans(), min_size=80, max_size=80),
)
def test_colour_memory_is_what_a_plain_walk_back_finds(steps, edited, cuts):
    times_s = np.cumsum(steps)
    count, edited, cuts = len(steps), np.array(edited)[: len(steps)], np.array(cuts)[: len(steps)] & (len(steps) > 40)
    row = count - 1
    chosen = colour_memory(times_s, edited, row, cuts)
    walked, near = [], row
    while near > 0 and not cuts[near] and edited[near - 1] and times_s[row] - times_s[near - 1] <= MEMORY_S:
        near -= 1
        walked.append(near)
    assert chosen == [n for n in walked if n in chosen] and bool(chosen) == bool(walked)
    assert all(times_s[a] - times_s[b] >= MEMORY_STEP_S for a, b in zip(chosen[:-1], chosen[1:], strict=True))
    for left_out in set(walked) - set(chosen):
        assert min(abs(times_s[left_out] - times_s[n]) for n in chosen) < MEMORY_STEP_S


def test_the_alpha_that_counts_is_what_is_seen():
    alpha = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    patch = FramePatch((2, 1, 6, 4), np.zeros((3, 4, 3), np.float32), alpha)
    assert final_alpha(patch, None) is patch.alpha
    values = np.zeros((8, 9), np.float32)
    values[1:4, 2:4], values[0, 0] = 1, 1
    seen = final_alpha(patch, OcclusionMask(values, "frame", np.zeros((0, 21, 2), np.float32)))
    assert not seen[:, :2].any() and np.array_equal(seen[:, 2:], alpha[:, 2:])


def carrying(scene, plan=None, **changes):
    """An editor that carries the source's pixels."""
    job, source, renderer, planned, _ = scene
    return FrameEditor(replace(job, blend_mode="delta", **changes), source, renderer, plan or planned)


def test_carried_lips_change_the_mouth_and_nothing_outside_the_alpha(scene):
    *_, frames = scene
    made, patch, occlusion = carrying(scene).edit(frames[0])
    x0, y0, x1, y1 = patch.bounds
    alpha = np.zeros(frames[0].size_hw, np.float32)
    alpha[y0:y1, x0:x1] = final_alpha(patch, occlusion)
    assert alpha.max() == 1
    assert np.array_equal(made.planes[0][alpha == 0], frames[0].planes[0][alpha == 0])
    assert np.abs(made.planes[0].astype(int) - frames[0].planes[0])[alpha == 1].max() > 10


def test_carrying_the_motion_that_is_shown_changes_no_sample_and_says_so(scene, caplog):
    _, source, _, plan, frames = scene
    same = replace(plan, expression=source.coeffs.expression.copy())
    one = carrying(scene, same)
    assert is_same_picture(one.edit(frames[0])[0], frames[0])
    assert "identity run" in caplog.text


def test_a_carried_edit_fades_by_moving_the_lips_not_by_showing_two_mouths(scene):
    _, source, _, plan, _ = scene
    strength = plan.spans.strength.copy()
    strength[FIRST] = 0.25
    faded = carrying(scene, replace(plan, spans=replace(plan.spans, strength=strength)))
    shown = source.coeffs.expression[FIRST]
    np.testing.assert_allclose(faded.expression[FIRST], shown + 0.25 * (plan.expression[FIRST] - shown), atol=1e-6)
    patches = [one.carried(FIRST) for one in (carrying(scene), faded)]
    whole, part = (np.abs(patch.flow).max() for patch in patches if patch is not None)
    assert 0.1 * whole < part < 0.5 * whole


def test_a_span_begins_without_a_pop(run, scene):
    """A jaw that opens over the fade of four frames: no frame does more than 0.6 of the whole change at once.

    The tiny person renders any mouth badly; if it were shown from the first frame on, that would do 0.85.
    """
    source = scene[1]
    frames = all_frames(run.clip)[2:7]
    expression = source.coeffs.expression.copy()
    expression[:, source.face_model.unit("jawOpen")] += 0.4
    fade_s = (len(frames) - 1) * float(np.diff(source.times_s).mean())
    strength = fade_edges(np.arange(len(source)) >= frames[0].index, source.times_s, fade_s)
    spans = SpanTable(strength, tuple(Reason.EDITED if value else Reason.PAUSE for value in strength))
    one = carrying(scene, EditPlan(expression, spans))
    change = [0.0]
    for frame in frames:
        made, patch, _ = one.edit(frame)
        x0, y0, x1, y1 = patch.bounds
        window = np.s_[y0:y1, x0:x1]
        change.append(float(np.abs(made.planes[0][window].astype(float) - frame.planes[0][window]).mean()))
    steps = np.diff(change) / change[-1]
    assert steps.min() > -0.1 and steps.max() < 0.6, steps


def test_an_editor_that_carries_goes_on_exactly_where_another_was(scene):
    *_, frames = scene
    first = carrying(scene)
    first.edit(frames[0])
    second = carrying(scene)
    second.resume(first.state())
    assert is_same_picture(second.edit(frames[1])[0], first.edit(frames[1])[0])
    with pytest.raises(ValueError, match="delta"):
        FrameEditor(scene[0], *scene[1:4]).carried(FIRST)
