"""The ``mediapipe`` package as an optional landmark backend (``extractor: mediapipe``).

The default runs the same networks on LiteRT: the package needs system libraries (libEGL, libGLESv2) that headless
servers lack. It is imported when a landmarker is built, never before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import BackendUnavailableError, ModelFileError
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion, sample_region, transform_points
from modules.structures.landmarks import MEDIAPIPE_BLENDSHAPES, N_MEDIAPIPE, LandmarkResult

SURROUNDINGS = 1.4
"""MediaPipe detects the face anew in what it is given, so it gets more than the region alone."""
MAX_CROP = 512


class MediaPipeLandmarker:
    """MediaPipe's own FaceLandmarker task behind ``FaceLandmarker``'s signature.

    Raises:
        BackendUnavailableError: when the package, or a system library it needs, is not there.
    """

    def __init__(self, *, models: Path = MEDIAPIPE_DIR) -> None:
        task = models / "face_landmarker.task"
        if not task.is_file():
            raise ModelFileError(f"model file {task} is missing; run `bash scripts/setup.sh` to fetch the model files")
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions
            from mediapipe.tasks.python.vision import FaceLandmarker, FaceLandmarkerOptions
        except (ImportError, OSError) as error:
            raise BackendUnavailableError(
                f"extractor 'mediapipe' cannot run here ({error}): `pip install -r requirements-mediapipe.txt`, "
                "or use extractor 'litert', which gives the same landmarks"
            ) from error
        self._mediapipe: Any = mediapipe
        options = FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=str(task)), output_face_blendshapes=True, num_faces=1
        )
        self._task: Any = FaceLandmarker.create_from_options(options)

    def close(self) -> None:
        """Release the task; MediaPipe complains at exit otherwise."""
        self._task.close()

    def __enter__(self) -> MediaPipeLandmarker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def detect(self, rgb: NDArray[np.uint8], region: CropRegion | BoundingBox) -> LandmarkResult:
        """Landmarks in pixels of ``rgb``; score 1 when MediaPipe found a face inside ``region``, else 0 and NaN."""
        square = (
            CropRegion(*region.center, max(region.width, region.height) * 1.5)
            if isinstance(region, BoundingBox)
            else region
        )
        wide = CropRegion(square.center_x, square.center_y, square.side * SURROUNDINGS, square.angle_rad)
        size = min(MAX_CROP, max(64, round(wide.side)))
        crop = sample_region(rgb, wide, size, border_mode=cv2.BORDER_REPLICATE)
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(crop))
        found = self._task.detect(image)
        if not found.face_landmarks:
            return _nothing()
        unit = np.array([(mark.x, mark.y, mark.z) for mark in found.face_landmarks[0]], dtype=np.float64)
        points = transform_points(wide.frame_from_crop(1), unit[:, :2])
        scores = np.array([shape.score for shape in found.face_blendshapes[0]], dtype=np.float32)
        return LandmarkResult(points.astype(np.float32), (unit[:, 2] * wide.side).astype(np.float32), 1.0, scores)


def _nothing() -> LandmarkResult:
    return LandmarkResult(
        np.full((N_MEDIAPIPE, 2), np.nan, dtype=np.float32),
        np.full(N_MEDIAPIPE, np.nan, dtype=np.float32),
        0.0,
        np.full(len(MEDIAPIPE_BLENDSHAPES), np.nan, dtype=np.float32),
    )
