"""Which part of the frames that a clean face is learnt from is that face.

An object that is no hand may stand in them. Texels that disagree with the median over the clip are left out, frames in
which much disagrees are left out whole; that holds while less than half of the frames are covered at any place.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.canonical_texture import CanonicalTexture
from data_gen.utils.process_video.exposure_match import matched_exposure
from data_gen.utils.process_video.occlusion_evidence import ycc
from data_gen.utils.process_video.picture_parts import connected_parts

OUTLIER = 4.0
"""Texels further from the clip's median than this many spreads are not this face ..."""
LEAST_OUTLIER = (0.16, 0.025, 0.025)
"""... when they are also this far away in Y', or in Cb or Cr beyond what shading does: more than a smile does."""
LEAST_STRANGER = 25
"""Texels; fewer are noise."""
DIRTY = 0.03
"""An exemplar with a larger share of strangers has something large in front of it and is left out whole ..."""
LEAST_CLEAN_SHARE = 0.2
"""... as long as so many are left."""
LEAST_SEEN = 4
"""Exemplars that must show a texel before anything is said of it."""
USUAL_SPREAD = 0.03
"""What exposure is matched with before a spread is known: eight grey levels, of noise and of misfit."""


def median_texture(exemplars: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Median ``[h, w, 3]`` over the usable exemplars, 0..255; 0 where there are none."""
    out = np.zeros(exemplars.shape[1:], np.float32)
    for line in range(exemplars.shape[1]):  # a line at a time: sorting makes copies
        values = np.where(usable[:, line, :, None], exemplars[:, line], 255).astype(np.uint8)
        count = usable[:, line].sum(axis=0)
        ordered = np.sort(values, axis=0)
        middle = np.maximum(count - 1, 0) // 2
        out[line] = np.where(count[:, None] > 0, np.take_along_axis(ordered, middle[None, :, None], axis=0)[0], 0)
    return out


def clean_part(
    pictures: NDArray[np.uint8], shown: NDArray[np.bool_], texture: CanonicalTexture
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.bool_]]:
    """Texels ``[N, h, w]`` that show the clean face, the share ``[N]`` of others, and exemplars ``[N]`` to use at all.

    The second median is of what the first left, so that a thing that is there for nearly half of the clip goes, too.
    """
    clean = np.ones(len(pictures), bool)
    usable, shares = shown, np.zeros(len(pictures))
    for _ in range(2):
        strangers = _strangers(
            pictures, shown, median_texture(pictures[clean], usable[clean]) / np.float32(255), texture
        )
        usable = shown & ~strangers
        settled = shown & ~texture.lively
        shares = (strangers & settled).sum(axis=(1, 2)) / np.maximum(settled.sum(axis=(1, 2)), 1)
        enough = max(LEAST_SEEN, round(LEAST_CLEAN_SHARE * len(pictures)))
        clean = shares <= max(DIRTY, float(np.sort(shares)[min(enough, len(shares)) - 1]))
    return usable, shares.astype(np.float32), clean


def _strangers(
    pictures: NDArray[np.uint8], shown: NDArray[np.bool_], usual: NDArray[np.float32], texture: CanonicalTexture
) -> NDArray[np.bool_]:
    """Texels ``[N, h, w]`` that show something else than this face, whose usual texture ``[h, w, 3]`` is given.

    Lips, mouth and eyes differ from their median all the time, so they are judged by the skin around them.
    """
    far = np.zeros(shown.shape, np.float32)
    flat = np.full(shown.shape[1:], USUAL_SPREAD, np.float32)
    limits = np.array(LEAST_OUTLIER, np.float32)
    for index, picture in enumerate(pictures):
        here = picture.astype(np.float32) / np.float32(255)
        matched = matched_exposure(usual, here, flat, (shown[index] & ~texture.lively).astype(np.float32))
        away = np.abs(cv2.GaussianBlur(_beyond_shading(ycc(here), ycc(matched)), (0, 0), 1.0)) / limits
        far[index] = np.where(shown[index] & ~texture.lively, away.max(axis=2), 0)
    limit = np.maximum(OUTLIER * 1.4826 * np.median(far, axis=0), 1)
    return np.stack([_grown(_large(one > limit), texture.lively) for one in far])


def _beyond_shading(seen: NDArray[np.float32], usual: NDArray[np.float32]) -> NDArray[np.float32]:
    """Difference of two ``ycc`` pictures; colour differences are compared at the luma that is seen."""
    gain = np.clip(seen[..., :1] / np.maximum(usual[..., :1], 0.02), 0.4, 1.3)
    return seen - np.concatenate([usual[..., :1], usual[..., 1:] * gain], axis=2)


def _large(sure: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The connected parts of at least ``LEAST_STRANGER`` texels."""
    labels, areas = connected_parts(sure)
    kept = areas >= LEAST_STRANGER
    kept[0] = False
    return kept[labels]


def _grown(sure: NDArray[np.bool_], lively: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Strangers with a margin, and with the mouth or eye they reach."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9))
    grown = cv2.dilate(sure.astype(np.uint8), disc) > 0
    labels, areas = connected_parts(lively)
    for label in range(1, len(areas)):
        part = labels == label
        if (grown & part).any():
            grown |= part
    return grown
