"""What a job writes beside its result: the alpha, every mask, the source beside the result, strips of pictures."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.comparison import QUALITY as COMPARED
from inference.comparison import beside, beside_info
from inference.edited_frames import EditedFrame
from inference.face_compositor import Bounds
from modules.structures.frames import Frame, VideoInfo
from modules.video.alpha import grey_alpha, grey_info
from modules.video.codecs import EncodeConfig
from modules.video.colour import rgb_from_planes
from modules.video.png import write_png
from modules.video.segments import SegmentedWriter
from modules.video.sound import SoundPlan

OVERLAY_CRF = 18
"""Masks over the source are looked at, not worked with."""


@dataclass(frozen=True, slots=True)
class SideVideo:
    """A video with a frame for each of the result's.

    Attributes:
        writer: of its segments.
        draw: makes its frame.
    """

    writer: SegmentedWriter
    draw: Callable[[EditedFrame], Frame]


@dataclass(frozen=True, slots=True)
class SidePlan:
    """A side video before it is opened.

    Attributes:
        path: of the file. info: of its frames. quality: of its picture.
        draw: makes its frames.
        audio: its sound; None = none.
    """

    path: Path
    info: VideoInfo
    quality: EncodeConfig
    draw: Callable[[EditedFrame], Frame]
    audio: SoundPlan | None = None


def alpha_plan(path: Path, info: VideoInfo) -> SidePlan:
    """The alpha as a lossless grey video; ``info`` is the source's."""
    return SidePlan(
        path, grey_info(info), EncodeConfig(lossless=True), lambda done: grey_alpha(done.before, alphas(done))
    )


def overlay_plan(path: Path, info: VideoInfo, draw: Callable[[EditedFrame], Frame]) -> SidePlan:
    """Masks over the source, in the source's own format."""
    return SidePlan(path, info, EncodeConfig(crf=OVERLAY_CRF), draw)


def comparison_plan(path: Path, info: VideoInfo, audio: SoundPlan) -> SidePlan:
    """Source and result side by side, with the result's sound."""
    return SidePlan(path, beside_info(info), COMPARED, lambda done: beside(done.before, done.frame), audio)


@contextmanager
def opened(
    plans: list[SidePlan], folder_of: Callable[[Path], Path], key: str
) -> Generator[list[SideVideo], None, None]:
    """Open the side videos; they appear when the block ends well.

    Args:
        plans: what is wanted.
        folder_of: where the segments of a file grow.
        key: of all that the frames depend on.
    """
    with ExitStack() as stack:
        made = []
        for plan in plans:
            plan.path.parent.mkdir(parents=True, exist_ok=True)
            folder = folder_of(plan.path)
            writer = SegmentedWriter(
                folder, plan.path, plan.info, key=key, quality=plan.quality, audio=plan.audio
            )  # fmt: skip
            made.append(SideVideo(stack.enter_context(writer), plan.draw))
        yield made


def alphas(done: EditedFrame) -> list[tuple[Bounds, NDArray[np.float32]]]:
    """Where a frame was edited, and how much."""
    return [(edit.bounds, edit.alpha) for edit in done.edits.values() if edit.alpha is not None]


class DebugStrips:
    """Every 25th edited frame as a PNG strip source | result | alpha, at twice the size, around the edit."""

    def __init__(self, out_name: Path, every: int = 25) -> None:
        self.folder = out_name.with_name(out_name.stem + "_debug")
        self.every = every
        self.seen = 0

    def add_all(self, done: EditedFrame) -> None:
        """Show every edit of a frame."""
        for bounds, alpha in alphas(done):
            self.add(done.before, done.frame, bounds, alpha)

    def add(self, before: Frame, after: Frame, bounds: Bounds, alpha: NDArray[np.float32]) -> None:
        """Show one edit, if it is its turn."""
        self.seen += 1
        if (self.seen - 1) % self.every:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        grey = np.repeat(np.round(alpha * 255).astype(np.uint8)[..., None], 3, axis=2)
        strip = np.hstack([rgb_from_planes(before, bounds), rgb_from_planes(after, bounds), grey])
        large = cv2.resize(strip, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
        write_png(np.asarray(large, np.uint8), self.folder / f"{before.index:06d}.png")
