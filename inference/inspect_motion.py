"""Listen and look: the default face saying a speech beside its waveform, as a small video with the sound.

Usage: python inference/inspect_motion.py SPEECH [--out FILE] [--fps N] [--start S] [--end S] and flags of the motion

Reads: any file with sound. Writes: the video.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.audio_to_motion import sample_motion
from inference.blinks import with_blinks
from inference.command_line import CommandParser
from inference.controls import CHOICES, MotionControls
from inference.driving import speech_motion
from inference.jobs import check_speech_options
from inference.motion_picture import MotionPictures, SpokenClip
from inference.output_checks import check_container, check_output
from modules.commons.command import exit_status
from modules.commons.errors import AudioReadError, ConfigError, OutputError
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip
from modules.video.pipeline import encoding
from modules.video.rgb_video import rgb_frame, rgb_video_info
from modules.video.sound import AudioTrack
from modules.video.writer import EncodeConfig, VideoWriter

logger = logging.getLogger("inspect_motion")

MAX_RATE = 120.0
_COMMENT = "A synthesised face: motion predicted from speech."


@dataclass(frozen=True, slots=True)
class InspectMotionJob:
    """What is listened to.

    Attributes:
        speech: any file with sound. out: the video.
        fps: frames per second.
        start_s, end_s: only these seconds are shown, then without sound unless they begin at 0; None = all.
        a2m_ckpt, temperature, mouth_amp, seed, controls: see ``inference.jobs.ArbitraryJob``.
    """

    speech: Path
    out: Path
    fps: float = 25.0
    start_s: float = 0.0
    end_s: float | None = None
    a2m_ckpt: Path | None = None
    temperature: float = 0.0
    mouth_amp: float = 1.0
    seed: int = 0
    controls: MotionControls = field(default_factory=lambda: MotionControls(blink_mode="period"))

    def __post_init__(self) -> None:
        if not self.speech.is_file():
            raise AudioReadError(f"{self.speech}: there is no such sound file; give the path of one")
        if not 1.0 <= self.fps <= MAX_RATE:
            raise ConfigError(f"--fps {self.fps:g}: must lie between 1 and {MAX_RATE:g}")
        if not (math.isfinite(self.start_s) and self.start_s >= 0):
            raise ConfigError(f"--start {self.start_s:g}: give seconds from the beginning of the sound, from 0 on")
        if self.end_s is not None and not self.end_s > self.start_s:
            raise ConfigError(f"--end {self.end_s:g} must lie after --start {self.start_s:g}")
        check_output(self.out, inputs=(self.speech,), flag="--out")
        check_container(self.out)
        check_speech_options(self)


def inspect_motion(job: InspectMotionJob, progress: Progress) -> int:
    """Predict, draw and write.

    Returns:
        Frames written.

    Raises:
        GeneFaceError: the sound cannot be used or the video cannot be written; nothing half-written stays.
    """
    model = FaceModel.load(FACE_MODEL_FILE)
    clip = spoken_clip(job, load_audio_16k(job.speech), model)
    pictures = MotionPictures(clip, model)
    rate = Fraction(job.fps).limit_denominator(1001)
    info = rgb_video_info(job.speech, *pictures.size_wh, rate)
    sound = AudioTrack(job.speech) if job.start_s == 0 else None
    try:
        job.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{job.out}: cannot be written ({error.strerror}); choose another --out") from error
    quality = EncodeConfig(crf=18, preset="fast")
    with (
        VideoWriter(job.out, info, quality=quality, audio=sound, comment=_COMMENT) as writer,
        encoding(writer) as encoded,
    ):
        for number in range(len(clip.times_s)):
            encoded.put(rgb_frame(number, number / rate, pictures.picture(number)))
            progress("motion", number + 1, len(clip.times_s))
    return len(clip.times_s)


def spoken_clip(job: InspectMotionJob, speech: AudioClip, model: FaceModel) -> SpokenClip:
    """The motion of a speech at the times of the frames that are shown.

    Raises:
        ConfigError: ``--start`` lies behind the end of the sound.
    """
    end_s = speech.duration_s if job.end_s is None else min(job.end_s, speech.duration_s)
    count = math.ceil((end_s - job.start_s) * job.fps - 1e-6)
    if count < 1:
        raise ConfigError(f"--start {job.start_s:g}: {job.speech} lasts {speech.duration_s:.2f} s")
    motion = speech_motion(job, speech, model.version)
    times_s = job.start_s + np.arange(count) / job.fps
    expression = np.clip(sample_motion(motion, times_s), 0, 1).astype(np.float32)
    return SpokenClip(speech, motion, with_blinks(expression, times_s, job.controls.blink_mode), times_s)


def parse_arguments(argv: Sequence[str] | None = None) -> InspectMotionJob:
    """The command line as a job.

    Raises:
        GeneFaceError: a flag is wrong or the sound is missing.
    """
    parser = CommandParser(description="The default face says a speech.", allow_abbrev=False)
    parser.add_argument("speech", type=Path, metavar="SPEECH", help="any file with sound")
    parser.add_argument("--out", type=Path, help="the video (default: out/inspect_motion/<name of the sound>.mp4)")
    parser.add_argument("--fps", type=float, default=25.0, help="frames per second")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="show only from this second on")
    parser.add_argument("--end", type=float, metavar="S", help="show only up to this second")
    parser.add_argument("--a2m_ckpt", type=Path, help="audio → motion checkpoint (default: embedded)")
    parser.add_argument("--temperature", type=float, default=0.0, help="variety between takes; 0 = none")
    parser.add_argument("--seed", type=int, default=0, help="another take, when --temperature is above 0")
    parser.add_argument("--mouth_amp", type=float, default=1.0, help="1 = natural size of the mouth motion")
    parser.add_argument("--silence", choices=CHOICES["silence"], default="fade", help="keep: not gated in silence")
    parser.add_argument("--blink_mode", choices=("none", "period"), default="period", help="eyes open, or blinking")
    given = parser.parse_args(argv)
    return InspectMotionJob(
        speech=given.speech,
        out=given.out or Path("out") / "inspect_motion" / f"{given.speech.stem}.mp4",
        fps=given.fps,
        start_s=given.start,
        end_s=given.end,
        a2m_ckpt=given.a2m_ckpt,
        temperature=given.temperature,
        mouth_amp=given.mouth_amp,
        seed=given.seed,
        controls=MotionControls(silence=given.silence, blink_mode=given.blink_mode),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _inspect(argv))


def _inspect(argv: Sequence[str] | None) -> None:
    job = parse_arguments(argv)
    logger.info("%d frames: %s", inspect_motion(job, ConsoleProgress()), job.out)


if __name__ == "__main__":
    raise SystemExit(main())
