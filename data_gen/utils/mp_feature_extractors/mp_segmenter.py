"""Person mask through MediaPipe's selfie segmentation network (256²), on LiteRT or in torch."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network, pick_runtime
from modules.commons.workspace import MEDIAPIPE_DIR


class PersonSegmenter:
    """Which pixels belong to a person.

    Args:
        models: folder that holds ``selfie_segmentation.tflite``.
        runtime: what the network runs on; by default torch on CUDA and LiteRT elsewhere.
    """

    def __init__(self, *, models: Path = MEDIAPIPE_DIR, runtime: Runtime | None = None) -> None:
        self._model = load_network(runtime or pick_runtime(), models / "selfie_segmentation.tflite")
        self._size_wh = (self._model.input_shape[2], self._model.input_shape[1])

    def segment(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability ``[H, W]`` in 0..1 that a pixel of an RGB image shows a person.

        The network sees the whole image squeezed to 256², as MediaPipe does; give it a crop of the person.
        """
        height, width = rgb.shape[:2]
        shrinks = width > self._size_wh[0] or height > self._size_wh[1]
        image = cv2.resize(rgb, self._size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        (mask,) = self._model.run_images(np.asarray(image, np.uint8)[None]).values()
        full = cv2.resize(mask[0, :, :, 0], (width, height), interpolation=cv2.INTER_LINEAR)
        return np.clip(full, 0.0, 1.0).astype(np.float32)
