"""Bind landmarks to what they mean: lips to the lip loops, lids to the lid margins.

The landmarker's average place says how far along a contour a point sits; the contour itself is the mesh's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.build_face_model.geometry import HeadGeometry, lip_arcs
from data_gen.utils.build_face_model.head_patch import arc_fraction
from modules.structures.landmarks import IMAGE_LEFT_EYE, IMAGE_RIGHT_EYE, INNER_LIP, OUTER_LIP

Anchors = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Vertex ids ``[478, 3]`` and barycentric weights ``[478, 3]``."""


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One opening of the face and the landmarks that keep to its rim.

    Attributes:
        chains: upper and lower landmarks, both between the same two corners. arcs: the mesh's vertices likewise.
        tied: facing points sit at the same share of their arcs, so that they meet when the opening shuts.
    """

    chains: list[tuple[int, ...]]
    arcs: list[NDArray[np.int64]]
    tied: bool


def bind_contours(geometry: HeadGeometry, places: NDArray[np.float64], anchors: Anchors) -> Anchors:
    """Move lip and lid landmarks of ``anchors`` onto the mesh's contours.

    Args:
        geometry: mean shape and topology.
        places: ``[478, 3]`` mirror-symmetric average places on the mean shape.
        anchors: nearest points of the mesh to those places.
    """
    corner_ids, weights = anchors[0].copy(), anchors[1].copy()
    edges = _Edges(geometry.patch.triangles)
    for contour in contour_chains(geometry):
        both = list(zip(contour.chains, contour.arcs, strict=True))
        shares = [_shares(places[list(chain)], geometry.mean[arc]) for chain, arc in both]
        if contour.tied:
            shares = [0.5 * (shares[0] + shares[1])] * 2
        for (chain, arc), share in zip(both, shares, strict=True):
            at = arc_fraction(geometry.mean[arc])
            right = np.clip(np.searchsorted(at, share, side="right"), 1, len(arc) - 1)
            along = (share - at[right - 1]) / (at[right] - at[right - 1])
            for landmark, k, t in zip(chain, right, along, strict=True):
                corner_ids[landmark], weights[landmark] = edges.anchor(int(arc[k - 1]), int(arc[k]), float(t))
    return corner_ids, weights


def contour_chains(geometry: HeadGeometry) -> list[Contour]:
    """Inner lips, outer lips and lids; mouths from the image's left corner to the right one, eyes from the outer."""
    half = len(INNER_LIP) // 2
    result = []
    for ring, loop in ((INNER_LIP, geometry.patch.inner_lip), (OUTER_LIP, geometry.patch.outer_lip)):
        chains = [ring[: half + 1], (ring[0], *ring[:half:-1], ring[half])]
        result.append(Contour(chains, list(lip_arcs(loop)), tied=ring is INNER_LIP))
    # the eye rings run from the outer corner over the upper lid
    half = len(IMAGE_LEFT_EYE) // 2
    for ring, rim in ((IMAGE_LEFT_EYE, geometry.patch.lid_rims[1]), (IMAGE_RIGHT_EYE, geometry.patch.lid_rims[0])):
        chains = [ring[: half + 1], (ring[0], *ring[:half:-1], ring[half])]
        result.append(Contour(chains, list(_lid_arcs(geometry.mean, rim)), tied=True))
    return result


def _lid_arcs(mean: NDArray[np.float64], rim: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Upper and lower lid margin, each from the outer to the inner corner of the eye."""
    across = np.abs(mean[rim, 0])
    outer = int(across.argmax())
    ring = np.roll(rim, -outer)
    inner = int(np.abs(mean[ring, 0]).argmin())
    one, other = ring[: inner + 1], np.concatenate([ring[:1], ring[: inner - 1 : -1]])
    return (one, other) if mean[one, 1].mean() > mean[other, 1].mean() else (other, one)


def _shares(points: NDArray[np.float64], polyline: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far along the polyline (0..1) each point's nearest place lies; rises strictly, ends at the ends."""
    at = arc_fraction(polyline)
    start, edge = polyline[:-1], np.diff(polyline, axis=0)
    t = np.clip(((points[:, None] - start) * edge).sum(-1) / (edge * edge).sum(-1), 0, 1)
    distance = np.linalg.norm(start + t[..., None] * edge - points[:, None], axis=-1)
    best = distance.argmin(axis=1)
    share = at[best] + t[np.arange(len(points)), best] * np.diff(at)[best]
    share[0], share[-1] = 0.0, 1.0
    return np.maximum.accumulate(share)


class _Edges:
    """Finds a triangle at an edge of the mesh."""

    def __init__(self, triangles: NDArray[np.int64]) -> None:
        self._triangles = triangles
        self._of_edge: dict[frozenset[int], int] = {}
        for index, corners in enumerate(triangles.tolist()):
            for k in range(3):
                self._of_edge.setdefault(frozenset((corners[k - 1], corners[k])), index)

    def anchor(self, first: int, second: int, along: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The point ``along`` (0..1) from ``first`` to ``second`` as barycentric weights of a triangle there."""
        corners = self._triangles[self._of_edge[frozenset((first, second))]]
        return corners, (1 - along) * (corners == first) + along * (corners == second)
