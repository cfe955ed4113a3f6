"""From face coefficients to what a portrait is shown: GeneFace++'s condition windows, torso landmarks and cameras.

Pure maths over one clip's dataset; GeneFace++'s released weights depend on each of these steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.keypoints import (
    IDEXP_SCALE,
    KeypointStatistics,
    condition_windows,
    eye_area_percent,
    inject_blinks,
    smooth_features,
)
from modules.face_model.portrait_face import PortraitFace, is_bfm
from modules.postnet import lle
from modules.postnet.soft_clamp import soft_clamp
from modules.radnerfs.condition import ConditionStatistics
from modules.radnerfs.person import BANK_MARGIN
from modules.structures.cameras import camera_pose, ngp_pose, pose6, smooth_camera_path
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
        face: of the model that its coefficients belong to, on the CPU.
    """

    def __init__(self, dataset: PortraitDataset, face: PortraitFace) -> None:
        self._dataset, self._face = dataset, face
        self.identity = torch.from_numpy(dataset.identity)[:1]
        own = face.offsets(torch.from_numpy(dataset.identity), torch.from_numpy(dataset.expression))
        self._statistics = KeypointStatistics.of(own) if is_bfm(dataset) else _steady_statistics(own)
        self._bank = own.flatten(1)
        self._own = self._statistics.normalize(own)
        self._clamps_hard = is_bfm(dataset)
        areas = np.quantile(dataset.eye_area, (LOW_QUANTILE, HIGH_QUANTILE))
        self.closed_area, self.open_area = float(areas[0]), float(areas[1])

    def show(self, expression: Tensor, window: int, *, lle_percent: float = 0.2, blinks: bool = False) -> ShownMotion:
        """Conditions of new motion, kept within what this person showed.

        Args:
            expression: ``[T, E]``.
            window: frames of a condition window.
            lle_percent: share that is rebuilt from the clip's own motion, 0..1.
            blinks: eyes blink by the clock (``keypoints.inject_blinks``); else they stay open.
        """
        points = self._face.offsets(self.identity, expression)
        points = lle.blend(points.flatten(1), self._bank, lle_percent).view_as(points)
        eye_area = points.new_full((len(points),), self.open_area)
        if blinks:
            mean = self._face.mean
            blinking, area = inject_blinks(points / IDEXP_SCALE + mean, self.open_area, self.closed_area)
            points, eye_area = (blinking - mean) * IDEXP_SCALE, area[:, 0]
        shown = self._within_own(self._statistics.normalize(points)).flatten(1)
        return ShownMotion(condition_windows(shown[:, None], window), eye_area)

    def _within_own(self, points: Tensor) -> Tensor:
        """Conditions ``[T, 68, 3]`` kept near this person's: with BFM as GeneFace++ clamps them, which cuts off the
        widest vowels, else softly beyond the range."""
        if self._clamps_hard:
            return points.clamp(*(torch.quantile(self._own, share, dim=0) for share in (LOW_QUANTILE, HIGH_QUANTILE)))
        return soft_clamp(points, self._own.amin(dim=0), self._own.amax(dim=0), BANK_MARGIN)

    def eye_areas(self, expression: Tensor) -> Tensor:
        """``keypoints.eye_area_percent`` of expressions ``[T, E]``, within what this person showed: ``[T]``."""
        points = self._face.mean + self._face.offsets(self.identity, expression) / IDEXP_SCALE
        return eye_area_percent(points).clamp(self.closed_area, self.open_area)

    def own_windows(self, window: int) -> Tensor:
        """Condition windows ``[T, W, 1, 204]`` of the clip itself, as training sees them: not clamped."""
        return condition_windows(self._own.flatten(1)[:, None], window)

    def own_landmarks(self) -> Tensor:
        """The clip's own 68 points in the picture, ``[T, 68, 2]`` 0..1, as fitted."""
        clip = self._dataset
        identity, expression = torch.from_numpy(clip.identity), torch.from_numpy(clip.expression)
        euler, translation = torch.from_numpy(clip.euler), torch.from_numpy(clip.translation)
        return self._face.seen(identity, expression, euler, translation, clip.camera)

    def torso_landmarks(self, expression: Tensor, poses: HeadPoses) -> Tensor:
        """The 68 points in the picture, ``[T, 68, 2]`` 0..1, of expressions ``[T, E]`` under head poses.

        Poses are smoothed over the frames as they are shown; the expression is the predicted one as it came.
        """
        euler, translation = (smooth_features(torch.from_numpy(part)) for part in (poses.euler, poses.translation))
        return self._face.seen(self.identity, expression, euler, translation, self._dataset.camera)


def _steady_statistics(own: Tensor) -> KeypointStatistics:
    """Statistics ``[T, 68, 3]`` in which points that hardly move are not amplified: fits of our own are noisier."""
    flat = ConditionStatistics.of(own.flatten(1).numpy())
    mean, std = (torch.from_numpy(part).view(1, *own.shape[1:]) for part in (flat.mean, flat.std))
    return KeypointStatistics(mean, std)


@dataclass(frozen=True, slots=True, eq=False)
class HeadPoses:
    """Head poses as they are shown: euler ``[T, 3]`` rad and translation ``[T, 3]`` as fitted, float32."""

    euler: NDArray[np.float32]
    translation: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.euler.shape != self.translation.shape or self.euler.shape[1:] != (3,) or not len(self.euler):
            raise ValueError(f"poses disagree: {self.euler.shape} angles, {self.translation.shape} translations")

    def __len__(self) -> int:
        return len(self.euler)

    @classmethod
    def of_rows(cls, dataset: PortraitDataset, rows: NDArray[np.int64] | slice) -> HeadPoses:
        """Those of rows of a clip."""
        return cls(dataset.euler[rows], dataset.translation[rows])


@dataclass(frozen=True, slots=True, eq=False)
class PortraitCameras:
    """Cameras of frames.

    Attributes:
        poses: ``[T, 4, 4]`` world_from_camera in the head's cube. pose6: ``[T, 6]`` of the same.
    """

    poses: Tensor
    pose6: Tensor

    @classmethod
    def of(
        cls, shown: HeadPoses, scale: float, offset: tuple[float, float, float], kernel: int | None
    ) -> PortraitCameras:
        """The cameras of head poses, smoothed over ``kernel`` frames (None = as fitted)."""
        path = camera_pose(shown.euler, shown.translation)
        if kernel is not None:
            path = smooth_camera_path(path, kernel)
        poses = ngp_pose(path, scale, offset)
        return cls(torch.from_numpy(poses), torch.from_numpy(pose6(poses)))

    def at(self, rows: NDArray[np.int64]) -> PortraitCameras:
        """Those of some frames ``[N]``."""
        return PortraitCameras(self.poses[rows], self.pose6[rows])
