"""How many frames of a 1080p clip the main command edits in a second with a cached person, and each stage alone."""

from __future__ import annotations

import gc
import math
import tempfile
import time
import wave
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.arbitrary_video import Performance, edit_video
from inference.benchmark_gpu.row import GpuRow
from inference.casting import Cast, cast_faces, listen, plan_job_timeline, rehearse
from inference.device_compositor import ColourMemory, DeviceCompositor, Edits
from inference.edited_frames import FRAMES_PER_BATCH
from inference.face_choice import SpeechFiles
from inference.frame_editor import FrameEditor
from inference.jobs import ArbitraryJob
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import PreparedSource, PreparedVideo, open_video
from modules.commons.errors import AudioReadError, CheckpointError, VideoReadError
from modules.commons.progress import Progress, silent
from modules.commons.workspace import DEMO_SPEECH, DEMO_VIDEO, IDENTITIES
from modules.metrics.timing import Spread
from modules.structures.device_patch import DevicePatch
from modules.structures.frames import Frame, VideoInfo
from modules.structures.timeline import Timeline
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter

TABLE = "end to end, cached person"
PERSON = "demo"
ENLARGED = 3
"""The demo's 640 x 360 become 1920 x 1080; its tables are enlarged with it, so no landmark network is needed."""
HELD_FRAMES = 128
REPEATS = 3
N_STEPS = 5
"""Each stage alone, then all together."""
GOAL_FPS, GOAL_GB = ">= 60", "<= 2"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A job whose video is prepared and whose person is trained."""

    job: ArbitraryJob
    video: PreparedVideo
    timeline: Timeline
    performances: list[Performance]


def rows(
    device: torch.device, progress: Progress, video: Path | None = None, speech: Path | None = None
) -> list[GpuRow]:
    """The lines of the table.

    Args:
        device: where frames are rendered and composited.
        progress: told about the steps.
        video: the clip, prepared at first use; None = the demo's, enlarged to 1080p.
        speech: what is said, as long as the video; None = the demo's, again and again.

    Raises:
        GeneFaceError: the material is missing or cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="lipsync-benchmark-") as folder:
        scene = open_scene(video, speech, device, Path(folder), progress)
        return measured(scene, device, progress)


def open_scene(
    video: Path | None, speech: Path | None, device: torch.device, folder: Path, progress: Progress
) -> Scene:
    """Prepare the job that is timed; what it writes goes into ``folder``.

    Raises:
        GeneFaceError: the material is missing or cannot be used.
    """
    given, speech = speech, speech or DEMO_SPEECH
    source = video or DEMO_VIDEO
    person = IDENTITIES / PERSON
    if not source.is_file():
        raise VideoReadError(f"{source}: there is no such video; fetch the demo with scripts/setup.sh")
    if not speech.is_file():
        raise AudioReadError(f"{speech}: there is no such sound file; fetch the demo with scripts/setup.sh")
    if not person.is_dir():
        raise CheckpointError(f"{person}: there is no such checkpoint; fetch it with scripts/setup.sh")
    opened = open_video(source, progress)
    if given is None:
        speech = _repeated(speech, opened.clock.duration_s, folder / "speech.wav")
    job = ArbitraryJob(
        source, SpeechFiles(speech), folder / "result.mp4", head_ckpt=person,
        device="cuda" if device.type == "cuda" else "cpu",
    )  # fmt: skip
    heard = listen(job)
    casts = cast_faces(job, opened, progress)
    timeline = plan_job_timeline(job, opened, casts, heard)
    if video is None:
        opened, casts = _enlarged(opened, casts, folder / "enlarged.mp4")
    return Scene(job, opened, timeline, rehearse(job, opened, casts, heard, timeline, progress))


def measured(scene: Scene, device: torch.device, progress: Progress) -> list[GpuRow]:
    """Time each stage alone, then all together."""
    info, performance = scene.video.info, scene.performances[0]
    height_px = round(performance.source.face_height_px)
    edited = int(performance.plan.edited.sum())
    detail = f"{info.width}x{info.height}, face {height_px} px high, {edited} of {len(scene.timeline)} frames edited"
    found = _stages_alone(scene, device, progress)
    gc.collect()  # what earlier parts left in cycles is not this part's memory
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    where = f"{detail}; decode, encode CPU, the rest {device.type.upper()}, one process"
    found.append(_row("decode, render, composite, encode", lambda: _edit(scene), where, device, GOAL_FPS))
    if device.type == "cuda":
        peak_gb = torch.cuda.max_memory_allocated(device) / 1e9
        found.append(GpuRow(TABLE, "peak GPU memory", peak_gb, "GB", GOAL_GB, detail="allocated by torch, end to end"))
    progress("end to end", N_STEPS, N_STEPS)
    return found


def _stages_alone(scene: Scene, device: torch.device, progress: Progress) -> list[GpuRow]:
    """One line per stage; what they hold on the device is let go of at the end."""
    stages = _Stages(scene, device)
    steps: list[tuple[str, Callable[[], int], str]] = [
        ("decode alone", stages.decode, "CPU"),
        ("render alone", stages.render, f"{device.type.upper()}, batches of {FRAMES_PER_BATCH}"),
        ("composite alone, over the bus and back", stages.composite, f"{device.type.upper()} and CPU"),
        ("encode alone", stages.encode, "CPU, x264 medium crf 14"),
    ]
    found = []
    for number, (what, run, where) in enumerate(steps):
        progress("end to end", number, N_STEPS)
        run()
        found.append(_row(what, run, where, device))
    progress("end to end", len(steps), N_STEPS)
    return found


def _row(what: str, run: Callable[[], int], detail: str, device: torch.device, goal: str = "") -> GpuRow:
    """Frames a second of ``run``, which returns how many it dealt with."""
    rates = []
    for _ in range(REPEATS):
        started_s = time.perf_counter()
        count = run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        rates.append(count / (time.perf_counter() - started_s))
    spread = Spread.of(rates)
    return GpuRow(TABLE, what, spread.median, "frames/s", goal, (spread.low, spread.high), detail)


def _edit(scene: Scene) -> int:
    """The main command's edit, loading the person included."""
    record = edit_video(scene.job, scene.video, scene.timeline, scene.performances, silent)
    scene.job.out_name.unlink()
    return record.frames


class _Stages:
    """Runs of single stages on frames held in memory."""

    def __init__(self, scene: Scene, device: torch.device) -> None:
        self._scene = scene
        self._device = device
        part = scene.performances[0]
        renderer = IdentityRenderer(part.identity.checkpoint, part.source.face_model, scene.job.device)
        self._editor = FrameEditor(scene.job, part.source, renderer, part.plan, scene.timeline.rows)
        first = int(np.flatnonzero(part.plan.edited)[0])
        with VideoReader(scene.video.video) as reader:
            self._frames = list(islice(reader.frames(), first, first + HELD_FRAMES))
        self._painted: list[tuple[list[Frame], list[DevicePatch]]] = []

    def decode(self) -> int:
        """The whole file."""
        with VideoReader(self._scene.video.video) as reader:
            return sum(1 for _ in reader.frames())

    def render(self) -> int:
        """All edited frames that are held."""
        edited = self._editor.plan.edited
        frames = [frame for frame in self._frames if edited[frame.index]]
        self._painted = []
        for start in range(0, len(frames), FRAMES_PER_BATCH):
            batch = frames[start : start + FRAMES_PER_BATCH]
            self._painted.append((batch, self._editor.patches(np.array([frame.index for frame in batch]))))
        return len(frames)

    def composite(self) -> int:
        """The rendered ones, one batch under way while the one before comes back."""
        compositor = DeviceCompositor(self._device)
        memory = ColourMemory.of({}, self._device)
        count, pending = 0, None
        with torch.inference_mode():
            for frames, patches in self._painted:
                ones, nothing = np.ones(len(frames), np.float32), np.zeros(len(frames), bool)
                edits = Edits(tuple(frames), tuple(patches), ones, (None,) * len(frames), nothing)
                estimated = compositor.estimate(edits)
                fields, memory, _ = compositor.follow(estimated, memory)
                assert fields is not None
                count += len(pending.frames()) if pending else 0
                pending = compositor.blend(estimated, fields)
            return count + (len(pending.frames()) if pending else 0)

    def encode(self) -> int:
        """The held frames with the settings of the main command."""
        quality = EncodeConfig(threads="frames")
        path = self._scene.job.out_name.with_name("encoded.mp4")
        with VideoWriter(path, self._scene.video.info, quality=quality) as writer:
            for frame in self._frames:
                writer.write(frame)
        path.unlink()
        return len(self._frames)


def _repeated(speech: Path, length_s: float, path: Path) -> Path:
    """A sound file that says the same again until ``length_s``, so that every frame is edited."""
    clip = load_audio_16k(speech)
    count = math.ceil(length_s * clip.sample_rate_hz)
    samples = np.resize(clip.samples, count)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(clip.sample_rate_hz)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def _enlarged(video: PreparedVideo, casts: list[Cast], path: Path) -> tuple[PreparedVideo, list[Cast]]:
    """The video at ``ENLARGED`` times its size, written to ``path``, and its faces' tables enlarged likewise."""
    width, height = ENLARGED * video.info.width, ENLARGED * video.info.height
    info = replace(video.info, path=path, width=width, height=height, sample_aspect_ratio=None)
    _write_enlarged(video.video, path, info)
    larger = replace(video, video=path, info=info)
    return larger, [replace(cast, source=_enlarged_source(cast.source, path, info)) for cast in casts]


def _write_enlarged(source: Path, path: Path, info: VideoInfo) -> None:
    quality = EncodeConfig(preset="veryfast", threads="frames")
    with VideoReader(source) as reader, VideoWriter(path, info, quality=quality, comment="") as writer:
        for frame in reader.frames():
            planes = [
                cv2.resize(p, None, fx=ENLARGED, fy=ENLARGED, interpolation=cv2.INTER_CUBIC) for p in frame.planes
            ]
            writer.write(replace(frame, planes=(planes[0], planes[1], planes[2])))


def _enlarged_source(source: PreparedSource, path: Path, info: VideoInfo) -> PreparedSource:
    camera = source.coeffs.camera
    larger = replace(
        camera, fx=camera.fx * ENLARGED, fy=camera.fy * ENLARGED, cx=camera.cx * ENLARGED, cy=camera.cy * ENLARGED,
        width=info.width, height=info.height,
    )  # fmt: skip
    regions = tuple(
        replace(
            region,
            center_x=region.center_x * ENLARGED,
            center_y=region.center_y * ENLARGED,
            side=region.side * ENLARGED,
        )
        for region in source.crops.regions
    )
    return replace(
        source,
        video=path,
        info=info,
        coeffs=replace(source.coeffs, camera=larger),
        crops=replace(source.crops, regions=regions, frame_size_hw=(info.height, info.width)),
        landmarks=replace(source.landmarks, points=source.landmarks.points * np.float32(ENLARGED)),
    )
