"""Find MediaPipe's 478 points on the mesh: paint heads, run the landmarker, un-project what it says.

Detections are averaged in the mean shape over identities, poses and expressions, made mirror-symmetric, and then bound
to what the points mean: lips to the lip loops, lids to the lid rims.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_landmarks
from modules.face_model.head_painter import HeadLook, HeadPainter, PaintedHead
from modules.face_model.mesh_renderer import vertex_normals
from modules.face_model.model import MOUTH_UNITS, FaceModel
from modules.face_model.projection import rotation_from_euler
from modules.structures.boxes import BoundingBox
from modules.structures.cameras import CameraIntrinsics
from modules.structures.landmarks import N_MEDIAPIPE

IMAGE_SIZE = 384
CAMERA = CameraIntrinsics(1800.0, 1800.0, IMAGE_SIZE / 2, IMAGE_SIZE / 2, IMAGE_SIZE, IMAGE_SIZE)
MIN_SCORE = 0.6


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """One painted head and the landmarker's answer ``[478, 2]`` px."""

    head: PaintedHead
    identity: NDArray[np.float32]
    expression: NDArray[np.float32]
    euler: NDArray[np.float32]
    points: NDArray[np.float32]


def random_expression(model: FaceModel, generator: np.random.Generator, strength: float = 1.0) -> NDArray[np.float32]:
    """A speaking face: some mouth units, a little of the rest, ``[E]``."""
    expression = np.zeros(model.n_expression, dtype=np.float32)
    for name in MOUTH_UNITS:
        if generator.uniform() < 0.25:
            expression[model.unit(name)] = strength * generator.beta(1.2, 4)
    expression[model.unit("jawOpen")] = strength * generator.beta(1.0, 3.5)
    expression[model.unit("jawLeft")] *= 0.3
    expression[model.unit("jawRight")] *= 0.3
    for side in ("Left", "Right"):
        expression[model.unit(f"eyeBlink{side}")] = 0.15 * generator.uniform()
    return expression


def see_heads(
    model: FaceModel, landmarker: FaceLandmarker, count: int, generator: np.random.Generator
) -> list[Sighting]:
    """Paint ``count`` heads that the landmarker finds."""
    sightings: list[Sighting] = []
    tries = 0
    while len(sightings) < count:
        tries += 1
        if tries > 4 * count:
            raise RuntimeError(f"the landmarker found only {len(sightings)} of {tries} painted heads")
        identity = (0.8 * generator.standard_normal(model.n_identity)).astype(np.float32)
        expression = random_expression(model, generator) if generator.uniform() < 0.7 else np.zeros(52, np.float32)
        angles = generator.uniform(-1, 1, 3) * np.radians([12, 30, 8])
        euler = angles.astype(np.float32)
        painter = HeadPainter(model, identity, HeadLook.random(generator))
        head = painter.paint(expression, euler, np.zeros(3, np.float32), CAMERA)
        points = detect(landmarker, head)
        if points is not None:
            sightings.append(Sighting(head, identity, expression, euler, points))
    return sightings


def detect(landmarker: FaceLandmarker, head: PaintedHead) -> NDArray[np.float32] | None:
    """Landmarks of a painted head, or None when it is not taken for a face. The region settles in three rounds."""
    rows, columns = np.nonzero(head.fragments.covered)
    box = BoundingBox(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1).scaled(0.85)
    result = landmarker.detect(head.rgb, box)
    for _ in range(2):
        result = landmarker.detect(head.rgb, region_of_landmarks(result.points))
    return result.points if result.score > MIN_SCORE else None


def average_places(model: FaceModel, sightings: list[Sighting], on_face: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Robust mean place of each point on the mean shape, ``[478, 3]``.

    Views count by how squarely they see the surface: on the far side of a turned head the landmarker lets the face's
    outline slide along the silhouette, and in depth a grazing view says nothing.

    Args:
        model: the model that was painted.
        sightings: the painted heads and their landmarks.
        on_face: ``[V]``; points are looked for on this part of the mesh only, so that one just outside the jaw's
            outline does not land on the neck behind it.
    """
    mean, triangles = model.mean.numpy().astype(np.float64), model.triangles.numpy()
    front_faces = np.all(on_face[triangles], axis=1)
    places = np.zeros((len(sightings), N_MEDIAPIPE, 3))
    hit = np.zeros((len(sightings), N_MEDIAPIPE))
    for index, sighting in enumerate(sightings):
        fragments = sighting.head.fragments
        usable = fragments.covered & front_faces[fragments.triangle_id]
        columns, rows, distance = _nearest_covered(usable, sighting.points)
        corners = triangles[fragments.triangle_id[rows, columns]]
        places[index] = (mean[corners] * fragments.barycentric[rows, columns][..., None]).sum(axis=1)
        hit[index] = distance < 4.0
    surface = KDTree(mean[on_face])
    normals = vertex_normals(mean, triangles)[on_face]
    toward = np.stack([_camera_axis(sighting.euler) for sighting in sightings])  # [S, 3], head space
    center = _weighted_mean(places, hit * (toward[:, 2:] > 0.98))  # first guess: frontal views
    for _ in range(20):  # Weiszfeld: towards the geometric median
        facing = toward @ normals[surface.query(center)[1]].T  # [S, 478]
        trust = hit * np.clip(facing, 0.01, 1.0) ** 2
        center = _weighted_mean(places, trust / np.maximum(np.linalg.norm(places - center, axis=2), 0.01))
    return center


def _camera_axis(euler: NDArray[np.float32]) -> NDArray[np.float64]:
    """Direction of the camera in head space for a pose, ``[3]``."""
    return rotation_from_euler(torch.from_numpy(euler).double()).numpy() @ [0.0, 0.0, 1.0]


def _weighted_mean(places: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    return (places * weight[..., None]).sum(axis=0) / weight.sum(axis=0)[:, None]


def _nearest_covered(
    covered: NDArray[np.bool_], points: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Column, row and distance (px) of the covered pixel nearest to each point."""
    height, width = covered.shape
    distance, nearest = np.empty(covered.shape), np.empty((2, *covered.shape), dtype=np.int32)
    distance_transform_edt(~covered, return_indices=True, distances=distance, indices=nearest)
    columns = np.clip(np.floor(points[:, 0]).astype(int), 0, width - 1)
    rows = np.clip(np.floor(points[:, 1]).astype(int), 0, height - 1)
    return nearest[1, rows, columns], nearest[0, rows, columns], distance[rows, columns]


def mirror_pairs(model: FaceModel, landmarker: FaceLandmarker, generator: np.random.Generator) -> NDArray[np.int64]:
    """Counterpart of each point across x = 0, ``[478]``, read off frontal views of the mean face."""
    seen = []
    for _ in range(8):
        painter = HeadPainter(model, np.zeros(model.n_identity, np.float32), HeadLook.random(generator))
        still = np.zeros(3, np.float32)
        head = painter.paint(np.zeros(model.n_expression, np.float32), still, still, CAMERA)
        points = detect(landmarker, head)
        if points is not None:
            seen.append(points - [CAMERA.cx, 0.0])
    places = np.mean(seen, axis=0)
    cost = np.linalg.norm((places * [-1, 1])[:, None] - places[None], axis=2)
    _, pair = linear_sum_assignment((cost + cost.T) ** 2)
    if not (pair[pair] == np.arange(len(pair))).all():
        raise RuntimeError("the landmarks have no clean mirror pairing; add renders")
    return pair


def symmetric(places: NDArray[np.float64], pair: NDArray[np.int64]) -> NDArray[np.float64]:
    """Average each place with its mirrored counterpart."""
    return np.round(0.5 * (places + places[pair] * [-1, 1, 1]), 6)


def anchor(
    places: NDArray[np.float64], vertices: NDArray[np.float64], triangles: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Nearest point of the mesh to each place: vertex ids ``[N, 3]`` and barycentric weights ``[N, 3]``."""
    corner_ids = np.empty((len(places), 3), dtype=np.int64)
    weights = np.empty((len(places), 3))
    center = vertices[triangles].mean(axis=1)
    radius = np.linalg.norm(vertices[triangles] - center[:, None], axis=2).max(axis=1)
    at_most, _ = KDTree(vertices[np.unique(triangles)]).query(places)
    for index, place in enumerate(places):
        # a triangle whose surrounding ball is farther than the nearest vertex cannot be the nearest
        near = np.flatnonzero(np.linalg.norm(center - place, axis=1) - radius <= at_most[index] + 1e-9)
        a, b, c = (vertices[triangles[near, k]] for k in range(3))
        candidates = _closest_barycentric(place, a, b, c)
        gap = ((candidates[:, :1] * a + candidates[:, 1:2] * b + candidates[:, 2:] * c - place) ** 2).sum(axis=1)
        best = int(np.flatnonzero(gap <= gap.min() + 1e-12)[0])  # on a shared edge: the first, not the luckier
        corner_ids[index], weights[index] = triangles[near[best]], candidates[best]
    return corner_ids, weights


def _closest_barycentric(
    point: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Barycentric coordinates ``[F, 3]`` of the point of each triangle nearest to ``point``."""
    ab, ac, ap = b - a, c - a, point - a
    d00, d01, d11 = (ab * ab).sum(1), (ab * ac).sum(1), (ac * ac).sum(1)
    d20, d21 = (ap * ab).sum(1), (ap * ac).sum(1)
    area = np.maximum(d00 * d11 - d01 * d01, 1e-18)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = np.stack([1 - v - w, v, w], axis=1)
    best = inside.copy()
    outside = (inside < 0).any(axis=1)
    gap = np.full(len(a), np.inf)
    zero = np.zeros(len(a))
    for start, end, place in ((a, b, (0, 1)), (b, c, (1, 2)), (c, a, (2, 0))):
        edge = end - start
        t = np.clip(((point - start) * edge).sum(1) / np.maximum((edge * edge).sum(1), 1e-18), 0, 1)
        distance = ((start + t[:, None] * edge - point) ** 2).sum(1)
        closer = outside & (distance < gap)
        candidate = np.stack([zero, zero, zero], axis=1)
        candidate[:, place[0]], candidate[:, place[1]] = 1 - t, t
        best[closer], gap[closer] = candidate[closer], distance[closer]
    return best
