"""Evidence besides what the face should look like and hands: landmarks, and a segmentation if it is there.

It is made on the CPU, one plane per frame that is added to a frame's log-odds; arrays and devices share it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.landmark_surprise import LandmarkSurprise
from data_gen.utils.process_video.occlusion_parts import PassConfig, PassTables, points_in_crop
from data_gen.utils.process_video.segment_evidence import Segmenter, segment_log_odds


@dataclass(frozen=True, slots=True, eq=False)
class FrameHints:
    """Where the further evidence comes from; one thread at a time may ask.

    Attributes:
        surprise: which landmarks are strange; None = nobody knows.
        segmenter: tells classes of pixels; None = its model is not there.
    """

    surprise: LandmarkSurprise | None = None
    segmenter: Segmenter | None = None

    def at(
        self, row: int, crop: NDArray[np.uint8], tables: PassTables, config: PassConfig
    ) -> NDArray[np.float32] | None:
        """Log-odds ``[S, S]`` of an occluder at the working size; None where nothing is said.

        Args:
            row: frame.
            crop: uint8 ``[L, L, 3]``.
            tables: of the clip.
            config: how far each kind is believed, and the working size.
        """
        if not tables.landmarks.valid[row]:
            return None
        size = config.working_size
        points = points_in_crop(tables, row, size)
        found = None if self.surprise is None else self.surprise.log_odds(row, points, size)
        if self.segmenter is not None:
            classes = self.segmenter.segment_classes(crop)
            small = np.asarray(cv2.resize(classes, (size, size), interpolation=cv2.INTER_AREA), np.float32)
            named = segment_log_odds(small, points, config.segment)
            found = named if found is None else found + named
        return found
