"""Motion → pixels: a trained person's region, rendered on a frame's own pixel grid.

Reads: a person's checkpoint. Nothing outside the asked region is rendered.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError
from modules.face_model.mesh_renderer import Bounds
from modules.face_model.model import FaceModel, Region
from modules.radnerfs.antialias import render_window
from modules.radnerfs.patch_renderer import PatchRenderer
from modules.radnerfs.surface import (
    LEAST_KNOWN,
    FacePose,
    PosedMesh,
    edge_radius_px,
    project_mesh,
    region_bounds,
    region_weight,
    soft_alpha,
    surface_hits,
    view_quality,
)
from modules.radnerfs.surface_batch import MARGIN_EDGES, MARGIN_PX, FaceFrames
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.device_patch import DevicePatch
from modules.structures.frames import FramePatch
from tasks.postnet.postnet import load_postnet
from tasks.radnerfs.radnerf import load_person

logger = logging.getLogger(__name__)

MAX_MAGNIFICATION = 1.3
"""A target face this much larger than the training one cannot be sharp."""


class IdentityRenderer:
    """Renders one person.

    Args:
        checkpoint_dir: what training wrote.
        face_model: the CPU model the coefficients belong to.
        device: ``auto``, ``cpu`` or ``cuda``.
        warn_of_size: say so when a face is rendered much larger than training showed it.
        postnet_ckpt: this person's post-net; None = none.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt or belongs to another face model.
    """

    def __init__(
        self,
        checkpoint_dir: Path,
        face_model: FaceModel,
        device: str = "auto",
        *,
        warn_of_size: bool = True,
        postnet_ckpt: Path | None = None,
    ) -> None:
        self.person, self.config, version = load_person(checkpoint_dir, pick_device(device))
        if version != face_model.version:
            raise CheckpointError(
                f"{checkpoint_dir} belongs to face model {version!r}, in use is {face_model.version!r}; "
                f"train the person again"
            )
        self.face_model = face_model
        self._warned_of_size = not warn_of_size
        self._patch_renderer: PatchRenderer | None = None
        self._postnet = None if postnet_ckpt is None else load_postnet(postnet_ckpt, version)

    def conditions(self, expression: NDArray[np.float32], lle_percent: float = 0.0) -> Tensor:
        """Condition windows ``[T, window, 204]`` of a whole motion; row t goes to ``render_patch`` of frame t.

        Args:
            expression: ``[T, E]``, consecutive frames.
            lle_percent: share of the motion that is rebuilt from the training frames, 0..1.
        """
        return self.person.condition_windows(self.face_model, expression, lle_percent, self._postnet)

    def render_patch(
        self,
        identity: NDArray[np.float32],
        expression: NDArray[np.float32],
        euler: NDArray[np.float32],
        translation: NDArray[np.float32],
        camera: CameraIntrinsics,
        cond_window: Tensor,
        source_expression: NDArray[np.float32] | None = None,
        region: Region = "lower_face",
    ) -> FramePatch:
        """Render a region in the frame of ``camera``; on CUDA as ``render_patches`` does, waiting for the answer.

        Args:
            identity: ``[I]``.
            expression: ``[E]`` the new one.
            euler: ``[3]`` rad.
            translation: ``[3]`` dm.
            camera: of the frame.
            cond_window: ``[window, 204]``, a row of ``conditions``.
            source_expression: ``[E]`` what the frame shows; its region is covered too.
            region: what to replace.

        Returns:
            The patch; alpha is 0 where no head is seen, or skin that training never saw. A region outside the frame
            gives a patch of one transparent pixel.
        """
        pose = FacePose(identity, expression, euler, translation)
        shown = None if source_expression is None else FacePose(identity, source_expression, euler, translation)
        size_wh = (camera.width, camera.height)
        return self.render_view(pose, camera.matrix(), size_wh, cond_window, shown, region)

    def render_view(
        self,
        pose: FacePose,
        matrix: NDArray[np.float64],
        size_wh: tuple[int, int],
        cond_window: Tensor,
        shown: FacePose | None = None,
        region: Region = "lower_face",
    ) -> FramePatch:
        """As ``render_patch``, for any image of the face.

        Args:
            pose: the head.
            matrix: ``[3, 3]`` camera matrix of the image; a crop's may be turned.
            size_wh: of the image, px.
            cond_window: ``[window, 204]``, a row of ``conditions``.
            shown: what the image shows; its region is covered too.
            region: what to replace.
        """
        if self.person.device.type == "cuda":
            frames = FaceFrames(
                pose.identity, pose.expression[None], pose.euler[None], pose.translation[None], matrix[None],
                size_wh, None if shown is None else shown.expression[None],
            )  # fmt: skip
            return self.render_patches(frames, cond_window[None], region)[0].to_patch()
        mesh = project_mesh(self.face_model, pose, matrix)
        source = project_mesh(self.face_model, shown, matrix) if shown else None
        radius_px = edge_radius_px(matrix, pose.translation)
        bounds = self._bounds(mesh, source, region, size_wh, round(MARGIN_EDGES * radius_px) + MARGIN_PX)
        if bounds is None:
            return FramePatch((0, 0, 1, 1), np.zeros((1, 1, 3), np.float32), np.zeros((1, 1), np.float32))
        self._check_size(float(matrix[0, 0]), pose.translation)
        hits = surface_hits(self.face_model, pose, matrix, bounds, region, mesh)
        alpha = hits.weight
        if shown is not None:
            alpha = np.maximum(alpha, surface_hits(self.face_model, shown, matrix, bounds, region, source).weight)
        quality = view_quality(self.face_model, mesh, hits, radius_px)
        quality = np.maximum(quality, region_weight(self.face_model, hits, "mouth"))  # lips are always replaced
        known = self.person.known(hits.canonical, quality)
        alpha = soft_alpha(alpha, hits.mask & (known > LEAST_KNOWN), radius_px) * known
        with torch.inference_mode():
            condition = self.person.encode(cond_window[None].to(self.person.device))[0]
        rgb = render_window(self.person, self.face_model, pose, matrix, hits, alpha > 0, condition)
        return FramePatch(bounds, rgb, alpha)

    def render_patches(
        self, frames: FaceFrames, cond_windows: Tensor, region: Region = "lower_face"
    ) -> list[DevicePatch]:
        """Render a region of ``B`` frames at once, on the person's device and without waiting for it.

        It runs on the CPU too, where it agrees with ``render_patch`` and is slower.

        Args:
            frames: the frames.
            cond_windows: ``[B, window, 204]``, rows of ``conditions``.
            region: what to replace.

        Returns:
            A patch per frame, see ``render_patch``; the rows of a patch are not adjacent in memory.
        """
        for camera, place in zip(frames.cameras, frames.translation, strict=True):
            self._check_size(float(camera[0, 0]), place)
        if self._patch_renderer is None:
            self._patch_renderer = PatchRenderer(self.person, self.face_model)
        return self._patch_renderer.render(frames, cond_windows, region)

    def _bounds(
        self,
        mesh: PosedMesh,
        source: PosedMesh | None,
        region: Region,
        size_wh: tuple[int, int],
        margin_px: int,
    ) -> Bounds | None:
        """Window around the region of both meshes."""
        weights = self.face_model.region_weights[region].numpy()
        windows = [region_bounds(m.pixels, weights, size_wh, margin_px) for m in (mesh, source) if m is not None]
        found = [window for window in windows if window is not None]
        if not found:
            return None
        low, high = np.min(found, axis=0), np.max(found, axis=0)
        return int(low[0]), int(low[1]), int(high[2]), int(high[3])

    def _check_size(self, focal_px: float, translation: NDArray[np.float32]) -> None:
        magnification = focal_px / (CAMERA_DISTANCE - float(translation[2])) / float(self.person.px_per_dm)
        if magnification > MAX_MAGNIFICATION and not self._warned_of_size:
            self._warned_of_size = True
            logger.warning(
                "the face is %.1f times larger than in training: it will look soft; train on this video", magnification
            )
