"""Judge a table of masks against a sequence's truth, in the pixels of a 512 px crop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_occlusion.truth import AROUND_MARGIN, SequenceTruth, lower_face_in_crop
from modules.metrics.occlusion import SequenceJudge, SequenceScores, backward_flow, within
from modules.structures.crops import CropMetadata, sample_region
from modules.structures.frames import Frame
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionTable
from modules.structures.protected_area import protected_in_crop
from modules.video.colour import rgb_from_planes

JUDGED_SIZE = 512
"""Side of the crop at which masks are compared, whatever the stored crop's."""
LEAST_FALSE = 0.001
"""Share of the lower face from which on a frame counts as hit; less is a pixel or two."""

Evidence = Literal["hands", "appearance", "nerf"]
EVIDENCE: tuple[Evidence, ...] = ("hands", "appearance", "nerf")


@dataclass(frozen=True, slots=True, eq=False)
class FoundMasks:
    """What a prepared sequence is judged with; it is one shot.

    Attributes:
        metadata: where its crops lie. found: what was found there.
        hands: what the hand detector alone found, which no edit touches either; None = ``found`` is all there is.
    """

    metadata: CropMetadata
    found: OcclusionTable
    hands: OcclusionTable | None = None


def mask_at(table: OcclusionTable, row: int) -> NDArray[np.float32]:
    """The stored mask of frame ``row`` at ``JUDGED_SIZE``, 0..1; zeros when nothing was found."""
    soft = table.soft_mask(row, JUDGED_SIZE)
    return np.zeros((JUDGED_SIZE, JUDGED_SIZE), dtype=np.float32) if soft is None else soft


def judge(frames: Iterable[Frame], truth: SequenceTruth, clip: FoundMasks) -> SequenceScores:
    """Compare the masks of a clip with the true ones, frame by frame.

    Args:
        frames: the sequence's video.
        truth: of all its frames.
        clip: crops and masks.
    """
    gathered = SequenceJudge()
    part = _looked_at(truth, clip.metadata)
    before: tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]] | None = None
    for row, rgb in _crops(frames, clip.metadata):
        found, true = mask_at(clip.found, row)[part], truth.in_crop(row, clip.metadata, JUDGED_SIZE)[part]
        around = truth.judged(row, clip.metadata, JUDGED_SIZE, AROUND_MARGIN)[part]
        area, lower = (
            a[part]
            for a in (truth.judged(row, clip.metadata, JUDGED_SIZE), truth.lower_face(row, clip.metadata, JUDGED_SIZE))
        )
        gathered.add(found, true, area, lower, lower * (1 - protected_at(clip, row)[part]))
        gathered.add_around(found, true, around)
        if before is not None:
            flow = backward_flow(rgb[part], before[0])
            gathered.add_change((found, before[1]), (true, before[2]), flow, area)
        before = rgb[part], found, true
    return gathered.scores()


def _looked_at(truth: SequenceTruth, metadata: CropMetadata) -> tuple[slice, slice]:
    """The part of the crop that holds the face's surroundings in every frame, and a little more for the flow."""
    area = np.zeros((JUDGED_SIZE, JUDGED_SIZE), dtype=bool)
    for row in range(len(truth)):
        area |= truth.lower_face(row, metadata, JUDGED_SIZE)
    area = within(area, 0.15 * JUDGED_SIZE)
    rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
    if not len(rows):
        return slice(0, JUDGED_SIZE), slice(0, JUDGED_SIZE)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def protected_at(clip: FoundMasks, row: int) -> NDArray[np.float32]:
    """How much of each pixel of frame ``row`` the composite leaves alone, at ``JUDGED_SIZE``, 0..1."""
    kept = protected_in_crop(clip.found, clip.hands, row)
    if kept is None:
        return np.zeros((JUDGED_SIZE, JUDGED_SIZE), dtype=np.float32)
    return np.asarray(cv2.resize(kept, (JUDGED_SIZE, JUDGED_SIZE), interpolation=cv2.INTER_LINEAR), np.float32)


@dataclass(frozen=True, slots=True)
class CleanScores:
    """What a clip with nothing before the face was accused of.

    Attributes:
        false_share: mean share of the lower face that counts as covered. worst_share: of the worst frame.
        frames_hit: share of frames in which ``LEAST_FALSE`` of it does.
    """

    false_share: float
    worst_share: float
    frames_hit: float


def judge_clean(table: OcclusionTable, landmarks: Landmarks2D, metadata: CropMetadata) -> CleanScores:
    """Masks of a clip in which nothing stands before the face."""
    shares = np.zeros(len(landmarks))
    for row in np.flatnonzero(landmarks.valid):
        lower = lower_face_in_crop(landmarks.points[row], metadata, int(row), JUDGED_SIZE)
        if lower.any():
            shares[row] = float((mask_at(table, int(row)) >= 0.5)[lower].mean())
    shares = shares[np.asarray(landmarks.valid)]
    if not len(shares):
        return CleanScores(0.0, 0.0, 0.0)
    return CleanScores(float(shares.mean()), float(shares.max()), float((shares > LEAST_FALSE).mean()))


def _crops(frames: Iterable[Frame], metadata: CropMetadata) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for frame in frames:
        region = metadata.region(frame.index)
        bounds = region.bounding_box().pixel_bounds(frame.size_hw[1], frame.size_hw[0])
        if bounds is None:
            yield frame.index, np.zeros((JUDGED_SIZE, JUDGED_SIZE, 3), np.uint8)
            continue
        moved = region.shifted(-bounds[0], -bounds[1])
        yield frame.index, sample_region(rgb_from_planes(frame, bounds), moved, JUDGED_SIZE)


def table_of(folder: Path, evidence: Evidence) -> Path | None:
    """The newest file in a prepared clip's folder with masks judged by one kind of evidence; None without one."""
    pattern = {"hands": "hands.npz", "appearance": "occlusion.npz", "nerf": "occlusion_nerf-*.npz"}[evidence]
    found = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime)
    return found[-1] if found else None
