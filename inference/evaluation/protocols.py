"""The protocols: which frames are tested, which rows stand beside the result, and what drives each.

* self-reenactment: held-out frames of the video, driven by what was tracked in them and by the video's own speech.
* dubbing: foreign speech; there is no picture of the truth.
* leakage: silence and the video's own speech reversed; the lips must not follow the source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.arbitrary_video import plan_video, predict_motion
from inference.driving import MOUTH_ROWS
from inference.edit_plan import EditPlan
from inference.evaluation.motion import (
    driven_landmarks,
    frame_outcomes,
    full_plan,
    mean_mouth,
    resting_mouth,
    reversed_speech,
    rolled,
    speech_track,
    tracked_later,
    with_mouth,
)
from inference.evaluation.painters import PersonPainter, RetrievalPainter
from inference.evaluation.persons import Person
from inference.evaluation.trials import RowPlan, Stretch, paint_trial
from inference.filmed_mouths import filmed_mouths_for
from inference.frame_editor import FrameEditor
from inference.jobs import EvaluationJob
from inference.motion_to_frames import IdentityRenderer
from inference.person_blender import blender_for
from inference.prepared import PreparedSource
from modules.commons.progress import Progress
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from tasks.radnerfs.retrieval import RetrievalBaseline

SHIFT_S = 2.0
LEAKAGE_S = 20.0
"""Seconds of a clip that are dubbed with silence and with reversed speech."""
OF_SOURCE = "the video itself, untouched"
RETRIEVED = "the training frame nearest in lip shape, warped onto the {}"
NO_SPEECH = "the video has no speech of its own, or it was not to be used"
RENDERED_ONLY = (
    "Blended with alpha: delta transfer changes a frame's own pixels, which here are the true picture of what is asked "
    "for. What delta is worth shows where frames get other frames' motion."
)
NO_TRUTH = "There is no true picture of these lips, so no row is compared with one."


class Cast:
    """The persons of a trial, one per block, and the rows they can play.

    Args:
        job: how frames are repainted.
        source: the clip.
        persons: by block.
        progress: told when a person's blender has to be trained.
    """

    def __init__(
        self, job: EvaluationJob, source: PreparedSource, persons: Sequence[Person], progress: Progress
    ) -> None:
        self._job = job
        self._source = source
        self._persons = persons
        self._renderers = [IdentityRenderer(p.checkpoint, source.face_model, job.device) for p in persons]
        self._blenders = [
            blender_for(job, source, person.checkpoint, renderer, progress, person.learnt_rows)
            for person, renderer in zip(persons, self._renderers, strict=True)
        ]
        self._mouths = [filmed_mouths_for(job, source, progress, person.learnt_rows) for person in persons]
        self._baselines = {
            block: RetrievalBaseline(p.dataset, np.flatnonzero(p.dataset.is_train)) for block, p in enumerate(persons)
        }

    def play(self, plan: EditPlan, *, lle_percent: float) -> PersonPainter:
        """A painter that gives every block's frames the plan's expression."""
        options = replace(self._job, lle_percent=lle_percent)
        editors = [
            FrameEditor(options, self._source, renderer, plan, blender=blender, mouths=mouths)
            for renderer, blender, mouths in zip(self._renderers, self._blenders, self._mouths, strict=True)
        ]
        return PersonPainter(dict(enumerate(editors)))

    def acted(self, name: str, about: str, expression: NDArray[np.float32], *, tracked: bool = False) -> RowPlan:
        """A result or a reference played by the persons at full strength on every frame that can be edited."""
        painter = self.play(full_plan(self._source, expression), lle_percent=0.0 if tracked else self._job.lle_percent)
        return RowPlan(name, about, painter=painter, expression=expression)

    def retrieved(self, name: str, about: str, wanted: NDArray[np.float32]) -> RowPlan:
        """The retrieval baseline for landmarks ``[T, 478, 2]``."""
        # a learned blender knows renderings only
        mode = "alpha" if self._job.blend_mode == "neural" else self._job.blend_mode
        painter = RetrievalPainter(self._baselines, wanted, self._source.crops, mode)
        return RowPlan(name, about, painter=painter)

    def still(self) -> list[RowPlan]:
        """Two mouths that never move."""
        mean = with_mouth(self._source, mean_mouth(self._source, self._persons[0].learnt_rows))
        for person in self._persons:  # what a person has not seen is not in its mean either
            held_out = np.flatnonzero(person.split.is_held_out)
            mean[np.ix_(held_out, MOUTH_ROWS)] = mean_mouth(self._source, person.learnt_rows)
        shut = with_mouth(self._source, resting_mouth(self._source))
        return [
            self.acted("static mean mouth", "the mean mouth of the training frames on every frame", mean, tracked=True),
            self.acted("closed mouth", "this person's lips at rest on every frame", shut, tracked=True),
        ]


def self_reenactment(
    name: str,
    job: EvaluationJob,
    source: PreparedSource,
    persons: Sequence[Person],
    speech: tuple[AudioClip, MotionSequence] | None,
    folder: Path,
    progress: Progress,
    notes: Sequence[str],
) -> Path:
    """Paint the held-out frames of ``persons``, one block each, in all the ways that say what a figure is worth."""
    if job.blend_mode == "delta":
        job, notes = replace(job, blend_mode="alpha"), (*notes, RENDERED_ONLY)
    cast = Cast(job, source, persons, progress)
    held_out = [np.flatnonzero(person.split.is_held_out) for person in persons]
    block = np.concatenate([np.full(len(rows), number) for number, rows in enumerate(held_out)])
    stretch = Stretch(np.concatenate(held_out), block, frame_outcomes(source))
    tracked = source.coeffs.expression
    plans = [
        RowPlan("ground truth", OF_SOURCE),
        replace(cast.acted("landmark-driven", "tracked motion of these frames", tracked, tracked=True), is_result=True),
    ]
    if speech is not None:
        plans += _driven_by_speech(cast, source, speech[1])
    plans.append(cast.retrieved("retrieval", RETRIEVED.format("true landmarks"), source.landmarks.points))
    plans += [
        *cast.still(),
        _shifted(cast, source, speech),
        RowPlan("previous true frame", "the frame before", frames_late=1),
    ]
    track = speech_track(*speech) if speech else None
    return paint_trial(name, "self-reenactment", source, stretch, plans, track, folder, progress, notes)


def _driven_by_speech(cast: Cast, source: PreparedSource, motion: MotionSequence) -> list[RowPlan]:
    heard = plan_video(source, motion).expression
    acted = cast.acted("audio-driven", "the video's own speech, nothing else of these frames' lips", heard)
    points = driven_landmarks(source, heard)
    return [
        replace(acted, is_result=True),
        cast.retrieved("retrieval, audio-driven", RETRIEVED.format("landmarks the speech asks for"), points),
    ]


def _shifted(cast: Cast, source: PreparedSource, speech: tuple[AudioClip, MotionSequence] | None) -> RowPlan:
    if speech is None:
        moved = tracked_later(source, SHIFT_S)
        return cast.acted("motion shifted by 2 s", "tracked motion of two seconds before", moved, tracked=True)
    moved = plan_video(source, rolled(speech[1], SHIFT_S)).expression
    return cast.acted("speech shifted by 2 s", "the video's own speech, heard two seconds late", moved)


def dubbing(
    job: EvaluationJob, source: PreparedSource, person: Person, speech: tuple[AudioClip, MotionSequence],
    folder: Path, progress: Progress, name: str = "dubbing",
) -> Path:  # fmt: skip
    """Paint the video under foreign speech, as a job does, beside mouths that do not follow it."""
    sound, motion = speech
    plan = plan_video(source, motion)
    rows = np.arange(max(1, int(np.searchsorted(source.times_s, sound.duration_s))))
    stretch = Stretch(rows, np.zeros(len(rows), np.int64), plan.reasons)
    cast = Cast(job, source, [person], progress)
    dubbed = RowPlan(
        "dubbed", "the new speech, as a job makes it", is_result=True,
        painter=cast.play(plan, lle_percent=job.lle_percent), expression=plan.expression,
    )  # fmt: skip
    late = plan_video(source, rolled(motion, SHIFT_S)).expression
    plans = [
        RowPlan("source", OF_SOURCE),
        dubbed,
        cast.retrieved(
            "retrieval", RETRIEVED.format("landmarks the speech asks for"), driven_landmarks(source, plan.expression)
        ),
        *cast.still(),
        cast.acted("speech shifted by 2 s", "the new speech, two seconds late", late),
    ]
    notes = (f"{NO_TRUTH} The previous true frame has no meaning here.",)
    return paint_trial(name, "dubbing", source, stretch, plans, speech_track(*speech), folder, progress, notes)


def leakage(
    job: EvaluationJob, source: PreparedSource, person: Person, speech: AudioClip | None,
    folder: Path, progress: Progress,
) -> Path:  # fmt: skip
    """Paint the clip's start under silence, and under its own speech reversed."""
    rows = np.flatnonzero(source.times_s < LEAKAGE_S)
    stretch = Stretch(rows, np.zeros(len(rows), np.int64), frame_outcomes(source))
    cast = Cast(job, source, [person], progress)
    shut = with_mouth(source, resting_mouth(source))
    silence = replace(cast.acted("dubbed with silence", "no speech at all", shut), is_result=True)
    plans = [RowPlan("source", OF_SOURCE), silence]
    notes = []
    if speech is None:
        notes.append(f"Dubbed with reversed speech: not measured, {NO_SPEECH}.")
    else:
        motion = predict_motion(job, reversed_speech(speech))
        heard = plan_video(source, motion).expression
        backwards = cast.acted("dubbed with reversed speech", "the video's own speech played backwards", heard)
        plans.append(replace(backwards, is_result=True))
    return paint_trial("leakage", "leakage", source, stretch, plans, None, folder, progress, notes)
