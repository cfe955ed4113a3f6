"""Speakers whose every coefficient is known: made-up people who talk and turn, and landmarks as a tracker sees them.

Points are either the model's own projections with noise, or what the landmarker finds in painted pictures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.build_face_model.embedding import random_expression
from data_gen.utils.mp_feature_extractors.face_landmarker import TASK_FILE, FaceLandmarker, region_of_landmarks
from data_gen.utils.mp_feature_extractors.networks import load_network, pick_runtime
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.face_model.head_painter import HeadLook, HeadPainter
from modules.face_model.model import FaceModel
from modules.structures.cameras import CAMERA_DISTANCE, CameraIntrinsics
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import BLENDSHAPE_SUBSET, FOREHEAD_CHIN, MEDIAPIPE_BLENDSHAPES, Landmarks2D

RATE_HZ = 25.0
_KEY_FRAMES = 5
"""Frames between two mouth shapes: five of them a second."""
_REST_SHARE = 0.25
"""Share of mouth shapes with everything at rest, lips shut."""
_BLINK_EVERY_S = 2.5
_SWING_S = 3.0
"""Shortest time for a turn to either side and back."""
_WINDOW = 1.7
"""Side of a painted picture over the face's height."""


@dataclass(frozen=True, slots=True)
class SpeakerRanges:
    """What made-up speakers are drawn from.

    Attributes:
        yaw_deg, pitch_deg, roll_deg: largest turns either way; a clip of 3 s or more reaches the yaw on both sides.
        face_px: height from forehead to chin. distance_dm: range of the head's distance.
        focal_scale: range of the focal length over the frame's side; the (square) frame's size follows from the three.
        distance_sway: how much the distance varies within a clip, share of it.
        noise_px: standard deviation of each coordinate of a landmark.
    """

    yaw_deg: float = 45.0
    pitch_deg: float = 15.0
    roll_deg: float = 10.0
    face_px: float = 250.0
    distance_dm: tuple[float, float] = (4.0, 12.0)
    focal_scale: tuple[float, float] = (0.9, 2.0)
    distance_sway: float = 0.1
    noise_px: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class MadeUpSpeaker:
    """A clip of somebody who does not exist: the truth, and what a tracker says of it."""

    truth: FaceModelCoeffs
    landmarks: Landmarks2D

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.truth.camera.width, self.truth.camera.height


class ScoreNetwork:
    """MediaPipe's blendshape network alone: scores of points, without a picture.

    Raises:
        ModelFileError: when MediaPipe's models are missing.
    """

    def __init__(self, models: Path = MEDIAPIPE_DIR) -> None:
        self._network = load_network(pick_runtime(), models / TASK_FILE, "face_blendshapes.tflite")
        self._subset = np.array(BLENDSHAPE_SUBSET)

    def scores(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Points ``[T, 478, 2]`` px to scores ``[T, 52]``."""
        rows = np.ascontiguousarray(points[:, self._subset], np.float32)
        if not len(rows):
            return np.zeros((0, len(MEDIAPIPE_BLENDSHAPES)), np.float32)
        (found,) = self._network.run(rows).values()
        return found.astype(np.float32)


def made_up_truth(
    face_model: FaceModel, generator: np.random.Generator, n_frames: int, ranges: SpeakerRanges | None = None
) -> FaceModelCoeffs:
    """Coefficients of a made-up speaker: a unit-normal identity, speech-like expressions, smooth turns of the head."""
    ranges = ranges or SpeakerRanges()
    identity = generator.standard_normal(face_model.n_identity).astype(np.float32)
    height = face_height_dm(face_model, identity)
    distance = generator.uniform(*ranges.distance_dm)
    focal_scale = generator.uniform(*ranges.focal_scale)
    focal = ranges.face_px * distance / height
    side = max(64, round(focal / focal_scale))
    camera = CameraIntrinsics(focal, focal, side / 2, side / 2, side, side)
    euler, translation = _motion(generator, n_frames, distance, camera, ranges)
    return FaceModelCoeffs(
        identity=identity,
        expression=speech_like(face_model, generator, n_frames),
        euler=euler,
        translation=translation,
        valid=np.ones(n_frames, bool),
        residual=np.zeros(n_frames, np.float32),
        camera=camera,
        face_model_version=face_model.version,
    )


def face_height_dm(face_model: FaceModel, identity: NDArray[np.float32]) -> float:
    """Forehead to chin of a person at rest, dm."""
    rows = face_model.landmark_rows()
    top, chin = (rows.mean[k].numpy() + rows.identity[k].numpy() @ identity for k in FOREHEAD_CHIN)
    return float(np.linalg.norm(top - chin))


def speech_like(face_model: FaceModel, generator: np.random.Generator, n_frames: int) -> NDArray[np.float32]:
    """Mouth shapes one after the other with smooth ways between them, blinks and moving brows: ``[T, E]`` in 0..1."""
    keys = []
    for _ in range(n_frames // _KEY_FRAMES + 2):
        shape = random_expression(face_model, generator)
        keys.append(np.zeros_like(shape) if generator.uniform() < _REST_SHARE else shape)
    at = np.arange(n_frames) / _KEY_FRAMES
    left = at.astype(int)
    share = (0.5 - 0.5 * np.cos(np.pi * (at - left)))[:, None]
    shapes = np.stack(keys)
    expression = shapes[left] * (1 - share) + shapes[left + 1] * share
    time = np.arange(n_frames) / RATE_HZ
    raised = 0.4 * _wave(time, generator, 0.2, 0.6).clip(0, 1)
    blink = np.clip(1.5 - np.abs((time + generator.uniform(0, 2)) % _BLINK_EVERY_S - 0.2) / 0.06, 0, 0.9)
    for name, values in (("browInnerUp", raised), ("browOuterUpLeft", raised), ("browOuterUpRight", raised)):
        expression[:, face_model.unit(name)] = values
    for side in ("Left", "Right"):
        unit = face_model.unit(f"eyeBlink{side}")
        expression[:, unit] = np.maximum(expression[:, unit], blink)
    return expression.astype(np.float32)


def _motion(
    generator: np.random.Generator, n_frames: int, distance: float, camera: CameraIntrinsics, ranges: SpeakerRanges
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Turns ``[T, 3]`` rad and places ``[T, 3]`` dm; the head stays well inside the frame."""
    time = np.arange(n_frames) / RATE_HZ
    phase = generator.uniform(0, 2 * math.pi)
    swing = np.sin(2 * math.pi * time / max(_SWING_S, n_frames / RATE_HZ) + phase)
    turns = (
        ranges.pitch_deg * _wave(time, generator, 0.2, 0.6),
        ranges.yaw_deg * swing,
        ranges.roll_deg * _wave(time, generator, 0.2, 0.6),
    )
    depth = distance * (1 + ranges.distance_sway * _wave(time, generator, 0.1, 0.4))
    room = max(0.0, 0.5 * camera.width - 0.75 * ranges.face_px) / camera.fx * distance
    across, up = (0.5 * room * (generator.uniform(-1, 1) + _wave(time, generator, 0.1, 0.4)) for _ in range(2))
    place = np.stack([across, up, CAMERA_DISTANCE - depth], axis=1)
    return np.radians(np.stack(turns, axis=1)).astype(np.float32), place.astype(np.float32)


def _wave(time: NDArray, generator: np.random.Generator, low_hz: float, high_hz: float) -> NDArray[np.float64]:
    """A sum of three sines of random frequency and phase, within -1..1."""
    parts = [
        strength * np.sin(2 * math.pi * (generator.uniform(low_hz, high_hz) * time + generator.uniform()))
        for strength in (0.5, 0.3, 0.2)
    ]
    return np.sum(parts, axis=0)


def projected_speaker(
    face_model: FaceModel,
    generator: np.random.Generator,
    n_frames: int,
    network: ScoreNetwork,
    ranges: SpeakerRanges | None = None,
) -> MadeUpSpeaker:
    """A speaker whose landmarks are exact projections with noise, and MediaPipe's scores of the noisy points."""
    ranges = ranges or SpeakerRanges()
    truth = made_up_truth(face_model, generator, n_frames, ranges)
    points = fitted_points(truth, face_model)
    points += (ranges.noise_px * generator.standard_normal(points.shape)).astype(np.float32)
    depth = np.zeros(points.shape[:2], np.float32)
    return MadeUpSpeaker(truth, Landmarks2D(points, depth, truth.valid.copy(), network.scores(points)))


def painted_speaker(
    face_model: FaceModel,
    generator: np.random.Generator,
    n_frames: int,
    landmarker: FaceLandmarker,
    ranges: SpeakerRanges | None = None,
) -> MadeUpSpeaker:
    """A speaker who is painted frame by frame, and what the landmarker finds in the pictures.

    Each frame is looked at through the square around the true points, as a tracker that never loses the face would;
    frames in which the landmarker sees no face are invalid.
    """
    ranges = ranges or SpeakerRanges()
    truth = made_up_truth(face_model, generator, n_frames, ranges)
    true_points = fitted_points(truth, face_model)
    painter = HeadPainter(face_model, truth.identity, HeadLook.random(generator))
    side = round(_WINDOW * ranges.face_px)
    points, scores, valid = [], [], []
    for row in range(n_frames):
        corner = np.round(true_points[row].mean(axis=0) - side / 2)
        window = replace(
            truth.camera, cx=truth.camera.cx - corner[0], cy=truth.camera.cy - corner[1], width=side, height=side
        )
        picture = painter.paint(truth.expression[row], truth.euler[row], truth.translation[row], window).rgb
        found = landmarker.detect(picture, region_of_landmarks(true_points[row] - corner))
        points.append(found.shifted(*corner).points)
        scores.append(found.blendshapes)
        valid.append(found.score > 0.5)
    landmarks = Landmarks2D(
        np.stack(points).astype(np.float32), np.zeros((n_frames, len(points[0])), np.float32), np.array(valid),
        np.stack(scores).astype(np.float32),
    )  # fmt: skip
    return MadeUpSpeaker(truth, landmarks)
