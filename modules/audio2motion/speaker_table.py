"""Who speaks in which clip, and on what terms the clip was given out.

Reads: ``egs/datasets/av_corpus/speakers.csv``, or a file like it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modules.commons.csv_table import read_rows
from modules.commons.errors import ConfigError

CLEAN_LICENCES = ("public-domain", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "MIT", "Apache-2.0")
"""Terms under which a clip may be part of the ``clean`` variant."""
VIDEO_SUFFIXES = (".mp4", ".mpg", ".mkv", ".mov", ".webm", ".avi")
SpeakerRule = Literal["table", "folder", "prefix"]
_COLUMNS = ("clip", "speaker", "licence", "source", "media")


@dataclass(frozen=True, slots=True)
class SpeakerRow:
    """One clip of the table.

    Attributes:
        clip: file name without its suffix. speaker: all files of one person have the same one.
        licence: what the source states, SPDX where there is such a name, ``none`` where nothing is stated.
        source: where the clip was published. media: what kind of recording it is.
    """

    clip: str
    speaker: str
    licence: str
    source: str
    media: str

    @property
    def is_clean(self) -> bool:
        return self.licence in CLEAN_LICENCES


def read_speakers(path: Path) -> dict[str, SpeakerRow]:
    """The table by clip name.

    Raises:
        ConfigError: the file is missing or is no such table, a cell is empty, or a clip stands there twice.
    """
    rows = read_rows(path, _COLUMNS, "speakers")
    return {clip: SpeakerRow(**cells) for clip, (_, cells) in rows.items()}


def speaker_of(path: Path, rule: SpeakerRule, table: dict[str, SpeakerRow]) -> str:
    """Who speaks in a clip.

    Args:
        path: of the video.
        rule: what holds for a clip the table does not know. ``table``: it is a speaker of its own; ``folder``: the
            folder two above it, as VoxCeleb2 lies (``<speaker>/<video>/<n>.mp4``); ``prefix``: its name up to the last
            underscore, as HDTF's are (``<speaker>_<n>.mp4``).
        table: of ``read_speakers``.

    Raises:
        ConfigError: the path has too few folders.
    """
    name = path.name.removesuffix(path.suffix) if path.suffix.lower() in VIDEO_SUFFIXES else path.name
    if name in table:
        return table[name].speaker
    if rule == "table":
        return name
    if rule == "prefix":
        return name.rpartition("_")[0] or name
    if len(path.parts) < 3:
        raise ConfigError(f"{path}: speaker_from folder needs <speaker>/<video>/<clip>")
    return path.parts[-3]


def clean_clips(table: dict[str, SpeakerRow]) -> frozenset[str]:
    """Names of the clips that may be part of the ``clean`` variant."""
    return frozenset(row.clip for row in table.values() if row.is_clean)
