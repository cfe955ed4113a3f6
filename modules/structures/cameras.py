"""Camera intrinsics; pose conversions for the NeRF live beside them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CAMERA_DISTANCE = 10.0
"""GeneFace++'s camera stands at z = 10 in head units."""


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


def crop_camera_matrix(frame_camera: CameraIntrinsics, crop_from_frame: NDArray[np.float64]) -> NDArray[np.float64]:
    """``K_crop = crop_from_frame · K_frame``, ``[3, 3]``."""
    return crop_from_frame @ frame_camera.matrix()
