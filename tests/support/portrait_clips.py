"""A made-up clip of a portrait with its pictures: a coloured disc before a torso of another colour."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from modules.commons.workspace import VideoWorkspace
from tests.support.official_portraits import official_dataset

HEAD_RGB, TORSO_RGB = (230, 120, 60), (40, 90, 200)


def write_clip(root: Path, n_frames: int, side: int) -> Path:
    """Dataset and pictures of the clip 'May' below ``root``; returns the data folder."""
    values = official_dataset(n_frames, side)
    values["bg_img"] = np.full((side, side, 3), 30, np.uint8)
    rows, columns = np.mgrid[:side, :side] + 0.5
    on_head = (rows - side * 0.45) ** 2 + (columns - side / 2) ** 2 < (side * 0.2) ** 2
    on_torso = rows > side * 0.7
    for sample in (*values["train_samples"], *values["val_samples"]):
        sample["lip_rect"] = [side // 4, 3 * side // 4, side // 4, 3 * side // 4]
        torso = np.zeros((side, side, 4), np.uint8)
        torso[on_torso] = (*TORSO_RGB[::-1], 255)
        frame = np.where(on_torso[..., None], np.array(TORSO_RGB), 30).astype(np.uint8)
        frame[on_head] = HEAD_RGB
        for key, image in (("torso_img_fname", torso), ("gt_img_fname", frame[..., ::-1])):
            path = (root / sample[key]).with_suffix(".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            sample[key] = str(path.relative_to(root))
            assert cv2.imwrite(str(path), image)
    binary = VideoWorkspace("May", root / "data").binary
    binary.mkdir(parents=True)
    np.save(binary / "trainval_dataset.npy", values)
    return root / "data"
