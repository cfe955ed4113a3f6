"""Every figure of the tables: what it is called, which way is good, and how it is defined."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from modules.structures.evaluation import Protocol
from modules.structures.scores import Better, Metric

SCOPES = ("edited", "mouth", "crop")
"""Where pictures are compared: under the result's alpha, in the mouth's box, over the whole 512 crop."""

_SCOPE_WORDS = {
    "edited": "over the pixels that the first result repainted",
    "mouth": "over the mouth's box, grown by 1.3",
    "crop": "over the 512 crop, in which everything outside the repainted region is the true frame (the 'head setting' "
    "of published tables)",
}


def _picture(stem: str, label: str, unit: str, better: Better, digits: int, about: str) -> list[Metric]:
    return [
        Metric(
            f"{stem}_{scope}", "Picture", f"{label} {scope}", unit, better, digits, f"{about} {_SCOPE_WORDS[scope]}."
        )
        for scope in SCOPES
    ]


def _whole(key: str, group: str, label: str, unit: str, better: Better, digits: int, about: str) -> Metric:
    return Metric(key, group, label, unit, better, digits, about, is_per_frame=False)


METRICS: tuple[Metric, ...] = (
    *_picture("psnr", "PSNR", "dB", "higher", 2, "Peak signal-to-noise ratio in RGB, mean of the frames',"),
    *_picture("ssim", "SSIM", "", "higher", 4, "Structural similarity, Gaussian window of 11 px,"),
    *_picture("msssim", "MS-SSIM", "", "higher", 4, "The same at five scales, over a window of at least 176 px around"
              " and with the truth outside the scope:"),
    *_picture("lpips", "LPIPS", "", "lower", 4, "Distance of AlexNet's features (LPIPS-Alex)"),
    Metric("lmd", "Lips", "LMD", "px", "lower", 2,
           "Mean distance of 20 lip points (68-point layout, 48 to 67) of result and truth, each set centred, in "
           "pixels of the 512 crop. A mouth that never moves scores about 2.5."),
    Metric("lmd_iod", "Lips", "LMD / eyes", "%", "lower", 2,
           "The same over the distance between the outer eye corners: comparable between crops."),
    Metric("exp_lower", "Lips", "expression, lower", "", "lower", 4,
           "Mean absolute difference of MediaPipe's scores for jaw and mouth."),
    Metric("exp_upper", "Lips", "expression, upper", "", "lower", 4, "The same for brows, eyes and nose."),
    _whole("r_driving", "Lips", "r driving", "", "higher", 3,
           "Correlation of the lip opening re-detected in the pictures with the opening that the driving motion asked "
           "for. High is a matter of course for motion that was rendered; low means that lips were lost."),
    _whole("motion", "Lips", "motion shown", "x", "one", 2,
           "Share of the asked change of lip opening that the pictures show: slope of (re-detected opening - the "
           "source's) on (driving opening - tracked opening). 0 is a picture left alone, however lively it is."),
    _whole("spread", "Lips", "opening spread", "x", "one", 2,
           "Spread of the re-detected opening over the untouched source's: 1 is as lively, 0 stands still."),
    _whole("r_speech", "Sync", "r speech", "", "higher", 3,
           "Correlation of the lip opening with the opening predicted from the sound alone, where both are in sync. "
           "The project's own audio-driven lips come from this very prediction: judge them against the other columns."),
    _whole("r_loudness", "Sync", "r loudness", "", "higher", 3,
           "Correlation of the lip opening with the sound's loudness at the usual lag: about 0.3 for people."),
    _whole("lag", "Sync", "lag", "ms", "zero", 0,
           "How much later the mouth is than its sound, less the median of clips in sync; negative: earlier. Found by "
           "cross-correlation with the predicted opening; undetermined when unrelated speech would peak as high or "
           "parts of the clip disagree."),
    _whole("lse_c", "Sync", "LSE-C", "", "higher", 2,
           "SyncNet's confidence, as published (25 fps, 16 kHz, 13 MFCC, 5 frames, shift of 15), on the stable crop. "
           "More than the truth's is no win."),
    _whole("lse_d", "Sync", "LSE-D", "", "lower", 2, "SyncNet's distance, likewise."),
    _whole("closure_recall", "Sync", "closure recall", "", "higher", 2,
           "Of the frames in which the reference's lips are shut (below this person's 10th percentile in speech + "
           "0.01), the share with shut lips within 40 ms; the note says what closures at random times reach. In "
           "dubbing the reference is the driving motion."),
    _whole("closure_precision", "Sync", "closure precision", "", "higher", 2, "Likewise of the result's shut lips."),
    _whole("silence_motion", "Sync", "motion in silence", "x", "zero", 2,
           "Speed of the lips in pauses of at least 0.4 s (less their first 0.2 s) over that in speech."),
    _whole("leak_r", "Leakage", "|r| with source", "", "lower", 3,
           "Correlation, by size, of the result's opening with the source's own, which drove nothing."),
    _whole("leak_band", "Leakage", "chance band", "", "none", 3,
           "What 95 % of circular shifts stay below: nothing leaks where |r| does too."),
    Metric("jitter", "Time and seams", "jitter", "x", "one", 3,
           "RMS acceleration of landmarks that follow the head, outside mouth and jaw, over the untouched source's."),
    Metric("flicker", "Time and seams", "flicker", "x", "one", 3,
           "Error against the previous frame warped along the source's optical flow, at the edge of the edit (0.02 < "
           "alpha < 0.98 and 8 px to both sides), over the source's."),
    Metric("flicker_soft", "Time and seams", "flicker, soft edge", "x", "one", 3,
           "The same in the soft edge alone (0.02 < alpha < 0.98), where no lips move."),
    _whole("flicker_worst", "Time and seams", "flicker, worst", "x", "one", 3,
           "Flicker of the soft edge at the quantile of frames at which it is largest (25 to 95 %), over the source's "
           "same quantile."),
    Metric("gradient", "Time and seams", "gradient", "x", "one", 3,
           "Gradient across the edge over the source's: above 1 a visible line, below 1 a blur."),
    Metric("delta_e", "Time and seams", "ΔE at edge", "", "lower", 2,
           "Colour difference (CIE76) to the source at the edge; only where both jaws agree within 2 px."),
    Metric("area", "Time and seams", "area", "x", "none", 2,
           "Area of the alpha over the projected lower face of both poses."),
    Metric("inexact", "Time and seams", "changed outside", "%", "zero", 3,
           "Share of samples that differ from the source's where alpha is 0, in Y'CbCr. 0 before encoding; an encoded "
           "result shows its codec here."),
    Metric("sharpness", "Time and seams", "mouth sharpness", "x", "one", 2,
           "Variance of the Laplacian in the mouth's box over the source's."),
    Metric("noise", "Time and seams", "mouth noise", "x", "one", 2,
           "Standard deviation of noise in the mouth's box (Immerkær's operator, robust mean) over the source's."),
)  # fmt: skip

_SEAMS = ("jitter", "flicker", "gradient", "delta_e", "sharpness")

CONSOLE: Mapping[Protocol, tuple[str, ...]] = MappingProxyType(
    {
        "self-reenactment": ("psnr_edited", "psnr_mouth", "ssim_edited", "lmd", "r_speech", *_SEAMS),
        "dubbing": ("r_speech", "r_loudness", "lag", "r_driving", "motion", "closure_recall", *_SEAMS),
        "leakage": ("leak_r", "leak_band", *_SEAMS),
    }
)
"""The figures that a log shows, by protocol."""
