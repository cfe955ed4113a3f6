"""Processed artefacts of one clip → the dataset that training reads.

Reads: landmarks.npz, crop_metadata.json, occlusion.npz, coeff_fit_mp.npz and the video itself.
Writes: data/binary/videos/<id>/trainval_dataset.npz and crops/.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from data_gen.utils.process_video.crop_utils import extract_face_crops, load_crop_metadata
from data_gen.utils.process_video.frame_choice import choose_frames, frame_quality, lip_and_pose_features
from modules.commons.errors import NoFaceError
from modules.commons.progress import Progress
from modules.commons.workspace import VideoWorkspace
from modules.face_model.model import FaceModel
from modules.radnerfs.condition import ConditionStatistics, condition_from_expression
from modules.structures.crops import CropMetadata, transform_points
from modules.structures.dataset import NeRFDataset, Split, crop_path, last_eleventh, write_crop
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionTable
from modules.video.reader import VideoReader

MOST_TRAIN_FRAMES = 4000
"""More teach nothing new and do not fit beside each other on a GPU."""
MOUTH_CONDITION = slice(48 * 3, 68 * 3)
"""Where the mouth's points lie in the 204-d condition."""


@dataclass(frozen=True, slots=True)
class BinarizerConfig:
    """What goes into the dataset.

    Attributes:
        max_train_frames: stored training frames at most, spread over lip shapes and poses; up to 4,000. Each takes
            time to cast and about 80 kB of disk: what a minute on two CPU cores can learn from is 400.
        max_val_frames: held-out frames at most, evenly spaced.
        max_occlusion: frames with more of the lower face covered are left out; below it covered pixels are masked.
        hand_reach: hands are missed in single frames, so a frame counts as covered as the worst within this many.
        max_residual: frames whose landmarks fit worse than this share of the inter-ocular distance are left out.
        pose_weight: how much head pose counts beside lip shape when frames are chosen.
        cover_share: share of the training frames chosen to cover lip shapes and poses; the rest are spread over time.
    """

    max_train_frames: int = 400
    max_val_frames: int = 40
    max_occlusion: float = 0.35
    hand_reach: int = 12
    max_residual: float = 0.08
    pose_weight: float = 0.5
    cover_share: float = 0.5

    def __post_init__(self) -> None:
        if not 2 <= self.max_train_frames <= MOST_TRAIN_FRAMES or self.max_val_frames < 0:
            raise ValueError(f"needs max_train_frames in 2..{MOST_TRAIN_FRAMES} and max_val_frames >= 0, got {self}")
        if not 0 <= self.cover_share <= 1 or self.pose_weight < 0:
            raise ValueError(f"needs cover_share in 0..1 and pose_weight >= 0, got {self}")


def binarize(
    workspace: VideoWorkspace,
    video: Path,
    source_sha256: str,
    face_model: FaceModel,
    config: BinarizerConfig,
    progress: Progress,
    *,
    split: Split | None = None,
    into: VideoWorkspace | None = None,
) -> NeRFDataset:
    """Choose frames, cut their crops out of the video and write the dataset.

    Args:
        workspace: the prepared tables.
        video: they belong to.
        source_sha256: its hash.
        face_model: the coefficients' own.
        config: what to choose.
        progress: told about the crops.
        split: which frames train and which are held out; None is GeneFace++'s, the last eleventh.
        into: where the dataset goes; None is ``workspace``.

    Raises:
        NoFaceError: when fewer than two frames can be trained on.
        CheckpointError: the person's correction does not belong to the face model.
    """
    landmarks = Landmarks2D.load(workspace.landmarks)
    metadata = load_crop_metadata(workspace.crop_metadata)
    occlusion = OcclusionTable.load(workspace.occlusion)
    coeffs = FaceModelCoeffs.load(workspace.coeffs)
    model = face_model.corrected(coeffs.correction)
    condition = condition_from_expression(model, coeffs.identity, coeffs.expression)
    usable = usable_frames(landmarks, occlusion, coeffs, config)
    into = into or workspace
    split = split or last_eleventh(len(usable))
    quality = frame_quality(coeffs.residual, occlusion.coverage, config.max_residual)
    rows, is_train = choose_rows(condition, coeffs.euler, usable, quality, split, config)
    if int(is_train.sum()) < 2:
        raise NoFaceError(
            f"{video}: only {int(is_train.sum())} of {len(usable)} frames show an uncovered, well-fitted face; "
            f"training needs at least 2"
        )
    statistics = ConditionStatistics.of(condition[coeffs.valid])
    write_crops(into, video, metadata, occlusion, rows, progress)
    dataset = NeRFDataset(
        video_id=into.video_id,
        source_sha256=source_sha256,
        coeffs=coeffs,
        crop_metadata=metadata,
        condition_mean=statistics.mean,
        condition_std=statistics.std,
        rows=rows,
        is_train=is_train,
        landmarks_px=crop_landmarks(landmarks, metadata, rows),
        occlusion=occlusion.coverage[rows],
        crops_dir=into.crops,
    )
    dataset.save(into.dataset)
    return dataset


def usable_frames(
    landmarks: Landmarks2D, occlusion: OcclusionTable, coeffs: FaceModelCoeffs, config: BinarizerConfig
) -> NDArray[np.bool_]:
    """Frames ``[T]`` with a seen, well-fitted face that little stands in front of."""
    fits = np.nan_to_num(coeffs.residual, nan=np.inf) <= config.max_residual
    covered = steady_coverage(occlusion.coverage, config.hand_reach) > config.max_occlusion
    return landmarks.valid & coeffs.valid & fits & ~covered


def steady_coverage(coverage: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Largest coverage within ``reach`` frames: where a hand was seen, frames without one are not believed."""
    return np.asarray(maximum_filter1d(coverage, 2 * reach + 1, mode="constant"), np.float32)


def choose_rows(
    condition: NDArray[np.float32],
    euler: NDArray[np.float32],
    usable: NDArray[np.bool_],
    quality: NDArray[np.float32],
    split: Split,
    config: BinarizerConfig,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pick the frames to store.

    Args:
        condition: raw condition ``[T, 204]``.
        euler: ``[T, 3]`` rad.
        usable: ``[T]`` frames to choose from.
        quality: ``[T]`` how well they are fitted and seen.
        split: which of them train and which are held out.
        config: how many, and how pose counts.

    Returns:
        Ascending rows ``[N]`` and which of them train ``[N]``.
    """
    train = np.flatnonzero(usable & split.is_train)
    if len(train) > config.max_train_frames:
        features = lip_and_pose_features(condition[train, MOUTH_CONDITION], euler[train], config.pose_weight)
        train = train[choose_frames(features, quality[train], config.max_train_frames, config.cover_share)]
    held_out = np.flatnonzero(usable & split.is_held_out)
    if len(held_out) > config.max_val_frames:
        held_out = held_out[np.linspace(0, len(held_out) - 1, config.max_val_frames).round().astype(int)]
    rows = np.sort(np.concatenate([train, held_out])).astype(np.int64)
    return rows, split.is_train[rows]


def crop_landmarks(landmarks: Landmarks2D, metadata: CropMetadata, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Detected landmarks of ``rows`` in crop pixels, float32 ``[N, 478, 2]``."""
    moved = [transform_points(metadata.crop_from_frame(int(row)), landmarks.points[row]) for row in rows]
    return np.stack(moved).astype(np.float32)


def write_crops(
    workspace: VideoWorkspace,
    video: Path,
    metadata: CropMetadata,
    occlusion: OcclusionTable,
    rows: NDArray[np.int64],
    progress: Progress,
) -> None:
    """Cut ``rows`` out of the video into a fresh crops folder, which replaces the old one when it is whole.

    Crops that a killed run has finished, of the same rows and squares, are not cut again.
    """
    made_from = hashlib.sha256(metadata.to_json().encode() + rows.tobytes() + occlusion.digest().encode()).hexdigest()
    partial = workspace.binary / f"crops.{made_from[:16]}.tmp.d"
    for other in set(workspace.binary.glob("crops.*.tmp.d")) - {partial}:
        shutil.rmtree(other)
    partial.mkdir(parents=True, exist_ok=True)
    missing = {row for row in rows.tolist() if not crop_path(partial, row).is_file()}
    done = len(rows) - len(missing)
    with VideoReader(video) as reader:
        last = max(missing, default=-1)
        frames = takewhile(lambda frame: frame.index <= last, reader.frames()) if missing else ()
        for index, crop in extract_face_crops((frame for frame in frames if frame.index in missing), metadata):
            write_crop(partial, index, crop, occlusion.soft_mask(index, metadata.crop_size))
            done += 1
            progress("crops", done, len(rows))
    shutil.rmtree(workspace.crops, ignore_errors=True)
    partial.rename(workspace.crops)
