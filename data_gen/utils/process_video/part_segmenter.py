"""Who tells the parts of a person apart in a portrait's pictures: MediaPipe's six classes, or their stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.mp_segmenter import PersonSegmenter
from data_gen.utils.mp_feature_extractors.multiclass_segmenter import ClassSegmenter, usable_runtime
from data_gen.utils.mp_feature_extractors.networks import Runtime
from data_gen.utils.process_video.head_torso_segmenter import PartColours, head_torso_classes
from modules.commons.workspace import MEDIAPIPE_DIR


class PartSegmenter(Protocol):
    """Classes of a picture of a person; one thread at a time may use it."""

    def classes(self, rgb: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
        """``SelfieClass`` ``[H, W]`` of a picture ``[H, W, 3]`` with the face's landmarks ``[478, 2]`` px."""
        ...


class EmbeddedSegmenter:
    """By the embedded person mask, landmarks and what colours the clip's person has.

    Args:
        colours: of the clip.
        runtime: what the network runs on.
    """

    def __init__(self, colours: PartColours, runtime: Runtime | None = None) -> None:
        self._person, self._colours = PersonSegmenter(runtime=runtime), colours

    def classes(self, rgb: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
        """See ``PartSegmenter``."""
        return head_torso_classes(rgb, self._person.segment(rgb), points, self._colours)


class MulticlassSegmenter:
    """By MediaPipe's multiclass selfie segmentation.

    Args:
        runtime: what the network runs on.
        models: folder of its file.

    Raises:
        ModelFileError: its file is missing or damaged.
    """

    def __init__(self, runtime: Runtime | None = None, models: Path = MEDIAPIPE_DIR) -> None:
        told = None if runtime is None else usable_runtime(runtime, models)
        self._network = ClassSegmenter(models=models, runtime=told)

    def classes(self, rgb: NDArray[np.uint8], points: NDArray[np.floating]) -> NDArray[np.uint8]:
        """See ``PartSegmenter``; landmarks are not looked at."""
        return self._network.segment_classes(rgb).argmax(axis=2).astype(np.uint8)
