"""How good is a trained portrait? Held-out frames beside their renderings, and beside the nearest training frame.

Reads: a portrait's checkpoint, its clip's dataset and pictures. Writes: ``<data_root>/training/<video_id>/<name>/``
with ``evaluation/`` (scores.json, and strips source | rendered | difference | nearest training frame) or ``pictures/``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError
from modules.commons.progress import Progress
from modules.face_model.portrait_face import portrait_face
from modules.radnerfs.backends import get_backend
from modules.radnerfs.official import OfficialPortrait, load_portrait
from modules.radnerfs.official_dataset import load_portrait_dataset
from modules.radnerfs.portrait import Portrait, render_portrait
from modules.video.png import write_png
from tasks.radnerfs.losses import psnr
from tasks.radnerfs.portrait_data import PortraitClip, PortraitExample

log = logging.getLogger(__name__)

SCORED_FRAMES, PICTURES = 40, 8
DIFFERENCE_GAIN = 4
"""Differences are shown so much stronger, around grey."""


@dataclass(frozen=True, slots=True)
class PortraitScores:
    """Means over held-out frames, dB; of a head alone what is behind it is the filmed torso and the background.

    Attributes:
        kind: see ``Portrait.kind``. frames: how many were rendered.
        psnr: of whole pictures. psnr_face: in the hull of the 68 points. psnr_mouth: in the box around the lips.
        nearest_psnr, nearest_psnr_face, nearest_psnr_mouth: of the training frame whose points lie nearest, as it is.
    """

    kind: str
    frames: int
    psnr: float
    psnr_face: float
    psnr_mouth: float
    nearest_psnr: float
    nearest_psnr_face: float
    nearest_psnr_mouth: float


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPicture:
    """A held-out sample: pictures ``[3, S, S]`` 0..1, filmed, rendered and the nearest training frame."""

    index: int
    filmed: Tensor
    made: Tensor
    nearest: Tensor
    example: PortraitExample

    def decibels(self) -> tuple[float, ...]:
        """PSNR of the whole, the face and the mouth, of the rendering and then of the nearest frame."""
        side = self.filmed.shape[1]
        scale = side // round(len(self.example.on_face) ** 0.5)
        rays = side // scale
        face = self.example.on_face.view(rays, rays).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        left, right, top, bottom = (scale * edge for edge in self.example.lip_rect)
        box = (slice(None), slice(top, bottom), slice(left, right))
        values = []
        for shown in (self.made, self.nearest):
            parts = (shown, self.filmed), (shown[:, face], self.filmed[:, face]), (shown[box], self.filmed[box])
            values += [float(psnr(*part)) for part in parts]
        return tuple(values)

    def strip(self) -> NDArray[np.uint8]:
        """source | rendered | difference | nearest training frame, RGB ``[S, 4 S, 3]``."""
        difference = (0.5 + DIFFERENCE_GAIN * (self.made - self.filmed)).clamp(0, 1)
        side_by_side = torch.cat([self.filmed, self.made, difference, self.nearest], dim=2)
        return (side_by_side.permute(1, 2, 0) * 255).round().byte().cpu().numpy()


@torch.no_grad()
def held_out_pictures(portrait: Portrait, clip: PortraitClip, count: int) -> Iterator[HeldOutPicture]:
    """At most ``count`` held-out samples, evenly over them, rendered as new motion would be.

    Raises:
        CheckpointError: the clip has no held-out frame, or a picture is missing.
    """
    if not len(clip.held_out):
        raise CheckpointError(f"{clip.dataset.video_id} has no held-out frames; prepare a longer video")
    chosen = np.linspace(0, len(clip.held_out) - 1, min(count, len(clip.held_out))).round().astype(int)
    for index in clip.held_out[chosen].tolist():
        example = clip.example(index)
        behind = example.frame.background if portrait.torso is None else example.plate
        shown = replace(example.frame, background=behind, row=0)
        picture = render_portrait(portrait, example.rays, (clip.side, clip.side), shown)
        nearest = clip.example(clip.nearest_train(index)).full_target
        yield HeldOutPicture(index, example.full_target, picture.finest, nearest, example)


def score(portrait: Portrait, clip: PortraitClip, folder: Path | None, progress: Progress) -> PortraitScores:
    """Score held-out frames; with a folder scores.json and strips of some of them go there.

    Raises:
        CheckpointError: see ``held_out_pictures``.
    """
    total = min(SCORED_FRAMES, len(clip.held_out))
    stride = max(1, total // PICTURES)
    rows = []
    for done, picture in enumerate(held_out_pictures(portrait, clip, total)):
        rows.append(picture.decibels())
        if folder is not None and done % stride == 0:
            write_png(picture.strip(), folder / f"{picture.index:06d}.png")
        progress("validate", done + 1, total)
    scores = PortraitScores(portrait.kind, len(rows), *np.mean(rows, axis=0).tolist())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores.json").write_text(json.dumps(asdict(scores), indent=1))
    return scores


def evaluate_portrait(directory: Path, device: str, progress: Progress) -> PortraitScores:
    """Score a portrait's checkpoint on the held-out frames of its clip and log the figures.

    Raises:
        GeneFaceError: checkpoint, dataset or pictures are missing or wrong.
    """
    official, clip = open_portrait(directory, device)
    folder = _work_dir(official, directory) / "evaluation"
    scores = score(official.portrait, clip, folder, progress)
    for name, value in asdict(scores).items():
        log.info("%-20s %s", name, f"{value:.2f}" if isinstance(value, float) else value)
    log.info("pictures: %s", folder)
    return scores


def write_portrait_pictures(directory: Path, device: str, progress: Progress) -> None:
    """Write strips of held-out frames without scoring them.

    Raises:
        GeneFaceError: see ``evaluate_portrait``.
    """
    official, clip = open_portrait(directory, device)
    folder = _work_dir(official, directory) / "pictures"
    total = min(PICTURES, len(clip.held_out))
    for done, picture in enumerate(held_out_pictures(official.portrait, clip, total)):
        write_png(picture.strip(), folder / f"{picture.index:06d}.png")
        progress("render", done + 1, total)
    log.info("pictures: %s", folder)


def open_portrait(directory: Path, device_name: str) -> tuple[OfficialPortrait, PortraitClip]:
    """A portrait and the clip it was trained on.

    Raises:
        GeneFaceError: see ``evaluate_portrait``.
    """
    device = pick_device(device_name)
    official = load_portrait(directory, device, get_backend("auto", device))
    space = official.config.workspace
    dataset = load_portrait_dataset(space.binary)
    face = portrait_face(dataset)
    return official, PortraitClip(dataset, face, official.config.portrait, space.data_root.parent, device)


def _work_dir(official: OfficialPortrait, directory: Path) -> Path:
    return official.config.workspace.data_root / "training" / official.config.video_id / directory.name
