"""Write sequences: a part of a clip, or of a painted head's video, with something passing before the face.

Writes: ``<name>.mp4`` and ``<name>.truth.npz``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh
from data_gen.utils.evaluate_occlusion.overlay import OccludedFrame, kept_window, occluded_frames, places_of
from data_gen.utils.evaluate_occlusion.specification import SequenceSpec
from data_gen.utils.evaluate_occlusion.truth import SequenceTruth
from modules.commons.errors import VideoReadError
from modules.structures.frames import Frame, VideoInfo
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter

COMMENT = "Made for measuring: a rendered thing passes before the face."
BASE_QUALITY = EncodeConfig(crf=10, preset="veryfast")
"""How the part of a clip is kept that sequences are made from."""


def write_base(clip: Path, start_s: float, seconds: float, out: Path) -> None:
    """Cut a part of a clip, without its sound, its first frame at time 0.

    Raises:
        VideoReadError: when the clip cannot be read or ends before the part is full.
    """
    with VideoReader(clip) as reader, VideoWriter(out, reader.info, quality=BASE_QUALITY, comment=COMMENT) as writer:
        written = 0
        for frame in _part(reader.frames(), start_s, seconds):
            writer.write(frame)
            written += 1
        wanted = int(seconds * float(reader.info.frame_rate)) - 1
        if written < wanted:
            raise VideoReadError(f"{clip}: holds {written} frames from {start_s} s on, {wanted} are needed")


def _part(frames: Iterable[Frame], start_s: float, seconds: float) -> Iterator[Frame]:
    first: Frame | None = None
    for frame in frames:
        time_s = float(frame.time_s)
        if time_s >= start_s + seconds - 1e-6:
            return
        if time_s < start_s - 1e-6:
            continue
        first = first or frame
        yield replace(frame, index=frame.index - first.index, pts=frame.pts - first.pts)


def write_sequence(
    spec: SequenceSpec, base: Path, points: NDArray[np.float32], mesh: HandMesh, folder: Path
) -> SequenceTruth:
    """Put the thing of ``spec`` over a base video and write the result and its truth.

    Args:
        spec: what passes where.
        base: the clean video.
        points: its landmarks ``[T, 478, 2]`` px.
        mesh: the hand.
        folder: where ``<name>.mp4`` and ``<name>.truth.npz`` go.
    """
    with VideoReader(base) as reader:
        info = reader.info
        frame_time_s = 1 / float(info.frame_rate)
        masks = _write_video(
            folder / f"{spec.name}.mp4",
            info,
            occluded_frames(reader.frames(), points, spec, mesh, frame_time_s),
            spec.crf,
        )
    bounds = np.array(kept_window(places_of(points), (info.height, info.width)))
    truth = SequenceTruth(np.stack(masks), bounds, points[: len(masks)], spec.is_thin, spec.kind)
    truth.save(folder / f"{spec.name}.truth.npz")
    return truth


def _write_video(path: Path, info: VideoInfo, frames: Iterable[OccludedFrame], crf: int) -> list[NDArray[np.uint8]]:
    masks = []
    with VideoWriter(path, info, quality=EncodeConfig(crf=crf, preset="veryfast"), comment=COMMENT) as writer:
        for occluded in frames:
            writer.write(occluded.frame)
            masks.append(occluded.mask)
    return masks
