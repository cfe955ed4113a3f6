"""A waveform made by code, and the script that stored python_speech_features' answer to it in ``mfcc_golden.npz``.

Made in a scratch environment (the package is no dependency of this project), from the repository's root:

    pip install numpy==2.4.6 scipy==1.17.1 python_speech_features==0.6 'setuptools<80'
    python tests/modules/metrics/mfcc_golden.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

GOLDEN_FILE = Path(__file__).with_name("mfcc_golden.npz")


def waveform() -> np.ndarray:
    """1.5 s at 16 kHz, int16: digital silence, a rising chirp in loud and soft syllables, a last part that clips."""
    time = np.arange(24_123) / 16_000
    chirp = np.sin(2 * np.pi * (60 * time + 2000 * time**2)) + 0.3 * np.sin(2 * np.pi * 3150 * time)
    loudness = 0.6 * np.sin(2 * np.pi * 2.5 * time) ** 2 + np.where(time > 1.3, 2.0, 0.001)
    loudness[:2500] = 0
    return np.clip(np.rint(chirp * loudness * 20_000), -32768, 32767).astype(np.int16)


def main() -> None:
    from python_speech_features import mfcc

    np.savez(GOLDEN_FILE, mfcc=mfcc(waveform(), 16_000))


if __name__ == "__main__":
    main()
