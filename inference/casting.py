"""Who of a video speaks anew, what each says, and when: from a job's words to planned performances."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.adapting import own_motion
from inference.arbitrary_video import Performance, find_or_train_identity, predict_motion
from inference.driving import plan_speech
from inference.face_choice import FaceChoice, chosen_faces, speech_of_faces
from inference.face_sheet import list_faces
from inference.jobs import ArbitraryJob
from inference.output_checks import check_output
from inference.prepared import PreparedSource, PreparedVideo, open_face, open_video
from inference.seen_occluders import judged_by_head, seen_from
from inference.speaking_face import speaking_in
from inference.turning_points import plan_timeline
from modules.commons.device import pick_device
from modules.commons.errors import ConfigError, FitDivergedError, GeneFaceError, NoFaceError, VideoReadError
from modules.commons.progress import Progress
from modules.radnerfs.official import is_portrait
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from modules.structures.timeline import Timeline

logger = logging.getLogger(__name__)

FRAMES_BEFORE_PREVIEW = 64
"""More than colour is felt for."""
Heard = Mapping[Path, tuple[AudioClip, MotionSequence]]
"""Each sound file's speech and the motion predicted from it."""


@dataclass(frozen=True, slots=True)
class FaceList:
    """What ``--list_faces`` asks for.

    Attributes:
        src_video: the video.
        sheet: the PNG's name, with any suffix or none.
        face: which face would be chosen.
    """

    src_video: Path
    sheet: Path
    face: FaceChoice | None

    def __post_init__(self) -> None:
        if not self.src_video.is_file():
            raise VideoReadError(f"{self.src_video}: there is no such video file; check --src_video")
        for path in (self.sheet, self.picture):
            check_output(path, inputs=(self.src_video,), flag="--list_faces", example="faces.png")

    @property
    def picture(self) -> Path:
        """The PNG, whatever suffix was given."""
        return self.sheet.with_suffix(".png")


@dataclass(frozen=True, slots=True, eq=False)
class Cast:
    """A chosen face: its tables, its sound, and bool ``[T]`` the source frames in which it is its turn to speak."""

    source: PreparedSource
    sound: Path
    on: NDArray[np.bool_]


def draw_face_list(job: FaceList, progress: Progress) -> Path:
    """Draw the sheet of a video's faces and say who is there."""
    video = open_video(job.src_video, progress)
    list_faces(video.video, video.faces, job.picture, chosen_faces(job.face, video.faces))
    return job.picture


def listen(job: ArbitraryJob) -> Heard:
    """Read every speech and predict its motion; needs no video, so what is wrong is found out before minutes pass."""
    speeches = {path: load_audio_16k(path) for path in job.drv_aud.paths}
    return {path: (speech, predict_motion(job, speech)) for path, speech in speeches.items()}


def cast_faces(job: ArbitraryJob, video: PreparedVideo, progress: Progress) -> list[Cast]:
    """The chosen faces with their tables.

    Where several are chosen, one that cannot be worked on is left as it is, and said so.

    Raises:
        NoFaceError, FitDivergedError: none can be worked on.
        ConfigError: the choice does not fit the video, or one head is given for several faces.
    """
    wanted = speech_of_faces(job.face, job.drv_aud, video.faces)
    others = len(video.faces) - len(wanted)
    if others:
        are = "one more face is" if others == 1 else f"{others} more faces are"
        logger.info("%s in the video and left as filmed; --list_faces shows who, --face chooses", are)
    on = {number: np.ones(len(video.index), bool) for number, _ in wanted}
    if job.face is not None and job.face.rule == "speaking":
        speaking = speaking_in(video.video, video.faces, [number for number, _ in wanted]).face
        on = {number: speaking == number for number, _ in wanted}
        wanted = tuple((number, path) for number, path in wanted if on[number].any())
    if job.head_ckpt is not None and len(wanted) > 1:
        raise ConfigError(
            f"{job.head_ckpt} is the head of one person, but {len(wanted)} faces are chosen; leave --head_ckpt out or "
            "choose one face"
        )
    casts: list[Cast] = []
    failures: dict[int, GeneFaceError] = {}
    for number, path in wanted:
        try:
            source = seen_from(job.occlusion, open_face(video, number, progress))
            casts.append(Cast(source, path, on[number]))
        except (NoFaceError, FitDivergedError) as error:
            failures[number] = error
    _say_or_raise(failures, found=bool(casts))
    return casts


def asks_the_head(job: ArbitraryJob) -> bool:
    """Whether the trained head judges what is in front: where asked, and by default where rendering it costs little.

    On a CPU it takes as long as the edit itself and moves masks hardly (egs/RESULTS.md). A portrait cannot.
    """
    if job.head_ckpt is not None and is_portrait(job.head_ckpt):
        return False
    return job.occlusion == "head" or (job.occlusion == "auto" and pick_device(job.device).type == "cuda")


def _say_or_raise(failures: Mapping[int, GeneFaceError], *, found: bool) -> None:
    """Say which faces are left as they are; where none is left to work on, the first failure is the job's."""
    if not found:
        raise next(iter(failures.values()))
    for number, failure in failures.items():
        logger.warning("face %d is left as it is: %s", number, failure)


def plan_job_timeline(job: ArbitraryJob, video: PreparedVideo, casts: Sequence[Cast], heard: Heard) -> Timeline:
    """What the output shows when."""
    longest_s = max(heard[cast.sound][0].duration_s for cast in casts)
    seen = [int(cast.source.landmarks.valid.sum()) for cast in casts]
    return plan_timeline(casts[int(np.argmax(seen))].source, video.index, job.times, longest_s)


def rehearse(
    job: ArbitraryJob, video: PreparedVideo, casts: Sequence[Cast], heard: Heard, timeline: Timeline,
    progress: Progress,
) -> list[Performance]:  # fmt: skip
    """Find or train each person and plan the new expression of every output frame.

    Raises:
        NoFaceError: no face shows enough to learn from.
    """
    performances: list[Performance] = []
    failures: dict[int, GeneFaceError] = {}
    for cast in casts:
        try:
            identity = find_or_train_identity(job, cast.source, progress)
        except NoFaceError as error:
            failures[cast.source.face] = error
            continue
        speech, general = heard[cast.sound]
        source = cast.source
        if asks_the_head(job):
            wanted = frames_to_edit(cast, timeline, job.preview)
            source = judged_by_head(source, identity.checkpoint, wanted, job.device, progress)
        motion, adaptation = own_motion(job, source, speech, general)
        plan = plan_speech(
            source,
            motion,
            timeline.rows,
            timeline.speech_s,
            config=job.controls.edit_config(job.fade_s),
            shot_starts=timeline.shot_starts(video.index.shot_starts),
            in_part=timeline.in_part,
            other_speaks=~cast.on[timeline.rows],
            blink_mode=job.controls.blink_mode,
            keeps_jaws=not is_portrait(identity.checkpoint),
        )
        performances.append(Performance(source, identity, plan, cast.sound, speech, motion, adaptation))
    _say_or_raise(failures, found=bool(performances))
    return performances


def frames_to_edit(cast: Cast, timeline: Timeline, preview: int | None = None) -> NDArray[np.bool_]:
    """bool ``[T]``: source frames that may be edited; of a preview, those that its colour depends on."""
    shown = timeline.in_part & cast.on[timeline.rows]
    if preview is not None:
        near = np.arange(len(shown)) - preview
        shown &= (near <= 0) & (near > -FRAMES_BEFORE_PREVIEW)
    wanted = np.zeros(len(cast.source), bool)
    wanted[timeline.rows[shown]] = True
    return wanted
