"""A corpus that does not fit into memory: which files there are, who speaks in them, who is held out.

Reads: prepared clips below a folder. Writes: an index of their speakers, so that a million files are opened once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modules.commons.errors import ConfigError
from modules.structures.speech_motion import SpeechMotionClip
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import MIN_ROWS, TrainingClip, clip_files, prepare

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class StoredCorpus:
    """Files to train from, and clips in memory.

    Attributes:
        training: files of the speakers that are trained on.
        n_speakers: those.
        probe: some of their clips, for statistics. held_out: clips of the speakers left out.
    """

    training: Sequence[Path]
    n_speakers: int
    probe: Sequence[TrainingClip]
    held_out: Sequence[TrainingClip]


def open_corpus(
    folder: Path, config: AudioToMotionTaskConfig, index_file: Path, only: Collection[str] | None = None
) -> StoredCorpus:
    """Divide the clips below ``folder`` into those to train on and those of speakers left out.

    Args:
        folder: prepared clips, in subfolders or not.
        config: ``corpus`` says how many are left out; the choice follows from ``seed``.
        index_file: where speakers are noted; files that are in it with their size are not opened again.

        only: names of the clips wanted; None = all.

    Raises:
        ConfigError: nothing usable is left to train on.
    """
    speakers = {
        file: speaker
        for file, speaker in index_speakers(folder, index_file).items()
        if speaker not in config.without_speakers and (only is None or file.stem in only)
    }
    if not speakers:
        raise ConfigError(f"{folder}: variant and without_speakers leave no clip to train on")
    rng = np.random.default_rng(config.seed)
    names = sorted(set(speakers.values()))
    left_out = set(rng.permutation(names)[: min(config.corpus.held_out_speakers, len(names) - 1)].tolist())
    training = [file for file, speaker in speakers.items() if speaker not in left_out]
    testing = [file for file, speaker in speakers.items() if speaker in left_out]
    probe = _load_some(training, config.corpus.probe_clips, rng)
    if not probe:
        raise ConfigError(f"{folder}: no clip with half a second of face to train on; build the corpus anew")
    held_out = _load_some(testing, config.corpus.held_out_clips, rng)
    logger.info("%s: %d clips to train on, %d speakers left out", folder, len(training), len(left_out))
    return StoredCorpus(training, len(names) - len(left_out), probe, held_out)


def index_speakers(folder: Path, index_file: Path) -> dict[Path, str]:
    """Speaker of each prepared clip below ``folder``, in the order of the paths.

    Raises:
        ConfigError: there is no clip, or a file is none.
    """
    files = clip_files(folder)
    known = _read_index(index_file)
    entries = {}
    for file in files:
        key = f"{file.relative_to(folder)}:{file.stat().st_size}"
        entries[key] = known[key] if key in known else _speaker_of(file)
    index_file.parent.mkdir(parents=True, exist_ok=True)
    temporary = index_file.with_suffix(".tmp")
    temporary.write_text(json.dumps(entries), encoding="utf-8")
    temporary.replace(index_file)
    return dict(zip(files, entries.values(), strict=True))


def _read_index(index_file: Path) -> dict[str, str]:
    """What an earlier run noted; an index that cannot be read is made anew."""
    try:
        found = json.loads(index_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _speaker_of(file: Path) -> str:
    try:
        with np.load(file, allow_pickle=False) as data:
            return str(data["speaker"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ConfigError(f"{file}: not a prepared talking clip ({error}); remove it or build it anew") from error


def _load_some(files: Sequence[Path], count: int, rng: np.random.Generator) -> list[TrainingClip]:
    """Up to ``count`` clips drawn from ``files`` that hold half a second of face."""
    clips = []
    for index in rng.permutation(len(files)):
        if len(clips) == count:
            break
        clip = SpeechMotionClip.load(files[int(index)])
        if clip.valid.sum() >= MIN_ROWS:
            clips.append(prepare(clip))
    return clips
