"""Which frame of a clip shows a mouth that a new motion asks for: real teeth and lips instead of rendered ones.

Tables alone decide, before anything is rendered. How a mouth should look (at a few hundred places of the head, softly)
is predicted from its lips and the head's turn by local linear regression over the clip; the frame chosen looks so, has
lips like those wanted, and follows the frame chosen before, for which the cheapest path through all of them is found
(Viterbi 1967).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TURN_DM = 0.2
"""How far the inside of a mouth shifts against its lips when a head turns, dm per rad."""
NEIGHBOURS = 24
"""Mouths that a prediction rests on."""
PARTS = 4
"""Principal parts of lips and turn that it is linear in."""
STIFFNESS = 0.005
"""Of the regression, dm: parts that vary less than this have little say."""
LIPS_COST, OPENING_COST = 300.0, 1000.0
"""Code values (of 255) of wrong looks that one dm of wrong lips counts as, and one of a wrong opening: a mouth must
close when it is to close."""
SWITCH_COST = 24.0
"""Likewise of a jump to another moment: teeth that stay are better than teeth that fit a little better. A jump is one
between two frames, as speech makes them; mixing both moments would blur the teeth."""
STEPS = ((1, 0.0), (0, 0.4), (2, 0.4), (-1, 0.4))
"""Frames that may follow one without a jump, and their cost as a share of ``SWITCH_COST``."""
TRUSTED_DM = (0.05, 0.07)
"""Lips and turn that differ up to the first are believed, from the second on not at all."""
SHUT_DM = (0.035, 0.05)
"""Lips that are to part less than the first are rendered, more than the second filmed: another frame's lips never part
exactly as far, and where they should touch everybody hears it."""
NEXT_TO = 3
"""Frames that lie no further apart show one moment."""
MOST_ODD, LEAST_DETAIL = 2.9, 0.75
"""A mouth whose looks are off what its lips say by more than so many times the usual shows something else (a hand);
one with less than this share of the detail of mouths like it was blurred by motion."""
MOMENT = 12
"""Rows that lie no further apart are no witnesses for each other."""
TRUST_FRAMES = 2
"""Trust is smoothed over so many frames to each side."""
MOST_AT_ONCE = 1000
_NEVER, _FAR_DM = 1e9, 1e3

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class SeenMouths:
    """Mouths that a clip shows.

    Attributes:
        rows: int64 ``[N]`` rising, the clip's rows.
        looks: float32 ``[N, D]`` code values (of 255), weighted so that plain distances count.
        lips: float32 ``[N, R, 2]`` dm, the ring where the lips touch, in head space.
        turn: float32 ``[N, 2]`` rad, the head's first two angles.
    """

    rows: NDArray[np.int64]
    looks: Floats
    lips: Floats
    turn: Floats


@dataclass(frozen=True, slots=True, eq=False)
class ChosenMouths:
    """What stands in for ``T`` rendered mouths.

    Attributes:
        numbers: int64 ``[T]`` of ``SeenMouths``.
        trust: float32 ``[T]`` how far they are to be used, 0..1.
    """

    numbers: NDArray[np.int64]
    trust: Floats


def choose_mouths(seen: SeenMouths, lips: Floats, turn: Floats) -> ChosenMouths:
    """The mouths for consecutive frames.

    Args:
        seen: at least one.
        lips: ``[T, R, 2]`` that are wanted, see ``SeenMouths``.
        turn: ``[T, 2]`` likewise.
    """
    parts = [slice(at, at + MOST_AT_ONCE) for at in range(0, len(lips), MOST_AT_ONCE)]
    found = [_path_of(seen, lips[part], turn[part]) for part in parts]
    numbers, away = np.concatenate([path for path, _ in found]), np.concatenate([away for _, away in found])
    return ChosenMouths(numbers, smoothed(trusted(away), TRUST_FRAMES) * apart(opening(lips)))


def _path_of(seen: SeenMouths, lips: Floats, turn: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Numbers ``[T]``, and how far each lies from what is wanted, dm."""
    away = distances(seen, lips, turn)
    wanted = expected_looks(seen, lips, turn, away)
    looks = (wanted**2).sum(1)[:, None] + (seen.looks**2).sum(1)[None] - 2 * wanted @ seen.looks.T
    gaps = np.abs(opening(lips)[:, None] - opening(seen.lips)[None])
    cost = np.maximum(looks, 0) + (LIPS_COST * away) ** 2 + (OPENING_COST * gaps) ** 2
    path = cheapest_path(cost, seen.rows, SWITCH_COST**2)
    return path, away[np.arange(len(path)), path]


def opening(lips: Floats) -> Floats:
    """How far rings of lips ``[T, R, 2]`` are open in the middle third of their width, ``[T]`` dm."""
    side = np.abs(lips[..., 0] - lips[..., 0].mean(1, keepdims=True))
    is_middle = side <= side.max(1, keepdims=True) / 3
    heights = lips[..., 1]
    upper, lower = np.where(is_middle, heights, -np.inf).max(1), np.where(is_middle, heights, np.inf).min(1)
    return (upper - lower).astype(np.float32)


def distances(seen: SeenMouths, lips: Floats, turn: Floats) -> Floats:
    """How far mouths differ, ``[T, N]`` dm: root mean squares of their lips, and of what a turn of the head shifts."""
    here, there = (np.reshape(ring, (len(ring), -1)).astype(np.float64) for ring in (lips, seen.lips))
    square = (here**2).sum(1)[:, None] + (there**2).sum(1)[None] - 2 * here @ there.T
    turned = ((turn[:, None] - seen.turn[None]) ** 2).sum(-1)
    return np.sqrt(np.maximum(square, 0) / lips.shape[1] + TURN_DM**2 * turned).astype(np.float32)


def expected_looks(seen: SeenMouths, lips: Floats, turn: Floats, away: Floats) -> Floats:
    """Looks ``[T, D]`` that go with lips and turns, by local linear regression (Cleveland 1979) over the clip.

    Args:
        seen: the clip's.
        lips: see ``choose_mouths``.
        turn: likewise.
        away: of ``distances``.
    """
    known, asked = _features(seen.lips, seen.turn), _features(lips, turn)
    middle = known.mean(0)
    axes = np.linalg.svd(known - middle, full_matrices=False)[2][:PARTS].T
    known, asked = (known - middle) @ axes, (asked - middle) @ axes
    reach = np.sort(away, axis=1)[:, min(NEIGHBOURS, len(seen.rows)) - 1]
    penalty = np.diag([0.0, *[STIFFNESS**2] * axes.shape[1]])
    found = np.empty((len(lips), seen.looks.shape[1]), np.float32)
    for row, (place, distance) in enumerate(zip(asked, away, strict=True)):
        weight = np.exp(-2 * (distance / max(float(reach[row]), 1e-6)) ** 2)
        near = weight > 1e-3 * weight.max()
        weight = weight[near] / weight[near].sum()
        design = np.column_stack([np.ones(len(weight)), known[near] - place])
        found[row] = np.linalg.lstsq(
            (design * weight[:, None]).T @ design + penalty, (design * weight[:, None]).T @ seen.looks[near], rcond=None
        )[0][0]
    return found


def is_ordinary(seen: SeenMouths, ratio: Floats) -> NDArray[np.bool_]:
    """Which mouths look as others say, ``[N]``.

    Args:
        seen: more than one moment.
        ratio: ``[N]`` of ``detail_ratio``.
    """
    away = _from_others(seen)
    off = np.linalg.norm(expected_looks(seen, seen.lips, seen.turn, away) - seen.looks, axis=1)
    return (off <= MOST_ODD * np.median(off)) & (ratio >= LEAST_DETAIL)


def detail_ratio(seen: SeenMouths, detail: Floats) -> Floats:
    """Strength of the finest bands ``[N]``, over that of other moments' mouths with like lips."""
    like = np.argsort(_from_others(seen), axis=1)[:, :NEIGHBOURS]
    return (detail / np.maximum(np.median(detail[like], axis=1), 1e-6)).astype(np.float32)


def _from_others(seen: SeenMouths) -> Floats:
    """``distances`` between mouths ``[N, N]``; those of one moment are far."""
    away = distances(seen, seen.lips, seen.turn)
    away[np.abs(seen.rows[:, None] - seen.rows[None]) <= MOMENT] = _FAR_DM
    return away


def _features(lips: Floats, turn: Floats) -> NDArray[np.float64]:
    """``[T, F]`` dm whose distances are those of ``distances``."""
    count = lips.shape[1]
    return np.column_stack([lips.reshape(len(lips), -1) / np.sqrt(count), TURN_DM * turn]).astype(np.float64)


def cheapest_path(cost: Floats, rows: NDArray[np.int64], switch: float) -> NDArray[np.int64]:
    """Numbers ``[T]`` whose costs ``[T, N]`` and changes cost least in all.

    Args:
        cost: 0 or more.
        rows: ``[N]`` that show one moment where they follow each other.
        switch: cost of a jump; ``STEPS`` cost a share of it.
    """
    count = cost.shape[1]
    before = np.empty(cost.shape, np.int32)
    total = cost[0].astype(np.float64)
    for step in range(1, len(cost)):
        best = int(total.argmin())
        least, origin = np.full(count, total[best] + switch), np.full(count, best)
        for ahead, share in STEPS:
            start = np.arange(count) - ahead
            inside = (start >= 0) & (start < count)
            start = np.clip(start, 0, count - 1)
            inside &= np.abs(rows - rows[start]) <= NEXT_TO
            via = np.where(inside, total[start] + share * switch, _NEVER)
            is_less = via < least
            least, origin = np.where(is_less, via, least), np.where(is_less, start, origin)
        total, before[step] = least + cost[step], origin
    path = np.empty(len(cost), np.int64)
    path[-1] = int(total.argmin())
    for step in range(len(cost) - 1, 0, -1):
        path[step - 1] = before[step, path[step]]
    return path


def trusted(away: Floats) -> Floats:
    """How far mouths that lie ``away`` (dm) are used, 0..1."""
    low, high = TRUSTED_DM
    return np.clip((high - away) / (high - low), 0, 1).astype(np.float32)


def apart(opened: Floats) -> Floats:
    """How far lips that are to be open so far (dm) are apart, 0..1: as smooth in time as they are."""
    low, high = SHUT_DM
    return np.clip((opened - low) / (high - low), 0, 1).astype(np.float32)


def smoothed(values: Floats, reach: int) -> Floats:
    """The least within ``reach`` frames, then its mean over them: what fades in time and never exceeds the least."""
    if not len(values):
        return values
    window = 2 * reach + 1
    for combine in (np.min, np.mean):
        padded = np.pad(values, reach, mode="edge")
        values = combine(np.lib.stride_tricks.sliding_window_view(padded, window), axis=1)
    return values.astype(np.float32)
