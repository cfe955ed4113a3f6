"""What must not be painted over in the crop of a face: whatever is in front of it, and all that a hand sweeps over."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.masks import OcclusionTable

PROTECTED_MARGIN = 0.008
"""Around what is in front of a face, so much of the crop's side (1.3 % of the face's height) is left alone too.

Measured on drawn outlines: less edits more of the occluder, more leaves a rim of the old lips."""
SWEEP_GROWTH = 2.0
"""A hand's blur is as long as its way in one frame; the outlines of three frames show half of that on each side."""
MOST_GROWN = 1 / 32
"""Of the crop's side: the most that a fast hand is grown by."""
LEAST_LIKELY, AS_LIKELY = 0.15, 0.5
"""Below the first an occluder is noise, from the second on it counts in full."""


def protected_in_crop(
    found: OcclusionTable, hands: OcclusionTable | None, row: int, shot_starts: NDArray[np.int64] | None = None
) -> NDArray[np.float32] | None:
    """What must not be painted over in the crop of clip row ``row``, ``[S, S]`` 0..1; None = all may be.

    A hand that moves fast is half face in the picture, where the face as it should look says little; its outline
    still knows, though it may lag: so all that the hand sweeps over from frame to frame counts.

    Args:
        found: what is in front of the face; its masks' size is the answer's, where anything was found.
        hands: what the hand detector alone found; None = not asked.
        row: clip row.
        shot_starts: ascending rows that begin a shot; None = one shot.
    """
    occluder = occluder_in_crop(found, row, shot_starts)
    values = None if occluder is None else protected(occluder)
    sweep = None if hands is None else swept(hands, row, shot_starts)
    if sweep is None or values is None:
        return values if sweep is None else sweep
    if sweep.shape != values.shape:
        sweep = np.asarray(cv2.resize(sweep, values.shape[::-1], interpolation=cv2.INTER_LINEAR))
    return np.maximum(values, sweep)


def protected(occluder: NDArray[np.float32]) -> NDArray[np.float32]:
    """What must not be painted over, given how likely an occluder is at each place ``[S, S]`` of a crop.

    The mask is the best estimate, so half of its edge lies inside the occluder; a seam in the face is seen less than a
    rim of a finger that is gone. So all that is as likely as not counts as occluder, and what lies near it as well,
    less and less.
    """
    sure = np.clip((occluder - LEAST_LIKELY) / (AS_LIKELY - LEAST_LIKELY), 0, 1).astype(np.float32)
    radius_px = max(1, round(PROTECTED_MARGIN * len(occluder)))
    grown = cv2.GaussianBlur(cv2.dilate(sure, _disc(radius_px)), (0, 0), radius_px / 3)
    return np.clip(np.maximum(grown, sure), 0, 1).astype(np.float32)


def swept(table: OcclusionTable, row: int, shot_starts: NDArray[np.int64] | None = None) -> NDArray[np.float32] | None:
    """All that a hand sweeps over around a frame, ``[S, S]`` 0..1; None = no hand is near in time.

    The outlines of the frame, the one before and the one after together, without looking over cuts, grown by how far
    the blur of a fast one reaches past them.

    Args:
        table: hands alone.
        row: clip row.
        shot_starts: ascending rows that begin a shot; None = one shot.
    """
    masks = _masks_near(table, row, shot_starts)
    if not masks:
        return None
    union, own = np.max(list(masks.values()), axis=0), masks.get(row)
    radius_px = _blur_px(union > 127, np.zeros_like(union, bool) if own is None else own > 127)
    if radius_px:
        union = np.asarray(cv2.dilate(union, _disc(radius_px)))
    return union.astype(np.float32) / np.float32(255)


def occluder_in_crop(
    table: OcclusionTable, row: int, shot_starts: NDArray[np.int64] | None = None
) -> NDArray[np.float32] | None:
    """Occluder ``[S, S]`` 0..1 of a frame at the table's size; its neighbours' fill in where this frame has none."""
    masks = _masks_near(table, row, shot_starts)
    if not masks:
        return None
    own = masks.get(row)
    chosen = np.max(list(masks.values()), axis=0) if own is None else own
    return chosen.astype(np.float32) / np.float32(255)


def _masks_near(table: OcclusionTable, row: int, shot_starts: NDArray[np.int64] | None) -> dict[int, NDArray[np.uint8]]:
    """Stored masks, by row, of a frame, the one before and the one after, as far as they are of its shot."""
    shots = np.zeros(1, np.int64) if shot_starts is None else shot_starts
    shot = np.searchsorted(shots, row, side="right")
    near = [r for r in (row - 1, row, row + 1) if np.searchsorted(shots, r, side="right") == shot]
    return {r: mask for r in near if (mask := table.stored_mask(r)) is not None}


def _blur_px(union: NDArray[np.bool_], own: NDArray[np.bool_]) -> int:
    """How far a hand's blur reaches past its outline: by how wide the strip is that it sweeps over beside itself."""
    parts, _ = cv2.findContours(union.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = sum(cv2.arcLength(part, True) for part in parts)
    width = (np.count_nonzero(union) - np.count_nonzero(own)) / max(outline, 1.0)
    return min(round(SWEEP_GROWTH * width), round(MOST_GROWN * len(union)))


def _disc(radius_px: int) -> NDArray[np.uint8]:
    side = 2 * radius_px + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)
