"""The pictures of a portrait's clip: frames, parts of the person, what is behind it.

Reads: the video and its tables. Writes: gt_imgs, segmaps, head_imgs, inpaint_torso_imgs, bg.png, com_imgs, bg_imgs.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.runs.stretches import Stretch
from data_gen.utils.mp_feature_extractors.mp_segmenter import PersonSegmenter
from data_gen.utils.process_video.background_plate import BackgroundPlate
from data_gen.utils.process_video.crop_utils import crop_frame, load_crop_metadata
from data_gen.utils.process_video.head_torso_segmenter import PartColours
from data_gen.utils.process_video.part_segmenter import PartSegmenter
from data_gen.utils.process_video.torso_inpaint import inpaint_torso, without_occluder
from modules.commons.errors import CheckpointError
from modules.commons.workspace import VideoWorkspace
from modules.structures.crops import CropMetadata, mask_elsewhere, transform_points
from modules.structures.dataset import JPEG_QUALITY, write_image
from modules.structures.frame_index import FrameIndex
from modules.structures.frames import Frame
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionTable
from modules.structures.portrait_parts import HEAD_CLASSES, classes_of_map, is_class, segment_map
from modules.structures.portrait_tables import PORTRAIT_SIDE, PortraitPlan
from modules.structures.protected_area import protected_in_crop
from modules.structures.segmentation import SelfieClass
from modules.video.frame_range import FrameRange
from modules.video.pipeline import decoding
from modules.video.reader import VideoReader

LEARNT_FRAMES = 12
"""Frames that the person's colours are learnt from."""
JPEG_OPTIONS = [
    cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip
PNG_OPTIONS = [cv2.IMWRITE_PNG_COMPRESSION, 1]
STILL_WITHIN = 6.0
"""Mean difference in levels (of 255) between a frame's background and the plate, in most frames of a still camera."""


@dataclass(frozen=True, slots=True)
class PicturesMade:
    """A finished stretch of pictures, for ``PartStore``."""

    count: int

    def save(self, path: Path) -> None:
        """Write the record through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        np.savez(temporary, count=np.array(self.count))
        temporary.replace(path)


@dataclass(frozen=True, slots=True, eq=False)
class PortraitTables:
    """What is known of the clip when its pictures are made."""

    video: Path
    workspace: VideoWorkspace
    plan: PortraitPlan
    index: FrameIndex
    landmarks: Landmarks2D
    occlusion: OcclusionTable
    hands: OcclusionTable
    face_crops: CropMetadata

    @classmethod
    def load(cls, video: Path, workspace: VideoWorkspace) -> PortraitTables:
        """Of a prepared video whose plan is made."""
        return cls(
            video,
            workspace,
            PortraitPlan.load(workspace.portrait_plan),
            FrameIndex.load(workspace.frame_index),
            Landmarks2D.load(workspace.landmarks),
            OcclusionTable.load(workspace.occlusion),
            OcclusionTable.load(workspace.hands),
            load_crop_metadata(workspace.crop_metadata),
        )

    def points(self, source_row: int) -> NDArray[np.float64]:
        """Landmarks ``[478, 2]`` px of the portrait's picture."""
        return transform_points(self.plan.crops.crop_from_frame(source_row), self.landmarks.points[source_row])

    def in_front(self, source_row: int) -> NDArray[np.bool_]:
        """Where something stands in front of the face, in the portrait's picture."""
        found = protected_in_crop(self.occlusion, self.hands, source_row, self.index.shot_starts)
        if found is None:
            return np.zeros((PORTRAIT_SIDE, PORTRAIT_SIDE), bool)
        square = self.plan.crops.crop_from_frame(source_row)
        size = (PORTRAIT_SIDE, PORTRAIT_SIDE)
        return mask_elsewhere(found, self.face_crops.region(source_row), square, size) > 0.5

    def frames(
        self, rows: NDArray[np.int64], watched: Callable[[Iterator[Frame]], Iterator[Frame]]
    ) -> Iterator[tuple[int, int, NDArray[np.uint8]]]:
        """(row of the clip, row of the video, picture) of some rows, decoded from the first to the last of them."""
        shown: dict[int, list[int]] = {}
        for row in rows.tolist():
            shown.setdefault(int(self.plan.source_rows[row]), []).append(row)
        first, stop = min(shown), max(shown) + 1
        with VideoReader(self.video) as reader, decoding(FrameRange(reader, self.index, first, stop)) as decoded:
            for frame in watched(iter(decoded)):
                if frame.index in shown:
                    picture = crop_frame(frame, self.plan.crops)
                    for row in shown[frame.index]:
                        yield row, frame.index, picture


def learn_colours(tables: PortraitTables, person: PersonSegmenter) -> PartColours:
    """The colours of the clip's person, from frames spread over it."""
    samples = tables.plan.samples
    rows = samples[np.unique(np.linspace(0, len(samples) - 1, LEARNT_FRAMES).round().astype(int))]

    def seen() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.floating]]]:
        for _, source, picture in tables.frames(rows, lambda frames: frames):
            yield picture, np.where(tables.in_front(source), 0, person.segment(picture)), tables.points(source)

    return PartColours.learn(seen())


def segment_stretch(tables: PortraitTables, segmenter: PartSegmenter, stretch: Stretch) -> PicturesMade:
    """Write the frame, its classes, the head and the inpainted torso of the samples in a stretch."""
    workspace, rows = tables.workspace, tables.plan.samples[stretch.first : stretch.stop]
    for row, source, picture in tables.frames(rows, stretch.until_stopped):
        in_front = tables.in_front(source)
        told = segmenter.classes(picture, tables.points(source))
        cleared, classes = without_occluder(picture, told, in_front)
        seen = np.where(in_front, SelfieClass.OTHERS, told).astype(np.uint8)
        write_picture(workspace.gt_imgs / jpg(row), picture)
        write_picture(workspace.segmaps / png(row), segment_map(seen))
        write_picture(workspace.head_imgs / png(row), cut_out(picture, is_class(seen, HEAD_CLASSES) & ~in_front))
        write_picture(workspace.inpaint_torso_imgs / png(row), inpaint_torso(cleared, classes))
    return PicturesMade(len(rows))


def compose_stretch(
    workspace: VideoWorkspace, samples: NDArray[np.int64], plate: NDArray[np.uint8] | None, stretch: Stretch
) -> PicturesMade:
    """Write the frames of a stretch as they are learnt: before the plate, or, without one, as they are."""
    rows = samples[stretch.first : stretch.stop].tolist()
    for row in rows:
        picture, behind = read_sample(workspace, row)
        if plate is None:
            own = BackgroundPlate(behind.shape)
            own.add(picture, behind)
            write_picture(workspace.bg_imgs / jpg(row), own.picture())
        else:
            picture = np.where(behind[..., None], plate, picture)
        write_picture(workspace.com_imgs / jpg(row), picture)
    return PicturesMade(len(rows))


def read_sample(workspace: VideoWorkspace, row: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A stored frame, RGB ``[S, S, 3]``, and where the background is seen in it, ``[S, S]``."""
    picture, classes = read_picture(workspace.gt_imgs / jpg(row)), read_picture(workspace.segmaps / png(row))
    return picture, classes_of_map(classes) == SelfieClass.BACKGROUND


def plate_difference(picture: NDArray[np.uint8], behind: NDArray[np.bool_], plate: NDArray[np.uint8]) -> float:
    """Mean difference, levels of 255, between a frame and the plate where it is ``behind`` the person ``[H, W]``."""
    if not behind.any():
        return 0.0
    return float(np.abs(picture[behind].astype(np.int16) - plate[behind]).mean())


def cut_out(picture: NDArray[np.uint8], part: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """RGBA ``[H, W, 4]``: a part of a picture, 0 elsewhere."""
    alpha = part.astype(np.uint8) * np.uint8(255)
    shown = cv2.bitwise_and(picture, picture, mask=alpha)  # in OpenCV, as other threads go on meanwhile
    return np.asarray(cv2.merge([*cv2.split(shown), alpha]), np.uint8)


def fresh(*folders: Path) -> None:
    """Empty folders."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)


def jpg(row: int) -> str:
    """GeneFace++'s name of a frame's picture."""
    return f"{row:08d}.jpg"


def png(row: int) -> str:
    """GeneFace++'s name of a part's picture."""
    return f"{row:08d}.png"


def write_picture(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write RGB or RGBA ``[H, W, C]``, through a temporary name."""
    order = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    options = JPEG_OPTIONS if path.suffix == ".jpg" else PNG_OPTIONS
    write_image(path, cv2.cvtColor(picture, order), options)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """Read RGB ``[H, W, 3]``.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise CheckpointError(f"{path} is missing or cannot be read; run the stage segment again")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
