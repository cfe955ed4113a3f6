"""What an evaluation found: figures with their intervals, per row of a trial, and what each figure means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from modules.structures.evaluation import Protocol, SpeechTrack
from modules.structures.transfer import TransferScore

Better = Literal["higher", "lower", "one", "zero", "none"]
"""Which way is good: ``one`` = as near 1 as possible, ``zero`` = as near 0, ``none`` = says nothing by itself."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of the tables.

    Attributes:
        key: name in metrics.json.
        group: heading it stands under.
        label: short name in tables. unit: '' for none.
        better: which way is good.
        digits: after the decimal point.
        about: definition in a sentence or two.
        is_per_frame: its mean over frames is the figure; otherwise it needs the whole stretch.
    """

    key: str
    group: str
    label: str
    unit: str
    better: Better
    digits: int
    about: str
    is_per_frame: bool = True


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure: NaN with a ``note`` where it was not measured, so that no row drops out silently.

    Attributes:
        value: the figure.
        low, high: 95 % interval, NaN where there is none.
        count: frames (or events) behind it.
        note: why there is no figure, or what to know about it.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    count: int = 0
    note: str = ""

    @property
    def is_measured(self) -> bool:
        return not math.isnan(self.value)

    @classmethod
    def missing(cls, note: str) -> Measure:
        """No figure, and why."""
        return cls(math.nan, note=note)


@dataclass(frozen=True, slots=True, eq=False)
class RowScores:
    """All figures of one row of a trial.

    Attributes:
        name, is_result, about: of the row.
        measures: by metric key.
        frames: per-frame values float ``[N]`` by metric key, NaN where not measurable; also ``opening``, the lip
            opening re-detected in the row's pictures.
        verdicts: by metric key, for results only: 'better', 'worse' or 'undecided' than the retrieval baseline, by the
            95 % interval of the paired difference.
    """

    name: str
    is_result: bool
    about: str
    measures: Mapping[str, Measure]
    frames: Mapping[str, NDArray[np.floating]]
    verdicts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class TrialScores:
    """All figures of a trial; the arrays are those of ``Trial``."""

    name: str
    protocol: Protocol
    frames: NDArray[np.int64]
    times_s: NDArray[np.float64]
    block: NDArray[np.int64]
    outcomes: tuple[str, ...]
    speech: SpeechTrack | None
    rows: tuple[RowScores, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """Everything a report shows.

    Attributes:
        source: the evaluated video. facts: what it is (size, rate, sound ...) and the machine, as label and value.
        command: that made this. versions: of what was used. seed: of the bootstrap.
        metrics: every figure there is, in the order of the tables.
        trials: measured.
        sheets: title and JPEG file of pictures to show (worst frames).
        clips: title and MP4 file of videos to show (side by side).
        transfer: frames under other frames' motion; () = not measured.
    """

    source: Path
    facts: Mapping[str, str]
    command: str
    versions: Mapping[str, str]
    seed: int
    metrics: tuple[Metric, ...]
    trials: tuple[TrialScores, ...]
    sheets: tuple[tuple[str, Path], ...] = ()
    clips: tuple[tuple[str, Path], ...] = ()
    transfer: tuple[TransferScore, ...] = ()
