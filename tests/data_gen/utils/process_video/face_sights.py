"""Sightings of a drawn face with chosen numbers, for tests of the tables made from them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.face_table import BeliefConfig, Sights, build_face_table, gather_sights
from data_gen.utils.process_video.observation_log import Observations
from data_gen.utils.process_video.tracker_state import Sighting
from modules.structures.faces import FaceTable
from modules.structures.landmarks import LandmarkResult
from tests.data_gen.utils.process_video.moving_face import face_template

SIDES = 454, 234
UNASKED = float("nan")


def sighting(
    row: int,
    track: int = 0,
    *,
    at: tuple[float, float] = (50.0, 40.0),
    size: float = 60.0,
    score: float = UNASKED,
    yaw: float = 0.0,
    presence: float = 1.0,
    noise: float = 0.0,
    expression: float = 1.0,
) -> Sighting:
    """A face ``size`` px high whose box begins at ``at``.

    ``noise`` px and ``expression`` 0..1 differ from row to row, but not from run to run.
    """
    random = np.random.default_rng([row, track])
    points = face_template() * size + at + random.normal(scale=noise, size=(478, 2))
    depth = random.normal(scale=noise, size=478)
    depth[SIDES[0]] = depth[SIDES[1]] + np.tan(yaw) * np.linalg.norm(points[SIDES[0]] - points[SIDES[1]])
    blendshapes = 0.5 + expression * random.uniform(-0.5, 0.5, size=52)
    result = LandmarkResult(
        points.astype(np.float32), depth.astype(np.float32), presence, blendshapes.astype(np.float32)
    )
    return Sighting(row, track, result, score)


def sights_of(sightings: Iterable[Sighting]) -> Sights:
    """The sightings as one segment of a log gives them."""
    return gather_sights([Observations.of(list(sightings))])


def table_of(
    sights: Sights,
    persons: list[list[int]],
    count: int,
    *,
    starts: tuple[int, ...] = (0,),
    times_s: NDArray[np.float64] | None = None,
    config: BeliefConfig | None = None,
) -> FaceTable:
    """Their face table, for ``count`` frames at 25 Hz unless ``times_s`` says otherwise."""
    times_s = np.arange(count) / 25 if times_s is None else times_s
    return build_face_table(sights, persons, times_s, np.array(starts, np.int64), (180, 240), config or BeliefConfig())
