"""Which tracks are one person: first by where they end and begin within a shot, then by looks over the whole video.

A person split in two is a nuisance, two persons under one number is a fault; so what is unclear stays apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from data_gen.utils.process_video.appearance import FaceLook, colour_distance, link_tracks
from data_gen.utils.process_video.face_geometry import distance_in_faces
from data_gen.utils.process_video.face_table import Sights
from modules.structures.boxes import BoundingBox

IMPOSSIBLE = 1e6


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """When two tracks are one person.

    Attributes:
        max_gap_s: tracks of one shot that lie further apart in time are not joined by their places.
        max_colour_alone: where a shot never shows two faces at once, whoever comes back, however late and wherever, is
            the same up to this colour distance.
        reach: face sizes that a lost face may have moved, at once and per frame after.
        max_growth: by which factor it may have grown or shrunk.
        max_colour: colour distance up to which tracks joined by their places may differ.
        blind_gap_s: so short a gap is joined without colours, when the face is where it was.
        blind_reach: face sizes that it may have moved then.
    """

    max_gap_s: float = 1.0
    reach: tuple[float, float] = (0.6, 0.06)
    max_growth: float = 1.4
    max_colour: float = 1.2
    max_colour_alone: float = 0.9
    blind_gap_s: float = 0.25
    blind_reach: float = 0.4


@dataclass(frozen=True, slots=True)
class _End:
    """A track's first and last sight: rows, boxes, and how it moves per frame at its end."""

    track: int
    first: int
    last: int
    first_box: BoundingBox
    last_box: BoundingBox
    velocity: tuple[float, float]


def link_persons(
    sights: Sights,
    looks: Mapping[int, FaceLook],
    shots: Sequence[tuple[int, int]],
    times_s: NDArray[np.float64],
    config: LinkConfig,
) -> list[list[int]]:
    """Groups of tracks that are one person each.

    Args:
        sights: of all tracks.
        looks: of the tracks that were looked at.
        shots: half-open frame ranges.
        times_s: ``[N]`` frame times.
        config: see ``LinkConfig``.
    """
    chains = chain_tracks(sights, looks, shots, times_s, config)
    spans = {track: _span(sights, track) for chain in chains for track in chain}
    merged = [_merged([looks[track] for track in chain if track in looks]) for chain in chains]
    stretches = [(min(spans[t][0] for t in chain), max(spans[t][1] for t in chain)) for chain in chains]
    groups = link_tracks(merged, stretches)
    return [sorted(track for number in group for track in chains[number]) for group in groups]


def chain_tracks(
    sights: Sights,
    looks: Mapping[int, FaceLook],
    shots: Sequence[tuple[int, int]],
    times_s: NDArray[np.float64],
    config: LinkConfig,
) -> list[list[int]]:
    """Tracks of one shot, one beginning where another ended shortly before, joined into chains."""
    ends = [_end_of(sights, int(track)) for track in np.unique(sights.tracks)]
    follower: dict[int, int] = {}
    for start, stop in shots:
        mine = [end for end in ends if start <= end.first < stop]
        if not mine:
            continue
        alone = not any(a.first <= b.last and b.first <= a.last for a, b in combinations(mine, 2))
        costs = np.array([[_cost(a, b, looks, times_s, config, alone=alone) for b in mine] for a in mine])
        rows, columns = linear_sum_assignment(costs)
        follower |= {
            mine[a].track: mine[b].track for a, b in zip(rows, columns, strict=True) if costs[a, b] < IMPOSSIBLE
        }
    chains: list[list[int]] = []
    for track in sorted({end.track for end in ends} - set(follower.values())):
        chain = [track]
        while chain[-1] in follower:
            chain.append(follower[chain[-1]])
        chains.append(chain)
    return chains


def _cost(
    before: _End,
    after: _End,
    looks: Mapping[int, FaceLook],
    times_s: NDArray[np.float64],
    config: LinkConfig,
    *,
    alone: bool,
) -> float:
    """How far-fetched it is that ``after`` goes on where ``before`` ended; ``IMPOSSIBLE`` when it cannot."""
    gap = after.first - before.last
    if gap <= 0:
        return IMPOSSIBLE
    gap_s = float(times_s[after.first] - times_s[before.last])
    if gap_s > config.max_gap_s and not alone:
        return IMPOSSIBLE
    apart = None
    if before.track in looks and after.track in looks:
        apart = colour_distance(looks[before.track], looks[after.track])
    if alone and apart is not None and apart <= config.max_colour_alone:
        return gap_s + apart
    if gap_s > config.max_gap_s:
        return IMPOSSIBLE
    ahead = min(gap, 3)
    expected = before.last_box.shifted(before.velocity[0] * ahead, before.velocity[1] * ahead)
    moved = min(distance_in_faces(box, after.first_box) for box in (expected, before.last_box))
    growth = after.first_box.height / before.last_box.height
    if moved > config.reach[0] + config.reach[1] * gap or not 1 / config.max_growth < growth < config.max_growth:
        return IMPOSSIBLE
    if apart is None:
        return moved + gap_s if gap_s <= config.blind_gap_s and moved <= config.blind_reach else IMPOSSIBLE
    return moved + gap_s + apart if apart <= config.max_colour else IMPOSSIBLE


def _end_of(sights: Sights, track: int) -> _End:
    mine = sights.take(sights.tracks == track)
    few = min(3, len(mine))
    frames = max(int(mine.rows[-1] - mine.rows[-few]), 1)
    centers = (mine.boxes[:, :2] + mine.boxes[:, 2:]) / 2
    velocity = (centers[-1] - centers[-few]) / frames
    return _End(
        track, int(mine.rows[0]), int(mine.rows[-1]), BoundingBox(*mine.boxes[0].tolist()),
        BoundingBox(*mine.boxes[-1].tolist()), (float(velocity[0]), float(velocity[1])),
    )  # fmt: skip


def _span(sights: Sights, track: int) -> tuple[int, int]:
    rows = sights.rows[sights.tracks == track]
    return int(rows[0]), int(rows[-1]) + 1


def _merged(looks: Sequence[FaceLook]) -> FaceLook:
    whole = FaceLook()
    for look in looks:
        whole = whole.merged(look)
    return whole
