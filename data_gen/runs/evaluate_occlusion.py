"""Measure the masks of what stands before faces: on synthetic sequences with exact truth, and on clean clips.

    bash scripts/evaluate_occlusion.sh --set DIR --clips FOLDER --clean CLIP ... --out OUT

Things (a hand, cup, microphone, phone, straw, sandwich, finger) are put before real and painted faces, the videos go
through the stages of ``process_video`` up to ``occlusion``, and what the stages found is compared with the truth.
Reads: the clips, the hand of ``checkpoints/occluder_set``. Writes: the set below ``--set`` (kept for the next run) and
OUT/occlusion.json, OUT/occlusion.md.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that this file runs as a script from anywhere

from data_gen.runs.process_config import ProcessVideoConfig  # noqa: E402
from data_gen.runs.process_video import DEFAULT_CONFIG, STAGES, Stage, run_stages  # noqa: E402
from data_gen.utils.evaluate_occlusion.building import BuiltSequence, SetBuilder  # noqa: E402
from data_gen.utils.evaluate_occlusion.catalogue import CATALOGUE  # noqa: E402
from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh  # noqa: E402
from data_gen.utils.evaluate_occlusion.judging import (  # noqa: E402
    EVIDENCE,
    Evidence,
    FoundMasks,
    judge,
    judge_clean,
    table_of,
)
from data_gen.utils.evaluate_occlusion.report import (  # noqa: E402
    CleanRow,
    OcclusionReport,
    SequenceRow,
    as_json,
    markdown,
)
from data_gen.utils.evaluate_occlusion.specification import SequenceSpec  # noqa: E402
from data_gen.utils.process_video.crop_utils import load_crop_metadata  # noqa: E402
from modules.commons.command import exit_status  # noqa: E402
from modules.commons.config import load_config  # noqa: E402
from modules.commons.errors import ConfigError, OutputError, VideoReadError  # noqa: E402
from modules.commons.hparams import parse_hparams  # noqa: E402
from modules.commons.machine import Machine  # noqa: E402
from modules.commons.progress import ConsoleProgress, Progress, silent  # noqa: E402
from modules.commons.workspace import FACE_MODEL_FILE, OCCLUDER_HAND_FILE, VideoWorkspace  # noqa: E402
from modules.face_model.model import FaceModel  # noqa: E402
from modules.structures.landmarks import Landmarks2D  # noqa: E402
from modules.structures.masks import OcclusionTable  # noqa: E402
from modules.video.reader import VideoReader  # noqa: E402

logger = logging.getLogger("evaluate_occlusion")


@dataclass(frozen=True, slots=True)
class EvaluateOcclusionOptions:
    """What is measured.

    Attributes:
        set_folder: where the set is built and prepared. out: folder of the report.
        clips: folder of the real clips; None = painted heads only.
        clean: clips with nothing before the face. names: sequences; empty = all that can be made.
        evidence: masks that are judged where they are there. device: of the stages.
        workers: sequences prepared and judged at a time, each by a process of its own.
        overrides: of the stages' configuration, such as ("detect.extractor", "torch").
        seed: added to every sequence's own; 0 = the set as it is. command: what to note as the command.
    """

    set_folder: Path
    out: Path
    clips: Path | None = None
    clean: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = EVIDENCE
    device: str = "cpu"
    workers: int = 1
    overrides: tuple[tuple[str, str], ...] = ()
    seed: int = 0
    command: str = ""

    def __post_init__(self) -> None:
        for folder in (self.set_folder, self.out):
            if folder.exists() and not folder.is_dir():
                raise OutputError(f"{folder}: is a file; name a folder")
        missing = [clip for clip in self.clean if not clip.is_file()]
        if missing:
            raise VideoReadError(f"{missing[0]}: there is no such file; name videos with --clean")
        known = {spec.name: spec for spec in CATALOGUE}
        if self.workers < 1:
            raise ConfigError(f"--workers {self.workers}: at least 1 is needed")
        unknown = [name for name in self.names if name not in known]
        if unknown:
            raise ConfigError(
                f"--sequences {unknown[0]}: there is no such sequence; known are {', '.join(sorted(known))}"
            )
        without = [name for name in self.names if self.clips is None and not known[name].is_painted]
        if without:
            raise ConfigError(f"--sequences {without[0]}: is made from a real clip; name their folder with --clips")

    @property
    def specs(self) -> list[SequenceSpec]:
        """The sequences that are wanted and can be made."""
        wanted = [spec for spec in CATALOGUE if not self.names or spec.name in self.names]
        if self.clips is None:
            wanted = [spec for spec in wanted if spec.is_painted]
        return [replace(spec, seed=spec.seed + self.seed) for spec in wanted]

    def config(self) -> ProcessVideoConfig:
        """How videos are prepared."""
        return load_config(DEFAULT_CONFIG, ProcessVideoConfig, {"device": self.device, **dict(self.overrides)})


def stages_up_to(name: str) -> tuple[Stage, ...]:
    """The stages of ``process_video`` up to and including ``name``."""
    names = [stage.name for stage in STAGES]
    return STAGES[: names.index(name) + 1]


def prepare(video: Path, root: Path, config: ProcessVideoConfig, last: str) -> VideoWorkspace:
    """Bring a video through the stages up to ``last``."""
    workspace = VideoWorkspace(video.stem, root)
    run_stages(stages_up_to(last), video, workspace, config, silent)
    return workspace


def evaluate_occlusion(options: EvaluateOcclusionOptions, progress: Progress) -> OcclusionReport:
    """Build what is missing of the set, prepare it, and judge it.

    Raises:
        GeneFaceError: an input cannot be used.
    """
    started = time.monotonic()
    config = options.config()

    def landmarker(video: Path) -> NDArray[np.float32]:
        workspace = prepare(video, options.set_folder / "base" / "data", config, "landmarks")
        return np.array(Landmarks2D.load(workspace.landmarks).points)

    options.set_folder.mkdir(parents=True, exist_ok=True)
    face_model, hand = FaceModel.load(FACE_MODEL_FILE), HandMesh.load(OCCLUDER_HAND_FILE)
    builder = SetBuilder(options.set_folder, options.clips, face_model, hand, landmarker)
    built = builder.build(options.specs, progress)
    rows: list[SequenceRow] = []
    clean: list[CleanRow] = []
    for done, (of_sequence, of_clip) in enumerate(_judged(options, [*built, *options.clean])):
        progress("judge", done + 1, len(built) + len(options.clean))
        rows += of_sequence
        clean += of_clip
    return OcclusionReport(_facts(options, time.monotonic() - started), tuple(rows), tuple(clean))


Judged = tuple[list[SequenceRow], list[CleanRow]]


def _judged(options: EvaluateOcclusionOptions, things: Sequence[BuiltSequence | Path]) -> Iterator[Judged]:
    """Prepare and judge sequences and clean clips, in order, in this process or in several."""
    if options.workers == 1:
        yield from (judged_one(options, thing) for thing in things)
        return
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(judged_one, options), things)


def judged_one(options: EvaluateOcclusionOptions, thing: BuiltSequence | Path) -> Judged:
    """Bring one video through the stages and judge its masks."""
    root, config = options.set_folder / "data", options.config()
    if isinstance(thing, BuiltSequence):
        return judged_rows(thing, prepare(thing.video, root, config, "occlusion"), options.evidence), []
    return [], clean_rows(thing, prepare(thing, root, config, "occlusion"), options.evidence)


def judged_rows(sequence: BuiltSequence, workspace: VideoWorkspace, evidence: Sequence[Evidence]) -> list[SequenceRow]:
    """One row for each kind of evidence whose masks are there."""
    spec, truth = sequence.spec, sequence.read_truth()
    metadata = load_crop_metadata(workspace.crop_metadata)
    rows = []
    hands = OcclusionTable.load(workspace.hands)
    for kind, table in _tables(workspace, evidence):
        with VideoReader(sequence.video) as reader:
            scores = judge(reader.frames(), truth, FoundMasks(metadata, table, None if kind == "hands" else hands))
        rows.append(SequenceRow(spec.name, spec.kind, spec.is_thin, spec.is_painted, kind, scores))
    return rows


def clean_rows(clip: Path, workspace: VideoWorkspace, evidence: Sequence[Evidence]) -> list[CleanRow]:
    """What a clip with nothing before the face was accused of, by evidence."""
    metadata, landmarks = load_crop_metadata(workspace.crop_metadata), Landmarks2D.load(workspace.landmarks)
    return [
        CleanRow(clip.stem, kind, judge_clean(table, landmarks, metadata))
        for kind, table in _tables(workspace, evidence)
    ]


def _tables(workspace: VideoWorkspace, evidence: Sequence[Evidence]) -> list[tuple[Evidence, OcclusionTable]]:
    found = []
    for kind in evidence:
        path = table_of(workspace.processed, kind)
        if path is not None:
            found.append((kind, OcclusionTable.load(path)))
    return found


def _facts(options: EvaluateOcclusionOptions, seconds: float) -> dict[str, str]:
    machine = Machine.here()
    return {
        "command": f"`{options.command}`",
        "machine": f"{machine.cpu}, {machine.cores} cores, {machine.gpu or 'no GPU'}; {machine.system}",
        "versions": f"Python {machine.python}, torch {machine.torch}, numpy {machine.numpy}",
        "took": f"{seconds:.0f} s",
        "judged": "at 512 px, inside the lower face with 4 % of the face height around it, pixels from 0.5 on",
        "false": "share of the lower face in frames without the thing",
        "edited": "share of the thing's pixels over the lower face that an edit would replace; what the composite "
        "leaves alone is left alone: a margin, and all that hands sweep over",
    }


def write_report(report: OcclusionReport, out: Path) -> None:
    """Write ``occlusion.json`` and ``occlusion.md`` through temporary names.

    Raises:
        OutputError: the folder cannot be written.
    """
    text = json.dumps(as_json(report), indent=1, allow_nan=False) + "\n"
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in (("occlusion.json", text), ("occlusion.md", markdown(report))):
            temporary = out / f".{name}.tmp"
            temporary.write_text(content, encoding="utf-8")
            temporary.replace(out / name)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error}); choose another --out") from error


def parse_arguments(argv: Sequence[str] | None = None) -> EvaluateOcclusionOptions:
    """The command line as options.

    Raises:
        GeneFaceError: a value is wrong.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    out = Path("out") / "evaluate_occlusion"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--clips", type=Path, help="folder of the real clips (default: painted heads only)")
    parser.add_argument("--clean", type=Path, nargs="*", default=[], help="clips with nothing before the face")
    parser.add_argument(
        "--set", dest="set_folder", type=Path, default=out / "set", help="where the set is built and kept"
    )
    parser.add_argument("--out", type=Path, default=out, help="folder of occlusion.md and occlusion.json")
    parser.add_argument(
        "--sequences", dest="names", nargs="*", default=[], help="names (default: all that can be made)"
    )
    parser.add_argument("--evidence", nargs="+", choices=EVIDENCE, default=list(EVIDENCE), help="masks to judge")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the stages run")
    parser.add_argument("--workers", type=int, default=1, help="videos prepared and judged at a time (default: 1)")
    parser.add_argument("--hparams", default="", help="overrides of the stages' configuration: a.b=1,c=2")
    parser.add_argument("--seed", type=int, default=0, help="of grain and painted details (default: the set as it is)")
    given = vars(parser.parse_args(argv))
    given["overrides"] = tuple(parse_hparams(given.pop("hparams")).items())
    for name in ("clean", "names", "evidence"):
        given[name] = tuple(given[name])
    return EvaluateOcclusionOptions(**given, command=shlex.join(["bash", "scripts/evaluate_occlusion.sh", *argv]))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _evaluate(argv), "what was built and prepared is kept")


def _evaluate(argv: Sequence[str] | None) -> None:
    options, progress = parse_arguments(argv), ConsoleProgress()
    try:
        write_report(evaluate_occlusion(options, progress), options.out)
    finally:
        progress.close()
    logger.info("result: %s and %s", options.out / "occlusion.md", options.out / "occlusion.json")


if __name__ == "__main__":
    raise SystemExit(main())
