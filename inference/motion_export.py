"""Facial motion for other programs, as Live Link Face records it (CSV) and as exact arrays (.npz).

Usage: python inference/genefacepp_infer_arbitrary.py --src_video in.mp4 --export_arkit out.csv   (the actor's own)
       python inference/genefacepp_infer_arbitrary.py --drv_aud speech.wav --export_arkit out.csv (speech alone)
With --src_video, --drv_aud and --out_name together, the motion of the result is written beside it.

Reads: a video, a sound file. Writes: the CSV, the .npz; a video's tables are cached as for any job.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.arbitrary_video import Performance
from inference.audio_to_motion import sample_motion
from inference.blinks import with_blinks
from inference.controls import MotionControls
from inference.driving import speech_motion
from inference.face_choice import FaceChoice, chosen_faces, parse_drv_aud, parse_face
from inference.jobs import check_speech_options
from inference.output_checks import check_motion_outputs
from inference.prepared import PreparedSource, PreparedVideo, open_face, open_video
from inference.speaking_face import speaking_in
from modules.commons.errors import AudioReadError, ConfigError, OutputError, VideoReadError
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import ARKIT_NAMES, FaceModel
from modules.structures.arkit import LIVE_LINK_HEADER, LIVE_LINK_RATE, LIVE_LINK_VALUES, time_code
from modules.structures.face_motion import FaceMotion, hold_rows
from modules.structures.timeline import Timeline

logger = logging.getLogger(__name__)

MAX_RATE = 1000.0
_OF_VIDEO = {"src_video", "face", "face_at"}
_OF_SPEECH = {"drv_aud", "export_fps", "a2m_ckpt", "temperature", "mouth_amp", "seed", "silence", "blink_mode"}
_ALWAYS = {"export_arkit", "export_npz", "device", "low_memory_usage"}
"""Flags that say something to a job that only writes motion, or promise nothing at all."""


@dataclass(frozen=True, slots=True)
class MotionJob:
    """Facial motion and nothing else: of the actor in a video, or of what a speech makes a face do.

    Attributes:
        export_arkit: the CSV. export_npz: the arrays. At least one of them.
        src_video: whose actor is meant; None = ``drv_aud`` alone.
        face: which face of the video; None = the largest.
        drv_aud: the speech; None = ``src_video`` alone.
        fps: rows per second of speech.
        a2m_ckpt, temperature, mouth_amp, seed, controls: see ``ArbitraryJob``.
    """

    export_arkit: Path | None
    export_npz: Path | None
    src_video: Path | None = None
    face: FaceChoice | None = None
    drv_aud: Path | None = None
    fps: float = float(LIVE_LINK_RATE)
    a2m_ckpt: Path | None = None
    temperature: float = 0.0
    mouth_amp: float = 1.0
    seed: int = 0
    controls: MotionControls = field(default_factory=MotionControls)

    def __post_init__(self) -> None:
        if self.src_video is not None and not self.src_video.is_file():
            raise VideoReadError(f"{self.src_video}: there is no such video file; check --src_video")
        if self.drv_aud is not None and not self.drv_aud.is_file():
            raise AudioReadError(f"{self.drv_aud}: there is no such sound file; check --drv_aud")
        if (self.src_video is None) == (self.drv_aud is None):
            raise ConfigError("motion alone is exported from --src_video or from --drv_aud: give one of them")
        check_motion_outputs(self.export_arkit, self.export_npz, inputs=self.inputs)
        if not 1.0 <= self.fps <= MAX_RATE:
            raise ConfigError(f"--export_fps {self.fps}: must lie between 1 and {MAX_RATE:g}")
        check_speech_options(self)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """What is read."""
        return tuple(path for path in (self.src_video, self.drv_aud) if path is not None)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that write motion."""
    parser.add_argument(
        "--export_arkit", type=Path, metavar="F", help="write facial motion as Live Link Face does (.csv)"
    )
    parser.add_argument("--export_npz", type=Path, metavar="F", help="write facial motion as exact arrays (.npz)")
    parser.add_argument(
        "--export_fps", type=float, metavar="N", help=f"rows per second of speech alone (default {LIVE_LINK_RATE})"
    )


def motion_job(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> MotionJob | None:
    """The command line as a job that only writes motion; None when a result is asked for as well.

    Args:
        values: of every flag.
        defaults: what they are when left out.

    Raises:
        ConfigError: flags that do not go together.
    """
    flag = next((f"--{name}" for name in ("export_arkit", "export_npz") if values[name] is not None), None)
    if flag is not None and values["list_faces"] is not None:
        raise ConfigError(f"--list_faces only shows the faces; leave {flag} out")
    if flag is None or values["out_name"] is not None:
        if values["export_fps"] is not None:
            raise ConfigError("--export_fps is for --export_arkit or --export_npz with --drv_aud alone; leave it out")
        return None
    video, speech = values["src_video"], values["drv_aud"]
    if video is None and speech is None:
        raise ConfigError(f"{flag} needs --src_video for the actor's own motion or --drv_aud for that of a speech")
    if video is not None and speech is not None:
        raise ConfigError(
            f"{flag} with --src_video and --drv_aud goes with a result; name it with --out_name, or leave one of the "
            "two out"
        )
    kind, own = ("a video's motion", _OF_VIDEO) if video is not None else ("speech alone", _OF_SPEECH)
    for name, value in values.items():
        if name not in own | _ALWAYS and value != defaults[name]:
            raise ConfigError(f"--{name} says nothing about {kind}, which {flag} writes; leave it out")
    outputs = {name: values[name] for name in ("export_arkit", "export_npz")}
    if speech is None:
        return MotionJob(**outputs, src_video=video, face=parse_face(values["face"], values["face_at"]))
    options = {name: values[name] for name in ("a2m_ckpt", "temperature", "mouth_amp", "seed")}
    options["controls"] = MotionControls(silence=values["silence"], blink_mode=values["blink_mode"])
    fps = LIVE_LINK_RATE if values["export_fps"] is None else values["export_fps"]
    return MotionJob(**outputs, drv_aud=_only_speech(speech), fps=float(fps), **options)


def _only_speech(given: Sequence[str]) -> Path:
    speech = parse_drv_aud(given).shared
    if speech is None:
        raise ConfigError(
            f"--drv_aud {given[0]}: without --src_video there are no faces to number; give the file alone"
        )
    return speech


def export_motion(job: MotionJob, progress: Progress) -> Path:
    """Do a job that only writes motion; returns the (first) file written.

    Raises:
        GeneFaceError: the input is unusable or an output cannot be written; nothing half-written stays.
    """
    if job.src_video is None:
        motion = spoken_motion(job)
    else:
        video = open_video(job.src_video, progress)
        source = open_face(video, face_of_motion(job.face, video), progress)
        motion = source_face_motion(source)
    return write_motion(motion, job.export_arkit, job.export_npz)


def face_of_motion(choice: FaceChoice | None, video: PreparedVideo) -> int:
    """The one face whose motion is written.

    Raises:
        NoFaceError: as ``chosen_faces``.
        ConfigError: likewise, or several are meant.
    """
    numbers = chosen_faces(choice, video.faces)
    if choice is not None and choice.rule == "speaking":
        turn = speaking_in(video.video, video.faces, list(numbers)).face
        numbers = tuple(number for number in numbers if (turn == number).any())
    check_one_face(numbers)
    return numbers[0]


def check_one_face(numbers: Sequence[int]) -> None:
    """Refuse to put the motion of several faces, or of none, into one file.

    Raises:
        ConfigError: with one sentence that names the faces.
    """
    if len(numbers) != 1:
        meant = f"{len(numbers)} are meant ({', '.join(map(str, numbers))})" if numbers else "none is meant"
        raise ConfigError(f"exported motion is that of one face, but {meant}; choose one with --face")


def source_face_motion(source: PreparedSource) -> FaceMotion:
    """The actor's own motion: a row per frame of the video."""
    return _face_motion(source, np.arange(len(source)), source.times_s, source.coeffs.expression, source.coeffs.valid)


def rendered_face_motion(part: Performance, timeline: Timeline) -> FaceMotion:
    """What a result shows: the new mouth as strongly as it was put in, all else the actor's; a row per frame of it."""
    rows, strength = timeline.rows, part.plan.strength[:, None]
    own = part.source.coeffs.expression[rows]
    shown = own + strength * (part.plan.expression - own)
    times_s = (timeline.pts - timeline.pts[0]) * float(timeline.time_base)
    shown = shown.astype(np.float32)
    return _face_motion(part.source, rows, times_s, shown, part.source.coeffs.valid[rows] | part.plan.edited)


def spoken_motion(job: MotionJob) -> FaceMotion:
    """What a speech makes a resting face do: rows at a constant rate, closures kept, the head straight and still."""
    if job.drv_aud is None:
        raise ValueError("a job without speech has no spoken motion")
    model = FaceModel.load(FACE_MODEL_FILE)
    motion = speech_motion(job, load_audio_16k(job.drv_aud), model.version)
    rate = Fraction(job.fps).limit_denominator(1001)
    count = math.ceil(motion.duration_s * rate - 1e-6)
    times_s = np.arange(count) * rate.denominator / rate.numerator
    return FaceMotion(
        times_s=times_s,
        names=model.expression_names,
        expression=with_blinks(np.clip(sample_motion(motion, times_s), 0, 1), times_s, job.controls.blink_mode),
        euler=np.zeros((count, 3), np.float32),
        translation=np.zeros((count, 3), np.float32),
        valid=np.ones(count, bool),
        rate=rate,
        face_model_version=model.version,
    )


def _face_motion(
    source: PreparedSource,
    rows: NDArray[np.int64],
    times_s: NDArray[np.float64],
    expression: NDArray[np.float32],
    known: NDArray[np.bool_],
) -> FaceMotion:
    """Motion ``expression [N, E]`` on the head of clip ``rows [N]``; rows that are not ``known [N]`` hold the last."""
    coeffs, names = source.coeffs, source.face_model.expression_names
    if set(names) != set(ARKIT_NAMES):
        raise ConfigError(f"face model {coeffs.face_model_version} has no ARKit units; export with the embedded one")
    held = hold_rows(known)
    return FaceMotion(
        times_s=times_s - times_s[0],
        names=names,
        expression=np.clip(expression[held], 0, 1).astype(np.float32),
        euler=coeffs.euler[rows[held]],
        translation=coeffs.translation[rows[held]],
        valid=coeffs.valid[rows],
        rate=source.info.frame_rate,
        face_model_version=coeffs.face_model_version,
        camera=coeffs.camera,
    )


def live_link_lines(motion: FaceMotion) -> Iterator[str]:
    """The CSV, line by line."""
    yield ",".join(LIVE_LINK_HEADER) + "\n"
    for time_s, row in zip(motion.times_s.tolist(), motion.live_link_values().tolist(), strict=True):
        # + 0.0 turns the zero that has a sign into the one that has none
        numbers = ",".join(f"{value + 0.0:.10f}" for value in row)
        yield f"{time_code(time_s, motion.rate)},{len(LIVE_LINK_VALUES)},{numbers}\n"


def write_motion(motion: FaceMotion, csv: Path | None, npz: Path | None) -> Path:
    """Write motion under temporary names, then rename; returns the first file.

    Raises:
        OutputError: a file cannot be written; then none of them appears.
    """
    makers: dict[Path, Callable[[Path], None]] = {}
    if csv is not None:
        makers[csv] = lambda path: _write_lines(path, live_link_lines(motion))
    if npz is not None:
        makers[npz] = motion.save
    parts = {path: path.with_name(f".{path.name}.part.{os.getpid()}") for path in makers}
    target = next(iter(makers))
    try:
        for target, make in makers.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            make(parts[target])
        for target, part in parts.items():
            part.replace(target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error}); choose another place") from error
    finally:
        for part in parts.values():
            with contextlib.suppress(OSError):  # its folder may not be one
                part.unlink(missing_ok=True)
    seen = int(motion.valid.sum())
    logger.info("%d rows of motion, %d with a face, over %.2f s", len(motion), seen, motion.times_s[-1])
    return next(iter(makers))


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        file.writelines(lines)
