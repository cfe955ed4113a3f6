"""Learn how one person speaks from a clip of theirs, and find out whether that helps on seconds it did not see.

Everything is solved in closed form, in a second or two on one core: the general prediction is rescaled unit by unit
(each scale drawn towards a common one), and ridge regression from the person's own, standardised features explains
what is left. Reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from modules.audio2motion.motion_space import rest_expression
from modules.face_model.model import FaceModel
from modules.metrics.synchrony import speech_lag
from modules.postnet.person_motion import FeatureReducer, PersonMotion, neighbours
from modules.structures.evaluation import SpeechTrack
from tasks.audio2motion.losses import lip_effect, opening_effect

_LEAST_STD = 1e-3
"""Of a feature: one that hardly moves in this person's speech must not be blown up."""


@dataclass(frozen=True, slots=True)
class AdaptationConfig:
    """How a person is learnt; chosen on 28 clips, first half to second half, with models that never saw the speaker.

    Attributes:
        least_r: correlation of lips and sound below which the sound is not that of this mouth.
        least_z: where a clip is too short to tell the lag, by how many standard deviations lips and sound must agree
            better, as filmed, than lips and unrelated speech.
        least_speech_s: seconds of seen speech below which nothing is learnt.
        blocks: parts that are left out in turn; fewer where they would be shorter than ``block_s``.
        block_s: see ``blocks``. margin_s: rows this near a part that is left out are left out too.
        least_gain: adapting must lower the lips' error by this share of what the person's mean lips err.
        least_share: and lower it in this share of the parts.
        scale_prior: weight of the common scale, in units of a mean unit's power.
        rank: directions of the features. reach, step: taps of the filter and the rows between them.
        penalty: of the filter, in rows: as if that many rows said that nothing is to be added.
        spread_target: spread of the lip opening, over the true one, after stretching.
    """

    least_r: float = 0.5
    least_z: float = 3.0
    least_speech_s: float = 2.0
    blocks: int = 6
    block_s: float = 1.0
    margin_s: float = 0.2
    least_gain: float = 0.05
    least_share: float = 0.6
    scale_prior: float = 2.0
    rank: int = 32
    reach: int = 3
    step: int = 2
    penalty: float = 30.0
    spread_target: float = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class PersonSample:
    """A person heard and seen at once, row by row at ``rate_hz``.

    Attributes:
        general: ``[T, E]`` the general model's deviation from rest, in natural size and before any gate.
        features: ``[T, C]`` of the sound.
        gate: ``[T]`` 0..1, the soft gate of speech. is_speech: bool ``[T]``.
        expression: ``[T, E]`` fitted. opening: ``[T]`` tracked lip opening. valid: bool ``[T]`` a face was seen.
        rate_hz: rows per second. extractor: of the features.
        rest: ``[E]`` mouth at rest that the person's motion is put on in use; None = found in the rows learnt from.
    """

    general: NDArray[np.float32]
    features: NDArray[np.float32]
    gate: NDArray[np.float32]
    is_speech: NDArray[np.bool_]
    expression: NDArray[np.float32]
    opening: NDArray[np.float32]
    valid: NDArray[np.bool_]
    rate_hz: float
    extractor: str
    rest: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        counts = {len(a) for a in (self.general, self.features, self.gate, self.is_speech, self.expression)}
        if counts | {len(self.opening), len(self.valid)} != {len(self.valid)}:
            raise ValueError(f"rows of a sample disagree: {sorted(counts)} and {len(self.valid)}")

    def __len__(self) -> int:
        return len(self.valid)

    def part(self, rows: slice) -> PersonSample:
        """Some of the rows."""
        names = ("general", "features", "gate", "is_speech", "expression", "opening", "valid")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Mean error of the 40 lip points on rows that were left out, mm.

    Attributes:
        mean_lips: of this person's mean lips, which never move. general, adapted: of the two predictions.
        better: share of the parts in which adapting helped.
    """

    mean_lips: float
    general: float
    adapted: float
    better: float

    @property
    def gain(self) -> float:
        """By how much adapting lowers the error, over that of the mean lips."""
        return (self.general - self.adapted) / max(self.mean_lips, 1e-9)


@dataclass(frozen=True, slots=True, eq=False)
class Adaptation:
    """What came of it.

    Attributes:
        person: None = the general model is used as it is. reason: one sentence, why (or why not).
        held_out: None where it did not come to that.
    """

    person: PersonMotion | None
    reason: str
    held_out: HeldOut | None = None


class PersonFitter:
    """Fits ``PersonMotion`` for one face model.

    Args:
        face_model: this person's (corrected) model.
        columns: int64 ``[U]`` of the units to adapt.
        config: see ``AdaptationConfig``.

    Attributes:
        opening_effect: ``[U]`` lip opening, dm, that one of these units adds.
    """

    def __init__(
        self, face_model: FaceModel, columns: NDArray[np.int64], config: AdaptationConfig | None = None
    ) -> None:
        self.config = config or AdaptationConfig()
        self._columns = columns
        self._version = face_model.version
        self._lips = lip_effect(face_model, torch.from_numpy(columns)).contour.double().numpy()
        self.opening_effect = opening_effect(face_model).numpy()[columns].astype(np.float32)

    def fit(
        self, sample: PersonSample, use: NDArray[np.bool_], rest: NDArray[np.float32] | None = None
    ) -> tuple[PersonMotion, NDArray[np.float32]]:
        """Learn from the rows ``use [T]``.

        Args:
            sample: the person.
            use: bool ``[T]``.
            rest: ``[E]`` mouth at rest; None = found in those rows.

        Returns:
            The person, and the mouth at rest that its motion is counted from.

        Raises:
            ValueError: no row of them holds speech and a face.
        """
        seen = use & sample.valid
        spoken = seen & sample.is_speech
        if not spoken.any():
            raise ValueError("no row holds both speech and a face")
        if rest is None:
            rest = rest_expression(sample.expression[seen], sample.opening[seen])
        general = sample.general[:, self._columns].astype(np.float64)
        truth = (sample.expression - rest)[:, self._columns].astype(np.float64)
        general_mean, own_mean = general[spoken].mean(axis=0), truth[spoken].mean(axis=0)
        scale = self._scales(general[spoken] - general_mean, truth[spoken] - own_mean)
        missing = truth[spoken] - own_mean - scale * (general[spoken] - general_mean)
        reducer = _reducer(sample.features[seen], self.config.rank)
        taps, bias = self._filter(reducer(sample.features), spoken, missing)
        person = PersonMotion(
            columns=self._columns,
            general_mean=general_mean.astype(np.float32),
            own_mean=own_mean.astype(np.float32),
            scale=scale.astype(np.float32),
            reducer=reducer,
            taps=taps,
            bias=bias,
            step=self.config.step,
            gain=1.0,
            opening_effect=self.opening_effect,
            opening_floor=float(np.quantile(truth[seen] @ self.opening_effect, 0.03)),
            face_model_version=self._version,
            extractor=sample.extractor,
        )
        return replace(person, gain=self._gain(person, sample, seen, truth)), rest

    def lip_error_mm(self, deviation: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
        """Mean distance ``[T]`` of the 40 lip points between two deviations ``[T, E]``."""
        apart = (deviation - truth)[:, self._columns].astype(np.float64) @ self._lips
        return 100 * np.linalg.norm(apart.reshape(len(apart), -1, 3), axis=2).mean(axis=1)

    def _scales(self, general: NDArray[np.float64], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least-squares scale of each unit, drawn towards the one that is best for all of them."""
        power, shared = (general**2).sum(axis=0), (general * truth).sum(axis=0)
        common = float(np.clip(shared.sum() / max(power.sum(), 1e-12), 0.1, 3.0))
        prior = self.config.scale_prior * max(power.mean(), 1e-12)
        return np.clip((shared + prior * common) / (power + prior), 0.0, 3.0)

    def _filter(
        self, reduced: NDArray[np.float32], rows: NDArray[np.bool_], missing: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Ridge regression of ``missing`` on neighbouring rows: taps and bias."""
        windows = neighbours(reduced, self.config.reach, self.config.step)[rows].astype(np.float64)
        flat = windows.reshape(len(windows), -1)
        mean = flat.mean(axis=0)
        centred = flat - mean
        gram = centred.T @ centred
        strength = self.config.penalty * float(np.trace(gram)) / max(len(flat), 1) + 1e-9
        kernel = np.linalg.solve(gram + strength * np.eye(len(gram)), centred.T @ missing)
        taps = kernel.reshape(windows.shape[1], windows.shape[2], -1)
        return taps.astype(np.float32), (-mean @ kernel).astype(np.float32)

    def _gain(
        self, person: PersonMotion, sample: PersonSample, seen: NDArray[np.bool_], truth: NDArray[np.float64]
    ) -> float:
        """Stretch with which the gated lips open as widely as the true ones."""
        units = person.unstretched(sample.general[:, self._columns], person.reducer(sample.features))
        gated = ((sample.gate[:, None] * units)[seen] @ self.opening_effect).std()
        wanted = self.config.spread_target * (truth[seen] @ self.opening_effect).std()
        return float(np.clip(wanted / max(float(gated), 1e-6), 0.5, 3.0))


def adapt(
    sample: PersonSample, face_model: FaceModel, columns: NDArray[np.int64], config: AdaptationConfig | None = None
) -> Adaptation:
    """Learn a person, and keep what was learnt only if it helps on seconds of the clip that were left out.

    Args:
        sample: the clip, sound and mouth in sync.
        face_model: this person's.
        columns: int64 ``[U]`` of the units to adapt.
        config: see ``AdaptationConfig``.
    """
    config = config or AdaptationConfig()
    spoken_s = float((sample.valid & sample.is_speech).sum()) / sample.rate_hz
    if spoken_s < config.least_speech_s:
        return Adaptation(
            None, f"only {spoken_s:.1f} s of speech with a face in sight; {config.least_speech_s:g} s are needed"
        )
    fitter = PersonFitter(face_model, columns, config)
    held_out = measure_held_out(fitter, sample)
    figures = (
        f"on seconds left out the lips err by {held_out.adapted:.2f} mm with it and {held_out.general:.2f} mm without"
    )
    if held_out.gain < config.least_gain or held_out.better < config.least_share:
        return Adaptation(None, f"adapting does not help: {figures}", held_out)
    person, _ = fitter.fit(sample, np.ones(len(sample), bool), sample.rest)
    return Adaptation(person, figures, held_out)


def fit_always(
    sample: PersonSample, face_model: FaceModel, columns: NDArray[np.int64], config: AdaptationConfig | None = None
) -> Adaptation:
    """As ``adapt``, but kept whether it helps or not (``--adapt on``)."""
    judged = adapt(sample, face_model, columns, config)
    if judged.person is not None or not (sample.valid & sample.is_speech).any():
        return judged
    person, _ = PersonFitter(face_model, columns, config).fit(sample, np.ones(len(sample), bool), sample.rest)
    return Adaptation(person, judged.reason, judged.held_out)


def measure_held_out(fitter: PersonFitter, sample: PersonSample) -> HeldOut:
    """Leave out parts of the clip in turn, learn from the rest and predict them."""
    parts = _parts(sample, fitter.config)
    margin = round(fitter.config.margin_s * sample.rate_hz)
    rows = np.arange(len(sample))
    errors: list[NDArray[np.float64]] = []
    for first, stop in parts:
        near = (rows >= first - margin) & (rows < stop + margin)
        person, rest = fitter.fit(sample, ~near)
        seen = (rows >= first) & (rows < stop) & sample.valid
        learnt = ~near & sample.valid
        truth = sample.expression - rest
        gate = sample.gate[:, None]
        adapted = gate * person(sample.general, person.reducer(sample.features))
        predictions = (truth[learnt].mean(axis=0)[None], gate * sample.general, adapted)
        errors.append(
            np.stack([fitter.lip_error_mm((p if len(p) == 1 else p[seen]), truth[seen]) for p in predictions])
        )
    means = np.concatenate(errors, axis=1).mean(axis=1)
    better = float(np.mean([part[2].mean() < part[1].mean() for part in errors]))
    return HeldOut(float(means[0]), float(means[1]), float(means[2]), better)


def measure_agreement(
    sample: PersonSample, speech: SpeechTrack, rng: np.random.Generator, config: AdaptationConfig | None = None
) -> tuple[float, str]:
    """Whether lips and sound belong together, and by how much the mouth is late.

    Args:
        sample: lips and sound on one clock, as filmed.
        speech: the same sound; its ``opening`` is the general model's.
        rng: of the test.
        config: see ``AdaptationConfig``.

    Returns:
        Seconds by which the mouth is late, and why the sound is not that of this mouth; '' when it is.
    """
    config = config or AdaptationConfig()
    times_s = (np.arange(len(sample), dtype=np.float64) + 0.5) / sample.rate_hz
    opening = np.where(sample.valid, sample.opening, np.nan)
    lag = speech_lag(opening, times_s, np.zeros(len(sample), np.int64), speech, rng)
    if lag.is_significant and lag.r >= config.least_r:
        return lag.value_ms / 1000, ""
    if np.isfinite(lag.r) and lag.r_in_sync >= config.least_r and lag.z >= config.least_z:
        return 0.0, ""
    note = lag.note.removeprefix("undetermined: ")
    if not np.isfinite(lag.r):
        return 0.0, f"the clip's own sound cannot be compared with its mouth ({note})"
    why = f" ({note})" if note else ""
    return 0.0, f"the clip's own sound does not match its mouth: at best they agree at r {lag.r:.2f}{why}"


def _parts(sample: PersonSample, config: AdaptationConfig) -> list[tuple[int, int]]:
    """Row ranges with about the same amount of seen speech."""
    spoken = np.flatnonzero(sample.valid & sample.is_speech)
    count = int(np.clip(len(spoken) / sample.rate_hz / config.block_s, 2, config.blocks))
    edges = [0, *(int(spoken[round(len(spoken) * k / count)]) for k in range(1, count)), len(sample)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _reducer(features: NDArray[np.float32], rank: int) -> FeatureReducer:
    """Standardise ``[N, C]`` and find its main directions, scaled to a mean square of 1."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = np.maximum(features.std(axis=0, dtype=np.float64), _LEAST_STD)
    rows = (features - mean) / scale
    power, directions = np.linalg.eigh(rows.T @ rows / len(rows))
    power, directions = power[::-1][:rank], directions[:, ::-1][:, :rank]
    size = np.sqrt(max(float(power.clip(0).mean()), 1e-12))
    return FeatureReducer(*(array.astype(np.float32) for array in (mean, scale, directions / size)))
