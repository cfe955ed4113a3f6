"""Connected parts of a mask."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def connected_parts(where: NDArray[np.bool_], connectivity: int = 8) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Number of the part that each pixel belongs to, and how many pixels each part has.

    Args:
        where: ``[H, W]``.
        connectivity: 4 or 8 neighbours.

    Returns:
        Labels ``[H, W]``, 0 outside, and areas ``[N + 1]``, that of the outside first.
    """
    count, labels = cv2.connectedComponents(where.astype(np.uint8), connectivity=connectivity)
    found = np.asarray(labels, np.intp)
    return found, np.bincount(found.ravel(), minlength=count)
