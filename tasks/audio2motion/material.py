"""What a training learns from: targets and weights of clips, in memory or read from disk as they are drawn."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modules.audio2motion.model import Audio2Motion
from modules.audio2motion.motion_space import columns_of
from modules.face_model.fitting import FittableModel
from modules.structures.speech_motion import SpeechMotionClip
from tasks.audio2motion.configs import AudioToMotionTaskConfig
from tasks.audio2motion.dataset_utils import MIN_ROWS, TrainingClip, prepare
from tasks.audio2motion.losses import LipEffect, lip_effect
from tasks.audio2motion.sampling import ClipRows, ClipSource, ResidentClips, StoredClips

CLOSED_SHARE = 0.1
"""Lips count as closed below this share of the 95th percentile of the clip's opening."""


@dataclass(frozen=True, slots=True, eq=False)
class MotionNorm:
    """Gives every clip the same mean and spread of each unit.

    How lively a speaker is and how a fit explains the mouth at rest cannot be heard; left in, both are noise that costs
    0.04 of the correlation of mouth width. Units that hardly move in a clip are stretched by 2.5 at most.

    Attributes:
        center: ``[U]`` mean over clips. typical: ``[U]`` median over clips of the spread.
    """

    center: Tensor
    typical: Tensor

    @classmethod
    def of(cls, deviations: Sequence[Tensor]) -> MotionNorm:
        """Of clips' deviations ``[T, U]``."""
        means = torch.stack([d.mean(dim=0) for d in deviations])
        spreads = torch.stack([d.std(dim=0) for d in deviations])
        return cls(means.mean(dim=0), spreads.median(dim=0).values)

    def apply(self, deviation: Tensor) -> Tensor:
        """``[T, U]`` to the same."""
        scale = (self.typical / deviation.std(dim=0).clamp_min(1e-4)).clamp(0.3, 2.5)
        return (deviation - deviation.mean(dim=0)) * scale + self.center


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """Clips as tensors, and what the units do.

    Attributes:
        clips: in the order of the lists. columns: ``[U]`` of the face model's coefficients. effect: on the lips.
        targets: ``[T, U]`` each. weights: ``[T]`` each. closed_below: opening, dm, under which lips count as closed.
        n_expression: coefficients of the face model.
        norm: what targets went through; None for plain deviations.
        stored: files of clips that are read as they are drawn; then ``clips`` are the probe that statistics come from.
    """

    clips: Sequence[TrainingClip]
    columns: Tensor
    effect: LipEffect
    targets: list[Tensor]
    weights: list[Tensor]
    closed_below: list[float]
    n_expression: int
    norm: MotionNorm | None = None
    stored: Sequence[Path] = field(default=())

    def fingerprint(self) -> str:
        """Hash that changes with the clips' targets and weights, and with the files."""
        digest = hashlib.sha256()
        for clip, targets, weights in zip(self.clips, self.targets, self.weights, strict=True):
            digest.update(clip.clip.name.encode() + targets.numpy().tobytes() + weights.numpy().tobytes())
        for file in self.stored:
            digest.update(f"{file.name}:{file.stat().st_size}".encode())
        return digest.hexdigest()


def make_material(
    clips: Sequence[TrainingClip],
    face_model: FittableModel,
    config: AudioToMotionTaskConfig,
    stored: Sequence[Path] = (),
) -> Material:
    """Targets and weights of clips (of the probe, where ``stored`` files are read as they are drawn)."""
    columns = torch.from_numpy(columns_of(face_model.expression_names, config.model.units))
    effect = lip_effect(face_model, columns)
    deviations = [torch.from_numpy(clip.deviation(columns.numpy())) for clip in clips]
    norm = MotionNorm.of(deviations) if config.loss.relative_motion else None
    targets = [norm.apply(d) for d in deviations] if norm else deviations
    typical = float(np.median([len(clip) for clip in clips]))
    return Material(
        clips,
        columns,
        effect,
        targets,
        [row_weights(clip, config, typical) for clip in clips],
        [closure_border(clip, target, effect.opening) for clip, target in zip(clips, targets, strict=True)],
        len(face_model.expression_names),
        norm,
        stored,
    )


def row_weights(clip: TrainingClip, config: AudioToMotionTaskConfig, typical_rows: float) -> Tensor:
    """``[T]``: 0 without a face, less in silence, and less per row in long clips."""
    speech = np.where(clip.clip.is_speech, 1.0, config.loss.silence_weight)
    share = (typical_rows / len(clip)) ** config.loss.clip_length_power
    return torch.from_numpy((share * speech * clip.clip.valid).astype(np.float32))


def closure_border(clip: TrainingClip, targets: Tensor, opening_effect: Tensor) -> float:
    """The target's opening, dm, that stands for a tracked opening of a tenth of the clip's own 95th percentile.

    Targets may be shifted and scaled against what was tracked; a straight line through both finds the border.

    Returns:
        -inf where the lips hardly move or the two do not go together.
    """
    seen = clip.clip.valid & np.isfinite(clip.clip.opening)
    tracked, opening = clip.clip.opening[seen].astype(np.float64), (targets @ opening_effect).numpy()[seen]
    if len(tracked) < MIN_ROWS or tracked.std() < 1e-6:
        return -math.inf
    slope, offset = np.polyfit(tracked, opening, 1)
    border = CLOSED_SHARE * float(np.quantile(tracked, 0.95))
    return float(slope * border + offset) if slope > 0 else -math.inf


@torch.no_grad()
def project_clips(model: Audio2Motion, material: Material) -> list[Tensor]:
    """Components ``[K, T, C]`` of every clip, on the CPU."""
    return [project_clip(model, clip) for clip in material.clips]


@torch.no_grad()
def project_clip(model: Audio2Motion, clip: TrainingClip) -> Tensor:
    """Components ``[K, T, C]`` of all renderings of one clip, on the CPU."""
    device = model.projection.mean.device
    return model.projection(torch.from_numpy(clip.clip.features.astype(np.float32)).to(device)).cpu()


def clip_source(model: Audio2Motion, material: Material, config: AudioToMotionTaskConfig, rank: int = 0) -> ClipSource:
    """Clips to draw windows from: those in memory, or the stored files (others in each process)."""
    if not material.stored:
        parts = zip(
            project_clips(model, material), material.targets, material.weights, material.closed_below, strict=True
        )
        return ResidentClips([ClipRows(*part) for part in parts])
    typical = float(np.median([len(clip) for clip in material.clips]))

    def read(file: Path) -> ClipRows | None:
        raw = SpeechMotionClip.load(file)
        if raw.valid.sum() < MIN_ROWS:
            return None
        clip = prepare(raw)
        targets = torch.from_numpy(clip.deviation(material.columns.numpy()))
        targets = material.norm.apply(targets) if material.norm else targets
        border = closure_border(clip, targets, material.effect.opening)
        return ClipRows(project_clip(model, clip), targets, row_weights(clip, config, typical), border)

    corpus = config.corpus
    return StoredClips(material.stored, read, corpus.resident_clips, corpus.refresh_clips, (config.seed, rank))
