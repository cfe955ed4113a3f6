"""The frames of a portrait's clip as training sees them: pictures, what is behind the head, where the face is.

Reads: a dataset's pictures (frames, torsos), one frame at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from modules.commons.errors import CheckpointError
from modules.face_model.portrait_face import PortraitFace
from modules.radnerfs.config import PortraitConfig
from modules.radnerfs.portrait import PortraitFrame
from modules.radnerfs.portrait_motion import HeadPoses, PortraitCameras, PortraitMotion
from modules.radnerfs.rays import RayBundle, pixel_centres, pixel_rays
from modules.structures.portrait_dataset import PortraitDataset

MOST_KEPT_BYTES = 2 << 30
"""Pictures that stay decoded on the device: those of about 1100 frames of 512 px."""


@dataclass(frozen=True, slots=True, eq=False)
class PortraitExample:
    """One frame; pictures are ``[3, S, S]`` 0..1 (full size) and ``[R, 3]`` at the size of the rays, ``R = s²``.

    Attributes:
        frame: what the portrait is shown; its background is the torso over the background, ``[R, 3]``.
        plate: ``[R, 3]`` the background alone. full_plate: ``[3, S, S]``.
        target: ``[R, 3]`` the filmed frame. full_target: ``[3, S, S]``.
        full_behind: ``[3, S, S]`` torso over background.
        rays: ``R`` rays. on_face: bool ``[R]``.
        lip_rect: left, right, top, bottom in pixels of the rays, half-open.
    """

    frame: PortraitFrame
    plate: Tensor
    full_plate: Tensor
    target: Tensor
    full_target: Tensor
    full_behind: Tensor
    rays: RayBundle
    on_face: Tensor
    lip_rect: tuple[int, int, int, int]


class PortraitClip:
    """A dataset's frames, on a device.

    Args:
        dataset: the clip.
        face: of the model that its coefficients belong to, on the CPU.
        config: of the portrait that is trained; it says how large pictures are made, see ``picture_sides``.
        picture_root: folder that the names of the pictures are relative to.
        device: where examples go.

    Raises:
        CheckpointError: the frames are smaller than the portrait's pictures.
    """

    def __init__(
        self,
        dataset: PortraitDataset,
        face: PortraitFace,
        config: PortraitConfig,
        picture_root: Path,
        device: torch.device,
    ) -> None:
        self.dataset, self._root, self.device = dataset, picture_root, device
        self.side, self.full_side = picture_sides(dataset, config)
        motion = PortraitMotion(dataset, face)
        self._windows = motion.own_windows(config.head.smo_win_size)
        self._landmarks = motion.own_landmarks()
        every = HeadPoses.of_rows(dataset, slice(None))
        self.cameras = PortraitCameras.of(every, config.camera_scale, config.camera_offset, None)
        matrix = dataset.camera.matrix()
        matrix[:2] *= self.side / dataset.camera.width
        self.image_from_camera = torch.from_numpy(matrix).float().to(device)
        self._pixels = pixel_centres(self.side, self.side, device)
        self._still = torch.from_numpy(dataset.background).permute(2, 0, 1).to(device).float() / 255
        self._kept: dict[str, Tensor] = {}
        self._faces: dict[int, Tensor] = {}
        self._room = MOST_KEPT_BYTES
        samples = dataset.samples
        self.train, self.held_out = np.flatnonzero(samples.is_train), np.flatnonzero(~samples.is_train)
        # training frames have codes in their order, so that the first one's, which new motion is shown with, is learnt
        self._codes = np.zeros(len(samples), np.int64)
        self._codes[self.train] = np.arange(len(self.train))

    def example(self, index: int) -> PortraitExample:
        """Sample ``index`` of the dataset.

        Raises:
            CheckpointError: a picture is missing or has another size.
        """
        samples, row = self.dataset.samples, int(self.dataset.samples.rows[index])
        shown = self._picture(samples.frame_files[index], 3)
        torso = self._picture(samples.torso_files[index], 4)
        plate = self._plate(index)
        behind = self._sized(torso[:3] * torso[3:] + plate * (1 - torso[3:]), self.full_side)
        shown, plate = self._sized(shown, self.full_side), self._sized(plate, self.full_side)
        landmarks = self._landmarks[row]
        frame = PortraitFrame(
            window=self._windows[row].to(self.device),
            background=self._at_rays(behind),
            pose6=self.cameras.pose6[row].to(self.device),
            landmarks68=landmarks.to(self.device),
            eye_area=float(self.dataset.eye_area[row]),
            row=int(self._codes[index]),
        )
        left, right, top, bottom = (
            int(edge) * self.side // self.dataset.camera.width for edge in samples.lip_rect[index]
        )
        return PortraitExample(
            frame=frame,
            plate=self._at_rays(plate),
            full_plate=plate,
            target=self._at_rays(shown),
            full_target=shown,
            full_behind=behind,
            rays=pixel_rays(self._pixels, self.image_from_camera, self.cameras.poses[row].to(self.device)),
            on_face=self._on_face(row),
            lip_rect=(left, right, top, bottom),
        )

    def _on_face(self, row: int) -> Tensor:
        """Which rays of a clip row meet the face, bool ``[R]``; made once."""
        if row not in self._faces:
            mask = face_mask(self._landmarks[row].numpy() * self.side, self.side)
            self._faces[row] = torch.from_numpy(mask).flatten().to(self.device)
        return self._faces[row]

    def head_mask(self, index: int) -> Tensor:
        """Where the head is in a sample, bool ``[s, s]`` at the size of the rays.

        Raises:
            CheckpointError: see ``example``.
        """
        alpha = self._picture(self.dataset.samples.head_files[index], 4)[3:]
        return self._sized(alpha, self.side)[0] > 0

    def nearest_train(self, index: int) -> int:
        """The training sample whose 68 points lie nearest to those of sample ``index`` in the picture."""
        rows = self.dataset.samples.rows
        apart = self._landmarks[rows[self.train]] - self._landmarks[rows[index]]
        return int(self.train[int(apart.square().sum(dim=(1, 2)).argmin())])

    def _plate(self, index: int) -> Tensor:
        """What is behind the person in a sample, ``[3, H, H]``: the still plate, or the frame's own."""
        own = self.dataset.samples.background_files
        return self._picture(own[index], 3) if own else self._still

    def _picture(self, name: str, channels: int) -> Tensor:
        """``[channels, H, H]`` 0..1 as stored; what was read once stays on the device while there is room for it."""
        if name in self._kept:
            return self._kept[name].float() / 255
        picture = self._decoded(name, channels).to(self.device)
        if picture.numel() <= self._room:
            self._kept[name] = picture
            self._room -= picture.numel()
        return picture.float() / 255

    def _decoded(self, name: str, channels: int) -> Tensor:
        """uint8 ``[channels, H, H]``."""
        side = self.dataset.camera.width
        flag = cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_UNCHANGED
        image = cv2.imread(str(self._root / name), flag)
        if image is None or image.shape != (side, side, channels):
            found = "is missing or cannot be read" if image is None else f"is {image.shape}"
            raise CheckpointError(
                f"{self._root / name} {found}; a picture of {side} px with {channels} channels is needed, so "
                "prepare the video again"
            )
        order = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA
        return torch.from_numpy(cv2.cvtColor(image, order)).permute(2, 0, 1)

    def _at_rays(self, picture: Tensor) -> Tensor:
        """``[3, S, S]`` to ``[R, 3]``."""
        return self._sized(picture, self.side).permute(1, 2, 0).reshape(-1, 3)

    def _sized(self, picture: Tensor, side: int) -> Tensor:
        """A square picture ``[3, H, H]`` at ``side`` px, as GeneFace++ makes it smaller."""
        if picture.shape[1] == side:
            return picture
        small = functional.interpolate(picture[None], (side, side), mode="bilinear", antialias=True)
        return small[0].clamp(0, 1)


def picture_sides(dataset: PortraitDataset, config: PortraitConfig) -> tuple[int, int]:
    """Sides, px, of the pictures that rays make of a clip, and of the finished ones (super-resolution doubles them).

    Raises:
        CheckpointError: the clip's frames are smaller than that.
    """
    stored, doubled = dataset.camera.width, config.super_resolution
    side = config.picture_side or stored if doubled is None else doubled.size
    full_side = side if doubled is None else 2 * side
    if stored < full_side:
        made = "the portrait makes" if doubled is None else "super-resolution makes"
        raise CheckpointError(
            f"{dataset.video_id}: frames are {stored} px, {made} {full_side} px; prepare the video at that size"
        )
    return side, full_side


def face_mask(landmarks_px: NDArray[np.floating], side: int) -> NDArray[np.bool_]:
    """GeneFace++'s ``polygon_face_mask``: the convex hull of landmarks, one pixel wider all around, and blurred by one.

    Args:
        landmarks_px: ``[N, 2]`` (x, y); truncated to whole pixels.
        side: of the square picture.

    Returns:
        bool ``[side, side]``.
    """
    inside = hull_mask(landmarks_px.astype(np.int64), side).astype(np.float32)
    padded = functional.pad(torch.from_numpy(inside)[None, None], (1, 1, 1, 1), mode="reflect")
    wide = functional.pad(functional.max_pool2d(padded, 3, stride=1), (1, 1, 1, 1), mode="reflect")
    return (functional.avg_pool2d(wide, 3, stride=1)[0, 0] > 0).numpy()


def hull_mask(points_px: NDArray[np.int64], side: int) -> NDArray[np.bool_]:
    """Pixels ``[side, side]`` whose (column, row) lies in the convex hull of points ``[N, 2]``, edges included."""
    corners = cv2.convexHull(points_px.astype(np.int32).reshape(-1, 1, 2))[:, 0].astype(np.int64)
    (left, top), (right, bottom) = corners.min(axis=0).clip(0, side), (corners.max(axis=0) + 1).clip(0, side)
    rows, columns = np.mgrid[top:bottom, left:right]
    inside = np.ones(rows.shape, dtype=bool)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        cross = (x1 - x0) * (rows - y0) - (y1 - y0) * (columns - x0)
        middle = (x1 - x0) * (corners[:, 1].mean() - y0) - (y1 - y0) * (corners[:, 0].mean() - x0)
        turn = 1 if middle >= 0 else -1
        inside &= turn * cross >= 0
    mask = np.zeros((side, side), dtype=bool)
    mask[top:bottom, left:right] = inside
    return mask
