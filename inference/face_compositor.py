"""Put a rendered face back into its frame: colour matched, hands kept in front, edited in the planes.

Reads: a ``Frame``, a patch or a crop with its mask, optionally an ``OcclusionMask``.
Writes: a new ``Frame`` whose samples are the source's own wherever their plane's final alpha is 0.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.carried_patch import CarriedPatch
from modules.structures.crops import CropRegion, warp_affine
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask
from modules.video.colour import blend_patch, rgb_float_from_planes
from modules.video.colour_follow import ColourFollower, FieldEstimator
from modules.video.colour_match import RingConfig, apply_field
from modules.video.delta_transfer import DeltaTransfer, in_source_light
from modules.video.linear_light import LightCurve
from modules.video.membrane import seamless, support
from modules.video.multiband import multiband
from modules.video.real_mouth import with_real_mouth, without_filmed
from modules.video.restoration import Restorer, restored
from modules.video.source_detail import SourceDetail

BlendMode = Literal["alpha", "multiband", "seamless", "neural", "delta"]
DEFAULT_BLEND_MODE: BlendMode = "delta"
BLEND_MODE_HELP = (
    "delta: the source's own pixels, moved and changed by what two renderings differ in; alpha: the rendering, softly "
    "edged; multiband: likewise, fine detail over a narrower edge; seamless: likewise, its border made the source's; "
    "neural: as alpha, its colours by a network that learns this person's light, once, in about a minute"
)
Bounds = tuple[int, int, int, int]

RINGS: dict[BlendMode, RingConfig] = {
    "alpha": RingConfig(),
    "multiband": RingConfig(),
    "seamless": RingConfig(),
    "neural": RingConfig(),
    "delta": RingConfig(),
}
SMOOTHING_S: dict[BlendMode, float] = dict.fromkeys(RINGS, 0.4)
SEAMS = {"multiband": multiband, "seamless": seamless}
"""Modes whose patch is fitted to its surroundings before it is blended."""
COLOUR_STATE = ("field", "time_s", "bounds")
_SHRINK_BELOW = 0.75
_HALF = 0.5


class FaceCompositor:
    """Composites one person's rendered face frame by frame; one compositor per face, because it remembers colour.

    Blend modes. All blend with the patch's alpha in Y'CbCr and match low-frequency colour first:

    * ``alpha``: a smooth field of gains is fitted to the ring where the alpha is soft, with outliers (hair, a collar)
      weighed down, and follows the video slowly (``smoothing_s``, 0.4 s): steady, for faces rendered nearly right.
    * ``multiband``: as ``alpha``, then coarse differences fade over the whole soft edge and fine ones over its inner
      half (``modules.video.multiband``): no doubled detail in the edge.
    * ``seamless``: as ``alpha``, then the border is made equal to the source's, and what it was off by is carried
      smoothly over the inside (``modules.video.membrane``), as Poisson cloning does: hides a strongly wrong colour, but
      follows whatever lies at the border and can flicker.
    * ``neural``: as ``alpha``, but the field is what a network says that was taught on this person's own frames
      (``modules.video.neural_blend``).
    * ``delta``: what differs between the renderings of the new and of the shown motion changes the source's own pixels,
      which move with the skin (``composite_carried``, ``modules.video.delta_transfer``). A patch without the shown
      motion is blended as by ``alpha``.

    Args:
        blend_mode: see above.
        smoothing_s: time constant over which colour follows; None takes the mode's own, 0 forgets nothing between
            frames because each frame stands alone.
        match_colour: False blends the patch as it was rendered.
        transfer: FFmpeg's number of the stream's transfer function; 2 = unspecified.
        restorer: of the mouth that mode ``delta`` renders; None = none.
        blender: that mode ``neural`` needs.

    Raises:
        ValueError: for an unknown blend mode, a missing blender or a negative time.
    """

    def __init__(
        self,
        blend_mode: BlendMode = "alpha",
        *,
        smoothing_s: float | None = None,
        match_colour: bool = True,
        transfer: int = 2,
        restorer: Restorer | None = None,
        blender: FieldEstimator | None = None,
    ) -> None:
        if blend_mode not in get_args(BlendMode):
            raise ValueError(f"blend_mode must be one of {', '.join(get_args(BlendMode))}, got {blend_mode!r}")
        if (blend_mode == "neural") is (blender is None):
            raise ValueError("a trained blender belongs to blend mode 'neural', and that mode needs one")
        if smoothing_s is not None and smoothing_s < 0:
            raise ValueError(f"smoothing_s must not be negative, got {smoothing_s}")
        self.blend_mode: BlendMode = blend_mode
        self._light = LightCurve.of(transfer)
        smoothing = SMOOTHING_S[blend_mode] if smoothing_s is None else smoothing_s
        self._colour = ColourFollower(RINGS[blend_mode], smoothing, self._light, blender)
        self._transfer, self._detail = DeltaTransfer(), SourceDetail()
        self._match_colour = match_colour
        self._restorer = restorer

    @property
    def light(self) -> LightCurve:
        """What coded values mean."""
        return self._light

    @property
    def has_device_twin(self) -> bool:
        """Whether ``edited_on_devices`` does the same in batches."""
        return self.blend_mode in ("alpha", "delta") and self._restorer is None

    def reset(self) -> None:
        """Forget the colour and the detail of earlier frames; call it at cuts."""
        self._colour.reset()
        self._transfer.reset()
        self._detail.reset()

    def state(self) -> dict[str, NDArray]:
        """What is known of earlier frames as arrays; empty when there are none."""
        return self._colour.state() | self._transfer.state() | self._detail.state()

    def resume(self, state: dict[str, NDArray]) -> None:
        """Remember what another compositor's ``state`` says."""
        self._colour.resume({name: array for name, array in state.items() if name in COLOUR_STATE})
        self._transfer.resume(state)
        self._detail.resume(state)

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
            source = rgb_float_from_planes(frame, patch.bounds)
            weight = np.ones_like(patch.alpha) if free is None else free
            field = self._colour.update(source, rgb, patch.alpha, weight, float(frame.time_s), patch.bounds)
            rgb = rgb if field is None else apply_field(rgb, field, self._light)
        if self.blend_mode in SEAMS:
            rgb, alpha = self._fitted(frame, replace(patch, rgb=rgb), free)
        return blend_patch(frame, replace(patch, rgb=rgb, alpha=alpha))

    def _fitted(
        self, frame: Frame, patch: FramePatch, free: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The patch's colours fitted to their surroundings, and the alpha to blend them with."""
        source, alpha = rgb_float_from_planes(frame, patch.bounds), support(patch.alpha)
        if free is None:
            return SEAMS[self.blend_mode](patch.rgb, source, patch.alpha), alpha
        # What stands in front is no surrounding: there the patch is its own.
        source = np.where(free[..., None] > _HALF, source, patch.rgb)
        return SEAMS[self.blend_mode](patch.rgb, source, patch.alpha), alpha * free

    def composite_carried(
        self, frame: Frame, carried: CarriedPatch, occlusion: OcclusionMask | None = None
    ) -> tuple[Frame, FramePatch]:
        """Change a frame's own pixels by what two renderings of its face differ in.

        Args:
            frame: the source frame.
            carried: the renderings, and how skin moves between them.
            occlusion: see ``composite_patch``.

        Returns:
            A new frame (the same one where nothing changes), and the patch that was blended into it, black where it
            has no alpha; its alpha does not know of occluders.

        Raises:
            ValueError: when the patch or the mask does not fit the frame.
        """
        bounds, time_s = carried.patch.bounds, float(frame.time_s)
        part = self._transfer.part(carried, _free_of_occluders(frame, bounds, occlusion))
        free, source = part.free, rgb_float_from_planes(frame, part.carried.patch.bounds)
        lit = self._detail.sharpened(source, in_source_light(source, part, self._light), free, time_s)
        lit = with_real_mouth(source, lit, free)
        if self._restorer is not None:
            rgb = restored(lit.patch.rgb, lit.rendered, self._restorer)
            lit = replace(lit, patch=replace(lit.patch, rgb=rgb))
        patch = self._transfer.patch(source, replace(part, carried=lit), time_s)
        patch = self._detail.as_filmed(source, without_filmed(lit), patch, free, frame, bounds)
        seen = patch if free is None else replace(patch, alpha=patch.alpha * free)
        return blend_patch(frame, seen), part.over_window(patch)


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
