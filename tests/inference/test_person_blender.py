"""Blend mode neural: the person's blender is made once, found again, made anew for other inputs, and used."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from inference import person_blender
from inference.evaluation.motion import full_plan
from inference.face_compositor import FaceCompositor
from inference.frame_editor import FrameEditor, final_alpha
from inference.jobs import BLEND_MODES, EvaluationJob
from inference.motion_to_frames import IdentityRenderer
from inference.person_blender import FOLDER, BlenderConfig, blender_for
from inference.prepared import open_source
from inference.seen_occluders import seen_from
from modules.commons.errors import VideoReadError
from modules.commons.progress import silent
from modules.face_model.model import ARKIT_NAMES
from modules.video.colour import chroma_alpha
from tasks.blending import BlendTraining
from tests.support.tiny_run import all_frames, listening, own_folders, tiny_run

QUICK = BlenderConfig(pairs=3, training=BlendTraining(steps=3, batch=2, examples=4))


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def source(run):
    with own_folders(run.root):
        return seen_from("hands", open_source(run.clip, silent))


@pytest.fixture(scope="module")
def person(run, tmp_path_factory):
    """A copy of the tiny person, because something is put beside it."""
    return shutil.copytree(run.identity, tmp_path_factory.mktemp("persons") / "tiny")


@pytest.fixture(scope="module")
def renderer(person, source):
    return IdentityRenderer(person, source.face_model, "cpu")


@pytest.fixture(scope="module")
def job(run):
    return EvaluationJob(run.clip, run.root / "report", blend_mode="neural", device="cpu")


@pytest.fixture(scope="module")
def made(job, source, person, renderer):
    """(the blender, what was said of progress)."""
    told = []
    return blender_for(job, source, person, renderer, lambda *step: told.append(step), config=QUICK), told


def weights(blender):
    return {name: value.clone() for name, value in blender.network.state_dict().items()}


def test_other_modes_need_no_blender(job, source, person, renderer):
    assert "neural" in BLEND_MODES
    for mode in set(BLEND_MODES) - {"neural"}:
        assert blender_for(replace(job, blend_mode=mode), source, person, renderer, silent) is None


def test_it_is_made_once_and_found_again(made, job, source, person, renderer, monkeypatch):
    blender, told = made
    assert told == [("blender: frames", n, 3) for n in (1, 2, 3)] + [("blender: training", n, 3) for n in (1, 2, 3)]
    assert (person / FOLDER / "model.safetensors").is_file()
    monkeypatch.setattr(person_blender, "train_blender", None)  # calling it would fail
    again = blender_for(job, source, person, renderer, silent, config=QUICK)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(blender).items())


@pytest.mark.parametrize("what", ["rows", "region", "spoilt"])
def test_other_inputs_or_a_spoilt_file_make_it_anew(made, job, source, person, renderer, tmp_path, what):
    copy = shutil.copytree(person, tmp_path / "person")
    if what == "spoilt":
        (copy / FOLDER / "model.safetensors").write_bytes(b"")
    told = []
    with listening() as said:
        blender_for(
            replace(job, region="face") if what == "region" else job, source, copy, renderer,
            lambda *step: told.append(step), rows=np.arange(6) if what == "rows" else None, config=QUICK,
        )  # fmt: skip
    assert ("blender: training", 3, 3) in told
    assert any("trained anew" in text for _, text in said) is (what == "spoilt")


def test_a_clip_without_a_face_to_learn_from_is_refused(job, source, person, renderer):
    unseen = replace(source, coeffs=replace(source.coeffs, valid=np.zeros(len(source), bool)))
    with pytest.raises(VideoReadError, match="another --blend_mode"):
        blender_for(job, unseen, person, renderer, silent, config=QUICK)


def test_frames_are_edited_with_it_and_only_where_alpha_is(made, run, job, source, renderer):
    expression = source.coeffs.expression.copy()
    expression[:, ARKIT_NAMES.index("jawOpen")] = 0.4
    plan, frame = full_plan(source, expression), all_frames(run.clip)[2]
    editor = FrameEditor(job, source, renderer, plan, blender=made[0])
    assert not editor.compositor.has_device_twin
    result, patch, occlusion = editor.edit(frame)
    alpha = np.zeros(frame.size_hw, np.float32)
    x0, y0, x1, y1 = patch.bounds
    alpha[y0:y1, x0:x1] = final_alpha(patch, occlusion)
    chroma = chroma_alpha(alpha, frame.layout)
    for before, after, where in zip(frame.planes, result.planes, (alpha, chroma, chroma), strict=True):
        assert np.array_equal(before[where == 0], after[where == 0]) and (before != after).any()


def test_the_mode_and_its_blender_belong_together(made):
    for mode, blender in (("neural", None), ("alpha", made[0])):
        with pytest.raises(ValueError, match="blender"):
            FaceCompositor(mode, blender=blender)
