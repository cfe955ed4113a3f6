"""GeneFace++'s kind of video from any other: the face's crop at 512 × 512 and a constant 25 frames per second.

    python data_gen/utils/process_video/resample_video_to_25fps_resize_to_512.py --video_id ID --out clip_512_25fps.mp4

Nothing is squashed: the square comes from the crop metadata. Reads: the video, crop_metadata.json. Writes: one video.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

if __name__ == "__main__":  # run as a file, Python looks for modules in this folder, not in the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.crop_utils import crop_frame, load_crop_metadata
from modules.commons.errors import GeneFaceError
from modules.commons.log import configure_logging
from modules.commons.workspace import VideoWorkspace
from modules.structures.crops import CropMetadata
from modules.structures.frames import Frame, FramePatch, PlaneLayout, VideoInfo
from modules.video.colour import blend_patch
from modules.video.reader import VideoReader
from modules.video.sound import AudioTrack
from modules.video.writer import VideoWriter

FRAME_RATE = Fraction(25)
SIZE = 512
TIME_BASE = Fraction(1, 12800)
LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
BT709_TAGS = (1, 1, 1, 1)
log = logging.getLogger(__name__)


def nearest_frames(frames: Iterable[Frame], frame_rate: Fraction = FRAME_RATE) -> Iterator[tuple[int, Frame]]:
    """Constant frame rate: (output number, source frame nearest in time), from the first frame's time on.

    Frames are repeated or dropped; one frame is kept at a time.
    """
    start, number, before = Fraction(0), 0, None
    for frame in frames:
        if before is None:
            start = frame.time_s
        else:
            middle = (before.time_s + frame.time_s) / 2
            while start + number / frame_rate < middle:
                yield number, before
                number += 1
        before = frame
    if before is not None and start + number / frame_rate <= before.time_s + 1 / (2 * frame_rate):
        yield number, before


def resample_crops(frames: Iterable[Frame], metadata: CropMetadata) -> Iterator[Frame]:
    """The crops of a stream of frames, 512 × 512 at 25 frames per second, ready to be written."""
    large = replace(metadata, crop_size=SIZE)
    last, crop = None, np.zeros((SIZE, SIZE, 3), np.uint8)
    for number, frame in nearest_frames(frames):
        if frame is not last:
            last, crop = frame, crop_frame(frame, large)
        yield planes_of(crop, number)


def planes_of(rgb: NDArray[np.uint8], number: int) -> Frame:
    """An RGB picture ``[512, 512, 3]`` as frame ``number`` of the output."""
    luma, chroma = np.zeros((SIZE, SIZE), np.uint8), np.full((SIZE // 2, SIZE // 2), 128, np.uint8)
    empty = Frame(number, int(number / (FRAME_RATE * TIME_BASE)), TIME_BASE, (luma, chroma, chroma.copy()), LAYOUT)
    patch = FramePatch((0, 0, SIZE, SIZE), rgb.astype(np.float32) / np.float32(255), np.ones((SIZE, SIZE), np.float32))
    return blend_patch(empty, patch)


def resample_video(video: Path, metadata: CropMetadata, out: Path) -> int:
    """Write the 512 × 512, 25 fps video with the source's sound; returns its number of frames.

    Raises:
        GeneFaceError: the video cannot be read or the output not written.
    """
    count = 0
    with VideoReader(video) as reader:
        info = VideoInfo(video, SIZE, SIZE, FRAME_RATE, TIME_BASE, 0, LAYOUT, BT709_TAGS, reader.info.has_audio, None)
        sound = AudioTrack(video) if reader.info.has_audio else None
        with VideoWriter(out, info, audio=sound, comment="") as writer:
            for frame in resample_crops(reader.frames(), metadata):
                writer.write(frame)
                count += 1
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Crop a prepared video to 512 px at 25 fps.", allow_abbrev=False)
    parser.add_argument("--video_id", required=True, help="a video whose crop stage has run")
    parser.add_argument("--video", type=Path, help="default: data/raw/videos/ID.mp4")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    configure_logging()
    workspace = VideoWorkspace(arguments.video_id)
    try:
        metadata = load_crop_metadata(workspace.crop_metadata)
        count = resample_video(arguments.video or workspace.raw_video, metadata, arguments.out)
    except GeneFaceError as error:
        log.error("error: %s", error)
        return 1
    log.info("%s: %d frames at 25 fps, %d px", arguments.out, count, SIZE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
