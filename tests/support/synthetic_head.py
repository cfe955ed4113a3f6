"""A synthetic speaker: the face model painted with known coefficients, landmarks and masks, as ground truth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from modules.face_model.head_painter import HeadLook, HeadPainter
from modules.face_model.mesh_renderer import interpolate
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.face_model.projection import project
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import FACE_OVAL, Landmarks2D

FACE_MODEL = Path(__file__).parents[2] / "checkpoints" / "face_model" / "face_model.npz"
FACE_HEIGHT_DM = 1.53
"""Forehead to chin of the mean face (landmarks 10 to 152)."""
OVERSAMPLING = 2


@dataclass(frozen=True, slots=True)
class Occluder:
    """A hand-like ellipse in front of the face: centre, half axes (px) and angle (rad, clockwise on screen)."""

    center_px: tuple[float, float]
    half_axes_px: tuple[float, float]
    angle_rad: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticFrame:
    """One painted frame and its ground truth.

    Attributes:
        rgb: uint8 ``[H, W, 3]``.
        landmarks: ``[478, 2]`` px, projected exactly, also where the occluder hides them.
        face_mask: float32 ``[H, W]``, the model's soft ``face`` region before occlusion; 0 off the head.
        head_mask: float32 ``[H, W]``, share of each pixel covered by the mesh before occlusion.
        occlusion: float32 ``[H, W]``, 1 = the occluder.
    """

    rgb: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    face_mask: NDArray[np.float32]
    head_mask: NDArray[np.float32]
    occlusion: NDArray[np.float32]


class SyntheticSpeaker:
    """One random person who talks.

    Args:
        seed: of identity, look and motion; equal seeds give equal frames.
        size_hw: of the frames, px.
        face_px: height of the face, px.
        center: where the head's origin appears, as shares of width and height.
        model: the face model; the committed one when None.
    """

    def __init__(
        self,
        seed: int,
        *,
        size_hw: tuple[int, int] = (288, 384),
        face_px: float = 140.0,
        center: tuple[float, float] = (0.5, 0.5),
        model: FaceModel | None = None,
    ) -> None:
        generator = np.random.default_rng(seed)
        height, width = size_hw
        self.model = model if model is not None else FaceModel.load(FACE_MODEL)
        self.camera = CameraIntrinsics.for_frame(width, height)
        self.identity = (0.7 * generator.standard_normal(self.model.n_identity)).astype(np.float32)
        depth = self.camera.fx * FACE_HEIGHT_DM / face_px
        offset = np.array([center[0] * width - self.camera.cx, self.camera.cy - center[1] * height])
        self._place = np.array([*(offset * depth / self.camera.fx), CAMERA_DISTANCE - depth], dtype=np.float32)
        self._look = HeadLook.random(generator)
        self._painter = HeadPainter(self.model, self.identity, self._look)
        self._motion_seed = int(generator.integers(2**31))

    def coeffs(self, n_frames: int, *, frame_rate: float = 25.0, yaw_rad: float = 0.25) -> FaceModelCoeffs:
        """Smooth speech-like motion: syllables at 3-5 Hz, lips shut now and then, blinks, a swaying head.

        Args:
            yaw_rad: largest turn to either side; pitch and roll stay below half of it.
        """
        generator = np.random.default_rng(self._motion_seed)
        time = np.arange(n_frames) / frame_rate
        expression = np.zeros((n_frames, self.model.n_expression), dtype=np.float32)
        for name in generator.choice(sorted(MOUTH_UNITS), size=8, replace=False):
            expression[:, self.model.unit(str(name))] = 0.25 * _wave(time, generator, 0.5, 2.0).clip(0, 1)
        expression[:, self.model.unit("jawOpen")] = 0.5 * _wave(time, generator, 3.0, 5.0).clip(0, 1)
        blink = (np.modf(time / 2.3 + generator.uniform())[0] < 0.06).astype(np.float32)
        for side in ("Left", "Right"):
            expression[:, self.model.unit(f"eyeBlink{side}")] = 0.9 * blink
        limits = yaw_rad * np.array([0.4, 1.0, 0.3])
        euler = np.stack([limit * _wave(time, generator, 0.1, 0.5) for limit in limits], axis=1)
        sway = 0.05 * np.stack([_wave(time, generator, 0.1, 0.4) for _ in range(3)], axis=1)
        return FaceModelCoeffs(
            identity=self.identity,
            expression=expression,
            euler=euler.astype(np.float32),
            translation=(self._place + sway).astype(np.float32),
            valid=np.ones(n_frames, dtype=bool),
            residual=np.zeros(n_frames, dtype=np.float32),
            camera=self.camera,
            face_model_version=self.model.version,
        )

    def landmarks(self, coeffs: FaceModelCoeffs) -> Landmarks2D:
        """Exact landmarks of all frames; the blendshape scores are the true expression (``_neutral`` 0)."""
        expression = torch.from_numpy(coeffs.expression)
        points = self.model.landmarks(torch.from_numpy(coeffs.identity), expression)
        points[:, list(FACE_OVAL)] += self.model.outline_slide.at(torch.from_numpy(coeffs.euler)[:, 1])
        pixels, depth = project(
            points, torch.from_numpy(coeffs.euler), torch.from_numpy(coeffs.translation), coeffs.camera
        )
        relative = (depth - depth.mean(dim=1, keepdim=True)) * coeffs.camera.fx / depth.mean(dim=1, keepdim=True)
        scores = np.concatenate([np.zeros((len(coeffs), 1), np.float32), coeffs.expression[:, :51]], axis=1)
        return Landmarks2D(pixels.numpy(), relative.numpy(), coeffs.valid, scores)

    def frame(self, coeffs: FaceModelCoeffs, row: int, occluder: Occluder | None = None) -> SyntheticFrame:
        """Paint frame ``row``, anti-aliased, optionally with something in front of it."""
        camera, scale = coeffs.camera, OVERSAMPLING
        fine = CameraIntrinsics(
            camera.fx * scale, camera.fy * scale, camera.cx * scale, camera.cy * scale,
            camera.width * scale, camera.height * scale,
        )  # fmt: skip
        head = self._painter.paint(coeffs.expression[row], coeffs.euler[row], coeffs.translation[row], fine)
        weights = self.model.region_weights["face"].numpy()[:, None]
        face = interpolate(head.fragments, self.model.triangles.numpy(), weights)[..., 0]
        occlusion = _ellipse(occluder, camera, scale)
        size = (camera.width, camera.height)
        rgb = _covered(head.rgb, occlusion, self._look)
        one = replace(
            coeffs,
            expression=coeffs.expression[row : row + 1],
            euler=coeffs.euler[row : row + 1],
            translation=coeffs.translation[row : row + 1],
            valid=coeffs.valid[row : row + 1],
            residual=coeffs.residual[row : row + 1],
        )
        return SyntheticFrame(
            rgb=cv2.resize(rgb, size, interpolation=cv2.INTER_AREA),
            landmarks=self.landmarks(one).points[0],
            face_mask=cv2.resize(face, size, interpolation=cv2.INTER_AREA),
            head_mask=cv2.resize(head.fragments.covered.astype(np.float32), size, interpolation=cv2.INTER_AREA),
            occlusion=cv2.resize(occlusion, size, interpolation=cv2.INTER_AREA),
        )


def _wave(time: NDArray, generator: np.random.Generator, low_hz: float, high_hz: float) -> NDArray:
    """A sum of three sines with random frequencies and phases, about -1..1."""
    total = np.zeros_like(time)
    for strength in (0.5, 0.3, 0.2):
        total += strength * np.sin(2 * np.pi * (generator.uniform(low_hz, high_hz) * time + generator.uniform()))
    return total


def _ellipse(occluder: Occluder | None, camera: CameraIntrinsics, scale: int) -> NDArray[np.float32]:
    """0/1 at the oversampled pixels whose centre lies inside."""
    if occluder is None:
        return np.zeros((camera.height * scale, camera.width * scale), dtype=np.float32)
    y, x = (np.mgrid[0 : camera.height * scale, 0 : camera.width * scale] + 0.5) / scale
    x, y = x - occluder.center_px[0], y - occluder.center_px[1]
    cos, sin = np.cos(occluder.angle_rad), np.sin(occluder.angle_rad)
    along, across = (cos * x + sin * y) / occluder.half_axes_px[0], (cos * y - sin * x) / occluder.half_axes_px[1]
    return (along**2 + across**2 <= 1).astype(np.float32)


def _covered(rgb: NDArray[np.uint8], occlusion: NDArray[np.float32], look: HeadLook) -> NDArray[np.uint8]:
    """Paint the occluder in a skin tone of its own with a soft edge shadow."""
    if not occlusion.any():
        return rgb
    shade = 0.7 + 0.3 * cv2.GaussianBlur(occlusion, (0, 0), 6)[..., None]
    hand = np.float32(look.skin) * 0.85 * shade * 255
    return np.where(occlusion[..., None] > 0, hand, rgb).astype(np.uint8)
