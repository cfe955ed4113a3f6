"""Make the trials of an evaluation: prepare the video, train who is missing, show its frames in several ways.

Usage: bash scripts/evaluate.sh --src_video in.mp4 --out report    (this, then tasks/evaluate.py, which measures them)

Reads: a video, perhaps speech, a person's checkpoint, a finished result. Writes: <out>/trials/.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data_gen.runs.process_video import file_sha256
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.vad import detect_speech
from inference.arbitrary_video import predict_motion
from inference.command_line import CommandParser
from inference.evaluation.motion import own_speech
from inference.evaluation.persons import LEAST_FRAMES, Person, fold_persons, usual_person
from inference.evaluation.protocols import NO_SPEECH, dubbing, leakage, self_reenactment
from inference.evaluation.results import result_trial
from inference.evaluation.transfer import transfer_scores
from inference.evaluation.trials import MADE_FROM, remove_others
from inference.face_compositor import BLEND_MODE_HELP, DEFAULT_BLEND_MODE, BlendMode
from inference.jobs import BLEND_MODES, MODES, MOUTH_HELP, MOUTHS, EvaluationJob
from inference.prepared import PreparedSource, open_source
from modules.commons.command import GOES_ON, exit_status
from modules.commons.errors import AudioReadError, ConfigError, VideoReadError
from modules.commons.log import StageTimer
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import AUDIO2MOTION_DIR
from modules.face_model.model import REGIONS
from modules.structures.audio import AudioClip
from modules.structures.evaluation import DUBBINGS, TRIAL_SCHEMA
from modules.structures.motion import MotionSequence
from modules.structures.transfer import TRANSFER_FILE, load_transfer, save_transfer

logger = logging.getLogger("evaluate")

Heard = tuple[AudioClip, MotionSequence]
"""Speech and the motion predicted from it."""
ALPHA: BlendMode = "alpha"
"""The mode that others are compared with: the rendering, softly edged."""
SHORT_CLIP_S = 60.0
"""Of shorter clips a last eleventh is too little: they are cut into folds as well."""


def make_trials(job: EvaluationJob, progress: Progress) -> list[Path]:
    """Paint everything that ``job`` asks for; returns the trials' folders.

    Raises:
        GeneFaceError: an input cannot be used; the message is one clear sentence.
    """
    timer = StageTimer()
    with timer.stage("prepare"):
        check_speeches(job)
        source = open_source(job.src_video, progress)
        check_length(source)
    with timer.stage("listen"):
        own = _own_speech(job, source)
        foreign = [_heard(job, load_audio_16k(path)) for path in job.drv_aud]
    if job.result is not None:
        with timer.stage("result"):
            speech = foreign[0] if foreign else _heard(job, own_speech(job.result))
            made = [result_trial(source, job.result, speech, job.trials / "dubbing", progress, alpha=job.masks)]
        remove_others(job.trials, made)
        return made
    with timer.stage("person"):
        usual = usual_person(job, source, progress)
    made = [_last_eleventh(job, source, usual, own, progress, timer)]
    if job.folds and source.times_s[-1] < SHORT_CLIP_S:
        made.append(_folds(job, source, usual, own, progress, timer))
    with timer.stage("dubbing"):
        made += [
            _dubbing(job, source, usual, heard, number, progress) for number, heard in enumerate(foreign)
        ]  # fmt: skip
    with timer.stage("leakage"):
        sound = own[0] if own else None
        made.append(_made(job, "leakage", [usual], lambda folder: leakage(job, source, usual, sound, folder, progress)))
    with timer.stage("transfer"):
        _transfer(job, source, usual, progress)
    remove_others(job.trials, [*made, job.trials / TRANSFER_FILE])
    return made


def _last_eleventh(
    job: EvaluationJob, source: PreparedSource, usual: Person, own: Heard | None, progress: Progress, timer: StageTimer
) -> Path:
    def paint(folder: Path) -> Path:
        return self_reenactment("last eleventh", job, source, [usual], own, folder, progress, _notes(own))

    with timer.stage("last eleventh"):
        return _made(job, "last", [usual], paint)


def _folds(
    job: EvaluationJob, source: PreparedSource, usual: Person, own: Heard | None, progress: Progress, timer: StageTimer
) -> Path:
    with timer.stage("persons of the folds"):
        persons = fold_persons(usual, source, progress)

    def paint(folder: Path) -> Path:
        return self_reenactment("five folds", job, source, persons, own, folder, progress, _notes(own))

    with timer.stage("folds"):
        return _made(job, "folds", persons, paint)


def _dubbing(
    job: EvaluationJob, source: PreparedSource, usual: Person, heard: Heard, number: int, progress: Progress
) -> Path:
    speech = job.drv_aud[number]
    name = "dubbing" if len(job.drv_aud) == 1 else f"dubbing, {speech.stem}"

    def paint(folder: Path) -> Path:
        return dubbing(job, source, usual, heard, folder, progress, name)

    return _made(job, DUBBINGS[number], [usual], paint, speech)


def _transfer(job: EvaluationJob, source: PreparedSource, usual: Person, progress: Progress) -> None:
    """Frames under other frames' motion, by the job's blend mode and by alpha; measured here, for it has no rows."""
    place, made_from = job.trials / TRANSFER_FILE, _inputs(job, [usual])
    if load_transfer(place, made_from) is None:
        modes = tuple(dict.fromkeys((job.blend_mode, ALPHA)))
        save_transfer(place, transfer_scores(job, source, usual, modes, progress), made_from)


def _made(
    job: EvaluationJob, stem: str, persons: Sequence[Person], paint: Callable[[Path], Path], speech: Path | None = None
) -> Path:
    """The trial of this name: the one that an interrupted run finished of the same inputs, else a new one."""
    folder, made_from = job.trials / stem, _inputs(job, persons, speech)
    record = folder / MADE_FROM
    try:
        if record.read_text(encoding="utf-8") == made_from:
            logger.info("%s is there already", folder)
            return folder
    except OSError:
        pass
    paint(folder)
    record.write_text(made_from, encoding="utf-8")
    return folder


def _inputs(job: EvaluationJob, persons: Sequence[Person], speech: Path | None = None) -> str:
    """All that a trial depends on, as text."""
    options = {name: str(value) for name, value in asdict(job).items() if name not in ("out", "folds", "drv_aud")}
    files = [path for path in (job.src_video, speech) if path is not None]
    checkpoints = (job.a2m_ckpt or AUDIO2MOTION_DIR, *(person.checkpoint for person in persons))
    files += [checkpoint / "checkpoint.json" for checkpoint in checkpoints]
    hashes = {str(path): file_sha256(path) for path in files}
    return json.dumps({"schema": TRIAL_SCHEMA, "options": options, "files": hashes}, indent=1, sort_keys=True)


def check_speeches(job: EvaluationJob) -> None:
    """Refuse more speeches than can be judged.

    Raises:
        ConfigError: a finished result said one thing only; and a report has so many trials.
    """
    most = len(DUBBINGS) if job.result is None else 1
    if len(job.drv_aud) > most:
        raise ConfigError(f"--drv_aud names {len(job.drv_aud)} speeches, but {most} can be judged; leave some out")


def check_length(source: PreparedSource) -> None:
    """Refuse a clip that cannot be split.

    Raises:
        VideoReadError: fewer than eleven frames.
    """
    if len(source) < LEAST_FRAMES:
        raise VideoReadError(
            f"{source.video} has {len(source)} frames; an evaluation holds out every eleventh part, so it needs at "
            f"least {LEAST_FRAMES}"
        )


def _own_speech(job: EvaluationJob, source: PreparedSource) -> Heard | None:
    """The video's own sound with the motion predicted from it; None when it is not wanted or, by default, not there.

    Raises:
        AudioReadError: audio-driven evaluation was asked for, and the video has no sound.
    """
    if job.mode == "landmark" or job.result is not None:
        return None
    if not source.info.has_audio:
        if job.mode == "audio":
            raise AudioReadError(
                f"{source.video} has no sound, so its own speech cannot drive it; leave out --mode audio to evaluate "
                "the renderer alone"
            )
        return None
    speech = own_speech(source.video)
    if not detect_speech(speech).any():
        if job.mode == "audio":
            raise AudioReadError(f"{source.video}: no speech was found in its sound, so that cannot drive it")
        return None
    return _heard(job, speech)


def _heard(job: EvaluationJob, speech: AudioClip) -> Heard:
    return speech, predict_motion(job, speech)


def _notes(own: object) -> tuple[str, ...]:
    missing = () if own is not None else (f"Audio-driven rows: not measured, {NO_SPEECH}.",)
    seen = "The 3DMM identity and the pose were fitted over the whole clip, held-out frames included."
    return (*missing, seen)


def parse_arguments(argv: Sequence[str] | None = None) -> EvaluationJob:
    """The command line as a job."""
    parser = CommandParser(description="Evaluate lips, picture, seams and time on a video.", allow_abbrev=False)
    parser.add_argument("--src_video", type=Path, required=True, help="the video to evaluate on")
    parser.add_argument("--out", type=Path, required=True, help="folder for report.html and metrics.json")
    parser.add_argument("--drv_aud", type=Path, nargs="+", help="foreign speeches: also evaluates dubbing")
    parser.add_argument("--head_ckpt", type=Path, help="this video's person (default: found, else trained)")
    parser.add_argument("--result", type=Path, help="judge this finished video instead of making one")
    parser.add_argument("--masks", type=Path, help="what --result edited, as --save_masks wrote it")
    parser.add_argument("--mode", choices=MODES, default="auto", help="what drives held-out frames besides tracking")
    parser.add_argument("--no_folds", action="store_true", help="skip the five folds of clips under 60 s")
    parser.add_argument("--config", type=Path, help="preset that trains a person (default: cpu or gpu by device)")
    parser.add_argument("--a2m_ckpt", type=Path, help="audio → motion checkpoint (default: embedded)")
    parser.add_argument("--region", choices=REGIONS, default="lower_face")
    parser.add_argument("--blend_mode", choices=BLEND_MODES, default=DEFAULT_BLEND_MODE, help=BLEND_MODE_HELP)
    parser.add_argument("--mouth", choices=MOUTHS, default=MOUTHS[0], help=MOUTH_HELP)
    parser.add_argument("--lle_percent", type=float, default=0.2, help="pull towards the person's own motion, 0..1")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return EvaluationJob.from_arguments(parser.parse_args(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _make(argv), GOES_ON)


def _make(argv: Sequence[str] | None) -> None:
    made = make_trials(parse_arguments(argv), ConsoleProgress())
    logger.info("trials: %s", ", ".join(str(folder) for folder in made))


if __name__ == "__main__":
    raise SystemExit(main())
