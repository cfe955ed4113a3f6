"""A constant 25 frames per second and 512 px from any video, nothing squashed, sound kept.

    python data_gen/utils/process_video/resample_video_to_25fps_resize_to_512.py --video any.mp4 --out any_25fps.mp4
    python data_gen/utils/process_video/resample_video_to_25fps_resize_to_512.py --video_id ID --out face_25fps.mp4

The first shows the whole picture with its longer side at 512 px. The second, for a prepared video, shows the face's
crop, 512 × 512: GeneFace++'s kind of video. Reads: the video; crop_metadata.json. Writes: one video.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeVar

if __name__ == "__main__":  # run as a file, Python looks for modules in this folder, not in the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.crop_utils import crop_frame, load_crop_metadata
from modules.commons.command import exit_status
from modules.commons.workspace import VideoWorkspace
from modules.structures.crops import CropMetadata
from modules.structures.frames import Frame, FramePatch, PlaneLayout, VideoInfo
from modules.video.colour import blend_patch, rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.sound import AudioTrack
from modules.video.writer import VideoWriter

FRAME_RATE = Fraction(25)
SIZE = 512
TIME_BASE = Fraction(1, 12800)
LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
BT709_TAGS = (1, 1, 1, 1)
log = logging.getLogger(__name__)


class Timed(Protocol):
    """Anything that is shown at a time."""

    @property
    def time_s(self) -> Fraction:
        """Seconds."""
        ...


Shown = TypeVar("Shown", bound=Timed)


def nearest_frames(frames: Iterable[Shown], frame_rate: Fraction = FRAME_RATE) -> Iterator[tuple[int, Shown]]:
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


@dataclass(frozen=True, slots=True)
class WholePicture:
    """Frames seen whole, longer side ``SIZE``, with square pixels.

    Attributes:
        info: of the video the frames come from.
    """

    info: VideoInfo

    @property
    def size_wh(self) -> tuple[int, int]:
        """Output size: even numbers whose ratio is the shown one's within a pixel."""
        width, height = Fraction(self.info.width), Fraction(self.info.height)
        pixel = self.info.sample_aspect_ratio or Fraction(1)
        width *= 1 / pixel if self.info.rotation_deg % 180 else pixel
        scale = SIZE / max(width, height)
        return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))

    def picture(self, frame: Frame) -> NDArray[np.uint8]:
        """RGB of a frame at ``size_wh``."""
        shrinks = self.size_wh[0] < frame.size_hw[1]
        flags = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(rgb_from_planes(frame), self.size_wh, interpolation=flags), np.uint8)


@dataclass(frozen=True, slots=True)
class FaceCrop:
    """Frames seen through the crop of a prepared video.

    Attributes:
        metadata: where the crop lies; its own size does not matter.
    """

    metadata: CropMetadata

    @property
    def size_wh(self) -> tuple[int, int]:
        return SIZE, SIZE

    def picture(self, frame: Frame) -> NDArray[np.uint8]:
        """RGB ``[512, 512, 3]`` of a frame."""
        return crop_frame(frame, replace(self.metadata, crop_size=SIZE))


def resampled(frames: Iterable[Frame], view: WholePicture | FaceCrop) -> Iterator[Frame]:
    """What ``view`` shows of a stream of frames, at 25 frames per second from the first one's time, to be written."""
    last, picture, start = None, np.zeros((2, 2, 3), np.uint8), Fraction(0)
    for number, frame in nearest_frames(frames):
        if last is None:
            start = frame.time_s
        if frame is not last:
            last, picture = frame, view.picture(frame)
        yield planes_of(picture, number, start)


def planes_of(rgb: NDArray[np.uint8], number: int, start: Fraction = Fraction(0)) -> Frame:
    """An RGB picture ``[H, W, 3]`` of even size as frame ``number`` of an output that begins at ``start`` seconds."""
    height, width = rgb.shape[:2]
    luma, chroma = np.zeros((height, width), np.uint8), np.full((height // 2, width // 2), 128, np.uint8)
    pts = round(start / TIME_BASE) + int(number / (FRAME_RATE * TIME_BASE))
    empty = Frame(number, pts, TIME_BASE, (luma, chroma, chroma.copy()), LAYOUT)
    whole = np.ones((height, width), np.float32)
    return blend_patch(empty, FramePatch((0, 0, width, height), rgb.astype(np.float32) / np.float32(255), whole))


def resample_video(video: Path, metadata: CropMetadata | None, out: Path) -> int:
    """Write the 25 fps video with the source's sound at its own times; returns the number of frames.

    Args:
        video: any video.
        metadata: its crop, or None for the whole picture.
        out: where to write.

    Raises:
        GeneFaceError: the video cannot be read or the output not written.
    """
    count = 0
    with VideoReader(video) as reader:
        view = WholePicture(reader.info) if metadata is None else FaceCrop(metadata)
        width, height = view.size_wh
        has_audio = reader.info.has_audio
        info = VideoInfo(video, width, height, FRAME_RATE, TIME_BASE, 0, LAYOUT, BT709_TAGS, has_audio, None)
        sound = AudioTrack(video, keep_source=True) if has_audio else None
        with VideoWriter(out, info, audio=sound, comment="") as writer:
            for frame in resampled(reader.frames(), view):
                writer.write(frame)
                count += 1
    return count


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="25 fps and 512 px from any video.", allow_abbrev=False)
    parser.add_argument("--video_id", help="a video whose crop stage has run: show its face crop")
    parser.add_argument("--video", type=Path, help="any video; with --video_id the default is data/raw/videos/ID.mp4")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    if arguments.video is None and arguments.video_id is None:
        parser.error("give --video for the whole picture, or --video_id for the face crop of a prepared video")
    return exit_status(lambda: _resample(arguments))


def _resample(arguments: argparse.Namespace) -> None:
    metadata, video = None, arguments.video
    if arguments.video_id is not None:
        workspace = VideoWorkspace(arguments.video_id)
        metadata, video = load_crop_metadata(workspace.crop_metadata), video or workspace.raw_video
    count = resample_video(video, metadata, arguments.out)
    log.info("%s: %d frames at 25 fps", arguments.out, count)


if __name__ == "__main__":
    raise SystemExit(main())
