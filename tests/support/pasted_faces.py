"""Real faces pasted at a given height on large cluttered pictures, so that what is found can be held to the truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_face, region_of_landmarks
from data_gen.utils.process_video.centerface import CenterFace
from data_gen.utils.process_video.face_geometry import landmark_box
from modules.structures.boxes import BoundingBox
from modules.structures.frames import Frame, FramePatch, PlaneLayout
from modules.structures.landmarks import face_height_px
from modules.video.colour import blend_patch, rgb_from_planes
from tests.support.real_frames import read_frames

LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", False, "bt709")
HEAD = (0.85, 0.95, 0.75)
"""Half-axes of the pasted ellipse (x, up, down) in face heights from the middle of the face: hair and chin included."""


@dataclass(frozen=True, eq=False)
class HeadCut:
    """A head cut out of a picture.

    Attributes:
        rgb: ``[h, w, 3]`` uint8. alpha: float32 ``[h, w]``, soft ellipse.
        points: its 478 landmarks in pixels of ``rgb``.
        height: forehead to chin, px.
    """

    rgb: NDArray[np.uint8]
    alpha: NDArray[np.float32]
    points: NDArray[np.float32]
    height: float

    def scaled(self, factor: float) -> HeadCut:
        """The head at another size."""
        height, width = self.alpha.shape
        size = max(2, round(width * factor)), max(2, round(height * factor))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        scale = np.array([size[0] / width, size[1] / height], dtype=np.float32)
        return HeadCut(
            np.asarray(cv2.resize(self.rgb, size, interpolation=how), np.uint8),
            np.clip(cv2.resize(self.alpha, size, interpolation=cv2.INTER_AREA), 0, 1).astype(np.float32),
            self.points * scale,
            self.height * float(scale[1]),
        )


@dataclass(frozen=True, eq=False)
class PastedVideo:
    """Frames with one pasted face.

    Attributes:
        frames: as a reader gives them.
        boxes: ``[T, 4]`` boxes of the face's landmarks, forehead to chin, px.
    """

    frames: list[Frame]
    boxes: NDArray[np.float64]

    def box(self, index: int) -> BoundingBox:
        return BoundingBox(*(float(v) for v in self.boxes[index]))


def cut_heads(clip: Path, start: int, count: int = 1) -> list[HeadCut]:
    """The largest head of ``count`` frames of a clip, all cut by the square of the first, so that motion stays.

    Raises:
        ValueError: when the first frame shows no face.
    """
    landmarker, heads = FaceLandmarker(), []
    region, ellipse = None, (0.0, 0.0, 0.0)
    for frame in read_frames(clip, start, start + count):
        rgb = rgb_from_planes(frame)
        if region is None:
            faces = CenterFace().detect(rgb)
            if not faces:
                raise ValueError(f"{clip.name} shows no face in frame {start}")
            region = region_of_landmarks(landmarker.detect(rgb, region_of_face(faces[0])).points)
            points = landmarker.detect(rgb, region).points
            ellipse = (*points.mean(axis=0), float(face_height_px(points)))
        points = landmarker.detect(rgb, region).points
        region = region_of_landmarks(points)
        heads.append(_cut(rgb, points, ellipse))
    return heads


def _cut(rgb: NDArray[np.uint8], points: NDArray[np.float32], ellipse: tuple[float, float, float]) -> HeadCut:
    x, y, size = ellipse
    half_w, up, down = (share * size for share in HEAD)
    x0, y0, x1, y1 = round(x - half_w), round(y - up), round(x + half_w), round(y + down)
    pad = max(0, -x0, -y0, x1 - rgb.shape[1], y1 - rgb.shape[0])
    padded = cv2.copyMakeBorder(rgb, pad, pad, pad, pad, cv2.BORDER_REFLECT_101)
    window = padded[y0 + pad : y1 + pad, x0 + pad : x1 + pad]
    rows, cols = np.mgrid[y0:y1, x0:x1] + 0.5
    vertical = np.where(rows < y, (rows - y) / up, (rows - y) / down)
    radius = np.hypot((cols - x) / half_w, vertical)
    alpha = np.clip((1.0 - radius) / 0.12, 0, 1).astype(np.float32)
    return HeadCut(window, alpha, points - np.array([x0, y0], np.float32), float(face_height_px(points)))


def clutter(size_hw: tuple[int, int], pictures: Sequence[NDArray[np.uint8]], seed: int = 0) -> NDArray[np.uint8]:
    """A busy picture: tiles of ``pictures`` at many sizes, coloured shapes over them, lines and noise."""
    height, width = size_hw
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (height // 40 + 1, width // 40 + 1, 3), dtype=np.uint8)
    canvas = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)
    for _ in range(40 if pictures else 0):
        picture = pictures[int(rng.integers(len(pictures)))]
        tile_h = int(rng.uniform(0.15, 0.6) * height)
        tile_w = min(width, round(tile_h * picture.shape[1] / picture.shape[0]))
        top, left = int(rng.integers(0, height - tile_h + 1)), int(rng.integers(0, width - tile_w + 1))
        how = cv2.INTER_AREA if tile_h < picture.shape[0] else cv2.INTER_LINEAR
        canvas[top : top + tile_h, left : left + tile_w] = cv2.resize(picture, (tile_w, tile_h), interpolation=how)
    for _ in range(60):
        colour = [int(v) for v in rng.integers(0, 255, 3)]
        x, y = int(rng.integers(width)), int(rng.integers(height))
        size = int(rng.uniform(0.005, 0.06) * height)
        shape = rng.integers(3)
        if shape == 0:
            cv2.rectangle(canvas, (x, y), (x + 2 * size, y + size), colour, -1)
        elif shape == 1:
            cv2.ellipse(canvas, (x, y), (size, size * 3 // 2), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            cv2.line(canvas, (x, y), (int(rng.integers(width)), int(rng.integers(height))), colour, 2)
    noise = rng.normal(0, 6, (height // 2, width // 2, 1)).astype(np.float32)
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST)[..., None]
    return np.clip(canvas + noise, 0, 255).astype(np.uint8)


def paste(background: NDArray[np.uint8], head: HeadCut, center: tuple[float, float]) -> BoundingBox:
    """Lay a head over ``background`` in place, the middle of its square at ``center``; the box of its landmarks."""
    height, width = head.alpha.shape
    x0, y0 = round(center[0] - width / 2), round(center[1] - height / 2)
    window = background[y0 : y0 + height, x0 : x0 + width]
    alpha = head.alpha[..., None]
    window[:] = np.rint(window + alpha * (head.rgb.astype(np.float32) - window)).astype(np.uint8)
    return _box(head, x0, y0)


def _box(head: HeadCut, x0: int, y0: int) -> BoundingBox:
    return landmark_box(head.points).shifted(x0, y0)


def _unit(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    return rgb.astype(np.float32) / np.float32(255)


def frame_of(rgb: NDArray[np.uint8], index: int = 0, rate: int = 25) -> Frame:
    """A 4:2:0 frame that shows ``rgb`` (even sides)."""
    height, width = rgb.shape[:2]
    grey = np.full((height // 2, width // 2), 128, np.uint8)
    empty = Frame(index, index, Fraction(1, rate), (np.zeros((height, width), np.uint8), grey, grey), LAYOUT)
    whole = np.ones((height, width), np.float32)
    return blend_patch(empty, FramePatch((0, 0, width, height), _unit(rgb), whole))


def pasted_frames(
    background: NDArray[np.uint8],
    heads: Sequence[HeadCut],
    centers: NDArray[np.float64],
    rate: int = 25,
) -> Iterator[tuple[Frame, BoundingBox]]:
    """Frames of a still background with ``heads[t]`` at ``centers[t]`` (x, y), and the box of its landmarks.

    Only planes under the head change from frame to frame.
    """
    still = frame_of(background, rate=rate)
    for index, (head, center) in enumerate(zip(heads, centers, strict=True)):
        height, width = head.alpha.shape
        x0, y0 = round(center[0] - width / 2), round(center[1] - height / 2)
        frame = Frame(index, index, Fraction(1, rate), still.planes, still.layout)
        patch = FramePatch((x0, y0, x0 + width, y0 + height), _unit(head.rgb), head.alpha)
        yield blend_patch(frame, patch), _box(head, x0, y0)


def pasted_video(
    clip: Path,
    height: float,
    *,
    size_hw: tuple[int, int] = (1080, 1920),
    pictures: Sequence[NDArray[np.uint8]] = (),
    start: int = 0,
    count: int = 25,
    seed: int = 0,
    speed: float = 0.03,
) -> PastedVideo:
    """A video in which the face of ``clip``, ``height`` px high, talks and drifts over a cluttered still background.

    Args:
        clip: whose largest face is taken, from frame ``start`` on.
        height: forehead to chin, px.
        size_hw: of the frames, even.
        pictures: RGB pictures without faces for the background.
        start: first frame of the clip.
        count: frames; a 4K frame takes 12 MB.
        seed: of the background and the path.
        speed: drift in face heights per frame.
    """
    cuts = cut_heads(clip, start, count)
    factor = height / cuts[0].height
    heads = [cut.scaled(factor) for cut in cuts]
    rng = np.random.default_rng(seed)
    margin = np.array(heads[0].alpha.shape[::-1]) / 2 + 2
    high = np.array(size_hw[::-1]) - margin
    angle = rng.uniform(0, 2 * np.pi)
    step = speed * height * np.array([np.cos(angle), np.sin(angle)])
    path = rng.uniform(margin, high) + np.arange(count)[:, None] * step
    # a path that would leave the frame turns back at its edge
    span = high - margin
    path = margin + span - np.abs((path - margin) % (2 * span) - span)
    made = list(pasted_frames(clutter(size_hw, pictures, seed), heads, path))
    return PastedVideo([frame for frame, _ in made], np.stack([box.as_array() for _, box in made]))
