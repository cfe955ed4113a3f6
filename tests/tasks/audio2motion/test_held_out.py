"""Figures of people never heard, on made-up talkers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from modules.commons.errors import ConfigError
from modules.commons.progress import silent
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.audio2motion import held_out
from tasks.audio2motion.agreement import make_row
from tasks.audio2motion.evaluation import other_sound
from tasks.audio2motion.held_out import (
    calibrate_folds,
    direct_ridge,
    load_cases,
    measures_of_units,
    predict_all,
    train_folds,
)
from tests.support.seen_mouths import seen_of
from tests.support.talking_clips import talking_clip
from tests.tasks.audio2motion.test_train import SMALL

CONFIG = dataclasses.replace(
    SMALL, n_folds=2, model=dataclasses.replace(SMALL.model, convolutional=0, recurrent=0), spread_target=0.95
)


def write_corpus(folder, face_model, count: int = 5):
    for name in ("clips", "set_aside", "seen"):
        (folder / name).mkdir()
    for seed in range(count):
        clip = talking_clip(face_model, seed, noise=0.2)
        clip.save(folder / ("clips" if seed < count - 1 else "set_aside") / f"{clip.name}.npz")
        seen_of(clip, face_model).save(folder / "seen" / f"{clip.name}.npz")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    face_model = FaceModel.load(FACE_MODEL_FILE)
    write_corpus(folder, face_model)
    cases = load_cases(folder, CONFIG)
    return face_model, cases, train_folds(cases, face_model, CONFIG, folder / "work", silent)


def test_a_clip_set_aside_is_judged_but_never_teaches(world):
    _, cases, folds = world
    assert [case.kept for case in cases] == [case.teaches for case in cases] == [True] * 4 + [False]
    assert all(cases[-1].speaker not in fold.speakers for fold in folds)
    for case in cases[:-1]:
        heard = [case.speaker in fold.speakers for fold in folds]
        assert heard[case.fold] is False and sum(heard) == 1


def test_finished_folds_are_taken_when_they_are_of_the_same_clips(world, tmp_path, monkeypatch):
    face_model, cases, _ = world
    trained = []
    fit = held_out.fit_model
    monkeypatch.setattr(held_out, "fit_model", lambda *a, **k: (trained.append(1), fit(*a, **k))[1])
    first = train_folds(cases, face_model, CONFIG, tmp_path, silent)
    again = train_folds(cases, face_model, dataclasses.replace(CONFIG, spread_target=1.0), tmp_path, silent)
    assert len(trained) == 2
    for one, other in zip(predict_all(cases, first), predict_all(cases, again), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    train_folds(cases, face_model, dataclasses.replace(CONFIG, ridge_penalty=0.5), tmp_path, silent)
    assert len(trained) == 4
    train_folds(cases[1:], face_model, CONFIG, tmp_path, silent)
    assert len(trained) > 4


def test_the_clean_variant_learns_from_clean_clips_but_is_judged_on_all(tmp_path):
    face_model = FaceModel.load(FACE_MODEL_FILE)
    write_corpus(tmp_path, face_model)
    terms = ["MIT", "none", "CC-BY-4.0", "public-domain", "MIT"]
    lines = ["clip,speaker,licence,source,media", *(f"clip{i},speaker{i},{term},s,m" for i, term in enumerate(terms))]
    (tmp_path / "speakers.csv").write_text("\n".join(lines) + "\n")
    config = dataclasses.replace(CONFIG, variant="clean", speakers=tmp_path / "speakers.csv")
    cases = load_cases(tmp_path, config)
    assert [case.teaches for case in cases] == [True, False, True, True, False]
    folds = train_folds(cases, face_model, config, tmp_path / "work", silent)
    assert not any("speaker1" in fold.speakers for fold in folds)
    assert len(predict_all(cases, folds)) == 5


def test_a_model_refuses_whom_it_heard(world):
    _, cases, folds = world
    wrong = [dataclasses.replace(case, fold=1 - case.fold) for case in cases[:-1]]
    with pytest.raises(ConfigError, match="no figure may be made of that"):
        predict_all(wrong, folds)


def test_the_model_beats_wrong_sound_and_loudness(world):
    face_model, cases, folds = world
    units = predict_all(cases, folds)
    calibrations = calibrate_folds(cases, units, folds, face_model, CONFIG)
    models = {fold.fold: fold for fold in folds}

    def row(predictions):
        measures = [
            measures_of_units(case, one, models[case.fold], face_model, calibrations[case.fold])
            for case, one in zip(cases, predictions, strict=True)
        ]
        return make_row("row", cases, measures)

    own, wrong = row(units), row(predict_all(cases, folds, other_sound))
    for measure in ("opening", "width", "jawOpen", "mouthFunnel", "mouthPucker"):
        assert own.figures[measure].r_mean > 0.7 > abs(wrong.figures[measure].r_mean)
    assert own.figures["opening"].spread_median == pytest.approx(0.95, abs=0.2)
    ridge = make_row("ridge", cases, direct_ridge(cases, folds, CONFIG), has_spread=False)
    assert ridge.figures["opening"].r_mean > 0.7
    energy = make_row("energy", cases, direct_ridge(cases, folds, CONFIG, energy=True), has_spread=False)
    assert energy.figures["opening"].r_mean > 0.9  # its loudness was made from the opening
    assert energy.figures["mouthPucker"].r_mean < own.figures["mouthPucker"].r_mean


def test_what_was_not_seen_is_one_sentence(tmp_path):
    face_model = FaceModel.load(FACE_MODEL_FILE)
    write_corpus(tmp_path, face_model, 3)
    (tmp_path / "seen" / "clip1.npz").unlink()
    with pytest.raises(ConfigError, match=r"clip1\.npz.*build_av_corpus\.py again"):
        load_cases(tmp_path, CONFIG)
    np.savez(tmp_path / "seen" / "clip1.npz", x=np.zeros(1))
    with pytest.raises(ConfigError, match="schema"):
        load_cases(tmp_path, CONFIG)
