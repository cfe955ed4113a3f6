"""Sound as it was recorded → sound as the feature extractors want it, with what is wrong with it.

Reads: the speech detector's weights. Writes: nothing that stays.

``prepare_speech`` takes out constant offset and broken values, brings the loudness to one level, finds where somebody
speaks, and says in a sentence each why the motion will be poor. Preparing twice changes nothing, so that each caller
may do it without knowing what was done before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_audio.bad_values import count_bad, mended
from data_gen.utils.process_audio.loudness import MAX_GAIN_DB, TARGET_LUFS, LoudnessMeter, gain_to
from data_gen.utils.process_audio.resample_audio_to_16k import SAMPLE_RATE_HZ, is_silent, load_audio_16k
from data_gen.utils.process_audio.sample_store import mapped, pieces_of
from data_gen.utils.process_audio.speech_detector import WINDOW, SpeechDetector
from data_gen.utils.process_audio.vad import RATE_HZ, VadConfig, detect_speech, frame_level_db, voiced_speech
from modules.commons.workspace import SPEECH_DETECTOR_FILE
from modules.structures.audio import AudioClip, PreparedSpeech

SAME_LEVEL_DB = 0.05
"""A gain smaller than this is left out, so that prepared sound is returned as it is."""
SAME_OFFSET = 1e-5
CLIPPED_WARNING = 0.002
NOISY_DB = 8.0
MOSTLY_SOMETHING_ELSE = 0.5
_FLAT_RUN = 3
_NEAR_LIMIT = 0.9995


def load_speech(path: Path, detector: SpeechDetector | None = None) -> PreparedSpeech:
    """``load_audio_16k`` and ``prepare_speech``, with their errors."""
    return prepare_speech(load_audio_16k(path), detector)


def prepare_speech(
    clip: AudioClip, detector: SpeechDetector | None = None, config: VadConfig | None = None
) -> PreparedSpeech:
    """Make a 16 kHz clip ready for feature extraction.

    Offset and gain are one number each for the whole clip: what a chunk of it sounds like does not depend on the chunk.
    Loudness is EBU R128's (``loudness``), brought to -23 LUFS by at most +30 dB. Music, noise and hum without a voice
    are not speech, so the lips rest there.

    Args:
        clip: 16 kHz mono of any length; 0 samples are allowed.
        detector: of voices; None loads the project's own.
        config: thresholds of voice activity.

    Returns:
        the prepared sound; see ``PreparedSpeech``.

    Raises:
        ValueError: another sample rate.
        ModelFileError: the detector's weights are missing or corrupt.
    """
    if clip.sample_rate_hz != SAMPLE_RATE_HZ:
        raise ValueError(f"speech is prepared at {SAMPLE_RATE_HZ} Hz, got {clip.sample_rate_hz} Hz")
    finite, n_bad = _without_bad_values(clip)
    clipped_share = _clipped_share(finite.samples)
    lufs, offset = _loudness_and_offset(finite)
    silent = is_silent(finite)
    ready = finite if silent else _levelled(finite, offset, gain_to(lufs))
    sound = np.zeros(-(-len(clip.samples) * RATE_HZ // SAMPLE_RATE_HZ), bool)
    speech = sound
    if not silent:
        detector = detector or SpeechDetector(SPEECH_DETECTOR_FILE)
        sound = detect_speech(ready, config)
        speech = voiced_speech(sound, rows_of_windows(detector.probability(ready), len(sound)), config)
    warnings = [*_broken(n_bad, len(clip.samples)), *_clipped(clipped_share)]
    warnings += [_SILENT] if silent else _about_speech(ready, sound, speech, lufs)
    return PreparedSpeech(ready, speech, float(RATE_HZ), lufs, clipped_share, tuple(warnings))


def rows_of_windows(probability: NDArray[np.float32], n_rows: int) -> NDArray[np.float32]:
    """The detector's value at each row's centre, ``[n_rows]``."""
    centres = (np.arange(n_rows) * 2 + 1) * SAMPLE_RATE_HZ // (2 * RATE_HZ)
    return probability[np.minimum(centres // WINDOW, len(probability) - 1)]


_SILENT = "the sound is silent (below -60 dBFS throughout): the lips stay at rest; check that it is the right file"


def _without_bad_values(clip: AudioClip) -> tuple[AudioClip, int]:
    n_bad = sum(count_bad(piece) for piece in pieces_of(clip.samples))
    if n_bad == 0:
        return clip, 0
    return AudioClip(mapped(clip.samples, mended), clip.sample_rate_hz), n_bad


def _loudness_and_offset(clip: AudioClip) -> tuple[float, float]:
    total = sum(float(piece.sum(dtype=np.float64)) for piece in pieces_of(clip.samples))
    offset = total / max(len(clip.samples), 1)
    meter = LoudnessMeter(clip.sample_rate_hz)
    for piece in pieces_of(clip.samples):
        meter.add(piece - np.float32(offset))  # the step at the start would ring in the meter's high-pass
    return meter.lufs(), offset


def _levelled(clip: AudioClip, offset: float, gain: float) -> AudioClip:
    if abs(20 * np.log10(gain)) < SAME_LEVEL_DB and abs(offset) < SAME_OFFSET:
        return clip

    def level(piece: NDArray[np.float32]) -> NDArray[np.float32]:
        return (piece - np.float32(offset)) * np.float32(gain)

    return AudioClip(mapped(clip.samples, level), clip.sample_rate_hz)


def _clipped_share(samples: NDArray[np.float32]) -> float:
    """Share of samples in runs of at least 3 at the clip's own extreme value (whatever level it was turned to)."""
    if len(samples) == 0:
        return 0.0
    count = 0
    for limit in (float(samples.max()), float(samples.min())):
        if abs(limit) < 1e-3:
            continue
        for piece in pieces_of(samples):
            near = np.abs(piece - limit) <= (1 - _NEAR_LIMIT) * abs(limit)
            edges = np.flatnonzero(np.diff(np.concatenate([[0], near.astype(np.int8), [0]])))
            lengths = edges[1::2] - edges[::2]
            count += int(lengths[lengths >= _FLAT_RUN].sum())
    return count / len(samples)


def _broken(n_bad: int, n_samples: int) -> list[str]:
    if n_bad == 0:
        return []
    return [
        f"{n_bad} of {n_samples} samples are no numbers or absurdly large and were replaced; record or export it anew"
    ]


def _clipped(share: float) -> list[str]:
    if share < CLIPPED_WARNING:
        return []
    return [f"{share:.1%} of the sound is clipped, lips will be less precise; use a recording at a lower level"]


def _about_speech(ready: AudioClip, sound: NDArray[np.bool_], speech: NDArray[np.bool_], lufs: float) -> list[str]:
    """Sentences on sound that is not silent."""
    if not speech.any():
        return ["no speech was found (music or noise?): the lips stay at rest throughout; give a recording of a voice"]
    found = []
    if speech.sum() < (1 - MOSTLY_SOMETHING_ELSE) * sound.sum():
        share = 1 - speech.sum() / sound.sum()
        found.append(f"{share:.0%} of the sound is music or noise without a voice: the lips stay at rest there")
    over = _speech_over_rest_db(ready, speech)
    if over < NOISY_DB:
        found.append(
            f"speech is only {over:.0f} dB above what else is heard: lips will be less precise; use a cleaner recording"
        )
    if TARGET_LUFS - lufs > MAX_GAIN_DB:
        found.append(f"the recording is very quiet ({lufs:.0f} LUFS): lips will be less precise; record it closer")
    return found


def _speech_over_rest_db(clip: AudioClip, speech: NDArray[np.bool_]) -> float:
    """Loud moments of speech over the quietest moments of all, dB; music under a voice has none that are quiet."""
    level = frame_level_db(clip)
    return float(np.percentile(level[speech], 90) - np.percentile(level, 5))
