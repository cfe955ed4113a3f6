"""The steps of a job on an arbitrary video: predict motion, find or train people, edit frames, say what was done."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.devices import render_devices
from inference.driving import plan_speech, speech_motion, speech_start_s
from inference.edit_plan import EditPlan
from inference.edited_frames import EditedFrame, Editor, State, Wanted, edited_on_devices, edited_one_by_one
from inference.editors import face_editor
from inference.extras import Extras
from inference.frame_editor import FrameEditor
from inference.identity import Identity, check_own_correction, find_identity, train_identity, training_config
from inference.jobs import ArbitraryJob, PersonOptions, SpeechOptions
from inference.mask_overlay import MaskOverlay, ShownFace
from inference.portrait_editor import portrait_identity
from inference.prepared import PreparedSource, PreparedVideo, prepare_training
from inference.provenance import provenance_path
from inference.side_videos import (
    DebugStrips,
    SidePlan,
    SideVideo,
    alpha_plan,
    comparison_plan,
    opened,
    overlay_plan,
)
from inference.summary import AreaMeter, FaceSummary, RunSummary
from modules.commons.errors import ConfigError, VideoReadError
from modules.commons.hashing import file_sha256
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.radnerfs.official import is_portrait
from modules.structures.audio import AudioClip
from modules.structures.frames import Frame
from modules.structures.masks import OcclusionTable
from modules.structures.motion import MotionSequence
from modules.structures.timeline import Timeline
from modules.video.colour import rgb_from_planes
from modules.video.frame_order import TimelineReader
from modules.video.passengers import Passengers
from modules.video.pipeline import decoding, encoding
from modules.video.png import write_png
from modules.video.reader import VideoReader
from modules.video.segments import SegmentedWriter
from modules.video.sound import SoundPlan, Speech

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """One face that is to speak anew: who it is, what it says and how each output frame is edited.

    ``adaptation`` says whether the person's own way of speaking was learnt, and why.
    """

    source: PreparedSource
    identity: Identity
    plan: EditPlan
    sound: Path
    speech: AudioClip
    motion: MotionSequence
    adaptation: str = ""


@dataclass(slots=True)
class EditRecord:
    """What the edit pass saw: frames written, and of each face the edited area and frames with a hand."""

    frames: int
    areas: list[AreaMeter]
    with_hand: int = 0

    def add(self, done: EditedFrame) -> None:
        """Count one frame."""
        for number, edit in done.edits.items():
            self.areas[number].add(edit.area_px)
        self.with_hand += any(edit.is_occluded for edit in done.edits.values())
        self.frames += 1

    def arrays(self) -> dict[str, NDArray]:
        """The record as arrays, to go on from."""
        meters = np.array([[area.frames, area.total_px, area.largest_px] for area in self.areas])
        return {"record": np.array([self.frames, self.with_hand]), "areas": meters}

    @classmethod
    def of(cls, arrays: dict[str, NDArray]) -> EditRecord:
        """The inverse of ``arrays``."""
        frames, with_hand = (int(value) for value in arrays["record"])
        areas = [AreaMeter(int(row[0]), float(row[1]), float(row[2])) for row in arrays["areas"]]
        return cls(frames, areas, with_hand)


def find_or_train_identity(job: PersonOptions, source: PreparedSource, progress: Progress) -> Identity:
    """The checkpoint the job names, else the one made from this very face of the video, else a new one."""
    workspace, correction = source.workspace, source.coeffs.correction
    if job.head_ckpt is not None and is_portrait(job.head_ckpt):
        return portrait_identity(job.head_ckpt, source)
    if job.head_ckpt is not None:
        check_own_correction(job.head_ckpt, source.sha256, workspace.face, correction)
        return Identity(job.head_ckpt, trained_now=False)
    chosen = (workspace.video_id, job.config, job.device, workspace.data_root, workspace.face)
    wanted = training_config(*chosen) if job.config else None
    found = find_identity(source.sha256, source.face_model.version, wanted, workspace.face, correction=correction)
    if found is not None:
        return Identity(found, trained_now=False)
    prepare_training(source, progress)
    name = workspace.video_id + (f"-face{workspace.face}" if workspace.face else "")
    name = name if job.config is None else f"{name}-{job.config.stem}"
    return Identity(train_identity(training_config(*chosen), name, progress), trained_now=True)


def predict_motion(job: SpeechOptions, speech: AudioClip) -> MotionSequence:
    """Speech to motion; needs no video, so a wrong checkpoint is found out before minutes of preparing."""
    return speech_motion(job, speech, FaceModel.load(FACE_MODEL_FILE).version)


def plan_video(source: PreparedSource, motion: MotionSequence) -> EditPlan:
    """The new expression of every frame of the video, shown once from start to end."""
    return plan_speech(source, motion, np.arange(len(source)), source.times_s)


def preview_frame(
    job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance],
    progress: Progress, extras: Extras | None = None,
) -> Path:  # fmt: skip
    """Write output frame ``job.preview`` alone, composited, as a PNG.

    Raises:
        ConfigError: there is no such frame.
    """
    wanted = job.preview or 0
    if wanted >= len(timeline):
        raise ConfigError(f"--preview {wanted}: the result has {len(timeline)} frames, numbered from 0")
    editors = _editors(job, timeline, performances, progress)
    shown_s = np.asarray(timeline.pts * float(timeline.time_base), np.float64)
    earlier = [editor.colour_rows(shown_s, wanted) for editor in editors]
    first = min([wanted, *(number for rows in earlier for number in rows)])
    with VideoReader(video.video) as reader:
        for frame in TimelineReader(reader, timeline, first).frames():
            if frame.index == wanted:
                break
            for editor, rows in zip(editors, earlier, strict=True):
                if frame.index in rows:
                    editor.remember_colour(frame)
        else:
            raise VideoReadError(f"{video.video} ends before frame {wanted}; copy it again")
    for editor in editors:
        if editor.plan.edited[wanted]:
            frame = editor.edit(frame)[0]
        else:
            logger.warning("face %d passes through: %s", editor.source.face, editor.plan.reasons[wanted])
    write_png(rgb_from_planes((extras or Extras()).put(frame)), job.preview_path)
    return job.preview_path


def edit_video(
    job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance],
    progress: Progress, extras: Extras | None = None,
) -> EditRecord:  # fmt: skip
    """Write the edited video and what lies beside it in segments, so that a killed run goes on where it was."""
    job.out_name.parent.mkdir(parents=True, exist_ok=True)
    extras = extras or Extras()
    devices = render_devices(job.device, job.devices, len(timeline))
    editors = [(device, _editors(job, timeline, performances, progress, device)) for device in devices]
    debug = DebugStrips(job.out_name) if job.debug else None
    key = _edit_key(job, video, timeline, performances)
    with (
        _result_writer(job, video, timeline, performances, key, devices[0], extras) as result,
        opened(_side_plans(job, video, timeline, performances), video.workspace.segments, key) as sides,
    ):
        behind = min([result, *(side.writer for side in sides)], key=lambda writer: writer.finished_frames)
        record, states = _resume(behind.state, len(performances))
        wanted = Wanted(lambda number: _is_kept(number, result, timeline), bool(sides) or job.debug)
        with (
            VideoReader(video.video) as reader,
            decoding(TimelineReader(reader, timeline, behind.finished_frames)) as decoded,
            encoding(_Outputs(result, tuple(sides))) as encoded,
            _edited(decoded if behind.finished_frames < len(timeline) else (), editors, states, wanted) as edited,
        ):
            for done in map(extras.marked, edited):
                record.add(done)
                if debug:
                    debug.add_all(done)
                drawn = tuple(side.draw(done) for side in sides)
                state = None if done.states is None else _state(record, done.states)
                encoded.put(_Finished(done.frame, drawn, state))
                progress("edit", record.frames, len(timeline))
    return record


def _side_plans(
    job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance]
) -> list[SidePlan]:
    """What is written beside the result."""
    plans = [] if job.save_masks is None else [alpha_plan(job.save_masks, video.info)]
    if job.debug_masks is not None:
        faces = [
            ShownFace(part.source, part.plan, OcclusionTable.load(part.source.workspace.hands))
            for part in performances
        ]  # fmt: skip
        plans.append(overlay_plan(job.debug_masks, video.info, MaskOverlay(faces, timeline.rows, video.info.height)))
    if job.file.compare is not None:
        sound = _sound_plan(video, timeline, performances)
        plans.append(comparison_plan(job.file.compare, video.info, sound))
    return plans


@contextmanager
def _edited(
    frames: Iterable[Frame], editors: Sequence[tuple[torch.device, Sequence[Editor]]], states: Sequence[State],
    wanted: Wanted,
) -> Generator[Iterator[EditedFrame], None, None]:  # fmt: skip
    """The frames with new lips: in batches on every device where that is possible, else one by one."""
    if all(one.runs_in_batches for one in editors[0][1]) and (len(editors) > 1 or editors[0][0].type != "cpu"):
        batched = [(device, [one for one in own if isinstance(one, FrameEditor)]) for device, own in editors]
        with edited_on_devices(frames, batched, states, wanted) as edited:
            yield edited
        return
    for editor, state in zip(editors[0][1], states, strict=True):
        editor.resume(state)
    yield edited_one_by_one(frames, editors[0][1], wanted)


def _is_kept(number: int, result: SegmentedWriter, timeline: Timeline) -> bool:
    """Whether a killed run may have to go on after frame ``number``; after the last, to say what was done."""
    return result.ends_segment(number) or number == len(timeline) - 1


@dataclass(frozen=True, slots=True, eq=False)
class _Finished:
    """A frame to be written, with those of the side videos, and what a killed run needs to go on after it."""

    frame: Frame
    drawn: tuple[Frame, ...]
    state: bytes | None


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Hands finished frames to the writers; one that has a frame already, from before a kill, is passed over."""

    result: SegmentedWriter
    sides: tuple[SideVideo, ...]

    def write(self, done: _Finished) -> None:
        """Write one frame."""
        if done.frame.index >= self.result.finished_frames:
            self.result.write(done.frame, done.state)
        for side, drawn in zip(self.sides, done.drawn, strict=True):
            if done.frame.index >= side.writer.finished_frames:
                side.writer.write(drawn, done.state)


def _editors(
    job: ArbitraryJob, timeline: Timeline, performances: Sequence[Performance], progress: Progress,
    device: torch.device | None = None,
) -> list[Editor]:  # fmt: skip
    """One for each face, rendering on ``device``; None = where the job says."""
    with torch.cuda.device(device) if device is not None and device.type == "cuda" else nullcontext():
        return [
            face_editor(job, part.source, part.identity.checkpoint, part.plan, timeline.rows, progress)
            for part in performances
        ]


def _result_writer(
    job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance], key: str,
    device: torch.device, extras: Extras,
) -> SegmentedWriter:  # fmt: skip
    # Slices are what results on a CPU were always made with; the faster threads keep up with a GPU.
    threads = "slices" if device.type == "cpu" else "frames"
    quality = job.file.quality(job.crf, job.lossless, threads)
    sound = _sound_plan(video, timeline, performances)
    passengers = Passengers(video.video, audio=job.keep_audio)
    folder = video.workspace.segments(job.out_name)
    return SegmentedWriter(
        folder, job.out_name, video.info, key=key, quality=quality, audio=sound, passengers=passengers,
        copies=extras.copies,
    )  # fmt: skip


def _sound_plan(video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance]) -> SoundPlan:
    """The new speech where it was asked for, and the video's own sound around that part."""
    sounds = dict.fromkeys(part.sound for part in performances)
    speeches = tuple(Speech(path, timeline.speech_start_s + speech_start_s(path)) for path in sounds)
    whole = timeline.in_part.all()
    span: tuple[Fraction | None, Fraction | None] = (None, None) if whole else timeline.part_s
    own = video.video if video.info.has_audio and not whole else None
    return SoundPlan(speeches, span_s=span, source=own)


def _edit_key(job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance]) -> str:
    """A hash of all that the edited frames depend on."""
    digest = hashlib.sha256(video.sha256.encode())
    options = (
        job.region, job.blend_mode, job.mouth, job.lle_percent, job.raymarching_end_threshold, str(job.device),
        job.file.watermark,
    )  # fmt: skip
    digest.update(json.dumps(options).encode())
    if job.restore is not None:
        digest.update(file_sha256(job.restore).encode())
    for array in (timeline.rows, timeline.pts):
        digest.update(array.tobytes())
    for part in performances:
        digest.update(json.dumps([part.source.face, asdict(part.source.workspace)], default=str).encode())
        for array in (part.plan.expression, part.plan.strength):
            digest.update(np.ascontiguousarray(array).tobytes())
        tables, in_front = part.source.workspace, part.source.occlusion
        for path in (tables.coeffs, tables.crop_metadata):
            digest.update(file_sha256(path).encode())
        for table in filter(None, (in_front, part.source.hands)):
            digest.update(table.digest().encode())
        for folder in filter(None, (part.identity.checkpoint, job.controls.postnet_ckpt)):
            for path in sorted(path for path in folder.glob("*") if path.is_file()):
                digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _state(record: EditRecord, states: Sequence[State]) -> bytes:
    """What the next frame depends on, packed."""
    arrays = record.arrays()
    for number, state in enumerate(states):
        arrays |= {f"{number}/{name}": array for name, array in state.items()}
    packed = BytesIO()
    np.savez(packed, allow_pickle=False, **arrays)
    return packed.getvalue()


def _resume(state: bytes | None, n_editors: int) -> tuple[EditRecord, list[State]]:
    """The record and the editors' states of a ``_state``; a fresh record and empty states when there is none."""
    if state is None:
        return EditRecord(0, [AreaMeter() for _ in range(n_editors)]), [{} for _ in range(n_editors)]
    with np.load(BytesIO(state), allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    states = []
    for number in range(n_editors):
        start = f"{number}/"
        states.append({name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)})
    return EditRecord.of(arrays), states


def summarise(
    job: ArbitraryJob, video: PreparedVideo, performances: Sequence[Performance], record: EditRecord,
    seconds: dict[str, float], warnings: list[str], extras: Extras | None = None,
) -> RunSummary:  # fmt: skip
    """The record of a finished job."""
    edited = np.any([part.plan.edited for part in performances], axis=0)
    return RunSummary(
        src_video=str(job.src_video),
        output=str(job.out_name),
        frame_size=(video.info.width, video.info.height),
        frames=record.frames,
        frames_edited=int(edited.sum()),
        frames_with_hand=record.with_hand,
        faces=[_face_summary(part, area, video) for part, area in zip(performances, record.areas, strict=True)],
        seconds_per_stage={name: round(value, 2) for name, value in seconds.items()},
        warnings=list(warnings),
        frames_copied=(extras or Extras()).copied_frames,
        provenance=provenance_path(job.out_name).name,
    )


def _face_summary(part: Performance, area: AreaMeter, video: PreparedVideo) -> FaceSummary:
    residual = part.source.coeffs.residual[part.source.coeffs.valid]
    return FaceSummary(
        face=part.source.face,
        drv_aud=str(part.sound),
        identity=str(part.identity.checkpoint),
        identity_trained_now=part.identity.trained_now,
        adaptation=part.adaptation,
        frames_edited=area.frames,
        frames_judged_by=part.source.occlusion.judged_by(),
        frames_passed_through={reason: n for reason, n in part.plan.counts().items() if reason != "edited"},
        face_height_px=round(part.source.face_height_px, 1),
        edited_area_mean_px=round(area.mean_px, 1),
        edited_area_share=round(area.mean_px / (video.info.width * video.info.height), 5),
        landmark_error_percent=round(100 * float(np.nanmean(residual)), 2) if len(residual) else float("nan"),
        spans=part.plan.spans.to_json(),
    )
