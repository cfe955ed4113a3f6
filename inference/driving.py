"""What both commands share: a prepared clip's tables, and the plan that puts new speech on its performance."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.features import build_extractor
from inference.audio_to_motion import AudioToMotion, sample_motion
from inference.blinks import eyes_open, with_blinks
from inference.controls import BlinkMode
from inference.edit_plan import EditConfig, EditPlan, SourceMotion, plan_edits
from inference.jobs import SpeechOptions
from inference.kept_jaws import with_kept_jaws
from inference.motion_to_frames import IdentityRenderer
from inference.official_motion import OfficialMotion
from inference.prepared import PreparedSource
from inference.seen_mouths import within_seen
from inference.usable_faces import CLEAN_COVER, MAX_RESIDUAL
from modules.audio2motion.motion_space import rest_expression
from modules.audio2motion.official import is_official_motion, load_official
from modules.commons.workspace import AUDIO2MOTION_DIR, FACE_MODEL_FILE, WHISPER_FILE
from modules.face_model.bfm import BfmModel
from modules.face_model.model import ARKIT_NAMES, MOUTH_UNITS, FaceModel
from modules.postnet.person_motion import PersonMotion
from modules.structures.audio import AudioClip
from modules.structures.crops import CropMetadata, mask_elsewhere
from modules.structures.landmarks import lip_opening
from modules.structures.masks import OcclusionMask, OcclusionTable
from modules.structures.motion import MotionSequence
from modules.structures.protected_area import protected_in_crop
from modules.video.reader import VideoReader
from modules.video.sound import AudioTrack

MOUTH_ROWS = np.array([ARKIT_NAMES.index(name) for name in MOUTH_UNITS])
SMILE_ROWS = np.array(
    [ARKIT_NAMES.index(f"mouth{kind}{side}") for kind in ("Smile", "Frown") for side in ("Left", "Right")]
)


def speech_motion(options: SpeechOptions, speech: AudioClip, face_model_version: str) -> MotionSequence:
    """Speech to the deviation of anybody's mouth from rest: 50 Hz, or 25 by an official checkpoint of GeneFace++.

    Raises:
        GeneFaceError: the checkpoint, or what it needs, is missing or wrong.
    """
    if options.a2m_ckpt is not None and is_official_motion(options.a2m_ckpt):
        return _official_motion(options, options.a2m_ckpt, speech)
    return spoken(speech_predictor(options, face_model_version), options, speech)


def _official_motion(options: SpeechOptions, checkpoint: Path, speech: AudioClip) -> MotionSequence:
    network = load_official(checkpoint)
    pitch = build_extractor("f0") if network.hears_pitch else None
    model = FaceModel.load(FACE_MODEL_FILE)
    official = OfficialMotion(network, build_extractor("hubert"), pitch, model, BfmModel.load())
    return official.predict(
        speech,
        temperature=options.temperature,
        mouth_amp=options.mouth_amp,
        generator=torch.Generator().manual_seed(options.seed),
    )


def speech_predictor(options: SpeechOptions, face_model_version: str) -> AudioToMotion:
    """The audio → motion model that a job asks for."""
    return AudioToMotion(options.a2m_ckpt or AUDIO2MOTION_DIR, WHISPER_FILE, face_model_version)


def spoken(
    predictor: AudioToMotion, options: SpeechOptions, speech: AudioClip, person: PersonMotion | None = None
) -> MotionSequence:
    """What a speech does to the mouth: anybody's, or one person's."""
    return predictor.predict(
        speech,
        temperature=options.temperature,
        mouth_amp=options.mouth_amp,
        generator=torch.Generator().manual_seed(options.seed),
        silence=options.controls.silence,
        person=person,
    )


def plan_speech(
    source: PreparedSource,
    motion: MotionSequence,
    rows: NDArray[np.int64],
    times_s: NDArray[np.float64],
    *,
    config: EditConfig | None = None,
    shot_starts: NDArray[np.int64] | None = None,
    in_part: NDArray[np.bool_] | None = None,
    other_speaks: NDArray[np.bool_] | None = None,
    blink_mode: BlinkMode = "source",
    keeps_jaws: bool = True,
) -> EditPlan:
    """The new expression of every frame of a performance.

    Args:
        source: the clip that is performed.
        motion: what the speech does to the mouth.
        rows: ``[N]`` clip row that each output frame shows.
        times_s: ``[N]`` rising, seconds of the speech at which it shows it.
        config: see ``EditConfig``; None = its defaults.
        shot_starts: ascending output frames that begin a shot; None = one shot.
        in_part: bool ``[N]`` output frames that may be edited; None = all.
        other_speaks: bool ``[N]`` output frames that are another face's turn; None = none.
        blink_mode: see ``with_blinks``.
        keeps_jaws: the frames' own necks stay in the picture, see ``with_kept_jaws``.
    """
    config = config or EditConfig()
    tracked = source_motion(source, rows, times_s, config.max_residual)
    sampled = sample_motion(motion, times_s)
    plan = plan_edits(
        tracked, motion, sampled, mouth_units=MOUTH_ROWS, smile_units=SMILE_ROWS, config=config,
        shot_starts=shot_starts, in_part=in_part, other_speaks=other_speaks,
    )  # fmt: skip
    open_eyes = eyes_open(source.coeffs.expression[source.coeffs.valid])
    expression = within_seen(source, plan.expression, tracked.rest, MOUTH_ROWS)
    if keeps_jaws:
        expression = with_kept_jaws(source, expression, tracked.expression)
    return replace(plan, expression=with_blinks(expression, times_s, blink_mode, open_eyes))


def source_motion(
    source: PreparedSource,
    rows: NDArray[np.int64],
    times_s: NDArray[np.float64],
    max_residual: float = MAX_RESIDUAL,
) -> SourceMotion:
    """What was tracked in clip rows ``[N]``, shown at ``times_s`` ``[N]``; the mouth at rest is the whole clip's."""
    cover = source.occlusion.coverage
    opening = np.where(source.landmarks.valid, lip_opening(source.landmarks.points), np.nan).astype(np.float32)
    clean = source.coeffs.valid & (cover < CLEAN_COVER)
    seen = clean if clean.any() else source.coeffs.valid
    reasons = source.evidence.reasons(max_residual)
    return SourceMotion(
        times_s=times_s,
        expression=source.coeffs.expression[rows],
        opening=opening[rows],
        reasons=tuple(reasons[row] for row in rows),
        bridgeable=source.evidence.bridgeable(max_residual)[rows],
        rest=rest_expression(source.coeffs.expression[seen], opening[seen]),
    )


def speech_start_s(speech: Path) -> Fraction:
    """How long after its file's start speech begins, 0 or more.

    Motion is predicted on the clock of the speech file, in which sound may begin late (a video's often does); it must
    begin as late after the output's first frame.
    """
    with av.open(str(speech)) as container:
        stream = container.streams.audio[0]
        begins_s = Fraction(stream.start_time or 0) * (stream.time_base or 1)
        return max(begins_s - Fraction(container.start_time or 0, av.time_base), Fraction(0))


def speech_track(speech: Path, video: Path | None = None) -> AudioTrack:
    """The speech as the sound of an output whose picture begins as that of ``video`` (at 0 when None)."""
    late_s = speech_start_s(speech)
    if late_s <= 0:
        return AudioTrack(speech)
    picture_s = Fraction(0)
    if video is not None:
        with VideoReader(video) as reader:
            picture_s = next(reader.frames()).time_s
    return AudioTrack(speech, start_s=max(picture_s + late_s, Fraction(0)))


def end_rays_at(renderer: IdentityRenderer, threshold: float) -> None:
    """Let rays of a person with an occupancy grid end below this transmittance; surface samplers have no such end."""
    field = renderer.person.radnerf
    field.config = replace(field.config, render=replace(field.config.render, t_thresh=threshold))


def occlusion_in(
    source: PreparedSource, row: int, dst_from_frame: NDArray[np.float64], size_wh: tuple[int, int]
) -> OcclusionMask | None:
    """What must not be painted over in clip row ``row``, seen in an image of ``size_wh``; None = all may be.

    Args:
        source: the clip.
        row: clip row.
        dst_from_frame: ``[3, 3]`` map of continuous frame pixels to that image's; it counts as its own frame.
        size_wh: of that image.
    """
    values = protected_in_crop(source.occlusion, source.hands, row, source.shot_starts)
    if values is None:
        return None
    placed = mask_elsewhere(values, source.crops.region(row), dst_from_frame, size_wh)
    return OcclusionMask(placed, "frame", np.zeros((0, 21, 2), np.float32))


def occluder_in_frame(
    table: OcclusionTable, crops: CropMetadata, row: int, size_wh: tuple[int, int]
) -> NDArray[np.float32] | None:
    """How likely something is in front of the face at each pixel of frame ``row``; None = nothing is there."""
    stored = table.stored_mask(row)
    if stored is None:
        return None
    return mask_elsewhere(stored.astype(np.float32) / np.float32(255), crops.region(row), np.eye(3), size_wh)
