"""What drives the rows of a trial: expressions per frame, the lips they ask for, and the speech they should follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.resample_audio_to_16k import file_start_s, load_audio_16k
from data_gen.utils.process_audio.vad import RATE_HZ, detect_speech, frame_level_db
from inference.driving import MOUTH_ROWS, source_motion
from inference.edit_plan import EditPlan
from inference.prepared import PreparedSource
from modules.face_model.model import FaceModel
from modules.face_model.projection import project
from modules.radnerfs.surface import FacePose, project_mesh
from modules.structures.audio import AudioClip
from modules.structures.evaluation import SpeechTrack
from modules.structures.landmarks import JAW_LINE, lip_opening
from modules.structures.motion import MotionSequence
from modules.structures.spans import Reason, SpanTable
from modules.video.reader import VideoReader


def frame_outcomes(source: PreparedSource) -> list[Reason]:
    """Per frame of the clip: whether its face can be repainted, or why not; what every job goes by, too."""
    return list(source.evidence.reasons())


def full_plan(source: PreparedSource, expression: NDArray[np.float32]) -> EditPlan:
    """Repaint every frame that can be, at full strength: no fades and no pauses that would show the truth."""
    outcomes = frame_outcomes(source)
    strength = np.array([outcome is Reason.EDITED for outcome in outcomes], np.float32)
    return EditPlan(expression, SpanTable(strength, tuple(outcomes)))


def with_mouth(source: PreparedSource, mouth: NDArray[np.float32]) -> NDArray[np.float32]:
    """The tracked expression ``[T, E]`` with other mouth units, ``[M]`` for all frames or ``[T, M]``."""
    expression = source.coeffs.expression.copy()
    expression[:, MOUTH_ROWS] = mouth
    return expression


def mean_mouth(source: PreparedSource, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean mouth units ``[M]`` over clip rows: lips that hit the average and never move."""
    return source.coeffs.expression[rows][:, MOUTH_ROWS].mean(axis=0)


def resting_mouth(source: PreparedSource) -> NDArray[np.float32]:
    """Mouth units ``[M]`` of this person with the lips shut."""
    rows = np.arange(len(source))
    return source_motion(source, rows, source.times_s).rest[MOUTH_ROWS]


def tracked_later(source: PreparedSource, late_s: float) -> NDArray[np.float32]:
    """The tracked expression ``[T, E]`` of ``late_s`` before each frame; the clip's end comes before its start."""
    frame_s = float(np.median(np.diff(source.times_s)))
    wanted_s = (source.times_s - late_s) % (source.times_s[-1] + frame_s)
    rows = np.searchsorted(source.times_s, wanted_s - frame_s / 2) % len(source)  # the nearest frame
    return with_mouth(source, source.coeffs.expression[rows][:, MOUTH_ROWS])


def rolled(motion: MotionSequence, late_s: float) -> MotionSequence:
    """The same motion ``late_s`` later; its end comes before its start."""
    shift = round(late_s * motion.rate_hz)
    opening = None if motion.opening is None else np.roll(motion.opening, shift)
    return replace(
        motion,
        expression=np.roll(motion.expression, shift, axis=0),
        is_speech=np.roll(motion.is_speech, shift),
        opening=opening,
    )


def model_opening(source: PreparedSource, expression: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[T]`` lip opening of the face model under ``expression [T, E]``, in inter-ocular units."""
    points = source.face_model.landmarks(torch.from_numpy(source.coeffs.identity), torch.from_numpy(expression))
    return lip_opening(points.numpy()).astype(np.float32)


def projected_landmarks(source: PreparedSource, expression: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[T, 478, 2]`` where the fitted head's landmarks stand in the frame under ``expression [T, E]``, px."""
    coeffs = source.coeffs
    points = source.face_model.landmarks(torch.from_numpy(coeffs.identity), torch.from_numpy(expression))
    pixels, _ = project(points, torch.from_numpy(coeffs.euler), torch.from_numpy(coeffs.translation), coeffs.camera)
    return pixels.numpy().astype(np.float32)


def driven_landmarks(source: PreparedSource, expression: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[T, 478, 2]`` the detected landmarks, moved as the face model moves from what is tracked to ``expression``."""
    moved = projected_landmarks(source, expression) - projected_landmarks(source, source.coeffs.expression)
    return (source.landmarks.points + moved).astype(np.float32)


def jaw_gap_px(source: PreparedSource, expression: NDArray[np.float32]) -> NDArray[np.float32]:
    """``[T]`` largest distance between the jaw contours of the source's pose and of ``expression``, px."""
    jaw = list(JAW_LINE)
    old = projected_landmarks(source, source.coeffs.expression)[:, jaw]
    gap = np.linalg.norm(projected_landmarks(source, expression)[:, jaw] - old, axis=2)
    return gap.max(axis=1).astype(np.float32)


def speech_track(speech: AudioClip, motion: MotionSequence) -> SpeechTrack:
    """What a trial needs to know of its speech; ``motion`` was predicted from it."""
    if motion.opening is None or motion.rate_hz != RATE_HZ:
        raise ValueError(f"motion must know its lip opening at {RATE_HZ} Hz, got {motion.rate_hz} Hz")
    level, active = frame_level_db(speech), detect_speech(speech)
    count = min(len(level), len(active), len(motion))
    opening = motion.opening[:count].astype(np.float32)
    return SpeechTrack(opening, level[:count].astype(np.float32), active[:count], float(RATE_HZ), speech)


def own_speech(video: Path) -> AudioClip:
    """The video's own sound on its picture's clock: sample 0 stands at the first frame.

    Raises:
        AudioReadError: the video has no sound that can be used.
    """
    clip = load_audio_16k(video)
    with VideoReader(video) as reader:
        first_s = float(next(reader.frames()).time_s)
    late = round((first_s - file_start_s(video)) * clip.sample_rate_hz)
    samples = clip.samples[late:] if late >= 0 else np.pad(clip.samples, (-late, 0))
    return AudioClip(np.ascontiguousarray(samples), clip.sample_rate_hz)


def reversed_speech(speech: AudioClip) -> AudioClip:
    """Speech played backwards: as loud and as lively, at no moment what the source's lips say."""
    return AudioClip(np.ascontiguousarray(speech.samples[::-1]), speech.sample_rate_hz)


def lower_face_px(source: PreparedSource, row: int, expression: NDArray[np.float32], triangles: NDArray) -> float:
    """Pixels of frame ``row`` under the projected lower face of the source's pose or of ``expression [E]``.

    Args:
        source: the clip.
        row: clip row.
        expression: the new one.
        triangles: ``lower_face_triangles``.
    """
    coeffs = source.coeffs
    covered = np.zeros((coeffs.camera.height, coeffs.camera.width), np.uint8)
    for shown in (coeffs.expression[row], expression):
        pose = FacePose(coeffs.identity, shown, coeffs.euler[row], coeffs.translation[row])
        pixels = project_mesh(source.face_model, pose, coeffs.camera.matrix()).pixels
        for triangle in np.round(pixels[triangles] * 16).astype(np.int32):
            cv2.fillConvexPoly(covered, triangle - 8, 1, shift=4)
    return float(covered.sum())


def lower_face_triangles(face_model: FaceModel) -> NDArray[np.int64]:
    """Triangles ``[F, 3]`` of the lower face."""
    inside = face_model.region_weights["lower_face"].numpy() > 0
    triangles = face_model.triangles.numpy()
    return triangles[inside[triangles].all(axis=1)]
