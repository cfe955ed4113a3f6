"""The reader of the multiclass segmentation, on a tiny network of the same signature."""

import importlib.util

import numpy as np
import pytest
import torch

from data_gen.utils.mp_feature_extractors import tflite_ops
from data_gen.utils.mp_feature_extractors.multiclass_segmenter import (
    MULTICLASS_FILE,
    ClassSegmenter,
    multiclass_file,
    softmax,
    usable_runtime,
)
from data_gen.utils.mp_feature_extractors.networks import Runtime
from modules.commons.errors import ModelFileError
from modules.structures.segmentation import SelfieClass
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame
from tests.support.tiny_segmenter import COLOURS, SHARPNESS, write_segmenter

RUNTIMES = [Runtime("litert", torch.device("cpu")), Runtime("torch", torch.device("cpu"))]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_segmenter(tmp_path_factory.mktemp("models") / MULTICLASS_FILE).parent


def stripes(height, width):
    """Six upright stripes, one of each class's colour."""
    kinds = np.minimum(np.arange(width) * 6 // width, 5)
    colours = np.array([COLOURS[kind] for kind in SelfieClass], np.uint8)
    return np.broadcast_to(colours[kinds], (height, width, 3)).copy(), kinds


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
@pytest.mark.parametrize("size", [(256, 256), (143, 601), (90, 61)])
def test_each_pixel_gets_the_probabilities_of_its_classes(models, runtime, size):
    rgb, kinds = stripes(*size)
    found = ClassSegmenter(models=models, runtime=runtime).segment_classes(rgb)
    assert found.shape == (*size, 6) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    middle = np.arange(6) * size[1] // 6 + size[1] // 12
    assert found[size[0] // 2, middle].argmax(axis=-1).tolist() == kinds[middle].tolist() == list(range(6))


def test_the_scores_are_made_probabilities_by_softmax(models):
    """Worked out by hand: logits fall with the squared distance to each class's colour."""
    colour = np.array([120, 130, 140], np.uint8)
    rgb = np.broadcast_to(colour, (256, 256, 3)).copy()
    found = ClassSegmenter(models=models, runtime=RUNTIMES[0]).segment_classes(rgb)
    centres = np.array([COLOURS[kind] for kind in SelfieClass]) / 255
    weights = np.exp(-SHARPNESS * ((colour / 255 - centres) ** 2).sum(axis=1))
    np.testing.assert_allclose(found[100, 100], weights / weights.sum(), atol=1e-5)


def test_large_scores_do_not_overflow():
    np.testing.assert_allclose(softmax(np.array([[1000.0, 1000.0, -1000.0]], np.float32)), [[0.5, 0.5, 0.0]])


def test_the_optional_file_is_found_or_named(tmp_path, models):
    assert multiclass_file(tmp_path) is None
    assert multiclass_file(models) == models / MULTICLASS_FILE
    with pytest.raises(ModelFileError, match=r"selfie_multiclass_256x256\.tflite is missing; run `bash scripts/down"):
        ClassSegmenter(models=tmp_path)


def test_another_network_is_refused(tmp_path):
    write_segmenter(tmp_path / MULTICLASS_FILE, classes=2)
    segmenter = ClassSegmenter(models=tmp_path, runtime=RUNTIMES[0])
    with pytest.raises(ModelFileError, match=r"gives \[\(1, 256, 256, 2\)\], not \[1, H, W, 6\]"):
        segmenter.segment_classes(np.zeros((256, 256, 3), np.uint8))


def test_what_torch_cannot_run_runs_on_litert_and_the_log_says_so(models, monkeypatch, caplog):
    caplog.set_level("INFO")
    litert, plain = RUNTIMES
    assert usable_runtime(plain, models) is plain and usable_runtime(litert, models) is litert and not caplog.text
    monkeypatch.delitem(tflite_ops.OPS, "CONV_2D")
    assert usable_runtime(plain, models) == litert
    assert "runs on LiteRT: " in caplog.text and "uses the operation CONV_2D" in caplog.text
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match="cannot be run in torch"):
        usable_runtime(plain, models)


@pytest.mark.skipif(multiclass_file() is None, reason="needs the multiclass segmentation's file")
def test_the_real_network_tells_a_face_from_a_wall(demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    found = ClassSegmenter(runtime=RUNTIMES[0]).segment_classes(rgb)
    assert found[150:300, 380:480, SelfieClass.FACE_SKIN].mean() > 0.5, "face"
    assert found[:, :200, SelfieClass.BACKGROUND].mean() > 0.5, "wall"
