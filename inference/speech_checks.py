"""What speech does to predicted motion: noise, sample rates and channels, languages, silence.

Reads: sound files. Writes: converted copies of one of them into a temporary folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.augment import add_noise
from data_gen.utils.process_audio.extract_whisper import WhisperEncoder
from data_gen.utils.process_audio.front_end import load_speech, prepare_speech
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_audio.vad import frame_level_db
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.motion_space import speech_envelope
from modules.structures.audio import AudioClip
from tasks.audio2motion.dataset_utils import TrainingClip
from tasks.audio2motion.evaluation import pearson
from tasks.audio2motion.held_out import predict_units

LAYOUTS = ((8_000, "mono"), (44_100, "stereo"), (48_000, "stereo"), (48_000, "5.1"))
ENVELOPE_REACH_ROWS = 10
"""Loudness within 0.2 s to each side is what a speech envelope can explain."""


def noisy_features(
    videos: dict[str, Path], encoder: WhisperEncoder, snr_db: float, seed: int = 0
) -> Callable[[Sequence[TrainingClip], int], NDArray]:
    """Features of a clip's own sound with pink noise, for ``held_out.predict_all``.

    Args:
        videos: path of each clip by name.
        encoder: makes the features.
        snr_db: signal over noise.
        seed: of the noise.
    """

    def features(clips: Sequence[TrainingClip], index: int) -> NDArray:
        clip = clips[index]
        clean = load_audio_16k(videos[clip.clip.name])
        noisy = prepare_speech(add_noise(clean, snr_db, np.random.default_rng((seed, index))))
        return encoder.extract(noisy.clip).values[clip.first_row : clip.first_row + len(clip)]

    return features


def opening_of(model: Audio2Motion, encoder: WhisperEncoder, clip: AudioClip) -> NDArray[np.float64]:
    """Predicted lip opening ``[T]``, dm over rest, closed where nobody speaks."""
    speech = prepare_speech(clip)
    units = predict_units(model, encoder.extract(speech.clip).values)
    effect = model.opening_effect[model.columns]
    gate = speech_envelope(speech.is_speech, speech.rate_hz)
    return (units @ effect).numpy().astype(np.float64) * gate


def write_converted(clip: AudioClip, path: Path, rate_hz: int, layout: str) -> None:
    """A clip as 16-bit sound of another rate and layout; the same signal on every channel."""
    frame = av.AudioFrame.from_ndarray(clip.samples[None], format="fltp", layout="mono")
    frame.sample_rate = clip.sample_rate_hz
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate_hz)
    parts = [part.to_ndarray()[0] for source in (frame, None) for part in resampler.resample(source)]
    samples = np.clip(np.concatenate(parts), -1.0, 1.0)
    channels = len(av.AudioLayout(layout).channels)
    packed = np.repeat(np.round(samples * 32767).astype(np.int16)[:, None], channels, axis=1).reshape(1, -1)
    with av.open(str(path), "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=rate_hz, layout=layout)
        out = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        out.sample_rate = rate_hz
        for packet in [*stream.encode(out), *stream.encode(None)]:
            container.mux(packet)


def rate_differences(
    speech: Path, model: Audio2Motion, encoder: WhisperEncoder, folder: Path
) -> dict[str, tuple[float, float]]:
    """How far other rates and layouts move the lips: root mean square and largest difference over the range.

    Args:
        speech: the sound.
        model: predicts.
        encoder: makes the features.
        folder: for the converted copies.
    """
    clip = load_audio_16k(speech)
    reference = opening_of(model, encoder, clip)
    found = {}
    for rate_hz, layout in LAYOUTS:
        path = folder / f"{speech.stem}_{rate_hz}_{layout}.wav"
        write_converted(clip, path, rate_hz, layout)
        opening = opening_of(model, encoder, load_audio_16k(path))
        count = min(len(opening), len(reference))
        difference = np.abs(opening[:count] - reference[:count]) / np.ptp(reference)
        found[f"{rate_hz} Hz {layout}"] = float(np.sqrt((difference**2).mean())), float(difference.max())
    return found


def language_agreement(
    speech: Path, first: Audio2Motion, second: Audio2Motion, encoder: WhisperEncoder
) -> tuple[float, float]:
    """Correlation of the openings two models of disjoint speakers predict, and of what loudness leaves of them.

    Only rows with speech count: that both rest in silence is no agreement.
    """
    prepared = load_speech(speech)
    features = encoder.extract(prepared.clip).values
    spoken = prepared.is_speech
    openings = []
    for model in (first, second):
        effect = model.opening_effect[model.columns]
        openings.append((predict_units(model, features) @ effect).numpy().astype(np.float64)[spoken])
    explained = _envelope_rows(prepared.clip)[spoken]
    left = [opening - explained @ np.linalg.lstsq(explained, opening, rcond=None)[0] for opening in openings]
    return pearson(openings[0], openings[1]), pearson(left[0], left[1])


def _envelope_rows(clip: AudioClip) -> NDArray[np.float64]:
    """Loudness, dB, of each row and its neighbours, and a constant: ``[T, 2·reach + 2]``."""
    level = frame_level_db(clip)
    level = np.maximum(level, np.percentile(level, 95) - 40.0)
    rows = np.arange(len(level))[:, None] + np.arange(-ENVELOPE_REACH_ROWS, ENVELOPE_REACH_ROWS + 1)
    return np.concatenate([level[rows.clip(0, len(level) - 1)], np.ones((len(level), 1))], axis=1)


@torch.no_grad()
def set_opening_effect(model: Audio2Motion, effect: torch.Tensor) -> Audio2Motion:
    """The model, knowing how its units open the lips (``losses.opening_effect``)."""
    model.opening_effect.copy_(effect)
    return model
