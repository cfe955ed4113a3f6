"""GeneFace++'s classic command: speech and a trained person give a 512 px video of that person at 25 fps.

Usage: python inference/genefacepp_infer.py --head_ckpt checkpoints/identities/anna --drv_aud a.wav --out_name out.mp4

Reads: the person's checkpoint, the clip it was trained on and its prepared tables, a sound file; of a portrait its
clip's dataset (and BFM2009 where GeneFace++ trained it).
Writes: the video; with ``--debug`` strips beside it.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # `python inference/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.adapting import own_motion
from inference.command_line import CommandParser, add_shared_arguments
from inference.driving import (
    end_rays_at,
    occlusion_in,
    plan_speech,
    speech_motion,
    speech_track,
)
from inference.drv_pose import pose_video
from inference.edit_plan import EditConfig, EditPlan
from inference.face_compositor import FaceCompositor
from inference.frame_editor import final_alpha
from inference.jobs import ClassicJob
from inference.motion_to_frames import IdentityRenderer
from inference.person_clip import (
    FRAME_RATE,
    PORTRAIT_SIZE,
    CropStore,
    open_person_clip,
    portrait_camera,
    portrait_crops,
    portrait_frame,
    portrait_info,
    pose_rows,
)
from inference.portrait_video import write_portrait_video
from inference.prepared import PreparedSource
from inference.side_videos import DebugStrips
from modules.commons.command import exit_status
from modules.commons.errors import ConfigError
from modules.commons.log import StageTimer
from modules.commons.progress import ConsoleProgress, Progress, silent
from modules.radnerfs.official import is_portrait
from modules.structures.audio import AudioClip
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask
from modules.video.pipeline import encoding
from modules.video.writer import VideoWriter

logger = logging.getLogger("lipsync")


class GeneFace2Infer:
    """Audio and a trained person to a video of the person saying it.

    Example:
        >>> infer = GeneFace2Infer()
        >>> job = {"head_ckpt": "checkpoints/identities/anna", "drv_aud": "speech.wav", "out_name": "out.mp4"}
        >>> infer.infer_once(job)  # doctest: +SKIP
    """

    def __init__(self, progress: Progress = silent) -> None:
        self.progress = progress

    def infer_once(self, inp: Mapping[str, Any] | ClassicJob) -> Path:
        """Run one job.

        Args:
            inp: a ``ClassicJob``, or ``{'drv_aud' (or 'audio'), 'out_name', 'head_ckpt' (or 'torso_ckpt')}`` with any
                other of its fields, ``drv_pose`` among them.

        Returns:
            The video that was written.

        Raises:
            GeneFaceError: the input is unusable; the message is one clear sentence and nothing half-written stays.
        """
        job = inp if isinstance(inp, ClassicJob) else ClassicJob.from_mapping(inp)
        timer = StageTimer()
        with timer.stage("listen"):
            speech = load_audio_16k(job.drv_aud)
        if is_portrait(job.head_ckpt):
            with timer.stage("render"):
                return write_portrait_video(job, speech, self.progress)
        job.controls.warn_of_unseen_eyes("lower_face")
        if pose_video(job.drv_pose) is not None:
            raise ConfigError(
                f"--drv_pose {job.drv_pose}: only a portrait, which is rendered as a whole, follows another video's "
                f"head; {job.head_ckpt} repaints the mouth in its own clip"
            )
        with timer.stage("person"):
            source = open_person_clip(job.head_ckpt)
            rows = pose_rows(job.drv_pose, source.times_s, _frame_count(speech))
        with timer.stage("motion"):
            general = speech_motion(job, speech, source.face_model.version)
            motion, _ = own_motion(job, source, speech, general)
        plan = plan_speech(
            source,
            motion,
            rows,
            np.arange(len(rows)) / FRAME_RATE,
            config=job.controls.edit_config(EditConfig().fade_s),
            blink_mode=job.controls.blink_mode,
        )
        with timer.stage("render"):
            self._write(job, source, rows, plan)
        logger.info("%s: %d frames, new lips in %d", job.out_name, len(rows), int(plan.edited.sum()))
        return job.out_name

    def _write(self, job: ClassicJob, source: PreparedSource, rows: NDArray[np.int64], plan: EditPlan) -> None:
        """Render and encode every frame; the file appears when all are there."""
        painter = PortraitPainter(job, source, rows, plan)
        debug = DebugStrips(job.out_name) if job.debug else None
        job.out_name.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="lipsync-crops-") as folder:
            store = CropStore.fill(source, painter.crops, rows, Path(folder), self.progress)
            with (
                VideoWriter(job.out_name, portrait_info(source.video), audio=speech_track(job.drv_aud)) as writer,
                encoding(writer) as encoded,
            ):
                for index, row in enumerate(rows.tolist()):
                    frame = portrait_frame(index, store.crop(row))
                    result, patch, occlusion = painter.paint(frame)
                    encoded.put(result)
                    if debug and patch:
                        debug.add(frame, result, patch.bounds, final_alpha(patch, occlusion))
                    self.progress("render", index + 1, len(rows))


class PortraitPainter:
    """Puts new lips on one crop at a time."""

    def __init__(self, job: ClassicJob, source: PreparedSource, rows: NDArray[np.int64], plan: EditPlan) -> None:
        self.source = source
        self.rows = rows
        self.plan = plan
        self.crops = portrait_crops(source.crops)
        self.renderer = IdentityRenderer(
            job.head_ckpt,
            source.face_model,
            job.device,
            warn_of_size=False,
            postnet_ckpt=job.controls.postnet_ckpt,
        )
        end_rays_at(self.renderer, job.raymarching_end_threshold)
        self.conditions = self.renderer.conditions(plan.expression, lle_percent=job.lle_percent)
        self.compositor = FaceCompositor()

    def paint(self, frame: Frame) -> tuple[Frame, FramePatch | None, OcclusionMask | None]:
        """The crop with new lips, what was put in and what stays in front; a frame without an edit comes back as is."""
        index = frame.index
        if not self.plan.edited[index]:
            return frame, None, None
        row = int(self.rows[index])
        patch = self._patch(index, row)
        crop_from_frame = self.crops.crop_from_frame(row)
        occlusion = occlusion_in(self.source, row, crop_from_frame, (PORTRAIT_SIZE, PORTRAIT_SIZE))
        return self.compositor.composite_patch(frame, patch, occlusion), patch, occlusion

    def _patch(self, index: int, row: int) -> FramePatch:
        """The rendered region of clip row ``row`` under the expression of output frame ``index``."""
        coeffs = self.source.coeffs
        patch = self.renderer.render_patch(
            coeffs.identity,
            self.plan.expression[index],
            coeffs.euler[row],
            coeffs.translation[row],
            portrait_camera(coeffs.camera, self.crops.crop_from_frame(row)),
            self.conditions[index],
            source_expression=coeffs.expression[row],
        )
        strength = float(self.plan.strength[index])
        return patch if strength >= 1 else replace(patch, alpha=patch.alpha * np.float32(strength))


def _frame_count(speech: AudioClip) -> int:
    """Frames that last as long as the speech; the last one may outlast it."""
    return max(1, math.ceil(speech.duration_s * FRAME_RATE - 1e-6))


def parse_arguments(argv: Sequence[str] | None = None) -> ClassicJob:
    """The command line as a job."""
    parser = CommandParser(description="A trained person says the given speech.", allow_abbrev=False)
    parser.add_argument("--out_name", type=Path, required=True, help="the result (.mp4, .mov or .mkv)")
    parser.add_argument("--drv_aud", type=Path, required=True, help="new speech: any sound or video file")
    add_shared_arguments(parser)
    parser.add_argument(
        "--drv_pose",
        default="nearest",
        metavar="nearest|static|A-B|VIDEO",
        help="frames of the person's clip to play: all of them back and forth, frame 0, or A up to B back and forth; "
        "a portrait also follows the head in another video",
    )
    return ClassicJob.from_mapping(vars(parser.parse_args(argv)))


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    return exit_status(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> None:
    logger.info("result: %s", GeneFace2Infer(ConsoleProgress()).infer_once(parse_arguments(argv)))


if __name__ == "__main__":
    raise SystemExit(main())
