"""The networks in torch against the runtimes they were made for, on real pictures."""

import cv2
import numpy as np
import pytest
import torch

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.mp_feature_extractors.litert import LiteRtModel
from data_gen.utils.mp_feature_extractors.mp_segmenter import PersonSegmenter
from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network
from data_gen.utils.mp_feature_extractors.torch_network import TorchNetwork
from data_gen.utils.process_video.centerface import CenterFace
from data_gen.utils.process_video.face_detector import FaceDetector
from data_gen.utils.process_video.landmark_track import track_and_landmark
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropRegion, sample_region
from modules.video.colour import rgb_from_planes
from tests.support.networks import PICTURE_NETWORKS, SCORES, assert_close, score_input
from tests.support.real_frames import DEMO_CLIP, read_frames

TORCH = Runtime("torch", torch.device("cpu"))
LITERT = Runtime("litert", torch.device("cpu"))
FACE_BOX = BoundingBox(320, 60, 550, 345)
LOOK = CropRegion(435.0, 205.0, 400.0, 0.05)
PIXELS = {"face_detector": 128, "hand": 224, "palm": 192, "full_range": 192}


@pytest.fixture(scope="module")
def frames(demo_dir):
    return [rgb_from_planes(frame) for frame in read_frames(demo_dir / DEMO_CLIP, 0, 240, 80)]


def crops(images, size):
    return np.stack([sample_region(image, LOOK, size) for image in images])


@pytest.mark.parametrize("network", PICTURE_NETWORKS, ids=str)
def test_torch_says_what_litert_says_of_real_pictures(network, frames):
    """Values are pixels of the network's input, or logits and scores; XNNPACK adds up in another order."""
    litert, in_torch = (load_network(runtime, network.path, network.member) for runtime in (LITERT, TORCH))
    assert isinstance(litert, LiteRtModel) and isinstance(in_torch, TorchNetwork)
    assert litert.input_shape == in_torch.input_shape
    pictures = crops(frames, litert.input_shape[1])
    expected = litert.run_images(pictures, network.low, network.high)
    assert_close(in_torch.run_images(pictures, network.low, network.high), expected, 1e-3)


def test_torch_scores_expressions_like_litert():
    litert, in_torch = (load_network(r, PICTURE_NETWORKS[0].path, SCORES) for r in (LITERT, TORCH))
    points = score_input(3)
    assert_close(in_torch.run(points), litert.run(points), 1e-5)
    (scores,) = in_torch.run(points).values()
    assert scores.shape == (3, 52)


@pytest.mark.parametrize("network", [*PICTURE_NETWORKS[:3], PICTURE_NETWORKS[5]], ids=str)
def test_a_batch_of_three_is_three_single_ones(network, frames):
    in_torch = load_network(TORCH, network.path, network.member)
    pictures = crops(frames, in_torch.input_shape[1])
    together = in_torch.run_images(pictures, network.low, network.high)
    each = [in_torch.run_images(pictures[i : i + 1], network.low, network.high) for i in range(3)]
    assert_close(together, {name: np.concatenate([one[name] for one in each]) for name in together}, 2e-4)


def test_results_are_copies():
    in_torch = load_network(TORCH, PICTURE_NETWORKS[0].path, SCORES)
    (first,) = in_torch.run(score_input(1)).values()
    kept = first.copy()
    in_torch.run(score_input(1) + np.arange(146, dtype=np.float32)[None, :, None])
    np.testing.assert_array_equal(first, kept)


def test_centerface_in_torch_is_centerface_in_opencv(frames):
    found, expected = (CenterFace(runtime=runtime) for runtime in (TORCH, LITERT))
    pictures = np.stack([cv2.resize(frame, (320, 192)) for frame in frames])
    for ours, theirs in zip(found._maps(pictures), expected._maps(pictures), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
    for (ours,), (theirs,) in zip(
        *(d.detect_many(frames, [None] * 3, max_side=320) for d in (found, expected)), strict=True
    ):
        np.testing.assert_allclose(ours.box.as_array(), theirs.box.as_array(), atol=0.01)
        np.testing.assert_allclose(ours.keypoints, theirs.keypoints, atol=0.01)
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)


def test_landmarks_are_the_same_within_a_hundredth_of_a_pixel(frames):
    ours, theirs = (FaceLandmarker(runtime=runtime).detect(frames[0], FACE_BOX) for runtime in (TORCH, LITERT))
    assert np.abs(ours.points - theirs.points).max() < 0.01
    assert np.abs(ours.depth - theirs.depth).max() < 0.01
    assert ours.score == pytest.approx(theirs.score, abs=1e-4)
    np.testing.assert_allclose(ours.blendshapes, theirs.blendshapes, atol=1e-3)


@pytest.mark.parametrize("runtime", [TORCH, LITERT], ids=str)
def test_many_faces_at_once_are_found_as_one_by_one(frames, runtime):
    landmarker = FaceLandmarker(runtime=runtime)
    looks = [FACE_BOX, LOOK, CropRegion(430.0, 190.0, 380.0, -0.2)]
    images = [frames[0], frames[0], frames[2]]
    assert landmarker.detect_many([], []) == []
    for found, image, look in zip(landmarker.detect_many(images, looks), images, looks, strict=True):
        one = landmarker.detect(image, look)
        np.testing.assert_allclose(found.points, one.points, atol=2e-3)
        np.testing.assert_allclose(found.blendshapes, one.blendshapes, atol=1e-3)


def test_scores_may_come_later(frames):
    at_once, later = FaceLandmarker(runtime=TORCH), FaceLandmarker(runtime=TORCH, scores_later=True)
    results = [later.detect(frame, FACE_BOX) for frame in frames[:2]]
    assert not results[0].blendshapes.any() and later.with_scores([]) == []
    for found, frame in zip(later.with_scores(results), frames, strict=False):
        np.testing.assert_allclose(found.blendshapes, at_once.detect(frame, FACE_BOX).blendshapes, atol=1e-5)
    assert at_once.with_scores(results) == results


@pytest.mark.slow
def test_a_person_is_cut_out_alike(frames):
    ours, theirs = (PersonSegmenter(runtime=runtime).segment(frames[0]) for runtime in (TORCH, LITERT))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.slow
def test_tracking_a_clip_gives_the_same_landmarks(demo_dir):
    def tracked(runtime):
        frames = read_frames(demo_dir / DEMO_CLIP, 50, 70)
        return track_and_landmark(frames, FaceLandmarker(runtime=runtime), FaceDetector(runtime=runtime))

    (ours, our_points), (theirs, their_points) = tracked(TORCH), tracked(LITERT)
    np.testing.assert_array_equal(ours.status, theirs.status)
    assert our_points.valid.all()
    assert np.abs(our_points.points - their_points.points).max() < 0.1
    np.testing.assert_allclose(our_points.blendshapes, their_points.blendshapes, atol=0.01)
