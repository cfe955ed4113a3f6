"""Which runtime the detector, landmark, hand and segmentation networks run on, and the networks loaded for it.

LiteRT is the fastest on a CPU; on CUDA the same files run as torch modules, and LiteRT is not needed. Looking at the
same pixels both say the same within a thousandth of a pixel. Following adds to that, because each look decides where
the next one goes: some hundredths of a pixel for faces; for hands, whose square is not steadied, as much as any other
rounding does, up to some pixels.
"""

from __future__ import annotations

import importlib.util
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from modules.commons.errors import BackendUnavailableError, ModelFileError

Images = NDArray[np.uint8] | torch.Tensor
"""Pictures ``[B, H, W, 3]``, uint8, in memory or on the network's device."""
RuntimeName = Literal["auto", "litert", "torch"]
SETUP_HINT = "run `bash scripts/setup.sh` to fetch the model files"


class NetworkRunner(Protocol):
    """A network with one input, fed with arrays; every output has the batch first."""

    input_shape: tuple[int, ...]
    """For a batch of one."""

    def run(self, values: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Outputs by name for inputs ``[B, ...]``."""
        ...

    def run_images(self, images: Images, low: float = 0.0, high: float = 1.0) -> Mapping[str, NDArray[np.float32]]:
        """Outputs by name for pictures ``[B, H, W, 3]`` whose 0..255 means ``low``..``high``."""
        ...


@dataclass(frozen=True, slots=True)
class Runtime:
    """What networks run on.

    Attributes:
        extractor: 'litert' (CPU only) or 'torch'.
        device: for torch.
        threads: CPU threads of LiteRT; one is fastest for networks this small when cores are shared.
    """

    extractor: Literal["litert", "torch"]
    device: torch.device
    threads: int = 1

    def __str__(self) -> str:
        if self.extractor == "litert":
            return "litert"
        return f"torch on {torch.cuda.get_device_name(self.device) if self.device.type == 'cuda' else 'the CPU'}"


def pick_runtime(extractor: RuntimeName = "auto", device: torch.device | None = None) -> Runtime:
    """The runtime of a name.

    Args:
        extractor: ``auto`` is torch on CUDA and LiteRT elsewhere.
        device: where torch is to run; None: on CUDA where there is one.

    Raises:
        BackendUnavailableError: LiteRT is needed and not installed.
    """
    place = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if extractor == "torch" or (extractor == "auto" and place.type == "cuda"):
        return Runtime("torch", place)
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise BackendUnavailableError(
            "finding faces on the CPU needs LiteRT, and it is not installed: `pip install ai-edge-litert`, or set "
            "detect.extractor to torch, which gives the same landmarks about three times slower"
        )
    return Runtime("litert", torch.device("cpu"))


def load_network(runtime: Runtime, path: Path, member: str = "") -> NetworkRunner:
    """A ``.tflite`` network on a runtime.

    Args:
        runtime: from ``pick_runtime``.
        path: the file, or a MediaPipe ``.task`` bundle.
        member: its name inside the bundle.

    Raises:
        ModelFileError: the file is missing, damaged, or not one that the runtime can run.
    """
    content, source = read_network_file(path, member)
    if runtime.extractor == "litert":
        from data_gen.utils.mp_feature_extractors.litert import LiteRtModel

        return LiteRtModel(content, source, runtime.threads)
    from data_gen.utils.mp_feature_extractors.tflite_file import read_tflite
    from data_gen.utils.mp_feature_extractors.tflite_ops import tflite_steps
    from data_gen.utils.mp_feature_extractors.torch_network import TorchNetwork

    return TorchNetwork(tflite_steps(read_tflite(content, source)), runtime.device)


def read_network_file(path: Path, member: str = "") -> tuple[bytes, str]:
    """The bytes of a network file, or of a member of a ``.task`` bundle, which is a zip archive; and what to call it.

    Raises:
        ModelFileError: when the file or the member is missing or damaged.
    """
    if not path.is_file():
        raise ModelFileError(f"model file {path} is missing; {SETUP_HINT}")
    if not member:
        return path.read_bytes(), str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(member), f"{path}!{member}"
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelFileError(f"{path} does not hold {member} ({error}); {SETUP_HINT}") from error
