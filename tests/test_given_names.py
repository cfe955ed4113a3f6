"""The names this project promises: each is there with its signature, and does its work on a few real frames."""

import inspect
import json
import shutil
from dataclasses import replace
from inspect import Parameter
from itertools import islice

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from data_gen.utils.process_video.crop_utils import extract_face_crops, load_crop_metadata, save_crop_metadata
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.fit_3dmm_landmark import cal_lan_loss_mp_with_occlusion, fit_3dmm_for_a_video
from data_gen.utils.process_video.occlusion_detector import OcclusionDetector
from inference import genefacepp_infer, genefacepp_infer_arbitrary
from inference.face_compositor import FaceCompositor
from inference.genefacepp_infer import GeneFace2Infer
from inference.genefacepp_infer_arbitrary import GeneFace2InferArbitrary
from modules.commons.progress import silent
from modules.commons.workspace import FACE_MODEL_FILE, VideoWorkspace
from modules.face_model.model import FaceModel
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.dataset import NeRFDataset
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frames import Frame
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionMask
from modules.structures.tracks import FaceTrack
from modules.video.colour import rgb_from_planes
from modules.video.reader import VideoReader
from tasks.radnerfs.dataset_utils import RADNeRFDataset
from tests.support.real_frames import DEMO_CLIP, read_frame
from tests.support.tiny_run import cut, own_folders, tiny_run, write_wav

HAND_FRAME = 90
"""Of the demo clip: her hand is on her mouth."""


def signature(function) -> list[str]:
    """Names of the arguments that a caller may give by place or must give, ``self`` left out."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, p in inspect.signature(function).parameters.items() if p.kind in kinds and name != "self"]


def default(function, name):
    return inspect.signature(function).parameters[name].default


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def workspace(run) -> VideoWorkspace:
    (processed,) = (run.root / "data" / "processed" / "videos").iterdir()
    return VideoWorkspace(processed.name, run.root / "data")


@pytest.fixture(scope="module")
def frames(run) -> list[Frame]:
    with VideoReader(run.clip) as reader:
        return list(islice(reader.frames(), 8))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def track(detector, frames) -> FaceTrack:
    return detector.track_faces(frames)[0]


@pytest.fixture(scope="module")
def hand_rgb(demo_dir):
    return rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, HAND_FRAME))


def test_detect_face_bbox(detector, frames):
    assert signature(FaceDetector.detect_face_bbox)[0] == "rgb"
    (face,) = detector.detect_face_bbox(rgb_from_planes(frames[0]))
    assert isinstance(face.box, BoundingBox) and 100 < face.box.height < 360 and 0.5 < face.score <= 1


def test_track_faces(track, frames):
    assert signature(FaceDetector.track_faces) == ["frames"]
    assert isinstance(track, FaceTrack) and len(track) == len(frames) and track.is_detected.all()


def test_compute_stable_crop_region(detector, track):
    function = FaceDetector.compute_stable_crop_region
    assert signature(function) == ["track", "frame_size_hw", "margin", "crop_size"]
    assert default(function, "margin") == 0.3 and default(function, "crop_size") == 512
    crops = detector.compute_stable_crop_region(track, (360, 640))
    assert isinstance(crops, CropMetadata) and crops.crop_size == 512
    wide = detector.compute_stable_crop_region(track, (360, 640), margin=0.6, crop_size=256)
    assert wide.crop_size == 256 and wide.region(0).side > crops.region(0).side
    box, square = track.box(0).scaled(1.5), crops.region(0).bounding_box()
    assert square.x0 < box.x0 and square.x1 > box.x1


def test_bounding_box_and_crop_region():
    assert signature(BoundingBox) == ["x0", "y0", "x1", "y1"]
    assert BoundingBox(0, 0, 4, 2).area == 8 and BoundingBox(0, 0, 2, 2).iou(BoundingBox(1, 0, 3, 2)) == 1 / 3
    assert signature(CropRegion)[:3] == ["center_x", "center_y", "side"]
    corner = CropRegion(50, 40, 20).crop_from_frame(512) @ np.array([40, 30, 1])
    np.testing.assert_allclose(corner, [0, 0, 1], atol=1e-9)


def test_extract_face_crops_and_save_crop_metadata(detector, track, frames, tmp_path):
    assert signature(extract_face_crops) == ["frames", "metadata"]
    assert signature(save_crop_metadata) == ["metadata", "path"]
    metadata = detector.compute_stable_crop_region(track, (360, 640), crop_size=256)
    crops = dict(extract_face_crops(frames[:2], metadata))
    assert list(crops) == [0, 1] and all(c.shape == (256, 256, 3) and c.dtype == np.uint8 for c in crops.values())
    (face,) = detector.detect_face_bbox(crops[0])
    assert np.hypot(face.box.center[0] - 128, face.box.center[1] - 128) < 50, "the crop is around the face"
    save_crop_metadata(metadata, tmp_path / "crop_metadata.json")
    assert load_crop_metadata(tmp_path / "crop_metadata.json").regions == metadata.regions
    assert "schema" in json.loads((tmp_path / "crop_metadata.json").read_text())


def test_fit_3dmm_for_a_video(workspace, tmp_path):
    assert signature(fit_3dmm_for_a_video)[0] == "workspace"
    own = VideoWorkspace(workspace.video_id, tmp_path)
    shutil.copytree(workspace.processed, own.processed)
    landmarks = Landmarks2D.load(own.landmarks)
    first = 10
    Landmarks2D(
        landmarks.points[:first], landmarks.depth[:first], landmarks.valid[:first], landmarks.blendshapes[:first]
    ).save(own.landmarks)
    for name in ("coeffs", "hands", "occlusion"):
        getattr(own, name).unlink()
    coeffs = fit_3dmm_for_a_video(own, FaceModel.load(FACE_MODEL_FILE))
    assert len(coeffs) == first and coeffs.valid.all() and np.nanmax(coeffs.residual) < 0.06
    assert np.array_equal(FaceModelCoeffs.load(own.coeffs).expression, coeffs.expression)


def test_cal_lan_loss_mp_with_occlusion(workspace):
    assert signature(cal_lan_loss_mp_with_occlusion)[:3] == ["proj_lan", "gt_lan", "occlusion_mask"]
    truth = torch.tensor(Landmarks2D.load(workspace.landmarks).points[:2])
    guess = truth.clone()
    guess[:, 0] += 40.0
    free = torch.zeros(2, 478, dtype=torch.bool)
    hidden = free.clone()
    hidden[:, 0] = True
    assert float(cal_lan_loss_mp_with_occlusion(truth, truth, free)) == 0
    assert float(cal_lan_loss_mp_with_occlusion(guess, truth, free)) > 0
    assert float(cal_lan_loss_mp_with_occlusion(guess, truth, hidden)) == 0


def test_occlusion_detector(hand_rgb, detector):
    assert signature(OcclusionDetector.detect_hands)[0] == "rgb"
    assert signature(OcclusionDetector.detect_face_occlusions)[:2] == ["rgb", "face_bbox"]
    assert signature(OcclusionDetector.generate_occlusion_aware_mask) == ["face_mask", "occlusion"]
    occlusions = OcclusionDetector()
    box = detector.detect_face_bbox(hand_rgb)[0].box
    hands = occlusions.detect_hands(hand_rgb, box)
    assert hands.shape[1:] == (21, 2) and len(hands) >= 1
    mask = occlusions.detect_face_occlusions(hand_rgb, box)
    assert isinstance(mask, OcclusionMask) and mask.space == "frame" and mask.values.shape == hand_rgb.shape[:2]
    assert mask.coverage > 0.01
    free = occlusions.generate_occlusion_aware_mask(np.ones(hand_rgb.shape[:2], np.float32), mask)
    np.testing.assert_allclose(free, 1 - mask.values)


def test_occlusion_mask():
    assert signature(OcclusionMask) == ["values", "space", "hands"]
    mask = OcclusionMask(np.eye(4, dtype=np.float32), "crop", np.zeros((0, 21, 2), np.float32))
    assert mask.coverage == 0.25
    with pytest.raises(ValueError, match="outside"):
        replace(mask, values=2 * mask.values)


@pytest.mark.parametrize("blend_mode", ["alpha", "multiband", "seamless"])
def test_face_compositor(frames, detector, track, blend_mode):
    arguments = ["original_frame", "generated_face", "crop_region", "face_mask"]
    assert signature(FaceCompositor.composite) == arguments
    assert signature(FaceCompositor.composite_with_hands) == [*arguments, "occlusion_mask"]
    assert signature(FaceCompositor)[0] == "blend_mode"
    metadata = detector.compute_stable_crop_region(track, (360, 640))
    frame, region = frames[0], metadata.region(0)
    ((_, crop),) = extract_face_crops([frame], metadata)
    rows, columns = np.mgrid[:512, :512] - 255.5
    face_mask = np.clip(2 - np.hypot(rows, columns) / 90, 0, 1).astype(np.float32)
    compositor = FaceCompositor(blend_mode=blend_mode)
    result = compositor.composite(frame, 255 - crop, region, face_mask)
    changed = result.planes[0] != frame.planes[0]
    assert 0.01 < changed.mean() < 0.5
    hand = np.zeros((512, 512), np.float32)
    hand[:256] = 1
    mask = OcclusionMask(hand, "crop", np.zeros((0, 21, 2), np.float32))
    behind = compositor.composite_with_hands(frame, 255 - crop, region, face_mask, mask)
    top = slice(None, int(region.center_y) - 2)
    assert np.array_equal(behind.planes[0][top], frame.planes[0][top])
    assert (behind.planes[0] != frame.planes[0]).any()


def test_radnerf_dataset(workspace):
    assert signature(RADNeRFDataset.__init__)[:2] == ["source", "face_model"]
    source = NeRFDataset.load(workspace.dataset)
    dataset = RADNeRFDataset(
        source,
        FaceModel.load(FACE_MODEL_FILE),
        region="lower_face",
        margin_px=8,
        window=5,
        ray_stride=4,
        progress=silent,
    )
    assert len(dataset.train_indices) == source.is_train.sum() and len(dataset.rays) > 1000
    assert dataset.rays.position.shape[1] == 3 and dataset.rays.rgb.dtype == torch.uint8


def test_infer_once_arbitrary(run, tmp_path):
    assert signature(GeneFace2InferArbitrary.infer_once_arbitrary) == ["inp"]
    out = tmp_path / "out.mp4"
    with own_folders(run.root):
        job = {"src_video": str(run.clip), "audio": str(run.speech), "out_name": str(out)}
        assert GeneFace2InferArbitrary().infer_once_arbitrary(job) == out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.mp4", "out.mp4.json", "out.mp4.provenance.json"]
    assert json.loads((tmp_path / "out.mp4.json").read_text())["frames"] == 40


def test_infer_once(run, tmp_path):
    assert signature(GeneFace2Infer.infer_once) == ["inp"]
    speech = write_wav(tmp_path / "a.wav", cut(load_audio_16k(run.speech), 0.3, 0.5))
    job = {"drv_aud": str(speech), "out_name": str(tmp_path / "o.mp4"), "head_ckpt": str(run.identity)}
    with VideoReader(GeneFace2Infer().infer_once(job)) as reader:
        assert len(list(reader.frames())) == 5 and reader.info.height == 512


# fmt: off
GENEFACE_FLAGS = (
    "--a2m_ckpt", "{person}", "--head_ckpt", "{person}", "--torso_ckpt", "{person}", "--drv_aud", "{speech}",
    "--drv_pose", "nearest", "--blink_mode", "none", "--lle_percent", "0.3", "--temperature", "0.1",
    "--mouth_amp", "0.8", "--raymarching_end_threshold", "0.02", "--out_name", "{out}", "--debug", "--fast",
    "--low_memory_usage",
)
# fmt: on


@pytest.mark.parametrize("module", [genefacepp_infer, genefacepp_infer_arbitrary])
def test_genefaces_flags(module, demo_dir, tmp_path):
    paths = {"person": tmp_path, "speech": demo_dir / "obama_speech.wav", "out": tmp_path / "o.mp4"}
    flags = [text.format(**paths) for text in GENEFACE_FLAGS]
    if module is genefacepp_infer_arbitrary:
        flags += ["--src_video", str(demo_dir / "single_face.mp4")]
    job = module.parse_arguments(flags)
    speech = job.drv_aud.shared if module is genefacepp_infer_arbitrary else job.drv_aud
    assert job.a2m_ckpt == job.head_ckpt == tmp_path and speech == paths["speech"] and job.out_name == paths["out"]
    assert (job.lle_percent, job.temperature, job.mouth_amp) == (0.3, 0.1, 0.8)
    assert job.debug and job.raymarching_end_threshold == 0.05, "--fast is GeneFace++'s threshold of 0.05"
