"""A clip whose frames are judged: what stands in front of the face, by what the face should look like.

Shared by the stage ``occlusion`` and, once the person's head is trained, by the pass that renders it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.runs.process_config import OcclusionStageConfig
from data_gen.runs.stretches import Stretch
from data_gen.utils.mp_feature_extractors.multiclass_segmenter import ClassSegmenter, usable_runtime
from data_gen.utils.mp_feature_extractors.networks import Runtime, pick_runtime
from data_gen.utils.process_video.clean_appearance import CleanAppearance, clean_rows, learn_appearance
from data_gen.utils.process_video.crop_utils import crop_frame, load_crop_metadata
from data_gen.utils.process_video.frame_hints import FrameHints
from data_gen.utils.process_video.landmark_surprise import LandmarkSurprise, SurpriseConfig
from data_gen.utils.process_video.occlusion_pass import PASS_MARGIN, PassTables, occlusion_pass
from data_gen.utils.process_video.occlusion_table import TableRows
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.bfm import BFM_VERSION_PREFIX
from modules.face_model.model import FaceModel
from modules.structures.expected_face import FaceExpectation
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frame_index import FrameIndex
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.video.frame_range import FrameRange
from modules.video.pipeline import decoding
from modules.video.reader import VideoReader

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
NEAR_FRAMES = 48
"""Frames wanted that lie no further apart are read in one go; beyond, seeking is cheaper than decoding."""


@dataclass(frozen=True, slots=True, eq=False)
class JudgedClip:
    """One face of a video with all that its masks depend on.

    Attributes:
        video: the file.
        index: its frames.
        tables: what was measured.
        coeffs: the fit that expected faces follow.
        config: how masks are made.
        device: what the maths of the masks runs on; no result depends on it but for rounding.
        surprise: which of its landmarks are strange; None = nobody knows.
        segmenter_runtime: what classes of pixels are told on; None = they are not told.
    """

    video: Path
    index: FrameIndex
    tables: PassTables
    coeffs: FaceModelCoeffs
    config: OcclusionStageConfig
    device: torch.device = CPU
    surprise: LandmarkSurprise | None = None
    segmenter_runtime: Runtime | None = None

    @classmethod
    def open(
        cls,
        video: Path,
        workspace: VideoWorkspace,
        config: OcclusionStageConfig,
        device: torch.device = CPU,
        runtime: Runtime | None = None,
    ) -> JudgedClip:
        """Read the tables that the stages before left, and say in the log what the masks will be judged by.

        Args:
            video: the file.
            workspace: of the face.
            config: how masks are made.
            device: for the maths.
            runtime: for networks; None = the device's own.
        """
        index = FrameIndex.load(workspace.frame_index)
        tables = PassTables(
            landmarks=Landmarks2D.load(workspace.landmarks),
            metadata=load_crop_metadata(workspace.crop_metadata),
            hands=OcclusionTable.load(workspace.hands),
            shot_starts=index.shot_starts,
        )
        coeffs = FaceModelCoeffs.load(workspace.first_coeffs)
        surprise = strange_landmarks(tables.landmarks, coeffs, config.judge.surprise)
        told = usable_runtime(runtime or pick_runtime("auto", device)) if config.has_segmentation() else None
        logger.info("what is in front is judged by %s", ", ".join(evidence_names(surprise, told)))
        return cls(video, index, tables, coeffs, config, device, surprise, told)

    def hints(self) -> FrameHints:
        """What else is evidence, with a network of its own: one thread at a time may use it."""
        runtime = self.segmenter_runtime
        return FrameHints(self.surprise, None if runtime is None else ClassSegmenter(runtime=runtime))

    def judged(self, stretch: Stretch, face: FaceExpectation | None, kind: OcclusionEvidence) -> OcclusionTable:
        """The table of a stretch, with a reader of its own.

        Args:
            stretch: of the clip.
            face: what frames should look like; None = nobody knows.
            kind: what it makes of a frame that it knows; others are judged by hands, motion and colour.
        """
        tables, count = self.tables, len(self.tables.landmarks)
        made = TableRows(tables.landmarks, tables.metadata, self.config.mask_size, (stretch.first, stretch.stop))
        with VideoReader(self.video) as reader:
            source = FrameRange(reader, self.index, *stretch.with_margin(PASS_MARGIN, count))
            with decoding(source) as frames:
                known = (frame for frame in stretch.until_stopped(frames) if frame.index < count)
                crops = ((frame.index, crop_frame(frame, tables.metadata)) for frame in known)
                for row, mask in occlusion_pass(crops, tables, face, self.config.judge, self.device, self.hints()):
                    is_known = face is not None and face.knows(row)
                    made.add(row, mask.values, kind if is_known else OcclusionEvidence.HANDS)
        return made.table()

    def crops(self, rows: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Crops of some rows, ascending; what lies far between is not decoded."""
        if not len(rows):
            return
        runs = np.split(rows, np.flatnonzero(np.diff(rows) > NEAR_FRAMES) + 1)
        for run in runs:
            wanted = set(run.tolist())
            with VideoReader(self.video) as reader:
                source = FrameRange(reader, self.index, int(run[0]), int(run[-1]) + 1)
                with decoding(source) as frames:
                    for frame in frames:
                        if frame.index in wanted:
                            yield frame.index, crop_frame(frame, self.tables.metadata)


def learnt_face(clip: JudgedClip, path: Path) -> CleanAppearance | None:
    """What the face looks like with nothing before it; None below 2 s of clean frames, or of a model without texture.

    Args:
        clip: to learn from.
        path: where it is kept for a run that goes on after a kill.
    """
    if not has_mesh(clip.coeffs):
        return None
    model = FaceModel.load(FACE_MODEL_FILE).corrected(clip.coeffs.correction)
    if path.is_file():
        return CleanAppearance.load(path, clip.coeffs, clip.tables.metadata, model)
    rows = clean_rows(clip.coeffs, clip.tables.hands, clip.index.times_s)
    face = learn_appearance(clip.crops(rows), clip.coeffs, clip.tables.metadata, model)
    if face is not None:
        face.save(path)
    return face


def has_mesh(coeffs: FaceModelCoeffs) -> bool:
    """Whether coefficients are of the embedded model, in the frame; BFM2009's are of the crop, without a texture."""
    return not coeffs.face_model_version.startswith(BFM_VERSION_PREFIX)


def strange_landmarks(
    landmarks: Landmarks2D, coeffs: FaceModelCoeffs, config: SurpriseConfig
) -> LandmarkSurprise | None:
    """Landmarks that disagree with the fit; None of a model without a mesh, or where too few frames have a face."""
    if not has_mesh(coeffs):
        return None
    return LandmarkSurprise.found(landmarks, coeffs, FaceModel.load(FACE_MODEL_FILE), config)


def evidence_names(surprise: LandmarkSurprise | None, told: Runtime | None) -> list[str]:
    """The kinds of evidence, as words for a log."""
    names = ["what the face should look like", "hands", "motion and colour"]
    names += [] if surprise is None else ["landmarks that disagree with the fit"]
    return names + ([] if told is None else [f"classes of pixels ({told})"])


def evidence_counts(table: OcclusionTable) -> dict[str, str]:
    """How many frames were judged by what, as text for a manifest."""
    return {"judged_by": ", ".join(f"{name} {count}" for name, count in table.judged_by().items())}
