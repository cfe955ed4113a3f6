"""Look at the fit of a face: a video with the fitted mesh over it, its coefficients over time, and its figures.

Usage: python inference/inspect_fit.py VIDEO [--out DIR] [--face K] [--start S] [--end S] [--size PX]

Reads: a video; what is measured of it is cached as for any job.
Writes: DIR/overlay.mp4, DIR/coefficients.png and DIR/fit.json, all three or none.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import DEFAULT_CONFIG, STAGES, file_sha256, run_stages
from inference.command_line import CommandParser
from inference.fit_measures import FitErrors, FittedFace, measure_fit, summarise_fit
from inference.fit_pages import FitPages
from inference.fit_plot import FitCurves, plot_fit
from inference.output_checks import check_output
from inference.prepared import PreparedSource, load_source, video_id_of
from modules.commons.command import exit_status
from modules.commons.config import load_config
from modules.commons.errors import (
    ConfigError,
    FitDivergedError,
    NoFaceError,
    OutputError,
    VideoReadError,
)
from modules.commons.hparams import parse_hparams
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import VideoWorkspace
from modules.structures.frame_index import FrameIndex
from modules.video.frame_range import FrameRange
from modules.video.pipeline import decoding, encoding
from modules.video.png import write_png
from modules.video.reader import VideoReader
from modules.video.rgb_video import rgb_video_info
from modules.video.sound import AudioTrack
from modules.video.writer import EncodeConfig, VideoWriter

logger = logging.getLogger("inspect_fit")

OUTPUTS = ("overlay.mp4", "coefficients.png", "fit.json")
LAST_STAGE = "fit"
LEAST_SIZE = 64
_TEMPORARY = ".inspect_fit.part"
_COMMENT = "A face model's fit, drawn over the video it was fitted to."


@dataclass(frozen=True, slots=True)
class InspectJob:
    """What is looked at.

    Attributes:
        video: any video. out: folder of the three files.
        face: number of the face.
        start_s, end_s: only these seconds after the first frame are shown and counted; None = all.
        size: longest side of the video's part of the overlay, px.
        data_root: where prepared videos are cached; None = data/.
        overrides: of the configuration of preparing.
    """

    video: Path
    out: Path
    face: int = 0
    start_s: float | None = None
    end_s: float | None = None
    size: int = 1280
    data_root: Path | None = None
    overrides: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.video.is_file():
            raise VideoReadError(f"{self.video}: there is no such video file; give the path of one")
        if self.face < 0:
            raise ConfigError(f"--face {self.face}: faces are numbered from 0")
        for flag, value in (("--start", self.start_s), ("--end", self.end_s)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{flag} {value:g}: give seconds after the video's first frame, from 0 on")
        if self.end_s is not None and self.end_s <= (self.start_s or 0.0):
            raise ConfigError(f"--end {self.end_s:g} must lie after --start {self.start_s or 0.0:g}")
        if self.size < LEAST_SIZE:
            raise ConfigError(f"--size {self.size}: nothing can be seen on less than {LEAST_SIZE} px")
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out}: is a file; name a folder with --out")
        for name in OUTPUTS:
            check_output(self.out / name, inputs=(self.video,), flag="--out", example=name)


def inspect_fit(job: InspectJob, progress: Progress) -> dict[str, object]:
    """Prepare a video as far as its fit, and show the fit.

    Returns:
        What ``fit.json`` holds.

    Raises:
        GeneFaceError: the video cannot be used or the outputs cannot be written; none of them is then changed.
    """
    source, index = prepare(job, progress)
    first, stop = frames_between(source, job)
    fitted = FittedFace(source.face_model, source.coeffs)
    errors = measure_fit(fitted, source.landmarks, source.coeffs.valid, source.occlusion.hidden)
    summary = summarise_fit(source, errors, first, stop)
    with _all_or_nothing(job.out) as folder:
        write_png(plot_fit(curves_of(source, errors, first, stop)), folder / "coefficients.png")
        (folder / "fit.json").write_text(json.dumps(summary, indent=1) + "\n")
        pages = FitPages(source, fitted, errors, job.size, (first, stop))
        _write_overlay(source, index, pages, folder / "overlay.mp4", (first, stop), progress)
    return summary


def prepare(job: InspectJob, progress: Progress) -> tuple[PreparedSource, FrameIndex]:
    """Run the stages up to the fit where they are not up to date, and read what they left.

    Raises:
        GeneFaceError: the video or the face cannot be used.
    """
    with VideoReader(job.video) as reader:
        info = reader.info
    sha256 = file_sha256(job.video)
    roots = {} if job.data_root is None else {"data_root": job.data_root}
    workspace = VideoWorkspace(video_id_of(job.video, sha256), face=job.face, **roots)
    config = load_config(DEFAULT_CONFIG, ProcessVideoConfig, job.overrides)
    end = [stage.name for stage in STAGES].index(LAST_STAGE) + 1
    try:
        run_stages(STAGES[:end], job.video, workspace, config, progress, source_sha256=sha256)
    except (NoFaceError, FitDivergedError) as error:
        raise type(error)(f"{job.video}: {error}") from error
    except OSError as error:
        raise OutputError(f"{workspace.data_root}: cannot be written ({error.strerror}); check --data_root") from error
    source = load_source(job.video, sha256, workspace, info)
    if source.coeffs.face_model_version != source.face_model.version:
        raise ConfigError(
            f"{job.video} was fitted with {source.coeffs.face_model_version}, which cannot be drawn; "
            "leave face_model at embedded"
        )
    return source, FrameIndex.load(workspace.frame_index)


def frames_between(source: PreparedSource, job: InspectJob) -> tuple[int, int]:
    """Frames ``[first, stop)`` that ``--start`` and ``--end`` mean.

    Raises:
        ConfigError: there are none.
    """
    first = int(np.searchsorted(source.times_s, (job.start_s or 0.0) - 1e-6))
    stop = len(source) if job.end_s is None else int(np.searchsorted(source.times_s, job.end_s - 1e-6))
    if first >= stop:
        raise ConfigError(
            f"{job.video}: no frame is shown between --start and --end; the last one is shown at "
            f"{source.times_s[-1]:.2f} s"
        )
    return first, stop


def curves_of(source: PreparedSource, errors: FitErrors, first: int, stop: int) -> FitCurves:
    """What is plotted of frames ``first .. stop``."""
    part, coeffs = slice(first, stop), source.coeffs
    starts = np.asarray([0] if source.shot_starts is None else source.shot_starts)
    fits = np.isfinite(errors.face[part])
    return FitCurves(
        title=f"{source.video.name}, face {source.face}: {int(fits.sum())} of {stop - first} frames fitted, "
        f"focal length {coeffs.camera.fx:.0f} px",
        times_s=source.times_s[part],
        shot_starts=starts[(starts > first) & (starts < stop)] - first,
        coeffs=replace(
            coeffs,
            expression=coeffs.expression[part],
            euler=coeffs.euler[part],
            translation=coeffs.translation[part],
            valid=coeffs.valid[part],
            residual=coeffs.residual[part],
        ),
        names=source.face_model.expression_names,
        fits=fits,
        face=errors.face[part],
        lips=errors.lips[part],
    )


def _write_overlay(
    source: PreparedSource, index: FrameIndex, pages: FitPages, path: Path, span: tuple[int, int], progress: Progress
) -> None:
    """Paint frame after frame; the sound comes along where the video is shown from its beginning."""
    info = rgb_video_info(source.video, *pages.size, source.info.frame_rate)
    audio = AudioTrack(source.video, keep_source=True) if source.info.has_audio and span[0] == 0 else None
    quality = EncodeConfig(crf=16, preset="fast")
    with (
        VideoReader(source.video) as reader,
        VideoWriter(path, info, quality=quality, audio=audio, comment=_COMMENT) as writer,
        decoding(FrameRange(reader, index, *span)) as frames,
        encoding(writer) as encoded,
    ):
        for frame in frames:
            encoded.put(pages.page(frame))
            progress("overlay", frame.index - span[0] + 1, span[1] - span[0])


@contextmanager
def _all_or_nothing(out: Path) -> Iterator[Path]:
    """A folder to write into; its files appear in ``out`` when the block ends well, and nothing stays otherwise."""
    made = next((path for path in reversed((out, *out.parents)) if not path.exists()), None)
    temporary = out / _TEMPORARY
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for name in OUTPUTS:
            (temporary / name).replace(out / name)
        temporary.rmdir()
    except BaseException as error:
        shutil.rmtree(temporary if made is None else made, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(f"{out}: cannot be written ({error.strerror}); choose another --out") from error
        raise


def parse_arguments(argv: Sequence[str] | None = None) -> InspectJob:
    """The command line as a job.

    Raises:
        GeneFaceError: a flag is wrong or the video is missing.
    """
    parser = CommandParser(description="Show how well the face model fits a video.", allow_abbrev=False)
    parser.add_argument("video", type=Path, metavar="VIDEO", help="any video with a face")
    parser.add_argument("--out", type=Path, help="folder of the results (default: out/inspect_fit/<name of the video>)")
    parser.add_argument("--face", type=int, default=0, help="number of the face, most face area over time first")
    parser.add_argument("--start", type=float, metavar="S", help="show only from this second on (then without sound)")
    parser.add_argument("--end", type=float, metavar="S", help="show only up to this second")
    parser.add_argument("--size", type=int, default=1280, metavar="PX", help="longest side of the video in the overlay")
    parser.add_argument("--data_root", type=Path, help="where prepared videos are cached (default: data/)")
    parser.add_argument("--hparams", default="", metavar="a.b=c,…", help="overrides of how the video is prepared")
    given = parser.parse_args(argv)
    return InspectJob(
        video=given.video,
        out=given.out or Path("out") / "inspect_fit" / given.video.stem,
        face=given.face,
        start_s=given.start,
        end_s=given.end,
        size=given.size,
        data_root=given.data_root,
        overrides=parse_hparams(given.hparams),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _inspect(argv))


def _inspect(argv: Sequence[str] | None) -> None:
    job = parse_arguments(argv)
    summary = inspect_fit(job, ConsoleProgress())
    logger.info("fit\n%s", json.dumps(summary, indent=1))
    logger.info("results: %s in %s", ", ".join(OUTPUTS), job.out)


if __name__ == "__main__":
    raise SystemExit(main())
