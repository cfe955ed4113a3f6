"""Speech → motion of the mouth, and that motion at a video's own frame times.

Reads: the audio → motion checkpoint and the speech encoder. Writes: nothing.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.extract_whisper import EXTRACTOR, RATE_HZ, WhisperEncoder, row_count
from data_gen.utils.process_audio.resample_audio_to_16k import is_silent
from data_gen.utils.process_audio.vad import detect_speech
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.motion_space import speech_envelope
from modules.commons.checkpoint import Checkpoint, load_checkpoint
from modules.commons.errors import CheckpointError, first_line
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from tasks.audio2motion.configs import AudioToMotionTaskConfig

logger = logging.getLogger(__name__)

RELEASE_S = 0.16
"""Lips come to rest within this time after the last sound."""
_CLOSURE_REACH_ROWS = 4
_CLOSURE_DEPTH_SHARE = 0.1


class AudioToMotion:
    """Predicts how far the mouth is from rest while these words are said.

    Args:
        checkpoint_dir: the audio → motion checkpoint.
        whisper_file: weights of the speech encoder.
        face_model_version: version of the face model whose coefficients are wanted.
        device: where the networks run.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt, or for another face model or encoder.
        ModelFileError: the speech encoder is missing or corrupt.
    """

    def __init__(
        self,
        checkpoint_dir: Path,
        whisper_file: Path,
        face_model_version: str,
        *,
        device: torch.device | str = "cpu",
    ) -> None:
        checkpoint = load_checkpoint(checkpoint_dir, device=device, parts={"model"})
        if checkpoint.face_model_version != face_model_version:
            raise CheckpointError(
                f"{checkpoint_dir}: made for face model {checkpoint.face_model_version}, "
                f"but {face_model_version} is in use; train it again with scripts/train_audio2motion.sh"
            )
        if checkpoint.extra.get("extractor") != EXTRACTOR:
            raise CheckpointError(
                f"{checkpoint_dir}: wants {checkpoint.extra.get('extractor')!r} features, this version makes "
                f"{EXTRACTOR!r}; train it again with scripts/train_audio2motion.sh"
            )
        self._model = _build_model(checkpoint).to(device)
        self._version = face_model_version
        self._device = torch.device(device)
        self._encoder = WhisperEncoder(whisper_file, device)

    def predict(
        self,
        clip: AudioClip,
        *,
        temperature: float = 0.0,
        mouth_amp: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> MotionSequence:
        """Motion at 50 Hz as **deviations from this person's mouth at rest**.

        The expression to render is ``rest_of_person + motion`` (``modules.audio2motion.motion_space``); units that
        speech does not drive are 0, and so is everything in silence, reached by a smooth fade of 0.16 s.

        Args:
            clip: 16 kHz mono.
            temperature: 0 averages the model's members; above 0 weighs them at random, for variety between takes.
            mouth_amp: factor on the deviation; 1 opens the lips as far as people do.
            generator: source of that randomness; needed when ``temperature`` > 0.

        Returns:
            one row per 20 ms of sound, ``is_speech`` holding the soft gate and ``opening`` the lip opening over rest.
        """
        if mouth_amp < 0 or temperature < 0:
            raise ValueError(f"mouth_amp and temperature must not be negative, got {mouth_amp} and {temperature}")
        if is_silent(clip):
            logger.warning("the driving sound is silent: the lips stay at rest throughout")
            return self._motion(np.zeros((row_count(clip), self._model.n_expression), np.float32), clip, None)
        envelope = speech_envelope(detect_speech(clip), RATE_HZ, release_s=RELEASE_S)
        if not envelope.any():
            logger.warning("no speech was found in the driving sound: the lips stay at rest throughout")
        deviation = self._deviation(clip, _member_shares(self._model, temperature, generator))
        return self._motion(mouth_amp * envelope[:, None] * deviation, clip, envelope)

    @torch.inference_mode()
    def _deviation(self, clip: AudioClip, shares: torch.Tensor | None) -> NDArray[np.float32]:
        """``[T, E]``; features are projected window by window, so that long sound needs little memory."""
        components = torch.cat(
            [
                self._model.projection(torch.from_numpy(rows).to(self._device))
                for _, rows in self._encoder.extract_windows(clip)
            ]
        )
        if shares is not None:
            shares = shares.to(self._device)
        units = self._model.unit_deviations(components[None], shares)
        return self._model.stretched(units)[0].cpu().numpy()

    def _motion(
        self, expression: NDArray[np.float32], clip: AudioClip, envelope: NDArray[np.float32] | None
    ) -> MotionSequence:
        effect = self._model.opening_effect.cpu().numpy()
        return MotionSequence(
            expression=expression.astype(np.float32),
            is_speech=np.zeros(row_count(clip), np.float32) if envelope is None else envelope,
            rate_hz=float(RATE_HZ),
            face_model_version=self._version,
            opening=(expression @ effect).astype(np.float32),
        )


def _build_model(checkpoint: Checkpoint) -> Audio2Motion:
    """The network of a checkpoint, in evaluation mode."""
    config = checkpoint.config(AudioToMotionTaskConfig).model
    try:
        model = Audio2Motion(config, torch.zeros(len(config.units)), int(checkpoint.extra["n_expression"]))
        model.load_state_dict({name: _full(value) for name, value in checkpoint.model.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint.directory}: not an audio → motion checkpoint ({first_line(error)})"
        ) from error
    return model.eval()


def _full(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _member_shares(model: Audio2Motion, temperature: float, generator: torch.Generator | None) -> torch.Tensor | None:
    if temperature == 0:
        return None
    if generator is None:
        raise ValueError("temperature above 0 needs a generator")
    return torch.softmax(temperature * torch.randn(model.n_members, generator=generator), dim=0)


def sample_motion(motion: MotionSequence, times_s: NDArray[np.floating]) -> NDArray[np.float32]:
    """The motion at arbitrary, rising frame times, closures kept.

    Between rows the motion is linear. A lip closure lasts about 60 ms, hardly longer than a film frame, and a frame
    that samples just beside it would show open lips for a /p/. So a frame whose time span holds the bottom of a
    closure shows that moment, at most half a frame away, instead of its own; all others show their own.

    Args:
        motion: rows at ``(i + 0.5) / rate_hz`` s.
        times_s: ``[N]`` rising, seconds of the sound. Before the first row its value is held; past the end of the
            sound the motion fades to rest.

    Returns:
        ``[N, E]`` float32.
    """
    times = np.asarray(times_s, dtype=np.float64)
    if times.ndim != 1 or np.any(np.diff(times) <= 0):
        raise ValueError("frame times must be one rising row of seconds")
    if len(motion) == 0 or len(times) == 0:
        return np.zeros((len(times), motion.expression.shape[1]), np.float32)
    opening = _opening(motion)
    shown = _snap_to_closures(times, opening, closure_rows(opening), motion.rate_hz)
    position = np.clip(shown * motion.rate_hz - 0.5, 0.0, len(motion) - 1.0)
    left = np.floor(position).astype(np.int64)
    right = np.minimum(left + 1, len(motion) - 1)
    weight = (position - left)[:, None]
    sampled = motion.expression[left] * (1.0 - weight) + motion.expression[right] * weight
    past = np.clip((times - motion.duration_s) / RELEASE_S, 0.0, 1.0)
    return (sampled * (0.5 + 0.5 * np.cos(np.pi * past))[:, None]).astype(np.float32)


def closure_rows(opening: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows at the bottom of a dip of the lip opening ``[T]``.

    A dip is a lowest row of its neighbourhood (±80 ms) with clearly wider lips (a tenth of the clip's range) on both
    sides of it; of a flat bottom every row counts.
    """
    values = np.asarray(opening, dtype=np.float64)
    depth = _CLOSURE_DEPTH_SHARE * float(np.ptp(values)) if len(values) else 0.0
    if depth <= 0.0:
        return np.zeros(0, np.int64)
    reach = _CLOSURE_REACH_ROWS
    padded = np.pad(values, reach, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    before, after = windows[:, :reach].max(axis=1), windows[:, reach + 1 :].max(axis=1)
    lowest = values <= windows.min(axis=1) + 1e-9
    return np.flatnonzero(lowest & (np.minimum(before, after) - values >= depth))


def _opening(motion: MotionSequence) -> NDArray[np.floating]:
    """Lip opening where it is known; otherwise how far the mouth is from rest."""
    return motion.opening if motion.opening is not None else np.linalg.norm(motion.expression, axis=1)


def _snap_to_closures(
    times: NDArray[np.float64], opening: NDArray[np.floating], rows: NDArray[np.int64], rate_hz: float
) -> NDArray[np.float64]:
    """Times moved to the deepest closure within each frame's own span."""
    if len(rows) == 0 or len(times) < 2:
        return times
    borders = (times[1:] + times[:-1]) / 2
    shown = times.copy()
    row_times = (np.arange(len(opening)) + 0.5) / rate_hz
    now = np.interp(times, row_times, opening)
    deepest = np.full(len(times), np.inf)
    first_span, last_span = times[1] - times[0], times[-1] - times[-2]
    for row in rows:
        time = row_times[row]
        if not times[0] - first_span / 2 <= time <= times[-1] + last_span / 2:
            continue
        frame = int(np.searchsorted(borders, time, side="right"))
        if opening[row] < min(deepest[frame], now[frame]):
            deepest[frame], shown[frame] = opening[row], time
    return shown
