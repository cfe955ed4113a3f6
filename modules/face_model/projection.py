"""Head space to image pixels, differentiable, in ``FaceModelCoeffs``' convention.

A vertex X (row vector, head space, dm) goes to ``X' = X · R(euler) + translation``; the camera stands at z = 10
and looks along -z: ``depth = 10 - z'``, ``u = cx + fx·x'/depth``, ``v = cy - fy·y'/depth``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics


def rotation_from_euler(euler: Tensor) -> Tensor:
    """Rotation that acts on row vectors, ``X' = X · R``: the transpose of Rz·Ry·Rx.

    Seen by the camera, a positive x angle turns the face down, a positive y angle turns it towards the image's
    right, a positive z angle rolls it counter-clockwise. Differentiable in ``euler``.

    Args:
        euler: ``[..., 3]`` angles about x, y, z, rad.

    Returns:
        ``[..., 3, 3]``, same dtype and device.
    """
    cos_x, cos_y, cos_z = torch.cos(euler).unbind(-1)
    sin_x, sin_y, sin_z = torch.sin(euler).unbind(-1)
    # rows of R are the columns of Rz·Ry·Rx
    rows = (
        (cos_y * cos_z, cos_y * sin_z, -sin_y),
        (sin_x * sin_y * cos_z - cos_x * sin_z, sin_x * sin_y * sin_z + cos_x * cos_z, sin_x * cos_y),
        (cos_x * sin_y * cos_z + sin_x * sin_z, cos_x * sin_y * sin_z - sin_x * cos_z, cos_x * cos_y),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def to_camera(points: Tensor, euler: Tensor, translation: Tensor) -> Tensor:
    """Pose head-space points: ``X · R(euler) + translation``.

    Args:
        points: ``[T, N, 3]`` (or ``[1, N, 3]``) dm.
        euler: ``[T, 3]`` rad.
        translation: ``[T, 3]`` dm.

    Returns:
        ``[T, N, 3]`` dm, x right, y up, z towards the camera.
    """
    return points @ rotation_from_euler(euler) + translation[..., None, :]


def project(points: Tensor, euler: Tensor, translation: Tensor, camera: CameraIntrinsics) -> tuple[Tensor, Tensor]:
    """Project head-space points into the image of ``camera``; differentiable in all tensors.

    Args:
        points: ``[T, N, 3]`` (or ``[1, N, 3]``) dm.
        euler: ``[T, 3]`` rad.
        translation: ``[T, 3]`` dm.
        camera: intrinsics in pixels.

    Returns:
        ``[T, N, 2]`` px (x right, y down, continuous) and ``[T, N]`` depth, dm in front of the camera. Points at
        or behind the camera have depth ≤ 0 and meaningless pixels.
    """
    posed = to_camera(points, euler, translation)  # [T, N, 3]
    depth = CAMERA_DISTANCE - posed[..., 2]  # [T, N]
    u = camera.cx + camera.fx * posed[..., 0] / depth
    v = camera.cy - camera.fy * posed[..., 1] / depth
    return torch.stack([u, v], dim=-1), depth
