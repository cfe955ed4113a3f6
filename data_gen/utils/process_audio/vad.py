"""Voice activity: where lips may move at all.

Reads: nothing. Writes: nothing; pure functions of an ``AudioClip``.

Energy gives the borders to 20 ms, but takes music and engines for speech; a detector of voices
(``speech_detector``) knows them apart, but blurs borders. ``voiced_speech`` keeps energy's borders where there is a
voice nearby.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_audio.sample_store import PIECE_SAMPLES
from modules.structures.audio import AudioClip

RATE_HZ = 50


@dataclass(frozen=True, slots=True)
class VadConfig:
    """Thresholds relative to the clip's own noise floor and loud level, all in dB of frame energy.

    Attributes:
        floor_dbfs: nothing quieter than this is ever speech.
        enter_fraction: speech starts above ``noise + enter_fraction · (loud - noise)``.
        leave_fraction: and lasts until below ``noise + leave_fraction · (loud - noise)``.
        min_speech_s: shorter bursts (clicks) are dropped.
        max_pause_s: shorter pauses (plosive closures) are bridged.
        lead_s: lips start to move before the voice does.
        enter_probability: a voice begins at this probability of the detector of voices,
        leave_probability: and lasts until below this one.
        before_voice_s: sound that begins at most this much before a voice belongs to it: words begin with voiceless
            sounds, and the detector, which hears no future, is late.
        after_voice_s: likewise after a voice.
    """

    floor_dbfs: float = -60.0
    enter_fraction: float = 0.40
    leave_fraction: float = 0.28
    min_speech_s: float = 0.06
    max_pause_s: float = 0.24
    lead_s: float = 0.10
    enter_probability: float = 0.5
    leave_probability: float = 0.15
    before_voice_s: float = 0.40
    after_voice_s: float = 0.20


def detect_speech(clip: AudioClip, config: VadConfig | None = None) -> NDArray[np.bool_]:
    """``[T]`` bool at 50 Hz, T = ceil(duration · 50); row i covers ``i/50 .. (i+1)/50`` s.

    Hysteresis between two thresholds set from the clip's own 5th (noise) and 95th (speech) percentile, so that
    a quiet recording is still speech. Digital silence gives all False. Steady noise, hum and music louder than
    ``floor_dbfs`` are sound like any other: see ``voiced_speech``.
    """
    config = config or VadConfig()
    level = frame_level_db(clip)
    enter, leave = _thresholds(level, config)
    active = hysteresis(level, enter, leave)
    active = _bridge(active, round(config.max_pause_s * RATE_HZ))
    active = ~_bridge(~active, round(config.min_speech_s * RATE_HZ) - 1)
    return _extend_back(active, round(config.lead_s * RATE_HZ))


def voiced_speech(
    active: NDArray[np.bool_], probability: NDArray[np.floating], config: VadConfig | None = None
) -> NDArray[np.bool_]:
    """Sound that is near a voice.

    Args:
        active: ``[T]`` of ``detect_speech``.
        probability: ``[T]`` that there is a voice, at the same rows.
        config: thresholds.

    Returns:
        ``[T]`` bool, a subset of ``active``.
    """
    config = config or VadConfig()
    voice = hysteresis(probability.astype(np.float64), config.enter_probability, config.leave_probability)
    begun = _extend_back(voice, round(config.before_voice_s * RATE_HZ))
    return active & (begun | _extend_back(voice[::-1], round(config.after_voice_s * RATE_HZ))[::-1])


def frame_level_db(clip: AudioClip) -> NDArray[np.float64]:
    """``[T]`` energy per 20 ms in dBFS, pre-emphasised so that rumble and hum weigh little; -120 in digital silence."""
    frame = clip.sample_rate_hz // RATE_HZ
    step = PIECE_SAMPLES // frame * frame
    powers = [_frame_powers(clip.samples, start, start + step, frame) for start in range(0, len(clip.samples), step)]
    power = np.concatenate(powers) if powers else np.zeros(0)
    smoothed = np.convolve(np.pad(power, 1, mode="edge"), np.full(3, 1 / 3), mode="valid") if len(power) else power
    return 10 * np.log10(smoothed + 1e-12)


def _frame_powers(samples: NDArray[np.float32], start: int, stop: int, frame: int) -> NDArray[np.float64]:
    """Mean power of each frame of ``samples[start:stop]``, pre-emphasised with the sample before ``start``."""
    before = samples[start - 1] if start else samples[0]
    piece = np.concatenate([[before], samples[start:stop]]).astype(np.float64)
    emphasised = piece[1:] - 0.9 * piece[:-1]
    framed = np.pad(emphasised, (0, -len(emphasised) % frame)).reshape(-1, frame)
    return (framed**2).mean(axis=1)


def hysteresis(level: NDArray[np.float64], enter: float, leave: float) -> NDArray[np.bool_]:
    """True from the first value ≥ ``enter`` until the next value < ``leave``."""
    event = np.where(level >= enter, 1, np.where(level < leave, 0, -1))
    decided = np.where(event >= 0, np.arange(len(level)), -1)
    last = np.maximum.accumulate(decided) if len(level) else decided
    return (last >= 0) & (event[np.maximum(last, 0)] == 1)


def _thresholds(level: NDArray[np.float64], config: VadConfig) -> tuple[float, float]:
    if len(level) == 0:
        return config.floor_dbfs, config.floor_dbfs
    noise, loud = np.percentile(level, [5, 95])
    # A clip without pauses has no noise to measure: speech spans at least 40 dB above a studio's silence, and what
    # lies within 25 dB of the loud level is taken for speech whatever the percentiles say.
    noise = max(min(float(noise), float(loud) - 25.0), config.floor_dbfs)
    span = max(float(loud) - noise, 0.0)
    return (
        max(noise + config.enter_fraction * span, config.floor_dbfs),
        max(noise + config.leave_fraction * span, config.floor_dbfs),
    )


def _bridge(active: NDArray[np.bool_], longest: int) -> NDArray[np.bool_]:
    """Set False runs of at most ``longest`` rows that lie between two True rows."""
    bridged = active.copy()
    edges = np.flatnonzero(np.diff(active.astype(np.int8)))
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        if not active[first + 1] and last - first <= longest:
            bridged[first + 1 : last + 1] = True
    return bridged


def _extend_back(active: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    extended = active.copy()
    for shift in range(1, min(rows, len(active) - 1) + 1):
        extended[:-shift] |= active[shift:]
    return extended
