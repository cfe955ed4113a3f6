"""The prepared clip as flat arrays of rays: every pixel of every frame is cast onto the fitted head once, at load.

Reads: ``trainval_dataset.npz`` and its crops. A training step then only indexes arrays, on the CPU or whole on a GPU.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.commons.errors import CheckpointError
from modules.commons.progress import Progress
from modules.face_model.mesh_renderer import Bounds
from modules.face_model.model import FaceModel, Region
from modules.radnerfs.condition import ConditionStatistics, conditions_of_clip
from modules.radnerfs.surface import (
    FacePose,
    SurfaceHits,
    edge_radius_px,
    project_mesh,
    region_bounds,
    region_weight,
    surface_hits,
    view_quality,
)
from modules.radnerfs.trust import CELLS, best_view_cells, good_views
from modules.structures.cameras import CAMERA_DISTANCE
from modules.structures.dataset import NeRFDataset
from modules.structures.landmarks import IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE
from tasks.radnerfs.ray_table import POSITION_STEPS, RayGroup, RayTable

T = TypeVar("T")

MOST_CASTERS = 32
"""Threads that cast frames, at most; each holds one crop and its fragments."""
FRAMES_AT_ONCE = 64
QUALITY = 5
"""Place of a ray's quality among the columns that a frame is flattened to."""
HIDDEN_MARGIN_PX = 3
"""What lies this near to something in front of the face is not learnt either."""
EYE_ROOM = 1.6
"""An eye is learnt within its landmarks' box, this many times as wide and high (lids and lashes move)."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameRays:
    """What one crop teaches.

    Attributes:
        hits: the window of the crop around the region.
        learn: bool ``[h, w]`` pixels to learn from (on the head, near the region, nothing in front).
        mouth: bool ``[h, w]`` those on or around the mouth.
        eyes: bool ``[h, w]`` those on the eyes; none unless the whole face is rendered.
        rgb: uint8 ``[h, w, 3]``.
        quality: float32 ``[h, w]`` how well each pixel shows its place on the head, 0..1.
    """

    hits: SurfaceHits
    learn: NDArray[np.bool_]
    mouth: NDArray[np.bool_]
    eyes: NDArray[np.bool_]
    rgb: NDArray[np.uint8]
    quality: NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalBox:
    """Map from head space (dm) to the field's cube: ``(point - center) * scale``."""

    center: NDArray[np.float32]
    scale: float

    @classmethod
    def around(cls, low: NDArray[np.floating], high: NDArray[np.floating], margin: float = 0.04) -> CanonicalBox:
        """The cube around a box of points, with some room."""
        half = float((np.asarray(high) - np.asarray(low)).max()) / 2 * (1 + margin)
        return cls(((np.asarray(low) + np.asarray(high)) / 2).astype(np.float32), 1.0 / half)


class RADNeRFDataset:
    """A prepared clip, cast onto the head.

    Args:
        source: the prepared clip.
        face_model: CPU model the coefficients belong to; the person's correction of it is put on here.
        region: key of ``face_model.region_weights`` that will be rendered.
        margin_px: crop pixels around the region that are learnt too, because lips and jaw may move there.
        window: condition rows per frame (``smo_win_size``).
        ray_stride: keep every n-th pixel outside the mouth (1 keeps all).
        progress: told about the frames.

    Raises:
        CheckpointError: the clip was prepared with another face model, or its correction does not fit the model.
    """

    def __init__(
        self,
        source: NeRFDataset,
        face_model: FaceModel,
        *,
        region: Region,
        margin_px: int,
        window: int,
        ray_stride: int,
        progress: Progress,
    ) -> None:
        if source.coeffs.face_model_version != face_model.version:
            raise CheckpointError(
                f"the prepared clip {source.video_id} belongs to face model {source.coeffs.face_model_version!r}, "
                f"installed is {face_model.version!r}; prepare the video again"
            )
        self.source = source
        self.face_model = face_model.corrected(source.coeffs.correction)
        self.region: Region = region
        self._margin_px = margin_px
        coeffs = source.coeffs
        self.statistics = ConditionStatistics(source.condition_mean, source.condition_std)
        self.conditions = conditions_of_clip(
            self.face_model, coeffs.identity, coeffs.expression, self.statistics, window
        )  # [T, window, 204]
        self.train_indices = np.flatnonzero(source.is_train)
        self.val_indices = np.flatnonzero(~source.is_train)
        self.box = self._canonical_box()
        self._ray_stride = ray_stride
        self._progress = progress

    @functools.cached_property
    def rays(self) -> RayTable:
        """All training rays; cast when first asked for."""
        return self._build_rays(self._ray_stride, self._progress)

    def training_motion(self) -> Tensor:
        """z-scored conditions ``[M, 204]`` of the stored training frames."""
        return self.conditions[self.source.rows[self.train_indices], self.conditions.shape[1] // 2]

    def pose(self, index: int) -> FacePose:
        """The fitted head of stored frame ``index``."""
        coeffs, row = self.source.coeffs, int(self.source.rows[index])
        return FacePose(coeffs.identity, coeffs.expression[row], coeffs.euler[row], coeffs.translation[row])

    def frame_rays(self, index: int) -> FrameRays | None:
        """Cast stored frame ``index``; None when the region lies outside its crop."""
        size = self.source.crop_size
        camera_matrix = self.source.camera_matrix(index)
        mesh = project_mesh(self.face_model, self.pose(index), camera_matrix)
        weights = self.face_model.region_weights[self.region].numpy()
        bounds = region_bounds(mesh.pixels, weights, (size, size), self._margin_px + 2)
        if bounds is None:
            return None
        hits = surface_hits(self.face_model, self.pose(index), camera_matrix, bounds, self.region, mesh)
        mouth = region_weight(self.face_model, hits, "mouth") > 0
        learn = hits.mask & dilate(hits.weight > 0, self._margin_px)
        if self._crop_leaves_frame(index):
            learn &= window_of(self.source.inside_frame(index), bounds)
        hidden = self.source.hidden(index)
        if hidden is not None:
            learn &= ~dilate(window_of(hidden, bounds), HIDDEN_MARGIN_PX)
        rgb = window_of(self.source.crop(index), bounds)
        edge_px = edge_radius_px(camera_matrix, self.pose(index).translation)
        quality = view_quality(self.face_model, mesh, hits, edge_px)
        return FrameRays(hits, learn, mouth & learn, self._eyes(index, bounds) & learn, rgb, quality)

    def _eyes(self, index: int, bounds: Bounds) -> NDArray[np.bool_]:
        """The window's pixels in the boxes of the two eyes; none where the region leaves them alone."""
        x0, y0, x1, y1 = bounds
        inside = np.zeros((y1 - y0, x1 - x0), dtype=bool)
        if self.region != "face":
            return inside
        for eye in (IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE):
            points = self.source.landmarks_px[index][list(eye)] - np.array([x0, y0])
            low, high = points.min(axis=0), points.max(axis=0)
            room = (high - low) * (EYE_ROOM - 1) / 2
            left, top = np.maximum(np.floor(low - room), 0).astype(int)
            right, bottom = np.maximum(np.ceil(high + room), 0).astype(int)
            inside[top:bottom, left:right] = True
        return inside

    def unit_positions(self, canonical: NDArray[np.float32]) -> NDArray[np.float32]:
        """Head-space points ``[..., 3]`` in the field's cube."""
        return (canonical - self.box.center) * np.float32(self.box.scale)

    def _crop_leaves_frame(self, index: int) -> bool:
        box = self.source.crop_metadata.region(int(self.source.rows[index])).bounding_box()
        height, width = self.source.crop_metadata.frame_size_hw
        return box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height

    def frame_px_per_dm(self) -> float:
        """How finely the crops show the face: frame pixels per dm, less where crops are smaller than the frame."""
        coeffs, rows = self.source.coeffs, self.source.rows[self.train_indices]
        in_frame = coeffs.camera.fx / (CAMERA_DISTANCE - coeffs.translation[rows, 2])
        sides = np.array([self.source.crop_metadata.region(int(row)).side for row in rows])
        return float(np.median(in_frame * np.minimum(1.0, self.source.crop_size / sides)))

    def _canonical_box(self) -> CanonicalBox:
        """Cube around the part of the canonical head that any stored frame could ask for."""
        weights = self.face_model.region_weights[self.region].numpy()
        points = self.face_model.canonical_vertices.numpy()
        inside = points[weights > 0]
        room = 0.25 * (inside.max(axis=0) - inside.min(axis=0)).max()  # margin pixels lie on the skin around the region
        near = points[((points > inside.min(axis=0) - room) & (points < inside.max(axis=0) + room)).all(axis=1)]
        return CanonicalBox.around(near.min(axis=0), near.max(axis=0))

    def _build_rays(self, ray_stride: int, progress: Progress) -> RayTable:
        flatten = functools.partial(self._flatten, stride=ray_stride)
        parts = self.cast(self.train_indices, flatten, progress)
        if not parts:
            raise CheckpointError(f"{self.source.crops_dir}: no crop shows the face; prepare the video again")
        best_view = _best_view(parts)
        for number, part in enumerate(parts):  # one by one: all rays of a long clip are several GB
            kept = good_views(part[0].float() / POSITION_STEPS, part[QUALITY], best_view)
            parts[number] = tuple(column[kept] for column in part)
        position, direction, rgb, pixel, frame, mouth, eyes = (
            torch.cat([part[column] for part in parts]) for column in range(len(parts[0])) if column != QUALITY
        )
        starts = torch.searchsorted(frame, torch.arange(len(self.train_indices) + 1, dtype=frame.dtype))
        groups = [RayGroup.where(chosen, starts) for chosen in (mouth, eyes)]
        row = torch.from_numpy(self.source.rows[self.train_indices])
        return RayTable(position, direction, rgb, pixel, starts, row, groups[0], groups[1], best_view)

    def cast(self, indices: NDArray[np.int64], use: Callable[[int, FrameRays], T], progress: Progress) -> list[T]:
        """Cast stored frames on threads.

        Args:
            indices: stored frames.
            use: called on a thread with the running number in ``indices`` and the frame.
            progress: told about the frames.

        Returns:
            What ``use`` made of those that show the face, in order.
        """

        def work(number: int) -> T | None:
            frame = self.frame_rays(int(indices[number]))
            return use(number, frame) if frame is not None and frame.learn.any() else None

        answers = []
        # numpy and OpenCV release the interpreter in their inner loops, so threads share the work
        with ThreadPoolExecutor(max_workers=min(MOST_CASTERS, os.cpu_count() or 1)) as pool:
            for number, answer in enumerate(pool.map(work, range(len(indices)))):
                progress("cast frames", number + 1, len(indices))
                if answer is not None:
                    answers.append(answer)
        return answers

    def _flatten(self, number: int, frame: FrameRays, stride: int) -> tuple[Tensor, ...]:
        """Position, direction, colour, pixel, frame, quality, whether on mouth, whether on eyes of one frame's rays."""
        position = self.unit_positions(frame.hits.canonical)
        keep = frame.learn & (np.abs(position).max(axis=-1) <= 1.0)
        if stride > 1:
            lattice = np.zeros_like(keep)
            lattice[number % stride :: stride, :] = True
            keep &= lattice | frame.mouth | frame.eyes
        rows, columns = np.nonzero(keep)
        pixel = np.stack([columns + frame.hits.bounds[0], rows + frame.hits.bounds[1]], axis=1)
        return (
            _to_int16(position[keep]),
            _to_int16(frame.hits.direction[keep]),
            torch.from_numpy(frame.rgb[keep]),
            torch.from_numpy(pixel.astype(np.int16)),
            torch.full((len(rows),), number, dtype=torch.int32),
            torch.from_numpy(frame.quality[keep]),
            torch.from_numpy(frame.mouth[keep]),
            torch.from_numpy(frame.eyes[keep]),
        )


def _best_view(parts: list[tuple[Tensor, ...]]) -> Tensor:
    """``best_view_cells`` over the rays of all frames, some frames at a time."""
    best = torch.zeros(CELLS, CELLS, CELLS, dtype=torch.uint8)
    for start in range(0, len(parts), FRAMES_AT_ONCE):
        some = parts[start : start + FRAMES_AT_ONCE]
        unit = torch.cat([part[0] for part in some]).float() / POSITION_STEPS
        best = torch.maximum(best, best_view_cells(unit, torch.cat([part[QUALITY] for part in some])))
    return best


def dilate(mask: NDArray[np.bool_], radius_px: int) -> NDArray[np.bool_]:
    """Grow a mask ``[h, w]`` by a disc."""
    if radius_px <= 0 or not mask.any():
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc)) > 0


def window_of(image: NDArray, bounds: Bounds) -> NDArray:
    """The window of an image ``[H, W, ...]``; ``bounds`` lies inside it."""
    x0, y0, x1, y1 = bounds
    return image[y0:y1, x0:x1]


def _to_int16(values: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.round(np.clip(values, -1, 1) * POSITION_STEPS).astype(np.int16))
