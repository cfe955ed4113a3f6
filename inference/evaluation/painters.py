"""How the rows of a trial are painted: by a trained person under some motion, or by a frame taken from training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inference.face_compositor import BlendMode, FaceCompositor
from inference.frame_editor import FrameEditor, final_alpha
from modules.structures.crops import CropMetadata
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask
from tasks.radnerfs.retrieval import RetrievalBaseline


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """A frame with a new face.

    Attributes:
        frame: the whole frame.
        patch: what was put in, before occluders were taken out.
        occlusion: what stayed in front.
        alpha: float32 ``[h, w]`` over the patch's bounds, occluders taken out.
    """

    frame: Frame
    patch: FramePatch
    occlusion: OcclusionMask | None
    alpha: NDArray[np.float32]


class Painter(Protocol):
    """Paints frames of a clip in ascending order."""

    def paint(self, frame: Frame, block: int, first: Painted | None) -> Painted:
        """The frame with a new face.

        Args:
            frame: of the clip; its index is the clip row.
            block: the stretch of frames under test that it belongs to.
            first: what the trial's first painter made of the same frame; None for the first itself.
        """
        ...


class PersonPainter:
    """A trained person, the one of each block that has not seen it, under one motion."""

    def __init__(self, editors: Mapping[int, FrameEditor]) -> None:
        self._editors = editors

    def paint(self, frame: Frame, block: int, first: Painted | None) -> Painted:
        """Render and composite as every job does."""
        result, patch, occlusion = self._editors[block].edit(frame)
        return Painted(result, patch, occlusion, final_alpha(patch, occlusion))


class RetrievalPainter:
    """The training frame nearest in lip shape, warped onto the wanted landmarks, in the first painter's alpha.

    It gets the same colour match and stays behind the same occluders, so that only the face's pixels differ.

    Args:
        baselines: by block, over the frames that its person learnt from.
        wanted: ``[T, 478, 2]`` landmarks by clip row, frame pixels.
        crops: where each frame's crop lies.
        blend_mode: of the compositor.
    """

    def __init__(
        self,
        baselines: Mapping[int, RetrievalBaseline],
        wanted: NDArray[np.float32],
        crops: CropMetadata,
        blend_mode: BlendMode,
    ) -> None:
        self._baselines = baselines
        self._wanted = wanted
        self._crops = crops
        self._compositor = FaceCompositor(blend_mode=blend_mode)

    def paint(self, frame: Frame, block: int, first: Painted | None) -> Painted:
        """Retrieve, warp and composite."""
        if first is None:
            raise ValueError("retrieval paints into the alpha of another painter; it cannot be the first")
        row, bounds = frame.index, first.patch.bounds
        points = self._wanted[row]
        rgb = self._baselines[block].render_in_frame(points, self._crops.frame_from_crop(row), bounds)
        patch = replace(first.patch, rgb=rgb.astype(np.float32) / np.float32(255))
        return Painted(
            self._compositor.composite_patch(frame, patch, first.occlusion), patch, first.occlusion, first.alpha
        )
