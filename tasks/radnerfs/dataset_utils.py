"""The prepared clip as flat arrays of rays: every pixel of every frame is cast onto the fitted head once, at load.

Reads: ``trainval_dataset.npz`` and its crops. A training step then only indexes arrays, on the CPU or whole on a GPU.
"""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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
from modules.radnerfs.trust import best_view_cells, good_views
from modules.structures.cameras import CAMERA_DISTANCE
from modules.structures.dataset import NeRFDataset

POSITION_STEPS = 32767
"""Positions and directions are kept as int16 over -1..1: 3e-5 of the field's cube, at half the memory of float32."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameRays:
    """What one crop teaches.

    Attributes:
        hits: the window of the crop around the region.
        learn: bool ``[h, w]`` pixels to learn from (on the head, near the region, nothing in front).
        mouth: bool ``[h, w]`` those on or around the mouth.
        rgb: uint8 ``[h, w, 3]``.
        quality: float32 ``[h, w]`` how well each pixel shows its place on the head, 0..1.
    """

    hits: SurfaceHits
    learn: NDArray[np.bool_]
    mouth: NDArray[np.bool_]
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


@dataclass(frozen=True, slots=True, eq=False)
class RayTable:
    """All training rays of a clip, flat and frame after frame.

    Attributes:
        position: int16 ``[P, 3]`` in the field's cube. direction: int16 ``[P, 3]``. rgb: uint8 ``[P, 3]``.
        row: int32 ``[P]`` clip row (which condition). frame: int32 ``[P]`` running number of the training frame.
        mouth: int64 ``[Q]`` the rays on or around the mouth.
        best_view: uint8 ``[G, G, G]`` how well the best frame shows each cell of the cube; worse views are left out.
    """

    position: Tensor
    direction: Tensor
    rgb: Tensor
    row: Tensor
    frame: Tensor
    mouth: Tensor
    best_view: Tensor

    def __len__(self) -> int:
        return len(self.position)

    def to(self, device: torch.device) -> RayTable:
        """The table on ``device``."""
        names = ("position", "direction", "rgb", "row", "frame", "mouth", "best_view")
        return RayTable(*(getattr(self, name).to(device) for name in names))


@dataclass(frozen=True, slots=True, eq=False)
class RayBatch:
    """Rays of one step: positions ``[N, 3]`` in the cube, unit directions, target colours 0..1, clip row and frame."""

    position: Tensor
    direction: Tensor
    rgb: Tensor
    row: Tensor
    frame: Tensor


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
        occluder = self.source.occluder(index)
        if occluder is not None:
            learn &= ~dilate(window_of(occluder, bounds), 3)
        rgb = window_of(self.source.crop(index), bounds)
        edge_px = edge_radius_px(camera_matrix, self.pose(index).translation)
        quality = view_quality(self.face_model, mesh, hits, edge_px)
        return FrameRays(hits, learn, mouth & learn, rgb, quality)

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
        parts: list[tuple[Tensor, ...]] = []

        def cast(number: int) -> tuple[Tensor, ...] | None:
            index = int(self.train_indices[number])
            frame = self.frame_rays(index)
            if frame is None or not frame.learn.any():
                return None
            return self._flatten(frame, number, int(self.source.rows[index]), ray_stride)

        # numpy and OpenCV release the interpreter in their inner loops, so threads share the work
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            for number, answer in enumerate(pool.map(cast, range(len(self.train_indices)))):
                progress("cast frames", number + 1, len(self.train_indices))
                if answer is not None:
                    parts.append(answer)
        if not parts:
            raise CheckpointError(f"{self.source.crops_dir}: no crop shows the face; prepare the video again")
        position, direction, rgb, row, frame, quality, mouth = (torch.cat(part) for part in zip(*parts, strict=True))
        unit = position.float() / POSITION_STEPS
        best_view = best_view_cells(unit, quality)
        kept = good_views(unit, quality, best_view)
        on_mouth = torch.nonzero(mouth[kept])[:, 0]
        return RayTable(position[kept], direction[kept], rgb[kept], row[kept], frame[kept], on_mouth, best_view)

    def _flatten(self, frame: FrameRays, number: int, row: int, stride: int) -> tuple[Tensor, ...]:
        """Columns of ``RayTable`` for one frame, then how well its rays show the skin and which lie on the mouth."""
        position = self.unit_positions(frame.hits.canonical)
        keep = frame.learn & (np.abs(position).max(axis=-1) <= 1.0)
        if stride > 1:
            lattice = np.zeros_like(keep)
            lattice[number % stride :: stride, :] = True
            keep &= lattice | frame.mouth
        count = int(keep.sum())
        return (
            _to_int16(position[keep]),
            _to_int16(frame.hits.direction[keep]),
            torch.from_numpy(frame.rgb[keep]),
            torch.full((count,), row, dtype=torch.int32),
            torch.full((count,), number, dtype=torch.int32),
            torch.from_numpy(frame.quality[keep]),
            torch.from_numpy(frame.mouth[keep]),
        )


def draw_batch(rays: RayTable, count: int, mouth_share: float, generator: torch.Generator) -> RayBatch:
    """Random rays of all frames: ``mouth_share`` of them on the mouth, the rest anywhere."""
    device = rays.position.device
    n_mouth = round(count * mouth_share) if len(rays.mouth) else 0
    anywhere = torch.randint(len(rays), (count - n_mouth,), generator=generator, device=device)
    if n_mouth:
        picked = torch.randint(len(rays.mouth), (n_mouth,), generator=generator, device=device)
        anywhere = torch.cat([rays.mouth[picked], anywhere])
    return gather(rays, anywhere)


def draw_labelled(rays: RayTable, count: int, generator: torch.Generator) -> tuple[RayBatch, Tensor]:
    """Random rays, evenly, and which of them ``[N]`` lie on the mouth."""
    index = torch.randint(len(rays), (count,), generator=generator, device=rays.position.device)
    place = torch.searchsorted(rays.mouth, index).clamp(max=max(len(rays.mouth) - 1, 0))
    on_mouth = rays.mouth[place] == index if len(rays.mouth) else torch.zeros_like(index, dtype=torch.bool)
    return gather(rays, index), on_mouth


def gather(rays: RayTable, index: Tensor) -> RayBatch:
    """Rays by number, as floats."""
    direction = rays.direction[index].float()
    return RayBatch(
        position=rays.position[index].float() / POSITION_STEPS,
        direction=direction / direction.norm(dim=1, keepdim=True),
        rgb=rays.rgb[index].float() / 255,
        row=rays.row[index].long(),
        frame=rays.frame[index].long(),
    )


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
