"""Teach ``modules.video.neural_blend`` one person's light: renders of their own frames, with seams made up on them.

Every pair of a frame and the render of its own motion gives the right answer, because they show the same content: the
field that ``colour_match`` finds when it may compare all of the region. The network sees the source in the ring only.
Made-up casts, gradients and exposures on the patch, and pieces of ring that tell nothing (a shifted, blurred or
darkened piece of source), are what it has to learn to undo and to leave out.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from modules.commons.progress import Progress, silent
from modules.video.colour_match import FIELD_SIZE, MAX_LOG_GAIN, WHOLE, RingConfig, apply_field, estimate_field
from modules.video.linear_light import BT709, LightCurve
from modules.video.neural_blend import BlendNetwork, BlendPair, network_input

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class BlendTraining:
    """How a blender is taught.

    Attributes:
        steps: of the optimiser. batch: examples in each.
        examples: made up once, from the pairs in turn.
        lr: of Adam at the start; it falls to 0 along a cosine.
        cast: standard deviation of made-up log gains on light.
        spoilt: share of examples whose ring has spoilt pieces.
    """

    steps: int = 600
    batch: int = 32
    examples: int = 1024
    lr: float = 3e-3
    cast: float = 0.15
    spoilt: float = 0.7

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.examples) < 1 or self.lr <= 0:
            raise ValueError(f"steps, batch, examples and lr must be above 0, got {self}")


def train_blender(
    pairs: Sequence[BlendPair],
    generator: torch.Generator,
    device: torch.device,
    *,
    training: BlendTraining | None = None,
    ring: RingConfig | None = None,
    light: LightCurve = BT709,
    progress: Progress = silent,
) -> BlendNetwork:
    """A blender of one person.

    Args:
        pairs: of frames the person was trained on.
        generator: of the made-up seams and of the first weights.
        device: to train on.
        training: see ``BlendTraining``; None = its defaults.
        ring: which pixels of the source may be seen.
        light: what coded values mean.
        progress: told about the steps.

    Raises:
        ValueError: there is no pair whose colours can be compared.
    """
    training, ring = training or BlendTraining(), ring or RingConfig()
    rng = np.random.default_rng(int(torch.randint(2**31, (1,), generator=generator)))
    inputs, targets, weights = (
        torch.from_numpy(array).to(device) for array in _examples(pairs, rng, training, ring, light)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        network = BlendNetwork().to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=training.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.steps)
    for step in range(training.steps):
        rows = torch.randint(len(inputs), (training.batch,), generator=generator).to(device)
        error = (network(inputs[rows]) - targets[rows]).abs() * weights[rows][:, None]
        loss = error.sum() / (3 * weights[rows].sum())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress("blender: training", step + 1, training.steps)
        if step % 100 == 0:
            logger.debug("blender: step %d, error %.4f", step, loss.item())
    return network.eval()


def _examples(
    pairs: Sequence[BlendPair], rng: np.random.Generator, training: BlendTraining, ring: RingConfig, light: LightCurve
) -> tuple[Floats, Floats, Floats]:
    """Inputs ``[N, C, I, I]``, right fields ``[N, 3, S, S]`` and where they count ``[N, S, S]``."""
    truths = [(pair, estimate_field(pair.source, pair.render, pair.alpha, _ones(pair), WHOLE, light)) for pair in pairs]
    usable = [(pair, truth) for pair, truth in truths if truth is not None]
    made: list[tuple[Floats, Floats, Floats]] = []
    for number in range(training.examples if usable else 0):
        pair, truth = usable[number % len(usable)]
        cast = _smooth_cast(rng, training.cast)
        patch = apply_field(pair.render, -cast, light)
        source = _spoilt(pair, rng) if rng.random() < training.spoilt else pair.source
        found = network_input(source, patch, pair.alpha, _ones(pair), ring, light)
        if found is not None:
            target = np.clip(truth + cast, -MAX_LOG_GAIN, MAX_LOG_GAIN).transpose(2, 0, 1)
            counts = cv2.resize(pair.alpha, (FIELD_SIZE, FIELD_SIZE), interpolation=cv2.INTER_AREA)
            made.append((found, np.asarray(target, np.float32), np.asarray(counts, np.float32)))
    if not made:
        raise ValueError("no pair of frame and render can be compared: their alphas have no soft edge")
    inputs, targets, weights = (np.stack(arrays).astype(np.float32) for arrays in zip(*made, strict=True))
    return inputs, targets, weights


def _ones(pair: BlendPair) -> Floats:
    return np.ones_like(pair.alpha)


def _smooth_cast(rng: np.random.Generator, strength: float) -> Floats:
    """Log gains ``[S, S, 3]``: a level and a slope common to the colours, and a little of each colour's own."""
    y, x = np.mgrid[-1 : 1 : FIELD_SIZE * 1j, -1 : 1 : FIELD_SIZE * 1j]
    common = rng.normal() + 0.4 * (rng.normal() * x + rng.normal() * y)
    own = 0.3 * rng.normal(size=3)
    return (strength * (common[..., None] + own)).astype(np.float32)


def _spoilt(pair: BlendPair, rng: np.random.Generator) -> Floats:
    """The source with one to three pieces of its ring shifted, blurred or darkened: they no longer tell the light."""
    source = pair.source.copy()
    width = pair.alpha.shape[1]
    rows, columns = np.nonzero((pair.alpha > 0.02) & (pair.alpha < 0.9))
    for _ in range(int(rng.integers(1, 4)) if len(rows) else 0):
        at = int(rng.integers(len(rows)))
        reach = max(int(rng.uniform(0.06, 0.2) * width), 2)
        part = (
            slice(max(int(rows[at]) - reach, 0), int(rows[at]) + reach),
            slice(max(int(columns[at]) - reach, 0), int(columns[at]) + reach),
        )
        kind = rng.integers(3)
        if kind == 0:
            source[part] = np.roll(pair.source, (reach, -reach), axis=(0, 1))[part]
        elif kind == 1:
            source[part] = cv2.GaussianBlur(pair.source, (0, 0), reach / 2)[part]
        else:
            source[part] *= np.float32(rng.uniform(0.2, 0.8))
    return source
