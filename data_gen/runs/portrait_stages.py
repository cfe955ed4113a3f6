"""What the stages of ``process_video.PORTRAIT_STAGES`` do: from a fitted clip to a portrait's dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data_gen.runs.binarizer_nerf import usable_frames
from data_gen.runs.binarizer_portrait import binarize_portrait
from data_gen.runs.portrait_pictures import (
    STILL_WITHIN,
    PicturesMade,
    PortraitTables,
    compose_stretch,
    fresh,
    learn_colours,
    plate_difference,
    read_sample,
    segment_stretch,
    write_picture,
)
from data_gen.runs.stages import MOST_STRETCHES, StageInput, networks_runtime
from data_gen.runs.stretches import Stretch, in_stretches, stretches_at_once
from data_gen.utils.mp_feature_extractors.mp_segmenter import PersonSegmenter
from data_gen.utils.process_audio.extract_mel_f0 import N_MELS
from data_gen.utils.process_audio.features import build_extractor
from data_gen.utils.process_audio.front_end import prepare_speech
from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_video.background_plate import BackgroundPlate, sampled_rows
from data_gen.utils.process_video.crop_utils import load_crop_metadata
from data_gen.utils.process_video.part_segmenter import EmbeddedSegmenter, MulticlassSegmenter, PartSegmenter
from data_gen.utils.process_video.part_store import PartStore
from data_gen.utils.process_video.portrait_framing import MOVES_FROM, clip_rows, portrait_square
from modules.commons.device import pick_device, usable_cores
from modules.commons.errors import BackendUnavailableError, ConfigError, NoFaceError
from modules.commons.workspace import VideoWorkspace
from modules.face_model.bfm import BFM_VERSION_PREFIX
from modules.structures.audio import AudioClip
from modules.structures.crops import CropMetadata
from modules.structures.dataset import Split, last_eleventh
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frame_index import FrameIndex
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionTable
from modules.structures.portrait_tables import PORTRAIT_SIDE, PortraitPlan, PortraitSpeech
from modules.video.reader import VideoReader

logger = logging.getLogger(__name__)

PICTURES_STRETCH = 32
"""Pictures between two points from which a killed run can go on."""
COMPARED_FRAMES = 24
"""Frames whose background is compared with the plate, to see whether the camera moves."""


def plan(stage: StageInput) -> None:
    """Choose the square, the frames at 25 per second, and which of them pictures are made of.

    Raises:
        NoFaceError: fewer than two frames can be learnt from.
    """
    workspace, config = stage.workspace, stage.config.portrait
    index, points = FrameIndex.load(workspace.frame_index), Landmarks2D.load(workspace.landmarks)
    coeffs = FaceModelCoeffs.load(workspace.coeffs)
    crops = _square(stage, points, coeffs)
    source_rows = clip_rows(index)
    learn = replace(stage.config.binarizer, max_occlusion=config.max_occlusion)
    usable = usable_frames(points, OcclusionTable.load(workspace.occlusion), coeffs, learn)[source_rows]
    samples, is_train = choose_samples(
        usable, last_eleventh(len(source_rows)), config.max_train_frames, config.max_val_frames
    )
    if int(is_train.sum()) < 2:
        raise NoFaceError(
            f"{stage.video}: only {int(is_train.sum())} of {len(usable)} frames show an uncovered, well-fitted face; a "
            "portrait needs at least 2"
        )
    PortraitPlan(crops, source_rows, samples, is_train).save(workspace.portrait_plan)


def _square(stage: StageInput, points: Landmarks2D, coeffs: FaceModelCoeffs) -> CropMetadata:
    """The one square of the clip; BFM2009's coefficients belong to the crop that they were fitted in."""
    face_crops = load_crop_metadata(stage.workspace.crop_metadata)
    if coeffs.face_model_version.startswith(BFM_VERSION_PREFIX):
        if len(face_crops.regions) != 1:
            raise ConfigError(
                f"{stage.video}: the head moves so much that its crop does, and BFM2009 is fitted in the crop; set "
                "face_model to embedded"
            )
        return replace(face_crops, crop_size=PORTRAIT_SIDE)
    size_hw = face_crops.frame_size_hw
    square, spread = portrait_square(points.points, points.valid, size_hw, stage.config.portrait.framing)
    if spread > MOVES_FROM:
        logger.warning(
            "%s: the head moves over %.1f times what one frame needs, so it is small in the portrait's square",
            stage.video, spread,
        )  # fmt: skip
    return CropMetadata((square,), size_hw, PORTRAIT_SIDE)


def choose_samples(
    usable: NDArray[np.bool_], split: Split, most_train: int, most_held_out: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Rows ``[N]`` to store, ascending, and which of them train; evenly spaced where there are more than wanted.

    Args:
        usable: ``[T]``.
        split: of the ``T`` rows.
        most_train: rows to learn from, at most; 0 takes all.
        most_held_out: rows held out, at most; 0 takes all.
    """
    chosen = []
    for rows, most in ((usable & split.is_train, most_train), (usable & split.is_held_out, most_held_out)):
        found = np.flatnonzero(rows)
        if most and len(found) > most:
            found = found[np.linspace(0, len(found) - 1, most).round().astype(int)]
        chosen.append(found)
    rows = np.sort(np.concatenate(chosen)).astype(np.int64)
    return rows, split.is_train[rows]


def speech(stage: StageInput) -> dict[str, str]:
    """Extract what the clip's own sound says.

    Returns:
        By what, for the manifest.
    """
    with VideoReader(stage.video) as reader:
        has_audio = reader.info.has_audio
    extractor = build_extractor(stage.config.portrait.resolved().speech, device=pick_device(stage.config.device))
    if not has_audio:
        logger.info("%s: has no sound, so the portrait's dataset holds no speech", stage.video)
        nothing = np.zeros((0, extractor.width), np.float32)
        made = PortraitSpeech(nothing, extractor.name, np.zeros((0, N_MELS), np.float32), np.zeros(0, np.float32))
    else:
        clip = load_audio_16k(stage.video)
        heard = clip if extractor.name.startswith("hubert") else prepare_speech(clip).clip
        rows = extractor.extract(heard).values
        made = PortraitSpeech(rows, extractor.name, build_extractor("mel").extract(clip).values, _pitch(clip))
    made.save(stage.workspace.portrait_speech)
    return {"extractor": extractor.name}


def _pitch(clip: AudioClip) -> NDArray[np.float32]:
    """``[T]`` Hz, without rows where nothing here can tell; only official audio-to-motion networks ask for it."""
    try:
        return build_extractor("f0").extract(clip).values[:, 0]
    except BackendUnavailableError as error:
        logger.info("no pitch in the portrait's dataset: %s", error)
        return np.zeros(0, np.float32)


def segment(stage: StageInput) -> dict[str, str]:
    """Write frames, heads and torsos; finished stretches are kept.

    Returns:
        Who told the parts apart, for the manifest.
    """
    workspace = stage.workspace
    tables = PortraitTables.load(stage.video, workspace)
    parts = PartStore(workspace.portrait_plan.with_name("segment.parts"), stage.key)
    if not parts.starts():
        fresh(workspace.gt_imgs, workspace.segmaps, workspace.head_imgs, workspace.inpaint_torso_imgs)
    named, runtime = stage.config.portrait.resolved().segmenter, networks_runtime(stage.config)
    colours = learn_colours(tables, PersonSegmenter(runtime=runtime)) if named == "embedded" else None

    def make(stretch: Stretch) -> PicturesMade:
        one: PartSegmenter = MulticlassSegmenter(runtime) if colours is None else EmbeddedSegmenter(colours, runtime)
        return segment_stretch(tables, one, stretch)

    _pictures("segment", stage, tables.plan, parts, make)
    return {"segmenter": named}


def background(stage: StageInput) -> dict[str, str]:
    """Find what is behind the person, and write the frames as they are learnt.

    Returns:
        Which kind of background it is, for the manifest.
    """
    workspace = stage.workspace
    chosen = PortraitPlan.load(workspace.portrait_plan)
    plate, difference = _plate(workspace, chosen.samples)
    wanted = stage.config.portrait.background
    is_still = wanted == "still" or (wanted == "auto" and difference <= STILL_WITHIN)
    logger.info(
        "%s: the background of most frames is %.1f levels from the plate: %s",
        stage.video, difference, "one still background" if is_still else "each frame keeps its own",
    )  # fmt: skip
    write_picture(workspace.background_plate, plate)
    parts = PartStore(workspace.portrait_plan.with_name("background.parts"), stage.key)
    if not parts.starts():
        fresh(workspace.com_imgs, workspace.bg_imgs)

    def make(stretch: Stretch) -> PicturesMade:
        return compose_stretch(workspace, chosen.samples, plate if is_still else None, stretch)

    _pictures("background", stage, chosen, parts, make)
    return {"background": "still" if is_still else "each", "difference": f"{difference:.1f}"}


def _plate(workspace: VideoWorkspace, samples: NDArray[np.int64]) -> tuple[NDArray[np.uint8], float]:
    """The plate, and the median over frames of how far their background is from it."""
    growing = BackgroundPlate((PORTRAIT_SIDE, PORTRAIT_SIDE))
    for number in sampled_rows(len(samples)):
        growing.add(*read_sample(workspace, int(samples[number])))
    plate = growing.picture()
    compared = samples[np.unique(np.linspace(0, len(samples) - 1, COMPARED_FRAMES).round().astype(int))].tolist()
    differences = []
    for row in compared:
        picture, behind = read_sample(workspace, row)
        differences.append(plate_difference(picture, behind & growing.known, plate))
    return plate, float(np.median(differences))


def _pictures(
    what: str, stage: StageInput, chosen: PortraitPlan, parts: PartStore, make: Callable[[Stretch], PicturesMade]
) -> None:
    """Make the pictures of all stretches that are not made yet."""
    size_hw = chosen.crops.frame_size_hw
    in_stretches(
        what,
        len(chosen.samples),
        PICTURES_STRETCH,
        parts,
        make,
        stage.progress,
        at_once=lambda missing: stretches_at_once(missing, size_hw, usable_cores(), MOST_STRETCHES),
    )
    parts.delete()


def portrait(stage: StageInput) -> None:
    """Write the dataset."""
    binarize_portrait(stage.workspace).save(stage.workspace.portrait_dataset)
