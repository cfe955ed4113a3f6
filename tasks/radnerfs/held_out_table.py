"""Held-out frames of a trained person as a table: how faithful, how sharp, against what any renderer must beat.

    python tasks/radnerfs/held_out_table.py --exp_name demo

Reads: checkpoints/identities/<exp_name>, the prepared clip. Needs neither the video nor a video library. The frames
were never trained on and are driven by their own landmarks. ``tasks/radnerfs/evaluate.py`` writes the figures down.
"""

from __future__ import annotations

import argparse
import copy
import logging
import sys
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

if __name__ == "__main__":  # `python tasks/radnerfs/held_out_table.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from numpy.typing import NDArray

from modules.commons.command import exit_status
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError
from modules.commons.hparams import parse_hparams
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import FACE_MODEL_FILE, IDENTITIES
from modules.face_model.correction import same_correction
from modules.face_model.model import FaceModel
from modules.metrics.picture import psnr, ssim_map
from modules.radnerfs.person import PersonField
from tasks.configs import RADNeRFTaskConfig, load_any
from tasks.radnerfs.dataset_utils import RADNeRFDataset
from tasks.radnerfs.radnerf import load_dataset, load_person
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
)

log = logging.getLogger(__name__)

RENDERED, UNSHARPENED = "landmark-driven", "landmark-driven, not sharpened"
MATCHED, RETRIEVAL, STILL = "retrieval, colour matched", "retrieval", "static mean mouth"
METHODS = (RENDERED, UNSHARPENED, MATCHED, RETRIEVAL, STILL)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How near pictures are to what was filmed; of one frame, or means over frames.

    Attributes:
        psnr_edited, psnr_mouth, psnr_crop: dB over the edited region, its part in the mouth's box, and the whole crop,
            which outside the edited region is the source itself (published "head" figures are taken so).
        ssim_edited: mean SSIM over the edited region.
        sharpness: variance of the Laplacian in the mouth's box over the source's (median over frames).
    """

    psnr_edited: float
    psnr_mouth: float
    psnr_crop: float
    ssim_edited: float
    sharpness: float


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutTable:
    """The methods' likeness over held-out frames.

    Attributes:
        frames: how many were scored.
        rows: by method, in the order asked for.
        pictures: by clip row, RGB strips source | rendered | difference | retrieval around the mouth at 300 %.
    """

    frames: int
    rows: dict[str, Likeness]
    pictures: dict[int, NDArray[np.uint8]] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = ["| shown | PSNR edited | mouth | crop | SSIM | sharpness |", "|---|---|---|---|---|---|"]
        for name, likeness in self.rows.items():
            edited, mouth, crop, ssim, sharp = astuple(likeness)
            lines.append(f"| {name} | {edited:.2f} | {mouth:.2f} | {crop:.2f} | {ssim:.4f} | {sharp:.2f} |")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, eq=False)
class _People:
    """The person as it is, the same without the unsharp mask, and the clip's frames."""

    own: PersonField
    plain: PersonField
    baseline: RetrievalBaseline


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """The likeness per method of the frame of a clip row, and its strip where asked for."""

    row: int
    likeness: dict[str, Likeness]
    picture: NDArray[np.uint8] | None


def held_out_table(
    dataset: RADNeRFDataset,
    person: PersonField,
    progress: Progress,
    *,
    methods: Sequence[str] = METHODS,
    workers: int = 1,
    pictures: Collection[int] = (),
) -> HeldOutTable:
    """Score the held-out frames.

    Args:
        dataset: the prepared clip.
        person: trained on its training frames, on any device.
        progress: told about the frames.
        methods: which rows, of ``METHODS``.
        workers: frames in flight at once; casting and warping run on the CPU.
        pictures: clip rows whose strips are wanted; without ``RETRIEVAL`` among the methods they lack its panel.

    Raises:
        CheckpointError: no held-out frame shows the region.
    """
    indices = [int(i) for i in dataset.val_indices]
    people = _People(person, _without_sharpening(person), RetrievalBaseline(dataset.source, dataset.train_indices))
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        found = pool.map(lambda i: _score_frame(dataset, people, i, methods, pictures), indices)
        try:
            scored = list(_counted(found, len(indices), progress))
        finally:
            pool.shutdown(cancel_futures=True)  # stopped half-way, it does not score the rest first
    seen = [frame for frame in scored if frame is not None]
    if not seen:
        raise CheckpointError(f"{dataset.source.video_id} has no held-out frame; prepare a longer clip")
    rows = {name: _mean([frame.likeness[name] for frame in seen]) for name in methods}
    return HeldOutTable(len(seen), rows, {frame.row: frame.picture for frame in seen if frame.picture is not None})


def _counted(items: Iterable[_Scored | None], total: int, progress: Progress) -> Iterable[_Scored | None]:
    for done, item in enumerate(items, 1):
        progress("held-out frames", done, total)
        yield item


def _without_sharpening(person: PersonField) -> PersonField:
    plain = copy.deepcopy(person)
    plain.sharpen_share.zero_()
    return plain


def _score_frame(
    dataset: RADNeRFDataset, people: _People, index: int, methods: Sequence[str], pictures: Collection[int]
) -> _Scored | None:
    """One frame by every method; None when the region is not to be seen in it."""
    frame = render_stored_frame(dataset, people.own, index)
    if frame is None:
        return None
    row = int(dataset.source.rows[index])
    shown = _shown(dataset, people, frame, methods)
    likeness = {name: _likeness(frame, image, dataset.source.crop_size) for name, image in shown.items()}
    return _Scored(row, likeness, _strip(frame, shown.get(RETRIEVAL)) if row in pictures else None)


def _strip(frame: HeldOutFrame, retrieved: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Source | rendered | difference | retrieval, around the mouth."""
    source = frame.frame.rgb
    panels = [source, frame.rendered, difference(frame.rendered, source)]
    return strip(panels if retrieved is None else [*panels, retrieved], wide_box(frame))


def _shown(
    dataset: RADNeRFDataset, people: _People, frame: HeldOutFrame, methods: Sequence[str]
) -> dict[str, NDArray[np.uint8]]:
    """Each method's picture of the window, put into the source by the same alpha."""
    source, bounds = frame.frame.rgb, frame.frame.hits.bounds
    shown = {RENDERED: frame.rendered}
    if UNSHARPENED in methods:
        plain = render_stored_frame(dataset, people.plain, frame.index)
        shown[UNSHARPENED] = frame.rendered if plain is None else plain.rendered
    if MATCHED in methods or RETRIEVAL in methods:
        nearest = people.baseline.render(frame.index, bounds)
        shown[RETRIEVAL] = blended(nearest, source, frame.alpha)
        shown[MATCHED] = composited(nearest.astype(np.float32) / np.float32(255), source, frame.alpha)
    if STILL in methods:
        shown[STILL] = blended(people.baseline.render_mean(frame.index, bounds), source, frame.alpha)
    return {name: shown[name] for name in methods}


def _likeness(frame: HeldOutFrame, image: NDArray[np.uint8], crop_size: int) -> Likeness:
    source, edited = frame.frame.rgb, frame.edited
    mouth = box_mask(frame.mouth_box, edited)
    total = float(((image.astype(np.float64) - source) ** 2).sum())  # outside the window the crop is the source
    in_crop = 10 * np.log10(255**2 * 3 * crop_size**2 / total) if total else float("inf")
    own = max(sharpness(source, mouth), 1e-6)
    structure = float(ssim_map(image, source)[edited].mean(dtype=np.float64))
    sharp = sharpness(image, mouth) / own
    return Likeness(psnr(image, source, edited), psnr(image, source, mouth), float(in_crop), structure, sharp)


def _mean(frames: Sequence[Likeness]) -> Likeness:
    table = np.array([astuple(frame) for frame in frames])
    edited, mouth, crop, ssim = np.nanmean(table[:, :4], axis=0).tolist()
    return Likeness(edited, mouth, crop, ssim, float(np.nanmedian(table[:, 4])))


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


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Score a trained person on held-out frames.", allow_abbrev=False)
    parser.add_argument("--exp_name", required=True)
    parser.add_argument("--hparams", default="", help="overrides of the saved configuration: data_root=...,device=cpu")
    parser.add_argument("--workers", type=int, default=4, help="frames in flight at once")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _score(arguments))


def _score(arguments: argparse.Namespace) -> None:
    directory = IDENTITIES / arguments.exp_name
    overrides = parse_hparams(arguments.hparams)
    config = load_any(directory / "config.yaml", overrides) if overrides else None
    dataset, person, _ = open_checkpoint(directory, config, ConsoleProgress())
    table = held_out_table(dataset, person, ConsoleProgress(), workers=arguments.workers)
    log.info("%d held-out frames\n%s", table.frames, table)


if __name__ == "__main__":
    raise SystemExit(main())
