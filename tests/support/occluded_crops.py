"""A painted speaker's crops with things drawn in front, and an expectation that remembers them without."""

from dataclasses import replace

import cv2
import numpy as np

from data_gen.utils.process_video.occlusion_pass import PassTables
from modules.structures.crops import transform_points
from modules.structures.expected_face import ExpectedFace
from modules.structures.landmarks import FACE_OVAL
from modules.structures.masks import OcclusionTable


class Remembers:
    """Expects exactly the clean clip, within the face's outline; ``mouth`` is how much lips may differ."""

    def __init__(self, clip, mouth=0.12, unknown=()):
        self.clip, self.mouth, self.unknown = clip, mouth, unknown

    def knows(self, row):
        return row not in self.unknown

    def at(self, row, size):
        if not self.knows(row):
            return None
        rgb = cv2.resize(self.clip.crops[row], (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        spread = np.full((size, size), 0.015, np.float32)
        x, y = (crop_points(self.clip, row)[[13, 14]].mean(axis=0) * size / 256).astype(int)
        cv2.ellipse(spread, (int(x), int(y)), (size // 10, size // 16), 0, 0, 360, self.mouth, -1)
        return ExpectedFace(rgb, spread, outline(self.clip, row, FACE_OVAL, size).astype(np.float32))


def crop_points(clip, row):
    return transform_points(clip.metadata.crop_from_frame(row), clip.landmarks.points[row])


def outline(clip, row, ring, size=256):
    area = np.zeros((size, size), np.uint8)
    cv2.fillPoly(area, [np.round(crop_points(clip, row)[list(ring)] * size / 256).astype(np.int32)], 1)
    return area > 0


def tables(clip, hands=None, cuts=(0,)):
    hands = OcclusionTable.nothing(len(clip.crops), 64) if hands is None else hands
    return PassTables(clip.landmarks, clip.metadata, hands, np.array(cuts))


def with_things(clip, draw, rows=None):
    """Crops with something drawn by ``draw(picture, row, colour)``, and where it is."""
    crops, truths = clip.crops.copy(), []
    for row in range(len(crops)):
        truth = np.zeros((256, 256), np.uint8)
        if rows is None or row in rows:
            draw(crops[row], row, (40, 70, 150))
            draw(truth, row, 1)
        truths.append(truth > 0)
    return crops, truths


def cup(picture, row, colour):
    cv2.rectangle(picture, (90 + 2 * row, 150), (150 + 2 * row, 230), colour, -1)


def straw(picture, row, colour):
    cv2.line(picture, (128, 160), (150 + row, 250), colour, 3)


def hands_table(truths, size=64):
    rows = [row for row, truth in enumerate(truths) if truth.any()]
    stored = [
        cv2.resize(truths[row].astype(np.uint8) * 255, (size, size), interpolation=cv2.INTER_AREA) for row in rows
    ]
    table = OcclusionTable.nothing(len(truths), size)
    return replace(table, rows=np.array(rows, np.int64), masks=np.stack(stored))
