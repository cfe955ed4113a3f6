"""From a fitted clip to a portrait's dataset: a drawn person of two colours before a scene, all tables known."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from data_gen.runs import binarizer_portrait, portrait_stages, process_config
from data_gen.runs.binarizer_portrait import eye_areas, square_camera
from data_gen.runs.portrait_pictures import jpg, png, read_picture
from data_gen.runs.portrait_stages import choose_samples
from data_gen.runs.process_config import PortraitDataConfig, ProcessVideoConfig
from data_gen.runs.process_video import PORTRAIT_ONLY, PORTRAIT_STAGES, STAGES, select_stages, stage_keys
from data_gen.runs.stages import StageInput
from data_gen.utils.process_video.crop_utils import save_crop_metadata
from modules.commons.errors import CheckpointError, ConfigError, NoFaceError
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace
from modules.face_model.keypoints import eye_area_percent
from modules.face_model.projection import project
from modules.structures.cameras import CameraIntrinsics
from modules.structures.crops import CropMetadata, CropRegion, transform_points
from modules.structures.dataset import last_eleventh
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frame_index import FrameIndex
from modules.structures.landmarks import EYES, FACE_OVAL, LM68, MOUTH
from modules.structures.masks import OcclusionTable
from modules.structures.portrait_dataset import PortraitDataset
from modules.structures.portrait_tables import PortraitPlan
from modules.structures.segmentation import SelfieClass
from modules.video.rgb_video import rgb_frame, rgb_video_info
from tests.support.edited_clips import write_frames
from tests.support.small_bfm import small_bfm, small_bfm_arrays, write_bfm
from tests.support.synthetic_head import SyntheticSpeaker

COUNT, SIZE_HW = 30, (120, 160)
SKIN, CLOTH = (220, 60, 60), (40, 60, 220)
CONFIG = ProcessVideoConfig(portrait=PortraitDataConfig(max_train_frames=4, max_val_frames=1, segmenter="embedded"))


def scene(shift: int) -> np.ndarray:
    """Greens and greys; another place of a wide wall for each ``shift``."""
    x, y = np.arange(SIZE_HW[1])[None] + shift, np.arange(SIZE_HW[0])[:, None]
    tone = 90 + 60 * np.sin(x / 9.0) + 30 * np.cos(y / 14.0)
    return np.stack([0.3 * tone, tone, 0.4 * tone], axis=2).astype(np.uint8)


class TwoColours:
    """Tells skin, cloth and the rest apart as they are drawn; counts the pictures it sees, and may fail at one."""

    seen, fails_at = 0, -1

    def classes(self, rgb, points):
        """``SelfieClass`` by colour."""
        if TwoColours.seen == TwoColours.fails_at:
            raise OSError("killed")
        TwoColours.seen += 1
        red, _, blue = np.moveaxis(rgb.astype(int), -1, 0)
        part = np.where(red > blue, SelfieClass.FACE_SKIN, SelfieClass.CLOTHES)
        return np.where(red + blue > 190, part, SelfieClass.BACKGROUND).astype(np.uint8)


@pytest.fixture(scope="module")
def speaker():
    return SyntheticSpeaker(1, size_hw=SIZE_HW, face_px=45)


@pytest.fixture(scope="module", autouse=True)
def networks():
    """What is drawn is told apart by colour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portrait_stages, "PersonSegmenter", lambda runtime: None)
        patch.setattr(portrait_stages, "learn_colours", lambda tables, person: object())
        patch.setattr(portrait_stages, "EmbeddedSegmenter", lambda colours, runtime: TwoColours())
        patch.setattr(portrait_stages, "PICTURES_STRETCH", 3)
        yield


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, speaker):
    """Makes a clip at 30 frames per second whose tables are there up to the fit; returns a stage's input."""

    def make(scroll: int = 0, config: ProcessVideoConfig = CONFIG) -> StageInput:
        folder = tmp_path_factory.mktemp("portrait")
        workspace = VideoWorkspace("clip", folder / "data")
        workspace.processed.mkdir(parents=True)
        workspace.binary.mkdir(parents=True)
        coeffs = speaker.coeffs(COUNT, frame_rate=30)
        landmarks = speaker.landmarks(coeffs)
        frames = []
        for row in range(COUNT):
            picture = scene(scroll * row)
            chin = landmarks.points[row, 152]
            left, right = int(chin[0] - 26), int(chin[0] + 26)
            picture[int(chin[1]) - 4 :, left:right] = CLOTH
            cv2.fillPoly(picture, [landmarks.points[row, list(FACE_OVAL)].round().astype(np.int32)], SKIN)
            frames.append(rgb_frame(row, Fraction(row, 30), picture))
        video = folder / "clip.mp4"
        write_frames(video, rgb_video_info(video, SIZE_HW[1], SIZE_HW[0], Fraction(30)), frames)
        pts = np.array([frame.pts for frame in frames], np.int64)
        FrameIndex(pts, frames[0].time_base, np.zeros(1, np.int64)).save(workspace.frame_index)
        landmarks.save(workspace.landmarks)
        coeffs.save(workspace.coeffs)
        save_crop_metadata(CropMetadata((CropRegion(80.0, 60.0, 70.0),), SIZE_HW, 512), workspace.crop_metadata)
        for path in (workspace.hands, workspace.occlusion):
            OcclusionTable.nothing(COUNT, 8).save(path)
        return StageInput(video, "hash", workspace, config, silent, "key")

    return make


@pytest.fixture(scope="module")
def still(drawn):
    """A finished clip of a still camera."""
    stage = drawn()
    made(stage)
    return stage


def made(stage: StageInput) -> PortraitDataset:
    """All stages, one after the other."""
    for work in ("plan", "speech", "segment", "background", "portrait"):
        getattr(portrait_stages, work)(stage)
    return PortraitDataset.load(stage.workspace.portrait_dataset)


def dataset_of(stage: StageInput) -> PortraitDataset:
    return PortraitDataset.load(stage.workspace.portrait_dataset)


def test_the_dataset_is_of_the_clip_at_25_frames_per_second(still, speaker):
    stage, dataset, root = still, dataset_of(still), still.workspace.data_root.parent
    plan, coeffs = PortraitPlan.load(stage.workspace.portrait_plan), FaceModelCoeffs.load(stage.workspace.coeffs)
    assert abs(len(dataset) - COUNT * 25 / 30) <= 1 and dataset.video_id == "clip"
    assert dataset.samples.is_train.tolist() == [True] * 4 + [False] and dataset.samples.background_files == ()
    np.testing.assert_array_equal(dataset.expression, coeffs.expression[plan.source_rows])
    assert dataset.identity.shape == (1, 80) and dataset.face_model_version == speaker.model.version
    assert len(dataset.speech) == len(dataset.f0_hz) == 0 and dataset.speech_extractor.startswith("whisper")
    for name in (*dataset.samples.frame_files, *dataset.samples.head_files, *dataset.samples.torso_files):
        assert name.startswith("data/processed/videos/clip/") and (root / name).is_file()
    blinks = coeffs.expression[plan.source_rows][:, speaker.model.unit("eyeBlinkLeft")] > 0.5
    assert dataset.eye_area[~blinks].min() > 1.3 * (dataset.eye_area[blinks].max() if blinks.any() else 0) > -1


def test_the_camera_is_the_squares(still, speaker):
    """Points of the fitted model, seen by the dataset's camera, lie where the picture shows them."""
    stage, dataset = still, dataset_of(still)
    rows = dataset.samples.rows
    seen = [torch.from_numpy(part[rows]) for part in (dataset.expression, dataset.euler, dataset.translation)]
    points = speaker.model.landmarks(torch.from_numpy(dataset.identity[0]), seen[0])
    pixels = project(points, seen[1], seen[2], dataset.camera)[0].numpy()
    inner = [*EYES, *MOUTH]
    for index in range(len(rows)):
        picture = read_picture(stage.workspace.data_root.parent / dataset.samples.head_files[index])
        column, row = pixels[index, inner].astype(int).T
        assert (np.abs(picture[row, column].astype(int) - SKIN).max(axis=1) < 40).all()
        left, right, top, bottom = dataset.samples.lip_rect[index]
        lips = pixels[index, list(LM68)][48:60]
        assert left - 1 <= lips[:, 0].min() and lips[:, 0].max() <= right + 1
        assert top - 1 <= lips[:, 1].min() and lips[:, 1].max() <= bottom + 1


def test_pictures_of_a_still_camera(still):
    stage, dataset = still, dataset_of(still)
    row = int(dataset.samples.rows[2])
    frame, shown = (read_picture(folder / jpg(row)) for folder in (stage.workspace.gt_imgs, stage.workspace.com_imgs))
    red = frame[..., 0] > 150
    assert np.abs(frame[red].astype(int) - shown[red]).mean() < 2
    corner = (slice(0, 60), slice(0, 60))
    assert np.abs(dataset.background[corner].astype(int) - frame[corner]).mean() < 4
    assert not (dataset.background[..., 0] > 150).any()  # nothing of the person
    torso = cv2.imread(str(stage.workspace.inpaint_torso_imgs / png(row)), cv2.IMREAD_UNCHANGED)
    head = cv2.imread(str(stage.workspace.head_imgs / png(row)), cv2.IMREAD_UNCHANGED)
    assert ((torso[..., 3] > 0) & (head[..., 3] > 0)).sum() > 200  # the torso goes on under the head
    assert (torso[torso[..., 3] > 0][:, 2] < 120).mean() > 0.97  # without the head's colour, but for the codec's seam


def test_a_moving_camera_keeps_each_frames_own_background(drawn):
    stage = drawn(scroll=2)
    dataset = made(stage)
    assert len(dataset.samples.background_files) == len(dataset.samples)
    backs = [read_picture(stage.workspace.bg_imgs / jpg(int(row))) for row in dataset.samples.rows]
    corner = (slice(0, 80), slice(0, 80))
    for row, behind in zip(dataset.samples.rows, backs, strict=True):
        frame = read_picture(stage.workspace.gt_imgs / jpg(int(row)))
        assert np.abs(behind[corner].astype(int) - frame[corner]).mean() < 3
        assert not (behind[..., 0] > 150).any()
        assert np.abs(read_picture(stage.workspace.com_imgs / jpg(int(row))).astype(int) - frame).mean() < 2
    assert np.abs(backs[0].astype(int) - backs[-1]).mean() > 10


def test_a_killed_run_goes_on_with_the_stretch_it_was_in(drawn, monkeypatch):
    stage = drawn()
    monkeypatch.setattr(portrait_stages, "usable_cores", lambda: 1)
    portrait_stages.plan(stage)
    monkeypatch.setattr(TwoColours, "seen", 0)
    monkeypatch.setattr(TwoColours, "fails_at", 4)
    with pytest.raises(OSError, match="killed"):
        portrait_stages.segment(stage)
    monkeypatch.setattr(TwoColours, "fails_at", -1)
    portrait_stages.segment(stage)
    assert TwoColours.seen == 4 + 5 - 3  # of 5 pictures the first stretch of 3 is kept
    assert len(list(stage.workspace.gt_imgs.iterdir())) == 5 and not list(stage.workspace.processed.glob("*.parts"))


def test_what_is_in_front_of_the_face_is_neither_head_nor_learnt_from(drawn):
    stage = drawn(config=replace(CONFIG, portrait=replace(CONFIG.portrait, max_occlusion=0.5)))
    table = OcclusionTable.nothing(COUNT, 8)
    masks = np.zeros((COUNT, 8, 8), np.uint8)
    masks[:, 4:] = 255
    coverage = np.where(np.arange(COUNT) < 6, 0.9, 0.4).astype(np.float32)
    table = replace(table, rows=np.arange(COUNT), masks=masks, coverage=coverage)
    table.save(stage.workspace.occlusion)
    dataset = made(stage)
    assert dataset.samples.rows.min() >= 5  # covered frames, and those near them
    row = int(dataset.samples.rows[3])
    head = cv2.imread(str(stage.workspace.head_imgs / png(row)), cv2.IMREAD_UNCHANGED)[..., 3] > 0
    torso = cv2.imread(str(stage.workspace.inpaint_torso_imgs / png(row)), cv2.IMREAD_UNCHANGED)
    face = read_picture(stage.workspace.gt_imgs / jpg(row))[..., 0] > 150
    crops = PortraitPlan.load(stage.workspace.portrait_plan).crops
    edge = transform_points(crops.crop_from_frame(0), np.array([80.0, 60.0]))[
        1
    ]  # the mask begins below the crop's middle
    rows = np.arange(512)[:, None]
    assert head[face & (rows < edge - 40)].mean() > 0.99 and not head[face & (rows > edge + 10)].any()
    assert not (torso[torso[..., 3] > 0][:, 2] > 150).any()


def test_too_few_clean_frames_are_told(drawn):
    stage = drawn()
    table = replace(OcclusionTable.nothing(COUNT, 8), coverage=np.ones(COUNT, np.float32))
    table.save(stage.workspace.occlusion)
    with pytest.raises(NoFaceError, match=r"only 0 of 2\d frames show an uncovered"):
        portrait_stages.plan(stage)


def test_coefficients_of_bfm2009_belong_to_the_crop_they_were_fitted_in(drawn):
    stage = drawn()
    coeffs = FaceModelCoeffs.load(stage.workspace.coeffs)
    replace(coeffs, face_model_version="bfm-0123").save(stage.workspace.coeffs)
    portrait_stages.plan(stage)
    crops = PortraitPlan.load(stage.workspace.portrait_plan).crops
    assert crops.regions[0] == CropRegion(80.0, 60.0, 70.0) and crops.crop_size == 512
    moving = CropMetadata(tuple(CropRegion(80.0 + i, 60.0, 70.0) for i in range(COUNT)), SIZE_HW, 512)
    save_crop_metadata(moving, stage.workspace.crop_metadata)
    with pytest.raises(ConfigError, match="set face_model to embedded"):
        portrait_stages.plan(stage)


def test_eyes_and_camera_of_bfm2009_are_its_own(still, tmp_path, monkeypatch):
    monkeypatch.setattr(binarizer_portrait, "BFM2009_DIR", write_bfm(tmp_path / "bfm2009", *small_bfm_arrays()))
    bfm, ours = small_bfm(), FaceModelCoeffs.load(still.workspace.coeffs)
    expression = np.random.default_rng(0).normal(size=(COUNT, 64)).astype(np.float32)
    coeffs = replace(ours, expression=expression, face_model_version=bfm.version)
    points = bfm.landmarks(torch.from_numpy(coeffs.identity), torch.from_numpy(expression))[:, list(LM68)]
    np.testing.assert_allclose(eye_areas(coeffs, expression), eye_area_percent(points).numpy(), rtol=1e-5)
    plan = PortraitPlan.load(still.workspace.portrait_plan)
    assert square_camera(coeffs, plan) == CameraIntrinsics.geneface(512)
    assert square_camera(ours, plan).cx != 256


def test_another_face_model_than_the_clip_was_fitted_with_is_told(still):
    coeffs = FaceModelCoeffs.load(still.workspace.coeffs)
    old = replace(coeffs, face_model_version="mh-old")
    with pytest.raises(CheckpointError, match="fitted with mh-old, and the face model here is mh-"):
        eye_areas(old, old.expression)


def test_samples_are_spread_evenly():
    usable = np.ones(110, bool)
    usable[:10] = False
    rows, is_train = choose_samples(usable, last_eleventh(110), 4, 2)
    assert rows.tolist() == [10, 40, 69, 99, 100, 109] and is_train.tolist() == [True] * 4 + [False] * 2
    every, _ = choose_samples(usable, last_eleventh(110), 0, 0)
    assert every.tolist() == list(range(10, 110))


def test_every_stage_reads_what_a_stage_before_it_writes():
    names = [stage.name for stage in (*STAGES, *PORTRAIT_ONLY)]
    assert len(set(names)) == len(names)
    written: set[str] = set()
    for stage in PORTRAIT_STAGES:
        assert set(stage.reads) <= written, stage.name
        written |= set(stage.writes)
    assert all(hasattr(VideoWorkspace, name) for name in written)
    chosen, forced = select_stages("segment", None, PORTRAIT_STAGES)
    assert [stage.name for stage in chosen] == ["segment", "background", "portrait"] and len(forced) == 3
    with pytest.raises(ConfigError, match="unknown stage 'segment'"):
        select_stages("segment", None)


def test_a_portraits_settings_make_only_portraits_stale():
    every = (*STAGES, *PORTRAIT_ONLY)
    before, after = (stage_keys("x", config, "m", stages=every) for config in (ProcessVideoConfig(), CONFIG))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"plan", "speech", "segment", "background", "portrait"}


def test_what_auto_means_follows_the_files_that_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(process_config, "HUBERT_DIR", tmp_path)
    monkeypatch.setattr(process_config, "multiclass_file", lambda: None)
    assert (PortraitDataConfig().resolved().segmenter, PortraitDataConfig().resolved().speech) == (
        "embedded",
        "whisper",
    )
    (tmp_path / "pytorch_model.bin.part").touch()
    assert PortraitDataConfig().resolved().speech == "whisper"
    (tmp_path / "pytorch_model.bin").touch()
    monkeypatch.setattr(process_config, "multiclass_file", lambda: tmp_path / "model.tflite")
    assert (PortraitDataConfig().resolved().segmenter, PortraitDataConfig().resolved().speech) == (
        "multiclass",
        "hubert",
    )
    with pytest.raises(ValueError, match=r"max_occlusion in 0\.\.1"):
        PortraitDataConfig(max_occlusion=2)
