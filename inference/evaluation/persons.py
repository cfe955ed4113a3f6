"""Who is shown: the person trained without the frames under test, for the last eleventh and for each fold.

Reads: a prepared video. Writes: below ``<data_root>/evaluation/fold<k>of<n>/``, never among the identities, where a
later job would find a person that has not seen a fifth of its video.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.runs.binarizer_nerf import binarize
from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import default_config
from inference.arbitrary_video import find_or_train_identity
from inference.identity import has_correction, train_identity, was_trained_with
from inference.jobs import PersonOptions
from inference.prepared import PreparedSource, prepare_training
from modules.commons.checkpoint import is_checkpoint, load_checkpoint
from modules.commons.config import load_config
from modules.commons.errors import CheckpointError
from modules.commons.progress import Progress
from modules.commons.workspace import VideoWorkspace
from modules.face_model.correction import same_correction
from modules.structures.dataset import NeRFDataset, Split, block_folds, last_eleventh
from tasks.configs import RADNeRFTaskConfig, load_any

logger = logging.getLogger(__name__)

LEAST_FRAMES = 11
"""GeneFace++'s split needs eleven frames to leave one out."""
FOLDS = 5
GUARD_S = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """A trained person and what it was taught.

    Attributes:
        checkpoint: folder. dataset: the frames it learnt from (and those held out). split: of the clip's rows.
    """

    checkpoint: Path
    dataset: NeRFDataset
    split: Split

    @property
    def learnt_rows(self) -> NDArray[np.int64]:
        """Clip rows that it learnt from."""
        return self.dataset.rows[self.dataset.is_train]


def usual_person(options: PersonOptions, source: PreparedSource, progress: Progress) -> Person:
    """The person of everyday use, which has not seen the clip's last eleventh; trained when there is none.

    Raises:
        CheckpointError: the checkpoint the options name belongs to another video.
    """
    if options.head_ckpt is not None:
        _check_person(options.head_ckpt, source)
    prepare_training(source, progress)
    identity = find_or_train_identity(options, source, progress)
    dataset = NeRFDataset.load(source.workspace.dataset)
    return Person(identity.checkpoint, dataset, last_eleventh(len(source)))


def fold_persons(usual: Person, source: PreparedSource, progress: Progress) -> list[Person]:
    """One person per fold, trained as ``usual`` was but without that fold's frames; finished ones are found again."""
    saved = load_any(usual.checkpoint / "config.yaml")
    if not isinstance(saved, RADNeRFTaskConfig):
        raise CheckpointError(f"{usual.checkpoint} is no person; give the folder that training one has written")
    folds = block_folds(source.times_s, FOLDS, GUARD_S)
    return [_fold_person(saved, number, split, source, progress) for number, split in enumerate(folds, start=1)]


def _fold_person(
    saved: RADNeRFTaskConfig, number: int, split: Split, source: PreparedSource, progress: Progress
) -> Person:
    name = f"fold{number}of{FOLDS}"
    workspace = VideoWorkspace(source.workspace.video_id, source.workspace.data_root / "evaluation" / name)
    config = replace(
        saved, video_id=workspace.video_id, data_root=workspace.data_root.resolve(), val_images=0, state_interval=0
    )
    dataset = _fold_dataset(workspace, split, source, progress)
    persons = workspace.data_root / "identities"
    checkpoint = persons / workspace.video_id
    if not (is_checkpoint(checkpoint) and was_trained_with(checkpoint, config) and _is_of(checkpoint, source)):
        logger.info("training a person without part %d of %d", number, FOLDS)
        train_identity(config, checkpoint.name, progress, persons)
    return Person(checkpoint, dataset, split)


def _fold_dataset(workspace: VideoWorkspace, split: Split, source: PreparedSource, progress: Progress) -> NeRFDataset:
    """The clip's dataset with this fold's frames left out, made anew unless it is there."""
    if workspace.dataset.is_file():
        dataset = NeRFDataset.load(workspace.dataset)
        is_current = dataset.source_sha256 == source.sha256 and len(dataset.coeffs) == len(source)
        same_fit = is_current and np.array_equal(dataset.coeffs.expression, source.coeffs.expression)
        same_fit = same_fit and same_correction(dataset.coeffs.correction, source.coeffs.correction)
        if same_fit and split.is_train[dataset.rows].all():
            return dataset
    chosen = load_config(default_config(), ProcessVideoConfig, {}).binarizer
    return binarize(
        source.workspace, source.video, source.sha256, source.face_model, replace(chosen, max_val_frames=0), progress,
        split=split, into=workspace,
    )  # fmt: skip


def _is_of(checkpoint: Path, source: PreparedSource) -> bool:
    record = load_checkpoint(checkpoint, parts=())
    version = source.face_model.version
    same_clip = record.extra.get("source_sha256") == source.sha256 and record.face_model_version == version
    return same_clip and has_correction(checkpoint, source.coeffs.correction)


def _check_person(checkpoint: Path, source: PreparedSource) -> None:
    trained_on = load_checkpoint(checkpoint, parts=()).extra.get("source_sha256")
    if trained_on != source.sha256:
        raise CheckpointError(
            f"{checkpoint} was trained on another video than {source.video}, so nothing of this video was held out; "
            "give this video's own person or leave --head_ckpt out"
        )
