"""A plug-in for restoring the rendered mouth with somebody else's model: off unless a model file is named.

The contract of a model file is small, so that any face or mouth enhancer can be wrapped into it: one input and one
output, both float32 ``[1, 3, 256, 256]``, RGB in 0..1, the mouth in the middle. TorchScript (``torch.jit.save``) and
ONNX (fixed input size) are read. Only the fine part of the answer is used; colour and shading stay the renderer's, so
that a model which shifts them does not flicker.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from modules.commons.errors import ModelFileError, first_line

SIZE = 256
MARGIN = 0.35
"""Of the mouth's longer side, on every side of it."""
DETAIL_SHARE = 1 / 16
"""Width of the low-pass whose answer stays the renderer's, of the crop's side."""
ONNX_SUFFIX = ".onnx"
TORCHSCRIPT_SUFFIXES = (".pt", ".pts", ".ts", ".torchscript")

Crop = NDArray[np.float32]


class Restorer(Protocol):
    """Makes a mouth crop look filmed."""

    def restore(self, crop: Crop) -> Crop:
        """RGB ``[SIZE, SIZE, 3]`` 0..1 of RGB ``[SIZE, SIZE, 3]`` 0..1."""
        ...


class ModelRestorer:
    """A model file as a ``Restorer``; ``run`` maps ``[1, 3, SIZE, SIZE]`` to the same shape.

    Args:
        path: of the file, for messages.
        run: the model.

    Raises:
        ModelFileError: the model cannot be run on a crop.
    """

    def __init__(self, path: Path, run: Callable[[Crop], Crop]) -> None:
        self._path, self._run = path, run
        self.restore(np.full((SIZE, SIZE, 3), 0.5, np.float32))

    def restore(self, crop: Crop) -> Crop:
        """See ``Restorer``.

        Raises:
            ModelFileError: the model fails, or its answer is no picture of the same size.
        """
        stacked = np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32)
        try:
            answer = np.asarray(self._run(stacked), np.float32)
        except (RuntimeError, cv2.error) as error:
            raise ModelFileError(f"{self._path} cannot restore a mouth ({first_line(error)}); {_CONTRACT}") from error
        if answer.shape != stacked.shape or not np.isfinite(answer).all():
            raise ModelFileError(f"{self._path} answers with {answer.shape} or with values that are none; {_CONTRACT}")
        return np.clip(answer[0].transpose(1, 2, 0), 0, 1)


def load_restorer(path: Path, device: torch.device) -> ModelRestorer:
    """The restorer in a TorchScript or ONNX file.

    Args:
        path: the file, by its suffix.
        device: where TorchScript runs; ONNX runs on the CPU.

    Raises:
        ModelFileError: the file is missing, of another kind, or not such a model.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: there is no such restoration model; check --restore")
    suffix = path.suffix.lower()
    try:
        if suffix == ONNX_SUFFIX:
            return ModelRestorer(path, _onnx(path))
        if suffix in TORCHSCRIPT_SUFFIXES:
            return ModelRestorer(path, _torchscript(path, device))
    except (RuntimeError, cv2.error) as error:
        raise ModelFileError(f"{path} cannot be read as a model ({first_line(error)}); {_CONTRACT}") from error
    raise ModelFileError(f"{path} is neither {ONNX_SUFFIX} nor {', '.join(TORCHSCRIPT_SUFFIXES)}; {_CONTRACT}")


def restored(rgb: NDArray[np.float32], mouth: NDArray[np.float32], restorer: Restorer) -> NDArray[np.float32]:
    """A patch with its mouth's fine detail replaced by the restorer's.

    Args:
        rgb: ``[h, w, 3]`` 0..1.
        mouth: ``[h, w]`` 0..1, soft; where it is 0 nothing changes.
        restorer: see ``Restorer``.
    """
    box = _square(mouth)
    if box is None:
        return rgb
    top, left, side = box
    forth = np.array([[SIZE / side, 0, -left * SIZE / side], [0, SIZE / side, -top * SIZE / side]])
    forth[:, 2] += (SIZE / side - 1) / 2  # pixel centres
    way = cv2.INTER_AREA if side > SIZE else cv2.INTER_CUBIC
    crop = cv2.warpAffine(rgb, forth, (SIZE, SIZE), flags=way, borderMode=cv2.BORDER_REPLICATE)
    answer = restorer.restore(np.clip(np.asarray(crop, np.float32), 0, 1))
    change = _detail(answer) - _detail(np.asarray(crop, np.float32))
    back = cv2.invertAffineTransform(forth)
    size = rgb.shape[1], rgb.shape[0]
    fitted = cv2.warpAffine(change, back, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return np.clip(rgb + mouth[..., None] * np.asarray(fitted, np.float32), 0, 1).astype(np.float32)


_CONTRACT = f"it must map float32 [1, 3, {SIZE}, {SIZE}], RGB in 0..1, to the same"


def _detail(picture: Crop) -> Crop:
    return picture - np.asarray(cv2.GaussianBlur(picture, (0, 0), DETAIL_SHARE * SIZE), np.float32)


def _square(mouth: NDArray[np.float32]) -> tuple[float, float, float] | None:
    """Top, left and side of the crop around the mouth; None where there is none."""
    rows, columns = np.flatnonzero(mouth.any(axis=1)), np.flatnonzero(mouth.any(axis=0))
    if not len(rows):
        return None
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    side = float(max(height, width, 2)) * (1 + 2 * MARGIN)
    return (rows[0] + height / 2 - side / 2), (columns[0] + width / 2 - side / 2), side


def _torchscript(path: Path, device: torch.device) -> Callable[[Crop], Crop]:
    model = torch.jit.load(str(path), map_location=device).eval()

    def run(crop: Crop) -> Crop:
        with torch.inference_mode():
            return model(torch.from_numpy(crop).to(device)).float().cpu().numpy()

    return run


def _onnx(path: Path) -> Callable[[Crop], Crop]:
    network = cv2.dnn.readNetFromONNX(str(path))

    def run(crop: Crop) -> Crop:
        network.setInput(crop)
        return np.asarray(network.forward(), np.float32)

    return run
