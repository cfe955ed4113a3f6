"""Person mask through MediaPipe's selfie segmentation network (256²) on LiteRT."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.litert import LiteRtModel
from modules.commons.workspace import MEDIAPIPE_DIR


class PersonSegmenter:
    """Which pixels belong to a person.

    Args:
        models: folder that holds ``selfie_segmentation.tflite``.
    """

    def __init__(self, *, models: Path = MEDIAPIPE_DIR, threads: int = 1) -> None:
        self._model = LiteRtModel.from_file(models / "selfie_segmentation.tflite", threads)
        self._size_wh = (self._model.input_shape[2], self._model.input_shape[1])

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability ``[H, W]`` in 0..1 that a pixel of an RGB image shows a person.

        The network sees the whole image squeezed to 256², as MediaPipe does; give it a crop of the person.
        """
        height, width = rgb.shape[:2]
        shrinks = width > self._size_wh[0] or height > self._size_wh[1]
        image = cv2.resize(rgb, self._size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        (mask,) = self._model.run((image.astype(np.float32) / 255.0)[None]).values()
        full = cv2.resize(mask[0, :, :, 0], (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(full, 0.0, 1.0).astype(np.float32)
