"""How well one frame's mouth is given to another: what ``inference`` measures and a report shows."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TRANSFER_FILE = "transfer.json"
"""Beside a report's trials."""
TRANSFER_SCHEMA = "transfer/1"
UNTOUCHED = "left alone"
"""The row of the untouched source."""


@dataclass(frozen=True, slots=True)
class TransferScore:
    """Mean PSNR of frames t under the motion of frames ``t + late`` against those frames, carried to the pose of t.

    Attributes:
        late_s: seconds.
        row: blend mode, or ``UNTOUCHED``.
        frames: how many; 0 = none was comparable.
        lower_face_db: over the lower face, NaN without frames. mouth_db: over the mouth, likewise.
    """

    late_s: float
    row: str
    frames: int
    lower_face_db: float
    mouth_db: float


def transfer_record(scores: Sequence[TransferScore]) -> list[dict[str, Any]]:
    """As strict JSON takes it: NaN becomes None."""
    return [{k: None if v != v else v for k, v in asdict(score).items()} for score in scores]


def save_transfer(path: Path, scores: Sequence[TransferScore], made_from: str) -> None:
    """Write scores and what they depend on, through a temporary name.

    Raises:
        OSError: the file cannot be written.
    """
    data = {"schema": TRANSFER_SCHEMA, "made_from": made_from, "scores": transfer_record(scores)}
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    temporary.replace(path)


def load_transfer(path: Path, made_from: str | None = None) -> tuple[TransferScore, ...] | None:
    """What ``save_transfer`` wrote; None where there is no such file, or it is of other inputs than ``made_from``.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(data, dict) or data.get("schema") != TRANSFER_SCHEMA:
        raise ValueError(f"{path} does not hold scores of schema {TRANSFER_SCHEMA}")
    if made_from is not None and data["made_from"] != made_from:
        return None
    return tuple(_score(record) for record in data["scores"])


def _score(record: dict[str, Any]) -> TransferScore:
    values: dict[str, Any] = {name: math.nan if value is None else value for name, value in record.items()}
    return TransferScore(**values)
