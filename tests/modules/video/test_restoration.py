"""The restoration plug-in: real TorchScript files, what it may change, and clear words for files that are none."""

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from modules.commons.errors import ModelFileError
from modules.video.restoration import SIZE, load_restorer, restored

CPU = torch.device("cpu")


class Sharpen(nn.Module):
    """Unsharp masking and a colour cast, as a restorer that shifts colours would have it."""

    def __init__(self, amount=1.0, cast=0.1):
        super().__init__()
        kernel = torch.full((3, 1, 5, 5), 1 / 25)
        self.register_buffer("kernel", kernel)
        self.amount, self.cast = amount, cast

    def forward(self, x):
        smooth = nn.functional.conv2d(nn.functional.pad(x, (2, 2, 2, 2), mode="replicate"), self.kernel, groups=3)
        return (x + self.amount * (x - smooth) + self.cast).clamp(0, 1)


class Half(nn.Module):
    def forward(self, x):
        return nn.functional.avg_pool2d(x, 2)


def saved(tmp_path, model, name="model.pt"):
    path = tmp_path / name
    torch.jit.trace(model, torch.rand(1, 3, SIZE, SIZE)).save(str(path))
    return path


def mouth():
    rng = np.random.default_rng(0)
    rgb = cv2.GaussianBlur(rng.uniform(0.2, 0.7, (90, 140, 3)).astype(np.float32), (0, 0), 2)
    weight = np.zeros((90, 140), np.float32)
    weight[30:60, 40:100] = 1
    return rgb, cv2.GaussianBlur(weight, (0, 0), 2) * (cv2.dilate(weight, np.ones((9, 9))) > 0)


def test_a_torchscript_model_sharpens_the_mouth_alone_and_shifts_no_colour(tmp_path):
    rgb, weight = mouth()
    found = restored(rgb, weight, load_restorer(saved(tmp_path, Sharpen()), CPU))
    assert np.array_equal(found[weight == 0], rgb[weight == 0])
    inside = weight > 0.99
    lap = [cv2.Laplacian(picture, cv2.CV_32F)[inside].std() for picture in (rgb, found)]
    assert lap[1] > 1.02 * lap[0]
    assert abs(float((found - rgb)[inside].mean())) < 0.004  # the model's own cast is 0.1


def test_an_identity_model_changes_nothing(tmp_path):
    rgb, weight = mouth()
    found = restored(rgb, weight, load_restorer(saved(tmp_path, nn.Identity(), "model.ts"), CPU))
    assert np.abs(found - rgb).max() < 1e-5
    assert restored(rgb, 0 * weight, load_restorer(saved(tmp_path, nn.Identity()), CPU)) is rgb


@pytest.mark.parametrize("name", ["model.pt", "model.onnx", "model.bin"])
def test_files_that_are_no_models_are_named(tmp_path, name):
    with pytest.raises(ModelFileError, match="there is no such restoration model"):
        load_restorer(tmp_path / name, CPU)
    (tmp_path / name).write_bytes(b"not a model at all")
    with pytest.raises(ModelFileError, match=name):
        load_restorer(tmp_path / name, CPU)


def test_a_model_with_another_size_of_answer_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"answers with \(1, 3, 128, 128\)"):
        load_restorer(saved(tmp_path, Half()), CPU)
