"""Which editor a face gets: one that puts new lips into the clip, or one that shows a whole portrait."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.edit_plan import EditPlan
from inference.edited_frames import Editor
from inference.filmed_mouths import filmed_mouths_for
from inference.frame_editor import FrameEditor
from inference.jobs import ArbitraryJob
from inference.motion_to_frames import IdentityRenderer
from inference.person_blender import blender_for
from inference.portrait_editor import PortraitEditor
from inference.prepared import PreparedSource
from modules.commons.progress import Progress
from modules.radnerfs.official import is_portrait
from modules.video.restoration import load_restorer


def face_editor(
    job: ArbitraryJob, source: PreparedSource, checkpoint: Path, plan: EditPlan, rows: NDArray[np.int64],
    progress: Progress,
) -> Editor:  # fmt: skip
    """The editor of one face.

    Args:
        job: what was asked for.
        source: the prepared face.
        checkpoint: its person, or a portrait.
        plan: what is said when.
        rows: int64 ``[N]`` the clip's row of each output frame.
        progress: told about training, where a blend mode needs some.

    Raises:
        GeneFaceError: the checkpoint, the post-net or the restorer cannot be read.
    """
    if is_portrait(checkpoint):
        return PortraitEditor(job, source, checkpoint, plan, rows, job.device)
    renderer = IdentityRenderer(checkpoint, source.face_model, job.device, postnet_ckpt=job.controls.postnet_ckpt)
    restorer = None if job.restore is None else load_restorer(job.restore, renderer.person.device)
    blender = blender_for(job, source, checkpoint, renderer, progress)
    mouths = filmed_mouths_for(job, source, progress)
    return FrameEditor(job, source, renderer, plan, rows, restorer, blender, mouths)
