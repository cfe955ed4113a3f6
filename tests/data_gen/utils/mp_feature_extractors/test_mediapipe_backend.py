"""Parity with the package these networks come from; runs where it is installed."""

import builtins

import cv2
import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors import blazeface, face_landmarker
from data_gen.utils.mp_feature_extractors.blazeface import BlazeFace
from data_gen.utils.mp_feature_extractors.face_landmarker import (
    FaceLandmarker,
    build_landmarker,
    region_of_face,
    region_of_landmarks,
)
from modules.commons.errors import BackendUnavailableError, ModelFileError
from modules.structures.landmarks import inter_ocular_px
from modules.video.colour import rgb_from_planes
from tests.support.real_frames import DEMO_CLIP, read_frame


def pixels_on_integers(rgb, region, size, *, flags=cv2.INTER_LINEAR, border_mode=cv2.BORDER_REPLICATE):
    """MediaPipe's own sampling: pixel centres on integers, off by half a pixel times (scale - 1)."""
    return cv2.warpAffine(rgb, region.crop_from_frame(size)[:2], (size, size), flags=flags, borderMode=border_mode)


@pytest.fixture(scope="module")
def package():
    try:
        with build_landmarker("mediapipe") as landmarker:
            yield landmarker
    except BackendUnavailableError as error:
        pytest.skip(f"mediapipe is not installed: {error}")


@pytest.mark.parametrize("index", [0, 255, 312])
def test_same_landmarks_as_mediapipe_in_its_own_convention(package, demo_dir, monkeypatch, index):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, index))
    image = package._mediapipe.Image(image_format=package._mediapipe.ImageFormat.SRGB, data=rgb)
    found = package._task.detect(image)
    expected = np.array([(mark.x * rgb.shape[1], mark.y * rgb.shape[0]) for mark in found.face_landmarks[0]])
    monkeypatch.setattr(blazeface, "sample_region", pixels_on_integers)
    monkeypatch.setattr(face_landmarker, "sample_region", pixels_on_integers)
    ours = FaceLandmarker().detect(rgb, region_of_face(BlazeFace("short").detect(rgb)[0]))
    assert np.linalg.norm(ours.points - expected, axis=1).mean() < 0.06
    scores = [shape.score for shape in found.face_blendshapes[0]]
    np.testing.assert_allclose(ours.blendshapes, scores, atol=0.02)


def test_the_backend_agrees_with_the_default(package, demo_dir):
    rgb = rgb_from_planes(read_frame(demo_dir / DEMO_CLIP, 0))
    region = region_of_face(BlazeFace("short").detect(rgb)[0])
    default = FaceLandmarker()
    ours = default.detect(rgb, region_of_landmarks(default.detect(rgb, region).points))
    theirs = package.detect(rgb, region)
    error = np.linalg.norm(ours.points - theirs.points, axis=1).mean()
    assert error / inter_ocular_px(ours.points) < 0.03
    assert theirs.score == 1.0


def test_no_face_is_a_score_of_zero(package):
    grey = np.full((200, 200, 3), 128, dtype=np.uint8)
    result = package.detect(grey, face_landmarker.region_of_box(blazeface.BoundingBox(50, 50, 150, 150)))
    assert result.score == 0.0
    assert np.isnan(result.points).all()


def test_without_the_package_the_error_names_both_ways_out(monkeypatch):
    real_import = builtins.__import__

    def refusing(name, *args, **kwargs):
        if name.split(".")[0] == "mediapipe":
            raise ImportError("libEGL.so.1: cannot open shared object file")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refusing)
    with pytest.raises(BackendUnavailableError, match=r"libEGL.*requirements-mediapipe\.txt.*'litert'"):
        build_landmarker("mediapipe")


def test_a_missing_bundle_comes_first(tmp_path):
    with pytest.raises(ModelFileError, match="is missing"):
        build_landmarker("mediapipe", models=tmp_path)
