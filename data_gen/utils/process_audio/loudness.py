"""How loud speech is, as people hear it, and the gain that brings every recording to one level.

Reads: nothing. Writes: nothing.

The measure is EBU R128's integrated loudness (ITU-R BS.1770-4): power after a filter that hears as ears do, over
400 ms blocks, leaving out those that are silent or more than 10 dB below the rest. (R128 calls silent what is below
-70 LUFS; here it is what is 50 dB below the loudest block, so that turning the volume changes the measure by just
that, and normalising twice is normalising once.) Pauses therefore do not count, and
no threshold of a voice detector (which itself would need a known level) enters; of speech it is the level of the
speech. Peaks would not do: one click would make the rest quiet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

from data_gen.utils.process_audio.sample_store import PIECE_SAMPLES
from modules.structures.audio import AudioClip

TARGET_LUFS = -23.0
"""EBU R128's own target."""
MAX_GAIN_DB = 30.0
"""A quieter recording holds mostly noise, which more gain would not turn into speech."""
_STEP_S = 0.1
_STEPS_PER_BLOCK = 4
_OFFSET_LUFS = -0.691
_SILENCE_GATE_DB = -50.0
_RELATIVE_GATE_DB = -10.0
_NO_POWER = 1e-12
"""-120 dB: what is left of digital silence after rounding."""


def k_weighting(sample_rate_hz: int) -> NDArray[np.float64]:
    """Second-order sections ``[2, 6]`` of BS.1770's two filters at any rate.

    A shelf (+4 dB above about 1.7 kHz: the head) and a high-pass at 38 Hz. BS.1770 lists coefficients for 48 kHz only;
    these are the bilinear transforms of the analogue filters those came from.
    """
    shelf_hz, shelf_db, shelf_q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    pass_hz, pass_q = 38.13547087602444, 0.5003270373238773
    tangent = np.tan(np.pi * shelf_hz / sample_rate_hz)
    high = 10 ** (shelf_db / 20)
    middle = high**0.4996667741545416
    norm = 1 + tangent / shelf_q + tangent**2
    shelf = [
        (high + middle * tangent / shelf_q + tangent**2) / norm,
        2 * (tangent**2 - high) / norm,
        (high - middle * tangent / shelf_q + tangent**2) / norm,
        1.0,
        2 * (tangent**2 - 1) / norm,
        (1 - tangent / shelf_q + tangent**2) / norm,
    ]
    tangent = np.tan(np.pi * pass_hz / sample_rate_hz)
    norm = 1 + tangent / pass_q + tangent**2
    high_pass = [1.0, -2.0, 1.0, 1.0, 2 * (tangent**2 - 1) / norm, (1 - tangent / pass_q + tangent**2) / norm]
    return np.array([shelf, high_pass])


class LoudnessMeter:
    """Integrated loudness of sound that arrives in pieces; keeps ten numbers a second."""

    def __init__(self, sample_rate_hz: int) -> None:
        self._sections = k_weighting(sample_rate_hz)
        self._state = np.zeros((2, 2))
        self._step = round(_STEP_S * sample_rate_hz)
        self._rest = np.zeros(0)
        self._powers: list[NDArray[np.float64]] = []

    def add(self, samples: NDArray[np.floating]) -> None:
        """The next piece ``[N]``, mono."""
        for start in range(0, len(samples), PIECE_SAMPLES):
            piece = samples[start : start + PIECE_SAMPLES].astype(np.float64)
            heard, self._state = sosfilt(self._sections, piece, zi=self._state)
            joined = np.concatenate([self._rest, heard])
            whole = len(joined) // self._step * self._step
            self._powers.append((joined[:whole].reshape(-1, self._step) ** 2).mean(axis=1))
            self._rest = joined[whole:]

    def lufs(self) -> float:
        """Loudness of all that was added; -inf when there is none.

        Sound shorter than one block (0.4 s) is taken as one block: better a rough level than none.
        """
        powers = np.concatenate(self._powers) if self._powers else np.zeros(0)
        if len(powers) < _STEPS_PER_BLOCK:
            rest = [float((self._rest**2).mean())] if len(self._rest) else []
            blocks = np.array([np.mean([*powers, *rest])] if len(powers) or rest else [], np.float64)
        else:
            blocks = np.lib.stride_tricks.sliding_window_view(powers, _STEPS_PER_BLOCK).mean(axis=1, dtype=np.float64)
        if len(blocks) == 0 or blocks.max() <= _NO_POWER:
            return float("-inf")
        blocks = blocks[_lufs(blocks) >= float(_lufs(blocks.max())) + _SILENCE_GATE_DB]
        blocks = blocks[_lufs(blocks) >= float(_lufs(blocks.mean())) + _RELATIVE_GATE_DB]
        return float(_lufs(blocks.mean()))


def _lufs(power: NDArray[np.float64] | np.float64) -> NDArray[np.float64]:
    return _OFFSET_LUFS + 10 * np.log10(np.maximum(power, 1e-20))


def loudness_lufs(clip: AudioClip) -> float:
    """Integrated loudness of a clip (BS.1770-4, mono); -inf for silence."""
    meter = LoudnessMeter(clip.sample_rate_hz)
    meter.add(clip.samples)
    return meter.lufs()


def gain_to(lufs: float, target_lufs: float = TARGET_LUFS) -> float:
    """Factor that brings sound of loudness ``lufs`` to the target; 1 for silence, at most +30 dB."""
    if not np.isfinite(lufs):
        return 1.0
    return float(10 ** (min(target_lufs - lufs, MAX_GAIN_DB) / 20))
