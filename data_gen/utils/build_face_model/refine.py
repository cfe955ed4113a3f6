"""Move the landmark anchors over the mesh until real clips and painted heads agree with them.

One Gauss-Newton step of a bundle adjustment: all anchors move together, each clip's identity, poses and expressions
are eliminated (they give way within their priors), so that an error the fit hides in them is not missed. Painted heads,
whose shape is known, settle what clips cannot tell: whether an anchor or everybody's shape is off.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy import sparse

from data_gen.utils.build_face_model.embedding import anchor, symmetric
from data_gen.utils.build_face_model.geometry import HeadGeometry
from data_gen.utils.build_face_model.linear_views import linearize_clip, linearize_paintings
from data_gen.utils.build_face_model.semantics import Anchors, Contour, bind_contours
from data_gen.utils.build_face_model.tracked import FittedClip
from data_gen.utils.build_face_model.views import View
from modules.face_model.mesh_renderer import vertex_normals
from modules.face_model.model import LABEL_EYE, LABEL_MEMBRANE, FaceModel
from modules.structures.landmarks import FACE_OVAL, IRISES, N_MEDIAPIPE

FRAMES_OF_EVIDENCE = 17.0
"""A clip says as much as this many unrelated frames, however long it is: its errors last."""
PAINTED_SHARE = 0.15
"""Weight of all painted heads together over that of all clips."""
STEP_DM = 0.03
"""Spread of an anchor's move in one step, before any evidence."""
LARGEST_STEP_DM = 0.05
_LOOKS_FORWARD = 0.7
_AT_BOUND, _BOUND_PRECISION = 1e-3, 1e5
_MIRROR = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class Freedom:
    """Which moves are allowed: ``move[k] = directions[k] @ amounts``.

    Attributes:
        directions: ``[478, 3, D]``; mirror-symmetric, tangential, along the contour for points that keep to one.
    """

    directions: NDArray[np.float64]


def anchor_places(model: FaceModel) -> NDArray[np.float64]:
    """The landmarks on the mean shape, ``[478, 3]``."""
    corners, weights = model.landmark_triangles.numpy(), model.landmark_weights.double().numpy()
    return (model.mean.double().numpy()[corners] * weights[..., None]).sum(axis=1)


def freedom(model: FaceModel, contours: list[Contour]) -> Freedom:
    """Allowed moves of ``model``'s anchors. Irises (gaze) and the corners of mouth and eyes stay."""
    places, pair = anchor_places(model), model.landmark_mirror.numpy()
    columns: list[NDArray[np.float64]] = []
    bound: set[int] = set(IRISES)
    for contour in contours:
        if not bound.issuperset(contour.chains[0]):  # not the second eye, which follows the first
            columns += _along_contour(contour.chains, places, pair, tied=contour.tied)
        bound.update(k for chain in contour.chains for k in (*chain, *pair[list(chain)].tolist()))
    normals = _normals(model)
    for k in range(N_MEDIAPIPE):
        if k in bound or pair[k] < k:
            continue
        for direction in _directions(k, places, normals[k], on_midline=bool(pair[k] == k)):
            column = np.zeros((N_MEDIAPIPE, 3))
            column[k] = direction
            column[pair[k]] = direction * (1.0 if pair[k] == k else _MIRROR)
            columns.append(column)
    return Freedom(np.stack(columns, axis=-1))


def _along_contour(
    chains: list[tuple[int, ...]], places: NDArray[np.float64], pair: NDArray[np.int64], *, tied: bool
) -> list[NDArray[np.float64]]:
    """One column per point (per pair of facing points when ``tied``) of the contours' left halves."""
    columns = []
    groups = [list(chains)] if tied else [[chain] for chain in chains]
    for group in groups:
        for i in range(1, len(group[0]) - 1):
            column = np.zeros((N_MEDIAPIPE, 3))
            for chain in group:
                along = places[chain[i + 1]] - places[chain[i - 1]]
                along /= np.linalg.norm(along)
                twin = int(pair[chain[i]])
                if twin == chain[i] or (twin in chain and chain.index(twin) < i):
                    continue  # the middle stays there; the right half follows the left
                column[chain[i]], column[twin] = along, along * _MIRROR
            if column.any():
                columns.append(column)
    return columns


def _normals(model: FaceModel) -> NDArray[np.float64]:
    normals = vertex_normals(model.mean.double().numpy(), model.triangles.numpy())
    corners, weights = model.landmark_triangles.numpy(), model.landmark_weights.double().numpy()
    at_landmarks = (normals[corners] * weights[..., None]).sum(axis=1)
    return at_landmarks / np.linalg.norm(at_landmarks, axis=1, keepdims=True)


def _directions(
    landmark: int, places: NDArray[np.float64], normal: NDArray[np.float64], *, on_midline: bool
) -> list[NDArray[np.float64]]:
    """Unit vectors along the surface: two, or only the one within the plane x = 0.

    Where the outline's surface looks aside, only along the outline: across it, views hardly tell moves from nothing,
    and a long way over a curved surface would follow from little evidence.
    """
    up = np.cross(normal, [1.0, 0.0, 0.0])
    up /= np.linalg.norm(up)
    if landmark in FACE_OVAL and normal[2] < _LOOKS_FORWARD:
        at = FACE_OVAL.index(landmark)
        along = places[FACE_OVAL[(at + 1) % len(FACE_OVAL)]] - places[FACE_OVAL[at - 1]]
        along -= normal * (normal @ along)
        return [] if on_midline else [along / np.linalg.norm(along)]
    return [up] if on_midline else [up, np.cross(normal, up)]


def solve_moves(
    model: FaceModel, free: Freedom, clips: list[FittedClip], views: list[View], *, painted_share: float = PAINTED_SHARE
) -> NDArray[np.float64]:
    """One step: how each anchor should move over the mean shape, ``[478, 3]`` dm."""
    size = free.directions.shape[2]
    stiffness, pull = np.eye(size) / STEP_DM**2, np.zeros(size)
    votes = 0.0
    for clip in clips:
        own_stiffness, own_pull = _clip_normal(model, free, clip)
        stiffness += clip.sample.vote * own_stiffness
        pull += clip.sample.vote * own_pull
        votes += clip.sample.vote
    if views:
        painted = linearize_paintings(model, views)
        share = painted_share * max(votes, 1.0) * FRAMES_OF_EVIDENCE / len(views)
        for place, weight, residual in zip(painted.by_place, painted.weight, painted.residual, strict=True):
            root = np.sqrt(np.repeat(weight, 2))
            jacobian = sparse.csr_matrix((place @ free.directions).reshape(len(root), -1) * root[:, None])
            stiffness += share * (jacobian.T @ jacobian).toarray()
            pull -= share * np.asarray(jacobian.T @ (residual.ravel() * root))
    amounts = scipy.linalg.solve(stiffness, pull, assume_a="pos")
    moves = free.directions @ amounts
    length = np.linalg.norm(moves, axis=1, keepdims=True)
    return moves * np.minimum(1.0, LARGEST_STEP_DM / np.maximum(length, 1e-9))


def _clip_normal(model: FaceModel, free: Freedom, clip: FittedClip) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Normal equations of the amounts with the clip's own parameters eliminated."""
    views, rows = linearize_clip(model, clip), model.landmark_rows()
    size, people = free.directions.shape[2], model.n_identity
    by_identity, by_unit = rows.identity.double().numpy(), rows.expression.double().numpy()
    precision = model.expression_std.double().numpy() ** -2
    core = np.zeros((size + people, size + people))
    force = np.zeros(size)
    share = FRAMES_OF_EVIDENCE / len(views.residual)
    for f in range(len(views.residual)):
        root = np.sqrt(np.repeat(views.weight[f], 2))[:, None]
        # each residual depends on few amounts: sparse products save nine tenths of the time
        amounts = sparse.csr_matrix((views.by_place[f] @ free.directions).reshape(len(root), -1) * root)
        person = (views.by_place[f] @ by_identity).reshape(len(root), -1) * root
        moving = np.concatenate([views.by_pose[f], views.by_place[f] @ by_unit], axis=2).reshape(len(root), -1) * root
        held = (clip.expression[f] < _AT_BOUND) | (clip.expression[f] > 1 - _AT_BOUND)
        prior = np.concatenate([np.full(6, 1e-6), np.where(held, _BOUND_PRECISION, precision)])
        lower = scipy.linalg.cholesky(moving.T @ moving + np.diag(prior), lower=True)
        mixed = np.concatenate([(amounts.T @ moving).T, moving.T @ person], axis=1)
        mixed = scipy.linalg.solve_triangular(lower, mixed, lower=True)
        bridge = np.asarray(amounts.T @ person)
        own = np.block([[(amounts.T @ amounts).toarray(), bridge], [bridge.T, person.T @ person]])
        # the fit has settled: what pulls at poses and expressions is balanced by their priors
        core += share * (own - mixed.T @ mixed)
        force -= share * np.asarray(amounts.T @ (views.residual[f].ravel() * root[:, 0]))
    # likewise the identity
    stiff = core[size:, size:] + np.eye(people)
    bridge = scipy.linalg.solve(stiff, core[size:, :size], assume_a="pos")
    return core[:size, :size] - core[:size, size:] @ bridge, force


def moved_anchors(model: FaceModel, geometry: HeadGeometry, moves: NDArray[np.float64]) -> Anchors:
    """Anchors nearest to the moved places; contour points back on their contours, irises as they were."""
    places = symmetric(anchor_places(model) + moves, model.landmark_mirror.numpy())
    patch, irises = geometry.patch, list(IRISES)
    face = patch.on_face & (patch.labels != LABEL_MEMBRANE) & (patch.labels != LABEL_EYE)
    front = patch.triangles[face[patch.triangles].all(axis=1)]
    corners, weights = anchor(places, geometry.mean, front)
    corners[irises] = model.landmark_triangles.numpy()[irises]
    weights[irises] = model.landmark_weights.double().numpy()[irises]
    return bind_contours(geometry, places, (corners, weights))
