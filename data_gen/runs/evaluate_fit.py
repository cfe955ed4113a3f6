"""Measure the face-model fit: held-out errors on clips, known truth, stability, hidden points, speed and memory.

Reads: videos (by default the demo's), the face model, MediaPipe's models.
Writes: OUT/fit.json, OUT/fit.md, and OUT/landmarks/*.npz, which a second run uses again.
Run: ``bash scripts/evaluate_fit.sh --clips FOLDER --out OUT``
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that this file runs as a script from anywhere

from data_gen.runs.build_av_corpus import VIDEO_SUFFIXES, track  # noqa: E402
from data_gen.utils.evaluate_fit.fitter import Clip, Fitter  # noqa: E402
from data_gen.utils.evaluate_fit.held_out import held_out_tables  # noqa: E402
from data_gen.utils.evaluate_fit.hidden_points import hidden_points_table  # noqa: E402
from data_gen.utils.evaluate_fit.made_up_speakers import (  # noqa: E402
    MadeUpSpeaker,
    ScoreNetwork,
    SpeakerRanges,
    painted_speaker,
    projected_speaker,
)
from data_gen.utils.evaluate_fit.speakers import speaker_rows, speakers_table  # noqa: E402
from data_gen.utils.evaluate_fit.speed import SpeedOptions, speed_table  # noqa: E402
from data_gen.utils.evaluate_fit.stability import stability_table  # noqa: E402
from data_gen.utils.evaluate_fit.tables import FitReport, Table, as_json, markdown  # noqa: E402
from data_gen.utils.evaluate_fit.unsmoothed import landmarks_frame_by_frame  # noqa: E402
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker  # noqa: E402
from data_gen.utils.process_video.fit_3dmm_landmark import FitConfig  # noqa: E402
from modules.commons.command import exit_status  # noqa: E402
from modules.commons.device import pick_device  # noqa: E402
from modules.commons.errors import ConfigError, GeneFaceError, OutputError, VideoReadError  # noqa: E402
from modules.commons.machine import Machine  # noqa: E402
from modules.commons.progress import ConsoleProgress, Progress  # noqa: E402
from modules.commons.workspace import DEMO_DIR, FACE_MODEL_FILE  # noqa: E402
from modules.face_model.model import FaceModel  # noqa: E402
from modules.structures.landmarks import Landmarks2D  # noqa: E402
from modules.video.reader import VideoReader  # noqa: E402

logger = logging.getLogger("evaluate_fit")

PARTS = ("clips", "speakers", "stability", "occlusion", "speed")
OF_CLIPS = ("clips", "stability", "occlusion")


@dataclass(frozen=True, slots=True)
class EvaluateFitOptions:
    """What is measured.

    Attributes:
        clips: videos. out: folder of the report. landmarks: folder of landmark tables; None = below ``out``.
        only: parts of ``PARTS``. device: of the fit.
        unsmoothed: also compare with the landmarker's answer frame by frame.
        speakers, speaker_frames: made-up speakers, and frames of each. painted, painted_frames: painted ones.
        speed_frames: of the clip that is timed. speed: see ``SpeedOptions``.
        seed: of the speakers. command: what to note as the command.
    """

    clips: tuple[Path, ...]
    out: Path
    landmarks: Path | None = None
    only: tuple[str, ...] = PARTS
    device: str = "cpu"
    unsmoothed: bool = False
    speakers: int = 20
    speaker_frames: int = 75
    painted: int = 5
    painted_frames: int = 50
    speed_frames: int = 1500
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    seed: int = 0
    command: str = ""

    def __post_init__(self) -> None:
        for name in ("speakers", "speaker_frames", "painted_frames", "speed_frames"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)}: at least 1 is needed")
        if self.painted < 0 or self.speed.repeats < 1 or self.speed.long_frames < 0:
            raise ConfigError("--painted and --long_frames must not be negative, --repeats must be at least 1")
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out}: is a file; name a folder with --out")


def videos_of(places: Iterable[Path]) -> tuple[Path, ...]:
    """Files as they are, folders as the videos below them.

    Raises:
        VideoReadError: a place does not exist, holds no video, or two videos have one name.
    """
    found: list[Path] = []
    for place in places:
        if place.is_file():
            found.append(place)
        elif place.is_dir():
            below = sorted(path for path in place.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
            if not below:
                raise VideoReadError(f"{place}: holds no video; check --clips")
            found += below
        else:
            raise VideoReadError(f"{place}: there is no such file or folder; check --clips")
    names = [path.stem for path in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise VideoReadError(f"two clips are named {twice[0]}; rename one of them or leave it out of --clips")
    return tuple(found)


def read_clip(path: Path, folder: Path, *, unsmoothed: bool) -> Clip:
    """Track a clip, or read its landmarks from ``folder``."""
    tracked = track(path, folder / f"{path.stem}.npz")
    raw: Landmarks2D | None = None
    if unsmoothed:
        cache = folder / f"{path.stem}.unsmoothed.npz"
        if not cache.is_file():
            with VideoReader(path) as reader:
                landmarks_frame_by_frame(reader.frames(), tracked.landmarks, FaceLandmarker()).save(cache)
        raw = Landmarks2D.load(cache)
        if len(raw) != len(tracked.landmarks):
            raise GeneFaceError(f"{cache} holds {len(raw)} frames, the track {len(tracked.landmarks)}; delete it")
    return Clip(path.stem, tracked.landmarks, tracked.times_s, tracked.size_wh, raw)


def evaluate_fit(options: EvaluateFitOptions, progress: Progress) -> FitReport:
    """Measure what was asked for.

    Raises:
        GeneFaceError: an input cannot be used, or the fit fails on it.
    """
    device = pick_device(options.device)
    fitter = Fitter(FaceModel.load(FACE_MODEL_FILE), FitConfig(), device)
    clips = _read_clips(options, progress) if set(options.only) & set(OF_CLIPS) else []
    parts: dict[str, Callable[[], list[Table]]] = {
        "clips": lambda: held_out_tables(clips, fitter, progress),
        "speakers": lambda: [_speakers(options, fitter, progress)],
        "stability": lambda: [stability_table(clips, fitter, progress)],
        "occlusion": lambda: [hidden_points_table(clips, fitter, progress)],
        "speed": lambda: [_speed(options, fitter, progress)],
    }
    tables = [table for name in PARTS if name in options.only for table in parts[name]()]
    return FitReport(options.command, _facts(fitter), tuple(tables))


def _read_clips(options: EvaluateFitOptions, progress: Progress) -> list[Clip]:
    folder = options.landmarks or options.out / "landmarks"
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for number, path in enumerate(options.clips):
        progress("landmarks", number, len(options.clips))
        clips.append(read_clip(path, folder, unsmoothed=options.unsmoothed))
    progress("landmarks", len(clips), len(clips))
    return clips


def _generator(options: EvaluateFitOptions, kind: int, number: int) -> np.random.Generator:
    """Speaker ``number`` of a kind is the same whatever else is measured."""
    return np.random.default_rng([options.seed, kind, number])


def _speakers(options: EvaluateFitOptions, fitter: Fitter, progress: Progress) -> Table:
    model, network = fitter.face_model, ScoreNetwork()
    ranges = SpeakerRanges()

    def projected(number: int) -> MadeUpSpeaker:
        return projected_speaker(model, _generator(options, 0, number), options.speaker_frames, network)

    rows = speaker_rows("projected", options.speakers, projected, fitter, progress)
    if options.painted:
        landmarker = FaceLandmarker()

        def painted(number: int) -> MadeUpSpeaker:
            return painted_speaker(model, _generator(options, 1, number), options.painted_frames, landmarker)

        rows += speaker_rows("painted", options.painted, painted, fitter, progress)
    notes = (
        f"Made-up people: identity drawn from the model's own unit normal, {options.speaker_frames} frames (painted: "
        f"{options.painted_frames}) at 25 frames/s, yaw to ±{ranges.yaw_deg:g}°, pitch ±{ranges.pitch_deg:g}°, roll "
        f"±{ranges.roll_deg:g}°, face {ranges.face_px:g} px high, distance {ranges.distance_dm[0]:g} to "
        f"{ranges.distance_dm[1]:g} dm, focal length {ranges.focal_scale[0]:g} to {ranges.focal_scale[1]:g} × the side "
        "of the frame, whose size follows; scores by MediaPipe's blendshape network from the points.",
        f"Projected: exact projections, outline on the silhouette, with {ranges.noise_px:g} px noise. Painted: the "
        "real landmarker on painted pictures.",
    )
    return speakers_table(rows, notes)


def _speed(options: EvaluateFitOptions, fitter: Fitter, progress: Progress) -> Table:
    generator = _generator(options, 2, 0)
    speaker = projected_speaker(fitter.face_model, generator, options.speed_frames, ScoreNetwork())
    return speed_table(speaker, fitter, options.speed, progress)


def _facts(fitter: Fitter) -> dict[str, str]:
    """What the figures were measured with and on."""
    machine = Machine.here()
    load = "unknown" if machine.load is None else f"{machine.load:.1f}"
    return {
        "face model": fitter.face_model.version,
        "machine": f"{machine.cpu}, {machine.cores} cores, {machine.gpu or 'no GPU'}; {machine.system}",
        "threads": f"{machine.torch_threads} of torch; load of the machine at the end {load}",
        "versions": f"Python {machine.python}, torch {machine.torch}, numpy {machine.numpy}",
        "fit": f"{fitter.config}",
    }


def write_report(report: FitReport, out: Path) -> None:
    """Write ``fit.json`` and ``fit.md`` through temporary names.

    Raises:
        OutputError: the folder cannot be written.
    """
    texts = {"fit.json": json.dumps(as_json(report), indent=1, allow_nan=False) + "\n", "fit.md": markdown(report)}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            temporary = out / f".{name}.tmp"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(out / name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}); choose another --out") from error


def parse_arguments(argv: Sequence[str] | None = None) -> EvaluateFitOptions:
    """The command line as options.

    Raises:
        GeneFaceError: a value is wrong or a clip is missing.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    default = EvaluateFitOptions.__dataclass_fields__
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--clips", type=Path, nargs="+", default=[DEMO_DIR], help="videos, or folders with videos")
    parser.add_argument("--out", type=Path, default=Path("out") / "evaluate_fit", help="folder of fit.md and fit.json")
    parser.add_argument("--landmarks", type=Path, help="folder of landmark tables (default: OUT/landmarks)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to measure (default: all)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the fit runs")
    parser.add_argument("--unsmoothed", action="store_true", help="also compare with landmarks before smoothing")
    for name, text in (
        ("speakers", "made-up speakers"),
        ("speaker_frames", "frames of each of them"),
        ("painted", "speakers that are painted and looked at by the landmarker (slow); 0 = none"),
        ("painted_frames", "frames of each of them"),
        ("speed_frames", "frames of the clip that is timed"),
        ("seed", "of the made-up speakers"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default[name].default, help=f"{text} (default: %(default)s)")
    speed = SpeedOptions()
    parser.add_argument("--repeats", type=int, default=speed.repeats, help="measured runs (default: %(default)s)")
    parser.add_argument(
        "--long_frames", type=int, default=speed.long_frames,
        help="frames of the clip whose memory is watched (default: %(default)s, 20 minutes); 0 = none",
    )  # fmt: skip
    given = vars(parser.parse_args(argv))
    given["speed"] = SpeedOptions(given.pop("repeats"), given.pop("long_frames"))
    needs_clips = set(given["only"]) & set(OF_CLIPS)
    given["clips"] = videos_of(given["clips"]) if needs_clips else ()
    given["only"] = tuple(given["only"])
    return EvaluateFitOptions(**given, command=shlex.join(["bash", "scripts/evaluate_fit.sh", *argv]))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _evaluate(argv))


def _evaluate(argv: Sequence[str] | None) -> None:
    options, progress = parse_arguments(argv), ConsoleProgress()
    try:
        write_report(evaluate_fit(options, progress), options.out)
    finally:
        progress.close()
    logger.info("result: %s and %s", options.out / "fit.md", options.out / "fit.json")


if __name__ == "__main__":
    raise SystemExit(main())
