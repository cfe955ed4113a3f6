"""Which of the model's landmarks face the camera: outward directions of the skin and what they make of a weight."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import Delaunay
from torch import Tensor

from modules.face_model.fitting import LandmarkRows
from modules.face_model.projection import rotation_from_euler
from modules.structures.cameras import CAMERA_POSITION
from modules.structures.landmarks import FACE_OVAL, IRISES

_SMOOTHING_PASSES = 3
_SIDEWAYS, _FACING = 0.0, 0.35
"""Cosines between skin and line of sight where a weight begins to rise and where it is whole."""


def outward_normals(rows: LandmarkRows) -> Tensor:
    """Outward unit normals ``[K, 3]`` of the mean landmarks; zero for the outline and points the model lacks.

    The points are joined to triangles on a cylinder around the head's upright axis. Normals are averaged with the
    neighbours', since lips and lids fold.
    """
    points = rows.mean.detach().cpu().double().numpy()
    normals = np.zeros_like(points)
    known = rows.weights.detach().cpu().numpy() > 0
    known[[i for i in IRISES if i < len(points)]] = False
    chosen = np.flatnonzero(known & np.isfinite(points).all(axis=1))
    if len(chosen) > 3:
        normals[chosen] = _surface_normals(points[chosen])
    normals[[i for i in FACE_OVAL if i < len(points)]] = 0.0
    return torch.from_numpy(normals).to(rows.mean)


def _surface_normals(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[N, 3]`` to ``[N, 3]``."""
    depth = np.ptp(points[:, 2])
    arm = points - np.array([points[:, 0].mean(), 0.0, points[:, 2].min() - 0.25 * depth])
    unrolled = np.stack([np.arctan2(arm[:, 0], arm[:, 2]) * np.ptp(points[:, 0]) / 2, arm[:, 1]], axis=1)
    triangles = Delaunay(unrolled, qhull_options="QJ Qbb").simplices
    a, b, c = (points[triangles[:, i]] for i in range(3))
    faces = np.cross(b - a, c - a)
    middle = (arm[triangles]).mean(axis=1) * np.array([1.0, 0.0, 1.0])
    faces *= np.where((faces * middle).sum(axis=1) < 0, -1.0, 1.0)[:, None]
    for _ in range(_SMOOTHING_PASSES):
        normals = np.zeros_like(points)
        np.add.at(normals, triangles.ravel(), np.repeat(faces, 3, axis=0))
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        area = np.linalg.norm(faces, axis=1, keepdims=True)
        faces = normals[triangles].mean(axis=1) * area
    return normals


def facing(normals: Tensor, params: Tensor, least: float) -> Tensor:
    """Factor of each landmark's weight, ``least`` to 1: ``[K, 3]`` and params ``[T, P]`` to ``[T, K]``.

    Points without a normal keep their weight.
    """
    camera = params.new_tensor(CAMERA_POSITION) - params[:, 3:6]
    sight = camera / camera.norm(dim=1, keepdim=True).clamp_min(1e-9)
    sight = (rotation_from_euler(params[:, :3]) @ sight[..., None])[..., 0]  # in head space
    cosine = sight @ normals.T
    share = ((cosine - _SIDEWAYS) / (_FACING - _SIDEWAYS)).clamp(0.0, 1.0)
    factor = least + (1 - least) * share * share * (3 - 2 * share)
    return torch.where((normals == 0).all(dim=1), 1.0, factor)
