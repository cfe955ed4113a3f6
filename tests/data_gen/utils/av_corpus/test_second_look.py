"""A second look at the same face, through another square and in the mirror."""

from __future__ import annotations

import math

import numpy as np

from data_gen.utils.av_corpus.second_look import Disturbance, SecondLook, mirrored_score_columns
from modules.structures.crops import CropRegion
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, LandmarkResult


class BrightSpot:
    """Puts point 0 on the brightest pixel and point 1 beside it, and remembers where it looked."""

    def __init__(self) -> None:
        self.regions: list[CropRegion] = []

    def detect(self, rgb, region):
        self.regions.append(region)
        row, column = np.unravel_index(int(rgb[..., 0].argmax()), rgb.shape[:2])
        points = np.zeros((478, 2), np.float32)
        points[0] = column + 0.5, row + 0.5
        points[1] = column + 5.5, row + 0.5
        scores = np.arange(len(MEDIAPIPE_BLENDSHAPES), dtype=np.float32)
        return LandmarkResult(points, np.arange(478, dtype=np.float32), 1.0, scores)


def test_answers_are_those_of_the_image_given():
    rgb = np.zeros((60, 100, 3), np.uint8)
    rgb[20, 30] = 255
    counterpart = np.arange(478)
    counterpart[[0, 1]] = 1, 0
    inner = BrightSpot()
    look = SecondLook(inner, counterpart, Disturbance(shift=0.03, scale=1.1, angle_rad=math.radians(4)))
    seen = look.detect(rgb, CropRegion(30.0, 20.0, 40.0, 0.2))
    np.testing.assert_allclose(seen.points[1], [30.5, 20.5])  # of the mirrored image's point 0
    np.testing.assert_allclose(seen.points[0], [25.5, 20.5])
    assert seen.depth[0] == 1 and seen.depth[1] == 0
    (region,) = inner.regions
    assert region.center_x == 100 - 30 + 1.2 and region.center_y == 20 + 1.2
    assert region.side == 44.0 and abs(region.angle_rad - (-0.2 + math.radians(4))) < 1e-12


def test_scores_change_sides():
    columns, names = mirrored_score_columns(), list(MEDIAPIPE_BLENDSHAPES)
    assert names[columns[names.index("mouthSmileLeft")]] == "mouthSmileRight"
    assert names[columns[names.index("jawLeft")]] == "jawRight"
    assert names[columns[names.index("jawOpen")]] == "jawOpen"
    np.testing.assert_array_equal(columns[columns], np.arange(len(names)))
