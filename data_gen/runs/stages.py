"""What each stage of ``process_video.STAGES`` does: read artefacts, call one module, write artefacts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

import numpy as np

from data_gen.runs.binarizer_nerf import binarize
from data_gen.runs.judged_clip import JudgedClip, evidence_counts, learnt_face
from data_gen.runs.process_config import CropConfig, ProcessVideoConfig
from data_gen.runs.stretches import Stretch, in_stretches, stretches_at_once
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, Landmarker, build_landmarker
from data_gen.utils.mp_feature_extractors.networks import Runtime, pick_runtime
from data_gen.utils.mp_feature_extractors.region_confirmer import RegionConfirmer
from data_gen.utils.process_video.crop_utils import load_crop_metadata, save_crop_metadata
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.face_table import build_face_table, gather_looks, gather_sights
from data_gen.utils.process_video.face_tracker import FaceTracker
from data_gen.utils.process_video.fit_3dmm_landmark import fit_3dmm_for_a_video
from data_gen.utils.process_video.fit_bfm import fit_bfm_for_a_video
from data_gen.utils.process_video.landmark_track import check_faces, write_landmarks
from data_gen.utils.process_video.look_taker import build_look_taker
from data_gen.utils.process_video.observation_log import ObservationLog
from data_gen.utils.process_video.occlusion_detector import OcclusionDetector
from data_gen.utils.process_video.occlusion_table import join_occlusion, occlusion_table
from data_gen.utils.process_video.part_store import PartStore
from data_gen.utils.process_video.person_linking import link_persons
from data_gen.utils.process_video.scene_cuts import find_shots
from data_gen.utils.process_video.stable_crop import CropTables, small_face_note, stable_crop
from data_gen.utils.process_video.tracker_state import Sighting
from modules.commons.device import pick_device, usable_cores
from modules.commons.errors import ConfigError, NoFaceError
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.bfm import BFM_VERSION_PREFIX, BfmModel
from modules.face_model.choice import load_face_model
from modules.face_model.model import FaceModel
from modules.structures.crops import CropMetadata
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.faces import FaceTable
from modules.structures.frame_index import FrameIndex
from modules.structures.frames import Frame
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.structures.tracks import FaceTrack
from modules.video.frame_range import FrameRange
from modules.video.pipeline import decoding
from modules.video.reader import VideoReader

logger = logging.getLogger(__name__)

SMALL_CROP_SIDE_PX = 300
"""A crop whose square is at most this wide in the frame is stored at 256 px."""
SEGMENT = 256
"""Frames between two points from which a killed run can go on."""
HANDS_STRETCH = 512
"""The same for looking for hands."""
OCCLUSION_STRETCH = 256
"""The same for what else stands in front of the face: short, so that a clip of seconds keeps several cores busy."""
MOST_STRETCHES = 8
"""Stretches looked through at a time, each with its own decoder and networks."""
HANDS_MARGIN = 32
"""Frames before and after a stretch in which a hand that matters in it can first be seen."""


@dataclass(frozen=True, slots=True)
class StageInput:
    """What every stage gets: the video (and its hash), where artefacts lie, what to do, whom to tell.

    ``key`` stands for all that the stage's result depends on; unfinished work of another key is worth nothing.
    """

    video: Path
    source_sha256: str
    workspace: VideoWorkspace
    config: ProcessVideoConfig
    progress: Progress
    key: str = ""


def shots(stage: StageInput) -> None:
    """Note the time of every frame and find where shots begin, in one cheap pass over the video."""
    pts: list[int] = []
    with VideoReader(stage.video) as reader, decoding(reader) as decoded:
        frames = _counted(decoded, "shots", _expected_frames(reader), stage.progress)
        starts = find_shots(_noting_pts(frames, pts), stage.config.shots)
        time_base = reader.info.time_base
    if not pts:
        raise NoFaceError("no face was found: the video holds no frames")
    FrameIndex(np.array(pts, np.int64), time_base, starts).save(stage.workspace.frame_index)


def networks_runtime(config: ProcessVideoConfig) -> Runtime:
    """What detectors, landmark and hand networks run on.

    Raises:
        BackendUnavailableError: what is named cannot run here.
    """
    extractor = config.detect.extractor
    return pick_runtime("auto" if extractor == "mediapipe" else extractor, pick_device(config.device))


def track(stage: StageInput) -> dict[str, str]:
    """Follow every face through the video; what was seen goes to a log, so that a killed run goes on where it was.

    Returns:
        Which runtime's networks looked, for the manifest.
    """
    index = FrameIndex.load(stage.workspace.frame_index)
    log = ObservationLog(stage.workspace.observations, stage.key)
    runtime = networks_runtime(stage.config)
    size_hw = _track_into(log, stage, index, runtime)
    sights = gather_sights(log.segments())
    empty = FaceTable(size_hw, index.times_s, index.shot_starts, ())
    persons = link_persons(sights, gather_looks(log.segments()), empty.shots, index.times_s, stage.config.detect.link)
    table = build_face_table(sights, persons, index.times_s, index.shot_starts, size_hw, stage.config.detect.believe)
    check_faces(table, sights, stage.config.detect.believe.min_face_px)
    table.save(stage.workspace.faces)
    named = stage.config.detect.extractor
    return {"extractor": f"mediapipe and {runtime}" if named == "mediapipe" else str(runtime)}


def _track_into(log: ObservationLog, stage: StageInput, index: FrameIndex, runtime: Runtime) -> tuple[int, int]:
    """Track the frames that are not in the log yet; returns the frames' (height, width)."""
    settings, starts = stage.config.detect, set(index.shot_starts.tolist())
    stops = {*(start - 1 for start in starts), len(index) - 1}
    done, state = log.resume()
    first = state.recent[0][0] if state.recent else done
    landmarker = build_landmarker(settings.extractor, runtime=runtime, scores_later=runtime.extractor == "torch")
    detector = FaceDetector(settings.backend, runtime=runtime)
    confirmer = RegionConfirmer(runtime=runtime)
    tracker = FaceTracker(landmarker, detector, settings.follow, confirmer, build_look_taker(), state)
    batch: list[Sighting] = []
    with VideoReader(stage.video) as reader, decoding(FrameRange(reader, index, first)) as decoded:
        for frame in decoded:
            number = frame.index
            if number < done:
                tracker.recall(frame)
                continue
            batch += tracker.step(frame, starts_shot=number in starts, ends_shot=number in stops)
            stage.progress("track", number + 1, len(index))
            if (number + 1) % SEGMENT == 0 or number + 1 == len(index):
                log.append(done, number + 1, _scored(batch, landmarker), tracker.state)
                done, batch = number + 1, []
        return reader.info.height, reader.info.width


def _scored(sightings: list[Sighting], landmarker: Landmarker) -> list[Sighting]:
    """Sightings with the blendshape scores that the landmarker left for later, if it did."""
    if not isinstance(landmarker, FaceLandmarker):
        return sightings
    results = landmarker.with_scores([sighting.result for sighting in sightings])
    return [replace(sighting, result=result) for sighting, result in zip(sightings, results, strict=True)]


def check_face(workspace: VideoWorkspace) -> None:
    """Refuse a face that the video does not have, before anything is made for it.

    Raises:
        NoFaceError: there is no such face.
    """
    count = len(FaceTable.load(workspace.faces))
    if workspace.face >= count:
        raise NoFaceError(f"there is no face {workspace.face}: the video shows {count}, numbered from 0")


def landmarks(stage: StageInput) -> None:
    """Gather the landmarks of one face out of the log."""
    workspace = stage.workspace
    table = FaceTable.load(workspace.faces)
    segments = ObservationLog(workspace.observations).segments()
    write_landmarks(table, workspace.face, segments, workspace.landmarks)
    table.track_over_video(workspace.face).save(workspace.track)


def crop(stage: StageInput) -> None:
    """Choose the stable square around the face."""
    workspace, config = stage.workspace, stage.config.crop
    face, index = FaceTrack.load(workspace.track), FrameIndex.load(workspace.frame_index)
    with VideoReader(stage.video) as reader:
        size_hw, rate = (reader.info.height, reader.info.width), float(reader.info.frame_rate)
    points = Landmarks2D.load(workspace.landmarks).points
    metadata = choose_crop(face, size_hw, config, points=points, shot_starts=index.shot_starts, frame_rate=rate)
    note = small_face_note(face, metadata, config.min_face_px)
    if note:
        logger.warning("%s: %s", stage.video, note)
    save_crop_metadata(metadata, workspace.crop_metadata)


def choose_crop(
    face: FaceTrack, size_hw: tuple[int, int], config: CropConfig, **tables: Unpack[CropTables]
) -> CropMetadata:
    """The crop of a track, at 256 or 512 px by the size of the face unless the configuration says which."""
    size = 512 if config.crop_size == "auto" else config.crop_size
    metadata = stable_crop(face, size_hw, config.margin, size, roll=config.roll, **tables)
    if config.crop_size == "auto" and np.median([r.side for r in metadata.regions]) <= SMALL_CROP_SIDE_PX:
        return replace(metadata, crop_size=256)
    return metadata


def hands(stage: StageInput) -> dict[str, str]:
    """Find what stands in front of the face in each crop, several stretches at a time; finished ones are kept.

    Returns:
        Which runtime's networks looked, for the manifest.
    """
    workspace, size = stage.workspace, stage.config.hands.mask_size
    count = len(Landmarks2D.load(workspace.landmarks))
    parts = PartStore(workspace.hands.with_name("hands.parts"), stage.key)
    if not stage.config.hands.enabled:
        OcclusionTable.nothing(count, size).save(workspace.hands)
        parts.delete()
        return {}
    runtime = networks_runtime(stage.config)

    def look(stretch: Stretch) -> OcclusionTable:
        return _hands_in(stage, stretch, runtime)

    in_stretches("hands", count, HANDS_STRETCH, parts, look, stage.progress, at_once=_at_once(stage))
    join_occlusion(parts, workspace.hands, size)
    parts.delete()
    return {"extractor": str(runtime)}


def _at_once(stage: StageInput) -> Callable[[int], int]:
    size_hw = load_crop_metadata(stage.workspace.crop_metadata).frame_size_hw
    return lambda missing: stretches_at_once(missing, size_hw, usable_cores(), MOST_STRETCHES)


def _hands_in(stage: StageInput, stretch: Stretch, runtime: Runtime) -> OcclusionTable:
    """Look for hands in a stretch, with a reader and networks of its own."""
    workspace = stage.workspace
    points, index = Landmarks2D.load(workspace.landmarks), FrameIndex.load(workspace.frame_index)
    metadata, size = load_crop_metadata(workspace.crop_metadata), stage.config.hands.mask_size
    first, last = stretch.with_margin(HANDS_MARGIN, len(points))
    with VideoReader(stage.video) as reader, decoding(FrameRange(reader, index, first, last)) as frames:
        watched = stretch.until_stopped(frames)
        rows = (stretch.first, stretch.stop)
        return occlusion_table(watched, points, metadata, OcclusionDetector(runtime=runtime), size, rows)


def fit_first(stage: StageInput) -> None:
    """Fit the face model blind only to what hands hide: good enough to say what the face should look like."""
    _fit(stage, stage.workspace.hands, stage.workspace.first_coeffs)


def occlusion(stage: StageInput) -> dict[str, str]:
    """Find whatever stands in front of the face, by what the face should look like; finished stretches are kept.

    Returns:
        How many frames were judged by what, for the manifest.
    """
    workspace, config = stage.workspace, stage.config.occlusion
    parts = PartStore(workspace.occlusion.with_name("occlusion.parts"), stage.key)
    workspace.appearance.unlink(missing_ok=True)
    if not config.enabled:
        OcclusionTable.load(workspace.hands).save(workspace.occlusion)
        parts.delete()
        return {}
    runtime = networks_runtime(stage.config) if config.has_segmentation() else None
    clip = JudgedClip.open(stage.video, workspace, config, pick_device(stage.config.device), runtime)
    face = learnt_face(clip, parts.folder / workspace.appearance.name)
    count = len(clip.tables.landmarks)

    def look(stretch: Stretch) -> OcclusionTable:
        return clip.judged(stretch, face, OcclusionEvidence.APPEARANCE)

    in_stretches("occlusion", count, OCCLUSION_STRETCH, parts, look, stage.progress, at_once=_at_once(stage))
    join_occlusion(parts, workspace.occlusion, config.mask_size)
    if face is not None:
        face.save(workspace.appearance)
    parts.delete()
    return evidence_counts(OcclusionTable.load(workspace.occlusion))


def fit(stage: StageInput) -> None:
    """Fit the face model blind to all that is hidden; where hands hid just as much, the first fit is that already."""
    workspace = stage.workspace
    by_hands, by_all = (OcclusionTable.load(path).hidden for path in (workspace.hands, workspace.occlusion))
    if np.array_equal(by_hands, by_all):
        FaceModelCoeffs.load(workspace.first_coeffs).save(workspace.coeffs)
        return
    _fit(stage, workspace.occlusion, workspace.coeffs)


def _fit(stage: StageInput, occluders: Path, output: Path) -> None:
    """Fit the face model to the landmarks that ``occluders`` leaves."""
    stage.progress("fit", 0, 1)
    model, device = load_face_model(stage.config.face_model), pick_device(stage.config.device)
    if isinstance(model, BfmModel):
        fit_bfm_for_a_video(stage.workspace, model, stage.config.fit, occluders, output, device=device)
    else:
        fit_3dmm_for_a_video(stage.workspace, model, stage.config.fit, occluders, output, device=device)
    stage.progress("fit", 1, 1)


def check_fitted_model(workspace: VideoWorkspace) -> None:
    """Refuse coefficients of a model that has no mesh with regions, before anything is made of them.

    Raises:
        ConfigError: the clip was fitted with BFM2009.
    """
    version = FaceModelCoeffs.load(workspace.coeffs).face_model_version
    if version.startswith(BFM_VERSION_PREFIX):
        raise ConfigError(
            f"{workspace.coeffs} was fitted with BFM2009 ({version}), which cannot be trained or rendered with yet; "
            "its coefficients are finished, and for a face of your own set face_model to embedded"
        )


def binarize_clip(stage: StageInput) -> None:
    """Choose the frames to learn from and store their crops."""
    model = FaceModel.load(FACE_MODEL_FILE)
    binarize(stage.workspace, stage.video, stage.source_sha256, model, stage.config.binarizer, stage.progress)


def _counted(frames: Iterable[Frame], what: str, expected: int, progress: Progress) -> Iterator[Frame]:
    """Pass frames on, reporting them; ``expected`` is a guess, the end of the stream decides."""
    done = 0
    for frame in frames:
        yield frame
        done += 1
        progress(what, done, max(expected, done + 1) if expected else 0)
    if done:
        progress(what, done, done)


def _noting_pts(frames: Iterable[Frame], pts: list[int]) -> Iterator[Frame]:
    """Pass frames on, noting their presentation times."""
    for frame in frames:
        pts.append(frame.pts)
        yield frame


def _expected_frames(reader: VideoReader) -> int:
    """Frames the file should hold by its duration; 0 when it does not say. Good for a progress bar only."""
    return round(reader.info.duration_s * float(reader.info.frame_rate)) if reader.info.duration_s else 0
