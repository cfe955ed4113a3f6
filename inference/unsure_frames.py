"""Frames of clips that show too little of the clean face: where a hand is near, nobody can tell what it hides."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from data_gen.utils.process_video.occlusion_table import lower_face
from modules.structures.crops import CropMetadata, transform_points
from modules.structures.frame_index import shot_ranges
from modules.structures.landmarks import Landmarks2D, face_height_px
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.structures.spans import runs_of

NEAR_FACE = 0.15
"""So near to the lower face, in face heights, something counts as being in front of it."""
LEAST_SHARE = 0.002
"""Of the lower face and its surroundings; less is an edge that has not gone far in."""
LEAST_RUN_S = 1.0
"""Frames between unsure ones, or between them and a cut, that last no longer are unsure as well."""
REACH = 6
"""Hands are missed in single frames: those within this many of an unsure one are unsure as well."""


def unsure_frames(
    occlusion: OcclusionTable,
    landmarks: Landmarks2D,
    crops: CropMetadata,
    times_s: NDArray[np.float64],
    shot_starts: NDArray[np.int64] | None = None,
) -> NDArray[np.bool_]:
    """bool ``[T]``: frames judged by hands, motion and colour alone in which something is at or near the lower face.

    Args:
        occlusion: of the clip.
        landmarks: of the clip.
        crops: of the clip.
        times_s: ``[T]`` rising.
        shot_starts: ascending rows that begin a shot; None = one shot.
    """
    by_hands = occlusion.evidence == OcclusionEvidence.HANDS
    near = np.zeros(len(occlusion), bool)
    for row in occlusion.rows.tolist():
        if by_hands[row] and landmarks.valid[row]:
            near[row] = _is_near(occlusion, row, landmarks.points[row], crops)
    unsure = np.asarray(maximum_filter1d(near, 2 * REACH + 1)) & by_hands
    for first, stop in shot_ranges(shot_starts, len(unsure)):
        if unsure[first:stop].any():
            for start, end in runs_of(~unsure[first:stop]):
                _fill(unsure, by_hands, times_s, first + start, first + end)
    return unsure


def _fill(
    unsure: NDArray[np.bool_], by_hands: NDArray[np.bool_], times_s: NDArray[np.float64], first: int, stop: int
) -> None:
    """Let a short run between unsure frames, or between one and a cut, be unsure as well. In place.

    A flash of new lips between two spans that are left alone is worse than none. The clip's ends are no cuts.
    """
    between = first > 0 and stop < len(unsure)
    if between and times_s[stop - 1] - times_s[first] < LEAST_RUN_S and by_hands[first:stop].all():
        unsure[first:stop] = True


def _is_near(occlusion: OcclusionTable, row: int, points: NDArray[np.floating], crops: CropMetadata) -> bool:
    mask = occlusion.stored_mask(row)
    if mask is None:
        return False
    at_mask = transform_points(crops.region(row).crop_from_frame(len(mask)), np.asarray(points, np.float64))
    reach = round(NEAR_FACE * float(face_height_px(at_mask[None])[0]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    around = np.asarray(cv2.dilate(lower_face(at_mask, mask.shape).astype(np.uint8), disc)) > 0
    return bool((mask[around] > 127).mean() > LEAST_SHARE) if around.any() else False
