"""A video and its faces, prepared: what was measured in it, read back from the workspace.

Reads: a video. Writes: data/**/<id>/, cached by content.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import STAGES, default_config, file_sha256, run_stages
from data_gen.utils.process_video.crop_utils import load_crop_metadata
from inference.unsure_frames import unsure_frames
from inference.usable_faces import FaceEvidence
from modules.commons.config import load_config
from modules.commons.errors import FitDivergedError, ModelFileError, NoFaceError
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.structures.crops import CropMetadata
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.faces import FaceTable
from modules.structures.frame_index import FrameIndex
from modules.structures.frames import VideoInfo
from modules.structures.landmarks import FACE_OVAL, Landmarks2D
from modules.structures.masks import OcclusionTable
from modules.structures.timeline import SourceClock
from modules.structures.tracks import FaceTrack
from modules.video.reader import VideoReader


@dataclass(frozen=True, slots=True, eq=False)
class PreparedVideo:
    """A video whose frames are numbered and whose faces are followed."""

    video: Path
    sha256: str
    workspace: VideoWorkspace
    info: VideoInfo
    index: FrameIndex
    faces: FaceTable

    @property
    def clock(self) -> SourceClock:
        """When its frames are shown."""
        return SourceClock(self.index.pts, self.index.time_base, self.info.frame_rate)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedSource:
    """One face of a video and all that was measured of it; one row of each table per frame.

    Attributes:
        face_model: this person's, with the correction that the coefficients were fitted with.
        status: uint8 ``[T]`` of ``FrameStatus``, how the face was followed; None where only the fit is known.
        shot_starts: int64, ascending, 0 first: the frames that begin a shot; None = one shot.
        unsure: bool ``[T]``, see ``unsure_frames``; None = nowhere.
        hands: what the hand detector alone found; nothing of it is painted over either. None = not asked.
    """

    video: Path
    sha256: str
    workspace: VideoWorkspace
    info: VideoInfo
    times_s: NDArray[np.float64]
    landmarks: Landmarks2D
    coeffs: FaceModelCoeffs
    crops: CropMetadata
    occlusion: OcclusionTable
    face_model: FaceModel
    status: NDArray[np.uint8] | None = None
    shot_starts: NDArray[np.int64] | None = None
    unsure: NDArray[np.bool_] | None = None
    hands: OcclusionTable | None = None

    def __len__(self) -> int:
        return len(self.times_s)

    @property
    def face(self) -> int:
        """Number of the face."""
        return self.workspace.face

    @property
    def evidence(self) -> FaceEvidence:
        """What decides whether the face of a frame can be repainted."""
        seen, front = self.coeffs, self.occlusion
        return FaceEvidence(seen.valid, seen.residual, front.coverage, self.status, front.mouth, self.unsure)

    def behind(self, occlusion: OcclusionTable) -> PreparedSource:
        """The same face with another answer to what stands in front of it."""
        unsure = unsure_frames(occlusion, self.landmarks, self.crops, self.times_s, self.shot_starts)
        return replace(self, occlusion=occlusion, unsure=unsure)

    @property
    def face_height_px(self) -> float:
        """Median height of the face outline."""
        oval = self.landmarks.points[self.landmarks.valid][:, list(FACE_OVAL), 1]
        return float(np.median(oval.max(axis=1) - oval.min(axis=1))) if len(oval) else 0.0


def open_video(video: Path, progress: Progress) -> PreparedVideo:
    """Number the frames of a video and follow its faces (cached by content).

    Raises:
        GeneFaceError: the video cannot be used.
    """
    with VideoReader(video) as reader:
        info = reader.info
    sha256 = file_sha256(video)
    workspace = VideoWorkspace(video_id_of(video, sha256))
    _prepare(video, sha256, workspace, "track", progress)
    index, faces = FrameIndex.load(workspace.frame_index), FaceTable.load(workspace.faces)
    return PreparedVideo(video, sha256, workspace, info, index, faces)


def open_face(video: PreparedVideo, face: int, progress: Progress) -> PreparedSource:
    """Measure one face of a video (cached by content).

    Raises:
        GeneFaceError: the face cannot be used.
    """
    workspace = video.workspace.of_face(face)
    _prepare(video.video, video.sha256, workspace, "fit", progress)
    return load_source(video.video, video.sha256, workspace, video.info)


def open_source(video: Path, progress: Progress, face: int = 0) -> PreparedSource:
    """Prepare a video and one of its faces, by default the most important one.

    Raises:
        GeneFaceError: the video cannot be used.
    """
    return open_face(open_video(video, progress), face, progress)


def load_source(video: Path, sha256: str, workspace: VideoWorkspace, info: VideoInfo) -> PreparedSource:
    """The tables that preparing a face of ``video`` left in ``workspace``.

    Raises:
        GeneFaceError, ValueError, OSError: a table is missing or is something else.
    """
    index = FrameIndex.load(workspace.frame_index)
    coeffs, model = FaceModelCoeffs.load(workspace.coeffs), FaceModel.load(FACE_MODEL_FILE)
    if coeffs.face_model_version != model.version:
        raise ModelFileError(
            f"{video} was fitted with the face model {coeffs.face_model_version}, but {model.version} is in use; heads "
            "are rendered with the embedded one: set face_model: embedded in egs/egs_bases/process_video/base.yaml"
        )
    occlusion = OcclusionTable.load(workspace.occlusion)
    landmarks, crops = Landmarks2D.load(workspace.landmarks), load_crop_metadata(workspace.crop_metadata)
    return PreparedSource(
        video=video,
        sha256=sha256,
        workspace=workspace,
        info=info,
        times_s=index.times_s,
        landmarks=landmarks,
        coeffs=coeffs,
        crops=crops,
        occlusion=occlusion,
        face_model=model.corrected(coeffs.correction),
        status=FaceTrack.load(workspace.track).status,
        shot_starts=index.shot_starts,
        unsure=unsure_frames(occlusion, landmarks, crops, index.times_s, index.shot_starts),
        hands=OcclusionTable.load(workspace.hands),
    )


def prepare_training(source: PreparedSource, progress: Progress) -> None:
    """Choose and store the frames that this person is learnt from."""
    _prepare(source.video, source.sha256, source.workspace, STAGES[-1].name, progress)


def _prepare(video: Path, sha256: str, workspace: VideoWorkspace, last_stage: str, progress: Progress) -> None:
    """Run the stages up to ``last_stage``; those that are up to date cost nothing."""
    end = [stage.name for stage in STAGES].index(last_stage) + 1
    try:
        config = load_config(default_config(), ProcessVideoConfig, {})
        run_stages(STAGES[:end], video, workspace, config, progress, source_sha256=sha256)
    except (NoFaceError, FitDivergedError) as error:
        raise type(error)(f"{video}: {error}") from error


def video_id_of(path: Path, sha256: str) -> str:
    """A folder name that says which file it is: cleaned stem and the first digits of the content's hash."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_")[:40] or "video"
    return f"{stem}-{sha256[:10]}"
