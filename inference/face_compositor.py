"""Put a rendered face back into its frame: colour matched, hands kept in front, edited in the planes.

Reads: a ``Frame``, a patch or a crop with its mask, optionally an ``OcclusionMask``.
Writes: a new ``Frame`` whose samples are the source's own wherever their plane's final alpha is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.crops import CropRegion, warp_affine
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask
from modules.video.colour import blend_patch, rgb_float_from_planes
from modules.video.colour_match import Field, RingConfig, apply_field, estimate_field

BlendMode = Literal["alpha", "seamless"]
Bounds = tuple[int, int, int, int]

RINGS: dict[BlendMode, RingConfig] = {
    "alpha": RingConfig(),
    "seamless": RingConfig(high=0.2, stiffness=0.0, outlier=3.0),
}
SMOOTHING_S: dict[BlendMode, float] = {"alpha": 0.4, "seamless": 0.0}
LONGEST_GAP_S = 1.0
SAME_FACE_IOU = 0.3
_SHRINK_BELOW = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class _Memory:
    """The colour field last applied, and when and where."""

    field: Field
    time_s: float
    bounds: Bounds


class FaceCompositor:
    """Composites one person's rendered face frame by frame; one compositor per face, because it remembers colour.

    Blend modes. Both blend with the patch's alpha in Y'CbCr and match low-frequency colour first:

    * ``alpha``: a smooth field of gains is fitted to the ring where the alpha is soft, with outliers (hair, a collar)
      weighed down, and follows the video slowly (``smoothing_s``, 0.4 s): steady, for faces rendered nearly right.
    * ``seamless``: the gains are Dirichlet values at the alpha's edge and harmonic inside, as in Poisson cloning, at
      full strength and frame by frame: hides a strongly wrong colour, but follows whatever lies at the edge and can
      flicker.

    Args:
        blend_mode: see above.
        smoothing_s: time constant over which colour follows; None takes the mode's own, 0 forgets nothing between
            frames because each frame stands alone.
        match_colour: False blends the patch as it was rendered.

    Raises:
        ValueError: for an unknown blend mode or a negative time.
    """

    def __init__(
        self, blend_mode: BlendMode = "alpha", *, smoothing_s: float | None = None, match_colour: bool = True
    ) -> None:
        if blend_mode not in get_args(BlendMode):
            raise ValueError(f"blend_mode must be one of {', '.join(get_args(BlendMode))}, got {blend_mode!r}")
        if smoothing_s is not None and smoothing_s < 0:
            raise ValueError(f"smoothing_s must not be negative, got {smoothing_s}")
        self.blend_mode: BlendMode = blend_mode
        self._ring = RINGS[blend_mode]
        self._smoothing_s = SMOOTHING_S[blend_mode] if smoothing_s is None else smoothing_s
        self._match_colour = match_colour
        self._memory: _Memory | None = None

    def reset(self) -> None:
        """Forget the colour of earlier frames; call it at cuts."""
        self._memory = None

    def state(self) -> dict[str, NDArray]:
        """The colour of earlier frames as arrays; empty when there is none."""
        memory = self._memory
        if memory is None:
            return {}
        return {"field": memory.field, "time_s": np.array(memory.time_s), "bounds": np.array(memory.bounds)}

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another compositor's ``state`` says."""
        self._memory = None
        if state:
            x0, y0, x1, y1 = (int(value) for value in state["bounds"])
            self._memory = _Memory(state["field"], float(state["time_s"]), (x0, y0, x1, y1))

    def composite(
        self, original_frame: Frame, generated_face: NDArray, crop_region: CropRegion, face_mask: NDArray
    ) -> Frame:
        """Put a face rendered in a crop back into its frame.

        Args:
            original_frame: the frame the crop was taken from.
            generated_face: RGB ``[S, S, 3]``, uint8 or float in 0..1, in crop pixels.
            crop_region: where the crop lies in the frame.
            face_mask: float ``[S, S]`` in 0..1 in crop pixels, 1 = the generated face.

        Raises:
            ValueError: when the face and its mask are not square and of one size.
        """
        patch = patch_from_crop(original_frame, generated_face, crop_region, face_mask)
        return original_frame if patch is None else self.composite_patch(original_frame, patch)

    def composite_with_hands(
        self,
        original_frame: Frame,
        generated_face: NDArray,
        crop_region: CropRegion,
        face_mask: NDArray,
        occlusion_mask: OcclusionMask,
    ) -> Frame:
        """As ``composite``, but what ``occlusion_mask`` covers stays the source's own.

        Args:
            original_frame: see ``composite``.
            generated_face: see ``composite``.
            crop_region: see ``composite``.
            face_mask: see ``composite``.
            occlusion_mask: in frame space at the frame's size, or in crop space at the crop's.

        Raises:
            ValueError: when sizes disagree.
        """
        patch = patch_from_crop(original_frame, generated_face, crop_region, face_mask)
        if patch is None:
            return original_frame
        return self.composite_patch(original_frame, patch, _in_frame(occlusion_mask, original_frame, crop_region))

    def composite_patch(self, frame: Frame, patch: FramePatch, occlusion: OcclusionMask | None = None) -> Frame:
        """Put a patch rendered on the frame's own pixel grid into it.

        Args:
            frame: the source frame.
            patch: the rendered piece with its soft alpha.
            occlusion: what stands in front of the face, in frame space; alpha becomes alpha · (1 - occlusion).

        Returns:
            A new frame; the same one when nothing of the patch is left to see.

        Raises:
            ValueError: when the patch or the mask does not fit the frame.
        """
        free = _free_of_occluders(frame, patch.bounds, occlusion)
        alpha = patch.alpha if free is None else patch.alpha * free
        if not (alpha > 0).any():
            return frame
        rgb = patch.rgb
        if self._match_colour:
            field = self._colour_field(frame, patch, free)
            rgb = patch.rgb if field is None else apply_field(patch.rgb, field)
        return blend_patch(frame, replace(patch, rgb=rgb, alpha=alpha))

    def _colour_field(self, frame: Frame, patch: FramePatch, free: NDArray[np.float32] | None) -> Field | None:
        """This frame's colour field, smoothed over time; None while nothing is known."""
        source = rgb_float_from_planes(frame, patch.bounds)
        weight = np.ones_like(patch.alpha) if free is None else free
        found = estimate_field(source, patch.rgb, patch.alpha, weight, self._ring)
        time_s = float(frame.time_s)
        before = self._memory
        if before is not None and not _continues(before, time_s, patch.bounds):
            before = None
        if found is None:
            return None if before is None else before.field
        if before is not None and self._smoothing_s > 0:
            share = np.float32(1 - math.exp(-(time_s - before.time_s) / self._smoothing_s))
            found = (before.field + share * (found - before.field)).astype(np.float32)
        self._memory = _Memory(found, time_s, patch.bounds)
        return found


def patch_from_crop(
    frame: Frame, generated_face: NDArray, crop_region: CropRegion, face_mask: NDArray
) -> FramePatch | None:
    """Resample a face and its mask from crop pixels onto the frame's grid; None when the crop lies outside.

    Crops much larger than their place in the frame are shrunk by area first, so fine detail does not alias.

    Raises:
        ValueError: when the face and its mask are not square and of one size.
    """
    size = generated_face.shape[0]
    if generated_face.shape != (size, size, 3) or face_mask.shape != (size, size):
        raise ValueError(
            f"face and mask must be [S, S, 3] and [S, S], got {generated_face.shape} and {face_mask.shape}"
        )
    height, width = frame.size_hw
    bounds = crop_region.bounding_box().pixel_bounds(width, height)
    if bounds is None:
        return None
    is_coded = generated_face.dtype == np.uint8
    rgb = generated_face.astype(np.float32) / 255 if is_coded else generated_face.astype(np.float32)
    mask = face_mask.astype(np.float32)
    if crop_region.side < _SHRINK_BELOW * size:
        size = max(round(crop_region.side), 2)
        rgb = cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    region_from_crop = _region_from_crop(crop_region, size, bounds)
    extent = (bounds[2] - bounds[0], bounds[3] - bounds[1])
    warped = warp_affine(rgb, region_from_crop, extent, flags=cv2.INTER_CUBIC)
    alpha = warp_affine(mask, region_from_crop, extent, border_mode=cv2.BORDER_CONSTANT)
    return FramePatch(bounds, np.clip(warped, 0, 1), np.clip(alpha, 0, 1))


def _region_from_crop(crop_region: CropRegion, size: int, bounds: Bounds) -> NDArray[np.float64]:
    """``[3, 3]`` map of crop pixels to pixels of the frame's region ``bounds``."""
    region_from_frame = np.eye(3)
    region_from_frame[:2, 2] = -bounds[0], -bounds[1]
    return region_from_frame @ np.linalg.inv(crop_region.crop_from_frame(size))


def _in_frame(mask: OcclusionMask, frame: Frame, crop_region: CropRegion) -> OcclusionMask:
    """The mask in frame space."""
    if mask.space == "frame":
        return mask
    size = mask.values.shape[0]
    if mask.values.shape != (size, size):
        raise ValueError(f"an occlusion mask in crop space must be square, got {mask.values.shape}")
    height, width = frame.size_hw
    frame_from_crop = _region_from_crop(crop_region, size, (0, 0, width, height))
    values = warp_affine(mask.values, frame_from_crop, (width, height), border_mode=cv2.BORDER_CONSTANT)
    return OcclusionMask(np.clip(values, 0, 1), "frame", mask.hands)


def _free_of_occluders(frame: Frame, bounds: Bounds, occlusion: OcclusionMask | None) -> NDArray[np.float32] | None:
    """``1 - occlusion`` over ``bounds``, or None when nothing is in front."""
    if occlusion is None:
        return None
    if occlusion.space != "frame" or occlusion.values.shape != frame.size_hw:
        found = f"{occlusion.space} {occlusion.values.shape}"
        raise ValueError(f"the occlusion mask must be in frame space at {frame.size_hw}, got {found}")
    x0, y0, x1, y1 = bounds
    return 1 - occlusion.values[y0:y1, x0:x1]


def _continues(memory: _Memory, time_s: float, bounds: Bounds) -> bool:
    """Whether a frame goes on where the last one stopped: soon after it, and the face about where it was."""
    ax0, ay0, ax1, ay1 = memory.bounds
    bx0, by0, bx1, by1 = bounds
    shared = max(min(ax1, bx1) - max(ax0, bx0), 0) * max(min(ay1, by1) - max(ay0, by0), 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    return 0 <= time_s - memory.time_s <= LONGEST_GAP_S and shared / union >= SAME_FACE_IOU
