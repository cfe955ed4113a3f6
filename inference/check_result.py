"""Measure a finished job on its output video: do the lips follow, is the mouth sharp, is the rest untouched?

Usage: python inference/check_result.py --result out.mp4 [--strip strip.png]

Reads: ``out.mp4`` and ``out.mp4.json`` (and the source video named there). Writes: ``out.mp4.check.json``; with
``--strip`` a picture of mouths, source above result.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_video.face_detector import FaceDetector, track_and_landmark
from inference.arbitrary_video import PreparedSource, open_source, plan_video, predict_motion
from inference.edit_plan import EditPlan
from inference.jobs import ArbitraryJob
from modules.commons.errors import ConfigError, GeneFaceError
from modules.commons.log import configure_logging
from modules.commons.progress import silent
from modules.structures.landmarks import MOUTH, Landmarks2D, lip_opening
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader

logger = logging.getLogger("check")


@dataclass(frozen=True, slots=True)
class ResultCheck:
    """Figures of one result.

    Attributes:
        opening_r: correlation of the lip opening re-detected in the output with the driving motion's.
        opening_r_source: the same for the source video: what doing nothing scores.
        opening_ratio: spread of the re-detected opening over the driving one's.
        sharpness_ratio: variance of the Laplacian in the mouth box, result over source.
        frames: edited frames with a detected face in both videos and nothing in front of the mouth.
        same_frames: whether frame count (up to the shorter) and presentation times are the source's.
    """

    opening_r: float
    opening_r_source: float
    opening_ratio: float
    sharpness_ratio: float
    frames: int
    same_frames: bool


def check_result(result: Path, strip: Path | None = None) -> ResultCheck:
    """Measure ``result`` against its source and its driving motion.

    Raises:
        ConfigError: there is no summary beside the result.
    """
    job = job_of(result)
    source = open_source(job, silent)
    plan = plan_video(source, predict_motion(job, load_audio_16k(job.drv_aud)))
    with VideoReader(result) as reader:
        _, found = track_and_landmark(reader.frames(), FaceLandmarker(), FaceDetector())
    count = min(len(found), len(source))
    usable = (plan.strength[:count] >= 1) & found.valid[:count] & source.landmarks.valid[:count]
    usable &= source.occlusion.coverage[:count] == 0
    rows = np.flatnonzero(usable)
    driving = driving_opening(source, plan)[rows]
    after = lip_opening(found.points[rows])
    before = lip_opening(source.landmarks.points[rows])
    sharp, times_equal = _compare_pictures(source, result, rows, found, strip)
    return ResultCheck(
        opening_r=_correlation(after, driving),
        opening_r_source=_correlation(before, driving),
        opening_ratio=float(after.std() / max(driving.std(), 1e-9)) if len(rows) else float("nan"),
        sharpness_ratio=sharp,
        frames=len(rows),
        same_frames=times_equal,
    )


def job_of(result: Path) -> ArbitraryJob:
    """The job whose summary lies beside ``result``.

    Raises:
        ConfigError: no summary, or an unreadable one.
    """
    path = result.with_name(result.name + ".json")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return ArbitraryJob(Path(data["src_video"]), Path(data["drv_aud"]), Path(data["output"]))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path}: no usable summary beside the result ({error}); run the job again") from error


def driving_opening(source: PreparedSource, plan: EditPlan) -> NDArray[np.float32]:
    """``[T]`` lip opening of the face model under the new expression, in inter-ocular units."""
    identity = torch.from_numpy(source.coeffs.identity)
    points = source.face_model.landmarks(identity, torch.from_numpy(plan.expression))
    return lip_opening(points.numpy())


def mouth_bounds(points: NDArray[np.float32], size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """Mouth box of one frame's landmarks grown by a quarter, as integer bounds inside the frame."""
    mouth = points[list(MOUTH)]
    low, high = mouth.min(axis=0), mouth.max(axis=0)
    pad = 0.25 * (high - low)
    x0, y0 = np.maximum(np.floor(low - pad), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(high + pad), (size_hw[1], size_hw[0])).astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def _compare_pictures(
    source: PreparedSource, result: Path, rows: NDArray[np.int64], found: Landmarks2D, strip: Path | None
) -> tuple[float, bool]:
    """Sharpness ratio over ``rows`` and whether the frame times agree; writes the strip."""
    wanted = set(rows.tolist())
    shown = set(rows[np.linspace(0, len(rows) - 1, min(12, len(rows))).astype(int)].tolist()) if len(rows) else set()
    before, after, tiles = [], [], []
    times_equal = True
    with VideoReader(source.video) as original, VideoReader(result) as edited:
        for old, new in zip(original.frames(), edited.frames(), strict=False):
            times_equal &= abs(float(old.time_s - new.time_s)) < 1e-4 and old.size_hw == new.size_hw
            if old.index not in wanted:
                continue
            box_old = mouth_bounds(source.landmarks.points[old.index], old.size_hw)
            box_new = mouth_bounds(found.points[old.index], old.size_hw)
            before.append(_sharpness(old.planes[0], box_old))
            after.append(_sharpness(new.planes[0], box_new))
            if old.index in shown:
                tiles.append(np.vstack([_tile(rgb_from_planes(f, box_old)) for f in (old, new)]))
    if strip is not None and tiles:
        cv2.imwrite(str(strip), cv2.cvtColor(np.hstack(tiles), cv2.COLOR_RGB2BGR))
    ratio = float(np.mean(after) / max(np.mean(before), 1e-9)) if before else float("nan")
    return ratio, times_equal


def _tile(rgb: NDArray) -> NDArray:
    return np.asarray(cv2.resize(rgb, (240, 180), interpolation=cv2.INTER_CUBIC))


def _sharpness(luma: NDArray, bounds: tuple[int, int, int, int]) -> float:
    x0, y0, x1, y1 = bounds
    return float(cv2.Laplacian(luma[y0:y1, x0:x1].astype(np.float32), cv2.CV_32F).var())


def _correlation(a: NDArray, b: NDArray) -> float:
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Measure a finished job on its output video.", allow_abbrev=False)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--strip", type=Path)
    arguments = parser.parse_args(argv)
    configure_logging()
    try:
        figures = asdict(check_result(arguments.result, arguments.strip))
    except GeneFaceError as error:
        logger.error("error: %s", error)
        return 1
    arguments.result.with_name(arguments.result.name + ".check.json").write_text(json.dumps(figures, indent=1) + "\n")
    for name, value in figures.items():
        logger.info("%-18s %s", name, value)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
