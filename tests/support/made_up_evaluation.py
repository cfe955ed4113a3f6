"""An evaluation made by code: believable figures, gaps, notes, hostile names, a picture and a small video."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from modules.structures.audio import AudioClip
from modules.structures.evaluation import EDITED, SpeechTrack
from modules.structures.scores import Better, Evaluation, Measure, Metric, RowScores, TrialScores
from tests.support.synthetic_video import ClipSpec, make_clip

RATE = 25.0
LONG_NAME = (
    "speech shifted by 2 s (the same renderer, audio-driven, hears everything two seconds late) & nothing else <b>"
)
HOSTILE_SOURCE = 'interview "A" & <script>alert(1)<script>.mp4'
NO_WEIGHTS = "LPIPS needs torchvision's AlexNet weights, which are not on this machine (evaluation.lpips_weights)"
NO_SYNCNET = "no syncnet_v2.model at evaluation.syncnet"
NO_PEAK = "undetermined: the peak of the correlation (r = 0.11) lies within the band of 200 circular shifts"
IDENTICAL = "identical pictures"


def metric(key: str, group: str, label: str, unit: str, better: Better, digits: int, about: str) -> Metric:
    return Metric(key, group, label, unit, better, digits, about, is_per_frame=not key.startswith(("sync", "closure")))


METRICS = (
    metric("psnr_head", "Picture", "PSNR, head", "dB", "higher", 2, "10 log10(255² / mean squared error), 512 crop."),
    metric(
        "psnr_region", "Picture", "PSNR, edited", "dB", "higher", 2, "The same over the edited region (alpha > 0.02)."
    ),
    metric("psnr_mouth", "Picture", "PSNR, mouth", "dB", "higher", 2, "The same over the mouth box."),
    metric("ssim_region", "Picture", "SSIM, edited", "", "higher", 4, "Structural similarity over the edited region."),
    metric("ms_ssim_head", "Picture", "MS-SSIM, head", "", "higher", 4, "Structural similarity over five scales."),
    metric("lpips_head", "Picture", "LPIPS-Alex, head", "", "lower", 4, "Distance of AlexNet features."),
    metric("lmd", "Lips", "LMD", "px", "lower", 2, "Mean distance of the lip points, both sets mean-centred."),
    metric("lmd_eyes", "Lips", "LMD / eyes", "%", "lower", 2, "LMD over the distance of the outer eye corners."),
    metric("expression_lower", "Lips", "Expression error, lower face", "", "lower", 4, "Mean absolute difference."),
    metric("sync_r", "Lips", "Sync r", "", "higher", 2, "Largest correlation of lip opening with the predicted one."),
    metric("sync_lag", "Lips", "Lag", "ms", "zero", 0, "Where that correlation lies; positive = lips late."),
    metric("closure_recall", "Lips", "Closure recall", "%", "higher", 1, "The truth's closures that the row closes."),
    metric("sync_lse_c", "Lips", "LSE-C", "", "none", 2, "SyncNet's confidence; above ground truth is no win."),
    metric("jitter", "Time and seams", "Jitter", "×", "one", 2, "RMS acceleration outside the mouth, over source."),
    metric("flicker", "Time and seams", "Flicker", "×", "one", 2, "Error against the flow-warped previous frame."),
    metric("edge_gradient", "Time and seams", "Edge gradient", "×", "one", 2, "Gradient across the edge of the mask."),
    metric("delta_e", "Time and seams", "ΔE at the edge", "", "lower", 2, "Colour difference in the ring of ±8 px."),
    metric("outside_exact", "Time and seams", "Exact outside", "%", "higher", 1, "Samples with alpha 0, as source."),
    metric("sharpness", "Time and seams", "Sharpness", "×", "one", 2, "Variance of the Laplacian in the mouth box."),
)

MEAN = {
    "psnr_head": 34.1, "psnr_region": 31.6, "psnr_mouth": 26.4, "ssim_region": 0.941, "ms_ssim_head": 0.982,
    "lmd": 2.31, "lmd_eyes": 1.4, "expression_lower": 0.031, "sync_r": 0.71, "sync_lag": 20.0, "closure_recall": 81.0,
    "jitter": 1.12, "flicker": 1.3, "edge_gradient": 1.04, "delta_e": 0.8, "outside_exact": 100.0, "sharpness": 0.83,
}  # fmt: skip
SPREAD = {key: 0.05 * value + 1e-6 for key, value in MEAN.items()} | {
    "outside_exact": 0.0,
    "sync_lag": 18.0,
    "ssim_region": 0.006,
    "ms_ssim_head": 0.002,
}
REENACTMENT_ROWS = (
    ("ground truth", False, "The untouched source: the best any row can be."),
    ("landmark-driven", True, "Tracked motion of the test part drives the renderer: renderer quality alone."),
    ("audio-driven", True, "The source's own speech drives everything, as in use."),
    ("retrieval baseline", False, "Nearest training frame in lip shape, warped by landmarks."),
    ("static mean mouth", False, "The person's mean mouth, never moving."),
    (LONG_NAME, False, "What sync figures are worth when the words are wrong; such a name must not break the page."),
    ("previous true frame", False, "Copying the frame before: what doing nothing scores."),
)  # fmt: skip
DUBBING_ROWS = (
    ("untouched source", False, "The actor's own mouth, which says something else."),
    ("dubbed", True, "The result with foreign speech."),
    ("retrieval baseline", False, "Nearest training frame in predicted lip shape, warped by landmarks."),
    ("static mean mouth", False, "The person's mean mouth, never moving."),
    ("closed mouth", False, "The mouth shut throughout."),
    (LONG_NAME, False, "What sync figures are worth when the words are wrong."),
    ("previous true frame", False, "Copying the frame before."),
)  # fmt: skip
NEEDS_TRUTH = {
    "psnr_head", "psnr_region", "psnr_mouth", "ssim_region", "ms_ssim_head", "lpips_head", "lmd", "lmd_eyes",
    "expression_lower", "closure_recall",
}  # fmt: skip


def made_up_evaluation(folder: Path, *, frames: int = 240, seed: int = 7) -> Evaluation:
    """Two trials of seven rows; ``folder`` gets the sheet and the clip that it shows."""
    rng = np.random.default_rng(seed)
    facts = {
        "size": "1280 × 720", "frame rate": "25 (constant)", "frames": "2640", "length": "105.6 s", "face": "386 px",
        "checkpoint": "checkpoints/identities/9f2c <&> 41", "SHA-256": "9f2c41d07e" * 6 + "a1b2",
        "sound": "48 kHz, stereo", "machine": "2 vCPU (AMD EPYC), 24 GiB, no GPU",
    }  # fmt: skip
    return Evaluation(
        source=folder / HOSTILE_SOURCE,
        facts=facts,
        command=f"python tasks/evaluate.py --src_video '{folder / HOSTILE_SOURCE}' "
        "--head_ckpt checkpoints/identities/9f2c41 --drv_aud data/raw/english_8s.wav --out data/reports/interview",
        versions={"torch": "2.13.0", "numpy": "2.4.6", "opencv": "5.0.0", "git": "af17c5e", "python": "3.11.9"},
        seed=20,
        metrics=METRICS,
        trials=(reenactment_trial(rng, frames), dubbing_trial(rng, frames)),
        sheets=(("Worst ten frames of audio-driven: source | result | difference × 4", _sheet(folder, rng)),),
        clips=(("Side by side: source | dubbed <again> | retrieval", _clip(folder)),),
    )


def reenactment_trial(rng: np.random.Generator, frames: int) -> TrialScores:
    """Three unbroken stretches with holes between them; some frames were left alone."""
    block = np.repeat(np.arange(3), [frames // 2, frames // 4, frames - frames // 2 - frames // 4])
    numbers = 2400 + np.arange(frames) + 12 * block
    outcomes = np.full(frames, EDITED, dtype=object)
    outcomes[frames // 3 : frames // 3 + 9] = "hand in front of the mouth"
    outcomes[frames // 2 + 3 : frames // 2 + 5] = outcomes[-3:] = "head turned further than 55° <profile>"
    return _trial(
        "self-reenactment, last 1/11", "self-reenactment", numbers, block, outcomes, rng, REENACTMENT_ROWS,
        notes=("Audio-driven rows hear the source's own speech; <i>nothing</i> of the test part was trained on.",),
    )  # fmt: skip


def dubbing_trial(rng: np.random.Generator, frames: int) -> TrialScores:
    return _trial(
        "dubbing, english_8s.wav", "dubbing", np.arange(frames), np.zeros(frames, dtype=np.int64),
        np.full(frames, EDITED, dtype=object), rng, DUBBING_ROWS, notes=(),
    )  # fmt: skip


def _trial(name, protocol, numbers, block, outcomes, rng, rows, notes) -> TrialScores:
    times = numbers / RATE
    speech = _speech(rng, float(times[-1]) + 0.5)
    truth = np.interp(times, speech.times_s, speech.opening)
    scores = tuple(_row(row, protocol, truth, np.asarray(outcomes == EDITED), rng) for row in rows)
    return TrialScores(name, protocol, numbers, times, block, tuple(outcomes), speech, scores, notes)


def _speech(rng: np.random.Generator, seconds: float) -> SpeechTrack:
    """Syllables at 4 Hz in phrases of about 3 s, with pauses."""
    times = (np.arange(int(seconds * 50)) + 0.5) / 50
    is_speech = (times % 3.7) < 2.9
    drift = np.cumsum(rng.normal(0, 0.18, len(times)))
    opening = np.where(is_speech, 0.06 * np.clip(np.sin(2 * np.pi * 4 * times + drift), -0.3, None) + 0.03, 0.01)
    opening = np.convolve(opening, np.ones(3) / 3, mode="same").astype(np.float32)
    level = np.where(is_speech, -22.0, -58.0).astype(np.float32) + rng.normal(0, 2, len(times)).astype(np.float32)
    sound = AudioClip(np.zeros(int(seconds * 16000), np.float32), 16000)
    return SpeechTrack(opening, level, is_speech, 50.0, sound)


def _row(row, protocol: str, truth: np.ndarray, edited: np.ndarray, rng: np.random.Generator) -> RowScores:
    name, is_result, about = row
    is_truth = name in ("ground truth", "untouched source")
    measures = {}
    for spec in METRICS:
        if protocol == "self-reenactment" or spec.key not in NEEDS_TRUTH:
            measures[spec.key] = _measure(spec.key, name, is_truth, len(edited), rng)
    frames = {"opening": _opening(name, is_truth, truth, edited, rng)}
    for key in ("psnr_region", "lmd", "jitter", "flicker"):
        if key in measures:
            frames[key] = _per_frame(key, is_truth, edited, rng)
    verdicts = {}
    if is_result:
        keys = [key for key in measures if measures[key].is_measured]
        verdicts = dict(zip(keys, rng.choice(["better", "worse", "undecided"], len(keys)).tolist(), strict=True))
    return RowScores(name, is_result, about, measures, frames, verdicts)


def _measure(key: str, name: str, is_truth: bool, frames: int, rng: np.random.Generator) -> Measure:
    if key == "lpips_head":
        return Measure.missing(NO_WEIGHTS)
    if key == "sync_lse_c":
        return Measure.missing(NO_SYNCNET)
    if key == "sync_lag" and name in ("static mean mouth", "closed mouth"):
        return Measure.missing(NO_PEAK)
    if is_truth and key.startswith("psnr"):
        return Measure(math.inf, math.inf, math.inf, frames, IDENTICAL)
    if is_truth and key in NEEDS_TRUTH | {"jitter", "flicker", "edge_gradient", "sharpness"}:
        value = 0.0 if key in ("lmd", "lmd_eyes", "expression_lower") else 100.0 if key == "closure_recall" else 1.0
        return Measure(value, value, value, frames)
    value = MEAN[key] + SPREAD[key] * rng.normal()
    half = SPREAD[key] * 0.4
    return Measure(
        value, value - half, value + half, 14 if key == "closure_recall" else frames - int(rng.integers(0, 9))
    )


def _opening(name, is_truth: bool, truth: np.ndarray, edited: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if name == "untouched source":  # says something else
        values = 1.6 * np.roll(truth, 41)[::-1] + 0.02 + rng.normal(0, 0.004, len(truth))
    elif is_truth:
        values = 1.6 * truth + 0.02 + rng.normal(0, 0.004, len(truth))
    elif "mean" in name or "closed" in name:
        values = np.full(len(truth), 0.04) + rng.normal(0, 0.002, len(truth))
    else:
        values = 1.35 * np.roll(truth, 1) + 0.025 + rng.normal(0, 0.009, len(truth))
    values[40:46] = np.nan
    return np.where(edited | is_truth, values, np.nan).astype(np.float32)


def _per_frame(key: str, is_truth: bool, edited: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if is_truth and key in ("psnr_region", "lmd"):
        return np.full(len(edited), np.inf if key == "psnr_region" else 0.0, dtype=np.float32)
    slow = np.convolve(rng.normal(0, 1, len(edited) + 24), np.ones(25) / 5, mode="valid")
    values = MEAN[key] * (1 + 0.05 * slow + 0.04 * rng.normal(size=len(edited)))
    return np.where(edited, np.abs(values), np.nan).astype(np.float32)


def _sheet(folder: Path, rng: np.random.Generator) -> Path:
    """Ten strips of three smooth coloured squares."""
    path = folder / "worst_frames.png"
    tiles = cv2.resize(rng.integers(40, 220, (40, 12, 3), dtype=np.uint8), (1536, 5120), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), cv2.resize(tiles, (768, 2560)))
    return path


def _clip(folder: Path) -> Path:
    return make_clip(folder / "side by side #1 & more.mp4", ClipSpec(width=192, height=64, n_frames=25)).path
