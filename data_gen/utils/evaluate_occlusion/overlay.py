"""Put a thing before a face: sub-frame motion blur, contact shadow and the clip's own grain, with the exact mask."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from data_gen.utils.evaluate_occlusion import hand_mesh, solids
from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh
from data_gen.utils.evaluate_occlusion.specification import SHUTTER, Places, Pose2D, SequenceSpec
from data_gen.utils.evaluate_occlusion.sprites import Sprite, paint_sprite, place_sprite
from modules.structures.frames import Frame, FramePatch
from modules.structures.landmarks import OUTER_LIP, face_height_px
from modules.video.colour import blend_patch, rgb_float_from_planes

SUBFRAMES = 8
"""Instants that make one frame's picture of a thing."""
FACE_HEIGHT_DM = 1.53
"""Forehead to chin of a face, by which natural sizes become pixels."""
REFERENCE_FACE_PX = 300.0
"""Face height for which widths in pixels are given."""
WINDOW_HEIGHTS = 3.4
"""Side of the part of a frame whose masks are kept, over the face's height: more than any crop shows."""
CALM_FRAMES = 6.0
"""Standard deviation over which a face's place is averaged in time; held things do not tremble with landmarks."""
SHADOW_REACH = 0.06
"""Softness of a contact shadow and how far it falls, face heights."""
CHEEKS = (50, 280, 101, 330)
"""Landmarks on both cheeks, where a person's skin colour is read."""
_POSES = {
    "hand_flat": hand_mesh.FLAT,
    "hand_spread": hand_mesh.SPREAD,
    "hand_fist": hand_mesh.FIST,
    "hand_relaxed": hand_mesh.RELAXED,
    "finger": hand_mesh.POINTING,
}


@dataclass(frozen=True, slots=True, eq=False)
class OccludedFrame:
    """A frame with the thing in front, and its exact mask: uint8 over the sequence's window (255 = covered)."""

    frame: Frame
    mask: NDArray[np.uint8]


def places_of(points: NDArray[np.floating]) -> Places:
    """Where a face is through a clip of landmarks ``[T, 478, 2]`` px, calmed over time."""
    mouth = points[:, list(OUTER_LIP)].mean(axis=1).astype(np.float64)
    height = np.full(len(points), float(np.median(face_height_px(points))))
    return Places(gaussian_filter1d(mouth, CALM_FRAMES, axis=0, mode="nearest"), height)


def kept_window(places: Places, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of the frame whose masks are kept, (x0, y0, x1, y1) px."""
    half = WINDOW_HEIGHTS / 2 * float(places.height[0])
    low, high = places.mouth.min(axis=0) - half, places.mouth.max(axis=0) + half
    return (
        max(0, math.floor(low[0])), max(0, math.floor(low[1])),
        min(size_hw[1], math.ceil(high[0])), min(size_hw[0], math.ceil(high[1])),
    )  # fmt: skip


def solid_of(spec: SequenceSpec, mesh: HandMesh, skin: solids.Rgb) -> solids.Solid:
    """The thing a sequence shows; ``skin`` is the person's own colour, RGB 0..1."""
    if spec.kind in _POSES:
        center = solids.finger_tip(mesh) - 0.04 if spec.kind == "finger" else 0.9
        color = skin if spec.skin == "own" else spec.skin
        return solids.hand(mesh, color, _POSES[spec.kind], center_dm=center, sleeve=spec.sleeve)
    width = spec.width_px / REFERENCE_FACE_PX * FACE_HEIGHT_DM
    colored = {} if spec.color is None else {"color": spec.color}
    if spec.kind == "cup":
        return solids.cup(**colored)
    if spec.kind == "straw":
        return solids.straw(width, **colored)
    if spec.kind == "stem":
        return solids.stem_microphone(width)
    if spec.kind == "phone":
        return solids.phone() if spec.color is None else solids.phone(spec.color)
    return solids.microphone() if spec.kind == "microphone" else solids.sandwich(spec.seed)


def skin_color(frame: Frame, points: NDArray[np.floating]) -> solids.Rgb:
    """Median colour around the cheeks of landmarks ``[478, 2]`` px, RGB 0..1."""
    rgb = rgb_float_from_planes(frame)
    reach = max(2, round(0.03 * float(face_height_px(points))))
    patches = []
    for x, y in points[list(CHEEKS)]:
        row, column = math.floor(y), math.floor(x)
        patch = rgb[max(0, row - reach) : row + reach, max(0, column - reach) : column + reach]
        patches.append(patch.reshape(-1, 3))
    red, green, blue = (float(value) for value in np.median(np.concatenate(patches), axis=0))
    return red, green, blue


def grain_of(rgb: NDArray[np.float32]) -> float:
    """Standard deviation of a picture's grain (0..1), as its flat half shows it.

    The difference of Laplacians of J. Immerkær, Fast Noise Variance Estimation, CVIU 64(2), 1996, eq. 3, with the
    median of absolute responses in place of their mean, so that edges count little.
    """
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = cv2.filter2D(np.ascontiguousarray(rgb.mean(axis=2)), -1, mask)
    return float(np.median(np.abs(response)) * 1.4826 / 6)


def occluded_frames(
    frames: Iterable[Frame], points: NDArray[np.floating], spec: SequenceSpec, mesh: HandMesh, frame_time_s: float
) -> Iterator[OccludedFrame]:
    """Frames with the thing in front of the face.

    Args:
        frames: of the clip, numbered as ``points``.
        points: landmarks ``[T, 478, 2]`` frame px.
        spec: what passes where.
        mesh: the hand.
        frame_time_s: time between frames.
    """
    places, generator = places_of(points), np.random.default_rng(spec.seed)
    painter: _Painter | None = None
    for frame in frames:
        if painter is None:
            painter = _Painter(spec, mesh, frame, points[frame.index], kept_window(places, frame.size_hw))
        at = [
            spec.way.at((frame.index + SHUTTER * (step + 0.5) / SUBFRAMES) * frame_time_s) for step in range(SUBFRAMES)
        ]
        mouth, height = places.mouth[frame.index], float(places.height[frame.index])
        yield painter.paint(frame, at, (float(mouth[0]), float(mouth[1])), height, generator)


class _Painter:
    """Holds a sequence's sprite and puts it over frames."""

    def __init__(
        self,
        spec: SequenceSpec,
        mesh: HandMesh,
        first: Frame,
        points: NDArray[np.floating],
        window: tuple[int, int, int, int],
    ) -> None:
        self._spec, self._window = spec, window
        solid = solid_of(spec, mesh, skin_color(first, points))
        self._sprite = paint_sprite(
            solid, spec.size * float(face_height_px(points)) / FACE_HEIGHT_DM, euler_rad=spec.euler_rad
        )
        self._grain = grain_of(rgb_float_from_planes(first, window))

    def paint(
        self,
        frame: Frame,
        at: list[Pose2D | None],
        mouth: tuple[float, float],
        height: float,
        generator: np.random.Generator,
    ) -> OccludedFrame:
        shown = [_Placed(mouth[0] + p.x * height, mouth[1] + p.y * height, p.angle_rad) for p in at if p is not None]
        reach = 3 * SHADOW_REACH * height + 4 * self._spec.blur_px
        bounds = _bounds_of(self._sprite, shown, reach, frame.size_hw) if shown else None
        mask = np.zeros((self._window[3] - self._window[1], self._window[2] - self._window[0]), dtype=np.uint8)
        if bounds is None:
            return OccludedFrame(frame, mask)
        layer = np.zeros((bounds[3] - bounds[1], bounds[2] - bounds[0], 4), dtype=np.float32)
        for pose in shown:
            layer += place_sprite(self._sprite, (pose.x, pose.y), self._sprite.px_per_dm, pose.angle_rad, bounds)
        layer = np.asarray(cv2.GaussianBlur(layer / SUBFRAMES, (0, 0), self._spec.blur_px), np.float32)
        alpha = np.clip(layer[..., 3], 0, 1).astype(np.float32)
        rgb = self._over(rgb_float_from_planes(frame, bounds), layer[..., :3], alpha, height, generator)
        patch = FramePatch(bounds, rgb, np.ones_like(alpha))
        _paste(mask, self._window, np.round(alpha * 255).astype(np.uint8), bounds)
        return OccludedFrame(blend_patch(frame, patch), mask)

    def _over(
        self,
        behind: NDArray[np.float32],
        color: NDArray[np.float32],
        alpha: NDArray[np.float32],
        height: float,
        generator: np.random.Generator,
    ) -> NDArray[np.float32]:
        """The layer over the picture, with its shadow and with grain where it covers."""
        if self._spec.shadow > 0:
            reach = SHADOW_REACH * height
            moved = np.array([[1, 0, 0.4 * reach], [0, 1, reach]], np.float32)
            dark = cv2.warpAffine(alpha, moved, alpha.shape[::-1])
            soft = np.asarray(cv2.GaussianBlur(dark, (0, 0), reach), np.float32)
            behind = (behind * (1 - self._spec.shadow * soft)[..., None]).astype(np.float32)
        # grain survives an encoder as soft specks, stronger in luma than in colour
        noise = generator.standard_normal((*alpha.shape, 1)) + 0.3 * generator.standard_normal((*alpha.shape, 3))
        grain = np.asarray(cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 0.6)) * (1.8 * self._grain)
        mixed = behind * (1 - alpha[..., None]) + color + grain * alpha[..., None]
        return np.clip(mixed, 0, 1).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Placed:
    x: float
    y: float
    angle_rad: float


def _bounds_of(
    sprite: Sprite, placed: list[_Placed], reach: float, size_hw: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    """The part of the frame that the sprite may touch, None when it is out of the frame."""
    height, width = sprite.rgba.shape[:2]
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)]) - np.array(sprite.origin_px)
    found = []
    for pose in placed:
        cos, sin = math.cos(pose.angle_rad), math.sin(pose.angle_rad)
        found.append(corners @ np.array([[cos, sin], [-sin, cos]]) + [pose.x, pose.y])
    low, high = np.min(found, axis=(0, 1)) - reach, np.max(found, axis=(0, 1)) + reach
    x0, y0 = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
    x1, y1 = min(size_hw[1], math.ceil(high[0])), min(size_hw[0], math.ceil(high[1]))
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def _paste(
    mask: NDArray[np.uint8],
    window: tuple[int, int, int, int],
    values: NDArray[np.uint8],
    bounds: tuple[int, int, int, int],
) -> None:
    """Copy ``values`` over ``bounds`` into ``mask`` over ``window`` where they meet."""
    x0, y0, x1, y1 = (
        max(window[0], bounds[0]), max(window[1], bounds[1]), min(window[2], bounds[2]), min(window[3], bounds[3]),
    )  # fmt: skip
    if x0 < x1 and y0 < y1:
        part = values[y0 - bounds[1] : y1 - bounds[1], x0 - bounds[0] : x1 - bounds[0]]
        mask[y0 - window[1] : y1 - window[1], x0 - window[0] : x1 - window[0]] = part
