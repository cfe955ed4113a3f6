"""Paint the face model with procedural skin, lips, eyes, brows and teeth.

The pictures serve as ground truth: geometry, pose and masks are known exactly. They are used to find MediaPipe's points
on the mesh and as a synthetic speaker in tests, not to make anybody's face.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from modules.face_model.mesh_renderer import Fragments, interpolate, rasterize, vertex_normals
from modules.face_model.model import LABEL_EYE, LABEL_LIP, LABEL_MEMBRANE, FaceModel
from modules.face_model.projection import project, rotation_from_euler
from modules.structures.cameras import CameraIntrinsics

Rgb = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class HeadLook:
    """Colours (RGB 0..1) and light of a painted head; ``light`` points from the head to the lamp."""

    skin: Rgb = (0.80, 0.62, 0.52)
    lips: Rgb = (0.70, 0.36, 0.36)
    iris: Rgb = (0.32, 0.24, 0.16)
    brows: Rgb = (0.22, 0.16, 0.12)
    hair: Rgb = (0.20, 0.15, 0.11)
    clothes: Rgb = (0.25, 0.30, 0.42)
    background: Rgb = (0.42, 0.46, 0.50)
    light: tuple[float, float, float] = (0.3, 0.5, 0.9)
    ambient: float = 0.45
    texture_seed: int = 0

    @classmethod
    def random(cls, generator: np.random.Generator) -> HeadLook:
        """A plausible look."""
        tan = generator.uniform(0.35, 0.95)
        skin = np.array([0.90, 0.70, 0.59]) * tan + np.array([0.03, 0.0, -0.02])
        lips = skin * [0.90, 0.60, 0.66]
        light = (generator.uniform(-0.6, 0.6), generator.uniform(0.1, 0.7), 0.9)
        return cls(
            skin=_rgb(skin),
            lips=_rgb(lips),
            iris=_rgb(generator.uniform([0.12, 0.10, 0.06], [0.4, 0.35, 0.4])),
            brows=_rgb(skin * generator.uniform(0.2, 0.5)),
            hair=_rgb(skin * generator.uniform(0.1, 0.6)),
            clothes=_rgb(generator.uniform(0.05, 0.8, 3)),
            background=_rgb(generator.uniform(0.15, 0.75, 3)),
            light=light,
            ambient=float(generator.uniform(0.35, 0.6)),
            texture_seed=int(generator.integers(2**31)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PaintedHead:
    """A painted frame and its ground truth.

    Attributes:
        rgb: uint8 ``[H, W, 3]``. fragments: what each pixel sees.
        vertices_px: ``[V, 2]`` px. depth: ``[V]`` dm.
    """

    rgb: NDArray[np.uint8]
    fragments: Fragments
    vertices_px: NDArray[np.float64]
    depth: NDArray[np.float64]


class HeadPainter:
    """Paints one person.

    Args:
        model: on the CPU. identity: ``[I]`` float32. look: colours and light.
    """

    def __init__(self, model: FaceModel, identity: NDArray[np.floating], look: HeadLook) -> None:
        self._model, self._look = model, look
        self._identity = torch.from_numpy(np.ascontiguousarray(identity, dtype=np.float32))
        self._triangles = model.triangles.numpy()
        self._mean = model.mean.numpy()
        self._labels = model.labels.numpy()
        neutral = model.vertices(self._identity, torch.zeros(1, model.n_expression))[0].numpy()
        # the teeth belong to the skull (upper) and the jaw (lower): remember where they meet in this person
        self._lip_line = float(neutral[model.inner_lip.numpy(), 1].mean())
        self._jaw_drop = float(
            -model.expression_basis[model.inner_lip[len(model.inner_lip) // 2], 1, model.unit("jawOpen")]
        )
        self._eye_direction = _eye_directions(self._mean, self._labels)
        self._softness = _soft_label(self._labels == LABEL_LIP, self._triangles)
        self._noise = _noise_texture(look.texture_seed)

    def paint(
        self,
        expression: NDArray[np.floating],
        euler: NDArray[np.floating],
        translation: NDArray[np.floating],
        camera: CameraIntrinsics,
    ) -> PaintedHead:
        """Paint one frame of ``camera``'s size: expression ``[E]``, euler ``[3]`` rad, translation ``[3]`` dm."""
        pose = torch.from_numpy(np.stack([euler, translation]).astype(np.float64))
        row = torch.from_numpy(np.asarray(expression, dtype=np.float32))[None]
        shape = self._model.vertices(self._identity, row)[0].double()  # [V, 3]
        vertices_px, depth = (value[0].numpy() for value in project(shape[None], pose[:1], pose[1:], camera))
        fragments = rasterize(vertices_px, depth, self._triangles, (0, 0, camera.width, camera.height))
        rotation = rotation_from_euler(pose[0]).numpy()
        normals = vertex_normals(shape.numpy(), self._triangles) @ rotation
        attributes = np.concatenate(
            [self._mean, shape.numpy(), normals, self._eye_direction, self._softness[:, None]], axis=1
        )
        seen = interpolate(fragments, self._triangles, attributes)[fragments.covered]
        label = self._labels[self._triangles[fragments.triangle_id[fragments.covered]]]
        jaw_drop = float(expression[self._model.unit("jawOpen")]) * self._jaw_drop
        image = _background(camera.height, camera.width, self._look)
        _draw_behind(image, pose, camera, self._look)
        image[fragments.covered] = self._shade(seen, label, jaw_drop)
        image = cv2.GaussianBlur(image, (0, 0), 0.6)  # a lens: softens the stairs at the outline
        rgb = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
        return PaintedHead(rgb, fragments, vertices_px, depth)

    def _shade(self, seen: NDArray[np.floating], label: NDArray[np.int64], jaw_drop: float) -> NDArray[np.floating]:
        """Colours of pixels ``[P, 3]`` from their interpolated attributes ``[P, 13]``."""
        rest, place, normal, eye, lip = np.split(seen, [3, 6, 9, 12], axis=1)
        is_eye, is_membrane = (label == LABEL_EYE).all(axis=1), (label == LABEL_MEMBRANE).any(axis=1)
        look = self._look
        skin = _f32(look.skin) * (0.90 + 0.2 * self._noise_at(rest))[:, None]
        brow = _brow_weight(rest)[:, None]
        lips = np.clip(lip * 1.6 - 0.3, 0, 1)
        color = skin * (1 - lips) + _f32(look.lips) * lips
        hair = _hair_weight(rest)[:, None]
        color = color * (1 - hair) + _f32(look.hair) * hair * (0.8 + 0.4 * self._noise_at(rest * 3))[:, None]
        color = color * (1 - brow) + _f32(look.brows) * brow
        color[is_eye] = self._eye_color(eye[is_eye])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
        light = _f32(look.light) / np.float32(np.linalg.norm(look.light))
        diffuse = np.clip(normal @ light, 0, None)
        gloss = 0.12 * np.clip(normal @ _half_vector(light), 0, None) ** 24
        shaded = color * (look.ambient + (1.1 - look.ambient) * diffuse)[:, None] + gloss[:, None]
        shaded[is_membrane] = self._mouth_color(place[is_membrane], jaw_drop)
        return shaded.astype(np.float32)

    def _eye_color(self, direction: NDArray[np.floating]) -> NDArray[np.floating]:
        """Sclera, iris, pupil and a glint by the angle from the eyeball's front pole."""
        unit = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
        angle = np.arccos(np.clip(unit[:, 2], -1, 1))
        iris = np.clip((0.50 - angle) / 0.05, 0, 1)[:, None]
        pupil = np.clip((0.20 - angle) / 0.05, 0, 1)[:, None]
        color = _f32([0.88, 0.86, 0.84]) * (1 - iris) + _f32(self._look.iris) * iris
        return color * (1 - pupil) + 0.03 * pupil

    def _mouth_color(self, place: NDArray[np.floating], jaw_drop: float) -> NDArray[np.floating]:
        """Dark cavity with two rows of teeth at heights of the head ``place [P, 3]``."""
        upper_edge = self._lip_line - 0.012 - 0.6 * place[:, 0] ** 2
        lower_edge = self._lip_line - 0.030 - jaw_drop
        upper = np.clip((place[:, 1] - upper_edge) / 0.006, 0, 1)
        lower = np.clip((lower_edge - place[:, 1]) / 0.006, 0, 1)
        tooth = np.maximum(upper, 0.8 * lower) * np.clip((0.24 - np.abs(place[:, 0])) / 0.05, 0, 1)
        gaps = 1 - 0.25 * (np.abs(np.sin(np.pi * place[:, 0] / 0.075)) < 0.12)
        cavity = _f32([0.16, 0.05, 0.05])
        return cavity + (_f32([0.84, 0.80, 0.72]) * gaps[:, None] - cavity) * tooth[:, None]

    def _noise_at(self, rest: NDArray[np.floating]) -> NDArray[np.floating]:
        size = self._noise.shape[0]
        places = np.stack([(1.4 - rest[:, 1]) / 2.8, (rest[:, 0] + 1.2) / 2.4]) * size
        return map_coordinates(self._noise, places, order=1, mode="nearest")


def _f32(values: Sequence[float]) -> NDArray[np.floating]:
    return np.array(values, dtype=np.float32)


def _rgb(values: NDArray[np.floating]) -> Rgb:
    red, green, blue = (float(v) for v in np.clip(values, 0.02, 0.98))
    return red, green, blue


def _half_vector(light: NDArray[np.floating]) -> NDArray[np.floating]:
    half = light + _f32([0, 0, 1])
    return half / np.linalg.norm(half)


def _eye_directions(mean: NDArray[np.floating], labels: NDArray[np.int64]) -> NDArray[np.floating]:
    """Direction of each eyeball vertex from its eyeball's centre, zero elsewhere: ``[V, 3]``."""
    out = np.zeros_like(mean)
    for side in (-1, 1):
        ids = np.flatnonzero((labels == LABEL_EYE) & (np.sign(mean[:, 0]) == side))
        points = mean[ids].astype(np.float64)
        # sphere through the points: |p|² = 2 p·c + k
        system = np.column_stack([2 * points, np.ones(len(points))])
        center = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0][:3]
        offsets = points - center
        pole = offsets.mean(axis=0) / np.linalg.norm(offsets.mean(axis=0))
        across = np.cross([0.0, 1.0, 0.0], pole)
        frame = np.stack([across / np.linalg.norm(across), np.cross(pole, across), pole], axis=1)
        out[ids] = offsets @ frame
    return out


def _soft_label(mask: NDArray[np.bool_], triangles: NDArray[np.int64]) -> NDArray[np.floating]:
    """A 0/1 vertex label, averaged once with its neighbours."""
    value = mask.astype(np.float64)
    total, count = np.zeros(len(mask)), np.zeros(len(mask))
    for k in range(3):
        for other in (k - 1, k - 2):
            total += np.bincount(triangles[:, k], weights=value[triangles[:, other]], minlength=len(mask))
            count += np.bincount(triangles[:, k], minlength=len(mask))
    return (0.6 * value + 0.4 * total / np.maximum(count, 1)).astype(np.float32)


def _brow_weight(rest: NDArray[np.floating]) -> NDArray[np.floating]:
    """Soft brow strokes at fixed places of the mean head (origin between eyes and mouth)."""
    across = np.abs(rest[:, 0])
    position = np.clip((across - 0.10) / 0.44, 0, 1)
    height = BROW_Y + 0.075 * np.sin(np.clip(position, 0, 1) * 2.2) - 0.03 * position
    thickness = 0.040 * (1 - 0.65 * position)
    vertical = np.clip(1.5 - np.abs(rest[:, 1] - height) / thickness * 1.5, 0, 1)
    ends = np.clip((across - 0.09) / 0.04, 0, 1) * np.clip((0.56 - across) / 0.05, 0, 1)
    return 0.85 * vertical * ends * (rest[:, 2] > 0.2)


def _hair_weight(rest: NDArray[np.floating]) -> NDArray[np.floating]:
    """Hair above a line that comes down in front of the ears."""
    line = 0.98 - 1.1 * np.clip(np.abs(rest[:, 0]) - 0.25, 0, None) ** 1.5 - 0.5 * np.clip(0.45 - rest[:, 2], 0, None)
    return np.clip((rest[:, 1] - line) / 0.06, 0, 1) * (rest[:, 1] > 0.25)


def _draw_behind(image: NDArray[np.floating], pose: torch.Tensor, camera: CameraIntrinsics, look: HeadLook) -> None:
    """Skull with hair and shoulders as flat shapes, drawn where the head's pose puts them."""
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    skull = np.stack([0.86 * np.cos(angles), 0.52 + 0.92 * np.sin(angles), np.full(48, -0.45)], axis=1)
    half = np.array([(0.0, -0.55), (0.55, -0.75), (0.62, -1.25), (1.6, -1.6), (2.3, -2.2), (2.5, -6.0)])
    outline = np.concatenate([half, half[::-1] * [-1, 1]])
    shoulders = np.column_stack([outline, np.full(len(outline), -0.45)])
    body_pose = pose.clone()
    body_pose[0] *= 0.25  # the body follows the head only a little
    for points, frame, color in ((shoulders, body_pose, look.clothes), (skull, pose, look.hair)):
        pixels, _ = project(torch.from_numpy(points)[None], frame[:1], frame[1:], camera)
        fixed = ((pixels[0].numpy() - 0.5) * 16).clip(-(2**20), 2**20).round().astype(np.int32)
        cv2.fillPoly(image, [fixed], color, cv2.LINE_AA, 4)


BROW_Y = 0.42
"""Height of the brows' inner ends in the model's head space, dm."""


def _background(height: int, width: int, look: HeadLook) -> NDArray[np.floating]:
    ramp = np.linspace(1.1, 0.8, height, dtype=np.float32)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(_f32(look.background), (height, width, 3)) * ramp)


def _noise_texture(seed: int) -> NDArray[np.floating]:
    """Smooth blotches over several scales, 0..1, ``[256, 256]``."""
    generator = np.random.default_rng(seed)
    total = np.zeros((256, 256), dtype=np.float32)
    for cells, strength in ((8, 0.45), (24, 0.3), (96, 0.25)):
        coarse = generator.uniform(0, 1, (cells, cells)).astype(np.float32)
        total += strength * cv2.resize(coarse, (256, 256), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, 0, 1)
