"""Motion → pixels: a trained person's region, rendered on a frame's own pixel grid.

Reads: a person's checkpoint. Nothing outside the asked region is rendered.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
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
from modules.radnerfs.skin_motion import FaceInMotion, FacePlaces, SkinMotion, margin_of_motion, skin_motion
from modules.radnerfs.surface import (
    LEAST_KNOWN,
    FacePose,
    PosedMesh,
    SurfaceHits,
    edge_radius_px,
    in_whole_steps,
    project_mesh,
    region_bounds,
    region_weight,
    soft_alpha,
    surface_hits,
    view_quality,
)
from modules.radnerfs.surface_batch import MARGIN_EDGES, MARGIN_PX, FaceFrames, posed_meshes
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.carried_patch import CarriedPatch
from modules.structures.device_patch import DevicePatch
from modules.structures.frames import FramePatch
from modules.video.delta_transfer import WINDOW_STEP
from tasks.postnet.postnet import load_postnet
from tasks.radnerfs.radnerf import load_person

logger = logging.getLogger(__name__)

MAX_MAGNIFICATION = 1.3
"""A target face this much larger than the training one cannot be sharp."""
SPARE_EDGES = 4.0
"""Of the room for the region's soft edge: nothing changes there, except below a chin."""


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
        self._places = FacePlaces.of(face_model)

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
        self, frames: FaceFrames, cond_windows: Tensor, region: Region = "lower_face", *, everything: bool = False
    ) -> list[DevicePatch]:
        """Render a region of ``B`` frames at once, on the person's device and without waiting for it.

        It runs on the CPU too, where it agrees with ``render_patch`` and is slower.

        Args:
            frames: the frames.
            cond_windows: ``[B, window, 204]``, rows of ``conditions``.
            region: what to replace.
            everything: see ``PatchRenderer.render``.

        Returns:
            A patch per frame, see ``render_patch``; the rows of a patch are not adjacent in memory.
        """
        for camera, place in zip(frames.cameras, frames.translation, strict=True):
            self._check_size(float(camera[0, 0]), place)
        if self._patch_renderer is None:
            self._patch_renderer = PatchRenderer(self.person, self.face_model)
        return self._patch_renderer.render(frames, cond_windows, region, everything=everything)

    def render_everything(self, frames: FaceFrames, cond_windows: Tensor, region: Region) -> list[DevicePatch]:
        """As ``render_patches``, but all that a difference of motions in ``region`` may need, with an alpha of 0 or 1.

        Args:
            frames: without what they show: each row is a face by itself.
            cond_windows: see ``render_patches``.
            region: that may change.
        """
        painted: Region = "lower_face" if region == "mouth" else region
        return self.render_patches(frames, cond_windows, painted, everything=True)

    def motion_windows(self, frames: FaceFrames, region: Region) -> tuple[NDArray[np.int64], Tensor]:
        """The windows that ``render_motion`` looks at, and the meshes in them.

        Args:
            frames: ``B`` frames with what they show.
            region: what may change.

        Returns:
            Bounds int64 ``[B, 4]`` x0, y0, x1, y1 px, all 0 where the region lies outside the frame; and head-space
            vertices float32 ``[2·B, V, 3]`` dm on the CPU, those of the new expressions first.
        """
        meshes, count = posed_meshes(self.face_model, frames), len(frames)
        bounds = np.zeros((count, 4), np.int64)
        for row, edge_px in enumerate(frames.edge_px):
            new, old = meshes[row], meshes[count + row]
            bounds[row] = self._motion_bounds(new, old, region, frames.size_wh, float(edge_px)) or (0, 0, 0, 0)
        return bounds, torch.from_numpy(np.stack([mesh.head for mesh in meshes]))

    def render_motion(
        self,
        new: FacePose,
        old: FacePose,
        camera: CameraIntrinsics,
        cond_windows: Tensor,
        region: Region = "lower_face",
        made: Sequence[FramePatch] | None = None,
    ) -> CarriedPatch | None:
        """Render a region under a new expression and under the one that the frame shows, and how skin moves between.

        Args:
            new: what is to be shown.
            old: what is shown; the same head in the same place.
            camera: of the frame.
            cond_windows: ``[2, window, 204]`` rows of ``conditions`` of both, the new one first.
            region: what may change.
            made: both renderings, the new one first, when they are there already; None = they are made here.

        Returns:
            None where the region lies outside the frame.
        """
        matrix, size_wh = camera.matrix(), (camera.width, camera.height)
        meshes = [project_mesh(self.face_model, pose, matrix) for pose in (new, old)]
        radius_px = edge_radius_px(matrix, new.translation)
        bounds = self._motion_bounds(meshes[0], meshes[1], region, size_wh, radius_px)
        if bounds is None:
            return None
        self._check_size(camera.fx, new.translation)
        hits = [
            surface_hits(self.face_model, pose, matrix, bounds, region, mesh)
            for pose, mesh in zip((new, old), meshes, strict=True)
        ]
        motion = skin_motion(
            self.face_model, FaceInMotion(hits[0], hits[1], meshes[0], meshes[1], radius_px), self._places
        )
        known = self.person.known(hits[1].canonical, view_quality(self.face_model, meshes[1], hits[1], radius_px))
        if made is None and self.person.device.type == "cuda":
            made = self._on_device((new, old), camera, cond_windows, region)
        if made is not None:
            images = [_over_window(patch, bounds) for patch in made]
        else:
            images = [
                self._window(pose, matrix, hit, window)
                for pose, hit, window in zip((new, old), hits, cond_windows, strict=True)
            ]
        return _carried(images, motion, known, bounds, radius_px)

    def _window(
        self, pose: FacePose, matrix: NDArray[np.float64], hits: SurfaceHits, cond_window: Tensor
    ) -> NDArray[np.float32]:
        """The region of a window, ``[h, w, 3]``."""
        with torch.inference_mode():
            condition = self.person.encode(cond_window[None].to(self.person.device))[0]
        wanted = region_weight(self.face_model, hits, "lower_face") > 0
        return render_window(self.person, self.face_model, pose, matrix, hits, wanted | (hits.weight > 0), condition)

    def _on_device(
        self,
        poses: tuple[FacePose, FacePose],
        camera: CameraIntrinsics,
        cond_windows: Tensor,
        region: Region,
    ) -> list[FramePatch]:
        """Both poses' renderings, by ``render_patches``."""
        both = np.stack([pose.expression for pose in poses])
        frames = FaceFrames(
            identity=poses[0].identity,
            expression=both,
            euler=np.repeat(poses[0].euler[None], 2, axis=0),
            translation=np.repeat(poses[0].translation[None], 2, axis=0),
            cameras=np.tile(camera.matrix(), (2, 1, 1)),
            size_wh=(camera.width, camera.height),
        )
        return [patch.to_patch() for patch in self.render_everything(frames, cond_windows, region)]

    def _motion_bounds(
        self, new: PosedMesh, old: PosedMesh, region: Region, size_wh: tuple[int, int], edge_px: float
    ) -> Bounds | None:
        """Window around the region and everything that moves with it, of whole ``WINDOW_STEP`` where there is room."""
        spare = round(SPARE_EDGES * edge_px)
        margin_px = margin_of_motion(self.face_model, new, old, edge_px) - spare
        bounds = self._bounds(new, old, region, size_wh, margin_px)
        if bounds is None:
            return None
        x0, y0, x1, y1 = bounds
        return in_whole_steps((x0, y0, x1, min(y1 + spare, size_wh[1])), size_wh, WINDOW_STEP)

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


def _over_window(patch: FramePatch, bounds: Bounds) -> NDArray[np.float32]:
    """A patch's colours over a window ``[h, w, 3]``, black where it has none."""
    x0, y0, x1, y1 = bounds
    image = np.zeros((y1 - y0, x1 - x0, 3), np.float32)
    left, top, right, bottom = patch.bounds
    ax0, ay0, ax1, ay1 = max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)
    if ax0 < ax1 and ay0 < ay1:
        image[ay0 - y0 : ay1 - y0, ax0 - x0 : ax1 - x0] = patch.rgb[ay0 - top : ay1 - top, ax0 - left : ax1 - left]
    return image


def _carried(
    images: list[NDArray[np.float32]], motion: SkinMotion, known: NDArray[np.float32], bounds: Bounds, edge_px: float
) -> CarriedPatch:
    """Both renderings (the new one first) with the motion; ``known [h, w]`` says how far the second is believed."""
    return CarriedPatch(
        patch=FramePatch(bounds, images[0], motion.region),
        shown=images[1],
        flow=motion.flow,
        rendered=motion.rendered,
        paintable=motion.paintable,
        compared=motion.compared * known,
        matched=motion.matched * known,
        mouth_shown=motion.mouth_shown,
        edge_px=edge_px,
    )
