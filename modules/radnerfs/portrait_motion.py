"""From BFM coefficients to what a portrait is shown: GeneFace++'s condition windows, torso landmarks and cameras.

Pure maths over one clip's dataset; GeneFace++'s released weights depend on each of these steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.bfm import BfmModel
from modules.face_model.keypoints import (
    IDEXP_SCALE,
    KeypointStatistics,
    condition_windows,
    idexp_keypoints,
    inject_blinks,
    smooth_features,
)
from modules.postnet import lle
from modules.structures.cameras import dataset_translation, ngp_pose, pose6, smooth_camera_path
from modules.structures.landmarks import LM68
from modules.structures.portrait_dataset import PortraitDataset

LOW_QUANTILE, HIGH_QUANTILE = 0.03, 0.97
"""Of a person's own motion: GeneFace++ clamps conditions to these, and takes the eye areas there as closed and open."""


@dataclass(frozen=True, slots=True, eq=False)
class ShownMotion:
    """Motion as a portrait is shown it.

    Attributes:
        windows: ``[T, W, 1, 204]`` z-scored condition windows. eye_area: ``[T]``.
    """

    windows: Tensor
    eye_area: Tensor


class PortraitMotion:
    """Turns new expressions of a clip's person into conditions.

    Args:
        dataset: the clip the portrait was trained on.
        bfm: BFM2009, on the CPU.
    """

    def __init__(self, dataset: PortraitDataset, bfm: BfmModel) -> None:
        self._dataset, self._bfm = dataset, bfm
        rows = bfm.mediapipe_vertices[list(LM68)]
        self._mean = bfm.mean[rows]
        self._bases = bfm.identity_basis[rows], bfm.expression_basis[rows]
        self.identity = torch.from_numpy(dataset.identity)[0]
        own = idexp_keypoints(torch.from_numpy(dataset.identity), torch.from_numpy(dataset.expression), *self._bases)
        self._statistics = KeypointStatistics.of(own)
        self._bank = own.flatten(1)
        self._own = self._statistics.normalize(own)
        self._low = torch.quantile(self._own, LOW_QUANTILE, dim=0)
        self._high = torch.quantile(self._own, HIGH_QUANTILE, dim=0)
        areas = np.quantile(dataset.eye_area, (LOW_QUANTILE, HIGH_QUANTILE))
        self.closed_area, self.open_area = float(areas[0]), float(areas[1])

    def show(self, expression: Tensor, window: int, *, lle_percent: float = 0.2, blinks: bool = False) -> ShownMotion:
        """Conditions of new motion, kept within what this person showed.

        Args:
            expression: ``[T, 64]``.
            window: frames of a condition window.
            lle_percent: share that is rebuilt from the clip's own motion, 0..1.
            blinks: eyes blink by the clock (``keypoints.inject_blinks``); else they stay open.
        """
        points = idexp_keypoints(self.identity, expression, *self._bases)
        points = lle.blend(points.flatten(1), self._bank, lle_percent).view_as(points)
        eye_area = points.new_full((len(points),), self.open_area)
        if blinks:
            blinking, area = inject_blinks(points / IDEXP_SCALE + self._mean, self.open_area, self.closed_area)
            points, eye_area = (blinking - self._mean) * IDEXP_SCALE, area[:, 0]
        shown = self._statistics.normalize(points).clamp(self._low, self._high)
        return ShownMotion(condition_windows(shown.flatten(1)[:, None], window), eye_area)

    def own_windows(self, window: int) -> Tensor:
        """Condition windows ``[T, W, 1, 204]`` of the clip itself, as training sees them: not clamped."""
        return condition_windows(self._own.flatten(1)[:, None], window)

    def own_landmarks(self) -> Tensor:
        """The clip's own 68 points in the picture, ``[T, 68, 2]`` 0..1, as fitted."""
        clip = self._dataset
        expression, euler, seen = (
            torch.from_numpy(part) for part in (clip.expression, clip.euler, clip.stored_translation)
        )
        identity = torch.from_numpy(clip.identity).expand(len(clip), -1)
        return self._bfm.reconstruct_lm2d_nerf(identity, expression, euler, seen)[:, list(LM68)]

    def torso_landmarks(self, expression: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """The 68 points in the picture, ``[T, 68, 2]`` 0..1, of expressions ``[T, 64]`` under the poses of clip rows.

        Poses are smoothed over the frames as they are shown; the expression is the predicted one as it came.
        """
        euler = smooth_features(torch.from_numpy(self._dataset.euler[rows]))
        seen = smooth_features(torch.from_numpy(dataset_translation(self._dataset.translation[rows])))
        return self._bfm.reconstruct_lm2d_nerf(self.identity, expression, euler, seen)[:, list(LM68)]


@dataclass(frozen=True, slots=True, eq=False)
class PortraitCameras:
    """Cameras of all frames of a clip.

    Attributes:
        poses: ``[T, 4, 4]`` world_from_camera in the head's cube. pose6: ``[T, 6]`` of the same.
    """

    poses: Tensor
    pose6: Tensor

    @classmethod
    def of(
        cls, dataset: PortraitDataset, scale: float, offset: tuple[float, float, float], kernel: int | None
    ) -> PortraitCameras:
        """The clip's cameras, smoothed over ``kernel`` frames (None = as fitted)."""
        path = dataset.camera_poses()
        if kernel is not None:
            path = smooth_camera_path(path, kernel)
        poses = ngp_pose(path, scale, offset)
        return cls(torch.from_numpy(poses), torch.from_numpy(pose6(poses)))
