"""How a person looks: face shape and colours, gathered while tracking, to tell whether two tracks show one person.

Nothing here recognises faces the way a trained network does. Within one video a person keeps their face, their hair and
mostly their clothes, and that is enough to link some tracks; where it is not, tracks stay apart: a person split in two
is a nuisance, two persons under one number is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from modules.face_model.model import FaceModel
from modules.structures.landmarks import BROWS, EYES, FACE_OVAL, FOREHEAD_CHIN, IRISES, JAW_LINE, MOUTH, N_MEDIAPIPE

MIN_FACE_PX = 20.0
"""Lower faces say nothing about their shape."""
PATCH_SAMPLES = 7
"""Each patch of colour is read on a grid of 7 × 7 points."""
PATCHES: tuple[tuple[str, float, float, float], ...] = (
    ("forehead", 0.0, 0.12, 0.07),
    ("cheek_left", -0.22, 0.62, 0.06),
    ("cheek_right", 0.22, 0.62, 0.06),
    ("hair_top", 0.0, -0.16, 0.08),
    ("hair_left", -0.42, 0.05, 0.06),
    ("hair_right", 0.42, 0.05, 0.06),
    ("chest", 0.0, 1.75, 0.12),
    ("shoulder_left", -0.75, 1.7, 0.15),
    ("shoulder_right", 0.75, 1.7, 0.15),
)
"""Name, place (across, along the forehead-chin axis from the forehead) and half size, in face heights."""
SKIN, HAIR, CLOTHES = (0, 1, 2), (3, 4, 5), (6, 7, 8)
LINK_DISTANCE = 0.85
"""``look_distance`` below which two tracks may count as one person; 1 in 15,000 pairs of strangers is nearer."""
LINK_COSINE = 0.5
"""The same for embeddings: safer than the 0.363 that OpenCV gives for SFace."""
RIVAL_RATIO = 0.9
"""A link must be this much closer than one to somebody who is in the picture together with the candidate."""
MIN_SIGHTS = 3
"""Tracks seen less often are linked to nobody."""
SHAPE_SCALE, SKIN_SCALE, HAIR_SCALE, CLOTHES_SCALE = 0.035, 6.0, 8.0, 14.0
"""What counts as 1 in ``look_distance``: about what parts persons seen in one video at the least."""
UNSEEN = 1.75
"""What colours count that one side does not show: where less is seen, the rest must agree better."""

_SOFT = frozenset((*MOUTH, *EYES, *BROWS, *IRISES, *JAW_LINE))
STEADY = np.array([i for i in range(N_MEDIAPIPE) if i not in _SOFT or i in FACE_OVAL[:1]])
"""Points that expression moves little."""


def mean_face(model: FaceModel) -> NDArray[np.float64]:
    """The model's mean landmarks ``[478, 3]``: x right, y down, z away from the camera, as the landmark network's."""
    identity, expression = torch.zeros(model.n_identity), torch.zeros(1, model.n_expression)
    return model.landmarks(identity, expression)[0].numpy().astype(np.float64) * [1.0, -1.0, -1.0]


def _zeros(*shape: int) -> NDArray[np.float64]:
    return np.zeros(shape)


@dataclass(slots=True, eq=False)
class FaceLook:
    """What a track's person looks like so far; a few sights a second are enough.

    Attributes:
        shape_sum: ``[S, 3]`` sum of weighted, pose-free face shapes over the ``STEADY`` points.
        shape_weight: their summed weight.
        colour_sum: ``[P, 3]`` sums of the patches' Lab colours.
        colour_count: ``[P]`` how often each patch was seen.
        embedding_sum: ``[D]`` sum of a recognition network's unit vectors; empty without one.
    """

    shape_sum: NDArray[np.float64] = field(default_factory=lambda: _zeros(len(STEADY), 3))
    shape_weight: float = 0.0
    colour_sum: NDArray[np.float64] = field(default_factory=lambda: _zeros(len(PATCHES), 3))
    colour_count: NDArray[np.float64] = field(default_factory=lambda: _zeros(len(PATCHES)))

    embedding_sum: NDArray[np.float64] = field(default_factory=lambda: _zeros(0))

    def add(
        self,
        rgb: NDArray[np.uint8],
        points: NDArray,
        depth: NDArray,
        reference: NDArray,
        embedding: NDArray | None = None,
    ) -> None:
        """Take a sight in.

        Args:
            rgb: picture or window ``[H, W, 3]`` that shows the face and, where it can, what is above and below it.
            points: landmarks ``[478, 2]`` in its pixels.
            depth: ``[478]`` relative z in px, smaller = nearer.
            reference: mean face ``[478, 3]`` (``mean_face``).
            embedding: of a face-recognition network, if there is one (``FaceRecogniser.embed``).
        """
        top, chin = (points[i].astype(np.float64) for i in FOREHEAD_CHIN)
        if np.linalg.norm(chin - top) < MIN_FACE_PX:
            return
        shape, weight = pose_free_shape(points, depth, reference)
        self.shape_sum = self.shape_sum + weight * shape
        self.shape_weight += weight
        if embedding is not None:
            self.embedding_sum = _added(self.embedding_sum, embedding)
        for number, (_, across, along, half) in enumerate(PATCHES):
            lab = patch_colour(rgb, top, chin, (across, along, half))
            if lab is not None:
                self.colour_sum[number] += lab
                self.colour_count[number] += 1

    @property
    def shape(self) -> NDArray[np.float64] | None:
        """Mean pose-free shape ``[S, 3]`` over the reference face's size, or None when no sight was near frontal."""
        return self.shape_sum / self.shape_weight if self.shape_weight >= 0.5 else None

    @property
    def colours(self) -> NDArray[np.float64]:
        """Mean Lab colours ``[P, 3]`` (L 0..100), NaN for patches never in the picture."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.colour_sum / self.colour_count[:, None]

    @property
    def sights(self) -> int:
        """How many sights were taken in."""
        return int(self.colour_count.max())

    def merged(self, other: FaceLook) -> FaceLook:
        """What both show together."""
        return FaceLook(
            self.shape_sum + other.shape_sum,
            self.shape_weight + other.shape_weight,
            self.colour_sum + other.colour_sum,
            self.colour_count + other.colour_count,
            _added(self.embedding_sum, other.embedding_sum),
        )

    def to_arrays(self) -> dict[str, NDArray[np.float64]]:
        """All state as plain arrays."""
        return {
            "shape_sum": self.shape_sum,
            "shape_weight": np.array(self.shape_weight),
            "colour_sum": self.colour_sum,
            "colour_count": self.colour_count,
            "embedding_sum": self.embedding_sum,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray]) -> FaceLook:
        """The inverse of ``to_arrays``."""
        values = {name: np.array(arrays[name], np.float64) for name in cls().to_arrays()}
        weight = float(values.pop("shape_weight"))
        return cls(shape_weight=weight, **values)


def pose_free_shape(points: NDArray, depth: NDArray, reference: NDArray) -> tuple[NDArray[np.float64], float]:
    """Shape ``[S, 3]`` of one sight less the reference's, turned and scaled onto it, over the reference's size.

    The weight is 1 for a face seen from the front and fades to 0 for one seen from the side.
    """
    seen = np.column_stack([points, depth])[STEADY].astype(np.float64)
    wanted = reference[STEADY]
    rotation, scale = fit_rotation(seen, wanted)
    centered = wanted - wanted.mean(axis=0)
    aligned = scale * (seen - seen.mean(axis=0)) @ rotation.T
    size = float(np.sqrt((centered**2).sum(axis=1).mean()))
    frontal = float(np.clip((rotation[2, 2] - 0.75) / 0.2, 0.0, 1.0))  # fades from 18 to 41 degrees
    return (aligned - centered) / size, frontal


def fit_rotation(source: NDArray[np.float64], target: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Rotation ``[3, 3]`` and scale of the least-squares similarity from centred ``source [N, 3]`` to ``target``."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, strength, vt = np.linalg.svd(b.T @ a)
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    return (u * flip) @ vt, float((strength * flip).sum() / (a**2).sum())


def patch_colour(
    rgb: NDArray[np.uint8], top: NDArray, chin: NDArray, place: tuple[float, float, float]
) -> NDArray[np.float64] | None:
    """Median Lab colour ``[3]`` of a patch placed by the forehead and the chin, or None when it leaves the picture."""
    across, along, half = place
    down = chin - top
    side = np.array([-down[1], down[0]]) * -1.0
    grid = np.linspace(-half, half, PATCH_SAMPLES)
    u, v = np.meshgrid(across + grid, along + grid)
    places = top + u[..., None] * side + v[..., None] * down
    columns, rows = np.floor(places[..., 0]).astype(int), np.floor(places[..., 1]).astype(int)
    height, width = rgb.shape[:2]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    if inside.mean() < 0.7:
        return None
    colours = rgb[rows[inside], columns[inside]][None].astype(np.float32) / np.float32(255)
    return np.median(cv2.cvtColor(colours, cv2.COLOR_RGB2LAB)[0], axis=0).astype(np.float64)


def look_distance(first: FaceLook, second: FaceLook) -> float:
    """How unlike two looks are: about 0.3 to 0.9 for one person in one light, 1 and more for two; inf = unknown.

    The mean of four differences, each in its own scale: face shape (counted twice), skin, hair and clothes. Lightness
    counts half, because lamps change it most; what is not seen on both sides counts as unlike. Without a face shape
    nothing is known. Where both have a recognition network's embeddings, these alone decide.
    """
    if len(first.embedding_sum) and len(second.embedding_sum):
        lengths = np.linalg.norm(first.embedding_sum) * np.linalg.norm(second.embedding_sum)
        cosine = float(first.embedding_sum @ second.embedding_sum / max(lengths, 1e-12))
        return LINK_DISTANCE * (1 - cosine) / (1 - LINK_COSINE)
    shape, other = first.shape, second.shape
    if shape is None or other is None:
        return float("inf")
    apart = float(np.sqrt(((shape - other) ** 2).sum(axis=1).mean())) / SHAPE_SCALE
    colours = [UNSEEN if value is None else value for value in colour_differences(first, second)]
    return float(np.mean([apart, apart, *colours]))


def colour_differences(first: FaceLook, second: FaceLook) -> list[float | None]:
    """How unlike skin, hair and clothes are, each in its own scale; None for what one side does not show."""
    change = (first.colours - second.colours) * [0.5, 1.0, 1.0]
    found: list[float | None] = []
    for group, scale in ((SKIN, SKIN_SCALE), (HAIR, HAIR_SCALE), (CLOTHES, CLOTHES_SCALE)):
        lengths = np.linalg.norm(change[list(group)], axis=1)
        lengths = lengths[np.isfinite(lengths)]
        found.append(float(np.median(lengths)) / scale if len(lengths) else None)
    return found


def colour_distance(first: FaceLook, second: FaceLook) -> float | None:
    """Mean of ``colour_differences`` over what both show; None when they show too little in common."""
    seen = [value for value in colour_differences(first, second) if value is not None]
    return float(np.mean(seen)) if len(seen) >= 2 else None


def link_tracks(
    looks: Sequence[FaceLook],
    spans: Sequence[tuple[int, int]],
    *,
    max_distance: float = LINK_DISTANCE,
) -> list[list[int]]:
    """Which tracks show one person: groups of track numbers, each ascending, ordered by their first.

    The closest two groups are joined first, and what both show then counts together. Tracks that overlap in time are
    never one person. A link is refused when somebody seen together with the one looks nearly as much like the other.

    Args:
        looks: of each track.
        spans: half-open frame range of each track.
        max_distance: more of it links more, and more wrongly.
    """
    groups = {number: [number] for number in range(len(looks))}
    shown = dict(enumerate(looks))
    usable = {number for number in groups if looks[number].sights >= MIN_SIGHTS}
    distance = {pair: look_distance(shown[pair[0]], shown[pair[1]]) for pair in combinations(sorted(usable), 2)}
    refused: set[tuple[int, int]] = set()
    while open_pairs := distance.keys() - refused:
        first, second = min(open_pairs, key=lambda pair: (distance[pair], pair))
        if distance[first, second] >= max_distance:
            break
        if _together(groups[first], groups[second], spans) or _has_rival((first, second), distance, groups, spans):
            refused.add((first, second))
            continue
        groups[first] += groups.pop(second)
        shown[first] = shown[first].merged(shown.pop(second))
        distance = {pair: value for pair, value in distance.items() if second not in pair}
        distance |= {pair: look_distance(shown[pair[0]], shown[pair[1]]) for pair in distance if first in pair}
        refused = {pair for pair in refused if first not in pair}
    return sorted(sorted(group) for group in groups.values())


def _added(first: NDArray, second: NDArray) -> NDArray[np.float64]:
    """The sum of two vectors, either of which may be empty."""
    if len(first) == 0 or len(second) == 0:
        return np.array(first if len(first) else second, np.float64)
    return np.asarray(first, np.float64) + second


def _together(first: list[int], second: list[int], spans: Sequence[tuple[int, int]]) -> bool:
    """Whether two groups are ever in the picture at the same time."""
    return any(spans[a][0] < spans[b][1] and spans[b][0] < spans[a][1] for a in first for b in second)


def _has_rival(
    pair: tuple[int, int],
    distance: Mapping[tuple[int, int], float],
    groups: Mapping[int, list[int]],
    spans: Sequence[tuple[int, int]],
) -> bool:
    """Whether somebody seen together with one of ``pair`` looks nearly as much like the other."""
    limit = distance[pair] / RIVAL_RATIO
    for one, other in (pair, pair[::-1]):
        for rival in groups:
            key = (min(other, rival), max(other, rival))
            near = rival not in pair and key in distance and distance[key] <= limit
            if near and _together(groups[one], groups[rival], spans):
                return True
    return False
