"""Voice activity from energy: where lips may move at all.

Reads: nothing. Writes: nothing; pure functions of an ``AudioClip``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
    """

    floor_dbfs: float = -60.0
    enter_fraction: float = 0.40
    leave_fraction: float = 0.28
    min_speech_s: float = 0.06
    max_pause_s: float = 0.24
    lead_s: float = 0.10


def detect_speech(clip: AudioClip, config: VadConfig | None = None) -> NDArray[np.bool_]:
    """``[T]`` bool at 50 Hz, T = ceil(duration · 50); row i covers ``i/50 .. (i+1)/50`` s.

    Hysteresis between two thresholds set from the clip's own 5th (noise) and 95th (speech) percentile, so that
    constant hum is not speech and a quiet recording still is. Digital silence and steady noise give all False.
    """
    config = config or VadConfig()
    level = frame_level_db(clip)
    enter, leave = _thresholds(level, config)
    active = hysteresis(level, enter, leave)
    active = _bridge(active, round(config.max_pause_s * RATE_HZ))
    active = ~_bridge(~active, round(config.min_speech_s * RATE_HZ) - 1)
    return _extend_back(active, round(config.lead_s * RATE_HZ))


def frame_level_db(clip: AudioClip) -> NDArray[np.float64]:
    """``[T]`` energy per 20 ms in dBFS, pre-emphasised so that rumble and hum weigh little; -120 in digital silence."""
    samples = clip.samples.astype(np.float64)
    emphasised = np.append(samples[:1] * 0.1, samples[1:] - 0.9 * samples[:-1])
    frame = clip.sample_rate_hz // RATE_HZ
    framed = np.pad(emphasised, (0, -len(samples) % frame)).reshape(-1, frame)
    power = (framed**2).mean(axis=1)
    smoothed = np.convolve(np.pad(power, 1, mode="edge"), np.full(3, 1 / 3), mode="valid") if len(power) else power
    return 10 * np.log10(smoothed + 1e-12)


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
