"""GeneFace++'s ``trainval_dataset.npy``, read without running anything in it.

Reads: the file. Its translations are seen from the camera (z minus 10, by a slip in GeneFace++'s binarizer that all of
it relies on); the cameras stored beside them prove it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import CheckpointError, first_line
from modules.commons.restricted_pickle import read_pickled_array
from modules.commons.workspace import PORTRAIT_DATASET
from modules.face_model.bfm import BFM_VERSION_PREFIX, N_BFM_EXPRESSION, N_BFM_IDENTITY
from modules.structures.cameras import CameraIntrinsics, camera_pose, fitted_translation
from modules.structures.portrait_dataset import OFFICIAL_SPEECH, PortraitDataset, PortraitSamples

logger = logging.getLogger(__name__)

DATASET_NAME = "trainval_dataset.npy"
N_HUBERT, N_MEL = 1024, 80
LARGEST_POSE_ERROR = 1e-3
"""Cameras are stored in float32; head units / 10."""


def is_official_dataset(path: Path) -> bool:
    """Whether a path names a dataset of GeneFace++, or a folder that holds one."""
    return path.suffix == ".npy" or (path / DATASET_NAME).is_file()


def load_portrait_dataset(path: Path) -> PortraitDataset:
    """Read a dataset: GeneFace++'s own (``.npy``), or an imported one (``.npz``); of a folder the imported one first.

    Raises:
        CheckpointError: missing, damaged, something else, or it holds more than data; the message says what.
    """
    if (path / PORTRAIT_DATASET).is_file():
        path = path / PORTRAIT_DATASET
    if path.is_dir() and not is_official_dataset(path):
        raise CheckpointError(
            f"{path}: holds neither {PORTRAIT_DATASET} nor GeneFace++'s {DATASET_NAME}; put one there"
        )
    if is_official_dataset(path):
        return read_official_dataset(path / DATASET_NAME if path.is_dir() else path)
    try:
        return PortraitDataset.load(path)
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{path}: not a prepared portrait ({first_line(error)}); import it again") from error


def read_official_dataset(file: Path) -> PortraitDataset:
    """GeneFace++'s file as our dataset; the clip is named after the folder.

    Raises:
        CheckpointError: see ``load_portrait_dataset``.
    """
    values = read_pickled_array(file)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: holds a {type(values).__name__}, not GeneFace++'s dataset; prepare it again")
    try:
        dataset = _dataset(values, file.resolve().parent.name)
        _check_cameras(dataset, values)
    except (KeyError, ValueError, TypeError) as error:
        lacks = f"it lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise CheckpointError(f"{file}: not a dataset of GeneFace++ ({lacks}); prepare the video again") from error
    logger.info("%s: %d frames, %d pictures", file, len(dataset), len(dataset.samples))
    return dataset


def _dataset(values: Mapping[str, Any], video_id: str) -> PortraitDataset:
    background = _numbers(values, "bg_img", (-1, -1, 3), np.uint8)
    return PortraitDataset(
        video_id=video_id,
        face_model_version=BFM_VERSION_PREFIX,
        identity=_numbers(values, "id", (-1, N_BFM_IDENTITY)),
        expression=_numbers(values, "exp", (-1, N_BFM_EXPRESSION)),
        euler=_numbers(values, "euler", (-1, 3)),
        translation=fitted_translation(_numbers(values, "trans", (-1, 3))),
        eye_area=_numbers(values, "eye_area_percent", (-1,)),
        background=background,
        camera=_camera(values, background),
        samples=_samples(values),
        speech=_numbers(values, "hubert", (-1, N_HUBERT)),
        speech_extractor=OFFICIAL_SPEECH,
        mel=_numbers(values, "mel", (-1, N_MEL)),
        f0_hz=_numbers(values, "f0", (-1,)),
    )


def _camera(values: Mapping[str, Any], background: NDArray[np.uint8]) -> CameraIntrinsics:
    """Intrinsics of the whole frame from those of the canvas it was fitted on (``cx`` is half its side)."""
    height, width = background.shape[:2]
    focal, cx, cy = (float(values[key]) for key in ("focal", "cx", "cy"))
    return CameraIntrinsics(focal * width / (2 * cx), focal * height / (2 * cy), width / 2, height / 2, width, height)


def _numbers(values: Mapping[str, Any], key: str, shape: tuple[int, ...], kind: type = np.float32) -> Any:
    """An array of finite numbers in the shape wanted (-1: any length); a missing trailing axis of 1 is no fault."""
    array = np.asarray(values[key])
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{key} must hold numbers, it holds {array.dtype}")
    if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
        array = array[..., 0]
    fits = array.ndim == len(shape) and all(b in (-1, a) for a, b in zip(array.shape, shape, strict=True))
    if not fits or not np.isfinite(array).all():
        raise ValueError(f"{key} must be finite numbers of the shape {list(shape)}, got {list(array.shape)}")
    return array.astype(kind)


def _samples(values: Mapping[str, Any]) -> PortraitSamples:
    train, held_out = _listed(values, "train_samples"), _listed(values, "val_samples")
    every = [*train, *held_out]
    return PortraitSamples(
        rows=np.array([int(sample["idx"]) for sample in every], np.int64),
        is_train=np.arange(len(every)) < len(train),
        frame_files=_files(every, "gt_img_fname"),
        head_files=_files(every, "head_img_fname"),
        torso_files=_files(every, "torso_img_fname"),
        face_rect=np.array([sample["face_rect"] for sample in every], np.int64),
        lip_rect=np.array([sample["lip_rect"] for sample in every], np.int64),
    )


def _listed(values: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    samples = values[key]
    samples = samples.tolist() if isinstance(samples, np.ndarray) else samples
    if not isinstance(samples, (list, tuple)) or not all(isinstance(sample, dict) for sample in samples):
        raise ValueError(f"{key} must be a list of samples")
    return samples


def _files(samples: Sequence[Mapping[str, Any]], key: str) -> tuple[str, ...]:
    """Names of pictures, which may not lead out of the data's own folders."""
    names = tuple(str(sample[key]) for sample in samples)
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{key} {name!r} leads out of the data's folders")
    return names


def _check_cameras(dataset: PortraitDataset, values: Mapping[str, Any]) -> None:
    """The cameras stored with the samples are those of poses whose translations are seen from the camera."""
    every = [*_listed(values, "train_samples"), *_listed(values, "val_samples")]
    stored = np.array([np.asarray(sample["c2w"], np.float32).reshape(4, 4) for sample in every])
    rows = dataset.samples.rows
    made = camera_pose(dataset.euler[rows], dataset.translation[rows])
    error = float(np.abs(made - stored).max())
    if error > LARGEST_POSE_ERROR:
        z = float(np.median(np.asarray(values["trans"])[:, 2]))
        raise ValueError(
            f"its trans (z about {z:.1f}) and its c2w are {error:.2g} apart; GeneFace++ stores z minus 10, about -10"
        )
