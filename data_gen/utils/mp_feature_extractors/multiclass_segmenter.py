"""Hair, skin of face and body, clothes and accessories through MediaPipe's multiclass selfie segmentation (256²).

The file is optional: it is looked for beside the other networks and fetched only on request. Its input is RGB 0..1,
squeezed to 256² as MediaPipe does; its output is scores (logits), which become probabilities here.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network, pick_runtime
from modules.commons.errors import ModelFileError
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.segmentation import SelfieClass

MULTICLASS_FILE = "selfie_multiclass_256x256.tflite"


logger = logging.getLogger(__name__)


def multiclass_file(models: Path = MEDIAPIPE_DIR) -> Path | None:
    """The network's file in a folder of models; None = it is not there."""
    path = models / MULTICLASS_FILE
    return path if path.is_file() else None


def usable_runtime(preferred: Runtime, models: Path = MEDIAPIPE_DIR) -> Runtime:
    """``preferred`` where it can run the network; else LiteRT, which the log then says.

    Not all of LiteRT's operations are known in torch; the other networks' are.

    Args:
        preferred: what the other networks run on.
        models: folder that holds the network.

    Raises:
        ModelFileError: torch cannot run it, and LiteRT is not installed.
    """
    try:
        load_network(preferred, models / MULTICLASS_FILE)
    except ModelFileError as error:
        if preferred.extractor == "litert" or importlib.util.find_spec("ai_edge_litert") is None:
            raise
        logger.info("the multiclass segmentation runs on LiteRT: %s", error)
        return Runtime("litert", torch.device("cpu"), preferred.threads)
    return preferred


class ClassSegmenter:
    """Which class each pixel of a picture belongs to; one thread at a time may use it.

    Args:
        models: folder that holds ``selfie_multiclass_256x256.tflite``.
        runtime: what the network runs on; by default torch on CUDA and LiteRT elsewhere.

    Raises:
        ModelFileError: the file is missing, damaged, or another network.
    """

    def __init__(self, *, models: Path = MEDIAPIPE_DIR, runtime: Runtime | None = None) -> None:
        path = models / MULTICLASS_FILE
        if not path.is_file():
            raise ModelFileError(
                f"model file {path} is missing; run `bash scripts/download_models.sh selfie_multiclass` to fetch "
                "MediaPipe's multiclass selfie segmentation"
            )
        self._path = path
        self._model = load_network(runtime or pick_runtime(), path)
        shape = self._model.input_shape
        if len(shape) != 4 or shape[3] != 3:
            raise ModelFileError(
                f"{path} takes {shape}, not pictures [1, H, W, 3]; put MediaPipe's multiclass selfie segmentation there"
            )
        self._size_wh = (shape[2], shape[1])

    def segment_classes(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability ``[H, W, 6]`` 0..1 of each ``SelfieClass``; they add up to 1 at every pixel.

        The network sees the whole picture squeezed to its own size; give it a crop of the person.

        Args:
            rgb: ``[H, W, 3]`` uint8.

        Raises:
            ModelFileError: the network's output is not one picture of six channels.
        """
        height, width = rgb.shape[:2]
        shrinks = width > self._size_wh[0] or height > self._size_wh[1]
        image = cv2.resize(rgb, self._size_wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        outputs = list(self._model.run_images(np.asarray(image, np.uint8)[None]).values())
        if len(outputs) != 1 or outputs[0].ndim != 4 or outputs[0].shape[3] != len(SelfieClass):
            raise ModelFileError(
                f"{self._path} gives {[output.shape for output in outputs]}, not [1, H, W, {len(SelfieClass)}]; "
                "put MediaPipe's multiclass selfie segmentation there"
            )
        shares = softmax(outputs[0][0])
        # between two pixels the shares of both still add up to 1
        return np.asarray(cv2.resize(shares, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities along the last axis of logits."""
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (raised / raised.sum(axis=-1, keepdims=True)).astype(np.float32)
