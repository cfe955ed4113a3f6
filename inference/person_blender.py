"""The learned blender of one person: trained when blend mode ``neural`` is first asked for, then kept beside them.

Reads: frames of the video. Writes: ``<person's checkpoint>/blender/``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.face_compositor import RINGS
from inference.jobs import EditOptions
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import PreparedSource
from modules.commons.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint
from modules.commons.errors import CheckpointError, OutputError, VideoReadError
from modules.commons.hashing import file_sha256
from modules.commons.progress import Progress
from modules.face_model.model import Region
from modules.structures.dataset import last_eleventh
from modules.structures.frames import Frame
from modules.video.colour import rgb_float_from_planes
from modules.video.frame_range import frames_at
from modules.video.linear_light import LightCurve
from modules.video.neural_blend import BlendNetwork, BlendPair, NeuralBlender
from modules.video.reader import VideoReader
from tasks.blending import BlendTraining, train_blender

logger = logging.getLogger(__name__)

FOLDER = "blender"
"""In the person's checkpoint: a person trained anew loses it."""
SEED = 0
RING = RINGS["neural"]


@dataclass(frozen=True, slots=True)
class BlenderConfig:
    """How a person's blender is made.

    Attributes:
        pairs: frames that it learns from, evenly over the clip.
        training: see ``BlendTraining``.
    """

    pairs: int = 24
    training: BlendTraining = field(default_factory=BlendTraining)


def blender_for(
    options: EditOptions, source: PreparedSource, checkpoint: Path, renderer: IdentityRenderer, progress: Progress,
    rows: NDArray[np.int64] | None = None, config: BlenderConfig | None = None,
) -> NeuralBlender | None:  # fmt: skip
    """The person's blender, trained where there is none yet; None for the other blend modes.

    Args:
        options: how frames are repainted.
        source: the person's clip.
        checkpoint: of the person, whom ``renderer`` renders.
        renderer: see there.
        progress: told about frames and steps.
        rows: clip rows that it may learn from; None = all but the last eleventh, which no person has seen.
        config: how it is made; None = as usual.

    Raises:
        VideoReadError: no frame shows a face to learn from.
    """
    if options.blend_mode != "neural":
        return None
    config, light = config or BlenderConfig(), LightCurve.of(source.info.color_tags[1])
    allowed = np.flatnonzero(last_eleventh(len(source)).is_train) if rows is None else rows
    chosen = _learnable(source, allowed, config.pairs)
    made_from = _inputs(source, checkpoint, options.region, chosen, light)
    network = _kept(checkpoint / FOLDER, made_from, config)
    if network is None:
        pairs = _pairs(source, renderer, options.region, chosen, progress)
        generator = torch.Generator().manual_seed(SEED)
        device = renderer.person.device
        network = _taught(pairs, generator, device, config, light, source.video, progress)
        _keep(checkpoint / FOLDER, network, made_from, config)
    return NeuralBlender(network.to(renderer.person.device), RING, light)


def _taught(
    pairs: Sequence[BlendPair], generator: torch.Generator, device: torch.device, config: BlenderConfig,
    light: LightCurve, video: Path, progress: Progress,
) -> BlendNetwork:  # fmt: skip
    try:
        return train_blender(
            pairs, generator, device, training=config.training, ring=RING, light=light, progress=progress
        )
    except ValueError as error:
        raise VideoReadError(
            f"{video}: no frame shows enough skin to learn colours from; use another --blend_mode"
        ) from error


def _learnable(source: PreparedSource, rows: NDArray[np.int64], count: int) -> list[int]:
    """At most ``count`` of ``rows`` that show an uncovered face, evenly apart.

    Raises:
        VideoReadError: there is none.
    """
    reasons = source.evidence.reasons()
    usable = [int(row) for row in rows if reasons[int(row)] == "edited"]
    if not usable:
        raise VideoReadError(f"{source.video}: no frame shows a face to learn colours from; use another --blend_mode")
    return [usable[k] for k in np.unique(np.linspace(0, len(usable) - 1, count).astype(int))]


def _pairs(
    source: PreparedSource, renderer: IdentityRenderer, region: Region, rows: Sequence[int], progress: Progress
) -> list[BlendPair]:
    """Frames beside the renderings of their own motion."""
    conditions = renderer.conditions(source.coeffs.expression)
    found: list[BlendPair] = []
    with VideoReader(source.video) as reader:
        for done, frame in enumerate(frames_at(reader, set(rows))):
            found.append(_pair(source, renderer, region, conditions[frame.index], frame))
            progress("blender: frames", done + 1, len(rows))
    return found


def _pair(
    source: PreparedSource, renderer: IdentityRenderer, region: Region, condition: torch.Tensor, frame: Frame
) -> BlendPair:
    coeffs, row = source.coeffs, frame.index
    patch = renderer.render_patch(
        coeffs.identity, coeffs.expression[row], coeffs.euler[row], coeffs.translation[row], coeffs.camera, condition,
        source_expression=coeffs.expression[row], region=region,
    )  # fmt: skip
    rgb, alpha = (np.ascontiguousarray(image, np.float32) for image in (patch.rgb, patch.alpha))
    return BlendPair(rgb_float_from_planes(frame, patch.bounds), rgb, alpha)


def _inputs(source: PreparedSource, checkpoint: Path, region: Region, rows: Sequence[int], light: LightCurve) -> str:
    """All that a blender depends on beside its configuration, as text."""
    person = file_sha256(checkpoint / "checkpoint.json")
    inputs = {"person": person, "video": source.sha256, "region": region, "rows": list(rows), "light": asdict(light)}
    return json.dumps({**inputs, "seed": SEED}, sort_keys=True)


def _kept(folder: Path, made_from: str, config: BlenderConfig) -> BlendNetwork | None:
    """The blender that was made of the same inputs; None where there is none that can be used."""
    if not is_checkpoint(folder):
        return None
    try:
        kept = load_checkpoint(folder, parts=("model",))
        if kept.extra.get("made_from") != made_from or kept.config(BlenderConfig) != config:
            return None
        network = BlendNetwork()
        network.load_state_dict(kept.model)
    except (CheckpointError, RuntimeError) as error:
        logger.warning("%s cannot be used (%s); the blender is trained anew", folder, error)
        return None
    return network.eval()


def _keep(folder: Path, network: BlendNetwork, made_from: str, config: BlenderConfig) -> None:
    """Put the blender beside its person; a person's folder that cannot be written only means training it again."""
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    try:
        save_checkpoint(folder, {"model": weights}, config, config.training.steps, {"made_from": made_from})
    except OutputError as error:
        logger.warning("%s; the blender is not kept", error)
