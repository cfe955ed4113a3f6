"""A made-up clip of a portrait with its pictures: a coloured disc before a torso of another colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.radnerfs.official_dataset import load_portrait_dataset
from modules.structures.cameras import CameraIntrinsics
from modules.structures.portrait_dataset import PortraitDataset
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


def write_own_clip(root: Path, n_frames: int, side: int, *, moving: bool = False) -> PortraitDataset:
    """The same pictures as a clip of this project, in the embedded face model's coefficients; ID 'Ann'.

    Args:
        root: data and pictures go below it.
        n_frames: at least 11, so that one is held out.
        side: of the frames, px.
        moving: each frame has a background of its own, whose red grows by one.
    """
    write_clip(root, n_frames, side)
    theirs = load_portrait_dataset(VideoWorkspace("May", root / "data").binary)
    model, rng = FaceModel.load(FACE_MODEL_FILE), np.random.default_rng(0)
    names = tuple(f"data/processed/videos/Ann/bg/{row}.png" for row in range(n_frames)) if moving else ()
    for row, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(root / name), np.full((side, side, 3), (30, 30, 60 + row), np.uint8))
    places = np.array([[0.05, -0.1, 4.4]], np.float32) + rng.normal(0, 0.05, (n_frames, 3)).astype(np.float32)
    own = replace(
        theirs,
        video_id="Ann",
        face_model_version=model.version,
        identity=rng.normal(0, 0.3, (1, model.n_identity)).astype(np.float32),
        expression=rng.uniform(0, 0.3, (n_frames, model.n_expression)).astype(np.float32),
        translation=places,
        camera=CameraIntrinsics(1.65 * side, 1.65 * side, side / 2 + 1, side / 2, side, side),
        samples=replace(theirs.samples, background_files=names, head_files=theirs.samples.torso_files),
        speech=np.zeros((0, 4), np.float32),
    )
    workspace = VideoWorkspace("Ann", root / "data")
    workspace.binary.mkdir(parents=True)
    own.save(workspace.portrait_dataset)
    return own
