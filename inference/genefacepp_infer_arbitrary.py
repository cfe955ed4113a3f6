"""Lip-sync any video with a face: the same video comes back with new lips.

Usage: python inference/genefacepp_infer_arbitrary.py --src_video in.mp4 --drv_aud speech.wav --out_name out.mp4

Reads: a video, a sound file, the models below checkpoints/.
Writes: the result, ``<out>.json`` and ``<out>.provenance.json`` beside it; cached by content: data/**/<id>/ and
checkpoints/identities/<id>/.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from inference.after_edit import finish_result
from inference.arbitrary_video import edit_video, preview_frame, summarise
from inference.casting import FaceList, cast_faces, draw_face_list, listen, plan_job_timeline, rehearse
from inference.command_line import CommandParser, add_shared_arguments
from inference.devices import render_devices
from inference.evaluation.results import masks_of_report, report_result
from inference.extras import check_extras, plan_extras
from inference.face_choice import add_face_arguments, parse_face
from inference.face_compositor import BLEND_MODE_HELP, DEFAULT_BLEND_MODE
from inference.file_options import add_file_arguments
from inference.genefacepp_infer import GeneFace2Infer
from inference.identity import training_config
from inference.jobs import BLEND_MODES, MOUTH_HELP, MOUTHS, OCCLUSION_MODES, ArbitraryJob
from inference.motion_export import (
    MotionJob,
    add_export_arguments,
    check_one_face,
    export_motion,
    motion_job,
    rendered_face_motion,
    write_motion,
)
from inference.prepared import open_video
from inference.summary import collected_warnings
from inference.timeline import add_time_arguments
from modules.commons.checkpoint import load_checkpoint
from modules.commons.command import GOES_ON, exit_status
from modules.commons.errors import ConfigError
from modules.commons.log import StageTimer
from modules.commons.progress import ConsoleProgress
from modules.face_model.model import REGIONS
from modules.radnerfs.official import is_portrait, load_portrait

logger = logging.getLogger("lipsync")


class GeneFace2InferArbitrary(GeneFace2Infer):
    """Chains prepare → identity → audio to motion → render → composite for one video and one speech.

    What ``GeneFace2Infer`` does, it does too: ``infer_once`` is the classic command.

    Example:
        >>> infer = GeneFace2InferArbitrary()
        >>> job = {"src_video": "in.mp4", "audio": "speech.wav", "out_name": "out.mp4"}
        >>> infer.infer_once_arbitrary(job)  # doctest: +SKIP
    """

    def infer_once_arbitrary(self, inp: Mapping[str, Any] | ArbitraryJob) -> Path:
        """Run one job.

        Args:
            inp: an ``ArbitraryJob``, or ``{'src_video', 'audio', 'out_name'}`` with any other of its fields.

        Returns:
            The path written: the video, or the PNG of ``preview``.

        Raises:
            GeneFaceError: the input is unusable; the message is one clear sentence and nothing half-written stays.
        """
        job = inp if isinstance(inp, ArbitraryJob) else ArbitraryJob.from_mapping(inp)
        with collected_warnings() as warnings:
            return self._run(job, warnings)

    def _run(self, job: ArbitraryJob, warnings: list[str]) -> Path:
        """The stages, in order."""
        timer = StageTimer()
        with timer.stage("listen"):
            check_inputs(job)
            heard = listen(job)
        with timer.stage("prepare"):
            video = open_video(job.src_video, self.progress)
            casts = cast_faces(job, video, self.progress)
        if job.exports_motion:
            check_one_face([cast.source.face for cast in casts])
        timeline = plan_job_timeline(job, video, casts, heard)
        with timer.stage("identity"):
            performances = rehearse(job, video, casts, heard, timeline, self.progress)
        edited = np.any([part.plan.edited for part in performances], axis=0)
        extras = plan_extras(job, video, timeline, edited)
        if job.preview is not None:
            with timer.stage("preview"):
                return preview_frame(job, video, timeline, performances, self.progress, extras)
        masks = job.save_masks or (job.report and masks_of_report(job.report))
        with timer.stage("edit"):
            record = edit_video(replace(job, save_masks=masks), video, timeline, performances, self.progress, extras)
        if job.exports_motion:
            with timer.stage("export"):
                write_motion(rendered_face_motion(performances[0], timeline), job.export_arkit, job.export_npz)
        with timer.stage("record"):
            finish_result(job, video, timeline, performances, extras)
        summary = summarise(job, video, performances, record, timer.seconds, warnings, extras)
        summary.write(job.summary_path)
        if job.report is not None:
            with timer.stage("report"):
                part = performances[0]
                report_result(job, part.source, part.plan, (part.speech, part.motion), self.progress, masks)
        logger.info(
            "%s: %d of %d frames edited, the rest are the source's own", job.out_name, summary.frames_edited,
            summary.frames,
        )  # fmt: skip
        return job.out_name


def check_inputs(job: ArbitraryJob) -> None:
    """Find out now what would only show after minutes of preparing.

    Raises:
        GeneFaceError: the person's checkpoint or the preset cannot be read, a GPU that was named is not there, or the
            result's file cannot be made as it was asked for.
    """
    check_extras(job)
    if job.devices:
        render_devices(job.device, job.devices, n_frames=1)
    if job.head_ckpt is not None and is_portrait(job.head_ckpt):
        if job.occlusion == "head":
            raise ConfigError(f"--occlusion head: {job.head_ckpt} is a portrait, which cannot judge; use appearance")
        load_portrait(job.head_ckpt)
    else:
        job.controls.warn_of_unseen_eyes(job.region)
        if job.head_ckpt is not None:
            load_checkpoint(job.head_ckpt, parts={"model"})
    if job.config is not None:
        training_config("", job.config, job.device, Path())


def make_parser() -> CommandParser:
    """The flags of the command."""
    parser = CommandParser(description="Lip-sync any video with a face.", allow_abbrev=False)
    parser.add_argument("--src_video", type=Path, help="the video to edit: any size, rate, container")
    parser.add_argument(
        "--drv_aud", action="append", metavar="[FACE=]FILE",
        help="new speech: any sound or video file; with a face's number, for that face (may be given again)",
    )  # fmt: skip
    parser.add_argument("--out_name", type=Path, help="the result (.mp4, .mov or .mkv)")
    add_face_arguments(parser)
    add_time_arguments(parser)
    add_export_arguments(parser)
    add_shared_arguments(parser)
    parser.add_argument("--fade_s", type=float, default=0.16, help="seconds over which edits fade in and out")
    parser.add_argument("--keep_audio", action="store_true", help="also carry the source's own sound tracks")
    parser.add_argument("--region", choices=REGIONS, default="lower_face", help="what may be repainted")
    parser.add_argument("--blend_mode", choices=BLEND_MODES, default=DEFAULT_BLEND_MODE, help=BLEND_MODE_HELP)
    parser.add_argument("--mouth", choices=MOUTHS, default=MOUTHS[0], help=MOUTH_HELP)
    parser.add_argument("--restore", type=Path, metavar="MODEL", help="TorchScript or ONNX that restores the mouth")
    parser.add_argument("--preview", type=int, metavar="N", help="write frame N alone, composited, as <out>.png")
    parser.add_argument("--save_masks", type=Path, metavar="F", help="write the alpha as a lossless video (.mkv)")
    parser.add_argument("--occlusion", choices=OCCLUSION_MODES, default="auto", help="what tells what hides a face")
    parser.add_argument("--debug_masks", type=Path, metavar="F", help="write every mask over the source as a video")
    parser.add_argument("--report", type=Path, metavar="DIR", help="also measure the result: DIR/report.html")
    parser.add_argument("--devices", metavar="0,1", help="the GPUs that render (default: all, for long videos)")
    parser.add_argument("--config", type=Path, help="preset that trains a person (default: cpu or gpu by device)")
    parser.add_argument("--crf", type=int, default=14, help="quality, 0 best .. 51 (x264's scale for every codec)")
    parser.add_argument("--lossless", action="store_true", help="exact samples (large file)")
    add_file_arguments(parser)
    parser.add_argument("--drv_pose", choices=("nearest",), default="nearest", help="the head moves as in the video")
    return parser


def parse_arguments(argv: Sequence[str] | None = None) -> ArbitraryJob | FaceList | MotionJob:
    """The command line as a job.

    Raises:
        GeneFaceError: it makes no sense.
    """
    parser = make_parser()
    values = vars(parser.parse_args(argv))
    motion = motion_job(values, vars(parser.parse_args([])))
    if motion is not None:
        return motion
    if values["src_video"] is None:
        raise ConfigError("--src_video is missing: name the video to work on; --help lists every flag")
    sheet = values.pop("list_faces")
    if sheet is not None:
        return FaceList(values["src_video"], sheet, parse_face(values["face"], values["face_at"]))
    del values["export_fps"]
    return ArbitraryJob.from_mapping(values)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _run(argv), GOES_ON)


def _run(argv: Sequence[str] | None) -> None:
    job = parse_arguments(argv)
    if isinstance(job, FaceList):
        result = draw_face_list(job, ConsoleProgress())
    elif isinstance(job, MotionJob):
        result = export_motion(job, ConsoleProgress())
    else:
        result = GeneFace2InferArbitrary(ConsoleProgress()).infer_once_arbitrary(job)
    logger.info("result: %s", result)


if __name__ == "__main__":
    raise SystemExit(main())
