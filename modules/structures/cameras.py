"""Camera intrinsics, and every conversion between a fitted head pose and the NeRF's camera poses.

Rotations act on row vectors (``X' = X · R``), as in GeneFace++; poses are ``[..., 4, 4]`` world_from_camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

CAMERA_DISTANCE = 10.0
"""GeneFace++'s camera stands at z = 10 in head units."""

CAMERA_POSITION = (0.0, 0.0, CAMERA_DISTANCE)
"""The same as a point."""

NERF_SCALE = 4.0
"""GeneFace++'s ``camera_scale``: head units / 10 · 4 are NGP world units (camera at about 4, face within ±0.4)."""


@dataclass(frozen=True, slots=True)
class CameraIntrinsics:
    """Pinhole camera in continuous pixels of an image of ``width`` × ``height``."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0 and self.width > 0 and self.height > 0):
            raise ValueError(f"camera needs positive focal lengths and size: {self}")

    def matrix(self) -> NDArray[np.float64]:
        """``[3, 3]`` image_from_camera matrix (camera x right, y down, z forward)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def as_array(self) -> NDArray[np.float64]:
        return np.array([self.fx, self.fy, self.cx, self.cy, self.width, self.height], dtype=np.float64)

    @classmethod
    def from_array(cls, values: NDArray[np.float64]) -> CameraIntrinsics:
        fx, fy, cx, cy, width, height = (float(v) for v in values)
        return cls(fx, fy, cx, cy, int(width), int(height))

    @classmethod
    def for_frame(cls, width: int, height: int, focal_scale: float = 1.2) -> CameraIntrinsics:
        """Camera of an unknown lens: focal length ``focal_scale`` × the longer side, centred."""
        focal = focal_scale * max(width, height)
        return cls(focal, focal, width / 2, height / 2, width, height)

    @classmethod
    def geneface(cls, size: int) -> CameraIntrinsics:
        """GeneFace++'s camera of a ``size`` × ``size`` crop: focal length 1015 per 224 px, centred."""
        focal = 1015.0 * (size / 2) / 112.0
        return cls(focal, focal, size / 2, size / 2, size, size)


def crop_camera_matrix(frame_camera: CameraIntrinsics, crop_from_frame: NDArray[np.float64]) -> NDArray[np.float64]:
    """``K_crop = crop_from_frame · K_frame``, ``[3, 3]``."""
    return crop_from_frame @ frame_camera.matrix()


def rotation_matrices(euler: NDArray) -> NDArray:
    """Row-vector rotations ``(Rz · Ry · Rx)ᵀ`` of euler angles: ``[..., 3]`` rad to ``[..., 3, 3]``, same dtype."""
    (sx, sy, sz), (cx, cy, cz) = np.moveaxis(np.sin(euler), -1, 0), np.moveaxis(np.cos(euler), -1, 0)
    rows = (
        (cy * cz, cy * sz, -sy),
        (sx * sy * cz - cx * sz, sx * sy * sz + cx * cz, sx * cy),
        (cx * sy * cz + sx * sz, cx * sy * sz - sx * cz, cx * cy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def euler_from_rotation(rotation: NDArray) -> NDArray:
    """Inverse of ``rotation_matrices`` for ``|euler_y| < π/2``: ``[..., 3, 3]`` to ``[..., 3]`` rad."""
    x = np.arctan2(rotation[..., 1, 2], rotation[..., 2, 2])
    y = np.arcsin(np.clip(-rotation[..., 0, 2], -1.0, 1.0))
    z = np.arctan2(rotation[..., 0, 1], rotation[..., 0, 0])
    return np.stack([x, y, z], axis=-1)


def dataset_translation(translation: NDArray) -> NDArray:
    """A fitted translation as GeneFace++'s datasets store it, seen from the camera (z minus 10): ``[..., 3]``."""
    return translation - np.array(CAMERA_POSITION, translation.dtype)


def fitted_translation(stored: NDArray) -> NDArray:
    """Inverse of ``dataset_translation``: what GeneFace++'s datasets store to the fitted translation, ``[..., 3]``."""
    return stored + np.array(CAMERA_POSITION, stored.dtype)


def camera_pose(euler: NDArray, translation: NDArray) -> NDArray:
    """GeneFace++'s ``c2w`` of a head pose: the head stands still at the origin and the camera moves.

    The camera is OpenGL-like (x right, y up, looks along -z); world units are head units / 10, so the camera's
    distance is about 1.

    Args:
        euler: ``[..., 3]`` rad.
        translation: ``[..., 3]`` as fitted (the camera at z = 10 is not yet subtracted).

    Returns:
        ``[..., 4, 4]`` world_from_camera.
    """
    rotation = rotation_matrices(euler)
    from_camera = dataset_translation(translation) / CAMERA_DISTANCE
    pose = np.zeros((*rotation.shape[:-2], 4, 4), rotation.dtype)
    pose[..., :3, :3] = rotation
    pose[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, from_camera)
    pose[..., 3, 3] = 1.0
    return pose


def head_pose(pose: NDArray) -> tuple[NDArray, NDArray]:
    """Inverse of ``camera_pose``: ``[..., 4, 4]`` to euler ``[..., 3]`` rad and translation ``[..., 3]``."""
    rotation = pose[..., :3, :3]
    from_camera = -np.einsum("...ji,...j->...i", rotation, pose[..., :3, 3])
    return euler_from_rotation(rotation), fitted_translation(from_camera * CAMERA_DISTANCE)


def ngp_pose(pose: NDArray, scale: float = NERF_SCALE, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> NDArray:
    """OpenGL-like ``c2w`` to the NGP world: ``[..., 4, 4]`` to ``[..., 4, 4]``.

    The world's axes are cycled (NGP x = head's up, y = head's depth, z = head's left-right) and the camera becomes
    OpenCV-like (x right, y down, z forward).
    """
    cycled = pose[..., [1, 2, 0], :] * np.array([1.0, -1.0, -1.0, scale], pose.dtype)
    cycled[..., :, 3] += np.asarray(offset, pose.dtype)
    bottom = np.broadcast_to(np.array([0.0, 0.0, 0.0, 1.0], pose.dtype), (*pose.shape[:-2], 1, 4))
    return np.concatenate([cycled, bottom], axis=-2)


def pose6(ngp: NDArray) -> NDArray:
    """Six numbers of an NGP pose: euler XYZ (``R = Rx · Ry · Rz``) and position, ``[..., 4, 4]`` to ``[..., 6]``."""
    a = np.arctan2(-ngp[..., 1, 2], ngp[..., 2, 2])
    b = np.arcsin(np.clip(ngp[..., 0, 2], -1.0, 1.0))
    c = np.arctan2(-ngp[..., 0, 1], ngp[..., 0, 0])
    return np.concatenate([np.stack([a, b, c], axis=-1), ngp[..., :3, 3]], axis=-1)


def smooth_camera_path(poses: NDArray, window: int = 7) -> NDArray:
    """Mean pose in a centred window that is cut at the ends: ``[T, 4, 4]`` to ``[T, 4, 4]``, same dtype."""
    half = window // 2
    smooth = poses.copy()
    for index in range(len(poses)):
        near = poses[max(0, index - half) : index + half + 1]
        smooth[index, :3, :3] = Rotation.from_matrix(near[:, :3, :3]).mean().as_matrix()
        smooth[index, :3, 3] = near[:, :3, 3].mean(axis=0)
    return smooth
