"""What a portrait is to do: expressions of a speech, and head poses from its clip or from another video.

Reads: audio-to-motion networks, feature extractors, a driving video (tracked like any other, cached by content).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.features import build_extractor
from data_gen.utils.process_audio.front_end import prepare_speech
from inference.adapting import own_motion
from inference.audio_to_motion import sample_motion
from inference.blinks import eyes_open, with_blinks
from inference.driving import MOUTH_ROWS, SMILE_ROWS, speech_motion
from inference.drv_pose import pose_video
from inference.edit_plan import SourceMotion, plan_edits
from inference.jobs import ClassicJob
from inference.official_motion import official_features
from inference.person_clip import FRAME_RATE, pose_rows, prepared_clip
from inference.prepared import open_source
from modules.audio2motion.motion_space import rest_expression
from modules.audio2motion.official import is_official_motion, load_official
from modules.commons.errors import ConfigError
from modules.commons.progress import Progress
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.face_model.portrait_face import is_bfm
from modules.postnet.soft_clamp import soft_clamp
from modules.radnerfs.portrait_motion import HeadPoses
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from modules.structures.portrait_dataset import PortraitDataset
from modules.structures.spans import Reason
from tasks.audio2motion.losses import opening_effect

logger = logging.getLogger(__name__)

OFFICIAL_MOUTH_AMP = 0.4
"""What GeneFace++ infers with; ``--mouth_amp`` multiplies it, so 1 is its default here too."""
POSE_MARGIN = 0.05
"""Followed heads may leave what the person's clip shows by so much, rad and dm."""


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """One row per output frame.

    Attributes:
        expression: ``[T, E]`` of the clip's face model.
        rows: int64 ``[T]`` of the person's clip: whose eyes, background and, without ``poses``, head are shown.
        poses: where the head is instead; None = as in the clip.
    """

    expression: NDArray[np.float32]
    rows: NDArray[np.int64]
    poses: HeadPoses | None = None

    def __post_init__(self) -> None:
        lengths = {len(self.expression), len(self.rows), len(self.rows if self.poses is None else self.poses)}
        if len(lengths) != 1:
            raise ValueError(f"a performance of {sorted(lengths)} frames")

    def __len__(self) -> int:
        return len(self.rows)


def perform(
    job: ClassicJob, dataset: PortraitDataset, space: VideoWorkspace, speech: AudioClip, progress: Progress
) -> Performance:
    """What the person of a clip does to say a speech.

    Args:
        job: how.
        dataset: the clip.
        space: where it lies; its tables tell how the person speaks.
        speech: what is said.
        progress: told about preparing a driving video.

    Raises:
        GeneFaceError: a network, the sound or the driving video cannot be used.
    """
    driving = pose_video(job.drv_pose)
    frames = "nearest" if driving is not None else job.drv_pose
    official = official_expression(job, speech, dataset.video_id) if is_bfm(dataset) else None
    count = max(1, math.ceil(speech.duration_s * FRAME_RATE - 1e-6)) if official is None else len(official)
    rows = pose_rows(frames, np.arange(len(dataset)) / FRAME_RATE, count)
    expression = own_expression(job, speech, dataset, space, rows) if official is None else official
    if driving is None:
        return Performance(expression, rows)
    source = open_source(driving, progress)
    seen = pose_rows("nearest", source.times_s, count)
    found = HeadPoses(source.coeffs.euler[seen], source.coeffs.translation[seen])
    return Performance(expression, rows, followed(found, HeadPoses.of_rows(dataset, slice(None))))


def official_expression(job: ClassicJob, speech: AudioClip, who: str) -> NDArray[np.float32]:
    """BFM expressions ``[T, 64]`` at 25 Hz for a speech, by the network that ``--a2m_ckpt`` names.

    Raises:
        ConfigError: it names none of GeneFace++'s, which alone speak BFM's coefficients.
        GeneFaceError: the network, HuBERT or the sound cannot be used.
    """
    if job.a2m_ckpt is None or not is_official_motion(job.a2m_ckpt):
        raise ConfigError(
            f"{job.head_ckpt} is a portrait of {who} in BFM2009's coefficients, which needs GeneFace++'s own "
            "audio-to-motion network; give --a2m_ckpt its audio2motion_vae folder"
        )
    network = load_official(job.a2m_ckpt)
    heard = prepare_speech(speech)
    for sentence in heard.warnings:
        logger.warning("driving sound: %s", sentence)
    pitch = build_extractor("f0") if network.hears_pitch else None
    rows, f0_hz = official_features(heard.clip, build_extractor("hubert"), pitch)
    return network.predict(
        rows,
        f0_hz,
        temperature=job.temperature,
        mouth_amp=OFFICIAL_MOUTH_AMP * job.mouth_amp,
        generator=torch.Generator().manual_seed(job.seed),
    )


def own_expression(
    job: ClassicJob, speech: AudioClip, dataset: PortraitDataset, space: VideoWorkspace, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Expressions ``[T, E]`` of the embedded face model: the speech's mouth on the faces of clip rows ``[T]``.

    Raises:
        GeneFaceError: the network or the sound cannot be used.
    """
    motion = _own_way(job, speech, space, speech_motion(job, speech, dataset.face_model_version))
    times_s = np.arange(len(rows)) / FRAME_RATE
    shown = clip_motion(dataset, rows)
    plan = plan_edits(
        shown, motion, sample_motion(motion, times_s), mouth_units=MOUTH_ROWS, smile_units=SMILE_ROWS,
        config=job.controls.edit_config(0.0),
    )  # fmt: skip
    return with_blinks(plan.expression, times_s, job.controls.blink_mode, eyes_open(dataset.expression))


def _own_way(job: ClassicJob, speech: AudioClip, space: VideoWorkspace, general: MotionSequence) -> MotionSequence:
    """The motion as this person would speak, where the clip's tables and sound are still there to learn it from."""
    if job.controls.adapt == "off":
        return general
    source = prepared_clip(space)
    if source is None:
        level = logging.WARNING if job.controls.adapt == "on" else logging.INFO
        logger.log(level, "%s speaks as anybody would: its prepared tables are not there", space.video_id)
        return general
    return own_motion(job, source, speech, general)[0]


def clip_motion(dataset: PortraitDataset, rows: NDArray[np.int64]) -> SourceMotion:
    """A portrait's clip as the stage of new speech: every frame of it can be rendered anew."""
    model = FaceModel.load(FACE_MODEL_FILE).corrected(dataset.correction)
    opening = dataset.expression @ opening_effect(model).numpy()
    return SourceMotion(
        times_s=np.arange(len(rows)) / FRAME_RATE,
        expression=dataset.expression[rows],
        opening=opening[rows].astype(np.float32),
        reasons=(Reason.EDITED,) * len(rows),
        bridgeable=np.ones(len(rows), bool),
        rest=rest_expression(dataset.expression, opening),
    )


def followed(seen: HeadPoses, own: HeadPoses) -> HeadPoses:
    """Another head's movement ``[N]`` as that of this person, whose clip has ``own`` poses ``[T]``.

    The person's usual pose stands for the other's; what differs from it is kept, in rad and dm, and drawn in softly
    where it leaves what the clip shows: a head that was filmed from the front has no back.
    """

    def moved(theirs: NDArray[np.float32], ours: NDArray[np.float32]) -> NDArray[np.float32]:
        wanted = theirs - np.median(theirs, axis=0) + np.median(ours, axis=0)
        low, high = torch.from_numpy(ours.min(axis=0)), torch.from_numpy(ours.max(axis=0))
        return soft_clamp(torch.from_numpy(wanted.astype(np.float32)), low, high, POSE_MARGIN).numpy()

    return HeadPoses(moved(seen.euler, own.euler), moved(seen.translation, own.translation))
