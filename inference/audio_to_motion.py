"""Speech → motion of the mouth, and that motion at a video's own frame times.

Reads: the audio → motion checkpoint and the speech encoder. Writes: nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_audio.extract_whisper import RATE_HZ, WhisperEncoder
from data_gen.utils.process_audio.features import whisper_file as encoder_file
from data_gen.utils.process_audio.front_end import prepare_speech
from data_gen.utils.process_audio.speech_detector import SpeechDetector
from modules.audio2motion.chunked import answer_in_chunks
from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.motion_space import speech_envelope
from modules.audio2motion.take import Take
from modules.commons.checkpoint import Checkpoint, load_checkpoint
from modules.commons.errors import CheckpointError, first_line
from modules.commons.workspace import SPEECH_DETECTOR_FILE
from modules.postnet.person_motion import PersonMotion
from modules.structures.audio import AudioClip
from modules.structures.motion import MotionSequence
from tasks.audio2motion.configs import AudioToMotionTaskConfig

logger = logging.getLogger(__name__)

SilenceMode = Literal["fade", "close", "keep"]
SILENCE_MODES: tuple[SilenceMode, ...] = get_args(SilenceMode)

RELEASE_S = 0.16
"""Lips come to rest within this time after the last sound."""
_FETCHED_ENCODERS = ("whisper-tiny", "whisper-base")
_CLOSURE_REACH_ROWS = 4
_CLOSURE_DEPTH_SHARE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class HeardSpeech:
    """A clip's sound, row by row: deviation ``[T, E]`` before any gate, features ``[T, C]``, speech and gate ``[T]``.

    ``opening_effect [E]`` is the lip opening, dm, that one unit of each coefficient adds.
    """

    deviation: NDArray[np.float32]
    features: NDArray[np.float32]
    is_speech: NDArray[np.bool_]
    gate: NDArray[np.float32]
    rate_hz: float
    extractor: str
    opening_effect: NDArray[np.float32]

    @property
    def opening(self) -> NDArray[np.float32]:
        """``[T]`` lip opening over rest, dm."""
        return (self.gate * (self.deviation @ self.opening_effect)).astype(np.float32)


class AudioToMotion:
    """Predicts how far the mouth is from rest while these words are said.

    Args:
        checkpoint_dir: the audio → motion checkpoint.
        whisper_file: weights of the speech encoder.
        face_model_version: version of the face model whose coefficients are wanted.
        device: where the networks run.

    Raises:
        CheckpointError: the checkpoint is missing, corrupt, or for another face model or encoder.
        ModelFileError: the speech encoder or the speech detector is missing or corrupt.
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
        wanted = str(checkpoint.extra.get("extractor"))
        self._encoder = _encoder_for(wanted, whisper_file, device)
        if self._encoder.stands_for != wanted:
            raise CheckpointError(
                f"{checkpoint_dir}: wants {wanted!r} features, this version makes "
                f"{self._encoder.stands_for!r}; train it again with scripts/train_audio2motion.sh"
            )
        self._model = _build_model(checkpoint).to(device)
        self._version = face_model_version
        self._device = torch.device(device)
        self._detector = SpeechDetector(SPEECH_DETECTOR_FILE)

    @property
    def columns(self) -> NDArray[np.int64]:
        """Columns of the units that are predicted, among the face model's coefficients."""
        return self._model.columns.cpu().numpy()

    def predict(
        self,
        clip: AudioClip,
        *,
        temperature: float = 0.0,
        mouth_amp: float = 1.0,
        generator: torch.Generator | None = None,
        silence: SilenceMode = "fade",
        person: PersonMotion | None = None,
    ) -> MotionSequence:
        """Motion at 50 Hz as **deviations from this person's mouth at rest**.

        The expression to render is ``rest_of_person + motion`` (``modules.audio2motion.motion_space``); units that
        speech does not drive are 0, and so is everything in silence, reached by a smooth fade of 0.16 s.

        Args:
            clip: 16 kHz mono.
            temperature: 0 averages the model's members; above 0 weighs them at random and draws from those that have
                a distribution, for variety between takes.
            mouth_amp: factor on the deviation; 1 opens the lips as far as people do, or as far as ``person`` does.
            generator: source of that randomness; needed when ``temperature`` > 0.
            silence: 'keep' leaves the model's own answer to silence (breath, lips held open) in a clip that holds
                speech; the others bring the mouth to rest.
            person: how a person differs from the general prediction; None = not at all.

        Returns:
            one row per 20 ms of sound, ``is_speech`` holding the soft gate and ``opening`` the lip opening over rest.

        Raises:
            ValueError: a number is out of range, or ``person`` belongs to another model.
        """
        if mouth_amp < 0 or temperature < 0:
            raise ValueError(f"mouth_amp and temperature must not be negative, got {mouth_amp} and {temperature}")
        self._check(person)
        take = Take.draw(self._model.n_members, temperature, generator)
        speech = prepare_speech(clip, self._detector)
        for sentence in speech.warnings:
            logger.warning("driving sound: %s", sentence)
        gate = speech_envelope(speech.is_speech, RATE_HZ, release_s=RELEASE_S)
        if not gate.any():
            return self._motion(np.zeros((len(gate), self._model.n_expression), np.float32), gate)
        deviation = self._deviation(self._encoder.extract_windows(speech.clip), take, person)
        shown = deviation if silence == "keep" else gate[:, None] * deviation
        return self._motion(mouth_amp * shown, gate)

    def hear(self, clip: AudioClip) -> HeardSpeech:
        """What a person is learnt from: the general motion and the features of a clip of a few minutes at most."""
        speech = prepare_speech(clip, self._detector)
        features = self._encoder.extract(speech.clip).values
        return HeardSpeech(
            deviation=self._deviation(((0, features),), None, None),
            features=features,
            is_speech=speech.is_speech,
            gate=speech_envelope(speech.is_speech, RATE_HZ, release_s=RELEASE_S),
            rate_hz=float(RATE_HZ),
            extractor=self._encoder.stands_for,
            opening_effect=self._model.opening_effect.cpu().numpy(),
        )

    def _check(self, person: PersonMotion | None) -> None:
        if person is not None and (person.face_model_version, person.extractor) != (
            self._version,
            self._encoder.stands_for,
        ):
            raise ValueError(
                f"a person of {person.face_model_version} and {person.extractor} cannot be put on motion of "
                f"{self._version} and {self._encoder.stands_for}"
            )

    @torch.inference_mode()
    def _deviation(
        self,
        windows: Iterable[tuple[int, NDArray[np.float32]]],
        take: Take | None,
        person: PersonMotion | None,
    ) -> NDArray[np.float32]:
        """``[T, E]``; window by window and chunk by chunk, so that long sound needs little memory.

        Args:
            windows: features, see ``WhisperEncoder.extract_windows``.
            take: of the members; None = their mean.
            person: see ``predict``.
        """
        reduced: list[NDArray[np.float32]] = []

        def components() -> Iterator[torch.Tensor]:
            for _, rows in windows:
                if person is not None:
                    reduced.append(person.reducer(rows))
                yield self._model.projection(torch.from_numpy(rows).to(self._device))

        def answer(rows: torch.Tensor, first: int) -> torch.Tensor:
            return self._model.stretched(self._model.unit_deviations(rows[None], take, first))[0]

        deviation = torch.cat(list(answer_in_chunks(components(), answer))).cpu().numpy()
        return deviation if person is None else person(deviation, np.concatenate(reduced))

    def _motion(self, expression: NDArray[np.float32], gate: NDArray[np.float32]) -> MotionSequence:
        effect = self._model.opening_effect.cpu().numpy()
        return MotionSequence(
            expression=expression.astype(np.float32),
            is_speech=gate,
            rate_hz=float(RATE_HZ),
            face_model_version=self._version,
            opening=(expression @ effect).astype(np.float32),
        )


def _encoder_for(features: str, whisper_file: Path, device: torch.device | str) -> WhisperEncoder:
    """The encoder that makes the features a checkpoint names: the embedded one, or one that the user has fetched."""
    name = features.split("/", 1)[0]
    return WhisperEncoder(encoder_file(name) if name in _FETCHED_ENCODERS else whisper_file, device)


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
