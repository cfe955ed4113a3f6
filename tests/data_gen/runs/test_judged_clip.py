"""A clip whose frames are judged: read with a margin, measured, and said what each frame was judged by."""

import threading
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_gen.runs import judged_clip, process_config
from data_gen.runs.judged_clip import JudgedClip, evidence_counts, learnt_face
from data_gen.runs.process_config import OcclusionStageConfig, ProcessVideoConfig
from data_gen.runs.stretches import Stretch
from data_gen.utils.mp_feature_extractors.multiclass_segmenter import MULTICLASS_FILE, ClassSegmenter, usable_runtime
from data_gen.utils.mp_feature_extractors.networks import Runtime
from data_gen.utils.process_video.crop_utils import crop_frame, save_crop_metadata
from data_gen.utils.process_video.occlusion_pass import PASS_MARGIN, PassConfig, PassTables
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.frame_index import FrameIndex
from modules.structures.masks import OcclusionEvidence, OcclusionMask, OcclusionTable
from modules.structures.segmentation import SelfieClass
from modules.video.reader import VideoReader
from tests.support.real_frames import DEMO_CLIP
from tests.support.synthetic_head import SyntheticSpeaker
from tests.support.tiny_segmenter import COLOURS, write_segmenter

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


def right_half(crops, tables, face, config, device, hints):
    """Sees something over the right half of rows that divide by four; tells which rows it was given."""
    right_half.hints = hints
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
    assert right_half.rows == list(range(20 - PASS_MARGIN, 40 + PASS_MARGIN)) and right_half.hints.segmenter is None
    assert len(table) == 20 and table.rows.tolist() == [0, 4, 8, 12, 16] and table.mask_size == 64
    assert (table.coverage[table.rows] > 0.3).all() and (table.coverage[table.rows] < 0.7).all()
    assert (table.mouth[table.rows] > 0.3).all() and (table.mouth[[1, 2, 3]] == 0).all()
    expected = np.full(20, OcclusionEvidence.NERF, np.uint8)
    expected[5], expected[10] = OcclusionEvidence.HANDS, OcclusionEvidence.NONE
    np.testing.assert_array_equal(table.evidence, expected)
    points = clip.tables.landmarks.points[24]
    right = clip.tables.metadata.crop_from_frame(24)[0] @ np.c_[points, np.ones(478)].T > 128
    assert (table.hidden[4] == right).mean() > 0.98


@pytest.fixture
def workspace(clip, tmp_path):
    """The clip's tables on disk, a landmark of the cheek far off in one frame."""
    points = clip.tables.landmarks.points.copy()
    points[12, 50] += 20.0
    made = VideoWorkspace("clip", tmp_path)
    made.processed.mkdir(parents=True)
    clip.index.save(made.frame_index)
    replace(clip.tables.landmarks, points=points).save(made.landmarks)
    save_crop_metadata(clip.tables.metadata, made.crop_metadata)
    clip.tables.hands.save(made.hands)
    model = FaceModel.load(FACE_MODEL_FILE)
    replace(clip.coeffs, face_model_version=model.version).save(made.first_coeffs)
    return made


def test_the_log_says_by_what_is_judged(clip, workspace, caplog):
    caplog.set_level("INFO")
    opened = JudgedClip.open(clip.video, workspace, OcclusionStageConfig())
    kinds = "what the face should look like, hands, motion and colour, landmarks that disagree with the fit"
    assert caplog.messages == [f"what is in front is judged by {kinds}"]
    assert opened.surprise is not None and 50 in opened.surprise.points[opened.surprise.rows == 12]
    assert opened.hints().surprise is opened.surprise and opened.hints().segmenter is None
    fitted = replace(clip.coeffs, face_model_version="bfm-123")
    fitted.save(workspace.first_coeffs)
    assert JudgedClip.open(clip.video, workspace, OcclusionStageConfig()).surprise is None


def test_the_segmentation_is_asked_where_its_file_is_there(clip, workspace, caplog, monkeypatch, tmp_path):
    caplog.set_level("INFO")
    file = write_segmenter(tmp_path / MULTICLASS_FILE)
    monkeypatch.setattr(process_config, "multiclass_file", lambda: file)
    monkeypatch.setattr(judged_clip, "ClassSegmenter", partial(ClassSegmenter, models=tmp_path))
    monkeypatch.setattr(judged_clip, "usable_runtime", partial(usable_runtime, models=tmp_path))
    runtime = Runtime("torch", torch.device("cpu"))
    opened = JudgedClip.open(clip.video, workspace, OcclusionStageConfig(), runtime=runtime)
    assert caplog.messages[0].endswith("with the fit, classes of pixels (torch on the CPU)")
    shirt = np.full((256, 256, 3), COLOURS[SelfieClass.CLOTHES], np.uint8)
    odds = opened.hints().at(0, shirt, opened.tables, PassConfig())
    assert odds is not None and odds.max() > 1.5
    off = OcclusionStageConfig(segmentation="off")
    assert JudgedClip.open(clip.video, workspace, off, runtime=runtime).hints().segmenter is None


def test_results_depend_on_the_segmentations_content_and_on_nothing_but_it(monkeypatch, tmp_path):
    assert OcclusionStageConfig().hashed() == OcclusionStageConfig(segmentation="off").hashed()
    keys = [ProcessVideoConfig().hashed_sections()["occlusion"]]
    for classes in (6, 5):
        file = write_segmenter(tmp_path / MULTICLASS_FILE, classes)
        monkeypatch.setattr(process_config, "multiclass_file", partial(Path, file))
        keys.append(ProcessVideoConfig().hashed_sections()["occlusion"])
    assert len({key["segmentation"] for key in keys}) == 3 and keys[0]["segmentation"] == ""
    assert OcclusionStageConfig(segmentation="off").hashed()["segmentation"] == ""


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
