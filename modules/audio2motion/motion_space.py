"""The space predicted motion lives in: how far each mouth unit is from this person's mouth at rest.

People differ in how their mouth rests (and the fit in how it explains that), so sound is mapped to the deviation from
rest, never to absolute coefficients: ``expression = rest_of_person + amplitude · deviation``. Silence is 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SPEECH_LEAD_S = 0.10
"""How long before the voice the flags of ``detect_speech`` go up: lips start to move before they are heard."""

REST_SHARE = 0.2
"""Share of a clip's frames, those with the smallest lip opening, whose mean is the mouth at rest."""


def rest_expression(
    expression: NDArray[np.floating], opening: NDArray[np.floating], share: float = REST_SHARE
) -> NDArray[np.float32]:
    """Mean expression over the frames in which the lips are most nearly shut.

    Args:
        expression: ``[T, E]`` coefficients; rows with a value that is not finite are left out.
        opening: ``[T]`` lip opening of the same frames, any unit; values that are not finite are left out.
        share: share of the usable frames to average, in (0, 1]; at least one frame is used.

    Returns:
        ``[E]`` float32.

    Raises:
        ValueError: the arrays disagree, or no frame is usable.
    """
    if expression.ndim != 2 or opening.shape != expression.shape[:1]:
        raise ValueError(f"expression {expression.shape} and opening {opening.shape} do not belong together")
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share must lie in (0, 1], got {share}")
    usable = np.flatnonzero(np.isfinite(opening) & np.isfinite(expression).all(axis=1))
    if len(usable) == 0:
        raise ValueError("no frame has both an expression and a lip opening, so there is no mouth at rest")
    count = max(1, round(share * len(usable)))
    shut = usable[np.argsort(opening[usable], kind="stable")[:count]]
    return expression[shut].mean(axis=0, dtype=np.float64).astype(np.float32)


def apply_deviation(
    rest: NDArray[np.floating], deviation: NDArray[np.floating], amplitude: float = 1.0
) -> NDArray[np.float32]:
    """``rest [E] + amplitude · deviation [T, E]``, float32 ``[T, E]``."""
    return (rest + amplitude * deviation).astype(np.float32)


def columns_of(names: Sequence[str], wanted: Sequence[str]) -> NDArray[np.int64]:
    """Positions of ``wanted`` in ``names``.

    Raises:
        ValueError: one of them is not there.
    """
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"the face model has no expression unit {missing[0]!r}")
    return np.array([list(names).index(name) for name in wanted], dtype=np.int64)


def speech_envelope(
    is_speech: NDArray, rate_hz: float, lead_s: float = SPEECH_LEAD_S, release_s: float = 0.16
) -> NDArray[np.float32]:
    """Soft gate 0..1 of a speech flag ``[T]``: cosine ramps over the first ``lead_s`` and ``release_s`` after speech.

    Flags go up ``lead_s`` before the voice does. The gate rises within that time: closed in silence, open when the
    voice starts. Speech at the very start of a file may begin at once, so there the gate is open from the first row.
    After ``release_s`` of silence it is exactly 0.
    """
    active = _voiced(np.asarray(is_speech) > 0.5, round(lead_s * rate_hz))
    if not active.any():
        return np.zeros(len(active), np.float32)
    rows = np.arange(len(active), dtype=np.float64)
    speaking = rows[active]
    after = np.searchsorted(speaking, rows, side="right")
    since = np.where(after > 0, rows - speaking[np.maximum(after - 1, 0)], np.inf) / rate_hz
    until = np.where(after < len(speaking), speaking[np.minimum(after, len(speaking) - 1)] - rows, np.inf) / rate_hz
    until = np.where(active, 0.0, until)
    nearness = np.maximum(1.0 - since / release_s, 1.0 - until / lead_s)
    return (0.5 - 0.5 * np.cos(np.pi * np.clip(nearness, 0.0, 1.0))).astype(np.float32)


def _voiced(active: NDArray[np.bool_], lead_rows: int) -> NDArray[np.bool_]:
    """Flags without the first ``lead_rows`` of each run (but for one at row 0); a run's last row always stays."""
    begins, ends = np.zeros_like(active), np.ones_like(active)
    begins[1:] = active[1:] & ~active[:-1]
    ends[:-1] = ~active[1:]
    voiced = active.copy()
    for shift in range(min(lead_rows, len(active))):
        voiced[shift:] &= ~begins[: len(active) - shift]
    return voiced | (active & ends)
