"""What is measured in pictures: one pass over a trial, per-frame arrays out.

Raw figures first (``_RowMeter``), then those that are ratios are divided by the untouched source's mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from modules.commons.progress import Progress
from modules.metrics.perceptual import LPIPS_LEAST_PX, Lpips
from modules.metrics.picture import noise_sigma, scope_window, score_scopes, sharpness
from modules.metrics.seams import (
    JAW_AGREES_PX,
    alpha_area_ratio,
    colour_difference,
    edge_band,
    exactness,
    gradient_ratio,
    soft_band,
)
from modules.metrics.steadiness import FlickerMeter
from modules.structures.crops import transform_points
from modules.structures.evaluation import EDITED, Trial, TrialRow
from modules.structures.landmarks import mouth_bounds
from modules.video.colour import luma_8bit
from tasks.evaluation.metrics import SCOPES
from tasks.evaluation.motion_scores import Columns, mean_of_source
from tasks.evaluation.reading import CROP_SIZE, Shown, crop_512, shown_frames

_RELATIVE = ("sharpness", "noise")
FLICKER = {"flicker": "flicker_source", "flicker_soft": "flicker_soft_source"}
"""Columns of a row's flicker, each with that of the source at the same place; both are over the source's mean."""


@dataclass(slots=True)
class _RowMeter:
    """Per-frame figures of one row while they are gathered."""

    columns: Columns
    flicker: FlickerMeter = field(default_factory=FlickerMeter)

    def put(self, number: int, **values: float) -> None:
        for name, value in values.items():
            self.columns[name][number] = value


def measure_pictures(trial: Trial, lpips: Lpips | None, progress: Progress) -> list[Columns]:
    """Per-frame figures of every row ``[N]``, NaN where there is nothing to measure; in the order of the rows.

    Args:
        trial: on disk.
        lpips: None leaves LPIPS out.
        progress: told about the frames.
    """
    names = _column_names(trial, lpips)
    meters = [_RowMeter({name: np.full(len(trial), np.nan) for name in names}) for _ in trial.rows]
    for number, shown in shown_frames(trial):
        _measure_frame(trial, number, shown, meters, lpips)
        progress(f"measure {trial.name}", number + 1, len(trial))
    means = {name: mean_of_source(meters[0].columns[name]) for name in _RELATIVE}
    return [_related(meter.columns, means) for meter in meters]


def _column_names(trial: Trial, lpips: Lpips | None) -> list[str]:
    stems = ["psnr", "ssim", "msssim", *(["lpips"] if lpips else [])] if trial.protocol == "self-reenactment" else []
    pictures = [f"{stem}_{scope}" for stem in stems for scope in SCOPES]
    return [*pictures, *FLICKER, *FLICKER.values(), "gradient", "delta_e", "area", "inexact", *_RELATIVE]


def _measure_frame(
    trial: Trial, number: int, shown: list[Shown | None], meters: list[_RowMeter], lpips: Lpips | None
) -> None:
    source = shown[0]
    edit = next((picture.alpha for picture in shown if picture is not None and picture.alpha is not None), None)
    if source is None:
        return
    for row, meter, picture in zip(trial.rows, meters, shown, strict=True):
        if picture is None:
            continue
        if trial.outcomes[number] == EDITED:
            _measure_mouth(row, number, picture, trial.window, meter)
        alpha = edit if picture is source else picture.alpha if row.is_result else None
        if alpha is not None:
            _measure_seam(trial, row, number, (picture, source), alpha, meter)
    if trial.protocol == "self-reenactment" and trial.outcomes[number] == EDITED and edit is not None:
        _measure_likeness(trial, number, shown, edit, meters, lpips)


def _measure_mouth(
    row: TrialRow, number: int, picture: Shown, window: tuple[int, int, int, int], meter: _RowMeter
) -> None:
    """Sharpness and noise of the mouth as this row shows it."""
    if not row.landmarks.valid[number]:
        return
    points = row.landmarks.points[number] - np.array(window[:2], np.float32)
    mask = mouth_mask(points, picture.rgb.shape[:2])
    luma = luma_8bit(picture.frame)
    meter.put(number, sharpness=sharpness(luma, mask), noise=noise_sigma(luma, mask))


def _measure_seam(
    trial: Trial, row: TrialRow, number: int, pair: tuple[Shown, Shown], alpha: NDArray[np.float32], meter: _RowMeter
) -> None:
    """Edge of the edit and the rest of the window, a row's picture against the source's."""
    picture, source = pair
    band = edge_band(alpha)
    starts = number == 0 or trial.block[number] != trial.block[number - 1]
    lumas = luma_8bit(picture.frame), luma_8bit(source.frame)
    (flicker, own), (soft, own_soft) = meter.flicker.update_all(*lumas, (band, soft_band(alpha)), starts)
    outside = exactness(picture.frame.planes, source.frame.planes, alpha, picture.frame.layout)
    meter.put(number, flicker=flicker, flicker_source=own, flicker_soft=soft, flicker_soft_source=own_soft)
    meter.put(number, inexact=100 * outside.changed_share)
    if trial.outcomes[number] != EDITED:
        return
    meter.put(number, gradient=gradient_ratio(picture.rgb, source.rgb, alpha, band))
    if row.lower_face_px is not None:
        meter.put(number, area=alpha_area_ratio(alpha, float(row.lower_face_px[number])))
    if row.jaw_gap_px is None or row.jaw_gap_px[number] <= JAW_AGREES_PX:
        meter.put(number, delta_e=colour_difference(picture.rgb, source.rgb, band))


def _measure_likeness(
    trial: Trial,
    number: int,
    shown: list[Shown | None],
    edit: NDArray[np.float32],
    meters: list[_RowMeter],
    lpips: Lpips | None,
) -> None:
    """Pictures against the truth: over the first result's edit, the true mouth's box and the whole crop."""
    truth = shown[0]
    if truth is None or not trial.rows[0].landmarks.valid[number]:
        return
    region = trial.crops[number]
    target = crop_512(truth.rgb, region, trial.window)
    points = transform_points(region.crop_from_frame(CROP_SIZE), trial.rows[0].landmarks.points[number])
    covered = np.repeat((edit > 0).astype(np.uint8)[..., None] * 255, 3, axis=2)
    masks = (crop_512(covered, region, trial.window)[..., 0] > 127, mouth_mask(points, target.shape[:2]), None)
    for meter, picture in zip(meters, shown, strict=True):
        if picture is None:
            continue
        image = target if picture is truth else crop_512(picture.rgb, region, trial.window)
        scores = score_scopes(image, target, masks)
        for scope, mask, score in zip(SCOPES, masks, scores, strict=True):
            figures = {"psnr": score.psnr, "ssim": score.ssim, "msssim": score.ms_ssim}
            if lpips is not None:
                window = None if mask is None else scope_window(mask, LPIPS_LEAST_PX)
                figures["lpips"] = lpips.distance(image, target, mask, window)
            meter.put(number, **{f"{stem}_{scope}": value for stem, value in figures.items()})


def mouth_mask(points: NDArray[np.floating], size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """Box around the mouth of landmarks ``[478, 2]``: bool ``[H, W]``; empty outside the picture."""
    (x0, y0), (x1, y1) = (np.maximum(corner, 0) for corner in mouth_bounds(points))
    mask = np.zeros(size_hw[:2], dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def _related(columns: Columns, means: Mapping[str, float]) -> Columns:
    """Raw figures as ratios to the untouched source's means."""
    related = dict(columns)
    for made, own in FLICKER.items():
        mean = mean_of_source(columns[own])
        related |= {name: columns[name] / mean for name in (made, own)}
    return related | {name: columns[name] / mean for name, mean in means.items()}
