"""What is behind a person, put together from the frames of a still camera.

Each place takes the frame that shows it furthest from the person (1.6 "Background (knn)" of GeneFace++'s data
preparation); places that the person never leaves take the nearest that are known. One frame is held at a time.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from modules.commons.errors import NoFaceError

LEAST_DISTANCE_PX = 10.0
"""Nearer to the person a pixel may still show some of it."""
MOST_FRAMES = 500


def sampled_rows(count: int) -> range:
    """Which of a clip's frames the plate is made of: every 5th up to 100 frames, every 20th up to 10,000, then 500."""
    interval = 5 if count <= 100 else 20 if count < 10_000 else count // MOST_FRAMES
    return range(0, count, interval)


class BackgroundPlate:
    """Grows frame by frame.

    Args:
        size_hw: of the pictures.
    """

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._furthest = np.zeros(size_hw, np.float32)
        self._colour = np.zeros((*size_hw, 3), np.uint8)

    def add(self, rgb: NDArray[np.uint8], is_background: NDArray[np.bool_]) -> None:
        """Take what a frame shows.

        Args:
            rgb: ``[H, W, 3]``.
            is_background: ``[H, W]``; False where a person or anything in front of it is.
        """
        if is_background.all():
            distance = np.full(is_background.shape, np.hypot(*is_background.shape), np.float32)
        else:
            distance = np.asarray(distance_transform_edt(is_background), np.float32)
        better = distance > self._furthest
        self._furthest[better] = distance[better]
        self._colour[better] = rgb[better]

    @property
    def known(self) -> NDArray[np.bool_]:
        """Where some frame shows what is behind, ``[H, W]``; elsewhere the plate is filled in."""
        return self._furthest > LEAST_DISTANCE_PX

    def picture(self) -> NDArray[np.uint8]:
        """The plate, RGB ``[H, W, 3]``.

        Raises:
            NoFaceError: the person fills every frame, so nothing is known of what is behind.
        """
        known = self.known
        if not known.any():
            raise NoFaceError(
                "the person fills the picture in every frame, so there is no background to see; use a clip that shows "
                "some of it"
            )
        nearest = np.asarray(distance_transform_edt(~known, return_distances=False, return_indices=True))
        return self._colour[nearest[0], nearest[1]]
