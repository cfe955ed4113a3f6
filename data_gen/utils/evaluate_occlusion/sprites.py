"""Pictures of solids with exact coverage, and how they are put over a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_occlusion.solids import Solid
from modules.face_model.mesh_renderer import interpolate, rasterize, vertex_normals
from modules.structures.crops import warp_affine

SUPERSAMPLED = 3
"""Samples along each side of a sprite's pixel."""
MARGIN_PX = 3
_FAR_DM = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A solid seen from one side.

    Attributes:
        rgba: float32 ``[h, w, 4]``, colour times coverage, and coverage 0..1.
        origin_px: (x, y) of the solid's origin in it.
        px_per_dm: its scale.
    """

    rgba: NDArray[np.float32]
    origin_px: tuple[float, float]
    px_per_dm: float


def paint_sprite(
    solid: Solid,
    px_per_dm: float,
    *,
    euler_rad: tuple[float, float, float] = (0.0, 0.0, 0.0),
    light: tuple[float, float, float] = (0.3, 0.5, 0.9),
    ambient: float = 0.5,
) -> Sprite:
    """See a solid in parallel projection.

    Args:
        solid: what is seen.
        px_per_dm: scale of the picture.
        euler_rad: turns about x, y and z, applied in this order.
        light: direction to the lamp.
        ambient: share of the light that comes from everywhere.
    """
    vertices = solid.vertices @ turned(euler_rad).T
    fine = px_per_dm * SUPERSAMPLED
    low = np.floor(np.array([vertices[:, 0].min(), -vertices[:, 1].max()]) * px_per_dm) - MARGIN_PX
    high = np.ceil(np.array([vertices[:, 0].max(), -vertices[:, 1].min()]) * px_per_dm) + MARGIN_PX
    width, height = (high - low).astype(int)
    pixels = np.stack([vertices[:, 0], -vertices[:, 1]], axis=1) * fine - low * SUPERSAMPLED
    fragments = rasterize(
        pixels, _FAR_DM - vertices[:, 2], solid.triangles, (0, 0, int(width) * SUPERSAMPLED, int(height) * SUPERSAMPLED)
    )
    rest = solid.vertices if solid.rest is None else solid.rest
    normals = vertex_normals(vertices, solid.triangles)
    seen = interpolate(fragments, solid.triangles, np.concatenate([rest, normals], axis=1))[fragments.covered]
    rgba = np.zeros((*fragments.covered.shape, 4), dtype=np.float32)
    rgba[fragments.covered, :3] = _lit(solid, seen[:, :3], seen[:, 3:], light, ambient)
    rgba[fragments.covered, 3] = 1.0
    small = cv2.resize(rgba, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    return Sprite(np.asarray(small, np.float32), (float(-low[0]), float(-low[1])), px_per_dm)


def turned(euler_rad: tuple[float, float, float]) -> NDArray[np.float64]:
    """``[3, 3]`` rotation about x, then y, then z."""
    matrix = np.eye(3)
    for axis, angle in enumerate(euler_rad):
        cos, sin = math.cos(angle), math.sin(angle)
        one = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        one[i, i] = one[j, j] = cos
        one[i, j], one[j, i] = -sin, sin
        matrix = one @ matrix
    return matrix


def _lit(
    solid: Solid,
    rest: NDArray[np.floating],
    normals: NDArray[np.floating],
    light: tuple[float, float, float],
    ambient: float,
) -> NDArray[np.floating]:
    unit = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    unit = unit * np.where(unit[:, 2:] < 0, -1.0, 1.0)  # the inside of a cup is lit like an outside
    lamp = np.array(light) / np.linalg.norm(light)
    half = lamp + np.array([0.0, 0.0, 1.0])
    diffuse = np.clip(unit @ lamp, 0, None)
    gloss = solid.gloss * np.clip(unit @ (half / np.linalg.norm(half)), 0, None) ** 20
    return np.clip(solid.color(rest) * (ambient + (1.15 - ambient) * diffuse)[:, None] + gloss[:, None], 0, 1)


def place_sprite(
    sprite: Sprite, at_px: tuple[float, float], px_per_dm: float, angle_rad: float, bounds: tuple[int, int, int, int]
) -> NDArray[np.float32]:
    """Colour times coverage, and coverage, ``[h, w, 4]`` over integer ``bounds`` (x0, y0, x1, y1) of a frame.

    Args:
        sprite: what is placed.
        at_px: where its origin goes, frame px.
        px_per_dm: its scale there.
        angle_rad: clockwise on screen.
        bounds: the part of the frame that is made.
    """
    scale = px_per_dm / sprite.px_per_dm
    cos, sin = scale * math.cos(angle_rad), scale * math.sin(angle_rad)
    matrix = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    matrix[:2, 2] = np.array(at_px) - bounds[:2] - matrix[:2, :2] @ np.array(sprite.origin_px)
    size = (bounds[2] - bounds[0], bounds[3] - bounds[1])
    return warp_affine(sprite.rgba, matrix, size, border_mode=cv2.BORDER_CONSTANT)
