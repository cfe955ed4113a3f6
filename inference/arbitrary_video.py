"""The steps of a job on an arbitrary video: open it, predict its new motion, edit its frames, say what was done."""

from __future__ import annotations

import logging
import re
import shutil
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import DEFAULT_CONFIG, STAGES, file_sha256, run_stages
from inference.driving import (
    PreparedSource,
    end_rays_at,
    load_source,
    occlusion_in,
    plan_speech,
    speech_motion,
    speech_track,
)
from inference.edit_plan import EditPlan
from inference.face_compositor import FaceCompositor
from inference.identity import Identity, find_identity, train_identity, training_config
from inference.jobs import ArbitraryJob, EditOptions, PersonOptions, SpeechOptions
from inference.motion_to_frames import IdentityRenderer
from inference.summary import AreaMeter, RunSummary
from modules.commons.config import load_config
from modules.commons.errors import ConfigError, NoFaceError, OutputError, VideoReadError
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel, Region
from modules.structures.audio import AudioClip
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask
from modules.structures.motion import MotionSequence
from modules.video.alpha import AlphaWriter
from modules.video.colour import rgb_from_planes
from modules.video.pipeline import decoding, encoding
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter

logger = logging.getLogger(__name__)

MEMORY_S = 1.6
"""How far back colour is still felt: four time constants of the compositor."""
MEMORY_STEP_S = 0.03
"""Of faster video, not every frame is needed for that."""


@dataclass(slots=True)
class EditRecord:
    """What the edit pass saw."""

    area: AreaMeter = field(default_factory=AreaMeter)
    frames: int = 0
    with_hand: int = 0


def open_source(video: Path, progress: Progress) -> PreparedSource:
    """Prepare the video (cached by content) and load its tables.

    Raises:
        GeneFaceError: the video cannot be used.
    """
    with VideoReader(video) as reader:
        info = reader.info
    sha256 = file_sha256(video)
    workspace = VideoWorkspace(video_id_of(video, sha256))
    try:
        _prepare(video, workspace, "fit", progress)
    except NoFaceError as error:
        raise NoFaceError(f"{video}: {error}") from error
    return load_source(video, sha256, workspace, info)


def prepare_training(source: PreparedSource, progress: Progress) -> None:
    """Choose and store the frames that this person is learnt from."""
    _prepare(source.video, source.workspace, STAGES[-1].name, progress)


def _prepare(video: Path, workspace: VideoWorkspace, last_stage: str, progress: Progress) -> None:
    """Run the stages up to ``last_stage``; those that are up to date cost nothing."""
    end = [stage.name for stage in STAGES].index(last_stage) + 1
    run_stages(STAGES[:end], video, workspace, load_config(DEFAULT_CONFIG, ProcessVideoConfig, {}), progress)


def find_or_train_identity(job: PersonOptions, source: PreparedSource, progress: Progress) -> Identity:
    """The checkpoint the job names, else the one made from this very video, else a new one."""
    if job.head_ckpt is not None:
        return Identity(job.head_ckpt, trained_now=False)
    workspace = source.workspace
    chosen = (workspace.video_id, job.config, job.device, workspace.data_root)
    found = find_identity(source.sha256, source.face_model.version, training_config(*chosen) if job.config else None)
    if found is not None:
        return Identity(found, trained_now=False)
    prepare_training(source, progress)
    name = workspace.video_id if job.config is None else f"{workspace.video_id}-{job.config.stem}"
    return Identity(train_identity(training_config(*chosen), name, progress), trained_now=True)


def video_id_of(path: Path, sha256: str) -> str:
    """A folder name that says which file it is: cleaned stem and the first digits of the content's hash."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem).strip("_")[:40] or "video"
    return f"{stem}-{sha256[:10]}"


def predict_motion(job: SpeechOptions, speech: AudioClip) -> MotionSequence:
    """Speech to motion; needs no video, so a wrong checkpoint is found out before minutes of preparing."""
    return speech_motion(job, speech, FaceModel.load(FACE_MODEL_FILE).version)


def plan_video(source: PreparedSource, motion: MotionSequence) -> EditPlan:
    """The new expression of every frame of the video."""
    return plan_speech(source, motion, np.arange(len(source)), source.times_s)


class FrameEditor:
    """Repaints one frame at a time: render on the frame's grid, keep hands in front, put it back in the planes."""

    def __init__(
        self, options: EditOptions, source: PreparedSource, renderer: IdentityRenderer, plan: EditPlan
    ) -> None:
        self.source = source
        self.plan = plan
        self.renderer = renderer
        end_rays_at(renderer, options.raymarching_end_threshold)
        self.conditions = renderer.conditions(plan.expression, lle_percent=options.lle_percent)
        self.compositor = FaceCompositor(blend_mode=options.blend_mode)
        self.region: Region = options.region
        self.last_row: int | None = None

    def patch(self, row: int) -> FramePatch:
        """The rendered region of frame ``row`` with its alpha, edit strength included."""
        coeffs = self.source.coeffs
        patch = self.renderer.render_patch(
            coeffs.identity,
            self.plan.expression[row],
            coeffs.euler[row],
            coeffs.translation[row],
            coeffs.camera,
            self.conditions[row],
            source_expression=coeffs.expression[row],
            region=self.region,
        )
        strength = float(self.plan.strength[row])
        return patch if strength >= 1 else replace(patch, alpha=patch.alpha * np.float32(strength))

    def occlusion(self, row: int) -> OcclusionMask | None:
        """What stands in front of the face in frame ``row``, in frame space."""
        return occlusion_in(self.source, row, np.eye(3), (self.source.info.width, self.source.info.height))

    def remember_colour(self, frame: Frame) -> None:
        """Let the colour of ``frame`` count for a later one, as if the frames between had been edited too."""
        self.compositor.composite_patch(frame, self.patch(frame.index), self.occlusion(frame.index))
        self.last_row = None

    def edit(self, frame: Frame) -> tuple[Frame, FramePatch, OcclusionMask | None]:
        """The frame with new lips, the patch that was put in and what was kept in front of it."""
        row = frame.index
        if self.last_row is not None and row != self.last_row + 1:
            self.compositor.reset()
        self.last_row = row
        patch, occlusion = self.patch(row), self.occlusion(row)
        return self.compositor.composite_patch(frame, patch, occlusion), patch, occlusion


def colour_memory(times_s: NDArray[np.float64], edited: NDArray[np.bool_], row: int) -> list[int]:
    """Rows before ``row`` whose matched colour still shows in it: a few of those edited without a break before it."""
    breaks = np.flatnonzero(~edited[:row])
    first = int(breaks[-1]) + 1 if len(breaks) else 0
    chosen: list[int] = []
    for near in range(row - 1, first - 1, -1):
        if times_s[row] - times_s[near] > MEMORY_S:
            break
        if not chosen or times_s[chosen[-1]] - times_s[near] >= MEMORY_STEP_S:
            chosen.append(near)
    return chosen


def preview_frame(job: ArbitraryJob, source: PreparedSource, identity: Identity, plan: EditPlan) -> Path:
    """Write frame ``job.preview`` alone, composited, as a PNG.

    Raises:
        ConfigError: there is no such frame.
    """
    wanted = job.preview or 0
    if wanted >= len(source):
        raise ConfigError(f"--preview {wanted}: {source.video} has {len(source)} frames, numbered from 0")
    earlier = colour_memory(source.times_s, plan.edited, wanted) if plan.edited[wanted] else []
    editor = FrameEditor(job, source, IdentityRenderer(identity.checkpoint, source.face_model, job.device), plan)
    frame = None
    with VideoReader(source.video) as reader:
        for frame in reader.frames():
            if frame.index == wanted:
                break
            if frame.index in earlier:
                editor.remember_colour(frame)
    if frame is None or frame.index != wanted:
        raise VideoReadError(f"{source.video} ends before frame {wanted}; copy it again")
    if plan.edited[wanted]:
        frame = editor.edit(frame)[0]
    else:
        logger.warning("frame %d passes through: %s", wanted, plan.reasons[wanted])
    _write_png(job.preview_path, rgb_from_planes(frame))
    return job.preview_path


def edit_video(
    job: ArbitraryJob, source: PreparedSource, identity: Identity, plan: EditPlan, speech: AudioClip,
    progress: Progress,
) -> EditRecord:  # fmt: skip
    """Write the edited video (and the masks when asked for); both appear together or not at all."""
    record = EditRecord()
    editor = FrameEditor(job, source, IdentityRenderer(identity.checkpoint, source.face_model, job.device), plan)
    count = _frames_to_write(job, source, speech)
    if speech.duration_s > source.times_s[-1] + 0.5 and count == len(source):
        logger.warning("the speech (%.1f s) is longer than the video; its end is cut off", speech.duration_s)
    quality = EncodeConfig(crf=job.crf, lossless=job.lossless)
    for output in filter(None, (job.out_name, job.save_masks)):
        output.parent.mkdir(parents=True, exist_ok=True)
    sound = speech_track(job.drv_aud, source.video)
    debug = DebugStrips(job.out_name) if job.debug else None
    masks = None if job.save_masks is None else AlphaWriter(job.save_masks, source.info)
    with (
        masks or nullcontext(),
        VideoReader(source.video) as reader,
        VideoWriter(job.out_name, source.info, quality=quality, audio=sound) as writer,
        decoding(reader) as decoded,
        encoding(writer) as encoded,
    ):
        for frame in decoded:
            if frame.index >= count:
                break
            result, bounds, alpha = frame, None, None
            if plan.edited[frame.index]:
                result, patch, occlusion = editor.edit(frame)
                bounds, alpha = patch.bounds, final_alpha(patch, occlusion)
                record.area.add(float(alpha.sum()))
                record.with_hand += occlusion is not None
                if debug:
                    debug.add(frame, result, patch, alpha)
            if masks:
                masks.write(frame, bounds, alpha)
            encoded.put(result)
            record.frames += 1
            progress("edit", record.frames, count)
    return record


def final_alpha(patch: FramePatch, occlusion: OcclusionMask | None) -> NDArray[np.float32]:
    """The patch's alpha with what is in front of the face taken out."""
    if occlusion is None:
        return patch.alpha
    x0, y0, x1, y1 = patch.bounds
    return patch.alpha * (1 - occlusion.values[y0:y1, x0:x1])


def _frames_to_write(job: ArbitraryJob, source: PreparedSource, speech: AudioClip) -> int:
    if job.length == "source":
        return len(source)
    return max(1, int(np.searchsorted(source.times_s, speech.duration_s, side="left")))


class DebugStrips:
    """Every 25th edited frame as a PNG strip source | result | alpha, at twice the size, around the edit."""

    def __init__(self, out_name: Path, every: int = 25) -> None:
        self.folder = out_name.with_name(out_name.stem + "_debug")
        self.every = every
        self.seen = 0

    def add(self, before: Frame, after: Frame, patch: FramePatch, alpha: NDArray[np.float32]) -> None:
        self.seen += 1
        if (self.seen - 1) % self.every:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        grey = np.repeat(np.round(alpha * 255).astype(np.uint8)[..., None], 3, axis=2)
        strip = np.hstack([rgb_from_planes(before, patch.bounds), rgb_from_planes(after, patch.bounds), grey])
        large = cv2.resize(strip, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        _write_png(self.folder / f"{before.index:06d}.png", large)


def _write_png(path: Path, rgb: NDArray) -> None:
    done, data = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    if not done:
        raise OutputError(f"{path}: the picture cannot be encoded as PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.png")
    temporary.write_bytes(data.tobytes())
    shutil.move(temporary, path)


def summarise(
    job: ArbitraryJob, source: PreparedSource, identity: Identity, plan: EditPlan, record: EditRecord,
    seconds: dict[str, float], warnings: list[str],
) -> RunSummary:  # fmt: skip
    """The record of a finished job."""
    passed = {reason: n for reason, n in plan.counts().items() if reason != "edited"}
    residual = source.coeffs.residual[source.coeffs.valid]
    return RunSummary(
        src_video=str(job.src_video),
        drv_aud=str(job.drv_aud),
        output=str(job.out_name),
        identity=str(identity.checkpoint),
        identity_trained_now=identity.trained_now,
        frame_size=(source.info.width, source.info.height),
        frames=record.frames,
        frames_edited=record.area.frames,
        frames_passed_through=passed,
        frames_with_hand=record.with_hand,
        face_height_px=round(source.face_height_px, 1),
        edited_area_mean_px=round(record.area.mean_px, 1),
        edited_area_share=round(record.area.mean_px / (source.info.width * source.info.height), 5),
        landmark_error_percent=round(100 * float(np.nanmean(residual)), 2) if len(residual) else float("nan"),
        seconds_per_stage={name: round(value, 2) for name, value in seconds.items()},
        warnings=list(warnings),
    )
