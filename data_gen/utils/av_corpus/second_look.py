"""The same face seen again, a little differently: how far measured lips can be trusted.

A landmarker's answer depends on the square it looks through. Looking through another one, at the mirrored image, gives
a second measurement of the same mouth; how well the two agree is a ceiling for any prediction of either.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import Landmarker, region_of_box
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, LandmarkResult


@dataclass(frozen=True, slots=True)
class Disturbance:
    """How the second square differs from the first.

    Attributes:
        shift: of its centre, in sides. scale: of its side. angle_rad: turned by this.
    """

    shift: float = 0.03
    scale: float = 1.1
    angle_rad: float = math.radians(4.0)


class SecondLook:
    """A landmarker that looks through a disturbed square at the mirrored image, and answers for the image given.

    Args:
        landmarker: does the looking.
        counterpart: ``[478]`` index of each point's mirror image (``FaceModel.landmark_mirror``).
        disturbance: of the square.
    """

    def __init__(
        self, landmarker: Landmarker, counterpart: NDArray[np.integer], disturbance: Disturbance | None = None
    ) -> None:
        self._landmarker, self._counterpart = landmarker, counterpart
        self._disturbance = disturbance or Disturbance()
        self._scores = mirrored_score_columns()

    def detect(self, rgb: NDArray[np.uint8], region: CropRegion | BoundingBox) -> LandmarkResult:
        """Landmarks in pixels of ``rgb``."""
        square = region_of_box(region) if isinstance(region, BoundingBox) else region
        width = rgb.shape[1]
        flipped = np.ascontiguousarray(rgb[:, ::-1])
        seen = self._landmarker.detect(flipped, self._mirrored(square, width))
        points = seen.points[self._counterpart] * np.array([-1, 1], np.float32) + np.array([width, 0], np.float32)
        scores = seen.blendshapes[self._scores]
        return replace(seen, points=points, depth=seen.depth[self._counterpart], blendshapes=scores)

    def _mirrored(self, square: CropRegion, width: int) -> CropRegion:
        """The disturbed square in the mirrored image."""
        step = self._disturbance.shift * square.side
        return replace(
            square,
            center_x=width - square.center_x + step,
            center_y=square.center_y + step,
            side=square.side * self._disturbance.scale,
            angle_rad=-square.angle_rad + self._disturbance.angle_rad,
        )


def mirrored_score_columns() -> NDArray[np.int64]:
    """Column of each score's counterpart on the other side of the face, ``[52]``."""
    names: list[str] = list(MEDIAPIPE_BLENDSHAPES)

    def other(name: str) -> str:
        for side, opposite in (("Left", "Right"), ("Right", "Left")):
            if name.endswith(side):
                swapped = name.removesuffix(side) + opposite
                return swapped if swapped in names else name
        return name

    return np.array([names.index(other(name)) for name in names], dtype=np.int64)
