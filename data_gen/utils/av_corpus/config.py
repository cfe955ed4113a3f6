"""What the corpus of talking clips is made with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from data_gen.utils.av_corpus.offset_estimation import OffsetConfig
from modules.audio2motion.speaker_table import SpeakerRow, SpeakerRule, read_speakers, speaker_of
from modules.commons.workspace import ROOT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CorpusConfig:
    """Who speaks in the clips, how their sound is heard, and how sound and mouth are brought together.

    Attributes:
        speakers: table of speakers and licences; relative paths lie below the repository.
        speaker_from: where the speaker of a clip stands that the table does not know, see ``speaker_table.speaker_of``.
        n_recordings: further renderings, of telephones and rooms in turn. seed: of all of these.
        reverb_s: rooms echo for up to so long; 0 = not. pitch_percent: their voices are up to so much higher or lower.
        offsets: how sound offsets are found where no frozen table is given.
    """

    speakers: Path = Path("egs/datasets/av_corpus/speakers.csv")
    speaker_from: SpeakerRule = "table"
    n_recordings: int = 2
    reverb_s: float = 0.0
    pitch_percent: int = 0
    seed: int = 0
    offsets: OffsetConfig = field(default_factory=OffsetConfig)

    @cached_property
    def speaker_table(self) -> dict[str, SpeakerRow]:
        """The table, read once.

        Raises:
            ConfigError: it cannot be read.
        """
        return read_speakers(ROOT / self.speakers)

    def speaker_of(self, clip: Path | str) -> str:
        """Who speaks in a clip (its path, or its name alone)."""
        return speaker_of(Path(clip), self.speaker_from, self.speaker_table)
