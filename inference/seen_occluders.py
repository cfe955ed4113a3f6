"""What stands in front of a face, judged by the person's own trained head: every frame that is to be edited, once.

Reads: the tables of a prepared face, the person's checkpoint, the video. Writes: ``occlusion_nerf-<hash>.npz`` beside
the tables; a killed run goes on where its last stretch ended.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.runs.judged_clip import JudgedClip, evidence_counts
from data_gen.runs.process_config import OcclusionStageConfig, ProcessVideoConfig
from data_gen.runs.process_video import STAGES, default_config
from data_gen.runs.stretches import Stretch
from data_gen.utils.process_video.canonical_texture import CanonicalTexture
from data_gen.utils.process_video.clean_appearance import CleanAppearance
from data_gen.utils.process_video.occlusion_table import join_occlusion
from data_gen.utils.process_video.part_store import PartStore
from inference.jobs import OcclusionMode
from inference.motion_to_frames import IdentityRenderer
from inference.nerf_expectation import HeadSpread, NerfExpectation
from inference.prepared import PreparedSource
from modules.commons.config import load_config
from modules.commons.device import pick_device
from modules.commons.hashing import file_sha256
from modules.commons.progress import Progress
from modules.structures.masks import OcclusionEvidence, OcclusionTable

logger = logging.getLogger(__name__)

STRETCH = 256
"""Frames between two points from which a killed run can go on."""
SCHEMA = 3
"""Raised by hand when what is said of the rendered head changes; the pass itself has the stage's schema."""


def seen_from(mode: OcclusionMode, source: PreparedSource) -> PreparedSource:
    """The face with what ``mode`` makes of its tables; 'auto' is what the clip's own clean frames say until a head is.

    Where the user asks for hands alone, frames that hands leave unsure are not passed through: they asked.
    """
    if mode == "hands":
        return replace(source, occlusion=OcclusionTable.load(source.workspace.hands), unsure=None)
    if mode == "off":
        nothing = OcclusionTable.nothing(len(source), source.occlusion.mask_size)
        return replace(source, occlusion=nothing, unsure=None, hands=None)
    return source


def judged_by_head(
    source: PreparedSource, checkpoint: Path, wanted: NDArray[np.bool_], device: str, progress: Progress
) -> PreparedSource:
    """The face with its occluders judged by the person's head wherever a frame is ``wanted``.

    Stretches that were judged before, for whatever part of the clip, are used again. A clip without a table of the
    clean face keeps what it has, and the log says so: nothing says how far its frames stray from a head.

    Args:
        source: the prepared face.
        checkpoint: of the person.
        wanted: bool ``[T]`` clip rows that may be edited; the others keep what the clean frames said.
        device: where the head is rendered.
        progress: told about frames.
    """
    starts = [start for start in range(0, len(source), STRETCH) if wanted[start : start + STRETCH].any()]
    if not starts:
        return source
    if not source.workspace.appearance.is_file():
        logger.warning(
            "face %d: its head does not judge what is in front, because %s is not there (too few clean frames, or it "
            "was deleted: `process_video.py --from occlusion` makes it anew); the clip's own frames judge",
            source.face, source.workspace.appearance,
        )  # fmt: skip
        return source
    config = load_config(default_config(), ProcessVideoConfig, {}).occlusion
    path = source.workspace.occlusion_nerf(_key(source, checkpoint, config))
    known = OcclusionTable.load(path) if path.is_file() else source.occlusion
    missing = [start for start in starts if not _is_judged(source, known, start)]
    if missing or not path.is_file():
        _judge(source, known, checkpoint, missing, config, path, device, progress)
    table = OcclusionTable.load(path)
    logger.info("face %d, what is in front: %s", source.face, evidence_counts(table)["judged_by"])
    return source.behind(table)


def _is_judged(source: PreparedSource, known: OcclusionTable, start: int) -> bool:
    """Whether the head has judged all that it can of the stretch that begins at ``start``."""
    rows = slice(start, start + STRETCH)
    possible = source.coeffs.valid[rows] & np.asarray(source.landmarks.valid[rows])
    return bool((known.evidence[rows][possible] == OcclusionEvidence.NERF).all())


def _judge(
    source: PreparedSource, known: OcclusionTable, checkpoint: Path, starts: list[int], config: OcclusionStageConfig,
    path: Path, device: str, progress: Progress,
) -> None:  # fmt: skip
    """Make the table at ``path``: stretches that begin at ``starts`` are judged, the others copied from ``known``."""
    clip = JudgedClip.open(source.video, source.workspace, config, pick_device(device))
    # a part that was copied must not pass for one that is judged when other stretches are asked for after a kill
    parts = PartStore(path.with_suffix(".parts"), f"{path.stem} {starts}")
    count = len(source)
    missing = [start for start in range(0, count, STRETCH) if not parts.has(start)]
    head = expected_by_head(source, checkpoint, device) if set(missing) & set(starts) else None
    for start in missing:
        stop = min(start + STRETCH, count)
        if start in starts:
            judged = clip.judged(Stretch(start, stop, threading.Event()), head, OcclusionEvidence.NERF)
        else:
            judged = known.part(start, stop)
        parts.save(start, judged)
        progress("occluders", stop, count)
    join_occlusion(parts, path, config.mask_size)
    parts.delete()
    _forget_others(path)


def _forget_others(path: Path) -> None:
    """Delete the tables of other heads and settings, and what killed runs left of them: they would fill the disk."""
    own = {path, path.with_suffix(".parts")}
    for other in set(path.parent.glob("occlusion_nerf-*.npz")) - own:
        other.unlink(missing_ok=True)
    for other in set(path.parent.glob("occlusion_nerf-*.parts")) - own:
        shutil.rmtree(other, ignore_errors=True)


def expected_by_head(source: PreparedSource, checkpoint: Path, device: str) -> NerfExpectation:
    """What the frames of a prepared face should look like by the person of ``checkpoint``."""
    renderer = IdentityRenderer(checkpoint, source.face_model, device)
    around = CleanAppearance.load(source.workspace.appearance, source.coeffs, source.crops, source.face_model)
    head = NerfExpectation(renderer, source, around)
    texture = CanonicalTexture(source.face_model, source.coeffs, source.crops)
    return NerfExpectation(renderer, source, around, HeadSpread.learnt(head, texture, around.exemplars))


def _key(source: PreparedSource, checkpoint: Path, config: OcclusionStageConfig) -> str:
    """A hash of all that a judged stretch depends on; which ones are judged the table itself says."""
    tables = source.workspace
    needed = (
        tables.frame_index, tables.landmarks, tables.crop_metadata, tables.hands, tables.appearance, tables.occlusion,
        tables.coeffs,
    )  # fmt: skip
    files = [*needed, *sorted(path for path in checkpoint.iterdir() if path.is_file())]
    hashes = [file_sha256(path) for path in files]
    schema = next(stage.schema for stage in STAGES if stage.name == "occlusion")  # it shares the pass with this one
    words = [SCHEMA, schema, source.sha256, source.face, STRETCH, config.hashed(), hashes]
    return hashlib.sha256(json.dumps(words, default=str).encode()).hexdigest()
