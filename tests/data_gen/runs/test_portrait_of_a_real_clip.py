"""A portrait's data by the command, with the real networks."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import cv2
import pytest

from data_gen.runs.portrait_pictures import png
from data_gen.runs.process_video import main
from modules.commons.workspace import VideoWorkspace
from modules.structures.landmarks import Landmarks2D
from modules.structures.portrait_dataset import PortraitDataset
from modules.video.reader import VideoReader
from tests.support.edited_clips import write_frames


@pytest.mark.slow
def test_a_real_clip_by_the_command(shared_clips, tmp_path):
    """All stages with the real networks: parts lie where they are in the picture, and a second run makes nothing."""
    cut, root = tmp_path / "anchor.mp4", tmp_path / "data"
    with VideoReader(shared_clips / "anchor_german_512_25fps.mp4") as reader:
        info = replace(reader.info, has_audio=False)
        write_frames(cut, info, islice(reader.frames(), 44))
    command = ["--video", str(cut), "--data_root", str(root), "--portrait", "--hparams", "occlusion.enabled=false"]
    assert main(command) == 0
    workspace = VideoWorkspace("anchor", root)
    dataset, landmarks = PortraitDataset.load(workspace.portrait_dataset), Landmarks2D.load(workspace.landmarks)
    assert len(dataset) == len(dataset.samples) == 44 and dataset.camera.cx == dataset.camera.cy == 256
    for row in (0, 20, 43):
        head, torso = (
            cv2.imread(str(folder / png(row)), cv2.IMREAD_UNCHANGED)[..., 3] > 0
            for folder in (workspace.head_imgs, workspace.inpaint_torso_imgs)
        )
        column, line = landmarks.points[row, [1, 10, 61, 291, 33, 263]].astype(int).T
        assert head[line, column].all() and 0.15 < head.mean() < 0.3 and 0.12 < torso.mean() < 0.3
        assert torso[500, 100] and torso[500, 256] and not torso[:200].any() and not head[420:].any()
    before = workspace.manifest.read_text()
    assert main(command) == 0 and workspace.manifest.read_text() == before
