"""The person cut out of a prepared video's stored crops, for looking at and for background replacement.

    python data_gen/utils/process_video/extract_segment_imgs.py --video_id ID

What stands in front of the face is cut out as well, so that a hand is neither person nor background.
Reads: data/binary/videos/<id>/crops. Writes: data/processed/videos/<id>/person_imgs/000123.png (RGBA).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # run as a file, Python looks for modules in this folder, not in the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.mp_segmenter import PersonSegmenter
from modules.commons.errors import CheckpointError, GeneFaceError
from modules.commons.log import configure_logging
from modules.commons.progress import ConsoleProgress, Progress
from modules.commons.workspace import VideoWorkspace
from modules.structures.dataset import NeRFDataset, write_image

log = logging.getLogger(__name__)


def cut_out(
    rgb: NDArray[np.uint8], probability: NDArray[np.float32], occluder: NDArray[np.float32] | None = None
) -> NDArray[np.uint8]:
    """RGBA ``[H, W, 4]``: the picture with the person's probability as opacity, black where it is 0.

    Args:
        rgb: ``[H, W, 3]``.
        probability: ``[H, W]`` 0..1 that the person is seen.
        occluder: ``[H, W]`` 0..1 that something is in front of the face, which is no part of it; None = nothing is.
    """
    free = probability if occluder is None else probability * (1 - occluder)
    alpha = np.round(free * 255).astype(np.uint8)
    return np.dstack([np.where(alpha[..., None] > 0, rgb, 0), alpha]).astype(np.uint8)


def extract_segment_imgs(
    dataset: NeRFDataset, folder: Path, segmenter: PersonSegmenter, progress: Progress
) -> list[Path]:
    """Write the person of every stored crop, without what is in front of the face; pictures that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(len(dataset)):
        path = folder / f"{int(dataset.rows[index]):06d}.png"
        if not path.exists():
            rgb = dataset.crop(index)
            person = cut_out(rgb, segmenter.segment(rgb), dataset.occluder(index))
            write_image(path, cv2.cvtColor(person, cv2.COLOR_RGBA2BGRA), [])
        written.append(path)
        progress("segment", index + 1, len(dataset))
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description="Cut the person out of a prepared video's crops.", allow_abbrev=False)
    parser.add_argument("--video_id", required=True)
    arguments = parser.parse_args(argv)
    configure_logging()
    workspace = VideoWorkspace(arguments.video_id)
    try:
        if not workspace.dataset.exists():
            raise CheckpointError(f"{workspace.dataset} does not exist; prepare the video first")
        dataset = NeRFDataset.load(workspace.dataset)
        folder = workspace.processed / "person_imgs"
        count = len(extract_segment_imgs(dataset, folder, PersonSegmenter(), ConsoleProgress()))
    except (GeneFaceError, ValueError) as error:
        log.error("error: %s", error)
        return 1
    log.info("%d pictures in %s", count, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
