"""What is timed: each stage of the pipeline on the same few seconds of a prepared video, on the project's own code."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import DEFAULT_CONFIG
from data_gen.runs.stages import occlusion_table
from data_gen.utils.mp_feature_extractors.face_landmarker import build_landmarker
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.fit_3dmm_landmark import fit_3dmm
from data_gen.utils.process_video.landmark_track import track_and_landmark
from data_gen.utils.process_video.occlusion_detector import OcclusionDetector
from inference.arbitrary_video import plan_video
from inference.audio_to_motion import AudioToMotion
from inference.driving import end_rays_at, occlusion_in, speech_track
from inference.edit_plan import EditPlan
from inference.face_compositor import FaceCompositor
from inference.jobs import END_THRESHOLD
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import PreparedSource, open_source
from modules.commons.config import load_config
from modules.commons.errors import VideoReadError
from modules.commons.progress import Progress
from modules.commons.workspace import AUDIO2MOTION_DIR, WHISPER_FILE
from modules.structures.audio import AudioClip
from modules.structures.frames import Frame, FramePatch
from modules.structures.landmarks import Landmarks2D
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.writer import VideoWriter

logger = logging.getLogger(__name__)

Run = Callable[[], object]

CPU = torch.device("cpu")
STAGE_NAMES = ("decode", "detect", "track", "hands", "fit", "audio", "render", "composite", "encode")
ACQUIRE_EVERY = 10
"""Whole-frame looks are as slow as ten followed frames, and rarer still."""
PAINT_EVERY = 4
"""Frames painted per run: enough for a steady figure within minutes on two cores."""
LLE_PERCENT = 0.2
"""The commands' default."""
MAX_HELD_BYTES = 2**30
"""Decoded frames are held in memory, so that a stage is timed alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What the stages work on.

    Attributes:
        source: the prepared video.
        speech_file, speech: what is to be said.
        checkpoint: the person who is painted.
        plan: the new motion of every frame of the video.
        frames: consecutive frames, decoded, from the first one with a face on.
        painted: every ``PAINT_EVERY``-th of those with a face, with what was rendered for it.
    """

    source: PreparedSource
    speech_file: Path
    speech: AudioClip
    checkpoint: Path
    plan: EditPlan
    frames: tuple[Frame, ...]
    painted: tuple[tuple[Frame, FramePatch], ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage on one device.

    Attributes:
        name: one of ``STAGE_NAMES``.
        device: where it runs.
        frames: video frames that one run deals with.
        covers: what one run does, in a phrase.
        open: loads what the stage needs and returns one run of it.
        sound_s: seconds of sound that one run deals with, 0 for pictures.
    """

    name: str
    device: torch.device
    frames: int
    covers: str
    open: Callable[[], Run]
    sound_s: float = 0.0


def open_scene(video: Path, speech_file: Path, checkpoint: Path, count: int, progress: Progress) -> Scene:
    """Prepare ``video`` (cached by content), plan its new motion, hold ``count`` frames and render some of them.

    Raises:
        GeneFaceError: an input is missing or cannot be used; the message is one clear sentence.
    """
    speech = load_audio_16k(speech_file)
    source = open_source(video, progress)
    motion = AudioToMotion(AUDIO2MOTION_DIR, WHISPER_FILE, source.face_model.version).predict(speech)
    plan = plan_video(source, motion)
    frames = _held_frames(source, count)
    chosen = [frame for frame in frames if source.coeffs.valid[frame.index]][::PAINT_EVERY]
    painter = open_painter(source, plan, checkpoint, [frame.index for frame in chosen], "cpu")
    painted = tuple(zip(chosen, painter(), strict=True))
    return Scene(source, speech_file, speech, checkpoint, plan, frames, painted)


def _held_frames(source: PreparedSource, count: int) -> tuple[Frame, ...]:
    """Consecutive frames from the first usable face on; fewer than ``count`` where the video or the memory ends."""
    usable = np.flatnonzero(source.coeffs.valid)
    first = max(0, min(int(usable[0]), len(source) - count)) if len(usable) else 0
    held: list[Frame] = []
    room = MAX_HELD_BYTES
    with VideoReader(source.video) as reader:
        for frame in islice(reader.frames(), first, first + count):
            held.append(frame)
            room -= sum(plane.nbytes for plane in frame.planes)
            if room < 0 and len(held) < count:
                logger.warning("only %d frames are timed: more of this size would fill the memory", len(held))
                break
    if not any(source.coeffs.valid[frame.index] for frame in held):
        raise VideoReadError(f"{source.video}: none of {len(held)} frames shows a face that can be fitted")
    return tuple(held)


def open_painter(
    source: PreparedSource, plan: EditPlan, checkpoint: Path, rows: Sequence[int], device: str
) -> Callable[[], list[FramePatch]]:
    """Load a person; what is returned renders frames ``rows`` of ``source`` as the commands do."""
    renderer = IdentityRenderer(checkpoint, source.face_model, device, warn_of_size=False)
    end_rays_at(renderer, END_THRESHOLD)
    coeffs = source.coeffs

    def paint() -> list[FramePatch]:
        conditions = renderer.conditions(plan.expression[list(rows)], lle_percent=LLE_PERCENT)
        return [
            renderer.render_patch(
                coeffs.identity,
                plan.expression[row],
                coeffs.euler[row],
                coeffs.translation[row],
                coeffs.camera,
                condition,
                source_expression=coeffs.expression[row],
            )
            for row, condition in zip(rows, conditions, strict=True)
        ]

    return paint


def stages_of(scene: Scene, devices: Sequence[torch.device]) -> tuple[Stage, ...]:
    """Every stage in the order of the pipeline; those with a CUDA form once per device."""
    settings = load_config(DEFAULT_CONFIG, ProcessVideoConfig, {})
    speaking = [_audio(scene, device) for device in devices]
    painting = [_render(scene, device) for device in devices]
    return (
        _decode(scene),
        _detect(scene, settings),
        _track(scene, settings),
        _hands(scene, settings),
        _fit(scene, settings),
        *speaking,
        *painting,
        _composite(scene),
        _encode(scene),
    )


def _decode(scene: Scene) -> Stage:
    count = len(scene.frames)

    def run() -> int:
        with VideoReader(scene.source.video) as reader:
            return sum(1 for _ in islice(reader.frames(), count))

    return Stage("decode", CPU, count, "the file opened and decoded to planes", lambda: run)


def _detect(scene: Scene, settings: ProcessVideoConfig) -> Stage:
    frames = scene.frames[::ACQUIRE_EVERY]

    def load() -> Run:
        detector = FaceDetector(settings.detect.backend)
        return lambda: [detector.detect_face_bbox(rgb_from_planes(frame)) for frame in frames]

    return Stage("detect", CPU, len(frames), "a whole-frame look, as at the start, after cuts and while lost", load)


def _track(scene: Scene, settings: ProcessVideoConfig) -> Stage:
    def load() -> Run:
        landmarker = build_landmarker(settings.detect.extractor)
        detector = FaceDetector(settings.detect.backend)
        believe = settings.detect.believe
        return lambda: track_and_landmark(scene.frames, landmarker, detector, believe=believe)

    covers = "478 landmarks on each frame, the detector's checks, smoothing; finds the face once"
    return Stage("track", CPU, len(scene.frames), covers, load)


def _hands(scene: Scene, settings: ProcessVideoConfig) -> Stage:
    source = scene.source

    def load() -> Run:
        detector = OcclusionDetector()
        size = settings.hands.mask_size
        return lambda: occlusion_table(scene.frames, source.landmarks, source.crops, detector, size)

    return Stage("hands", CPU, len(scene.frames), "hands found, followed and drawn as masks", load)


def _fit(scene: Scene, settings: ProcessVideoConfig) -> Stage:
    source = scene.source
    rows = slice(scene.frames[0].index, scene.frames[-1].index + 1)
    seen = source.landmarks
    landmarks = Landmarks2D(seen.points[rows], seen.depth[rows], seen.valid[rows], seen.blendshapes[rows])
    weights = (~source.occlusion.hidden[rows]).astype(np.float32)
    camera = source.coeffs.camera

    def load() -> Run:
        return lambda: fit_3dmm(landmarks, camera, source.face_model.corrected(None), settings.fit, weights)

    return Stage("fit", CPU, len(scene.frames), "identity once, pose and expression of each frame", load)


def _audio(scene: Scene, device: torch.device) -> Stage:
    spoken_s = scene.speech.duration_s
    frames = max(1, round(spoken_s * float(scene.source.info.frame_rate)))

    def load() -> Run:
        predictor = AudioToMotion(AUDIO2MOTION_DIR, WHISPER_FILE, scene.source.face_model.version, device=device)
        return lambda: predictor.predict(scene.speech)

    covers = f"features (in windows of 30 s) and motion of {spoken_s:.1f} s of sound"
    if device.type != "cpu":
        covers += "; the commands do this on the CPU"
    return Stage("audio", device, frames, covers, load, sound_s=spoken_s)


def _render(scene: Scene, device: torch.device) -> Stage:
    rows = [frame.index for frame, _ in scene.painted]

    def load() -> Run:
        return open_painter(scene.source, scene.plan, scene.checkpoint, rows, device.type)

    covers = "the lower face, on the frame's own pixels"
    if device.type != "cpu":
        covers += "; mesh and alpha on the CPU"
    return Stage("render", device, len(rows), covers, load)


def _composite(scene: Scene) -> Stage:
    source = scene.source
    size_wh = (source.info.width, source.info.height)

    def run() -> list[Frame]:
        compositor = FaceCompositor()
        return [
            compositor.composite_patch(frame, patch, occlusion_in(source, frame.index, np.eye(3), size_wh))
            for frame, patch in scene.painted
        ]

    return Stage(
        "composite", CPU, len(scene.painted), "hands kept in front, colour matched, planes blended", lambda: run
    )


def _encode(scene: Scene) -> Stage:
    def load() -> Run:
        sound = speech_track(scene.speech_file, scene.source.video)

        def run() -> None:
            with (
                tempfile.TemporaryDirectory(prefix="lipsync-benchmark-") as folder,
                VideoWriter(Path(folder) / "out.mp4", scene.source.info, audio=sound) as writer,
            ):
                for frame in scene.frames:
                    writer.write(frame)

        return run

    return Stage("encode", CPU, len(scene.frames), "x264 (crf 14, medium) and AAC, written as MP4", load)
