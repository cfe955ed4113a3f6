"""By how much each clip's sound is late, and whether its sound goes with its mouth: the corpus's frozen keep list.

Reads and writes: ``offsets.csv``.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.commons.csv_table import read_rows
from modules.commons.errors import ConfigError

_COLUMNS = ("clip", "sound_later_ms", "r_opening", "z", "kept")


@dataclass(frozen=True, slots=True)
class SoundOffset:
    """One clip of the table.

    Attributes:
        clip: file name without its suffix.
        sound_later_ms: by how much the sound comes later than the mouth; negative = the sound is early.
        r_opening: correlation, at that offset, of the lip opening seen with the one predicted by a model that never
            saw the speaker.
        z: distinctness of that peak, in standard deviations of what unrelated stretches give.
        kept: whether the clip is material; one whose sound does not go with its mouth is not.
    """

    clip: str
    sound_later_ms: float
    r_opening: float
    z: float
    kept: bool

    @property
    def sound_later_s(self) -> float:
        return self.sound_later_ms / 1000.0


def write_offsets(path: Path, offsets: Sequence[SoundOffset]) -> None:
    """Write the table, ordered by name, through a temporary file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row in sorted(offsets, key=lambda offset: offset.clip):
        figures = (f"{row.sound_later_ms:.0f}", f"{row.r_opening:.3f}", f"{row.z:.1f}")
        writer.writerow((row.clip, *figures, "yes" if row.kept else "no"))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text.getvalue(), encoding="utf-8")
    temporary.replace(path)


def read_offsets(path: Path) -> dict[str, SoundOffset]:
    """The table by clip name.

    Raises:
        ConfigError: the file is missing or is no such table, or a clip stands there twice.
    """
    table: dict[str, SoundOffset] = {}
    for clip, (number, cells) in read_rows(path, _COLUMNS, "sound offsets").items():
        try:
            table[clip] = _parsed(cells)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{path}, line {number}: not a sound offset ({error})") from error
    return table


def _parsed(row: dict[str, str]) -> SoundOffset:
    kept = {"yes": True, "no": False}[row["kept"]]
    return SoundOffset(row["clip"], float(row["sound_later_ms"]), float(row["r_opening"]), float(row["z"]), kept)
