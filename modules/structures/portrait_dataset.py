"""A prepared clip as GeneFace++ trains and drives portraits with: coefficients, names of pictures, its speech.

One ``.npz`` without pickle. Its coefficients are BFM2009's where it comes from GeneFace++, else of the model that the
clip was fitted with; ``face_model_version`` says which. GeneFace++'s own file stores translations seen from the camera
(z minus 10); here they are stored as fitted, as everywhere in this project, and ``dataset_translation`` gives
GeneFace++'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import CameraIntrinsics, camera_pose, dataset_translation

PORTRAIT_SCHEMA = "portrait-dataset/2"
OFFICIAL_SPEECH = "hubert-large-ls960-ft"
"""The features that GeneFace++'s datasets hold."""


@dataclass(frozen=True, slots=True, eq=False)
class PortraitSamples:
    """The ``N`` frames whose pictures are stored.

    Attributes:
        rows: int64 ``[N]`` clip rows. is_train: bool ``[N]``; the others are held out.
        frame_files: the frame before the still background. head_files, torso_files: RGBA pictures of the parts.
            All are paths relative to where the data lies.
        face_rect, lip_rect: int64 ``[N, 4]`` (left, right, top, bottom) px, half-open.
        background_files: what is behind the person in each frame, where the camera moves; empty = the clip's still
            background, in every frame.
    """

    rows: NDArray[np.int64]
    is_train: NDArray[np.bool_]
    frame_files: tuple[str, ...]
    head_files: tuple[str, ...]
    torso_files: tuple[str, ...]
    face_rect: NDArray[np.int64]
    lip_rect: NDArray[np.int64]
    background_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.rows)
        behind = len(self.background_files) or count
        lengths = {len(self.is_train), len(self.frame_files), len(self.head_files), len(self.torso_files), behind}
        rects = {self.face_rect.shape, self.lip_rect.shape}
        if count == 0 or lengths != {count} or rects != {(count, 4)}:
            raise ValueError(
                f"samples disagree: {count} rows, lists of {sorted(lengths)}, face_rect {self.face_rect.shape}"
            )

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True, eq=False)
class PortraitDataset:
    """One person's clip of ``T`` frames.

    Attributes:
        video_id: name of the clip.
        face_model_version: of the model that the coefficients belong to. BFM2009's begins with ``bfm-``; a dataset of
            GeneFace++'s does not say which file it was made with, and has that beginning alone.
        identity: ``[1, I]`` or ``[T, I]``. expression: ``[T, E]``.
        euler: ``[T, 3]`` rad. translation: ``[T, 3]`` as fitted, see ``FaceModelCoeffs``.
        eye_area: ``[T]`` of ``keypoints.eye_area_percent``.
        background: uint8 RGB ``[H, W, 3]``, what is behind the person.
        camera: of the square frames, the same in all of them; the principal point need not be their centre.
        samples: the stored pictures.
        speech: ``[Th, C]`` rows of the features ``speech_extractor``. mel: ``[Tm, 80]``. f0_hz: ``[Tm]``, 0 where
            unvoiced. All at 50 Hz, of the clip's own sound; without rows where it has none, or nothing can make them.
        correction: ``[I, E]`` of the person's expression units, see ``FittedPerson``; None = none.
    """

    video_id: str
    face_model_version: str
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]
    eye_area: NDArray[np.float32]
    background: NDArray[np.uint8]
    camera: CameraIntrinsics
    samples: PortraitSamples
    speech: NDArray[np.float32]
    speech_extractor: str
    mel: NDArray[np.float32]
    f0_hz: NDArray[np.float32]
    correction: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        count = len(self.expression)
        shapes = (self.euler.shape, self.translation.shape, self.eye_area.shape)
        if shapes != ((count, 3), (count, 3), (count,)) or len(self.identity) not in (1, count):
            raise ValueError(f"coefficients disagree: {count} frames, got {self.identity.shape}, {shapes}")
        wanted = (self.identity.shape[1], self.expression.shape[1])
        if self.correction is not None and self.correction.shape != wanted:
            raise ValueError(f"a correction of these units must be {wanted}, got {self.correction.shape}")
        if self.samples.rows.min() < 0 or self.samples.rows.max() >= count:
            raise ValueError(f"samples name rows up to {self.samples.rows.max()}, the clip has {count} frames")
        if self.background.shape != (self.camera.height, self.camera.width, 3):
            raise ValueError(f"the background is {self.background.shape}, the camera's frames are {self.camera}")

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def stored_translation(self) -> NDArray[np.float32]:
        """``[T, 3]`` as GeneFace++'s datasets have it."""
        return dataset_translation(self.translation)

    def camera_poses(self) -> NDArray[np.float32]:
        """GeneFace++'s ``c2w`` of every frame, ``[T, 4, 4]``."""
        return camera_pose(self.euler, self.translation)

    def save(self, path: Path) -> None:
        """Write through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        parts = {name: getattr(self, name) for name in _ARRAYS}
        names = (*_SAMPLE_ARRAYS, *_SAMPLE_FILES)
        parts.update({f"samples_{name}": np.array(getattr(self.samples, name)) for name in names})
        parts.update({name: np.array(getattr(self, name)) for name in _NAMES})
        none = np.zeros((0, 0), np.float32)
        parts.update(
            schema=np.array(PORTRAIT_SCHEMA),
            camera=self.camera.as_array(),
            correction=none if self.correction is None else self.correction,
        )
        np.savez(temporary, allow_pickle=False, **parts)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> PortraitDataset:
        """Read what ``save`` wrote.

        Raises:
            ValueError: when the file is not this schema.
        """
        with np.load(path, allow_pickle=False) as data:
            found = str(data["schema"]) if "schema" in data else "none"
            if found != PORTRAIT_SCHEMA:
                raise ValueError(f"{path} holds schema {found}, expected {PORTRAIT_SCHEMA}")
            files: dict[str, Any] = {name: tuple(data[f"samples_{name}"].tolist()) for name in _SAMPLE_FILES}
            tables: dict[str, Any] = {name: data[f"samples_{name}"] for name in _SAMPLE_ARRAYS}
            return cls(
                camera=CameraIntrinsics.from_array(data["camera"]),
                samples=PortraitSamples(**tables, **files),
                correction=data["correction"] if data["correction"].size else None,
                **{name: str(data[name]) for name in _NAMES},
                **{name: data[name] for name in _ARRAYS},
            )


_SAMPLE_ARRAYS = ("rows", "is_train", "face_rect", "lip_rect")
_SAMPLE_FILES = ("frame_files", "head_files", "torso_files", "background_files")
_NAMES = ("video_id", "face_model_version", "speech_extractor")
_ARRAYS = (
    "identity", "expression", "euler", "translation", "eye_area", "background", "speech", "mel", "f0_hz",
)  # fmt: skip
