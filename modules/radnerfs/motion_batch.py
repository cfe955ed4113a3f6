"""Windows of a batch cast on a head under two expressions: how its skin moves, and how far it is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.model import FaceModel, Region
from modules.radnerfs.backends.surface_ops import surface_ops
from modules.radnerfs.device_skin_motion import CastMeshes, DeviceMotion, MotionTables, skin_motions
from modules.radnerfs.patch_graphs import upload
from modules.radnerfs.patch_renderer import frame_tensors
from modules.radnerfs.person import PersonField
from modules.radnerfs.skin_motion import FacePlaces, lip_motion_px, shut_px
from modules.radnerfs.surface import SILHOUETTE_DM, SILHOUETTE_EDGES
from modules.radnerfs.surface_batch import WINDOW_STEP_PX, FaceFrames, Views, Windows, face_tables, frame_arrays
from modules.radnerfs.surface_tensors import SIZE_REACH, FrameTensors
from modules.video.device_grids import Grids


class MotionCaster:
    """Casts one head.

    Args:
        face_model: CPU model of the coefficients.
        person: whose field is believed or not; on the device.
        identity: ``[I]``.
        region: what may change.
    """

    def __init__(
        self, face_model: FaceModel, person: PersonField, identity: NDArray[np.float32], region: Region
    ) -> None:
        self.device = person.device
        self._ops = surface_ops(self.device)
        self._face = face_tables(face_model, person, identity, region)
        self._tables = MotionTables.of(face_model, region, self.device)
        self._places = FacePlaces.of(face_model)

    def motions(self, frames: FaceFrames, bounds: NDArray[np.int64], head: Tensor) -> tuple[DeviceMotion, Grids]:
        """How skin moves in the windows, ``compared`` and ``matched`` times what the field knows, and their sizes.

        Args:
            frames: ``B`` frames with what they show.
            bounds: int64 ``[B, 4]`` of the windows, none empty.
            head: float32 ``[2·B, V, 3]`` head-space vertices, those of the new expressions first.
        """
        windows = Windows(bounds, np.zeros_like(bounds))
        size_hw = np.stack([bounds[:, 3] - bounds[:, 1], bounds[:, 2] - bounds[:, 0]], axis=1)
        height, width = (int(-(-size // WINDOW_STEP_PX) * WINDOW_STEP_PX) for size in size_hw.max(axis=0))
        views = Views.of(frames)
        shut = shut_px(*self._pixels(views, head, self._places.ends))
        lip = lip_motion_px(*self._pixels(views, head, self._places.lip))
        with torch.no_grad():
            tensors = frame_tensors(upload(frame_arrays(frames, views, windows), self.device))
            head = head.to(self.device, non_blocking=True)
            screen = self._ops.project(head, tensors.pixel_from_head)
            keys = self._ops.rasterize(screen, self._tables.triangles, height, width)
            grids = Grids(size_hw, (height, width), self.device)
            cast = CastMeshes(keys, screen, grids, frames.edge_px, shut, lip)
            motion = skin_motions(self._tables, cast, self._ops)
            known = self._known(keys[len(frames) :], screen[len(frames) :], head[len(frames) :], tensors)
        return replace(motion, compared=motion.compared * known, matched=motion.matched * known), grids

    def _pixels(self, views: Views, head: Tensor, vertices: NDArray[np.int64]) -> NDArray[np.float64]:
        """Where some vertices stand under the new expressions and the shown ones, ``[2, B, N, 2]`` px of the frame."""
        places = head[:, torch.from_numpy(vertices)].numpy().astype(np.float64)
        matrices = np.concatenate([views.pixel_from_head] * 2)
        seen = places @ matrices[:, :, :3].transpose(0, 2, 1) + matrices[:, None, :, 3]
        return (seen[..., :2] / seen[..., 2:]).reshape(2, -1, len(vertices), 2)

    def _known(self, keys: Tensor, screen: Tensor, head: Tensor, frames: FrameTensors) -> Tensor:
        """How far the field is believed in what the frames show, ``[B, H, W]``; the mouth is no exception here."""
        surface = self._ops.surface_points(keys, screen, head, self._face, frames)
        steps = self._ops.silhouettes(surface.depth, frames.sizes, SILHOUETTE_DM)
        distance = self._ops.bounded_distance(steps, frames.sizes, SIZE_REACH)
        without_mouth = replace(surface, mouth=torch.zeros_like(surface.mouth))
        return self._ops.known(without_mouth, distance, frames.edge_px, self._face, SILHOUETTE_EDGES)
