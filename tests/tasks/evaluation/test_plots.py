"""Plots over time: what is drawn, in which colours, how large."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from modules.structures.evaluation import EDITED
from modules.structures.scores import Evaluation, TrialScores
from tasks.evaluation.plots import PALETTE, legend_of, palette_css, plots_of
from tests.support.made_up_evaluation import METRICS, made_up_evaluation


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Evaluation:
    return made_up_evaluation(tmp_path_factory.mktemp("evaluation"))


def well_formed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))


def colours_of(svg: str) -> set[str]:
    return set(re.findall(r"var\(--plot-([\w-]+),", svg))


def test_reenactment_shows_opening_lmd_psnr_and_jitter(evaluation: Evaluation):
    plots = list(plots_of(evaluation.trials[0], METRICS))
    titles = ["Lip opening and speech", "LMD (px) over time", "PSNR, edited (dB) over time", "Jitter (×) over time"]
    assert [plot.title for plot in plots] == titles
    opening, lmd, _, jitter = (colours_of(plot.svg) for plot in plots)
    assert {"ink", "result-1", "result-2", "speech", "silence"} <= opening and "retrieval" not in opening
    assert {"retrieval", "result-1", "result-2"} <= lmd & jitter and "speech" not in lmd
    assert "Constant, so not drawn: ground truth (0)." in plots[1].caption
    assert "Constant" not in plots[3].caption


def test_dubbing_leaves_out_what_needs_a_truth(evaluation: Evaluation):
    titles = [plot.title for plot in plots_of(evaluation.trials[1], METRICS)]
    assert titles == ["Lip opening and speech", "Jitter (×) over time"]


def test_the_element_stands_alone(evaluation: Evaluation):
    ids: list[str] = []
    for trial in evaluation.trials:
        for plot in plots_of(trial, METRICS):
            root = well_formed(plot.svg)
            assert root.get("role") == "img" and root.get("aria-label") == plot.title and root.get("viewBox")
            own = {e.get("id") for e in root.iter() if e.get("id")}
            used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', plot.svg))
            assert {a or b for a, b in used} <= own
            ids += [i for i in own if i]
            bare = re.sub(r"var\(--plot-[\w-]+,#\w{6}\)", "", plot.svg)
            assert not re.search(r"#[0-9a-f]{6}\b|http|<text", bare), "a fixed colour, an address or a font"
    assert len(ids) == len(set(ids))  # all plots share one page


def test_the_same_evaluation_gives_the_same_plots(evaluation: Evaluation):
    first, second = (list(plots_of(evaluation.trials[0], METRICS)) for _ in range(2))
    assert first == second


def test_settings_of_matplotlib_are_neither_used_nor_changed(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch):
    import matplotlib

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it here fails, whoever did so before
    want = list(plots_of(evaluation.trials[1], METRICS))
    with matplotlib.rc_context({"ytick.labelsize": 30.0, "lines.dash_capstyle": "round", "svg.fonttype": "none"}):
        assert list(plots_of(evaluation.trials[1], METRICS)) == want
        assert matplotlib.rcParams["svg.fonttype"] == "none" and matplotlib.rcParams["font.size"] != 8.0


def test_a_long_clip_stays_small_and_shows_best_and_worst(tmp_path: Path):
    trial = made_up_evaluation(tmp_path, frames=5000).trials[1]
    plots = list(plots_of(trial, METRICS))
    assert plots[0].title == "How well the lips follow the speech"
    assert re.fullmatch(r"Lip opening and speech, \d+–\d+ s: where dubbed follows best \(r = 0\.\d\d\)", plots[1].title)
    best, worst = (float(re.findall(r"r = (-?[\d.]+)", plot.title)[0]) for plot in plots[1:3])
    assert best > worst
    assert max(len(plot.svg) for plot in plots) < 250_000


def test_the_palette_is_told_to_the_page(evaluation: Evaluation):
    light, dark = palette_css(is_dark=False), palette_css(is_dark=True)
    assert light.count("--plot-") == dark.count("--plot-") == len(PALETTE) and light != dark
    assert len({colour for _, colour, _ in PALETTE}) == len(PALETTE)  # they are told apart by their light colour
    shown = {name for trial in evaluation.trials for plot in plots_of(trial, METRICS) for name in colours_of(plot.svg)}
    assert shown <= {name for name, _, _ in PALETTE}


def test_legend_names_rows_in_the_colours_of_the_plots(evaluation: Evaluation):
    entries = {entry.label: entry.colour for entry in legend_of(evaluation.trials[0])}
    assert entries["ground truth"] == "ink" and entries["retrieval baseline"] == "retrieval"
    assert (entries["landmark-driven"], entries["audio-driven"]) == ("result-1", "result-2")
    assert "static mean mouth" not in entries and "no speech" in entries
    assert "no speech" not in {e.label for e in legend_of(replace(evaluation.trials[0], speech=None))}


def speech_area(trial: TrialScores) -> list[str]:
    svg = next(iter(plots_of(trial, METRICS))).svg
    area = re.search(r'<g id="[^"]*FillBetween[^"]*">.*?</g>', svg, flags=re.DOTALL)
    assert area and "--plot-speech" in area.group()
    return re.findall(r' d="([^"]*)"', area.group())


def test_the_predicted_opening_has_the_size_of_the_lips_it_belongs_to(evaluation: Evaluation):
    for trial in evaluation.trials:
        rows = tuple(
            replace(row, frames={**row.frames, "opening": row.frames["opening"] * (0.5 if row.is_result else 1.0)})
            for row in trial.rows
        )
        smaller = speech_area(replace(trial, rows=rows))
        assert (smaller == speech_area(trial)) == (trial.protocol == "self-reenactment")


def test_more_results_than_colours_are_dashed(evaluation: Evaluation):
    trial = evaluation.trials[1]
    many = tuple(replace(trial.rows[1], name=f"take {i}") for i in range(6))
    styles = [e.style for e in legend_of(replace(trial, rows=(trial.rows[0], *many))) if e.label.startswith("take")]
    assert styles == ["line"] * 4 + ["dashes"] * 2


def shortened_trial(trial: TrialScores, n: int) -> TrialScores:
    rows = tuple(replace(row, frames={key: values[:n] for key, values in row.frames.items()}) for row in trial.rows)
    cut = {name: getattr(trial, name)[:n] for name in ("frames", "times_s", "block", "outcomes")}
    return replace(trial, rows=rows, **cut)


@pytest.mark.parametrize("n", [1, 2, 11])
def test_very_short_trials(evaluation: Evaluation, n: int):
    for trial in evaluation.trials:
        for plot in plots_of(shortened_trial(trial, n), METRICS):
            well_formed(plot.svg)


def test_nothing_measured_draws_nothing(evaluation: Evaluation):
    trial = evaluation.trials[0]
    rows = tuple(replace(r, frames={k: np.full(len(v), np.nan) for k, v in r.frames.items()}) for r in trial.rows)
    assert list(plots_of(replace(trial, rows=rows), METRICS)) == []
    assert list(plots_of(replace(trial, rows=tuple(replace(r, frames={}) for r in trial.rows)), METRICS)) == []


def test_silence_and_a_lack_of_speech(evaluation: Evaluation):
    trial = replace(evaluation.trials[1], protocol="leakage", outcomes=(EDITED,) * 240)
    assert trial.speech is not None
    silent = replace(
        trial.speech, opening=np.full_like(trial.speech.opening, 0.01), is_speech=np.zeros_like(trial.speech.is_speech)
    )
    for speech in (silent, None):
        plot = next(iter(plots_of(replace(trial, speech=speech), METRICS)))
        assert ("silence" in colours_of(plot.svg)) == (speech is not None)
        well_formed(plot.svg)


def test_a_long_silent_trial_has_no_best_stretch(tmp_path: Path):
    trial = made_up_evaluation(tmp_path, frames=1500).trials[1]
    assert trial.speech is not None
    flat = replace(trial.speech, opening=np.full_like(trial.speech.opening, 0.01))
    titles = [plot.title for plot in plots_of(replace(trial, speech=flat), METRICS)]
    assert titles == ["How well the lips follow the speech", "Jitter (×) over time"]
