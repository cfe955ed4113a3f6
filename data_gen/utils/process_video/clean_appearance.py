"""What this person's face looks like with nothing in front of it, learnt from the clip before any network is.

Clean frames are unrolled into the canonical texture and kept as exemplars. The face of any frame is then a blend of
the exemplars whose mouth and pose are most like the frame's, painted through the frame's own mesh: lips, teeth and the
shadow of the jaw move with the mouth because those of the exemplars did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.canonical_texture import CanonicalTexture
from data_gen.utils.process_video.clean_exemplars import LEAST_SEEN, USUAL_SPREAD, clean_part, median_texture
from data_gen.utils.process_video.exposure_match import matched_exposure
from modules.commons.errors import GeneFaceError
from modules.face_model.model import FaceModel
from modules.structures.array_file import mapped_npz
from modules.structures.crops import CropMetadata
from modules.structures.expected_face import ExpectedFace
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.masks import OcclusionTable

APPEARANCE_SCHEMA = "clean-appearance/4"
LEAST_CLEAN_S = 2.0
"""Shorter clean stretches together show too few mouths to tell a new mouth from an object."""
WORKING_SIZE = 256
"""Crops are unrolled at this size."""
NEIGHBOURS = 6
"""Exemplars blended into a frame."""
POSE_WEIGHT_DM = 0.25
"""A turn of 1 rad makes exemplars as unlike as lips that stand this far apart."""
LIKENESS_DM = 0.02
"""Exemplars nearer than this to the frame count about alike."""
DOUBT_DM, DOUBTFUL = 0.06, 0.006
"""Exemplars with this share of texels that seem something else count this much further away: a straw is small."""
LEAST_SPREAD = 0.012
"""Three grey levels: camera noise and compression at their best."""
VIEWS_BLENDED = 3
"""Frames of most like placement that are averaged around the face."""
VIEW_DOUBT_PX = 6.0
"""Of a doubtful exemplar in the surroundings, px of ``WORKING_SIZE``."""
VIEW_AWAY_PX = 1.5
"""Heads this near to each other are placed alike, px of ``WORKING_SIZE``."""
VIEW_TOO_FAR = 6.0
"""Heads so many times further away than usual tell nothing of what is around this one."""
VIEW_SPREAD = 0.025
"""Least spread there: nothing is carried along by a mesh."""
_USUAL_WEIGHT = 0.02
"""Of the clip's median in every blend; it fills what none of the frame's neighbours shows."""
SPREAD_UNSEEN = 0.2
"""Where a texel was seen too seldom to say."""


def clean_rows(
    coeffs: FaceModelCoeffs, hands: OcclusionTable, times_s: NDArray[np.float64], count: int = 64
) -> NDArray[np.int64]:
    """Frames to learn the clean face from: at most ``count``, spread evenly over the clean part of the clip.

    Args:
        coeffs: of the clip; frames without a fit are not clean.
        hands: of the clip; frames in which a hand was found near the face are not clean.
        times_s: ``[T]`` rising frame times.
        count: most frames wanted.

    Returns:
        Ascending rows; empty when the clean frames last less than ``LEAST_CLEAN_S`` together.
    """
    clean = np.array(coeffs.valid)
    clean[hands.rows] = False
    durations = np.diff(times_s, append=times_s[-1] + np.median(np.diff(times_s))) if len(times_s) > 1 else times_s * 0
    rows = np.flatnonzero(clean)
    if durations[rows].sum() < LEAST_CLEAN_S:
        return np.zeros(0, np.int64)
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64))]


@dataclass(frozen=True, slots=True, eq=False)
class Exemplars:
    """Clean frames, unrolled and as they are.

    Attributes:
        rows: int64 ``[N]`` frames they come from.
        textures: uint8 ``[N, h, w, 3]`` unrolled. usable: bool ``[N, h, w]``: texels that show the clean face.
        spread: float32 ``[h, w]`` 0..1 of the textures.
        doubt: float32 ``[N]`` dm, how much further away each counts because it may show something else.
        views: uint8 ``[N, S, S, 3]`` the crops. view_spread: float32 ``[S, S]`` 0..1, of crops alike in placement.
        view_away: how far apart heads were in those, px.
    """

    rows: NDArray[np.int64]
    textures: NDArray[np.uint8]
    usable: NDArray[np.bool_]
    spread: NDArray[np.float32]
    doubt: NDArray[np.float32]
    views: NDArray[np.uint8]
    view_spread: NDArray[np.float32]
    view_away: float

    @property
    def certain(self) -> NDArray[np.int64]:
        """Exemplars without doubt, or all where those are too few to learn a spread from."""
        chosen = np.flatnonzero(self.doubt == 0)
        enough = max(LEAST_SEEN, len(self.rows) // 4)
        return chosen if len(chosen) >= enough else np.arange(len(self.rows))


class CleanAppearance:
    """A ``FaceExpectation`` from exemplars: the face through canonical texture space, its surroundings as they were.

    Args:
        texture: maps between crops and texture, for the clip that is asked about.
        coeffs: of that clip.
        exemplars: what was learnt.
    """

    def __init__(self, texture: CanonicalTexture, coeffs: FaceModelCoeffs, exemplars: Exemplars) -> None:
        self._texture, self._coeffs, self.exemplars = texture, coeffs, exemplars
        certain = exemplars.certain
        self._usual = median_texture(exemplars.textures[certain], exemplars.usable[certain])
        least = min(LEAST_SEEN, len(exemplars.rows))
        self._known = (exemplars.usable[certain].sum(axis=0) >= least).astype(np.float32)
        self._keys = np.stack([_key(texture, coeffs, int(row)) for row in exemplars.rows])
        self._placements = np.stack([texture.placement(int(row), WORKING_SIZE) for row in exemplars.rows])

    def knows(self, row: int) -> bool:
        """Whether frame ``row`` has a fit to paint the face through."""
        return bool(0 <= row < len(self._coeffs) and self._coeffs.valid[row])

    def at(self, row: int, size: int) -> ExpectedFace | None:
        """The crop of frame ``row`` without occluders, ``[size, size]``; None without a fit."""
        if not self.knows(row):
            return None
        blended, seen = self.blend(row)
        places = self._texture.places(row, size)
        rgb = cv2.remap(blended, places.x, places.y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        layers = cv2.remap(
            np.dstack([self.exemplars.spread, seen]), places.x, places.y, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
        )  # fmt: skip
        wholly = np.clip(4 * layers[..., 1] - 3, 0, 1)  # texels that nobody saw are black: no share of them
        known = (wholly * places.facing).astype(np.float32)
        face = ExpectedFace(np.asarray(rgb, np.float32), np.maximum(layers[..., 0], LEAST_SPREAD), known)
        return self._with_surroundings(face, row, places.around)

    def view(self, row: int, without: int | None = None) -> tuple[NDArray[np.float32], float]:
        """Crop ``[WORKING_SIZE, WORKING_SIZE, 3]`` 0..1 as it was when the head was placed like in frame ``row``.

        Args:
            row: the frame.
            without: an exemplar to leave out.

        Returns:
            The picture and how far the head was away in it on average, px.
        """
        distance = np.linalg.norm(self._placements - self._texture.placement(row, WORKING_SIZE), axis=1)
        distance = distance + self.exemplars.doubt * np.float32(VIEW_DOUBT_PX / DOUBT_DM)
        if without is not None:
            distance[without] = np.inf
        chosen = np.argsort(distance)[: min(VIEWS_BLENDED, np.isfinite(distance).sum())]
        if not len(chosen):
            return np.zeros((WORKING_SIZE, WORKING_SIZE, 3), np.float32), np.inf
        return self.exemplars.views[chosen].mean(axis=0, dtype=np.float32) / np.float32(255), float(
            distance[chosen].mean()
        )

    def _with_surroundings(self, face: ExpectedFace, row: int, around: NDArray[np.float32]) -> ExpectedFace:
        """Lay the face over what is usually around it; less is said of that the further the head was away."""
        size = face.known.shape[0]
        view, away = self.view(row)
        beyond = max(1.0, away / max(self.exemplars.view_away, VIEW_AWAY_PX))
        spread, around = (
            self.exemplars.view_spread * np.float32(beyond),
            around * np.float32(beyond < VIEW_TOO_FAR),
        )
        if size != WORKING_SIZE:
            view, spread = (cv2.resize(a, (size, size), interpolation=cv2.INTER_LINEAR) for a in (view, spread))
        share = face.known
        return ExpectedFace(
            (face.rgb * share[..., None] + view * (1 - share[..., None])).astype(np.float32),
            (face.spread * share + np.asarray(spread) * (1 - share)).astype(np.float32),
            np.maximum(share, around).astype(np.float32),
        )

    def blend(self, row: int, without: int | None = None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Texture of frame ``row``: float32 ``[h, w, 3]`` 0..1 and ``[h, w]`` 0..1, how far texels are known.

        Args:
            row: the frame.
            without: an exemplar to leave out, as if its frame had not been learnt from.
        """
        distance = np.linalg.norm(self._keys - _key(self._texture, self._coeffs, row), axis=1) + self.exemplars.doubt
        if without is not None:
            distance[without] = np.inf
        order = np.argsort(distance)[:NEIGHBOURS]
        scale = max(LIKENESS_DM, float(distance[order[min(2, len(order) - 1)]]))
        total = self._usual * np.float32(_USUAL_WEIGHT)
        weights = np.full(self.exemplars.spread.shape, _USUAL_WEIGHT, np.float32)
        for index in order[np.isfinite(distance[order])]:
            share = self.exemplars.usable[index] * np.float32(np.exp(-0.5 * (distance[index] / scale) ** 2))
            total += self.exemplars.textures[index] * share[..., None]
            weights += share
        return (total / (weights[..., None] * np.float32(255))).astype(np.float32), self._known

    def save(self, path: Path) -> None:
        """Write ``.npz`` without pickle through a temporary name."""
        temporary = path.with_suffix(".tmp.npz")
        arrays = {field.name: getattr(self.exemplars, field.name) for field in fields(Exemplars)}
        np.savez(temporary, allow_pickle=False, schema=np.array(APPEARANCE_SCHEMA), **arrays)
        temporary.replace(path)

    @classmethod
    def load(
        cls, path: Path, coeffs: FaceModelCoeffs, metadata: CropMetadata, face_model: FaceModel
    ) -> CleanAppearance:
        """Read what ``save`` wrote.

        Raises:
            GeneFaceError: when the file is not this schema.
        """
        try:
            data = mapped_npz(path)
        except ValueError as error:
            raise GeneFaceError(f"{error}; prepare the video again") from error
        if str(data.get("schema", "")) != APPEARANCE_SCHEMA:
            raise GeneFaceError(f"{path} does not hold an appearance of schema {APPEARANCE_SCHEMA}; prepare again")
        arrays = {field.name: np.array(data[field.name]) for field in fields(Exemplars)}
        exemplars = Exemplars(**{**arrays, "view_away": float(arrays["view_away"])})
        return cls(CanonicalTexture(face_model, coeffs, metadata), coeffs, exemplars)


def learn_appearance(
    crops: Iterable[tuple[int, NDArray[np.uint8]]],
    coeffs: FaceModelCoeffs,
    metadata: CropMetadata,
    face_model: FaceModel,
) -> CleanAppearance | None:
    """Learn the clean face from crops of ``clean_rows``.

    Args:
        crops: (row, RGB crop ``[S, S, 3]``) of those rows.
        coeffs: of the clip.
        metadata: where the crops lie.
        face_model: on the CPU, ``corrected`` for the person.

    Returns:
        None when there is nothing to learn from.
    """
    texture = CanonicalTexture(face_model, coeffs, metadata)
    rows, pictures, seen, views = [], [], [], []
    for row, crop in crops:
        small = cv2.resize(crop, (WORKING_SIZE, WORKING_SIZE), interpolation=cv2.INTER_AREA)
        sample = texture.sample(small.astype(np.float32) / np.float32(255), row)
        rows.append(row)
        pictures.append(np.round(sample.rgb * 255).astype(np.uint8))
        seen.append(sample.seen)
        views.append(small)
    if not rows:
        return None
    usable, strangers, clean = clean_part(np.stack(pictures), np.stack(seen), texture)
    first = Exemplars(
        np.array(rows, np.int64)[clean],
        np.stack(pictures)[clean],
        usable[clean],
        np.full(texture.size_hw, LEAST_SPREAD, np.float32),
        (DOUBT_DM * np.clip(2 * strangers[clean] / DOUBTFUL - 1, 0, 1)).astype(np.float32),
        np.stack(views)[clean],
        np.zeros((WORKING_SIZE, WORKING_SIZE), np.float32),
        0.0,
    )
    appearance = CleanAppearance(texture, coeffs, first)
    view_spread, view_away = _view_spread(appearance)
    measured = replace(first, spread=_spread(appearance), view_spread=view_spread, view_away=view_away)
    return CleanAppearance(texture, coeffs, measured)


def _key(texture: CanonicalTexture, coeffs: FaceModelCoeffs, row: int) -> NDArray[np.float32]:
    """What makes two frames look alike: lips and pose, in dm."""
    lips = texture.lip_shape(row)
    return np.concatenate([(lips / np.sqrt(len(lips))).ravel(), POSE_WEIGHT_DM * coeffs.euler[row]]).astype(np.float32)


def _spread(appearance: CleanAppearance) -> NDArray[np.float32]:
    """How far frames that were not learnt from are from what is expected of them, per texel ``[h, w]``.

    Every exemplar is predicted from the others; the root mean square of what is left, over all channels.
    """
    exemplars = appearance.exemplars
    squares, counts = np.zeros(exemplars.spread.shape, np.float32), np.zeros(exemplars.spread.shape, np.float32)
    flat = np.full(squares.shape, USUAL_SPREAD, np.float32)
    for index in exemplars.certain:
        row = exemplars.rows[index]
        observed = exemplars.textures[index].astype(np.float32) / np.float32(255)
        usable = exemplars.usable[index].astype(np.float32)
        expected, _ = appearance.blend(int(row), without=index)
        left = observed - matched_exposure(expected, observed, flat, usable)
        squares += usable * (left**2).mean(axis=2)
        counts += usable
    least = min(LEAST_SEEN, len(exemplars.rows))
    rms = np.where(counts >= least, np.sqrt(squares / np.maximum(counts, 1)), SPREAD_UNSEEN)
    return np.maximum(calmed(rms.astype(np.float32)), LEAST_SPREAD)


def _view_spread(appearance: CleanAppearance) -> tuple[NDArray[np.float32], float]:
    """The same of whole crops, per crop pixel, and how far apart heads were in what was compared, px.

    It is large wherever anything around the face moves by itself.
    """
    exemplars = appearance.exemplars
    squares = np.zeros(exemplars.view_spread.shape, np.float32)
    apart = []
    for index in exemplars.certain:
        view, away = appearance.view(int(exemplars.rows[index]), without=index)
        left = exemplars.views[index].astype(np.float32) / 255 - view
        squares += (left**2).mean(axis=2)
        apart.append(away)
    return np.maximum(calmed(np.sqrt(squares / max(len(apart), 1))), VIEW_SPREAD), float(np.median(apart))


def calmed(rms: NDArray[np.float32], known: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
    """Spreads ``[H, W]`` that neighbours share: a few frames say little of a single place.

    Args:
        rms: what was measured, 0..1.
        known: bool ``[H, W]`` where it was; None = everywhere.
    """
    known = np.ones(rms.shape, bool) if known is None else known
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), 1.5)
    mean = cv2.GaussianBlur(np.where(known, np.asarray(cv2.dilate(rms, disc)), 0), (0, 0), 1.5)
    return np.asarray(mean / np.maximum(weight, 1e-6), np.float32)
