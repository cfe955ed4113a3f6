"""A trial on disk becomes tables: every row measured, every mean with its interval, every gap with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import BackendUnavailableError
from modules.commons.progress import Progress
from modules.commons.workspace import ROOT
from modules.metrics.perceptual import Lpips, load_lpips
from modules.metrics.statistics import block_bootstrap, interval, paired_verdict
from modules.metrics.steadiness import LEAST_FRAMES, worst_quantile_ratio
from modules.metrics.syncnet import SyncNet, load_syncnet
from modules.structures.evaluation import Trial, TrialRow
from modules.structures.scores import Measure, Metric, RowScores, TrialScores
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.lip_sync import lip_sync_error
from tasks.evaluation.metrics import METRICS
from tasks.evaluation.motion_scores import AGAINST_TRUTH, Bootstrap, measure_frames, measure_track
from tasks.evaluation.picture_scores import FLICKER, measure_pictures

BASELINE = "retrieval"
"""Results are told better or worse than the row of this name, or "retrieval, <result>" where there is one."""
_NO_TRUTH = "there is no true picture"
_RESULTS_ONLY = "measured for results and the untouched source"


@dataclass(frozen=True, slots=True)
class Networks:
    """Networks that only those have who put their weights in place; else None, and why.

    Attributes:
        syncnet: for LSE-C and LSE-D. no_syncnet: why there is none.
        lpips: for LPIPS. no_lpips: why there is none.
    """

    syncnet: SyncNet | None
    no_syncnet: str
    lpips: Lpips | None
    no_lpips: str

    @classmethod
    def load(cls, config: EvaluationConfig) -> Networks:
        """Those whose weights lie where the configuration says.

        Raises:
            CheckpointError: a file is there but is something else.
        """
        syncnet, lpips, no_syncnet, no_lpips = None, None, "", ""
        try:
            syncnet = load_syncnet(ROOT / config.syncnet, "cpu")
        except BackendUnavailableError as error:
            no_syncnet = str(error)
        try:
            lpips = load_lpips(ROOT / config.lpips_backbone)
        except BackendUnavailableError as error:
            no_lpips = str(error)
        return cls(syncnet, no_syncnet, lpips, no_lpips)


def judge(trial: Trial, networks: Networks, config: EvaluationConfig, progress: Progress) -> TrialScores:
    """Measure every row of a trial."""
    frame_s = float(np.median(np.diff(trial.times_s))) if len(trial) > 1 else config.block_s
    bootstrap = Bootstrap(config.seed, config.draws, max(1, round(config.block_s / frame_s)))
    pictures = measure_pictures(trial, networks.lpips, progress)
    rows = [
        _judge_row(trial, row, columns, networks, bootstrap) for row, columns in zip(trial.rows, pictures, strict=True)
    ]
    return TrialScores(
        trial.name, trial.protocol, trial.frames, trial.times_s, trial.block, trial.outcomes, trial.speech,
        tuple(_with_verdicts(row, rows, trial, bootstrap) for row in rows), trial.notes,
    )  # fmt: skip


def _judge_row(
    trial: Trial,
    row: TrialRow,
    pictures: Mapping[str, NDArray[np.float64]],
    networks: Networks,
    bootstrap: Bootstrap,
) -> RowScores:
    frames = {**measure_frames(trial, row), **pictures}
    measures = measure_track(trial, row, bootstrap)
    measures |= _lip_sync(trial, row, networks, bootstrap)
    measures["flicker_worst"] = _worst_flicker(frames, trial, bootstrap)
    for metric in METRICS:
        if metric.key in measures or not _applies(metric, trial):
            continue
        if metric.is_per_frame:
            measures[metric.key] = _mean_of(metric, frames, trial, row, bootstrap, networks)
        else:
            measures[metric.key] = Measure.missing("nothing drives this row")
    return RowScores(row.name, row.is_result, row.about, measures, frames)


def _applies(metric: Metric, trial: Trial) -> bool:
    """Whether a figure belongs to the trial's protocol at all."""
    if metric.group == "Leakage":
        return False  # results of the leakage protocol have theirs already
    if trial.protocol == "leakage":
        return metric.group == "Time and seams"
    needs_truth = metric.group == "Picture" or metric.key in AGAINST_TRUTH
    return trial.protocol == "self-reenactment" or not needs_truth


def _mean_of(
    metric: Metric,
    frames: Mapping[str, NDArray[np.floating]],
    trial: Trial,
    row: TrialRow,
    bootstrap: Bootstrap,
    networks: Networks,
) -> Measure:
    values = frames.get(metric.key)
    if values is None:
        return Measure.missing(networks.no_lpips if metric.key.startswith("lpips") else _NO_TRUTH)
    if np.isnan(values).all():
        is_seam_measured = row.is_result or row is trial.rows[0] or metric.group != "Time and seams"
        return Measure.missing("no frame shows it" if is_seam_measured else _RESULTS_ONLY)
    return mean_over_frames(values, trial.block, bootstrap)


def _worst_flicker(frames: Mapping[str, NDArray[np.floating]], trial: Trial, bootstrap: Bootstrap) -> Measure:
    """The quantile at which a row flickers most, over the source's in the same band."""
    made, own = (frames[name] for name in ("flicker_soft", FLICKER["flicker_soft"]))
    value = worst_quantile_ratio(made, own)
    if math.isnan(value):
        return Measure.missing(f"{_RESULTS_ONLY}, over at least {LEAST_FRAMES} frames")
    low, high = interval(
        lambda rows: worst_quantile_ratio(made[rows], own[rows]), trial.block, bootstrap.length, bootstrap.rng(),
        bootstrap.draws,
    )  # fmt: skip
    return Measure(value, low, high, int(np.isfinite(made).sum()))


def mean_over_frames(values: NDArray[np.floating], block: NDArray[np.int64], bootstrap: Bootstrap) -> Measure:
    """Mean of a per-frame figure ``[N]`` with its interval; NaN frames were not measurable.

    Frames that equal the truth (PSNR inf) among others that do not are left out and counted in the note: one of them
    would make the mean infinite.
    """
    known = values[~np.isnan(values)]
    note, equal = "", np.isinf(known)
    if equal.any() and not equal.all():
        note = f"{int(equal.sum())} frames that equal the truth are left out"
        known, values = known[~equal], np.where(np.isinf(values), np.nan, values)
    low, high = block_bootstrap(values, block, bootstrap.length, bootstrap.rng(), bootstrap.draws)
    return Measure(float(known.mean()), low, high, len(known), note)


def _lip_sync(trial: Trial, row: TrialRow, networks: Networks, bootstrap: Bootstrap) -> dict[str, Measure]:
    if trial.protocol == "leakage":
        return {}
    if trial.speech is None:
        why = "there is no speech"
    elif networks.syncnet is None:
        why = networks.no_syncnet
    else:
        return lip_sync_error(networks.syncnet, trial, row, trial.speech, bootstrap)
    return {"lse_c": Measure.missing(why), "lse_d": Measure.missing(why)}


def _with_verdicts(row: RowScores, rows: list[RowScores], trial: Trial, bootstrap: Bootstrap) -> RowScores:
    """A result beside the retrieval baseline, figure by figure, frame by frame."""
    baseline = _baseline_of(row, rows)
    if not row.is_result or baseline is None:
        return row
    verdicts = {
        metric.key: paired_verdict(
            row.frames[metric.key], baseline.frames[metric.key], trial.block, bootstrap.length, bootstrap.rng(),
            metric.better == "higher", bootstrap.draws,
        )
        for metric in METRICS
        if metric.is_per_frame and metric.better in ("higher", "lower") and _both_have(metric.key, row, baseline)
    }  # fmt: skip
    return replace(row, verdicts=verdicts)


def _baseline_of(row: RowScores, rows: list[RowScores]) -> RowScores | None:
    """The retrieval that was driven as the row was, where there is one: the other one knows the true landmarks."""
    names = {other.name: other for other in rows}
    return names.get(f"{BASELINE}, {row.name}", names.get(BASELINE))


def _both_have(key: str, row: RowScores, baseline: RowScores) -> bool:
    return all(key in r.measures and not math.isnan(r.measures[key].value) for r in (row, baseline))
