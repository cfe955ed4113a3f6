"""What each stage of ``process_video.STAGES`` does: read artefacts, call one module, write artefacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.runs.binarizer_nerf import binarize
from data_gen.runs.process_config import CropConfig, ProcessVideoConfig
from data_gen.utils.mp_feature_extractors.face_landmarker import build_landmarker
from data_gen.utils.process_video.crop_utils import load_crop_metadata, save_crop_metadata
from data_gen.utils.process_video.face_detector import FaceDetector, track_and_landmark
from data_gen.utils.process_video.fit_3dmm_landmark import fit_3dmm_for_a_video
from data_gen.utils.process_video.occlusion_detector import OcclusionDetector, frame_occlusions
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.structures.crops import CropMetadata, transform_points
from modules.structures.frames import Frame
from modules.structures.landmarks import JAW_LINE, N_MEDIAPIPE, Landmarks2D
from modules.structures.masks import OcclusionTable
from modules.structures.tracks import FaceTrack
from modules.video.reader import VideoReader

SMALL_CROP_SIDE_PX = 300
"""A crop whose square is at most this wide in the frame is stored at 256 px."""


@dataclass(frozen=True, slots=True)
class StageInput:
    """What every stage gets: the video (and its hash), where artefacts lie, what to do, whom to tell."""

    video: Path
    source_sha256: str
    workspace: VideoWorkspace
    config: ProcessVideoConfig
    progress: Progress


def track(stage: StageInput) -> None:
    """Follow the largest face, find its landmarks and note the frame times, in one pass over the video."""
    settings = stage.config.detect
    times: list[Fraction] = []
    with VideoReader(stage.video) as reader:
        frames = _timed(_counted(reader.frames(), "track", _expected_frames(reader), stage.progress), times)
        landmarker = build_landmarker(settings.extractor)
        face, landmarks = track_and_landmark(
            frames, landmarker, FaceDetector(settings.backend), min_face_px=settings.min_face_px
        )
    save_frame_times(stage.workspace.times, np.array([float(time - times[0]) for time in times]))
    face.save(stage.workspace.track)
    landmarks.save(stage.workspace.landmarks)


def crop(stage: StageInput) -> None:
    """Choose the stable square around the face."""
    face = FaceTrack.load(stage.workspace.track)
    with VideoReader(stage.video) as reader:
        size_hw = (reader.info.height, reader.info.width)
    metadata = choose_crop(face, size_hw, stage.config.crop, FaceDetector(stage.config.detect.backend))
    save_crop_metadata(metadata, stage.workspace.crop_metadata)


def choose_crop(face: FaceTrack, size_hw: tuple[int, int], config: CropConfig, detector: FaceDetector) -> CropMetadata:
    """The crop of a track, at 256 or 512 px by the size of the face unless the configuration says which."""
    size = 512 if config.crop_size == "auto" else config.crop_size
    metadata = detector.compute_stable_crop_region(face, size_hw, config.margin, size)
    if config.crop_size == "auto" and np.median([r.side for r in metadata.regions]) <= SMALL_CROP_SIDE_PX:
        return detector.compute_stable_crop_region(face, size_hw, config.margin, 256)
    return metadata


def hands(stage: StageInput) -> None:
    """Find what stands in front of the face in each crop."""
    landmarks = Landmarks2D.load(stage.workspace.landmarks)
    metadata = load_crop_metadata(stage.workspace.crop_metadata)
    if not stage.config.hands.enabled:
        _no_occlusion(len(landmarks), stage.config.hands.mask_size).save(stage.workspace.hands)
        return
    with VideoReader(stage.video) as reader:
        frames = _counted(reader.frames(), "hands", len(landmarks), stage.progress)
        table = occlusion_table(frames, landmarks, metadata, OcclusionDetector(), stage.config.hands.mask_size)
    table.save(stage.workspace.hands)


def occlusion_table(
    frames: Iterable[Frame],
    landmarks: Landmarks2D,
    metadata: CropMetadata,
    detector: OcclusionDetector,
    mask_size: int,
) -> OcclusionTable:
    """Occluders of every frame with a face, measured against its landmarks."""
    count = len(landmarks)
    coverage = np.zeros(count, dtype=np.float32)
    hidden = np.zeros((count, N_MEDIAPIPE), dtype=bool)
    rows: list[int] = []
    masks: list[NDArray[np.uint8]] = []
    known = (frame for frame in frames if frame.index < count)
    for window in frame_occlusions(known, landmarks, detector):
        index = window.index
        if window.values is None or not landmarks.valid[index]:
            continue
        points = transform_points(metadata.crop_from_frame(index), landmarks.points[index])
        mask = window.over_crop(metadata).values
        if not (mask > 0.5).any():
            continue
        coverage[index] = _share_covered(mask > 0.5, _lower_face(points, mask.shape))
        hidden[index] = _hidden_points(mask > 0.5, points)
        rows.append(index)
        small = cv2.resize(mask, (mask_size, mask_size), interpolation=cv2.INTER_AREA)
        masks.append(np.round(small * 255).astype(np.uint8))
    stacked = np.stack(masks) if masks else np.zeros((0, mask_size, mask_size), dtype=np.uint8)
    return OcclusionTable(coverage, hidden, np.array(rows, dtype=np.int64), stacked)


def fit(stage: StageInput) -> None:
    """Fit the face model to the landmarks."""
    stage.progress("fit", 0, 1)
    fit_3dmm_for_a_video(stage.workspace, FaceModel.load(FACE_MODEL_FILE), stage.config.fit)
    stage.progress("fit", 1, 1)


def binarize_clip(stage: StageInput) -> None:
    """Choose the frames to learn from and store their crops."""
    model = FaceModel.load(FACE_MODEL_FILE)
    binarize(stage.workspace, stage.video, stage.source_sha256, model, stage.config.binarizer, stage.progress)


def _counted(frames: Iterable[Frame], what: str, expected: int, progress: Progress) -> Iterator[Frame]:
    """Pass frames on, reporting them; ``expected`` is a guess, the end of the stream decides."""
    done = 0
    for frame in frames:
        yield frame
        done += 1
        progress(what, done, max(expected, done + 1) if expected else 0)
    if done:
        progress(what, done, done)


def _timed(frames: Iterable[Frame], times: list[Fraction]) -> Iterator[Frame]:
    """Pass frames on, noting their presentation times."""
    for frame in frames:
        times.append(frame.time_s)
        yield frame


def save_frame_times(path: Path, times_s: NDArray[np.float64]) -> None:
    """Write ``[T]`` frame times in seconds after the first frame, through a temporary name."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, times_s=times_s)
    temporary.replace(path)


def load_frame_times(path: Path) -> NDArray[np.float64]:
    """Read what ``save_frame_times`` wrote: ``[T]`` seconds after the first frame."""
    with np.load(path, allow_pickle=False) as data:
        return data["times_s"]


def _expected_frames(reader: VideoReader) -> int:
    """Frames the file should hold by its duration; 0 when it does not say. Good for a progress bar only."""
    return round(reader.info.duration_s * float(reader.info.frame_rate)) if reader.info.duration_s else 0


def _no_occlusion(count: int, mask_size: int) -> OcclusionTable:
    return OcclusionTable(
        np.zeros(count, dtype=np.float32),
        np.zeros((count, N_MEDIAPIPE), dtype=bool),
        np.zeros(0, dtype=np.int64),
        np.zeros((0, mask_size, mask_size), dtype=np.uint8),
    )


def _lower_face(points: NDArray[np.floating], size_hw: tuple[int, ...]) -> NDArray[np.bool_]:
    """Polygon along the jaw, closed straight from ear to ear: ``[H, W]``."""
    area = np.zeros(size_hw[:2], dtype=np.uint8)
    cv2.fillPoly(area, [np.round(points[list(JAW_LINE)]).astype(np.int32)], 1)
    return area > 0


def _share_covered(mask: NDArray[np.bool_], area: NDArray[np.bool_]) -> float:
    return float(mask[area].mean()) if area.any() else 0.0


def _hidden_points(mask: NDArray[np.bool_], points: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which points ``[N, 2]`` lie on the mask; points outside the image do not."""
    height, width = mask.shape
    columns, rows = np.floor(points).astype(int).T
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    hidden = np.zeros(len(points), dtype=bool)
    hidden[inside] = mask[rows[inside], columns[inside]]
    return hidden
