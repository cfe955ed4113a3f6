"""Head, neck and clothes of one person, from the embedded person mask, the face's landmarks and the clip's own colours.

It stands in for MediaPipe's multiclass selfie model, which is not shipped. What is skin, hair and cloth is learnt from
places that are sure to show it; elsewhere colour decides together with where a pixel lies under the chin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from modules.structures.landmarks import FACE_OVAL, FOREHEAD_CHIN, MOUTH
from modules.structures.portrait_parts import TORSO_CLASSES
from modules.structures.segmentation import SelfieClass

EAR_LOBES, JAW_ANGLES = (132, 361), (58, 288)
"""Landmarks at the height of the lobes, above which all that is not face is hair (or ear, or hat), and of the jaw's
angles: down to there what is right beside the outline is still the jaw."""
JAW_WIDTH, OUTLINE_GROWTH = 0.05, 0.015
"""Face heights around the outline that belong to the jaw, and to the face all around: landmarks lie a little inside."""
HEAD_WIDTH = 1.0
"""Face heights beside the midline within which a head ends, hair and hat included."""
CORE_WITHIN = 0.04
"""Face heights inside the outline from which on a pixel is the person's, whatever the mask says."""
STRAND, SMOOTH_WITHIN, PIECE = 0.02, 0.01, 0.1
"""Face heights: half the width of what may still hang down as hair, over how much the odds are smoothed, and the side
of the smallest square piece of a torso: smaller ones under the ears are ears."""
PARTS = (SelfieClass.HAIR, SelfieClass.BODY_SKIN, SelfieClass.CLOTHES)
BINS = 16
LEAST_SHARE = 1e-5
"""Of a colour that hair or skin never showed."""
ANY_CLOTHES = 0.5
"""Share of clothes whose colour no sure place shows: a collar, a scarf."""
SHADES = (1.0, 0.75, 0.55)
"""Skin is darker under the chin than on the cheeks."""
CLOTHES_BELOW, HAIR_ABOVE, SIDE_OF_HEAD = 0.7, -1.0, 0.55
"""Sure places, in face heights below the chin and beside the midline."""


@dataclass(frozen=True, slots=True, eq=False)
class FacePlace:
    """Where pixels lie as seen from the face.

    Attributes:
        side: ``[H, W]`` distance from the midline, face heights. below: ``[H, W]`` height under the chin, negative
            above it. lobes: ``below`` of the ear lobes. height_px: forehead to chin.
        head: bool ``[H, W]`` above the lobes, or along the jaw: part of the head, if of the person at all.
        face: bool ``[H, W]`` within the outline of the face. core: well within it.
    """

    side: NDArray[np.float32]
    below: NDArray[np.float32]
    lobes: float
    head: NDArray[np.bool_]
    height_px: float
    face: NDArray[np.bool_]
    core: NDArray[np.bool_]

    @classmethod
    def of(cls, points: NDArray[np.floating], size_hw: tuple[int, int]) -> FacePlace:
        """Of landmarks ``[478, 2]`` px in a picture."""
        top, chin = (points[index].astype(np.float64) for index in FOREHEAD_CHIN)
        height = float(np.linalg.norm(chin - top))
        down = (chin - top) / height
        columns, rows = np.arange(size_hw[1]) + 0.5 - chin[0], np.arange(size_hw[0])[:, None] + 0.5 - chin[1]
        below = ((columns * down[0] + rows * down[1]) / height).astype(np.float32)
        side = (np.abs(columns * down[1] - rows * down[0]) / height).astype(np.float32)
        outline = np.zeros(size_hw, np.uint8)
        cv2.fillPoly(outline, [np.round(points[list(FACE_OVAL)] * 16 - 8).astype(np.int32)], 255, shift=4)
        lobes, angles = (float(((points[list(at)] - chin) @ down).mean() / height) for at in (EAR_LOBES, JAW_ANGLES))
        away = cv2.distanceTransform(255 - outline, cv2.DIST_L2, 3) / height
        head = (below < lobes) & (side < HEAD_WIDTH) | (below < angles) & (away < JAW_WIDTH)
        within = cv2.distanceTransform(outline, cv2.DIST_L2, 3) / height
        return cls(side, below, lobes, head, height, away <= OUTLINE_GROWTH, within > CORE_WITHIN)


@dataclass(frozen=True, slots=True, eq=False)
class PartColours:
    """How often each part shows a colour: ``[3, BINS³]`` shares of the parts in ``PARTS``, log."""

    log_share: NDArray[np.float32]

    @classmethod
    def learn(cls, seen: Iterable[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.floating]]]) -> PartColours:
        """From pictures RGB ``[H, W, 3]``, who is seen in them ``[H, W]`` 0..1 and landmarks ``[478, 2]`` px."""
        counts = np.zeros((len(PARTS), BINS**3))
        for rgb, person, points in seen:
            hair, cheeks, clothes = sure_places(FacePlace.of(points, rgb.shape[:2]), person, points)
            counts[0] += _counted(rgb[hair])
            counts[1] += sum(_counted((rgb[cheeks] * shade).astype(np.uint8)) for shade in SHADES)
            counts[2] += _counted(rgb[clothes])
        cubes = counts.reshape(-1, BINS, BINS, BINS)
        smooth = gaussian_filter(cubes, (0, 0.7, 0.7, 0.7), mode="nearest").reshape(counts.shape)
        shares = smooth / np.maximum(smooth.sum(axis=1, keepdims=True), 1)
        shares[2] = (1 - ANY_CLOTHES) * shares[2] + ANY_CLOTHES / BINS**3
        return cls(np.log(np.maximum(shares, LEAST_SHARE)).astype(np.float32))

    def log_shares(self, rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``[3, H, W]`` of each part in ``PARTS``."""
        return self.log_share[:, colour_bins(rgb)]


def _counted(colours: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many of the pixels ``[N, 3]`` fall into each cell."""
    return np.bincount(colour_bins(colours[None])[0], minlength=BINS**3) if len(colours) else np.zeros(BINS**3, int)


def colour_bins(rgb: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Cell ``[H, W]`` of each pixel's Lab colour: 16 steps of lightness, and of what colours people have."""
    lightness, a, b = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.int64), -1, 0)
    steps = [lightness // 16, *(np.clip((axis - 88) // 5, 0, BINS - 1) for axis in (a, b))]
    return (steps[0] * BINS + steps[1]) * BINS + steps[2]


def sure_places(
    place: FacePlace, person: NDArray[np.float32], points: NDArray[np.floating]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Where hair, skin and clothes are sure to be seen, bool ``[H, W]`` each; the last two may be empty."""
    sure = person > 0.9
    hair = sure & ~place.face & (place.below < HAIR_ABOVE - 0.02) & (place.side < 0.4)
    mouth = np.zeros(person.shape, np.uint8)
    cv2.fillConvexPoly(mouth, cv2.convexHull(points[list(MOUTH)].astype(np.float32)).astype(np.int32), 255)
    cheeks = place.face & (place.below > -0.6) & (place.below < -0.05) & (mouth == 0)
    clothes = sure & (place.below > CLOTHES_BELOW) | sure & (place.below > 0.35) & (place.side > SIDE_OF_HEAD)
    return hair, cheeks, clothes


def log_prior(place: FacePlace) -> NDArray[np.float32]:
    """How likely each part is at a place before its colour is seen, log, ``[3, H, W]``."""
    below, side = place.below, place.side
    hanging = np.maximum(below - place.lobes, 0) / 0.5
    under_chin = np.clip((0.3 - side) / 0.1, 0, 1) * np.clip((below + 0.05) / 0.1, 0, 1)
    hair = -(hanging**2) - 3 * under_chin
    outside = np.maximum(side - 0.36, 0) / 0.07
    deep = np.maximum(below - 0.35, 0) / 0.25
    neck = -0.5 * outside**2 - 0.5 * deep**2
    start = np.where(side < 0.36, 0.05, -0.1)
    clothes = -np.logaddexp(0, -(below - start) / 0.06)
    return np.maximum(np.stack([hair, neck, clothes]), -12).astype(np.float32)


def head_torso_classes(
    rgb: NDArray[np.uint8], person: NDArray[np.float32], points: NDArray[np.floating], colours: PartColours
) -> NDArray[np.uint8]:
    """Class ``[H, W]`` (``SelfieClass``) of every pixel.

    Args:
        rgb: ``[H, W, 3]``.
        person: ``[H, W]`` 0..1 that a person is seen.
        points: landmarks ``[478, 2]`` px of the person's face.
        colours: of the clip.
    """
    place = FacePlace.of(points, rgb.shape[:2])
    odds = _smooth_odds(rgb, points, colours)
    below_lobes = np.array(PARTS, np.uint8)[odds.argmax(axis=0)]
    is_skin = odds[1] > odds[0] + 2
    classes = np.where(place.head, np.where(is_skin, SelfieClass.FACE_SKIN, SelfieClass.HAIR), below_lobes)
    classes[place.face] = SelfieClass.FACE_SKIN
    seen = (person > 0.5) | place.core
    loose = seen & (classes == SelfieClass.HAIR) & ~_on_head(seen, classes, place)
    classes[loose] = np.where(odds[1] > odds[2], SelfieClass.BODY_SKIN, SelfieClass.CLOTHES)[loose]
    classes[~seen] = SelfieClass.BACKGROUND
    classes[_small_pieces(np.isin(classes, TORSO_CLASSES), (PIECE * place.height_px) ** 2)] = SelfieClass.FACE_SKIN
    return classes.astype(np.uint8)


def _small_pieces(part: NDArray[np.bool_], least_px: float) -> NDArray[np.bool_]:
    """Pixels ``[H, W]`` of a part in pieces of fewer than ``least_px`` pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8))
    is_small = stats[:, cv2.CC_STAT_AREA] < least_px
    is_small[0] = False
    return is_small[np.asarray(labels, np.int64)]


def _smooth_odds(rgb: NDArray[np.uint8], points: NDArray[np.floating], colours: PartColours) -> NDArray[np.float32]:
    """Log odds ``[3, H, W]`` of the parts, of colour and place, over some pixels each; looked at in half the size."""
    height, width = rgb.shape[:2]
    half = cv2.resize(rgb, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    place = FacePlace.of(points / 2, half.shape[:2])
    odds = colours.log_shares(np.asarray(half, np.uint8)) + log_prior(place)
    smooth = [cv2.GaussianBlur(part, (0, 0), SMOOTH_WITHIN * place.height_px) for part in odds]
    return np.stack([cv2.resize(part, (width, height), interpolation=cv2.INTER_LINEAR) for part in smooth])


def _on_head(seen: NDArray[np.bool_], classes: NDArray[np.uint8], place: FacePlace) -> NDArray[np.bool_]:
    """Pixels ``[H, W]`` of the head that hang together with the face, over more than a few pixels."""
    head = seen & ((classes == SelfieClass.HAIR) | (classes == SelfieClass.FACE_SKIN))
    size = 2 * max(1, round(STRAND * place.height_px)) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    broad = cv2.morphologyEx(head.astype(np.uint8), cv2.MORPH_OPEN, kernel) > 0
    kept = (head & place.head) | place.face | broad
    _, labels = cv2.connectedComponents(kept.astype(np.uint8))
    own = np.unique(labels[place.face])
    return np.isin(labels, own[own > 0])
