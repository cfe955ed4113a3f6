"""A cheap second opinion on a face that is followed: does BlazeFace see a face where the landmarks say there is one?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import BlazeFace
from data_gen.utils.mp_feature_extractors.networks import Runtime, pick_runtime
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion

LOWEST = 0.02
"""Scores below it count as nothing seen."""


@dataclass(frozen=True, slots=True)
class ConfirmConfig:
    """How a followed face is looked at again.

    Measured on 322 views of followed faces (frontal, profile, hands before the mouth, 40 px dancers) and 565 places
    without one (random, and where a detector or the landmarks were fooled): the least face scores 0.74, the best other
    thing 0.62; so 0.65 tells them apart. Blurred or small profiles that nobody follows score less, down to 0.3: a low
    score once is no reason to drop a face, many are.

    Attributes:
        window: side of the square that the short-range network looks through, in sizes of the face.
        full_window: the same for the second look, by the full-range network.
        sure: a first look that scores as much needs no second one; 1 % of the faces scored less.
        min_iou: a detection belongs to the face from this overlap on.
    """

    window: float = 1.8
    full_window: float = 4.5
    sure: float = 0.75
    min_iou: float = 0.3


class RegionConfirmer:
    """Scores a face box by BlazeFace: short range close up and, when that is unsure, full range with more around it.

    Args:
        models: folder of MediaPipe's models.
        config: see ``ConfirmConfig``.
        runtime: what the networks run on; by default torch on CUDA and LiteRT elsewhere.
    """

    def __init__(
        self, *, models: Path = MEDIAPIPE_DIR, config: ConfirmConfig | None = None, runtime: Runtime | None = None
    ) -> None:
        self.config, runtime = config or ConfirmConfig(), runtime or pick_runtime()
        self._short = BlazeFace("short", models=models, min_score=LOWEST, runtime=runtime)
        self._full = BlazeFace("full", models=models, min_score=LOWEST, runtime=runtime)

    def confirm(self, rgb: NDArray[np.uint8], box: BoundingBox, angle_rad: float = 0.0) -> float:
        """Score 0..1 of a face on ``box``: that of the first look when it is sure, else the mean of both.

        Args:
            rgb: ``[H, W, 3]`` uint8; the frame, or a window of it that holds the box and about twice its size around.
            box: forehead to chin (landmark box, CenterFace box), in pixels of ``rgb``.
            angle_rad: roll of the head, clockwise on screen; the looks are turned with it.
        """
        first = self._look(self._short, rgb, box, self.config.window, angle_rad)
        if first >= self.config.sure:
            return first
        return (first + self._look(self._full, rgb, box, self.config.full_window, angle_rad)) / 2

    def _look(
        self, detector: BlazeFace, rgb: NDArray[np.uint8], box: BoundingBox, window: float, angle_rad: float
    ) -> float:
        region = CropRegion(*box.center, max(box.width, box.height) * window, angle_rad)
        found = detector.detect(rgb, region)
        return max((face.score for face in found if face.box.iou(box) >= self.config.min_iou), default=0.0)
