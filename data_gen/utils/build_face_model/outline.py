"""How MediaPipe's outline points slide over the head when it turns, measured on painted and real heads."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from data_gen.utils.build_face_model.embedding import anchor
from data_gen.utils.build_face_model.linear_views import LinearViews, linearize
from data_gen.utils.build_face_model.refine import anchor_places
from data_gen.utils.build_face_model.tracked import FittedClip
from data_gen.utils.build_face_model.views import View, clip_views
from modules.face_model.model import LABEL_EYE, LABEL_MEMBRANE, FaceModel
from modules.structures.landmarks import FACE_OVAL

TURNS_DEG = (0, 15, 30, 45, 60)
"""Yaws measured; those to the other side mirror them."""
PAINTED_HEADS = 3.0
"""The painted heads near one yaw say together as much as this many real people's."""
LANDMARKS_PER_HEAD = 2.0
"""A head says as much of an outline point as this many landmarks with unrelated errors."""
STRAY_DM, BEND_DM = 0.3, 0.1
"""Spread of a slide, and of its change from one measured yaw to the next, before any evidence."""
_ROUNDS = 4
_POSE = ("euler", "translation")


def measure_outline(model: FaceModel, views: list[View], clips: list[FittedClip]) -> dict[str, NDArray[np.float32]]:
    """The file's ``outline_yaw [B]`` (rad) and ``outline_slide [B, 36, 3]`` (dm).

    At each yaw a point moves over the surface to where it projects best onto what the landmarker said, in every head
    near that yaw; moves are damped towards none and towards their neighbours in yaw.

    Args:
        model: anchors and topology; its own slide is ignored.
        views: painted heads with yaws around ``± TURNS_DEG``; each counts for the nearest of them, and its mirror
            image for the other side.
        clips: fitted real heads, likewise; may be empty.
    """
    turns, mean = np.radians(TURNS_DEG), model.mean.double().numpy()
    turned, nearest, votes = _heads(model, views, clips, turns)
    triangles = model.triangles.numpy()
    skin = ~np.isin(model.labels.numpy(), (LABEL_EYE, LABEL_MEMBRANE))
    surface = triangles[skin[triangles].all(axis=1)]
    frontal = anchor_places(model)[list(FACE_OVAL)]
    places = np.tile(frontal, (len(turns), 1, 1))
    for _ in range(_ROUNDS):
        corners, weights = anchor(places.reshape(-1, 3), mean, surface)
        corners, weights = corners.reshape(places.shape), weights.reshape(places.shape)
        places = _improved(places, _normals(mean, corners), (corners, weights), turned, nearest, votes)
    corners, weights = anchor(places[1:].reshape(-1, 3), mean, surface)
    places[1:] = (mean[corners] * weights[..., None]).sum(axis=1).reshape(places[1:].shape)
    slide = places - frontal
    twin = [FACE_OVAL.index(int(model.landmark_mirror[k])) for k in FACE_OVAL]
    other_side = slide[:0:-1, twin] * [-1, 1, 1]
    return {
        "outline_yaw": np.concatenate([-turns[:0:-1], turns]).astype(np.float32),
        "outline_slide": np.concatenate([other_side, slide]).astype(np.float32),
    }


def _heads(
    model: FaceModel, views: list[View], clips: list[FittedClip], turns: NDArray[np.float64]
) -> tuple[list[View], NDArray[np.int64], NDArray[np.float64]]:
    """All heads turned towards the image's right (yaw ≥ 0), the measured yaw each is nearest to, and its votes."""
    heads, votes = list(views), [np.zeros(len(views))]
    for clip in clips:
        frames = clip_views(model, clip)
        near = _nearest(frames, turns)
        counts = np.bincount(near, minlength=len(turns))
        votes.append(clip.sample.vote / counts[near])  # one vote of a clip per yaw that it shows
        heads += frames
    vote, near = np.concatenate(votes), _nearest(heads, turns)
    painted = np.arange(len(heads)) < len(views)
    for turn in range(len(turns)):
        rows = painted & (near == turn)
        vote[rows] = PAINTED_HEADS / max(int(rows.sum()), 1)
    return [head if head.euler[1] >= 0 else head.mirrored(model) for head in heads], near, vote


def _nearest(heads: list[View], turns: NDArray[np.float64]) -> NDArray[np.int64]:
    yaws = np.abs([float(head.euler[1]) for head in heads])
    return np.abs(yaws[:, None] - turns).argmin(axis=1)


def _normals(mean: NDArray[np.float64], corners: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of the triangles with ``corners [..., 3]``, ``[..., 3]``."""
    a, b, c = (mean[corners[..., k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True)


def _improved(
    places: NDArray[np.float64],
    normals: NDArray[np.float64],
    anchors: tuple[NDArray[np.int64], NDArray[np.float64]],
    views: list[View],
    nearest: NDArray[np.int64],
    votes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """One Gauss-Newton step of ``places [B, 36, 3]`` along the surface; those of yaw 0 stay."""
    corners, weights = anchors
    points = np.stack([
        (view.shape[corners[b]] * weights[b][..., None]).sum(axis=1) for view, b in zip(views, nearest, strict=True)
    ]).astype(np.float64)  # fmt: skip
    seen = _seen(views, points)
    weight = seen.weight * (LANDMARKS_PER_HEAD * votes)[:, None]
    out, bins = places.copy(), len(places)
    stray, bend = np.eye(3) / STRAY_DM**2, np.eye(3) / BEND_DM**2
    for k in range(places.shape[1]):
        stiffness, pull = np.zeros((bins, 3, bins, 3)), np.zeros((bins, 3))
        for b in range(1, bins):
            rows = nearest == b
            weighted = seen.by_place[rows, k] * weight[rows, k, None, None]
            stiffness[b, :, b] += np.einsum("fia,fib->ab", weighted, seen.by_place[rows, k]) + stray
            pull[b] -= np.einsum("fia,fi->a", weighted, seen.residual[rows, k])
            pull[b] -= stray @ (places[b, k] - places[0, k])
            for one, other in ((b, b - 1), (b - 1, b)):
                stiffness[one, :, one] += bend
                stiffness[one, :, other] -= bend
                pull[one] -= bend @ (places[one, k] - places[other, k])
        along = _tangents(normals[:, k])  # [B, 3, 2]
        system = np.einsum("bia,bicj,cjd->bacd", along, stiffness, along)[1:, :, 1:].reshape(2 * bins - 2, -1)
        amounts = scipy.linalg.solve(system, np.einsum("bia,bi->ba", along, pull)[1:].ravel(), assume_a="pos")
        out[1:, k] += np.einsum("bia,ba->bi", along[1:], amounts.reshape(-1, 2))
    return out


def _seen(views: list[View], points: NDArray[np.float64]) -> LinearViews:
    """Residuals of the outline ``points [N, 36, 3]``; views of one camera together."""
    parts: list[LinearViews] = []
    rows: list[int] = []
    for camera in {view.camera: None for view in views}:
        own = [n for n, view in enumerate(views) if view.camera == camera]
        euler, translation = (np.stack([getattr(views[n], k) for n in own]).astype(np.float64) for k in _POSE)
        tracked = np.stack([views[n].points[list(FACE_OVAL)] for n in own])
        parts.append(linearize(points[own], euler, translation, camera, tracked))
        rows += own
    order = np.argsort(rows)
    return LinearViews(*(np.concatenate([getattr(p, f.name) for p in parts])[order] for f in fields(LinearViews)))


def _tangents(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two unit vectors across each of ``normals [N, 3]``: ``[N, 3, 2]``."""
    _, _, frames = np.linalg.svd(normals[:, None, :])
    return frames[:, 1:].transpose(0, 2, 1)
