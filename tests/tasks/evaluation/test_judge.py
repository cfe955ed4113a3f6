"""What the figures are worth: a fault that was put in moves the figures it should, by its size, and no others."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from modules.metrics.steadiness import landmark_acceleration
from modules.metrics.synchrony import IN_SYNC_LAG_MS
from modules.metrics.syncnet import SyncNet
from modules.structures.crops import CropRegion
from modules.structures.evaluation import EDITED, SpeechTrack, Trial, TrialRow
from modules.structures.landmarks import LIP_GAP_PAIRS, MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE, Landmarks2D, lip_opening
from modules.video.alpha import alpha_of
from modules.video.colour import chroma_alpha
from modules.video.reader import VideoReader
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.judge import BASELINE, Networks, judge, mean_over_frames
from tasks.evaluation.metrics import METRICS, SCOPES
from tasks.evaluation.motion_scores import Bootstrap, opening_of
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
DRIVEN_KEYS = {"r_driving", "motion"}
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
    """Noise of deviation s adds s² (1 + 4 + 1) to each coordinate's squared second difference."""
    trial = small.trial
    own = landmark_acceleration(trial.rows[0].landmarks.points, trial.times_s, trial.block)[1:-1]
    crop_scale = 512 / trial.crops[0].side
    lmd, jitter = (values(likeness, "jitter", key)[1:] for key in ("lmd", "jitter"))
    for sigma, distance, shaken in zip(JITTER_PX, lmd, jitter, strict=True):
        about_the_mean = sigma * math.sqrt(1 - 1 / 20)  # LMD puts the means of 20 points on each other
        assert distance == pytest.approx(about_the_mean * math.sqrt(math.pi / 2) * crop_scale, rel=0.06)
        assert shaken == pytest.approx(np.sqrt(own**2 + 12 * sigma**2).mean() / own.mean(), rel=0.1)


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
    for key in ("psnr_edited", "psnr_mouth", "ssim_edited"):
        told = [likeness[f"step {strength}"].verdicts[key] for strength in STRENGTHS]
        assert told == ["better", "undecided", "worse"], key
    assert "delta_e" not in likeness["step 1"].verdicts, "retrieval has no such figure"
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
    assert np.array_equal(np.isfinite(part.frames["jitter"]), edited & np.isfinite(whole.frames["jitter"]))
    assert part.measures["sharpness"].count == part.measures["spread"].count == 10
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


# Dubbing and leakage: what cannot be measured is missing, with a reason.


def keys_of(protocol: str, row_is_result: bool) -> set[str]:
    if protocol == "leakage":
        own = {"spread", *(LEAKAGE_KEYS if row_is_result else ())}
        return own | {m.key for m in METRICS if m.group == "Time and seams"}
    return {metric.key for metric in METRICS} - LEAKAGE_KEYS - (NEEDS_TRUTH if protocol == "dubbing" else set())


@pytest.mark.parametrize(
    ("protocol", "with_speech"),
    [("self-reenactment", True), ("dubbing", True), ("dubbing", False), ("leakage", True)],
)
def test_no_figure_drops_out_silently(small, protocol, with_speech):
    driven = replace(
        small.row("step 1"),
        name="driven",
        driving_opening=np.linspace(0, 0.1, COUNT, dtype=np.float32),
        tracked_opening=np.linspace(0.1, 0.05, COUNT, dtype=np.float32),
        lower_face_px=np.full(COUNT, 9000, np.float32),
        jaw_gap_px=np.array([0.0, 1.9, 2.1, 4.0] * (COUNT // 4), np.float32),
    )
    reference = replace(small.row("step 2"), name=BASELINE, is_result=False)
    late = TrialRow("late", False, None, small.row("source").landmarks, frames_late=1)
    changes = {} if with_speech else {"speech": None}
    trial = small.of(driven, small.row("same"), reference, late, protocol=protocol, **changes)
    scores = judged(first_frames(trial, 4))
    for row in scores.rows:
        assert set(row.measures) - DRIVEN_KEYS == keys_of(protocol, row.is_result) - DRIVEN_KEYS, row.name
        silent = [key for key, measure in row.measures.items() if not measure.is_measured and not measure.note]
        assert silent == [], row.name
        assert not any(math.isinf(m.value) for k, m in row.measures.items() if not k.startswith("psnr"))
    rows = by_name(scores)
    assert rows["driven"].measures["area"].is_measured and rows["driven"].measures["delta_e"].count == 2
    assert rows[BASELINE].measures["gradient"].note == "measured for results and the untouched source"
    for name in ("source", "same"):
        assert "results and the untouched source" not in rows[name].measures["area"].note, "it is one of these"
    if protocol != "leakage":
        assert rows["same"].measures["r_driving"].note == "nothing drives this row"
        assert rows["driven"].measures["motion"].value == 0, "step 1 moves no lip"


def test_the_first_frame_shown_late_is_missing(small):
    trial = small.of(TrialRow("late", False, None, small.row("source").landmarks, frames_late=1))
    start = replace(first_frames(trial, 3), frames=np.arange(3), protocol="dubbing")
    assert np.isnan(by_name(judged(start))["late"].frames["sharpness"]).tolist() == [True, False, False]


# Lips and speech.

SECONDS = 8.0
RATE = 25


@pytest.fixture(scope="module")
def talking(tmp_path_factory):
    """A trial whose lips, and nothing else, follow its speech as people's do; the pictures are of no face."""
    count = int(SECONDS * RATE)
    clip = make_clip(tmp_path_factory.mktemp("talking") / "clip.mkv", ClipSpec(n_frames=count))
    speech, times = made_up_speech(SECONDS, seed=3), np.arange(count) / RATE
    opening = 0.2 + 0.05 * np.interp(times - IN_SYNC_LAG_MS / 1000, speech.times_s, speech.opening)
    source = TrialRow("source", False, None, face_of(opening))
    return Trial(
        "talking", "dubbing", clip.path, (0, 0, 64, 48), np.arange(count), times, np.zeros(count, np.int64),
        (EDITED,) * count, (CropRegion(32.0, 24.0, 40.0),) * count, speech, (source,),
    )  # fmt: skip


def face_of(opening) -> Landmarks2D:
    """A face 24 px between the eye corners, in a picture of 64 x 48, whose inner lips are this far apart."""
    count, rng = len(opening), np.random.default_rng(1)
    points = np.repeat(rng.uniform((10, 8), (54, 44), (N_MEDIAPIPE, 2))[None], count, axis=0)
    points[:, 33], points[:, 263] = (20, 16), (44, 16)
    for column, (upper, lower) in enumerate(LIP_GAP_PAIRS):
        points[:, upper] = (30 + 2 * column, 32)
        points[:, lower, 0], points[:, lower, 1] = 30 + 2 * column, 32 + 24 * opening
    points += rng.normal(0, 0.02, points.shape)
    zeros = np.zeros((count, N_MEDIAPIPE), np.float32)
    scores = np.zeros((count, len(MEDIAPIPE_BLENDSHAPES)), np.float32)
    return Landmarks2D(points.astype(np.float32), zeros, np.ones(count, bool), scores)


def heard_earlier(speech: SpeechTrack, seconds: float) -> SpeechTrack:
    """The same speech, its beginning cut off."""
    rows, samples = round(seconds * speech.rate_hz), round(seconds * speech.sound.sample_rate_hz)
    return SpeechTrack(
        speech.opening[rows:], speech.level_db[rows:], speech.is_speech[rows:], speech.rate_hz,
        replace(speech.sound, samples=speech.sound.samples[samples:]),
    )  # fmt: skip


def test_lips_in_sync_have_no_lag_and_early_sound_makes_them_late(talking):
    later = replace(talking.rows[0], name="hears it later", speech_late_s=0.12)
    rows = by_name(judged(replace(talking, rows=(talking.rows[0], later))))
    early = judged(replace(talking, speech=heard_earlier(talking.speech, 0.12))).rows[0].measures
    in_sync, later = rows["source"].measures, rows["hears it later"].measures
    assert in_sync["lag"].value == pytest.approx(0, abs=5)
    assert early["lag"].value - in_sync["lag"].value == pytest.approx(120, abs=15)
    assert later["lag"].value - in_sync["lag"].value == pytest.approx(-120, abs=15)
    for found in (in_sync, early, later):
        lag = found["lag"]
        assert lag.low - 1 <= lag.value <= lag.high + 1 and lag.high - lag.low < 60 and lag.note == ""
    assert in_sync["r_speech"].value > 0.95 and in_sync["r_loudness"].value > 0.7
    assert abs(early["r_speech"].value) < 0.6 and abs(later["r_speech"].value) < 0.6


def test_speech_heard_later_moves_the_closures_it_asks_for(talking):
    driving = opening_of(talking.rows[0].landmarks).astype(np.float32)
    dubbed = replace(talking.rows[0], name="dubbed", is_result=True, driving_opening=driving)
    rows = (talking.rows[0], dubbed, replace(talking.rows[0], name="late", speech_late_s=2.0))
    found = by_name(judged(replace(talking, rows=rows)))
    for key in ("closure_recall", "closure_precision"):
        assert found["dubbed"].measures[key].value == 1
        assert found["late"].measures[key].value < 0.7, key


def test_lips_that_follow_nothing_have_no_lag(talking):
    count = len(talking)
    stranger = made_up_speech(SECONDS, seed=77).opening[:: round(50 / RATE)][:count]
    rows = [
        replace(talking.rows[0], name="other words", landmarks=face_of(0.2 + 0.05 * stranger)),
        replace(talking.rows[0], name="still", landmarks=face_of(np.full(count, 0.2))),
    ]
    for row in judged(replace(talking, rows=(talking.rows[0], *rows))).rows[1:]:
        assert math.isnan(row.measures["lag"].value) and row.measures["lag"].note.startswith("undetermined: ")
        assert abs(row.measures["r_speech"].value) < 0.3


def test_blur_moves_no_lag(demo_dir):
    """A real mouth that opens, held against its own opening as if that were predicted from speech."""
    clip, first, count = demo_dir / "carphone_pristine.mp4", 20, 84
    frames = list(read_frames(clip, first, first + count))
    tracked, whole = followed(frames), np.ones(frames[0].size_hw, np.float32)
    height, width = whole.shape
    bounds = (0, 0, width, height)
    rows = [TrialRow("source", False, None, detected(frames, tracked))]
    for blur_px in (0.4, 0.8, 1.6):
        blurry = [repainted(frame, bounds, whole, blurred(blur_px), n) for n, frame in enumerate(frames)]
        rows.append(TrialRow(f"blurred by {blur_px} px", False, None, detected(blurry, tracked)))
    times = np.array([float(frame.time_s) for frame in frames])
    speech = made_up_speech(float(times[-1]) + 0.5)
    own = np.interp(speech.times_s, times, lip_opening(rows[0].landmarks.points)).astype(np.float32)
    trial = Trial(
        "carphone", "dubbing", clip, bounds, np.arange(first, first + count), times, np.zeros(count, np.int64),
        (EDITED,) * count, (CropRegion(88.0, 72.0, 120.0),) * count, replace(speech, opening=own), tuple(rows),
    )  # fmt: skip
    lags = [row.measures["lag"].value for row in judged(trial).rows]
    assert lags[0] == pytest.approx(-IN_SYNC_LAG_MS, abs=3)
    assert lags == pytest.approx([lags[0]] * 4, abs=10)


# Networks.


def test_without_weights_both_networks_say_why(tmp_path, small):
    config = EvaluationConfig(syncnet=tmp_path / "syncnet_v2.model", lpips_backbone=tmp_path / "alexnet.pth")
    networks = Networks.load(config)
    assert networks.syncnet is None and networks.lpips is None
    assert str(tmp_path / "syncnet_v2.model") in networks.no_syncnet and networks.no_lpips.startswith("LPIPS needs ")
    row = judged(first_frames(small.of("same"), 2), networks).rows[1]
    assert {row.measures[key].note for key in ("lse_c", "lse_d")} == {networks.no_syncnet}
    assert {row.measures[f"lpips_{scope}"].note for scope in SCOPES} == {networks.no_lpips}
    assert not any(row.measures[key].is_measured for key in ("lse_c", "lse_d", "lpips_edited"))


def made_up_syncnet() -> SyncNet:
    """Random weights; features of lips and sound lie nearer to each other than to the zeros beyond a stretch's end."""
    torch.manual_seed(0)
    net = SyncNet().eval().requires_grad_(False)
    for head in (net.netfclip, net.netfcaud):
        head[-1].bias += 3.0
    return net


def test_a_syncnet_that_is_there_is_asked(small):
    networks = Networks(made_up_syncnet(), "", None, "no LPIPS")
    late = replace(small.row("same"), name="late", speech_late_s=0.2)
    trial = small.of("same", late, protocol="dubbing")
    found = [
        [row.measures[key] for key in ("lse_c", "lse_d")] for row in judged(first_frames(trial, 12), networks).rows
    ]
    frames_seen = math.floor((trial.times_s[11] - trial.times_s[0]) * 25) + 1
    for confidence, distance in found:
        assert math.isfinite(distance.value) and distance.value > 0 and confidence.value > 0
        assert confidence.count == distance.count == frames_seen - 5
    source, same, other = ([measure.value for measure in row] for row in found)
    assert source == same, "the same pictures"
    assert other != same, "what it hears is 0.2 s later"
    too_short = judged(first_frames(trial, 5), networks).rows[0].measures["lse_c"]
    assert not too_short.is_measured and too_short.note == "no stretch with a face is long enough"


def test_syncnet_passes_over_what_a_row_does_not_show(small):
    """A first frame without a picture moves nothing, and a stretch without a face is left out."""
    networks = Networks(made_up_syncnet(), "", None, "no LPIPS")
    trial = first_frames(small.of("same", protocol="dubbing"), 12)
    late = TrialRow("late", False, None, trial.rows[0].landmarks, frames_late=1)
    start = replace(trial, frames=np.arange(12), rows=(trial.rows[0], late))
    source, behind = (row.measures["lse_d"] for row in judged(start, networks).rows)
    assert behind.count == source.count - 1
    landmarks = trial.rows[1].landmarks
    points, valid = landmarks.points.copy(), landmarks.valid.copy()
    points[:6], valid[:6] = np.nan, False
    lost = replace(trial.rows[1], landmarks=replace(landmarks, points=points, valid=valid))
    halves = replace(trial, block=np.arange(12) // 6, rows=(trial.rows[0], lost))
    whole, half = (row.measures["lse_d"] for row in judged(halves, networks).rows)
    alone = replace(first_frames(trial, 12), rows=(trial.rows[0],), block=np.arange(12) // 6)
    assert judged(alone, networks).rows[0].measures["lse_d"] == whole
    assert 0 < half.count < whole.count and half.is_measured
    faceless = replace(trial, rows=(trial.rows[0], replace(lost, landmarks=face_never_seen(landmarks))))
    assert judged(faceless, networks).rows[1].measures["lse_d"].note == "no stretch with a face is long enough"


def face_never_seen(landmarks: Landmarks2D) -> Landmarks2D:
    return replace(landmarks, points=np.full_like(landmarks.points, np.nan), valid=np.zeros_like(landmarks.valid))


def test_a_result_is_held_against_the_retrieval_that_was_driven_alike(small):
    near, far = small.row("step 1"), small.row("step 3")
    alike = replace(far, name=f"{BASELINE}, audio-driven", is_result=False)
    rows = (replace(near, name="audio-driven", is_result=True), alike, replace(near, name=BASELINE, is_result=False))
    assert by_name(judged(small.of(*rows)))["audio-driven"].verdicts["psnr_edited"] == "better"


def test_a_frame_that_equals_the_truth_is_left_out_of_the_mean_and_said():
    block, bootstrap = np.zeros(4, np.int64), Bootstrap(0, 50, 1)
    measure = mean_over_frames(np.array([30.0, np.inf, 32.0, np.nan]), block, bootstrap)
    assert measure.value == 31 and measure.count == 2 and measure.note.startswith("1 frames")
    assert 30 <= measure.low <= measure.high <= 32
    assert mean_over_frames(np.full(4, np.inf), block, bootstrap).value == np.inf
