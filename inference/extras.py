"""What a job does beside the edit: the visible mark, and the parts that keep the source's packets."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from inference.edited_frames import EditedFrame
from inference.jobs import ArbitraryJob
from inference.prepared import PreparedVideo
from inference.watermark import Watermark, check_letters, plan_watermark
from modules.structures.frames import Frame
from modules.structures.timeline import Timeline
from modules.video.codecs import codec_for
from modules.video.open_segment import FRAMES_PER_SEGMENT
from modules.video.reader import VideoReader
from modules.video.smart_copy import CopyPlan, check_copyable, plan_copies

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Extras:
    """What was planned for a job; None where nothing was asked for."""

    mark: Watermark | None = None
    copies: CopyPlan | None = None

    @property
    def copied_frames(self) -> int:
        """How many frames keep the source's packets."""
        return 0 if self.copies is None else self.copies.frames

    def put(self, frame: Frame) -> Frame:
        """The frame with the mark, where it carries one."""
        return frame if self.mark is None else self.mark.put(frame)

    def marked(self, done: EditedFrame) -> EditedFrame:
        """The edited frame with the mark."""
        return done if self.mark is None else replace(done, frame=self.mark.put(done.frame))


def check_extras(job: ArbitraryJob) -> None:
    """Find out before any work whether the result's file can be what it was asked to be.

    Raises:
        GeneFaceError: no encoder or container here can, the mark cannot be drawn, or packets cannot be copied.
    """
    job.file.check_encoder()
    suffix, quality = job.out_name.suffix.lower(), job.file.quality(job.crf, job.lossless, "frames")
    if job.preview is None:
        with VideoReader(job.src_video) as reader:
            info = reader.info
        if job.file.smart_copy:
            check_copyable(job.src_video, info, suffix, quality)
        codec_for(info, suffix, quality)
    if job.file.watermark is not None:
        check_letters(job.file.watermark)


def plan_extras(job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, edited: NDArray[np.bool_]) -> Extras:
    """Decide where the mark lies and which frames keep their packets.

    Args:
        job: what was asked for.
        video: the source.
        timeline: which of its frames are shown.
        edited: bool ``[N]``: output frames in which any face is edited.

    Raises:
        GeneFaceError: the mark cannot be drawn, or packets of this source cannot lie in the output.
    """
    mark = None if job.file.watermark is None else _mark(job.file.watermark, video, timeline, edited)
    if not job.file.smart_copy or job.preview is not None:
        return Extras(mark)
    first_pass = timeline.first_pass  # what is shown again later is no copy: its packets have other times
    touched = (edited if mark is None else edited | mark.shown)[:first_pass]
    quality = job.file.quality(job.crf, job.lossless, "frames")
    suffix = job.out_name.suffix.lower()
    pts = timeline.pts[:first_pass]
    copies = plan_copies(video.video, video.info, suffix, quality, pts, touched, FRAMES_PER_SEGMENT)
    if copies.frames:
        logger.info("%d of %d frames keep the source's packets", copies.frames, len(timeline))
    else:
        logger.warning("--smart_copy: no untouched stretch holds a key frame to begin with, so every frame is encoded")
    return Extras(mark, copies)


def _mark(text: str, video: PreparedVideo, timeline: Timeline, edited: NDArray[np.bool_]) -> Watermark:
    boxes = [video.faces.track_over_video(number).boxes[timeline.rows] for number in range(len(video.faces))]
    shots = np.searchsorted(video.faces.shot_starts, timeline.rows, side="right")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(shots)) + 1])
    times_s = np.asarray(timeline.pts * float(timeline.time_base), np.float64)
    return plan_watermark(text, video.info, times_s, edited, boxes, starts)
