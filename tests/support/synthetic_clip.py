"""A prepared clip of the synthetic speaker: exact coefficients, painted crops, as the binarizer would store them."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.commons.workspace import VideoWorkspace
from modules.radnerfs.condition import ConditionStatistics, condition_from_expression
from modules.structures.crops import CropMetadata, CropRegion, transform_points, warp_affine
from modules.structures.dataset import NeRFDataset, last_eleventh, write_crop
from tests.support.synthetic_head import Occluder, SyntheticSpeaker

CROP_SIZE = 256
SIZE_HW, FACE_PX = (240, 320), 130.0
REGION = CropRegion(160.0, 125.0, 200.0)


def prepare_synthetic_clip(
    data_root: Path, video_id: str = "clip", n_frames: int = 22, seed: int = 3, occluded_row: int | None = None
) -> tuple[NeRFDataset, SyntheticSpeaker]:
    """Write a painted clip's dataset below ``data_root``; one frame may have an occluder over the mouth.

    A process paints each clip once.
    """
    speaker = SyntheticSpeaker(seed, size_hw=SIZE_HW, face_px=FACE_PX)
    coeffs = speaker.coeffs(n_frames)
    landmarks = speaker.landmarks(coeffs)
    workspace = VideoWorkspace(video_id, data_root)
    workspace.crops.mkdir(parents=True)
    metadata = CropMetadata((REGION,), SIZE_HW, CROP_SIZE)
    for row, (crop, hidden) in enumerate(_painted_crops(n_frames, seed, occluded_row)):
        write_crop(workspace.crops, row, crop, hidden)
    condition = condition_from_expression(speaker.model, coeffs.identity, coeffs.expression)
    statistics = ConditionStatistics.of(condition)
    points = [transform_points(metadata.crop_from_frame(row), landmarks.points[row]) for row in range(n_frames)]
    dataset = NeRFDataset(
        video_id=video_id,
        source_sha256="0" * 64,
        coeffs=coeffs,
        crop_metadata=metadata,
        condition_mean=statistics.mean,
        condition_std=statistics.std,
        rows=np.arange(n_frames),
        is_train=last_eleventh(n_frames).is_train,
        landmarks_px=np.stack(points).astype(np.float32),
        occlusion=np.zeros(n_frames, np.float32),
        crops_dir=workspace.crops,
    )
    dataset.save(workspace.dataset)
    return dataset, speaker


@functools.cache
def _painted_crops(
    n_frames: int, seed: int, occluded_row: int | None
) -> list[tuple[NDArray[np.uint8], NDArray[np.bool_]]]:
    """Every frame's crop, and where something hides the face in it."""
    speaker = SyntheticSpeaker(seed, size_hw=SIZE_HW, face_px=FACE_PX)
    coeffs = speaker.coeffs(n_frames)
    landmarks = speaker.landmarks(coeffs)
    metadata, size = CropMetadata((REGION,), SIZE_HW, CROP_SIZE), (CROP_SIZE, CROP_SIZE)
    painted = []
    for row in range(n_frames):
        occluder = None
        if row == occluded_row:
            mouth = landmarks.points[row, [13, 14]].mean(axis=0)
            occluder = Occluder((float(mouth[0]), float(mouth[1])), (30.0, 18.0))
        frame = speaker.frame(coeffs, row, occluder)
        crop = warp_affine(frame.rgb, metadata.crop_from_frame(row), size)
        hidden = warp_affine(frame.occlusion, metadata.crop_from_frame(row), size) > 0.5
        painted.append((np.asarray(crop), np.asarray(hidden)))
    return painted
