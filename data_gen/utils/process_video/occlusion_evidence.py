"""How much more likely is each pixel something in front of the face than the face itself? Pure maths, no video.

Two hypotheses are weighed per pixel (Bayes), as logarithms of odds:

* the clean face: what was expected there, give or take its spread, one or two pixels of misfit, and perhaps darkened
  by a shadow, which keeps chroma and fine structure;
* something else: any colour, or a colour like skin (hands), or the colours that what stands there has shown already.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lgamma, log, pi, prod

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.expected_face import ExpectedFace

MOST_LOG_ODDS = 6.0
"""No single pixel says more than 400 : 1 for a thing ..."""
LEAST_LOG_ODDS = -2.5
"""... or 12 : 1 for the face: a thing may have a face's colour in places."""

ANY_COLOUR = 1 / (1.0 * 0.5 * 0.5)
"""Density of a colour that may be anything: Y' in 0..1, Cb and Cr mostly within ± 0.25."""
NOISIEST = 3.0
"""A frame's noise is believed up to so many floors; beyond, most of the face is covered rather than noisy."""

YCC_FROM_RGB = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""BT.601; the same three weights as the grey that flow is found in."""
NOISE_SHARE = 0.5 * 1.4826
"""Of the median difference: a median stands as long as less than half of the face is covered; most of it is misfit."""
SOBEL_SCALE = 0.125
"""Makes Sobel's filter a step per pixel."""
SHADOW_BLUR_PX, SHADOW_EDGE_PX, LEAST_DEPTH = 1.0, 7, 1e-3
"""How a shadow's edges are looked at: blurred, and how far around them; the least gain that a logarithm is taken of."""
CALM_SHARE = np.float32(0.8)
"""Spread that is left in the calmer look."""
SKIN_STD = (0.2, 0.035, 0.035)
"""Spread of a face's own Y', Cb and Cr."""
SKIN_STEP = 7
"""Every so manyth pixel of the expected face says what colour it has."""
DARKEST = np.float32(0.02)
"""Least luma that gains are taken of."""
LOG_SQRT_2_PI = np.float32(0.92)
BINS = 24
"""Of a histogram of colours, along each of luma and both colour differences."""
KEPT = 0.8
"""Share of older colours that is left after a frame."""
MOST_TRUST, HALF_TRUSTED = 0.7, 150.0
"""Most trust in a histogram, and pixels from which it is half of that."""
LEAST_DENSITY = np.float32(0.05)
"""Of a colour that things never showed."""


@dataclass(frozen=True, slots=True)
class EvidenceConfig:
    """What is believed of faces, shadows and things before anything is seen.

    Attributes:
        misfit_px: the expected face may lie this far aside, px of the working size.
        luma_share, chroma_share: spread of Y' and of Cb and Cr beyond such a misfit, over the expected spread of RGB.
            Light and misfit change luma; chroma was found ten times steadier (anchor, demo: 0.0015 to 0.004 on skin).
        noise, chroma_noise: least standard deviations, 0..1; a frame that is noisier says so itself.
        degrees: of freedom of Student's t: how often a face is much unlike its expectation.
        shadow_prior: how often a pixel lies in a shadow that the expectation lacks.
        hand_shadow_prior: the same beside a hand.
        deepest_shadow, deepest_hand_shadow: least gain of a shadow; little light gets between fingers.
        hand_glow: spread of a shadow's colour beside a hand, beyond the usual: skin throws its own light on skin.
        sharpest_shadow: step of log gain per pixel above which an edge is no shadow's.
        skin_prior: share of things in front that have the face's own colours.
        blur_px: standard deviation of the second, calmer look.
    """

    misfit_px: int = 1
    luma_share: float = 0.6
    chroma_share: float = 0.1
    noise: float = 0.006
    chroma_noise: float = 0.003
    degrees: float = 4.0
    shadow_prior: float = 0.02
    hand_shadow_prior: float = 0.3
    deepest_shadow: float = 0.5
    deepest_hand_shadow: float = 0.25
    hand_glow: float = 3.0
    sharpest_shadow: float = 0.02
    skin_prior: float = 0.4
    blur_px: float = 1.5

    @property
    def floors(self) -> tuple[float, float, float]:
        """Least standard deviation of Y', Cb and Cr."""
        return self.noise, self.chroma_noise, self.chroma_noise

    @property
    def shares(self) -> tuple[float, float, float]:
        """Spread of each over the expected spread."""
        return self.luma_share, self.chroma_share, self.chroma_share


def ycc(rgb: NDArray[np.float32]) -> NDArray[np.float32]:
    """Luma and two colour differences ``[..., 3]`` of RGB 0..1 (BT.601; the differences are in -0.5..0.5)."""
    return np.asarray(cv2.transform(rgb, np.array(YCC_FROM_RGB, np.float32)), np.float32)


def photometric_log_odds(
    observed: NDArray[np.float32],
    expected: ExpectedFace,
    config: EvidenceConfig,
    colours: OccluderColours | None = None,
    near_hand: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Log-odds ``[S, S]`` of an occluder against the clean face, by colour alone, without a prior.

    Args:
        observed: RGB ``[S, S, 3]`` 0..1.
        expected: at the same size, matched in exposure.
        config: what is believed.
        colours: what the occluders of this clip look like, if any were seen.
        near_hand: ``[S, S]`` 0..1, 1 just outside the outline of a hand, where its sharp shadow falls.

    Returns:
        float32, ``LEAST_LOG_ODDS`` .. ``MOST_LOG_ODDS``; 0 where nothing is known.
    """
    return Weighing.of(observed, expected, config, near_hand).log_odds(colours)


@dataclass(frozen=True, slots=True, eq=False)
class Weighing:
    """A frame weighed against its expectation but for the colours of things: asked with any, at little cost.

    Attributes:
        looks: at the picture as it is and at a calmer one; none where nothing is known.
        known: float32 ``[S, S]`` 0..1.
    """

    looks: tuple[_Look, ...]
    known: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        observed: NDArray[np.float32],
        expected: ExpectedFace,
        config: EvidenceConfig,
        near_hand: NDArray[np.float32] | None = None,
    ) -> Weighing:
        """See ``photometric_log_odds``."""
        if not (expected.known > 0.5).any():
            return cls((), expected.known)
        seen, clean = ycc(observed), ycc(expected.rgb)
        std = _channel_std(_planes(seen), _planes(clean), expected, config)
        fine = _Look.of(seen, clean, std, config, near_hand)
        calm_seen, calm_clean = _calmed(seen, config.blur_px), _calmed(clean, config.blur_px)
        return cls(
            (fine, _Look.of(calm_seen, calm_clean, std * CALM_SHARE, config, near_hand)),
            expected.known,
        )

    def log_odds(self, colours: OccluderColours | None = None) -> NDArray[np.float32]:
        """Of an occluder, ``[S, S]``, if things have these ``colours`` or none are known."""
        if not self.looks:
            return np.zeros(self.known.shape, np.float32)
        fine, calm = (look.log_ratio(colours) for look in self.looks)
        odds = np.float32(0.5) * (fine + calm)
        return (np.clip(odds, LEAST_LOG_ODDS, MOST_LOG_ODDS) * self.known).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """Per pixel ``[S, S]``: log density of the face, density of things of any colour or skin, and the colour's bin."""

    face: NDArray[np.float32]
    thing: NDArray[np.float32]
    bins: NDArray[np.intp]

    @classmethod
    def of(
        cls,
        seen: NDArray[np.float32],
        clean: NDArray[np.float32],
        std: NDArray[np.float32],
        config: EvidenceConfig,
        near_hand: NDArray[np.float32] | None,
    ) -> _Look:
        """``seen`` and ``clean`` are ``ycc`` pictures ``[S, S, 3]``, ``std`` is ``[3, S, S]``."""
        kernel = np.ones((2 * config.misfit_px + 1,) * 2, np.uint8)
        low, high = _planes(cv2.erode(clean, kernel)), _planes(cv2.dilate(clean, kernel))
        seen, clean = _planes(seen), _planes(clean)
        np.subtract(seen, high, out=high)
        np.subtract(low, seen, out=low)
        away = np.maximum(np.maximum(high, low, out=high), 0, out=high)
        away /= std
        log_chroma = np.log(std[1] * std[2])
        lit = _log_student(_squared(away), config.degrees)
        lit -= np.log(std[0])
        lit -= log_chroma
        lit += np.float32(log(1 - config.shadow_prior))
        face = _log_sum(lit, _log_shaded(seen, clean, std, log_chroma, config, near_hand))
        return cls(face, _plain_density(seen, clean, config), colour_bins(seen))

    def log_ratio(self, colours: OccluderColours | None) -> NDArray[np.float32]:
        """How much better a thing explains what is seen than the face does."""
        density = self.thing
        if colours is not None:
            trust = np.float32(colours.trust)
            density = (1 - trust) * density + trust * colours.density_of(self.bins)
        return np.log(density) - self.face


def colour_log_odds(seen: NDArray[np.float32], colours: OccluderColours) -> NDArray[np.float32]:
    """Log-odds ``[S, S]`` by the colours of things alone, against any colour at all; for where no face is expected.

    Args:
        seen: ``ycc`` picture ``[S, S, 3]``.
        colours: of the things seen so far.

    Returns:
        float32, within ± 2.5 and less the fewer pixels were seen.
    """
    return colour_log_odds_of(colour_bins(_planes(seen)), colours)


def colour_log_odds_of(bins: NDArray[np.intp], colours: OccluderColours) -> NDArray[np.float32]:
    """``colour_log_odds`` of colours given as ``colour_bins``."""
    density = colours.density_of(bins) + LEAST_DENSITY
    return np.clip(np.log(density) - np.log(np.float32(ANY_COLOUR)), -2.5, 2.5) * np.float32(colours.trust)


def _planes(picture: NDArray[np.float32] | cv2.typing.MatLike) -> NDArray[np.float32]:
    """``[3, S, S]`` of ``[S, S, 3]``: broadcasting over planes is several times faster than over pixels."""
    picture = np.asarray(picture, np.float32)
    made = np.empty((3, *picture.shape[:2]), np.float32)
    cv2.split(picture, [made[0], made[1], made[2]])
    return made


def _squared(away: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared length ``[S, S]`` of vectors ``[3, S, S]``, in their own place."""
    away *= away
    away[0] += away[1]
    away[0] += away[2]
    return away[0]


def _log_sum(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """``log(exp(one) + exp(other))``."""
    apart = one - other
    np.abs(apart, out=apart)
    np.exp(np.negative(apart, out=apart), out=apart)
    apart += 1
    np.log(apart, out=apart)
    apart += np.maximum(one, other)
    return apart


def _channel_std(
    seen: NDArray[np.float32], clean: NDArray[np.float32], expected: ExpectedFace, config: EvidenceConfig
) -> NDArray[np.float32]:
    """Standard deviation ``[3, S, S]`` of Y', Cb and Cr about the expected face, at least what this frame shows."""
    known = expected.known > 0.5
    settled = known & (expected.spread < np.median(expected.spread[known]) + 1e-6)
    shown = [NOISE_SHARE * np.median(np.abs(s[settled] - c[settled])) for s, c in zip(seen, clean, strict=True)]
    noises = [float(np.clip(here, floor, NOISIEST * floor)) for floor, here in zip(config.floors, shown, strict=True)]
    squares = expected.spread * expected.spread
    layers = [np.sqrt(share**2 * squares + noise**2) for share, noise in zip(config.shares, noises, strict=True)]
    return np.stack(layers).astype(np.float32)


def _calmed(picture: NDArray[np.float32], blur_px: float) -> NDArray[np.float32]:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), blur_px), np.float32)


def log_student_constant(degrees: float) -> float:
    """Log density at its middle of a three-dimensional Student t of unit scale."""
    return lgamma((degrees + 3) / 2) - lgamma(degrees / 2) - 1.5 * log(degrees * pi)


def _log_student(squares: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Log density of a three-dimensional Student t of unit scale at squared distance ``squares``."""
    density = squares / np.float32(degrees)
    density += 1
    np.log(density, out=density)
    density *= np.float32(-(degrees + 3) / 2)
    density += np.float32(log_student_constant(degrees))
    return density


def _log_shaded(
    seen: NDArray[np.float32],
    clean: NDArray[np.float32],
    std: NDArray[np.float32],
    log_chroma: NDArray[np.float32],
    config: EvidenceConfig,
    near_hand: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Log density and prior of a shadow: any gain down to the deepest is as likely; chroma falls with luma.

    Edges of shadows on a face are soft. Where the gain has a sharp edge nearby, it is the edge of a thing.

    Args:
        seen: ``[3, S, S]``, ``ycc``.
        clean: the same.
        std: the same.
        log_chroma: ``[S, S]``, logarithms of its last two planes together.
        config: what is believed.
        near_hand: ``[S, S]`` or None.
    """
    deepest = np.float32(config.deepest_shadow)
    if near_hand is not None:
        wider = np.asarray(1 + np.float32(config.hand_glow) * near_hand, np.float32)
        std, log_chroma = std * wider, log_chroma + np.float32(2) * np.log(wider)
        deepest = deepest + near_hand * np.float32(config.deepest_hand_shadow - config.deepest_shadow)
    gain = np.clip(seen[0] / np.maximum(clean[0], DARKEST), deepest, np.float32(1))
    away = clean * gain
    np.subtract(seen, away, out=away)
    away /= std
    # along luma the density is 1 / span instead of 1 / (std sqrt(2 pi))
    density = _log_student(_squared(away), config.degrees)
    density -= log_chroma
    density -= np.log(np.maximum(clean[0] * (1 - deepest), DARKEST))
    density += LOG_SQRT_2_PI
    depth = cv2.GaussianBlur(np.log(np.maximum(gain, np.float32(LEAST_DEPTH))), (0, 0), SHADOW_BLUR_PX)
    across, down = (cv2.Sobel(depth, cv2.CV_32F, x, 1 - x, scale=SOBEL_SCALE) for x in (1, 0))
    step = cv2.magnitude(across, down)
    sharp = np.asarray(cv2.dilate(step, np.ones((SHADOW_EDGE_PX,) * 2, np.uint8)), np.float32) / np.float32(
        config.sharpest_shadow
    )
    sharp *= sharp
    unlikely = np.float32(log(config.shadow_prior)) - sharp
    if near_hand is not None:
        unlikely = unlikely + near_hand * (np.float32(log(config.hand_shadow_prior)) - unlikely)
    return density + unlikely


def _plain_density(
    seen: NDArray[np.float32], clean: NDArray[np.float32], config: EvidenceConfig
) -> NDArray[np.float32]:
    """Density ``[S, S]`` of a thing's colour: uniform over the colours there are, and skin."""
    centre = [float(np.median(plane.ravel()[::SKIN_STEP])) for plane in clean]
    away = seen - np.array(centre, np.float32)[:, None, None]
    away /= np.array(SKIN_STD, np.float32)[:, None, None]
    density = _squared(away)
    density *= np.float32(-0.5)
    np.exp(density, out=density)
    density *= np.float32(config.skin_prior / ((2 * pi) ** 1.5 * prod(SKIN_STD)))
    density += np.float32((1 - config.skin_prior) * ANY_COLOUR)
    return density


def trust_of(pixels: float) -> float:
    """Trust in a histogram of so many pixels."""
    return MOST_TRUST * pixels / (pixels + HALF_TRUSTED)


class OccluderColours:
    """Histogram of the colours that occluders of this clip have shown lately.

    Args:
        counts: float32 ``[B, B, B]`` over luma and both colour differences.
    """

    def __init__(self, counts: NDArray[np.float32] | None = None) -> None:
        self._counts = np.zeros((BINS,) * 3, np.float32) if counts is None else counts
        self._total = float(self._counts.sum())

    @property
    def trust(self) -> float:
        """Share of the density that the histogram takes, 0..0.7: little until a few hundred pixels were seen."""
        return trust_of(self._total)

    def updated(self, seen: NDArray[np.float32], chosen: NDArray[np.bool_], keep: float = KEPT) -> OccluderColours:
        """The histogram with the pixels ``chosen`` ``[S, S]`` of ``ycc`` picture ``seen``, older ones fading."""
        return self.updated_by(colour_bins(seen[chosen].T), keep)

    def updated_by(self, bins: NDArray[np.intp], keep: float = KEPT) -> OccluderColours:
        """The same with pixels given as ``colour_bins``."""
        fresh = np.bincount(bins.ravel(), minlength=BINS**3).reshape(self._counts.shape).astype(np.float32)
        for axis in range(3):
            fresh = spread_along(fresh, axis)
        return OccluderColours(keep * self._counts + fresh)

    def density(self, seen: NDArray[np.float32]) -> NDArray[np.float32]:
        """Density per unit of colour space at ``seen`` ``[S, S, 3]``."""
        return self.density_of(colour_bins(np.moveaxis(seen, -1, 0)))

    def density_of(self, bins: NDArray[np.intp]) -> NDArray[np.float32]:
        """The same at ``colour_bins``."""
        return (self._counts * np.float32(BINS**3 / max(self._total, 1e-6))).ravel().take(bins)


def colour_bins(seen: NDArray[np.float32]) -> NDArray[np.intp]:
    """Number ``[...]`` of the histogram's bin that each colour of a ``ycc`` picture falls into, planes ``[3, ...]``."""
    shifts = (0, BINS / 2, BINS / 2)
    luma, blue, red = (
        np.clip(plane * np.float32(BINS) + np.float32(shift), 0, BINS - 1).astype(np.int32)
        for plane, shift in zip(seen, shifts, strict=True)
    )
    return ((luma * BINS + blue) * BINS + red).astype(np.intp)


def spread_along(counts: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """A quarter of each count to either neighbour along ``axis``."""
    padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(counts.ndim)])
    parts = [np.take(padded, np.arange(k, k + counts.shape[axis]), axis=axis) for k in range(3)]
    return (0.25 * parts[0] + 0.5 * parts[1] + 0.25 * parts[2]).astype(np.float32)
