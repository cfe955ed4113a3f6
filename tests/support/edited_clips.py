"""Small real clips for editing: the demo people at a quarter of their area, alone, side by side, turned or deepened."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary
from modules.structures.frames import Frame, VideoInfo
from modules.video.colour import chroma_alpha
from modules.video.reader import VideoReader
from modules.video.segments import SegmentedWriter
from modules.video.writer import EncodeConfig, VideoWriter
from tests.support.tiny_run import DEMO, all_frames

SIZE_WH = (320, 180)
WOMAN, MAN = DEMO / "WolfgangLanger_Pexels.mp4", DEMO / "single_face.mp4"
SUBTITLES = "1\n00:00:00,200 --> 00:00:00,900\nHello\n"
LOSSLESS = EncodeConfig(lossless=True, preset="ultrafast")


def shrunk(frame: Frame) -> Frame:
    """A 4:2:0 frame at ``SIZE_WH``."""
    half = (SIZE_WH[0] // 2, SIZE_WH[1] // 2)
    luma, blue, red = (
        cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        for plane, size in zip(frame.planes, (SIZE_WH, half, half), strict=True)
    )
    return replace(frame, planes=(luma, blue, red))


def small_frames(source: Path, first: int, stop: int) -> tuple[VideoInfo, list[Frame]]:
    """Frames ``first`` up to ``stop`` of a clip of one of the demo people, shrunk, at their own times."""
    with VideoReader(source) as reader:
        frames = [shrunk(frame) for frame in reader.frames() if first <= frame.index < stop]
        return replace(reader.info, width=SIZE_WH[0], height=SIZE_WH[1]), frames


def write_frames(target: Path, info: VideoInfo, frames: Iterable[Frame]) -> Path:
    """A lossless file without sound."""
    with VideoWriter(target, info, quality=LOSSLESS, comment="") as writer:
        for frame in frames:
            writer.write(frame)
    return target


def people_beside(target: Path, count: int, first: int = 10) -> Path:
    """The two demo people in one picture of twice the width, she on the left; her frames' times."""
    info, women = small_frames(WOMAN, first, first + count)
    _, men = small_frames(MAN, 0, count)
    frames = [
        replace(her, planes=tuple(np.hstack(pair) for pair in zip(her.planes, his.planes, strict=True)))
        for her, his in zip(women, men, strict=True)
    ]
    return write_frames(target, replace(info, width=2 * SIZE_WH[0]), frames)


def deepened(frame: Frame, seed: int = 0) -> Frame:
    """An 8-bit frame in 10 bits, with lowest bits that no 8-bit way can carry."""
    rng = np.random.default_rng(seed + frame.index)
    planes = [
        (plane.astype(np.uint16) << 2) + rng.integers(0, 4, plane.shape, dtype=np.uint16) for plane in frame.planes
    ]
    layout = replace(frame.layout, pixel_format="yuv420p10le", bit_depth=10)
    return replace(frame, planes=(planes[0], planes[1], planes[2]), layout=layout)


def with_tracks(picture: Path, target: Path, sounds: Iterable[Path]) -> Path:
    """A video with several sounds (English, then German) and English subtitles; its picture is copied."""
    texts = target.with_suffix(".srt")
    texts.write_text(SUBTITLES)
    inputs = [picture, *sounds, texts]
    command: list[Any] = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error"]
    for path in inputs:
        command += ["-i", path]
    for number in range(len(inputs)):
        command += ["-map", number]
    languages = [
        "-metadata:s:a:0",
        "language=eng",
        "-metadata:s:a:1",
        "language=deu",
        "-metadata:s:s:0",
        "language=eng",
    ]
    subtitles = "mov_text" if target.suffix == ".mp4" else "srt"
    command += ["-c:v", "copy", "-c:a", "aac", "-c:s", subtitles, *languages, target]
    subprocess.run([str(part) for part in command], check=True)
    texts.unlink()
    return target


def streams(path: Path) -> list[tuple[str, str | None]]:
    """(kind, language) of every stream."""
    with av.open(str(path)) as container:
        return [(stream.type, stream.metadata.get("language")) for stream in container.streams]


def segments_of(count: int, patch: Any) -> None:
    """Let segments hold ``count`` frames, by a pytest ``MonkeyPatch``."""
    defaults = SegmentedWriter.__init__.__kwdefaults__
    patch.setitem(defaults, "frames_per_segment", count)


def run_job(job: dict[str, Any], progress: Any = None) -> Path:
    """Run the main command's class on a job."""
    infer = GeneFace2InferArbitrary() if progress is None else GeneFace2InferArbitrary(progress)
    return infer.infer_once_arbitrary(job)


def alphas(masks: Path) -> NDArray[np.uint8]:
    """``[N, H, W]`` of a file of masks."""
    return np.stack([frame.planes[0] for frame in all_frames(masks)])


def assert_untouched(before: Frame, after: Frame, alpha: NDArray[np.uint8]) -> None:
    """Where a plane's alpha is 0, its sample is the source's own."""
    outside = (alpha == 0, *2 * (chroma_alpha(alpha.astype(np.float32), before.layout) == 0,))
    for old, new, untouched in zip(before.planes, after.planes, outside, strict=True):
        np.testing.assert_array_equal(new[untouched], old[untouched])


def is_same_picture(before: Frame, after: Frame) -> bool:
    """All samples of both frames agree."""
    return all(np.array_equal(old, new) for old, new in zip(before.planes, after.planes, strict=True))
