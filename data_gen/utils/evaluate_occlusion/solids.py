"""Things people hold before their mouths, as coloured meshes: cup, microphone, phone, straw, sandwich, hand, finger.

Units dm, y up, z towards the viewer. The origin is the point that is put somewhere: a rim, a tip, the middle of a palm.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_occlusion.hand_mesh import FLAT, FingerPose, HandMesh

Rgb = tuple[float, float, float]
AROUND = 48
"""Corners of everything round."""


@dataclass(frozen=True, slots=True, eq=False)
class Solid:
    """A mesh with colours that are worked out where it is seen.

    Attributes:
        vertices: float64 ``[V, 3]`` dm. triangles: int64 ``[F, 3]``, counter-clockwise seen from outside.
        color: places ``[P, 3]`` of the mesh at rest to RGB ``[P, 3]`` in 0..1.
        gloss: strength of the highlight.
        rest: places ``[V, 3]`` that ``color`` is asked about; None = the vertices.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int64]
    color: Callable[[NDArray[np.floating]], NDArray[np.floating]]
    gloss: float = 0.15
    rest: NDArray[np.float64] | None = None


def cup(color: Rgb = (0.82, 0.80, 0.76), band: Rgb = (0.20, 0.35, 0.55)) -> Solid:
    """A mug 0.8 dm wide with a coloured band and a handle; the origin is its rim's middle."""
    wall = [(0.0, -0.95), (0.36, -0.95), (0.39, -0.9), (0.40, 0.0), (0.37, 0.0), (0.35, -0.85), (0.0, -0.86)]
    body = _revolved(np.array(wall))
    handle = _tube(_arc(center=(0.40, -0.47), radius=0.27, start=-1.35, stop=1.35), 0.055)

    def paint(place: NDArray[np.floating]) -> NDArray[np.floating]:
        inside_band = (place[:, 1] > -0.7) & (place[:, 1] < -0.25) & (np.hypot(place[:, 0], place[:, 2]) > 0.365)
        dots = (np.sin(place[:, 0] * 28) * np.sin(place[:, 1] * 28) > 0.55) & inside_band
        return np.where(dots[:, None], color, np.where(inside_band[:, None], band, color))

    return _joined(paint, 0.35, body, handle)


def microphone(head: Rgb = (0.20, 0.20, 0.22), body: Rgb = (0.08, 0.08, 0.09)) -> Solid:
    """A hand microphone: a ball of wire mesh 0.52 dm wide on a tapered grip; the origin is the ball's middle."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, 17)[::-1]
    ball = np.stack([0.26 * np.cos(angles), 0.27 * np.sin(angles)], axis=1)[:-1]
    grip = np.array([(0.17, -0.25), (0.19, -0.34), (0.13, -0.42), (0.10, -1.9), (0.0, -1.92)])
    mesh = _revolved(np.concatenate([ball, grip])[::-1])

    def paint(place: NDArray[np.floating]) -> NDArray[np.floating]:
        across = np.arctan2(place[:, 0], place[:, 2])
        wires = (np.sin(across * 26) * np.sin(place[:, 1] * 95) > -0.1)[:, None]
        ring = (np.abs(place[:, 1] + 0.3) < 0.05)[:, None]
        ball_color = np.where(wires, np.array(head) * 1.9, np.array(head) * 0.7)
        return np.where(ring, (0.55, 0.55, 0.57), np.where((place[:, 1] > -0.25)[:, None], ball_color, body))

    return _joined(paint, 0.3, mesh)


def stem_microphone(width_dm: float = 0.07, foam: float = 0.16) -> Solid:
    """A headset's boom: a thin dark stem with a small ball of foam; the origin is the ball's middle."""
    stem = _tube(np.array([(0.0, 0.0, 0.0), (0.6, -0.06, 0.0), (1.2, 0.02, 0.0), (2.2, 0.4, 0.0)]), width_dm / 2)
    angles = np.linspace(-math.pi / 2, math.pi / 2, 13)
    ball = _revolved(np.stack([foam / 2 * np.cos(angles), foam / 2 * np.sin(angles)], axis=1))
    return _joined(_plain((0.10, 0.10, 0.11)), 0.1, stem, ball)


def phone(shell: Rgb = (0.10, 0.11, 0.14)) -> Solid:
    """A phone 0.72 by 1.5 dm, its back to the viewer with camera and mark; the origin is its middle."""
    mesh = _slab(_rounded_box(0.36, 0.75, 0.09), 0.08)

    def paint(place: NDArray[np.floating]) -> NDArray[np.floating]:
        x, y = place[:, 0], place[:, 1]
        color = np.tile(np.array(shell), (len(place), 1))
        bump = (np.abs(x - 0.17) < 0.14) & (np.abs(y - 0.53) < 0.16)
        color[bump] = np.array(shell) * 1.7
        for cy in (0.46, 0.60):
            color[np.hypot(x - 0.17, y - cy) < 0.055] = (0.02, 0.02, 0.03)
        color[np.hypot(x, y) < 0.07] = np.clip(np.array(shell) * 3.5, 0, 1)
        return color

    return _joined(paint, 0.4, mesh)


def straw(width_dm: float = 0.05, color: Rgb = (0.90, 0.20, 0.20)) -> Solid:
    """A striped straw; the origin is the end in the mouth and it goes down from there."""
    mesh = _revolved(np.array([(0.0, -2.4), (width_dm / 2, -2.4), (width_dm / 2, 0.0), (0.0, 0.0)]))

    def paint(place: NDArray[np.floating]) -> NDArray[np.floating]:
        turn = np.arctan2(place[:, 0], place[:, 2]) / (2 * math.pi)
        return np.where((np.mod(place[:, 1] / 0.22 + turn, 1) < 0.5)[:, None], color, (0.93, 0.93, 0.91))

    return _joined(paint, 0.3, mesh)


def sandwich(seed: int = 0) -> Solid:
    """Bread, lettuce, cheese and bread, 1.1 dm wide; the origin is its middle."""
    outline = _rounded_box(0.55, 0.40, 0.17)
    mesh = _slab(outline, 0.32)
    vertices = mesh[0]
    wave = 0.035 * np.sin(vertices[:, 0] * 19 + seed) * (np.abs(vertices[:, 1]) < 0.2)
    wobbly = vertices.copy()
    wobbly[:, 1] += wave + 0.02 * np.sin(vertices[:, 0] * 7 + seed)

    def paint(place: NDArray[np.floating]) -> NDArray[np.floating]:
        y = place[:, 1] + 0.03 * np.sin(place[:, 0] * 23 + seed)
        crumb = 0.92 + 0.08 * np.sin(place[:, 0] * 61 + seed) * np.sin(place[:, 1] * 53 + 2 * place[:, 0] * 31)
        color = np.array([0.80, 0.62, 0.40]) * crumb[:, None]
        for low, high, layer in (
            (-0.14, -0.06, (0.86, 0.36, 0.30)),
            (-0.06, 0.02, (0.95, 0.78, 0.30)),
            (0.02, 0.12, (0.35, 0.58, 0.20)),
        ):
            color[(y > low) & (y < high)] = layer
        crust = np.abs(place[:, 1]) > 0.34
        color[crust] *= 0.72
        return color

    solid = _joined(paint, 0.05, (wobbly, mesh[1]))
    return Solid(solid.vertices, solid.triangles, solid.color, solid.gloss, vertices)


def hand(
    mesh: HandMesh, skin: Rgb, pose: FingerPose = FLAT, *, center_dm: float = 0.9, sleeve: Rgb | None = None
) -> Solid:
    """The hand in a skin colour; the origin lies ``center_dm`` from the wrist towards the fingers."""
    vertices = mesh.posed(pose) - [0.0, center_dm, 0.0]
    rest = mesh.vertices

    def paint(place: NDArray[np.floating]) -> NDArray[np.floating]:
        x, y, z = place.T
        folds = 0.04 * np.sin(y * 31 + 3 * np.sin(x * 17)) * np.sin(z * 23 + x * 11)
        warm = np.clip((y - 0.9) * 0.5, 0, 0.35)[:, None] * np.array([0.06, -0.03, -0.03])
        color = np.array(skin) * (1 + folds)[:, None] + warm
        return (
            color
            if sleeve is None
            else np.where((y < -0.25)[:, None], np.array(sleeve) * (1 + 2 * folds)[:, None], color)
        )

    return Solid(vertices, mesh.triangles, paint, 0.08, rest)


def finger_tip(mesh: HandMesh) -> float:
    """Distance from the wrist to the tip of the pointing finger, dm: the origin of a hand that points."""
    return float(mesh.tails[mesh.names.index("finger2-3"), 1])


def _plain(color: Rgb) -> Callable[[NDArray[np.floating]], NDArray[np.floating]]:
    return lambda place: np.tile(np.array(color), (len(place), 1))


Mesh = tuple[NDArray[np.float64], NDArray[np.int64]]


def _joined(paint: Callable[[NDArray[np.floating]], NDArray[np.floating]], gloss: float, *parts: Mesh) -> Solid:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    vertices = np.concatenate([vertices for vertices, _ in parts])
    triangles = np.concatenate([ids + start for (_, ids), start in zip(parts, starts[:-1], strict=True)])
    return Solid(vertices, triangles, paint, gloss)


def _strip(rings: NDArray[np.float64]) -> Mesh:
    """Triangles between successive closed rings ``[R, A, 3]``."""
    n_rings, n_around = rings.shape[:2]
    ring, at = np.divmod(np.arange((n_rings - 1) * n_around), n_around)
    a, b = ring * n_around + at, ring * n_around + (at + 1) % n_around
    c, d = a + n_around, b + n_around
    return rings.reshape(-1, 3), np.concatenate([np.stack([a, b, d], 1), np.stack([a, d, c], 1)])


def _revolved(profile: NDArray[np.float64]) -> Mesh:
    """A profile ``[N, 2]`` of (radius, height) turned about the y axis, from below upwards on the outside."""
    angles = np.linspace(0, 2 * math.pi, AROUND, endpoint=False)
    rings = np.stack(
        [
            profile[:, :1] * np.sin(angles),
            np.repeat(profile[:, 1:], AROUND, axis=1),
            profile[:, :1] * np.cos(angles),
        ],
        axis=2,
    )
    return _strip(rings)


def _tube(points: NDArray[np.float64], radius: float) -> Mesh:
    """A round tube along points ``[N, 3]`` in the plane z = 0, smoothed between them."""
    at = np.linspace(0, len(points) - 1, 6 * len(points))
    line = np.stack([np.interp(at, np.arange(len(points)), points[:, k]) for k in range(3)], axis=1)
    line[1:-1] = (line[:-2] + 2 * line[1:-1] + line[2:]) / 4
    along = np.gradient(line, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.cross(along, [0.0, 0.0, 1.0])
    angles = np.linspace(0, 2 * math.pi, 16, endpoint=False)
    rings = line[:, None] + radius * (
        np.cos(angles)[None, :, None] * side[:, None] + np.sin(angles)[None, :, None] * np.array([0.0, 0.0, 1.0])
    )
    return _strip(rings)


def _arc(center: tuple[float, float], radius: float, start: float, stop: float) -> NDArray[np.float64]:
    angles = np.linspace(start, stop, 12)
    return np.stack([center[0] + radius * np.cos(angles), center[1] + radius * np.sin(angles), 0 * angles], axis=1)


def _rounded_box(half_width: float, half_height: float, corner: float) -> NDArray[np.float64]:
    """Outline ``[N, 2]`` of a rectangle with round corners, counter-clockwise."""
    angles = np.linspace(0, 2 * math.pi, 4 * 16, endpoint=False)
    x, y = np.cos(angles), np.sin(angles)
    return np.stack(
        [corner * x + np.sign(x) * (half_width - corner), corner * y + np.sign(y) * (half_height - corner)], axis=1
    )


def _slab(outline: NDArray[np.float64], half_depth: float) -> Mesh:
    """An outline ``[N, 2]`` given depth, with a fine front so that it can be bent; edges are bevelled."""
    shares = np.concatenate([np.linspace(0.02, 0.94, 8), [1.0]])
    front = [np.column_stack([outline * s, np.full(len(outline), half_depth * (1 if s < 1 else 0.6))]) for s in shares]
    back = [np.column_stack([outline * s, np.full(len(outline), -half_depth)]) for s in (1.0, 0.02)]
    return _strip(np.stack([*front, *back])[::-1])
