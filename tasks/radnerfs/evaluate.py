"""How good is a trained person? Held-out frames against the source, a retrieval baseline and lips that never move.

    python tasks/radnerfs/evaluate.py --exp_name demo

Reads: checkpoints/identities/<exp_name>, the prepared clip. Writes: data/training/<exp_name>/evaluation/ (scores.json
and strips source | rendered | difference | retrieval around the mouth at 300 %).
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

if __name__ == "__main__":  # `python tasks/radnerfs/evaluate.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, GeneFaceError
from modules.commons.log import configure_logging
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import FACE_MODEL_FILE, IDENTITIES
from modules.face_model.correction import same_correction
from modules.face_model.model import FaceModel
from modules.metrics.picture import psnr
from modules.radnerfs.person import PersonField
from tasks.configs import RADNeRFTaskConfig, load_any, parse_hparams
from tasks.radnerfs.dataset_utils import RADNeRFDataset
from tasks.radnerfs.radnerf import load_dataset, load_person, work_dir
from tasks.radnerfs.retrieval import RetrievalBaseline
from tasks.radnerfs.validation import (
    HeldOutFrame,
    blended,
    box_mask,
    composited,
    difference,
    render_stored_frame,
    sharpness,
    strip,
    wide_box,
    write_png,
    write_validation_images,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scores:
    """Means over held-out frames.

    Attributes:
        frames: how many were evaluated.
        psnr, psnr_mouth: of the rendering over the edited region and over the mouth's box, dB.
        retrieval_psnr, retrieval_psnr_mouth: of the nearest training frame, warped onto the landmarks.
        matched_retrieval_psnr, matched_retrieval_psnr_mouth: the same with the compositor's colour match, which the
            rendering has too.
        mean_psnr, mean_psnr_mouth: of the mean training frame, warped onto the landmarks.
        sharpness: median ratio, rendered to source, of the variance of the Laplacian in the mouth's box.
        retrieval_sharpness: the same of the retrieval baseline.
    """

    frames: int
    psnr: float
    psnr_mouth: float
    retrieval_psnr: float
    retrieval_psnr_mouth: float
    matched_retrieval_psnr: float
    matched_retrieval_psnr_mouth: float
    mean_psnr: float
    mean_psnr_mouth: float
    sharpness: float
    retrieval_sharpness: float


def evaluate(
    dataset: RADNeRFDataset, person: PersonField, folder: Path, progress: Progress, pictures: int = 12
) -> Scores:
    """Score every held-out frame and write strips of some.

    Raises:
        CheckpointError: the clip has no held-out frame.
    """
    indices = [int(i) for i in dataset.val_indices]
    baseline = RetrievalBaseline(dataset.source, dataset.train_indices)
    shown = set(np.linspace(0, len(indices) - 1, min(pictures, len(indices))).round().astype(int).tolist())
    rows: list[NDArray[np.float64]] = []
    for number, index in enumerate(indices):
        frame = render_stored_frame(dataset, person, index)
        if frame is not None:
            bounds = frame.frame.hits.bounds
            nearest = baseline.render(index, bounds)
            warped = _over_source(frame, nearest)
            matched = composited(nearest.astype(np.float32) / np.float32(255), frame.frame.rgb, frame.alpha)
            still = _over_source(frame, baseline.render_mean(index, bounds))
            rows.append(_score(frame, warped, matched, still))
            if number in shown:
                name = f"{int(dataset.source.rows[index]):06d}.png"
                write_png(folder / name, picture(frame, warped))
        progress("evaluate", number + 1, len(indices))
    if not rows:
        raise CheckpointError(f"{dataset.source.video_id} has no held-out frame; prepare a longer clip")
    table = np.stack(rows)
    scores = Scores(len(rows), *np.nanmean(table[:, :8], axis=0).tolist(), *np.nanmedian(table[:, 8:], axis=0).tolist())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scores.json").write_text(json.dumps(asdict(scores), indent=1))
    return scores


def picture(frame: HeldOutFrame, warped: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Source | rendered | difference | retrieval, around the mouth."""
    source = frame.frame.rgb
    return strip([source, frame.rendered, difference(frame.rendered, source), warped], wide_box(frame))


def _over_source(frame: HeldOutFrame, window: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A baseline's picture, blended into the source as the rendering is."""
    return blended(window, frame.frame.rgb, frame.alpha)


def _score(
    frame: HeldOutFrame, warped: NDArray[np.uint8], matched: NDArray[np.uint8], still: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Eight PSNRs and two sharpness ratios of one frame, in the order of ``Scores``."""
    source, box = frame.frame.rgb, box_mask(frame.mouth_box, frame.edited)
    images = (frame.rendered, warped, matched, still)
    values = [psnr(image, source, mask) for image in images for mask in (frame.edited, box)]
    own = max(sharpness(source, box), 1e-6)
    return np.array([*values, sharpness(frame.rendered, box) / own, sharpness(warped, box) / own])


def open_checkpoint(
    directory: Path, config: RADNeRFTaskConfig | None, progress: Progress
) -> tuple[RADNeRFDataset, PersonField, RADNeRFTaskConfig]:
    """The person and the clip it was trained on; ``config`` may say where that clip lies.

    Raises:
        CheckpointError: either is missing, corrupt or belongs to another face model or correction of it.
    """
    asked = config.device if config else "auto"
    person, saved, version = load_person(directory, pick_device(asked))
    used = config or saved
    face_model = FaceModel.load(FACE_MODEL_FILE)
    if version != face_model.version:
        raise CheckpointError(f"{directory} belongs to face model {version!r}, installed is {face_model.version!r}")
    dataset = load_dataset(replace(used, radnerf=saved.radnerf), face_model, progress)
    if not same_correction(person.correction, dataset.face_model.correction):
        raise CheckpointError(
            f"{directory} was trained with another correction of the expression units than {dataset.source.video_id} "
            "is now prepared with; prepare it with fit.correct_expression as then, or train the person again"
        )
    return dataset, person, used


def evaluate_checkpoint(directory: Path, config: RADNeRFTaskConfig | None, progress: Progress) -> Scores:
    """Score a checkpoint on its clip's held-out frames and log the figures."""
    dataset, person, used = open_checkpoint(directory, config, progress)
    folder = work_dir(used, directory) / "evaluation"
    scores = evaluate(dataset, person, folder, progress)
    for name, value in asdict(scores).items():
        log.info("%-22s %s", name, f"{value:.3f}" if isinstance(value, float) else value)
    log.info("pictures: %s", folder)
    return scores


def write_pictures(directory: Path, config: RADNeRFTaskConfig | None, progress: Progress, count: int = 12) -> None:
    """Write strips of held-out frames without scoring them."""
    dataset, person, used = open_checkpoint(directory, config, progress)
    folder = work_dir(used, directory) / "pictures"
    write_validation_images(dataset, person, folder, count)
    log.info("pictures: %s", folder)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Evaluate a trained person on held-out frames.", allow_abbrev=False)
    parser.add_argument("--exp_name", required=True)
    parser.add_argument("--hparams", default="", help="overrides of the saved configuration: data_root=...,device=cpu")
    arguments = parser.parse_args(argv)
    configure_logging()
    directory = IDENTITIES / arguments.exp_name
    try:
        overrides = parse_hparams(arguments.hparams)
        config = load_any(directory / "config.yaml", overrides) if overrides else None
        evaluate_checkpoint(directory, config, ConsoleProgress())
    except GeneFaceError as error:
        log.error("error: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
