"""Which way up a detected face is.

CenterFace finds faces at any roll, but beyond about 45° its five key points no longer say how they lie (median error
22° at 90°, 54° at 120°), and it is often as sure of a face upside down as upright. BlazeFace, looking at the same place
through turned squares, is surest of the upright view.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import BlazeFace, turned_box
from data_gen.utils.mp_feature_extractors.networks import Runtime
from data_gen.utils.mp_feature_extractors.regions import angle_between
from data_gen.utils.process_video.detector_backends import BLAZEFACE_BOX, Finder, five_points
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion, transform_points

WINDOW = 1.8
"""Side of the square looked through, in sizes of the face."""
MIN_OVERLAP = 0.25
"""IoU from which on what is seen there is the face that was asked about."""
UPRIGHT_ROLL_RAD = math.radians(25)
UPRIGHT_EYES = 0.24
UPRIGHT_EYES_TO_MOUTH = (0.28, 0.43)
"""Key points of upright faces, in longer sides of the box: the eyes are farther apart than the first, the mouth lies
between the other two below them."""


def looks_upright(face: FaceDetection) -> bool:
    """Whether the five key points are those of an upright face seen from the front; otherwise they are in doubt."""
    eyes, mouth = face.keypoints[:2], face.keypoints[3:5].mean(axis=0)
    size = max(face.box.width, face.box.height)
    apart = float(np.linalg.norm(eyes[1] - eyes[0])) / size
    below = float(np.linalg.norm(mouth - eyes.mean(axis=0))) / size
    low, high = UPRIGHT_EYES_TO_MOUTH
    return abs(angle_between(*eyes)) <= UPRIGHT_ROLL_RAD and apart >= UPRIGHT_EYES and low <= below <= high


class RollFinder:
    """Settles the roll of detected faces by cheap looks at each.

    Args:
        models: folder of MediaPipe's models.
        min_score: a look that scores lower says nothing.
        runtime: what the network runs on; by default torch on CUDA and LiteRT elsewhere.
    """

    def __init__(self, models: Path = MEDIAPIPE_DIR, *, min_score: float = 0.6, runtime: Runtime | None = None) -> None:
        self._model = BlazeFace("short", models=models, min_score=min_score, runtime=runtime)

    def settle(self, rgb: NDArray[np.uint8], face: FaceDetection) -> FaceDetection | None:
        """The face as its best view shows it, or None when no view shows a face.

        Each quarter turn is looked at, then once more turned as the eyes seen there lie: a face seen the right way up
        scores higher then, one seen the wrong way up does not.

        Args:
            rgb: ``[H, W, 3]`` uint8 in whose pixels ``face`` is.
            face: of any roll.

        Returns:
            Box and five key points in the same pixels, the eye first that is image-left when the face is upright;
            scored by the best look.
        """
        views: list[FaceDetection] = []
        for quarters in range(4):
            first = self._look(rgb, face, quarters * math.pi / 2)
            if first is not None:
                views += [level for level in [self._look(rgb, face, angle_between(*first.keypoints[:2]))] if level]
        return max(views, key=lambda view: view.score, default=None)

    def _look(self, rgb: NDArray[np.uint8], face: FaceDetection, angle_rad: float) -> FaceDetection | None:
        side = max(face.box.width, face.box.height) * WINDOW
        region = CropRegion(*face.box.center, side, angle_rad)
        seen = [found for found in self._model.detect(rgb, region) if found.box.iou(face.box) >= MIN_OVERLAP]
        if not seen:
            return None
        best = max(seen, key=lambda found: found.score)
        return FaceDetection(_stretched(best, angle_rad), best.score, five_points(best.keypoints))


def _stretched(face: FaceDetection, angle_rad: float) -> BoundingBox:
    """BlazeFace's box, seen through a square turned by ``angle_rad``, stretched to the forehead of the face.

    BlazeFace's own boxes are square, so the upright box around one is as large.
    """
    half = (face.box.width + face.box.height) / 4
    box = BLAZEFACE_BOX.apply(BoundingBox(-half, -half, half, half))
    image_from_face = CropRegion(0.0, 0.0, 1.0, angle_rad).frame_from_crop(1)
    image_from_face[:2, 2] = face.box.center
    return turned_box(box.as_array(), image_from_face)


def faces_in_turned(finder: Finder, rgb: NDArray[np.uint8], quarters: int, max_side: int) -> list[FaceDetection]:
    """Faces seen in an image turned counter-clockwise by quarter turns, in pixels of the unturned image.

    Args:
        finder: looks at the turned image.
        rgb: ``[H, W, 3]`` uint8.
        quarters: turns of 90°.
        max_side: longer side of what the network sees.
    """
    turned = np.ascontiguousarray(np.rot90(rgb, quarters))
    back = unturned_from_turned(rgb.shape[0], rgb.shape[1], quarters)
    return [
        FaceDetection(
            turned_box(face.box.as_array(), back), face.score, transform_points(back, face.keypoints).astype(np.float32)
        )
        for face in finder.detect(turned, max_side=max_side)
    ]


def unturned_from_turned(height: int, width: int, quarters: int) -> NDArray[np.float64]:
    """``[3, 3]`` map back from the pixels of ``np.rot90(image, quarters)`` to those of an image of this size."""
    matrices = {
        0: [[1, 0, 0], [0, 1, 0]],
        1: [[0, -1, width], [1, 0, 0]],
        2: [[-1, 0, width], [0, -1, height]],
        3: [[0, 1, 0], [-1, 0, height]],
    }
    return np.array([*matrices[quarters % 4], [0, 0, 1]], dtype=np.float64)
