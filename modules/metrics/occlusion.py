"""How well a mask of what stands before a face agrees with the true one: overlap, outline, thin things, flicker.

Masks are float ``[H, W]`` in 0..1 or bool; a pixel counts as covered from 0.5 on. Tolerances are for masks of a 512 px
crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.crops import moved_grid

OUTLINE_TOLERANCE_PX = 2.0
MIN_SEEN = 0.005
"""Share of the area from which on a thing counts as there; less is a few pixels at the rim."""
SHARP_PX = 6.0
"""Width of a true mask's edge up to which its outline is sharp enough to be told to two pixels."""
FOUND_SHARE = 0.5
"""Share of a thing's pixels that must be covered for it to count as found."""


def covered(mask: NDArray) -> NDArray[np.bool_]:
    """Which pixels of a mask count as covered."""
    return mask if mask.dtype == bool else mask >= 0.5


def overlap(found: NDArray, true: NDArray, area: NDArray[np.bool_]) -> tuple[int, int]:
    """Pixels of intersection and union inside ``area``."""
    a, b = covered(found) & area, covered(true) & area
    return int((a & b).sum()), int((a | b).sum())


def outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Covered pixels with an uncovered one beside them (4-neighbours); the picture's rim is no outline."""
    padded = np.pad(mask, 1, mode="edge")
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def within(mask: NDArray[np.bool_], reach_px: float) -> NDArray[np.bool_]:
    """Pixels whose centre is at most ``reach_px`` from the centre of one in ``mask``."""
    if not mask.any():
        return np.zeros_like(mask)
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= reach_px + 1e-4)


@dataclass(frozen=True, slots=True)
class Matches:
    """Pixels of the found and of the true set, and how many of each have a counterpart in the other."""

    found: int = 0
    found_right: int = 0
    true: int = 0
    true_found: int = 0

    def __add__(self, other: Matches) -> Matches:
        return Matches(
            self.found + other.found,
            self.found_right + other.found_right,
            self.true + other.true,
            self.true_found + other.true_found,
        )

    @property
    def precision(self) -> float:
        """NaN when nothing was found."""
        return self.found_right / self.found if self.found else math.nan

    @property
    def recall(self) -> float:
        """NaN when there is nothing to find."""
        return self.true_found / self.true if self.true else math.nan

    @property
    def f_score(self) -> float:
        """Harmonic mean of precision and recall; 0 when nothing or only wrong was found."""
        if not self.true and not self.found:
            return math.nan
        return (
            2 * self.true_found * self.found_right / max(self.true_found * self.found + self.found_right * self.true, 1)
        )


def blurred(true: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where motion smears the true outline over more than ``SHARP_PX``: its place is a matter of taste there."""
    soft = (true > 0.05) & (true < 0.95)
    sure = cv2.distanceTransform(soft.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return within(soft & (sure > SHARP_PX / 2), SHARP_PX)


def outline_matches(
    found: NDArray, true: NDArray, area: NDArray[np.bool_], tolerance_px: float = OUTLINE_TOLERANCE_PX
) -> Matches:
    """Outline pixels inside ``area`` with one of the other outline within the tolerance.

    The boundary measure of D. Martin, C. Fowlkes and J. Malik, PAMI 26(5), 2004, with nearest instead of one-to-one
    matches, as the DAVIS benchmark does (F. Perazzi et al., CVPR 2016, sec. 5).
    """
    return _matches(outline(covered(found)), outline(covered(true)), area, tolerance_px)


def region_matches(
    found: NDArray, true: NDArray, area: NDArray[np.bool_], tolerance_px: float = OUTLINE_TOLERANCE_PX
) -> Matches:
    """Covered pixels inside ``area`` with a covered one of the other mask within the tolerance: for thin things."""
    return _matches(covered(found), covered(true), area, tolerance_px)


def _matches(
    found: NDArray[np.bool_], true: NDArray[np.bool_], area: NDArray[np.bool_], tolerance_px: float
) -> Matches:
    a, b = found & area, true & area
    # counterparts may lie just outside the area, so that its rim makes no errors
    return Matches(
        int(a.sum()),
        int((a & within(true, tolerance_px)).sum()),
        int(b.sum()),
        int((b & within(found, tolerance_px)).sum()),
    )


def warped_change(
    mask: NDArray[np.float32], previous: NDArray[np.float32], flow: NDArray[np.float32], area: NDArray[np.bool_]
) -> float:
    """Mean absolute difference, inside ``area``, of a mask and the one before carried along the picture's motion.

    Args:
        mask: ``[H, W]`` 0..1 of this frame.
        previous: of the one before.
        flow: ``[H, W, 2]`` px from each pixel of this frame to where it was in the one before.
        area: what counts.
    """
    if not area.any():
        return 0.0
    carried = cv2.remap(
        previous.astype(np.float32), *moved_grid(flow), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return float(np.abs(mask - carried)[area].mean())


def backward_flow(rgb: NDArray[np.uint8], previous: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Motion from each pixel of a frame to the one before, ``[H, W, 2]`` px, by dense inverse search."""
    searcher = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (rgb, previous)]
    return np.asarray(searcher.calc(grey[0], grey[1], np.zeros((*grey[0].shape, 2), np.float32)), np.float32)


@dataclass(frozen=True, slots=True)
class SequenceScores:
    """A mask's agreement over one sequence; NaN where the sequence cannot tell.

    Attributes:
        iou: intersection over union of all frames together. worst_iou: of the frames in which the thing is there, the
            10th percentile.
        outline_f: boundary F-score.
        sharp_outline_f: the same where motion does not smear the true outline.
        recall, precision: of covered pixels, with tolerance.
        found_after: frames from when the thing is first there until half of it is covered, the worst of its visits.
        false_share: share of the lower face that is wrongly covered, mean over the frames without the thing.
        flicker: mean warped change over the true mask's.
        edited: share of the thing's pixels over the lower face that an edit would change.
        change, true_change: the two means whose ratio ``flicker`` is.
        iou_around: the first figure where the area reaches further beyond the face.
    """

    iou: float
    worst_iou: float
    outline_f: float
    recall: float
    precision: float
    found_after: float
    false_share: float
    flicker: float
    edited: float
    change: float = math.nan
    true_change: float = math.nan
    iou_around: float = math.nan
    sharp_outline_f: float = math.nan


@dataclass(slots=True)
class SequenceJudge:
    """Gathers a sequence frame by frame; ``scores`` at the end."""

    intersection: int = 0
    union: int = 0
    ious: list[float] = field(default_factory=list)
    outlines: Matches = field(default_factory=Matches)
    sharp_outlines: Matches = field(default_factory=Matches)
    regions: Matches = field(default_factory=Matches)
    false_shares: list[float] = field(default_factory=list)
    seen: list[bool] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)
    edited: tuple[float, float] = (0.0, 0.0)
    around: tuple[int, int] = (0, 0)

    def add(
        self,
        found: NDArray[np.float32],
        true: NDArray[np.float32],
        area: NDArray[np.bool_],
        lower_face: NDArray[np.bool_],
        edit_alpha: NDArray[np.float32] | None = None,
    ) -> None:
        """Take one frame.

        Args:
            found: mask ``[H, W]`` 0..1.
            true: what it should be.
            area: where they are compared.
            lower_face: of which false covers are a share.
            edit_alpha: how much an edit replaces of each pixel, protection counted; None = not asked.
        """
        both, either = overlap(found, true, area)
        there = float((covered(true) & area).sum()) >= MIN_SEEN * max(int(area.sum()), 1)
        self.seen.append(there)
        self.found.append(
            bool((covered(found) & covered(true) & area).sum() >= FOUND_SHARE * (covered(true) & area).sum())
        )
        self.intersection, self.union = self.intersection + both, self.union + either
        self.outlines += outline_matches(found, true, area)
        self.sharp_outlines += outline_matches(found, true, area & ~blurred(true))
        self.regions += region_matches(found, true, area)
        if there:
            self.ious.append(both / either)
        if not (true[area | lower_face] > 0.02).any():
            self.false_shares.append(float((covered(found) & lower_face).sum()) / max(int(lower_face.sum()), 1))
        if edit_alpha is not None:
            self.edited = (
                self.edited[0] + float((edit_alpha * true).sum()),
                self.edited[1] + float(true[lower_face].sum()),
            )

    def add_around(self, found: NDArray[np.float32], true: NDArray[np.float32], area: NDArray[np.bool_]) -> None:
        """Take one frame's masks over a larger area, for ``iou_around`` alone."""
        both, either = overlap(found, true, area)
        self.around = self.around[0] + both, self.around[1] + either

    def add_change(
        self,
        found: tuple[NDArray[np.float32], NDArray[np.float32]],
        true: tuple[NDArray[np.float32], NDArray[np.float32]],
        flow: NDArray[np.float32],
        area: NDArray[np.bool_],
    ) -> None:
        """Take two neighbouring frames' masks, each as (this frame, the one before)."""
        self.changes.append((warped_change(*found, flow, area), warped_change(*true, flow, area)))

    def scores(self) -> SequenceScores:
        """What was gathered."""
        change, true_change = (float(v) for v in np.mean(self.changes, axis=0)) if self.changes else (math.nan,) * 2
        return SequenceScores(
            iou=self.intersection / self.union if self.union else math.nan,
            worst_iou=float(np.percentile(self.ious, 10)) if self.ious else math.nan,
            outline_f=self.outlines.f_score,
            sharp_outline_f=self.sharp_outlines.f_score,
            recall=self.regions.recall,
            precision=self.regions.precision,
            found_after=frames_until_found(self.seen, self.found),
            false_share=float(np.mean(self.false_shares)) if self.false_shares else math.nan,
            flicker=change / true_change if true_change > 0 else math.nan,
            edited=self.edited[0] / self.edited[1] if self.edited[1] else math.nan,
            change=change,
            true_change=true_change,
            iou_around=self.around[0] / self.around[1] if self.around[1] else math.nan,
        )


def frames_until_found(seen: list[bool], found: list[bool]) -> float:
    """Most frames that pass, over all visits, between a thing's appearing and its being found.

    A visit in which it is never found counts with all its frames. NaN without a visit.
    """
    worst, waited, is_waiting = math.nan, 0, False
    for row, there in enumerate(seen):
        starts = there and (row == 0 or not seen[row - 1])
        if starts:
            waited, is_waiting = 0, True
        if is_waiting and (found[row] or not there):
            worst, is_waiting = float(np.fmax(worst, waited)), False
        waited += 1
    return float(np.fmax(worst, waited)) if is_waiting else worst
