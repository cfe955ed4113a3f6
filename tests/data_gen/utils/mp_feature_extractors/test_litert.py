import zipfile

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.litert import LiteRtModel
from modules.commons.errors import ModelFileError
from modules.commons.workspace import MEDIAPIPE_DIR


def test_a_network_from_a_file_and_from_a_bundle_gives_the_same():
    alone = LiteRtModel.from_file(MEDIAPIPE_DIR / "face_detection_short_range.tflite")
    bundled = LiteRtModel.from_task(MEDIAPIPE_DIR / "face_landmarker.task", "face_detector.tflite")
    assert alone.input_shape == bundled.input_shape == (1, 128, 128, 3)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 128, 128, 3)).astype(np.float32)
    first, second = alone.run(image), bundled.run(image)
    assert set(first) == {"regressors", "classificators"}
    for name in first:
        np.testing.assert_allclose(first[name], second[name], atol=1e-4)


def test_a_batch_is_run_one_by_one():
    model = LiteRtModel.from_task(MEDIAPIPE_DIR / "face_landmarker.task", "face_blendshapes.tflite")
    points = np.random.default_rng(0).uniform(0, 256, (3, 146, 2)).astype(np.float32)
    (scores,) = model.run(points).values()
    assert scores.shape == (3, 52), "the file's own output has no batch"
    for row, one in zip(scores, points, strict=True):
        (alone,) = model.run(one[None]).values()
        np.testing.assert_array_equal(alone[0], row)


def test_pictures_are_scaled_to_the_range_asked_for():
    model = LiteRtModel.from_file(MEDIAPIPE_DIR / "selfie_segmentation.tflite")
    picture = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), dtype=np.uint8)
    for values, low in ((picture.astype(np.float32) / 255.0, 0.0), (picture.astype(np.float32) / 127.5 - 1.0, -1.0)):
        for found, expected in zip(model.run_images(picture, low).values(), model.run(values).values(), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_outputs_are_copies():
    model = LiteRtModel.from_file(MEDIAPIPE_DIR / "selfie_segmentation.tflite")
    (black,) = model.run(np.zeros((1, 256, 256, 3), dtype=np.float32)).values()
    kept = black.copy()
    model.run(np.ones((1, 256, 256, 3), dtype=np.float32))
    np.testing.assert_array_equal(black, kept)


def test_missing_and_damaged_files_say_what_to_do(tmp_path):
    with pytest.raises(ModelFileError, match=r"gone\.tflite is missing; run `bash scripts/setup\.sh`"):
        LiteRtModel.from_file(tmp_path / "gone.tflite")
    with pytest.raises(ModelFileError, match="is missing"):
        LiteRtModel.from_task(tmp_path / "gone.task", "x.tflite")
    (tmp_path / "bad.tflite").write_bytes(b"not a network at all, but long enough to be looked at" * 4)
    with pytest.raises(ModelFileError, match=r"bad\.tflite is not a network"):
        LiteRtModel.from_file(tmp_path / "bad.tflite")
    with pytest.raises(ModelFileError, match="does not hold x"):
        LiteRtModel.from_task(tmp_path / "bad.tflite", "x")
    with zipfile.ZipFile(tmp_path / "other.task", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(ModelFileError, match=r"does not hold x\.tflite"):
        LiteRtModel.from_task(tmp_path / "other.task", "x.tflite")
