"""Prepare a video for training: the whole dataflow is the list ``STAGES``.

    python data_gen/runs/process_video.py --video_id ID            # data/raw/videos/ID.mp4
    python data_gen/runs/process_video.py --video path/to/any.mp4 --video_id ID
    python data_gen/runs/process_video.py --video_id ID --portrait # what GeneFace++'s kind of portrait learns from
    python data_gen/runs/process_video.py --list

A stage runs again only when the video, its configuration, its code schema or a stage before it changed.
Reads: the video. Writes: data/processed/videos/<id>/ and data/binary/videos/<id>/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # `python data_gen/runs/process_video.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_gen.runs import portrait_stages, stages
from data_gen.runs.process_config import ProcessVideoConfig
from modules.commons import hashing
from modules.commons.command import GOES_ON, exit_status
from modules.commons.config import load_config
from modules.commons.device import DeviceName, pick_device
from modules.commons.errors import ConfigError, VideoReadError
from modules.commons.hparams import parse_hparams
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import EGS, FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.choice import load_face_model
from modules.face_model.model import FaceModel

DEFAULT_CONFIG = EGS / "egs_bases" / "process_video" / "base.yaml"
GPU_CONFIG = EGS / "egs_bases" / "process_video" / "gpu.yaml"
MANIFEST_SCHEMA = "manifest/1"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the dataflow.

    Attributes:
        name: what ``--from`` and ``--only`` call it.
        reads, writes: attributes of ``VideoWorkspace``; every stage reads the video besides.
        config: the fields of ``ProcessVideoConfig`` it depends on.
        schema: raised by hand when the code makes something else of the same input.
        run: does the work; may return facts for the manifest.
        of_face: its result belongs to one face; the others belong to the video and serve all of its faces.
        uses_face_model: another face model makes the result stale.
        check: refuses what cannot be done before anything is made.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    config: tuple[str, ...]
    schema: int
    run: Callable[[stages.StageInput], Mapping[str, str] | None]
    of_face: bool = True
    uses_face_model: bool = False
    check: Callable[[VideoWorkspace], None] | None = None


TRACKED = ("landmarks", "crop_metadata")
STAGES: tuple[Stage, ...] = (
    Stage("shots", (), ("frame_index",), ("shots",), 1, stages.shots, of_face=False),
    Stage(
        "track",
        ("frame_index",),
        ("observations", "faces"),
        ("detect",),
        5,
        stages.track,
        of_face=False,
        uses_face_model=True,
    ),
    Stage(
        "landmarks", ("observations", "faces"), ("track", "landmarks"), (), 2, stages.landmarks, check=stages.check_face
    ),
    Stage("crop", ("frame_index", "track", "landmarks"), ("crop_metadata",), ("crop",), 2, stages.crop),
    Stage("hands", ("frame_index", *TRACKED), ("hands",), ("hands",), 5, stages.hands),
    Stage(
        "fit_first",
        ("frame_index", *TRACKED, "hands"),
        ("first_coeffs",),
        ("fit", "face_model"),
        1,
        stages.fit_first,
        uses_face_model=True,
    ),
    Stage(
        "occlusion",
        ("frame_index", *TRACKED, "hands", "first_coeffs"),
        ("occlusion",),
        ("occlusion",),
        9,
        stages.occlusion,
        uses_face_model=True,
    ),
    Stage(
        "fit",
        ("frame_index", *TRACKED, "hands", "first_coeffs", "occlusion"),
        ("coeffs",),
        ("fit", "face_model"),
        3,
        stages.fit,
        uses_face_model=True,
    ),
    Stage(
        "binarize",
        (*TRACKED, "occlusion", "coeffs"),
        ("dataset", "crops"),
        ("binarizer",),
        4,
        stages.binarize_clip,
        uses_face_model=True,
        check=stages.check_fitted_model,
    ),
)
PLANNED = ("portrait_plan",)
PORTRAIT_ONLY: tuple[Stage, ...] = (
    Stage(
        "plan",
        ("frame_index", *TRACKED, "occlusion", "coeffs"),
        PLANNED,
        ("portrait", "binarizer"),
        1,
        portrait_stages.plan,
    ),
    Stage("speech", (), ("portrait_speech",), ("portrait",), 1, portrait_stages.speech, of_face=False),
    Stage(
        "segment",
        ("frame_index", *TRACKED, "hands", "occlusion", *PLANNED),
        ("gt_imgs", "segmaps", "head_imgs", "inpaint_torso_imgs"),
        ("portrait",),
        2,
        portrait_stages.segment,
    ),
    Stage(
        "background",
        (*PLANNED, "gt_imgs", "segmaps"),
        ("background_plate", "com_imgs", "bg_imgs"),
        ("portrait",),
        1,
        portrait_stages.background,
    ),
    Stage(
        "portrait",
        ("landmarks", "coeffs", *PLANNED, "portrait_speech", "background_plate", "com_imgs", "bg_imgs"),
        ("portrait_dataset",),
        (),
        1,
        portrait_stages.portrait,
        uses_face_model=True,
    ),
)
PORTRAIT_STAGES: tuple[Stage, ...] = (*(stage for stage in STAGES if stage.name != "binarize"), *PORTRAIT_ONLY)
"""What portraits in GeneFace++'s manner learn from, instead of the last of ``STAGES``."""


def default_config(device: DeviceName = "auto") -> Path:
    """How videos are prepared when nothing else is asked for: with more frames where people are trained on a GPU."""
    return GPU_CONFIG if pick_device(device).type == "cuda" else DEFAULT_CONFIG


def prepare_video(video: Path, workspace: VideoWorkspace, config: ProcessVideoConfig, progress: Progress) -> None:
    """Run every stage that is not up to date.

    Args:
        video: any video file; it is only read.
        workspace: where the artefacts go.
        config: what the stages are to do.
        progress: told about each stage's work.

    Raises:
        GeneFaceError: a stage cannot do its work; the message is one clear sentence.
    """
    run_stages(STAGES, video, workspace, config, progress)


def run_stages(
    chosen: Sequence[Stage],
    video: Path,
    workspace: VideoWorkspace,
    config: ProcessVideoConfig,
    progress: Progress,
    *,
    forced: frozenset[str] = frozenset(),
    source_sha256: str | None = None,
) -> list[str]:
    """Run ``chosen`` (a run of ``STAGES``) where they are out of date or ``forced``; returns the names that ran.

    ``source_sha256`` is the video's hash where the caller knows it: hashing hours of video takes its time.
    """
    source_sha256 = source_sha256 or file_sha256(video)
    embedded, fitted = _model_versions(config)
    every = (*STAGES, *PORTRAIT_ONLY)
    keys = stage_keys(source_sha256, config, embedded, workspace.face, fitted, stages=every)
    ran: list[str] = []
    for stage in chosen:
        place = workspace if stage.of_face else workspace.of_video
        manifest = _read_manifest(place, source_sha256)
        if stage.name not in forced and is_up_to_date(stage, keys[stage.name], manifest, place):
            continue
        _check_inputs(stage, place)
        if stage.check is not None:
            stage.check(place)
        was_finished = manifest.pop(stage.name, None) is not None
        _write_manifest(place, video, source_sha256, manifest)
        if was_finished and stage.name in forced:
            _drop_pieces(stage, place)
        started = time.monotonic()
        place.binary.mkdir(parents=True, exist_ok=True)
        facts = stage.run(stages.StageInput(video, source_sha256, place, config, progress, keys[stage.name]))
        seconds = round(time.monotonic() - started, 2)
        manifest[stage.name] = {"key": keys[stage.name], "seconds": seconds, **(facts or {})}
        _write_manifest(place, video, source_sha256, manifest)
        log.info("%s: %s done in %.1f s", workspace.video_id, stage.name, seconds)
        ran.append(stage.name)
    return ran


def _drop_pieces(stage: Stage, workspace: VideoWorkspace) -> None:
    """Delete outputs that grow piece by piece: a stage that is to run again must not find its pieces finished."""
    for path in (getattr(workspace, name) for name in stage.writes):
        if path.is_dir():
            shutil.rmtree(path)


def stage_keys(
    source_sha256: str,
    config: ProcessVideoConfig,
    face_model_version: str,
    face: int = 0,
    fitted_version: str | None = None,
    *,
    stages: Sequence[Stage] | None = None,
) -> dict[str, str]:
    """A hash per stage (of ``STAGES``) of all that its result depends on, earlier stages included.

    ``fitted_version`` is that of the model which ``config.face_model`` names, where it is not the embedded one.
    """
    sections = config.hashed_sections()
    producers: dict[str, str] = {}
    keys: dict[str, str] = {}
    for stage in STAGES if stages is None else stages:
        version = (fitted_version if "face_model" in stage.config else None) or face_model_version
        depends = {
            "source": source_sha256,
            "schema": stage.schema,
            "config": {name: sections[name] for name in stage.config},
            "inputs": {name: producers[name] for name in stage.reads},
            "face_model": version if stage.uses_face_model else "",
            "face": face if stage.of_face else None,
        }
        keys[stage.name] = hashlib.sha256(json.dumps(depends, sort_keys=True, default=str).encode()).hexdigest()
        producers |= dict.fromkeys(stage.writes, keys[stage.name])
    return keys


def _model_versions(config: ProcessVideoConfig) -> tuple[str, str]:
    """Versions of the embedded model, which finding faces needs whatever is fitted, and of the one to be fitted."""
    embedded = FaceModel.load(FACE_MODEL_FILE).version
    return embedded, embedded if config.face_model == "embedded" else load_face_model(config.face_model).version


def is_up_to_date(stage: Stage, key: str, manifest: Mapping[str, Any], workspace: VideoWorkspace) -> bool:
    """Whether the stage's outputs exist and were made from what ``key`` stands for."""
    record = manifest.get(stage.name)
    return record is not None and record["key"] == key and all(getattr(workspace, w).exists() for w in stage.writes)


def file_sha256(path: Path) -> str:
    """Hash of a video's content.

    Raises:
        VideoReadError: when the file cannot be read.
    """
    try:
        return hashing.file_sha256(path)
    except OSError as error:
        raise VideoReadError(f"{path}: cannot be read ({error.strerror}); give the path of a video file") from error


def _check_inputs(stage: Stage, workspace: VideoWorkspace) -> None:
    missing = [str(getattr(workspace, name)) for name in stage.reads if not getattr(workspace, name).exists()]
    if missing:
        raise ConfigError(f"stage {stage.name} needs {', '.join(missing)}; run the stages before it first")


def _read_manifest(workspace: VideoWorkspace, source_sha256: str) -> dict[str, Any]:
    """The finished stages of this very video; a manifest of anything else counts as none."""
    try:
        data = json.loads(workspace.manifest.read_text())
        if data["schema"] != MANIFEST_SCHEMA or data["source_sha256"] != source_sha256:
            return {}
        return dict(data["stages"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def _write_manifest(workspace: VideoWorkspace, video: Path, source_sha256: str, done: Mapping[str, Any]) -> None:
    workspace.processed.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": MANIFEST_SCHEMA,
        "video": str(video),
        "source_sha256": source_sha256,
        "stages": done,
    }
    temporary = workspace.manifest.with_suffix(".tmp.json")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(workspace.manifest)


def select_stages(
    first: str | None, only: str | None, stages: tuple[Stage, ...] | None = None
) -> tuple[tuple[Stage, ...], frozenset[str]]:
    """Those of ``stages`` (``STAGES``) that ``--from`` or ``--only`` mean, and which of them run even when up to date.

    Raises:
        ConfigError: unknown stage name.
    """
    stages = STAGES if stages is None else stages
    names = [stage.name for stage in stages]
    wanted = only or first
    if wanted is None:
        return stages, frozenset()
    if wanted not in names:
        raise ConfigError(f"unknown stage {wanted!r}; the stages are {', '.join(names)}")
    start = names.index(wanted)
    chosen = stages[start : start + 1] if only else stages[start:]
    return chosen, frozenset(stage.name for stage in chosen)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Prepare a video for training.", allow_abbrev=False)
    parser.add_argument("--video_id", help="name of the clip; data/raw/videos/ID.mp4 is read unless --video is given")
    parser.add_argument("--video", type=Path, help="any video file; its name becomes the id unless --video_id is given")
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG)
    parser.add_argument("--data_root", type=Path, help="where artefacts go (default: data/)")
    parser.add_argument("--face", type=int, default=0, help="number of the face, most face area over time first")
    parser.add_argument("--portrait", action="store_true", help="make what GeneFace++'s kind of portrait learns from")
    parser.add_argument("--list", action="store_true", help="show the stages and end")
    parser.add_argument("--from", dest="first", metavar="STAGE", help="run this stage and all after it again")
    parser.add_argument("--only", metavar="STAGE", help="run this stage alone, again")
    parser.add_argument("--hparams", default="", help="configuration overrides: a.b=1,c=2")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = parse_arguments(argv)
    return exit_status(lambda: _list() if arguments.list else _prepare(arguments), GOES_ON)


def _list() -> None:
    for stage in (*STAGES, *PORTRAIT_ONLY):
        log.info("%-10s %s -> %s", stage.name, ", ".join(("video", *stage.reads)), ", ".join(stage.writes))


def _prepare(arguments: argparse.Namespace) -> None:
    if arguments.video_id is None and arguments.video is None:
        raise ConfigError("nothing to prepare; give --video_id ID or --video PATH")
    if arguments.face < 0:
        raise ConfigError(f"--face {arguments.face}: faces are numbered from 0")
    video_id = arguments.video_id or arguments.video.stem
    workspace = VideoWorkspace(video_id, *([arguments.data_root] if arguments.data_root else []), face=arguments.face)
    config = load_config(arguments.config, ProcessVideoConfig, parse_hparams(arguments.hparams))
    listed = PORTRAIT_STAGES if arguments.portrait else STAGES
    chosen, forced = select_stages(arguments.first, arguments.only, listed)
    video = arguments.video or workspace.raw_video
    run_stages(chosen, video, workspace, config, ConsoleProgress(), forced=forced)
    log.info("%s is prepared: %s", video_id, workspace.portrait_dataset if arguments.portrait else workspace.dataset)


if __name__ == "__main__":
    raise SystemExit(main())
