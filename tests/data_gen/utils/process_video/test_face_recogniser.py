"""The loading path of SFace, on a tiny network with SFace's interface (112 px BGR in, one vector out)."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest

from data_gen.utils.process_video.face_recogniser import FaceRecogniser, find_recogniser, five_points
from modules.commons.errors import ModelFileError


def field(number, value):
    """One protobuf field: an integer, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def tensor_info(name, shape):
    dims = b"".join(field(1, field(1, n)) for n in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))


def tiny_onnx():
    """Mean colour of each quarter: AveragePool 56 × 56, then Flatten to ``fc1 [1, 12]``."""

    def ints(name, values):
        return field(5, field(1, name) + b"".join(field(8, n) for n in values) + field(20, 7))

    pool = field(1, "data") + field(2, "pooled") + field(4, "AveragePool")
    pool += ints("kernel_shape", (56, 56)) + ints("strides", (56, 56))
    flat = field(1, "pooled") + field(2, "fc1") + field(4, "Flatten")
    graph = field(1, pool) + field(1, flat) + field(2, "tiny")
    graph += field(11, tensor_info("data", (1, 3, 112, 112))) + field(12, tensor_info("fc1", (1, 12)))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 11))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "face_recognition_sface.onnx"
    path.write_bytes(tiny_onnx())
    return path


def picture():
    """A face-sized square, red above and blue below, and five points that fill it like a face."""
    rgb = np.full((300, 400, 3), 40, np.uint8)
    rgb[60:172, 150:262] = (220, 20, 20)
    rgb[116:172, 150:262] = (20, 20, 220)
    template = np.array(
        [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
    )
    return rgb, template + np.array([150, 60])


def test_faces_are_aligned_before_they_are_read(model):
    rgb, five = picture()
    recogniser = FaceRecogniser(model)
    vector = recogniser.embed(rgb, five)
    assert vector.shape == (12,)
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)
    small = cv2.resize(rgb, (200, 150), interpolation=cv2.INTER_AREA)
    assert vector @ recogniser.embed(small, five / 2) > 0.99, "the size of the face does not matter"
    turned = np.ascontiguousarray(np.rot90(rgb))
    around = np.column_stack([five[:, 1], 400 - five[:, 0]])
    assert vector @ recogniser.embed(turned, around) > 0.99, "nor does its roll"
    upside_down = rgb.copy()
    upside_down[60:172, 150:262] = rgb[60:172, 150:262][::-1]
    assert vector @ recogniser.embed(upside_down, five) < 0.8


def test_five_points_come_off_the_landmarks():
    points = np.arange(478 * 2, dtype=float).reshape(478, 2)
    five = five_points(points)
    np.testing.assert_array_equal(five[0], (points[33] + points[133]) / 2)
    np.testing.assert_array_equal(five[2:], points[[1, 61, 291]])


def test_no_file_is_no_recogniser_and_a_wrong_one_is_an_error(tmp_path, model):
    assert find_recogniser(tmp_path / "nothing") is None
    assert isinstance(find_recogniser(model.parent), FaceRecogniser)
    with pytest.raises(ModelFileError, match="is missing; put OpenCV's SFace"):
        FaceRecogniser(tmp_path / "none.onnx")
    wrong = tmp_path / "wrong.onnx"
    for content in (b"", b"not a network", struct.pack("<100d", *range(100))):
        wrong.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"wrong\.onnx is not a face-recognition network"):
            FaceRecogniser(wrong)
