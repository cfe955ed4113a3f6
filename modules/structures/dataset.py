"""The prepared clip that training reads: the only thing data_gen and tasks share.

A dataset is ``trainval_dataset.npz`` (numbers, no pickle) beside ``crops/``: ``000123.jpg`` is the crop of clip row
123 and ``000123_mask.png`` says what must not be learnt from it (255 = something in front of the face, with a soft
edge); a crop without a mask file has nothing in front of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import CameraIntrinsics, crop_camera_matrix
from modules.structures.crops import CropMetadata
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import N_MEDIAPIPE

DATASET_SCHEMA = "radnerf-dataset/2"
CONDITION_DIM = 204
"""68 landmarks × xyz, the condition of the field."""
JPEG_QUALITY = 95
HIDDEN_FROM = 0.2
"""Pixels that are this likely to show something else are not learnt from."""


@dataclass(frozen=True, slots=True, eq=False)
class NeRFDataset:
    """One person's clip, ready for training.

    Attributes:
        video_id: name of the clip.
        source_sha256: hash of the video file the crops come from.
        coeffs: 3DMM coefficients of the whole clip, ``T`` rows (conditions need a stored frame's neighbours too).
        crop_metadata: where the crops lie in the frames.
        condition_mean, condition_std: ``[204]`` statistics that z-score the landmark condition.
        rows: ``[N]`` int64, ascending clip rows whose crop is stored.
        is_train: ``[N]`` bool; the others are held out.
        landmarks_px: ``[N, 478, 2]`` detected landmarks in crop pixels.
        occlusion: ``[N]`` float32, share of the lower face that something covers, 0..1.
        crops_dir: folder of the images.
    """

    video_id: str
    source_sha256: str
    coeffs: FaceModelCoeffs
    crop_metadata: CropMetadata
    condition_mean: NDArray[np.float32]
    condition_std: NDArray[np.float32]
    rows: NDArray[np.int64]
    is_train: NDArray[np.bool_]
    landmarks_px: NDArray[np.float32]
    occlusion: NDArray[np.float32]
    crops_dir: Path

    def __post_init__(self) -> None:
        count = len(self.rows)
        if count == 0 or not (np.diff(self.rows) > 0).all() or self.rows[-1] >= len(self.coeffs) or self.rows[0] < 0:
            raise ValueError(f"dataset rows must ascend within the clip's {len(self.coeffs)} frames, got {self.rows}")
        shapes = (self.is_train.shape, self.landmarks_px.shape, self.occlusion.shape)
        if shapes != ((count,), (count, N_MEDIAPIPE, 2), (count,)):
            raise ValueError(f"dataset arrays disagree: {count} rows, got {shapes}")
        if self.condition_mean.shape != (CONDITION_DIM,) or self.condition_std.shape != (CONDITION_DIM,):
            raise ValueError(f"condition statistics must be [{CONDITION_DIM}], got {self.condition_mean.shape}")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def crop_size(self) -> int:
        return self.crop_metadata.crop_size

    def camera_matrix(self, index: int) -> NDArray[np.float64]:
        """``[3, 3]`` camera of stored crop ``index``: ``K_crop = crop_from_frame · K_frame``."""
        return crop_camera_matrix(self.coeffs.camera, self.crop_metadata.crop_from_frame(int(self.rows[index])))

    def crop_path(self, index: int) -> Path:
        return crop_path(self.crops_dir, int(self.rows[index]))

    def mask_path(self, index: int) -> Path:
        return self.crops_dir / f"{int(self.rows[index]):06d}_mask.png"

    def crop(self, index: int) -> NDArray[np.uint8]:
        """RGB crop ``[S, S, 3]`` of stored row ``index``.

        Raises:
            ValueError: when the image is missing or has another size.
        """
        image = cv2.imread(str(self.crop_path(index)), cv2.IMREAD_COLOR)
        if image is None or image.shape[:2] != (self.crop_size, self.crop_size):
            raise ValueError(
                f"{self.crop_path(index)} is missing or is not {self.crop_size} px square; prepare the video again"
            )
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def occluder(self, index: int) -> NDArray[np.float32] | None:
        """How likely something is in front of each pixel, ``[S, S]`` 0..1, or None when nothing is in front at all."""
        if not self.mask_path(index).exists():
            return None
        mask = cv2.imread(str(self.mask_path(index)), cv2.IMREAD_GRAYSCALE)
        if mask is None or mask.shape != (self.crop_size, self.crop_size):
            raise ValueError(f"{self.mask_path(index)} cannot be read as a mask; prepare the video again")
        return np.asarray(mask, np.float32) / np.float32(255)

    def hidden(self, index: int) -> NDArray[np.bool_] | None:
        """Pixels ``[S, S]`` that teach nothing because something may be in front, or None when nothing is."""
        occluder = self.occluder(index)
        return None if occluder is None else occluder > HIDDEN_FROM

    def inside_frame(self, index: int) -> NDArray[np.bool_]:
        """Crop pixels ``[S, S]`` whose centre lies in the frame; the others repeat its edge and show nothing."""
        height, width = self.crop_metadata.frame_size_hw
        frame_from_crop = self.crop_metadata.frame_from_crop(int(self.rows[index]))
        centres = np.arange(self.crop_size) + 0.5
        along_row, along_column = (
            centres[None, :, None] * frame_from_crop[:2, 0],
            centres[:, None] * frame_from_crop[:2, 1],
        )
        points = along_row + (along_column + frame_from_crop[:2, 2])[:, None]  # [S, S, 2] x, y
        return (points[..., 0] > 0) & (points[..., 0] < width) & (points[..., 1] > 0) & (points[..., 1] < height)

    def save(self, path: Path) -> None:
        """Write the numbers through a temporary name; the images are written by ``write_crop``."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(
            temporary,
            schema=np.array(DATASET_SCHEMA),
            video_id=np.array(self.video_id),
            source_sha256=np.array(self.source_sha256),
            crop_metadata=np.array(self.crop_metadata.to_json()),
            condition_mean=self.condition_mean,
            condition_std=self.condition_std,
            rows=self.rows,
            is_train=self.is_train,
            landmarks_px=self.landmarks_px,
            occlusion=self.occlusion,
            identity=self.coeffs.identity,
            expression=self.coeffs.expression,
            euler=self.coeffs.euler,
            translation=self.coeffs.translation,
            valid=self.coeffs.valid,
            residual=self.coeffs.residual,
            camera=self.coeffs.camera.as_array(),
            face_model_version=np.array(self.coeffs.face_model_version),
            correction=np.zeros((0, 0), np.float32) if self.coeffs.correction is None else self.coeffs.correction,
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> NeRFDataset:
        """Read what ``save`` wrote; the crops lie beside it.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            found = str(data["schema"]) if "schema" in data else "none"
            if found != DATASET_SCHEMA:
                raise ValueError(f"{path} holds schema {found}, expected {DATASET_SCHEMA}; prepare the video again")
            coeffs = FaceModelCoeffs(
                identity=data["identity"],
                expression=data["expression"],
                euler=data["euler"],
                translation=data["translation"],
                valid=data["valid"],
                residual=data["residual"],
                camera=CameraIntrinsics.from_array(data["camera"]),
                face_model_version=str(data["face_model_version"]),
                correction=data["correction"] if data["correction"].size else None,
            )
            return cls(
                video_id=str(data["video_id"]),
                source_sha256=str(data["source_sha256"]),
                coeffs=coeffs,
                crop_metadata=CropMetadata.from_json(str(data["crop_metadata"]), path),
                condition_mean=data["condition_mean"],
                condition_std=data["condition_std"],
                rows=data["rows"],
                is_train=data["is_train"],
                landmarks_px=data["landmarks_px"],
                occlusion=data["occlusion"],
                crops_dir=path.parent / "crops",
            )


def write_crop(
    crops_dir: Path, row: int, crop: NDArray[np.uint8], occluder: NDArray[np.float32] | NDArray[np.bool_] | None
) -> None:
    """Store the RGB crop ``[S, S, 3]`` of clip row ``row`` and, before it, where something is in front, its mask.

    Args:
        crops_dir: of the dataset.
        row: of the clip.
        crop: the picture.
        occluder: ``[S, S]`` 0..1; None = nothing is in front.
    """
    if occluder is not None and occluder.any():
        levels = np.round(occluder.astype(np.float32) * 255).astype(np.uint8)
        write_image(crops_dir / f"{row:06d}_mask.png", levels, [])
    options = [
        cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]  # fmt: skip
    write_image(crop_path(crops_dir, row), cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), options)


def crop_path(crops_dir: Path, row: int) -> Path:
    """Where the crop of clip row ``row`` lies; it is there only when its mask is, too."""
    return crops_dir / f"{row:06d}.jpg"


def write_image(path: Path, image: NDArray, options: list[int]) -> None:
    """Encode a picture in OpenCV's channel order as its name's ending says, and write it through a temporary name.

    Raises:
        ValueError: it cannot be encoded so.
    """
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise ValueError(f"{path} cannot be encoded from an image of shape {image.shape}")
    temporary = path.with_suffix(".tmp" + path.suffix)
    temporary.write_bytes(data.tobytes())
    temporary.replace(path)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Which clip rows ``[T]`` may be learnt from and which are held out; a row may be neither."""

    is_train: NDArray[np.bool_]
    is_held_out: NDArray[np.bool_]


def last_eleventh(n_frames: int) -> Split:
    """GeneFace++'s split over clip rows: the first ``T // 11 * 10`` train, the rest are held out."""
    is_train = np.arange(n_frames) < n_frames // 11 * 10
    return Split(is_train, ~is_train)


def block_folds(times_s: NDArray[np.float64], count: int = 5, guard_s: float = 0.5) -> list[Split]:
    """``count`` splits whose held-out rows are contiguous, cover the clip and do not overlap.

    Args:
        times_s: ``[T]`` rising frame times.
        count: folds.
        guard_s: rows nearer than this to a held-out row are not learnt from.
    """
    fold = np.arange(len(times_s)) * count // max(len(times_s), 1)
    splits = []
    for number in range(count):
        held_out = fold == number
        near = np.zeros(len(times_s), dtype=bool)
        if held_out.any():
            first, last = times_s[held_out][[0, -1]]
            near = (times_s > first - guard_s) & (times_s < last + guard_s)
        splits.append(Split(~near & ~held_out, held_out))
    return splits
