"""Batches of frames made ready for the device: windows around the face, cameras, and a person's mesh as tensors.

The few hundred vertices that say where a region lies are projected on the CPU, so the device is never waited for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.mesh_renderer import Bounds, vertex_normals
from modules.face_model.model import LABEL_MEMBRANE, FaceModel, Region
from modules.radnerfs.person import PersonField
from modules.radnerfs.surface import EDGE_DM, SILHOUETTE_EDGES, TEETH_ROOM_DM, PosedMesh
from modules.radnerfs.surface_tensors import SIZES, FaceTables, FrameTensors
from modules.structures.cameras import CAMERA_DISTANCE, rotation_matrices

MARGIN_EDGES, MARGIN_PX = 3, 2
"""The window reaches this many edge radii and pixels beyond the region."""
WINDOW_STEP_PX = 32
"""Windows are padded to multiples of this, so that batches share their sizes."""
MOUTH_STEP_PX = 16


@dataclass(frozen=True, slots=True, eq=False)
class FaceFrames:
    """``B`` frames of one head.

    Attributes:
        identity: float32 ``[I]``.
        expression: float32 ``[B, E]`` to be painted.
        euler: float32 ``[B, 3]`` rad.
        translation: float32 ``[B, 3]`` dm.
        cameras: float64 ``[B, 3, 3]`` matrices of the images, last row 0, 0, 1 (a crop's may rotate).
        size_wh: of the images.
        shown: float32 ``[B, E]`` the expression in the images, whose region is covered too; None = not covered.
    """

    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    translation: NDArray[np.float32]
    cameras: NDArray[np.float64]
    size_wh: tuple[int, int]
    shown: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.expression)

    @property
    def edge_px(self) -> NDArray[np.float64]:
        """Half width of the alpha's soft edge ``[B]`` (``surface.edge_radius_px``)."""
        matrix = self.cameras
        area = matrix[:, 0, 0] * matrix[:, 1, 1] - matrix[:, 0, 1] * matrix[:, 1, 0]
        scale = np.sqrt(np.abs(area))
        return EDGE_DM * scale / (CAMERA_DISTANCE - self.translation[:, 2].astype(np.float64))

    @property
    def meshes(self) -> NDArray[np.float32]:
        """Expressions of all meshes ``[N, E]``: the new ones, then those that are shown."""
        return self.expression if self.shown is None else np.concatenate([self.expression, self.shown])

    def rows(self, chosen: NDArray[np.int64]) -> FaceFrames:
        """Some of the frames."""
        shown = None if self.shown is None else self.shown[chosen]
        return FaceFrames(
            self.identity, self.expression[chosen], self.euler[chosen], self.translation[chosen], self.cameras[chosen],
            self.size_wh, shown,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """How the images of ``B`` frames see head space, float64.

    Attributes:
        pixel_from_head: ``[B, 3, 4]`` to pixels times depth, and depth.
        rays: ``[B, 3, 3]``: the head-space ray of an image point is ``x · row 0 + y · row 1 + row 2``.
    """

    pixel_from_head: NDArray[np.float64]
    rays: NDArray[np.float64]

    @classmethod
    def of(cls, frames: FaceFrames) -> Views:
        """Of some frames."""
        flip = np.array([1.0, -1.0, -1.0])  # the head's y and z point the other way than the camera's
        head_from_image = rotation_matrices(np.asarray(frames.euler, np.float64)) * flip  # X' = X · R
        moved = frames.translation * flip + [0, 0, CAMERA_DISTANCE]
        seen = np.concatenate([head_from_image.transpose(0, 2, 1), moved[:, :, None]], axis=2)
        rays = np.linalg.inv(frames.cameras).transpose(0, 2, 1) @ head_from_image.transpose(0, 2, 1)
        return cls(frames.cameras @ seen, rays.astype(np.float64))

    def rows(self, chosen: NDArray[np.int64]) -> Views:
        """Those of some frames."""
        return Views(self.pixel_from_head[chosen], self.rays[chosen])

    def seen_from(self, corners: NDArray[np.int64]) -> Views:
        """The same in windows that begin at ``corners [B, 2]`` px."""
        offset = corners[:, :, None].astype(np.float64)
        pixel_from_head, rays = self.pixel_from_head.copy(), self.rays.copy()
        pixel_from_head[:, :2] -= offset * pixel_from_head[:, 2:]
        rays[:, 2] += (offset * rays[:, :2]).sum(axis=1)
        return Views(pixel_from_head, rays)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Where the frames are looked at: int64 ``[B, 4]`` x0, y0, x1, y1 px; empty (all 0) where there is nothing.

    ``mouth`` holds what may see the mouth, in pixels of the window.
    """

    bounds: NDArray[np.int64]
    mouth: NDArray[np.int64]

    @property
    def filled(self) -> NDArray[np.int64]:
        """Frames that show something."""
        return np.flatnonzero(self.bounds[:, 2] > self.bounds[:, 0])

    def rows(self, chosen: NDArray[np.int64]) -> Windows:
        """Those of some frames."""
        return Windows(self.bounds[chosen], self.mouth[chosen])

    def box(self, frame: int) -> Bounds:
        """Bounds of a frame."""
        x0, y0, x1, y1 = (int(v) for v in self.bounds[frame])
        return x0, y0, x1, y1

    def shape(self) -> WindowShape:
        """Padded size that holds them all."""
        width, height = (self.bounds[:, 2:] - self.bounds[:, :2]).max(axis=0)
        mouth_width, mouth_height = (self.mouth[:, 2:] - self.mouth[:, :2]).max(axis=0)
        return WindowShape(
            _padded(height, WINDOW_STEP_PX), _padded(width, WINDOW_STEP_PX),
            _padded(mouth_height, MOUTH_STEP_PX), _padded(mouth_width, MOUTH_STEP_PX),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class WindowShape:
    """Padded sizes of a batch's windows and mouth boxes, px."""

    height: int
    width: int
    mouth_height: int
    mouth_width: int

    @property
    def n_samples(self) -> int:
        """Pixels of the window, and four rays for each of the mouth's."""
        return self.height * self.width + 4 * self.mouth_height * self.mouth_width

    def joined(self, other: WindowShape) -> WindowShape:
        """The smallest shape that holds both."""
        return WindowShape(
            max(self.height, other.height), max(self.width, other.width),
            max(self.mouth_height, other.mouth_height), max(self.mouth_width, other.mouth_width),
        )  # fmt: skip


def _padded(size: int, step: int) -> int:
    return max(-(-int(size) // step), 1) * step


class RegionOutline:
    """The vertices that bound a region and the mouth, on the CPU.

    Args:
        face_model: CPU model.
        identity: ``[I]``.
        region: key of ``face_model.region_weights``.
    """

    def __init__(self, face_model: FaceModel, identity: NDArray[np.float32], region: Region) -> None:
        inside = face_model.region_weights[region] > 0
        around_mouth = (face_model.region_weights["mouth"] > 0)[face_model.triangles].any(dim=1)
        mouth = torch.zeros_like(inside)
        mouth[face_model.triangles[around_mouth].flatten()] = True
        groups = [(own & other).nonzero()[:, 0] for own, other in ((inside, ~mouth), (inside, mouth), (~inside, mouth))]
        used = torch.cat(groups)
        self._region = slice(0, len(groups[0]) + len(groups[1]))
        self._mouth = slice(len(groups[0]), len(used))
        neutral = face_model.mean[used] + face_model.identity_basis[used] @ torch.as_tensor(identity)
        self._neutral = neutral.T.flatten()  # x of all, then y, then z
        self._basis = face_model.expression_basis[used].permute(2, 1, 0).flatten(1).contiguous()

    def windows(self, frames: FaceFrames, views: Views) -> Windows:
        """Where ``frames`` show the region, as the CPU renderer cuts it."""
        pixels = self._pixels(frames, views)  # [N, 2, V]
        margin = (np.rint(MARGIN_EDGES * frames.edge_px) + MARGIN_PX)[:, None]
        low, high = (v.reshape(-1, len(frames), 2) for v in _limits(pixels[..., self._region]))
        low, high = np.maximum(low - margin, 0), np.minimum(high + margin, frames.size_wh)
        filled = (low < high).all(axis=2, keepdims=True)  # [copies, B, 1]
        bounds = np.concatenate(
            [np.where(filled, low, np.inf).min(axis=0), np.where(filled, high, -np.inf).max(axis=0)], axis=1
        )
        bounds[np.isinf(bounds[:, 0])] = 0
        corner, size = bounds[:, :2], bounds[:, 2:] - bounds[:, :2]
        limits = _limits(pixels[: len(frames), :, self._mouth])
        mouth = [np.minimum(np.maximum(limit - corner, 0), size) for limit in limits]
        return Windows(bounds.astype(np.int64), np.concatenate(mouth, axis=1).astype(np.int64))

    def _pixels(self, frames: FaceFrames, views: Views) -> Tensor:
        """Image pixels float32 ``[N, 2, V]`` of the vertices of all meshes."""
        meshes = torch.from_numpy(np.ascontiguousarray(frames.meshes, dtype=np.float32))
        head = torch.addmm(self._neutral, meshes, self._basis).unflatten(1, (3, -1))
        matrices = torch.from_numpy(views.pixel_from_head).float().repeat(len(meshes) // len(frames), 1, 1)
        seen = torch.baddbmm(matrices[:, :, 3:], matrices[:, :, :3], head)
        return seen[:, :2] / seen[:, 2:]


def _limits(pixels: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Whole-pixel limits ``[N, 2]`` of the finite points in ``[N, 2, V]``; infinite, inverted where there are none."""
    low, high = (v.numpy() for v in torch.aminmax(pixels, dim=2))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        usable = pixels.isfinite().all(dim=1, keepdim=True)
        low = torch.where(usable, pixels, torch.inf).amin(dim=2).numpy()
        high = torch.where(usable, pixels, -torch.inf).amax(dim=2).numpy()
    return np.floor(low.astype(np.float64)), np.ceil(high.astype(np.float64))


def posed_meshes(face_model: FaceModel, frames: FaceFrames) -> list[PosedMesh]:
    """``surface.project_mesh`` of all meshes of some frames, those of the new expressions first.

    Args:
        face_model: CPU model.
        frames: ``B`` frames.
    """
    expressions = torch.from_numpy(np.ascontiguousarray(frames.meshes, dtype=np.float32))
    identity = torch.as_tensor(np.asarray(frames.identity), dtype=torch.float32)
    with torch.no_grad():
        head = face_model.vertices(identity, expressions).numpy()
    meshes, matrices = [], Views.of(frames).pixel_from_head
    for number, vertices_dm in enumerate(head):
        matrix = matrices[number % len(frames)]
        seen = vertices_dm.astype(np.float64) @ matrix[:, :3].T + matrix[:, 3]
        meshes.append(PosedMesh(seen[:, :2] / seen[:, 2:], seen[:, 2], vertices_dm))
    return meshes


def face_tables(
    face_model: FaceModel, person: PersonField, identity: NDArray[np.float32], region: Region
) -> FaceTables:
    """A head as tensors of the person's device.

    Raises:
        KeyError: when the region is unknown.
    """
    device = person.device
    membrane = face_model.labels == LABEL_MEMBRANE
    canonical = face_model.canonical_vertices
    normals = torch.from_numpy(vertex_normals(canonical.numpy(), face_model.triangles.numpy())).float()
    weights = [face_model.region_weights[region], membrane.float()]
    attributes = torch.cat(
        [canonical, *(w[:, None] for w in weights), normals, face_model.region_weights["mouth"][:, None]], dim=1
    )
    neutral = face_model.mean + face_model.identity_basis @ torch.as_tensor(identity)
    place = canonical[membrane].mean(dim=0) - torch.tensor([0.0, 0.0, TEETH_ROOM_DM])
    return FaceTables(
        triangles=face_model.triangles.int().to(device).contiguous(),
        attributes=attributes.float().to(device).contiguous(),
        neutral=neutral.flatten().to(device),
        basis=face_model.expression_basis.flatten(0, 1).T.contiguous().to(device),
        teeth_origin=neutral[membrane].mean(dim=0).to(device),
        teeth_place=place.to(device),
        box_center=person.box_center.detach().float().clone(),
        box_scale=person.box_scale.detach().float().clone(),
        trust=person.trust.float().div(255).contiguous(),
        best_view=person.best_view.float().div(255).contiguous(),
    )


def frame_arrays(frames: FaceFrames, views: Views, windows: Windows) -> dict[str, NDArray]:
    """What ``FrameTensors`` holds, as arrays named like its fields."""
    in_window, edge_px = views.seen_from(windows.bounds[:, :2]), frames.edge_px
    sizes = np.zeros((len(frames), SIZES), np.int32)
    sizes[:, :2] = windows.bounds[:, 2:] - windows.bounds[:, :2]
    sizes[:, 2:4] = windows.mouth[:, :2]
    sizes[:, 4] = np.maximum(np.rint(edge_px), 1)
    sizes[:, 5] = np.ceil(SILHOUETTE_EDGES * edge_px)
    return {
        "expression": np.ascontiguousarray(frames.meshes, dtype=np.float32),
        "pixel_from_head": in_window.pixel_from_head,
        "rays": in_window.rays.astype(np.float32),
        "edge_px": edge_px.astype(np.float32),
        "sizes": sizes,
    }


def vertices(face: FaceTables, frames: FrameTensors) -> Tensor:
    """Head-space vertices float32 ``[N, V, 3]`` dm of all meshes."""
    return torch.addmm(face.neutral, frames.expression, face.basis).unflatten(1, (-1, 3))
