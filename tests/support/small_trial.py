"""A real trial on disk: a few frames of a face, shown with one known fault at a time, each at three strengths."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import BlazeFace
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_face, region_of_landmarks
from modules.commons.workspace import DEMO_DIR
from modules.structures.audio import AudioClip
from modules.structures.crops import CropRegion
from modules.structures.evaluation import EDITED, SpeechTrack, Trial, TrialRow
from modules.structures.frames import Frame, FramePatch, VideoInfo
from modules.structures.landmarks import FACE_OVAL, Landmarks2D
from modules.video.alpha import AlphaWriter
from modules.video.colour import blend_patch, rgb_float_from_planes, rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.window import Bounds, aligned_window, window_frame, window_info
from modules.video.writer import EncodeConfig, VideoWriter
from tasks.evaluation.judge import Networks
from tests.modules.metrics.seam_cases import WINDOW as MOUTH_WINDOW
from tests.modules.metrics.seam_cases import Fault, blurred, brightened, ellipse, flickering
from tests.support.real_frames import DEMO_CLIP, read_frames

FIRST, COUNT = 6, 16
"""Of the demo clip: no hand is in front of her face."""
STRENGTHS = (1, 2, 3)
BLUR_PX = (0.7, 1.4, 2.8)
STEP_CODES = (4, 8, 16)
FLICKER_CODES = (1, 2, 4)
SHIFT_PX = (2, 4, 8)
STRAY_SAMPLES = ((0, 3, 5), (0, 3, 6), (0, 9, 5), (1, 2, 2))
"""Plane, row and column, in the window, of what the row "stray" changes outside its alpha."""
CROP_GROWN = 1.4
SOUND_HZ = 16_000
NO_NETWORKS = Networks(None, "SyncNet's weights are not here", None, "LPIPS's weights are not here")


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True, eq=False)
class SmallTrial:
    """The trial, and the folder that its videos lie in.

    Rows: "source"; "same" (the source's frames, stored as a result's are); "blur", "step" and "flicker" 1 to 3, of what
    is inside the alpha; "shift" 1 to 3: a step of brightness through an alpha that lies to the right of the one that is
    stored; "stray": a step, and ``STRAY_SAMPLES``.
    """

    folder: Path
    trial: Trial

    def row(self, name: str) -> TrialRow:
        return next(row for row in self.trial.rows if row.name == name)

    def of(self, *rows: str | TrialRow, **changes: Any) -> Trial:
        """The trial with the source and these rows alone."""
        chosen = (row if isinstance(row, TrialRow) else self.row(row) for row in ("source", *rows))
        return replace(self.trial, **{"rows": tuple(chosen), **changes})


def first_frames(trial: Trial, count: int) -> Trial:
    """The beginning of a trial; its videos are longer than it."""
    columns = ("frames", "times_s", "block", "outcomes", "crops")
    rows = tuple(_first_of_row(row, count) for row in trial.rows)
    return replace(trial, rows=rows, **{name: getattr(trial, name)[:count] for name in columns})


def _first_of_row(row: TrialRow, count: int) -> TrialRow:
    points, depth, valid, scores = (
        getattr(row.landmarks, name)[:count] for name in ("points", "depth", "valid", "blendshapes")
    )
    names = ("driving_opening", "tracked_opening", "lower_face_px", "jaw_gap_px")
    tables = {name: getattr(row, name) for name in names}
    return replace(
        row,
        landmarks=Landmarks2D(points, depth, valid, scores),
        **{name: None if table is None else table[:count] for name, table in tables.items()},
    )


@functools.cache
def small_trial(root: Path) -> SmallTrial:
    """Paint every row without loss; where the picture is blurred, landmarks are detected anew."""
    root.mkdir(parents=True)
    source = DEMO_DIR / DEMO_CLIP
    frames = list(read_frames(source, FIRST, FIRST + COUNT))
    with VideoReader(source) as reader:
        info = reader.info
    tracked = followed(frames)
    landmarks = detected(frames, tracked)
    crop = crop_around(tracked)
    bounds = crop.bounding_box().pixel_bounds(info.width, info.height)
    assert bounds is not None
    window = aligned_window(bounds, info)
    alpha = np.zeros(frames[0].size_hw, np.float32)
    in_mouth = np.s_[MOUTH_WINDOW[1] : MOUTH_WINDOW[3], MOUTH_WINDOW[0] : MOUTH_WINDOW[2]]
    alpha[in_mouth] = ellipse(alpha[in_mouth].shape)
    rows = [TrialRow("source", False, None, landmarks, about="The untouched source.")]
    for name, painted in _painted(frames, alpha, window).items():
        found = detected(painted, tracked) if name.startswith("blur") else landmarks
        rows.append(written(root, name, painted, info, window, alpha, found))
    times_s = np.array([float(frame.time_s) for frame in frames])
    trial = Trial(
        "a few frames of a face", "self-reenactment", source, window, np.arange(FIRST, FIRST + COUNT), times_s,
        np.zeros(COUNT, np.int64), (EDITED,) * COUNT, (crop,) * COUNT, made_up_speech(float(times_s[-1]) + 1.0),
        tuple(rows),
    )  # fmt: skip
    return SmallTrial(root, trial)


def _painted(frames: Sequence[Frame], alpha: NDArray[np.float32], window: Bounds) -> dict[str, list[Frame]]:
    """Whole frames of every row but the source."""

    def with_fault(fault: Fault, shift_px: int = 0) -> list[Frame]:
        patch_alpha = np.roll(alpha, shift_px, axis=1)
        return [repainted(frame, MOUTH_WINDOW, patch_alpha, fault, number) for number, frame in enumerate(frames)]

    rows = {"same": list(frames), "stray": [astray(frame, window) for frame in with_fault(brightened(8))]}
    for strength, blur_px, step, flicker, shift_px in zip(
        STRENGTHS, BLUR_PX, STEP_CODES, FLICKER_CODES, SHIFT_PX, strict=True
    ):
        rows[f"blur {strength}"] = with_fault(blurred(blur_px))
        rows[f"step {strength}"] = with_fault(brightened(step))
        rows[f"flicker {strength}"] = with_fault(flickering(flicker))
        rows[f"shift {strength}"] = with_fault(brightened(8), shift_px)
    return rows


def repainted(frame: Frame, bounds: Bounds, alpha: NDArray[np.float32], fault: Fault, number: int) -> Frame:
    """A frame with its own picture, spoilt, blended over it inside ``bounds``; ``alpha`` is the whole frame's."""
    x0, y0, x1, y1 = bounds
    rgb = np.clip(fault(rgb_float_from_planes(frame, bounds), number), 0, 1).astype(np.float32)
    return blend_patch(frame, FramePatch(bounds, rgb, np.ascontiguousarray(alpha[y0:y1, x0:x1])))


def astray(frame: Frame, window: Bounds) -> Frame:
    """A 4:2:0 frame whose ``STRAY_SAMPLES`` are one code off."""
    planes = tuple(plane.copy() for plane in frame.planes)
    for plane, row, column in STRAY_SAMPLES:
        half = int(plane > 0)
        planes[plane][(window[1] >> half) + row, (window[0] >> half) + column] ^= 1
    return replace(frame, planes=planes)


def written(
    folder: Path, name: str, painted: Sequence[Frame], info: VideoInfo, window: Bounds,
    alpha: NDArray[np.float32], landmarks: Landmarks2D,
) -> TrialRow:  # fmt: skip
    """A result row whose pictures and alpha (one for all frames) are stored as painting a trial stores them."""
    pictures, alphas = (folder / f"{name.replace(' ', '_')}{kind}.mkv" for kind in ("", "_alpha"))
    x0, y0, x1, y1 = window
    shown = window_info(info, window)
    with ExitStack() as stack:
        video = stack.enter_context(VideoWriter(pictures, shown, quality=EncodeConfig(lossless=True)))
        greys = stack.enter_context(AlphaWriter(alphas, shown))
        for number, frame in enumerate(painted):
            part = window_frame(frame, window, number)
            video.write(part)
            greys.write(part, (0, 0, x1 - x0, y1 - y0), alpha[y0:y1, x0:x1])
    return TrialRow(name, True, pictures, landmarks, alpha=alphas)


def followed(frames: Sequence[Frame]) -> NDArray[np.float32]:
    """Landmarks ``[N, 478, 2]`` frame to frame: they say through which square each frame is looked at."""
    landmarker, points = FaceLandmarker(blendshapes=False), []
    for frame in frames:
        rgb = rgb_from_planes(frame)
        region = region_of_landmarks(points[-1]) if points else region_of_face(BlazeFace().detect(rgb)[0])
        points.append(landmarker.detect(rgb, region).points)
    return np.stack(points)


def detected(frames: Sequence[Frame], tracked: NDArray[np.float32]) -> Landmarks2D:
    """Landmarks of these pictures, through the squares of the untouched source."""
    landmarker = FaceLandmarker()
    found = [
        landmarker.detect(rgb_from_planes(frame), region_of_landmarks(points))
        for frame, points in zip(frames, tracked, strict=True)
    ]
    points, depth, scores = (np.stack([getattr(f, name) for f in found]) for name in ("points", "depth", "blendshapes"))
    return Landmarks2D(points, depth, np.ones(len(found), bool), scores)


def crop_around(points: NDArray[np.float32]) -> CropRegion:
    """A square that holds the face of every frame."""
    oval = points[:, list(FACE_OVAL)].reshape(-1, 2)
    low, high = oval.min(axis=0), oval.max(axis=0)
    center_x, center_y = ((low + high) / 2).tolist()
    return CropRegion(center_x, center_y, float((high - low).max()) * CROP_GROWN)


def made_up_speech(seconds: float, seed: int = 0) -> SpeechTrack:
    """An opening as quick as lips are, and a sound that grows loud with it."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 50)
    opening = np.convolve(rng.standard_normal(count + 20), np.hanning(13)[1:-1], mode="same")[10:-10]
    loud = np.interp(np.arange(round(seconds * SOUND_HZ)) / SOUND_HZ, (np.arange(count) + 0.5) / 50, opening)
    samples = (0.1 * np.clip(1 + loud, 0, 3) * rng.uniform(-1, 1, len(loud))).astype(np.float32)
    level = (-30 + 5 * opening).astype(np.float32)
    return SpeechTrack(opening.astype(np.float32), level, np.ones(count, bool), 50.0, AudioClip(samples, SOUND_HZ))
