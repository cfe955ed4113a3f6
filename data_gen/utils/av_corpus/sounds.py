"""The sound of a clip as the network hears it, in several renderings.

Reads: sound of videos. Writes: one ``.npz`` per clip, read again when it was made with the same settings.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.av_corpus.config import CorpusConfig
from data_gen.utils.process_audio.augment import add_reverb, band_limit, change_pitch, random_recording
from data_gen.utils.process_audio.extract_whisper import EXTRACTOR, SAMPLES_PER_ROW, WhisperEncoder
from data_gen.utils.process_audio.front_end import prepare_speech
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.vad import frame_level_db
from modules.structures.audio import AudioClip, AudioFeatures

logger = logging.getLogger(__name__)

TELEPHONE_HZ = 4000.0
"""Sound sampled at 8 kHz ends here."""


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """A sound as the network hears it.

    Attributes:
        features: ``[K, T, C]`` of K renderings. is_speech: ``[T]``. level_db: ``[T]`` dBFS.
        extractor: what made the features.
    """

    features: NDArray[np.float16]
    is_speech: NDArray[np.bool_]
    level_db: NDArray[np.float32]
    extractor: str


def listen(path: Path, encoder: WhisperEncoder, config: CorpusConfig, cache: Path) -> Sound:
    """The sound of a clip as features, read from ``cache`` when they were made with the same settings.

    Args:
        path: of the video.
        encoder: makes the features.
        config: says which renderings there are.
        cache: where the sound is kept.
    """
    recipe = f"{EXTRACTOR}/{config.n_recordings}/{config.seed}/prepared/telephone"
    if config.reverb_s or config.pitch_percent:
        recipe += f"/reverb-{config.reverb_s:g}/pitch-{config.pitch_percent}"
    if cache.is_file():
        with np.load(cache, allow_pickle=False) as data:
            made_so = str(data["recipe"]) == recipe
        if made_so:
            return load_sound(cache)
    speech = prepare_speech(load_audio_16k(path))
    for warning in speech.warnings:
        logger.warning("%s: %s", path.name, warning)
    features, extractor = sound_renderings(speech.clip, encoder.extract, config)
    level_db = frame_level_db(speech.clip).astype(np.float32)
    sound = Sound(features, speech.is_speech, level_db, extractor)
    temporary = cache.with_suffix(".tmp.npz")
    np.savez(
        temporary,
        recipe=np.array(recipe),
        features=sound.features,
        is_speech=sound.is_speech,
        level_db=sound.level_db,
        extractor=np.array(extractor),
    )
    temporary.replace(cache)
    return sound


def load_sound(file: Path) -> Sound:
    """What ``listen`` wrote."""
    with np.load(file, allow_pickle=False) as data:
        return Sound(data["features"], data["is_speech"], data["level_db"], str(data["extractor"]))


def sound_renderings(
    clip: AudioClip, extract: Callable[[AudioClip], AudioFeatures], config: CorpusConfig
) -> tuple[NDArray[np.float16], str]:
    """Features ``[K, T, C]`` of the clean sound and of its recordings, and the extractor's name.

    All but the first start somewhere else in Whisper's window: its rows carry their position, and the network must not
    learn that speech begins at 0 s. Every second recording is another room and microphone, the ones between
    lack what a telephone leaves out.
    """
    rng = np.random.default_rng(config.seed)
    clean = extract(clip)
    renderings = [clean.values]
    for index in range(config.n_recordings):
        lead_rows = int(rng.integers(0, 900))
        other = _other_room(clip, config, rng) if index % 2 else band_limit(clip, TELEPHONE_HZ)
        lead = np.zeros(lead_rows * SAMPLES_PER_ROW, np.float32)
        moved = extract(AudioClip(np.concatenate([lead, other.samples]), clip.sample_rate_hz))
        renderings.append(moved.values[lead_rows:])
    return np.stack(renderings).astype(np.float16), clean.extractor


def _other_room(clip: AudioClip, config: CorpusConfig, rng: np.random.Generator) -> AudioClip:
    """The same words by another voice in another room, before another microphone, as far as the settings go."""
    if config.pitch_percent:
        clip = change_pitch(clip, 100 + int(rng.integers(-config.pitch_percent, config.pitch_percent + 1)))
    if config.reverb_s:
        decay_s, direct_db = float(rng.uniform(0.1, 1.0)) * config.reverb_s, float(rng.uniform(0.0, 12.0))
        clip = add_reverb(clip, decay_s, direct_db, rng)
    return random_recording(clip, rng)
