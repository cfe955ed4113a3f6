"""A clip whose frames are judged: read with a margin, measured, and said what each frame was judged by."""

import threading
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from data_gen.runs import judged_clip
from data_gen.runs.judged_clip import JudgedClip, evidence_counts, learnt_face
from data_gen.runs.process_config import OcclusionStageConfig
from data_gen.runs.stretches import Stretch
from data_gen.utils.process_video.crop_utils import crop_frame
from data_gen.utils.process_video.occlusion_pass import PASS_MARGIN, PassTables
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.frame_index import FrameIndex
from modules.structures.masks import OcclusionEvidence, OcclusionMask, OcclusionTable
from modules.video.reader import VideoReader
from tests.support.real_frames import DEMO_CLIP
from tests.support.synthetic_head import SyntheticSpeaker

COUNT = 60


@pytest.fixture(scope="module")
def clip(demo_dir):
    """The demo clip with a made-up face in it."""
    video = demo_dir / DEMO_CLIP
    with VideoReader(video) as reader:
        pts = np.array([frame.pts for frame in islice(reader.frames(), COUNT)], np.int64)
        index = FrameIndex(pts, reader.info.time_base, np.zeros(1, np.int64))
    speaker = SyntheticSpeaker(1, size_hw=(360, 640), face_px=180)
    coeffs = speaker.coeffs(COUNT)
    landmarks = speaker.landmarks(coeffs)
    landmarks.valid[30] = False
    metadata = CropMetadata((CropRegion(320.0, 180.0, 300.0),), (360, 640), 256)
    tables = PassTables(landmarks, metadata, OcclusionTable.nothing(COUNT, 64), index.shot_starts)
    return JudgedClip(video, index, tables, coeffs, OcclusionStageConfig(mask_size=64))


def right_half(crops, tables, face, config, device):
    """Sees something over the right half of rows that divide by four; tells which rows it was given."""
    for row, crop in crops:
        right_half.rows.append(row)
        assert crop.shape == (256, 256, 3)
        values = np.zeros((256, 256), np.float32)
        values[:, 128:] = row % 4 == 0
        yield row, OcclusionMask(values, "crop", np.zeros((0, 21, 2), np.float32))


def test_a_stretch_is_read_with_its_margin_and_measured(clip, monkeypatch):
    right_half.rows = []
    monkeypatch.setattr(judged_clip, "occlusion_pass", right_half)
    face = SimpleNamespace(knows=lambda row: row != 25)
    table = clip.judged(Stretch(20, 40, threading.Event()), face, OcclusionEvidence.NERF)
    assert right_half.rows == list(range(20 - PASS_MARGIN, 40 + PASS_MARGIN))
    assert len(table) == 20 and table.rows.tolist() == [0, 4, 8, 12, 16] and table.mask_size == 64
    assert (table.coverage[table.rows] > 0.3).all() and (table.coverage[table.rows] < 0.7).all()
    assert (table.mouth[table.rows] > 0.3).all() and (table.mouth[[1, 2, 3]] == 0).all()
    expected = np.full(20, OcclusionEvidence.NERF, np.uint8)
    expected[5], expected[10] = OcclusionEvidence.HANDS, OcclusionEvidence.NONE
    np.testing.assert_array_equal(table.evidence, expected)
    points = clip.tables.landmarks.points[24]
    right = clip.tables.metadata.crop_from_frame(24)[0] @ np.c_[points, np.ones(478)].T > 128
    assert (table.hidden[4] == right).mean() > 0.98


def test_crops_far_apart_are_those_of_their_frames(clip):
    rows = np.array([2, 5, 58])
    with VideoReader(clip.video) as reader:
        wanted = {frame.index: crop_frame(frame, clip.tables.metadata) for frame in islice(reader.frames(), COUNT)}
    found = dict(clip.crops(rows))
    assert sorted(found) == rows.tolist()
    for row, crop in found.items():
        np.testing.assert_array_equal(crop, wanted[row])
    assert list(clip.crops(rows[:0])) == []


def test_a_model_without_a_mesh_teaches_no_face(clip, tmp_path):
    fitted = replace(clip, coeffs=replace(clip.coeffs, face_model_version="bfm-123"))
    assert learnt_face(fitted, tmp_path / "appearance.npz") is None


def test_the_manifest_says_what_judged_how_many():
    table = OcclusionTable.nothing(4, 8, OcclusionEvidence.APPEARANCE)
    table.evidence[0] = OcclusionEvidence.HANDS
    assert evidence_counts(table) == {"judged_by": "hands 1, appearance 3"}
