"""What the figures are worth: a fault that was put in moves the figures it should, by its size, and no others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from modules.metrics.seams import exactness
from modules.metrics.synchrony import IN_SYNC_LAG_MS
from modules.metrics.syncnet import SyncNet
from modules.structures.crops import CropRegion
from modules.structures.evaluation import EDITED, SpeechTrack, Trial, TrialRow
from modules.structures.landmarks import LIP_GAP_PAIRS, MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE, Landmarks2D, lip_opening
from modules.video.alpha import alpha_of
from modules.video.colour import chroma_alpha
from modules.video.reader import VideoReader
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.judge import BASELINE, Networks, judge
from tasks.evaluation.metrics import BY_KEY, METRICS, SCOPES
from tasks.evaluation.tables import coverage_of
from tests.modules.metrics.seam_cases import blurred
from tests.support.real_frames import read_frames
from tests.support.small_trial import (
    COUNT,
    NO_NETWORKS,
    STRAY_SAMPLES,
    STRENGTHS,
    detected,
    first_frames,
    followed,
    made_up_speech,
    quiet,
    repainted,
    small_trial,
)
from tests.support.synthetic_video import ClipSpec, make_clip

QUICK = EvaluationConfig(draws=100, block_s=0.2)
JITTER_PX = (0.5, 1.0, 2.0)
PICTURE_KEYS = [m.key for m in METRICS if m.group == "Picture" and not m.key.startswith("lpips")]
SEAM_KEYS = ["flicker", "gradient", "delta_e", "inexact"]
NEEDS_TRUTH = {m.key for m in METRICS if m.group == "Picture"} | {"lmd", "lmd_iod", "exp_lower", "exp_upper"}
LEAKAGE_KEYS = {m.key for m in METRICS if m.group == "Leakage"}


@pytest.fixture(scope="module")
def small(tmp_path_factory, demo_dir):
    return small_trial(tmp_path_factory.getbasetemp() / "small_trial")


def by_name(scores):
    return {row.name: row for row in scores.rows}


def judged(trial, networks=NO_NETWORKS):
    return judge(trial, networks, QUICK, quiet)


def values(rows, fault, key):
    """The figure ``key`` without the fault and at its three strengths."""
    return [rows[name].measures[key].value for name in ("same", *(f"{fault} {s}" for s in STRENGTHS))]


def rises(series):
    return all(a < b for a, b in zip(series[:-1], series[1:], strict=True))


def falls(series):
    return rises([-value for value in series])


def jittered(row: TrialRow, strength: int) -> TrialRow:
    """The same pictures, in which landmarks were found with noise."""
    points = row.landmarks.points
    noise = np.random.default_rng(4).normal(0, JITTER_PX[strength - 1], points.shape)
    return replace(
        row, name=f"jitter {strength}", landmarks=replace(row.landmarks, points=points + noise.astype(np.float32))
    )


@pytest.fixture(scope="module")
def likeness(small):
    """Rows of a trial with a true picture, and a retrieval baseline that shows what "step 2" shows."""
    rows = ["same", *(f"{fault} {strength}" for fault in ("blur", "step") for strength in STRENGTHS)]
    baseline = replace(small.row("step 2"), name=BASELINE, is_result=False)
    return by_name(judged(small.of(*rows, *(jittered(small.row("same"), s) for s in STRENGTHS), baseline)))


@pytest.fixture(scope="module")
def seams(small):
    """Rows of a trial without a true picture."""
    rows = ["same", "stray", *(f"{fault} {strength}" for fault in ("flicker", "shift") for strength in STRENGTHS)]
    return by_name(judged(small.of(*rows, protocol="dubbing")))


# The source against itself.


@pytest.mark.parametrize("row", ["source", "same"])
def test_the_source_against_itself_is_perfect(likeness, row):
    found = {key: measure.value for key, measure in likeness[row].measures.items()}
    for scope in SCOPES:
        assert found[f"psnr_{scope}"] == math.inf
        assert found[f"ssim_{scope}"] == found[f"msssim_{scope}"] == 1
    for key in ("lmd", "lmd_iod", "exp_lower", "exp_upper", "delta_e", "inexact"):
        assert found[key] == 0, key
    for key in ("jitter", "flicker", "gradient", "sharpness", "noise", "spread"):
        assert found[key] == pytest.approx(1, abs=1e-9), key
    assert found["closure_recall"] == found["closure_precision"] == 1


def test_every_frame_counts(likeness):
    counts = {key: likeness["same"].measures[key].count for key in (*PICTURE_KEYS, *SEAM_KEYS, "lmd", "jitter")}
    assert counts.pop("flicker") == COUNT - 1 and counts.pop("jitter") == COUNT - 2
    assert set(counts.values()) == {COUNT}


# One fault at a time.


def test_blur_costs_sharpness_and_likeness_and_moves_no_landmark_of_the_head(likeness):
    for scope in SCOPES:
        assert all(falls(values(likeness, "blur", f"{stem}_{scope}")) for stem in ("psnr", "ssim", "msssim"))
    sharpness = values(likeness, "blur", "sharpness")
    assert falls(sharpness) and sharpness[1] < 0.5 and sharpness[3] < 0.1
    assert values(likeness, "blur", "jitter") == pytest.approx([1] * 4, abs=0.05)
    assert values(likeness, "blur", "inexact") == [0] * 4
    lmd = values(likeness, "blur", "lmd")
    assert lmd[3] < 1.5, "lips lie where they lay"


def test_a_step_of_brightness_shows_at_the_edge_and_in_no_landmark(likeness):
    for key in ("delta_e", "gradient"):
        assert rises(values(likeness, "step", key)), key
    for scope in SCOPES:
        assert falls(values(likeness, "step", f"psnr_{scope}"))
    for key in ("lmd", "lmd_iod", "exp_lower", "exp_upper", "inexact"):
        assert values(likeness, "step", key) == [0] * 4, key
    assert values(likeness, "step", "jitter") == pytest.approx([1] * 4, abs=1e-9)
    assert values(likeness, "step", "sharpness") == pytest.approx([1] * 4, abs=0.01)


def test_jitter_of_landmarks_moves_no_figure_of_the_picture(likeness):
    for key in ("jitter", "lmd", "lmd_iod"):
        assert rises(values(likeness, "jitter", key)), key
    for key in (*PICTURE_KEYS, *SEAM_KEYS, "exp_lower", "exp_upper"):
        one, *others = values(likeness, "jitter", key)
        assert others == [one] * 3, key
    assert values(likeness, "jitter", "sharpness") == pytest.approx([1] * 4, abs=0.2), "its box is the mouth's"


def test_noise_of_known_size_gives_a_known_jitter_and_lmd(small, likeness):
    """Independent noise s per coordinate: RMS second difference ``s sqrt(2 (1 + 4 + 1))``, mean distance Rayleigh's."""
    crop_scale = 512 / small.trial.crops[0].side
    for sigma, lmd in zip(JITTER_PX, values(likeness, "jitter", "lmd")[1:], strict=True):
        spread = sigma * math.sqrt(1 - 1 / 20)  # of a point about the mean of its 20
        assert lmd == pytest.approx(spread * math.sqrt(math.pi / 2) * crop_scale, rel=0.06)
    one, two = values(likeness, "jitter", "jitter")[2:]
    assert two / one == pytest.approx(2, rel=0.05), "the source's own jitter is small beside 1 px"


def test_brightness_that_flickers_is_flicker(seams):
    flicker = values(seams, "flicker", "flicker")
    assert rises(flicker) and flicker[3] > 3
    assert values(seams, "flicker", "gradient") == pytest.approx([1] * 4, abs=0.02)
    assert values(seams, "flicker", "sharpness") == pytest.approx([1] * 4, abs=0.01)
    assert values(seams, "flicker", "inexact") == [0] * 4
    assert values(seams, "flicker", "jitter") == pytest.approx([1] * 4, abs=1e-9)


def test_an_edge_that_lies_elsewhere_than_it_says_is_inexact(seams):
    inexact = values(seams, "shift", "inexact")
    assert inexact[0] == 0 and rises(inexact)
    assert values(seams, "shift", "jitter") == pytest.approx([1] * 4, abs=1e-9)
    assert values(seams, "shift", "sharpness") == pytest.approx([1] * 4, abs=0.02)


def test_what_changed_outside_is_counted_to_the_sample(small, seams):
    row = small.row("stray")
    with VideoReader(row.alpha) as reader:
        alpha = alpha_of(next(reader.frames()))
    with VideoReader(row.pictures) as reader:
        layout = reader.info.layout
    samples = int((alpha == 0).sum()) + 2 * int((chroma_alpha(alpha, layout) == 0).sum())
    inexact = seams["stray"].frames["inexact"]
    np.testing.assert_allclose(inexact / 100 * samples, len(STRAY_SAMPLES), rtol=1e-9)
    assert seams["stray"].measures["delta_e"].value > 0.5, "the step inside the alpha is no change outside it"


# Verdicts.


def test_results_are_told_better_or_worse_than_retrieval(likeness):
    for key in ("psnr_edited", "psnr_mouth", "ssim_edited", "delta_e"):
        told = [likeness[f"step {strength}"].verdicts.get(key) for strength in STRENGTHS]
        expected = ["better", "undecided", "worse"] if key != "delta_e" else [None] * 3  # no figure of retrieval's
        assert told == expected, key
    assert likeness["step 1"].verdicts["lmd"] == "undecided", "the same landmarks"
    assert likeness["jitter 3"].verdicts["lmd"] == "worse"
    assert likeness["source"].verdicts == likeness[BASELINE].verdicts == {}


def test_without_retrieval_there_is_no_verdict(seams):
    assert all(row.verdicts == {} for row in seams.values())


# Coverage.


def test_frames_left_alone_are_counted_and_left_out_of_means(small, likeness):
    outcomes = (EDITED,) * 3 + ("hand in front of the mouth",) * 4 + (EDITED,) * 7 + ("turned too far",) * 2
    scores = judged(small.of("step 2", outcomes=outcomes))
    edited = np.array(outcomes) == EDITED
    whole, part = likeness["step 2"], by_name(scores)["step 2"]
    for key in (*PICTURE_KEYS, "lmd", "exp_lower", "gradient", "delta_e"):
        assert np.array_equal(np.isfinite(part.frames[key]), edited), key
        assert part.measures[key].count == edited.sum() == 10
        assert part.measures[key].value == pytest.approx(whole.frames[key][edited].mean(), rel=1e-9), key
    assert part.measures["jitter"].count == COUNT - 2, "what is steady is looked at everywhere"
    covered = [(c.outcome, c.frames, c.share, c.stretches) for c in coverage_of(scores)]
    first = int(small.trial.frames[0])
    assert covered == [
        (EDITED, 10, 10 / 16, ((first, first + 2), (first + 7, first + 13))),
        ("hand in front of the mouth", 4, 4 / 16, ((first + 3, first + 6),)),
        ("turned too far", 2, 2 / 16, ((first + 14, first + 15),)),
    ]


def test_a_face_that_is_not_found_is_left_out(small):
    row = small.row("step 1")
    landmarks = row.landmarks
    valid, points = landmarks.valid.copy(), landmarks.points.copy()
    valid[5], points[5] = False, np.nan
    lost = replace(row, landmarks=replace(landmarks, valid=valid, points=points))
    found = by_name(judged(first_frames(small.of(lost), 8)))["step 1"]
    missing = {key: np.flatnonzero(np.isnan(found.frames[key])).tolist() for key in ("lmd", "jitter", "opening")}
    assert missing == {"lmd": [5], "jitter": [0, 4, 5, 6, 7], "opening": [5]}
    assert found.measures["lmd"].count == 7 and found.measures["psnr_mouth"].count == 8
