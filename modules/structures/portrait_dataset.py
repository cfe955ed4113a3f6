"""A prepared clip as GeneFace++ trains and drives portraits with: BFM coefficients, names of pictures, its speech.

One ``.npz`` without pickle. GeneFace++'s own file stores translations seen from the camera (z minus 10); here they are
stored as fitted, as everywhere in this project, and ``dataset_translation`` gives GeneFace++'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import CameraIntrinsics, camera_pose, dataset_translation

PORTRAIT_SCHEMA = "portrait-dataset/1"


@dataclass(frozen=True, slots=True, eq=False)
class PortraitSamples:
    """The ``N`` frames whose pictures are stored.

    Attributes:
        rows: int64 ``[N]`` clip rows. is_train: bool ``[N]``; the others are held out.
        frame_files: the frame before the still background. head_files, torso_files: RGBA pictures of the parts.
            All are paths relative to where the data lies.
        face_rect, lip_rect: int64 ``[N, 4]`` (left, right, top, bottom) px, half-open.
    """

    rows: NDArray[np.int64]
    is_train: NDArray[np.bool_]
    frame_files: tuple[str, ...]
    head_files: tuple[str, ...]
    torso_files: tuple[str, ...]
    face_rect: NDArray[np.int64]
    lip_rect: NDArray[np.int64]

    def __post_init__(self) -> None:
        count = len(self.rows)
        lengths = {len(self.is_train), len(self.frame_files), len(self.head_files), len(self.torso_files)}
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
        identity: ``[1, 80]`` or ``[T, 80]``. expression: ``[T, 64]``. Both BFM2009's.
        euler: ``[T, 3]`` rad. translation: ``[T, 3]`` as fitted, see ``FaceModelCoeffs``.
        eye_area: ``[T]`` of ``keypoints.eye_area_percent``.
        background: uint8 RGB ``[H, W, 3]``, what is behind the person.
        camera: of the square frames.
        samples: the stored pictures.
        hubert: ``[Th, 1024]`` at 50 Hz. mel: ``[Tm, 80]``. f0_hz: ``[Tm]``, 0 where unvoiced. Of the clip's own sound.
    """

    video_id: str
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]
    eye_area: NDArray[np.float32]
    background: NDArray[np.uint8]
    camera: CameraIntrinsics
    samples: PortraitSamples
    hubert: NDArray[np.float32]
    mel: NDArray[np.float32]
    f0_hz: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.expression)
        shapes = (self.euler.shape, self.translation.shape, self.eye_area.shape)
        if shapes != ((count, 3), (count, 3), (count,)) or len(self.identity) not in (1, count):
            raise ValueError(f"coefficients disagree: {count} frames, got {self.identity.shape}, {shapes}")
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
        parts.update(schema=np.array(PORTRAIT_SCHEMA), video_id=np.array(self.video_id), camera=self.camera.as_array())
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
            frame_files, head_files, torso_files = (tuple(data[f"samples_{name}"].tolist()) for name in _SAMPLE_FILES)
            samples = PortraitSamples(
                rows=data["samples_rows"],
                is_train=data["samples_is_train"],
                frame_files=frame_files,
                head_files=head_files,
                torso_files=torso_files,
                face_rect=data["samples_face_rect"],
                lip_rect=data["samples_lip_rect"],
            )
            return cls(
                video_id=str(data["video_id"]),
                camera=CameraIntrinsics.from_array(data["camera"]),
                samples=samples,
                **{name: data[name] for name in _ARRAYS},
            )


_SAMPLE_ARRAYS = ("rows", "is_train", "face_rect", "lip_rect")
_SAMPLE_FILES = ("frame_files", "head_files", "torso_files")
_ARRAYS = (
    "identity", "expression", "euler", "translation", "eye_area", "background", "hubert", "mel", "f0_hz",
)  # fmt: skip
