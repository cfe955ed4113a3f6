"""Cut the front of the head out of the body mesh and close its mouth with a membrane.

Everything here is linear: each vertex of the patch is a fixed combination of body vertices plus a constant offset,
so any shape or expression target of the body carries over.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import KDTree

from data_gen.utils.build_face_model.makehuman import LEFT_EYE, N_BODY, N_SOURCE, RIGHT_EYE, BodyMesh
from modules.face_model.model import LABEL_EAR, LABEL_EYE, LABEL_LIP, LABEL_MEMBRANE, LABEL_SKIN

# hm08's lips are closed edge loops of 38 vertices around the mouth; each is named by its upper and lower mid vertex
MEMBRANE_RING_START = (537, 7282)
"""Innermost loop that is kept: 4 mm behind the lips' front."""
INNER_LIP_START = (474, 7229)
"""Loop where the lips touch: lower edge of the upper lip, upper edge of the lower lip."""
OUTER_LIP_START = (455, 7214)
"""Vermilion border."""
LIP_LOOP_STARTS = (
    OUTER_LIP_START, (466, 7222), (467, 7223), (509, 7257), (468, 7224), INNER_LIP_START, (520, 7267),
    MEMBRANE_RING_START,
)  # fmt: skip
"""All lip loops from the vermilion border inwards; their vertices line up in columns."""
# the lids are edge loops of 28 vertices; these are on the subject's left eye, the right one is their mirror image
LID_RIM_START = (6785, 6784)
"""Front edge of the lid margins."""
SOCKET_RING_START, SOCKET_VERTEX = (7774, 7773), 8019
"""Last loop of the lids that is kept, behind the eyeball's front; everything deeper is the eye socket."""
CORNER_STEP = 12
"""Steps from the upper mid vertex of a lip loop to its corner."""
CAVITY_VERTEX = 656

LOWEST_Y, HIGHEST_Y, REARMOST_Z = 5.72, 8.22, 0.16
"""Extent of the patch on the base mesh, dm: upper neck to above the hair line, ears included."""
MEMBRANE_ROWS = 2
MEMBRANE_BULGE_DM = 0.045
"""How far the membrane's middle lies behind its ring: about on the teeth."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadPatch:
    """Topology of the face model.

    Attributes:
        weights: sparse ``[V, 19158]``; patch vertices = weights · body vertices + offset.
        offset: ``[V, 3]`` dm. triangles: ``[F, 3]`` counter-clockwise from outside. labels: ``[V]`` int8.
        inner_lip, outer_lip: ``[38]`` patch vertex ids, upper mid → subject's left corner → lower mid → right.
        mirror: ``[V]`` counterpart across x = 0 (itself for membrane vertices without one).
        body_ids: ``[V]`` body vertex of each patch vertex, -1 on the membrane.
        lip_loops: ``[8, 38]`` patch vertex ids of the loops from the vermilion border to the membrane.
        on_face: ``[V]`` bool, the front of the face without ears, neck and skull.
        lid_rims: ``[2, 28]`` patch vertex ids of the lid margins, subject's left and right eye.
    """

    weights: sparse.csr_matrix
    offset: NDArray[np.float64]
    triangles: NDArray[np.int64]
    labels: NDArray[np.int8]
    inner_lip: NDArray[np.int64]
    outer_lip: NDArray[np.int64]
    mirror: NDArray[np.int64]
    body_ids: NDArray[np.int64]
    lip_loops: NDArray[np.int64]
    on_face: NDArray[np.bool_]
    lid_rims: NDArray[np.int64]

    def apply(self, body: NDArray[np.float64]) -> NDArray[np.float64]:
        """Patch vertices of a body ``[19158, 3]``."""
        return np.asarray(self.weights @ body) + self.offset

    def apply_offsets(self, offsets: NDArray[np.float64]) -> NDArray[np.float64]:
        """Patch offsets of body offsets ``[19158, 3]``."""
        return np.asarray(self.weights @ offsets)

    def follow_membrane(self, shape: NDArray[np.float64]) -> NDArray[np.float64]:
        """Recompute the membrane of a patch shape ``[V, 3]`` after its ring was moved."""
        on_body = self.body_ids >= 0
        body = np.zeros((N_SOURCE, 3))
        body[self.body_ids[on_body]] = shape[on_body]
        return np.where(on_body[:, None], shape, self.apply(body))


def cut_head(mesh: BodyMesh) -> HeadPatch:
    """Choose faces, drop the mouth bag, add eyeball fronts and the membrane."""
    topology = _QuadTopology(mesh.quads[(mesh.quads < N_BODY).all(axis=1)])
    ring = topology.edge_loop(*MEMBRANE_RING_START)
    left_rim = topology.edge_loop(*LID_RIM_START)
    skin = _skin_quads(mesh, topology, ring)
    quads = np.concatenate([skin, _eyeball_quads(mesh, LEFT_EYE), _eyeball_quads(mesh, RIGHT_EYE)])
    body_ids = np.unique(quads)
    patch_of_body = np.full(len(mesh.vertices), -1)
    patch_of_body[body_ids] = np.arange(len(body_ids))
    membrane = _membrane(mesh.vertices, np.array(ring), patch_of_body, len(body_ids))
    selected = sparse.csr_matrix(
        (np.ones(len(body_ids)), (np.arange(len(body_ids)), body_ids)), shape=(len(body_ids), len(mesh.vertices))
    )
    offset = np.zeros((len(body_ids) + len(membrane.offset), 3))
    offset[len(body_ids) :, 2] = membrane.offset
    added = np.full(len(membrane.offset), -1)
    weights = sparse.csr_matrix(sparse.vstack([selected, membrane.weights]))
    return HeadPatch(
        weights=weights,
        offset=offset,
        triangles=np.concatenate([_split_quads(patch_of_body[quads], mesh.vertices[body_ids]), membrane.triangles]),
        labels=np.concatenate([_labels(mesh, body_ids), np.full(len(added), LABEL_MEMBRANE, dtype=np.int8)]),
        inner_lip=patch_of_body[topology.edge_loop(*INNER_LIP_START)],
        outer_lip=patch_of_body[topology.edge_loop(*OUTER_LIP_START)],
        lip_loops=patch_of_body[np.array([topology.edge_loop(*start) for start in LIP_LOOP_STARTS])],
        on_face=_on_face(mesh, body_ids, len(added)),
        lid_rims=patch_of_body[np.stack([left_rim, mesh.mirror[left_rim]])],
        mirror=_mirror(np.asarray(weights @ mesh.vertices) + offset),
        body_ids=np.concatenate([body_ids, added]),
    )


class _QuadTopology:
    """Neighbourhoods of a quad mesh."""

    def __init__(self, quads: NDArray[np.int64]) -> None:
        self.quads = quads
        self._faces: dict[int, list[int]] = defaultdict(list)
        self._near: dict[int, set[int]] = defaultdict(set)
        for face, corners in enumerate(quads.tolist()):
            for k in range(4):
                self._faces[corners[k]].append(face)
                self._near[corners[k]].update((corners[k - 1], corners[(k + 1) % 4]))

    def edge_loop(self, first: int, second: int) -> list[int]:
        """Walk straight on from the edge first → second, leaving each vertex by the edge opposite, until closed."""
        loop = [first, second]
        while True:
            before, here = loop[-2:]
            beside = {v for f in self._faces[here] if before in self.quads[f] for v in self.quads[f].tolist()}
            onward = self._near[here] - beside
            if len(onward) != 1 or len(loop) > 1000:
                raise ValueError(f"the edge loop from {first} stops at vertex {here}: not the hm08 mesh")
            following = onward.pop()
            if following == first:
                return loop
            loop.append(following)

    def faces_behind(self, ring: list[int], seed: int) -> NDArray[np.bool_]:
        """Mask of the faces reachable from vertex ``seed`` without crossing the closed ``ring`` of edges."""
        walls = {frozenset(edge) for edge in zip(ring, ring[1:] + ring[:1], strict=True)}
        reached = np.zeros(len(self.quads), dtype=bool)
        todo = list(self._faces[seed])
        reached[todo] = True
        while todo:
            corners = self.quads[todo.pop()].tolist()
            for k in range(4):
                edge = frozenset((corners[k], corners[(k + 1) % 4]))
                if edge in walls:
                    continue
                for face in set.intersection(*(set(self._faces[v]) for v in edge)):
                    if not reached[face]:
                        reached[face] = True
                        todo.append(face)
        return reached


def _skin_quads(mesh: BodyMesh, topology: _QuadTopology, ring: list[int]) -> NDArray[np.int64]:
    """Quads of the front of the head without mouth bag and eye sockets, which hang on the rest by one ring each."""
    _, y, z = mesh.vertices[:N_BODY].T
    inside = (y > LOWEST_Y) & (y < HIGHEST_Y) & (z > REARMOST_Z)
    kept = inside[topology.quads].all(axis=1) & ~topology.faces_behind(ring, CAVITY_VERTEX)
    left_ring = topology.edge_loop(*SOCKET_RING_START)
    for side in (np.arange(N_BODY), mesh.mirror):
        kept &= ~topology.faces_behind(side[left_ring].tolist(), int(side[SOCKET_VERTEX]))
    return topology.quads[kept]


def _eyeball_quads(mesh: BodyMesh, vertex_range: tuple[int, int]) -> NDArray[np.int64]:
    """Front of one eyeball, as far as lids can bare it."""
    start, stop = vertex_range
    quads = mesh.quads[((mesh.quads >= start) & (mesh.quads < stop)).all(axis=1)]
    center_z = mesh.vertices[start:stop, 2].mean()
    return quads[mesh.vertices[quads][..., 2].mean(axis=1) > center_z + 0.02]


def _split_quads(quads: NDArray[np.int64], vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Two triangles per quad, cut along the shorter diagonal."""
    a, b, c, d = quads.T
    first = (
        np.linalg.norm(vertices[a] - vertices[c], axis=1) <= np.linalg.norm(vertices[b] - vertices[d], axis=1) + 1e-6
    )
    one = np.where(first[:, None], np.stack([a, b, c], 1), np.stack([a, b, d], 1))
    two = np.where(first[:, None], np.stack([a, c, d], 1), np.stack([b, c, d], 1))
    triangles = np.concatenate([one, two])
    # hm08 marks some triangles as quads with a repeated corner
    distinct = (triangles[:, 0] != triangles[:, 1]) & (triangles[:, 1] != triangles[:, 2])
    return triangles[distinct & (triangles[:, 0] != triangles[:, 2])]


@dataclass(frozen=True, slots=True, eq=False)
class _Membrane:
    weights: sparse.csr_matrix  # [M, bodies]
    offset: NDArray[np.float64]  # [M] z, dm
    triangles: NDArray[np.int64]  # [F, 3] patch ids


def _membrane(
    body: NDArray[np.float64], ring: NDArray[np.int64], patch_of_body: NDArray[np.int64], first_id: int
) -> _Membrane:
    """Close the ring with rows that run from each lip to a spine half-way between them.

    The spine has one vertex per upper-lip vertex; the lower rows meet it by a strip of unequal sides.
    """
    left, right = CORNER_STEP, len(ring) - CORNER_STEP
    upper = np.concatenate([ring[right:], ring[: left + 1]])  # right corner → left corner
    lower = ring[left : right + 1][::-1]
    at_upper, at_lower = arc_fraction(body[upper]), arc_fraction(body[lower])
    n = len(body)
    to_upper, to_lower = _selector(upper, n), _selector(lower, n)
    spine = 0.5 * (to_upper + resampler(at_lower, at_upper) @ to_lower)
    spine_at_lower = resampler(at_upper, at_lower) @ spine
    rows, offsets = [], []
    ids_upper, ids_lower = [patch_of_body[upper]], [patch_of_body[lower]]
    next_id = first_id
    steps = [(k + 1) / (MEMBRANE_ROWS + 1) for k in range(MEMBRANE_ROWS)]
    plan = [(to_upper, spine, at_upper, s, ids_upper) for s in steps]
    plan += [(to_lower, spine_at_lower, at_lower, s, ids_lower) for s in steps]
    plan.append((to_upper, spine, at_upper, 1.0, ids_upper))
    for lip, middle, fraction, s, ids in plan:
        inner = slice(1, len(fraction) - 1)  # the corners belong to the ring
        rows.append(((1 - s) * lip + s * middle)[inner])
        offsets.append(-MEMBRANE_BULGE_DM * _bulge(s, fraction[inner]))
        count = len(fraction) - 2
        ids.append(np.concatenate([ids[0][:1], np.arange(next_id, next_id + count), ids[0][-1:]]))
        next_id += count
    ids_lower.append(ids_upper[-1])
    strips = [_zip_strip(a, b, at_upper, at_upper) for a, b in pairwise(ids_upper)]
    lower_fractions = [at_lower] * (len(ids_lower) - 1) + [at_upper]
    for k in range(len(ids_lower) - 1):
        strip = _zip_strip(ids_lower[k], ids_lower[k + 1], lower_fractions[k], lower_fractions[k + 1])
        strips.append(strip[:, ::-1])
    return _Membrane(sparse.csr_matrix(sparse.vstack(rows)), np.concatenate(offsets), np.concatenate(strips))


def _bulge(s: float, fraction: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 on the lips and at the corners, 1 in the middle."""
    to_corner = np.clip(np.minimum(fraction, 1 - fraction) / 0.3, 0, 1)
    return (1 - (1 - s) ** 2) * to_corner * (2 - to_corner)


def arc_fraction(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of a polyline's length, 0..1, at each of its points ``[N, 3]``."""
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return length / length[-1]


def _selector(ids: NDArray[np.int64], count: int) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.ones(len(ids)), (np.arange(len(ids)), ids)), shape=(len(ids), count))


def resampler(source: NDArray[np.float64], target: NDArray[np.float64]) -> sparse.csr_matrix:
    """Linear interpolation matrix from samples at ``source`` to ``target`` (both rising from 0 to 1)."""
    right = np.clip(np.searchsorted(source, target, side="right"), 1, len(source) - 1)
    share = (target - source[right - 1]) / (source[right] - source[right - 1])
    rows = np.repeat(np.arange(len(target)), 2)
    columns = np.stack([right - 1, right], axis=1).ravel()
    return sparse.csr_matrix(
        (np.stack([1 - share, share], axis=1).ravel(), (rows, columns)), shape=(len(target), len(source))
    )


def _zip_strip(
    above: NDArray[np.int64],
    below: NDArray[np.int64],
    at_above: NDArray[np.float64],
    at_below: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Triangles between two polylines that run in +x and share both ends; front faces look to +z."""
    triangles = []
    i = j = 0
    while i < len(above) - 1 or j < len(below) - 1:
        advance_above = j == len(below) - 1 or (i < len(above) - 1 and at_above[i + 1] <= at_below[j + 1])
        if advance_above:
            triangles.append((above[i], below[j], above[i + 1]))
            i += 1
        else:
            triangles.append((above[i], below[j], below[j + 1]))
            j += 1
    return np.array([t for t in triangles if len(set(t)) == 3])


def _labels(mesh: BodyMesh, body_ids: NDArray[np.int64]) -> NDArray[np.int8]:
    labels = np.full(len(body_ids), LABEL_SKIN, dtype=np.int8)
    is_body = body_ids < N_BODY
    labels[~is_body] = LABEL_EYE
    for name, label in (("ears", LABEL_EAR), ("lips", LABEL_LIP), ("inside-mouth", LABEL_LIP)):
        labels[np.flatnonzero(is_body)[mesh.regions[name][body_ids[is_body]] > 0.5]] = label
    return labels


def _on_face(mesh: BodyMesh, body_ids: NDArray[np.int64], n_membrane: int) -> NDArray[np.bool_]:
    on_face = body_ids >= N_BODY
    on_face[~on_face] = mesh.regions["face"][body_ids[body_ids < N_BODY]] > 0.3
    return np.concatenate([on_face, np.ones(n_membrane, dtype=bool)])


def _mirror(vertices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Nearest vertex to each vertex' mirror image; the base mesh is symmetric to 0.01 mm."""
    return np.asarray(KDTree(vertices).query(vertices * [-1, 1, 1])[1])
