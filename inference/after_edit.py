"""What is written once a result has its name: where it comes from, and a strip of mouths beside the source's."""

from __future__ import annotations

from collections.abc import Sequence

from inference.arbitrary_video import Performance
from inference.comparison import ShownMouth, mouth_strip
from inference.extras import Extras
from inference.jobs import ArbitraryJob
from inference.prepared import PreparedVideo
from inference.provenance import EditedFace, Model, Provenance
from modules.commons.workspace import AUDIO2MOTION_DIR
from modules.structures.timeline import Timeline
from modules.video.png import write_png


def finish_result(
    job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance], extras: Extras
) -> Provenance:
    """Write the strip of mouths where a comparison was asked for, and the result's provenance.

    Raises:
        GeneFaceError: the result cannot be read, or a file cannot be written.
    """
    if job.file.strip is not None:
        mouths = [ShownMouth(part.source.landmarks, part.plan.edited) for part in performances]
        strip = mouth_strip(video.video, job.out_name, timeline, mouths)
        if strip is not None:
            write_png(strip, job.file.strip)
    record = provenance_of(job, video, timeline, performances, extras)
    record.write()
    return record


def provenance_of(
    job: ArbitraryJob, video: PreparedVideo, timeline: Timeline, performances: Sequence[Performance], extras: Extras
) -> Provenance:
    """The record of a finished job."""
    models = [Model("audio to motion", job.a2m_ckpt or AUDIO2MOTION_DIR)]
    models += [Model(f"person of face {part.source.face}", part.identity.checkpoint) for part in performances]
    if job.controls.postnet_ckpt is not None:
        models.append(Model("post-net", job.controls.postnet_ckpt))
    return Provenance(
        output=job.out_name,
        source=(video.video, video.sha256),
        timeline=timeline,
        faces=tuple(EditedFace(part.source.face, part.sound, part.plan.spans) for part in performances),
        models=tuple(models),
        options=job,
        copied_frames=extras.copied_frames,
        watermark=job.file.watermark,
    )
