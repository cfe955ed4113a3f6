"""Held-out frames: who sees what, and figures of fits with known errors."""

from dataclasses import replace

import numpy as np
import pytest

from data_gen.utils.evaluate_fit import held_out
from data_gen.utils.evaluate_fit.fitter import Clip, Fitter, cut
from data_gen.utils.evaluate_fit.held_out import COLUMNS, MEAN_FACE, WITH, WITHOUT, fits_of, held_out_tables, joined
from modules.structures.landmarks import INNER_LIP, OUTER_LIP, inter_ocular_px, lip_opening
from tests.data_gen.utils.evaluate_fit.made_up import clip_of, fitter_of, real_model, speaker_of

COUNT = 44


@pytest.fixture(scope="module")
def speaker():
    return speaker_of(real_model(), COUNT, noise_px=0.0)


def with_fit(monkeypatch, coeffs):
    """The table as if every fit had found ``coeffs``."""
    monkeypatch.setattr(held_out, "fits_of", lambda clip, fitter: iter([(WITHOUT, coeffs)]))


def test_figures_are_of_the_last_eleventh(monkeypatch, speaker):
    with_fit(monkeypatch, speaker.truth)
    clip = clip_of(speaker)
    points = clip.landmarks.points.copy()
    points[:40] += 50
    points[40:, list(INNER_LIP + OUTER_LIP), 1] += 5
    moved = replace(clip, landmarks=replace(clip.landmarks, points=points))
    figures = held_out_tables([moved], fitter_of(real_model()))[0].rows[0].measures
    wanted = (500 / inter_ocular_px(points[40:])).mean()
    assert [figures["lips"].value, figures["inner_lips"].value] == pytest.approx([wanted, wanted], rel=1e-3)
    assert [figures[name].value for name in ("eyes", "brows", "oval")] == pytest.approx([0, 0, 0], abs=1e-4)
    assert figures["face"].value == pytest.approx(wanted * 40 / 478, rel=1e-3)
    assert figures["frames"].value == 4 and figures["lost"].value == 0
    widest = 40 + int(np.argmax(lip_opening(points[40:])))
    assert figures["open_lips"].value == pytest.approx(500 / inter_ocular_px(points)[widest], rel=1e-3)


def test_the_jaw_is_compared_with_the_score(monkeypatch, speaker):
    unit = real_model().unit("jawOpen")
    expression = speaker.truth.expression.copy()
    expression[:, unit] += 0.07
    with_fit(monkeypatch, replace(speaker.truth, expression=expression))
    figures = held_out_tables([clip_of(speaker)], fitter_of(real_model()))[0].rows[0].measures
    assert figures["jaw_bias"].value == pytest.approx(0.07, abs=1e-5)
    assert figures["jaw_r"].value == pytest.approx(1, abs=1e-5)


def test_lost_frames_are_counted_and_left_out(monkeypatch, speaker):
    valid, euler = speaker.truth.valid.copy(), speaker.truth.euler.copy()
    valid[41], euler[41] = False, 1.0
    with_fit(monkeypatch, replace(speaker.truth, valid=valid, euler=euler))
    figures = held_out_tables([clip_of(speaker)], fitter_of(real_model()))[0].rows[0].measures
    assert figures["lost"].value == 1 and figures["face"].value == pytest.approx(0, abs=1e-4)


def test_the_person_is_fitted_without_the_held_out_frames(monkeypatch, speaker):
    seen = []

    class Watched(Fitter):
        def fit(self, landmarks, size_wh, **how):
            seen.append((len(landmarks), self.config.correct_expression, how.get("person")))
            return super().fit(landmarks, size_wh, **how)

        def corrected(self, wanted):
            return Watched(self.face_model, replace(self.config, correct_expression=wanted), self.device)

    plain = fitter_of(real_model())
    watched = Watched(plain.face_model, plain.config)
    found = dict(fits_of(clip_of(speaker), watched))
    assert set(found) == {WITHOUT, WITH, MEAN_FACE} and all(len(coeffs) == COUNT for coeffs in found.values())
    fitted = [(count, corrected) for count, corrected, person in seen if person is None]
    assert fitted == [(40, False), (40, True)]
    given = [(count, corrected, bool(person.identity.any())) for count, corrected, person in seen if person is not None]
    assert given == [(4, False, True), (40, False, False), (4, False, False), (4, True, True)]
    monkeypatch.setattr(held_out, "fits_of", lambda clip, fitter: iter(found.items()))
    (table,) = held_out_tables([clip_of(speaker)], plain)
    faces = {row.variant: row.measures["face"].value for row in table.rows}
    assert faces[WITHOUT] < 0.7 * faces[MEAN_FACE] < 5


def test_every_row_and_the_means_of_clips(monkeypatch, speaker):
    first, second = clip_of(speaker), clip_of(speaker, "second")
    second = replace(second, unsmoothed=cut(second.landmarks, slice(None)))
    off = replace(speaker.truth, translation=speaker.truth.translation + np.float32([0.01, 0, 0]))
    fits = iter([[(WITHOUT, off), (WITH, speaker.truth)], [(WITHOUT, speaker.truth), (WITH, speaker.truth)]])
    monkeypatch.setattr(held_out, "fits_of", lambda clip, fitter: iter(next(fits)))
    calls = []
    smoothed, unsmoothed = held_out_tables([first, second], fitter_of(real_model()), lambda *done: calls.append(done))
    assert calls[-1] == ("held-out frames", 2, 2)
    names = [(row.name, row.variant) for row in smoothed.rows]
    assert names == [(n, v) for n in ("made up", "second", "mean of the clips") for v in (WITHOUT, WITH)]
    assert [row.name for row in unsmoothed.rows] == ["second", "second"], "one clip has no mean of clips"
    assert all(set(row.measures) == {column.key for column in COLUMNS} for row in smoothed.rows[:4])
    lips = [row.measures["lips"].value for row in smoothed.rows]
    assert lips[0] > 0.1 and lips[4] == pytest.approx(lips[0] / 2, abs=1e-4) and lips[5] < 1e-3


def test_joined_fits_keep_the_person(speaker):
    names = ("expression", "euler", "translation", "valid", "residual")
    halves = (slice(0, 30), slice(30, None))
    parts = [replace(speaker.truth, **{n: getattr(speaker.truth, n)[rows] for n in names}) for rows in halves]
    whole = joined(*parts)
    assert np.array_equal(whole.euler, speaker.truth.euler) and whole.camera == speaker.truth.camera
    assert isinstance(clip_of(speaker), Clip)
