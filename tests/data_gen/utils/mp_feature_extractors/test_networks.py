"""Which runtime is picked, and that none is imported that is not needed."""

import subprocess
import sys

import pytest
import torch

from data_gen.utils.mp_feature_extractors import networks
from data_gen.utils.mp_feature_extractors.litert import LiteRtModel
from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network, pick_runtime
from data_gen.utils.mp_feature_extractors.torch_network import TorchNetwork
from modules.commons.errors import BackendUnavailableError, ModelFileError
from modules.commons.workspace import MEDIAPIPE_DIR, ROOT

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
SEGMENTER = MEDIAPIPE_DIR / "selfie_segmentation.tflite"


def test_auto_is_torch_on_cuda_and_litert_elsewhere():
    assert pick_runtime("auto", CPU) == Runtime("litert", CPU)
    assert pick_runtime("auto", CUDA) == Runtime("torch", CUDA)
    assert pick_runtime("torch", CPU) == Runtime("torch", CPU)
    assert pick_runtime("litert", CUDA) == Runtime("litert", CPU)
    assert str(Runtime("torch", CPU)) == "torch on the CPU" and str(Runtime("litert", CPU)) == "litert"


def test_a_file_runs_on_either():
    assert isinstance(load_network(Runtime("litert", CPU), SEGMENTER), LiteRtModel)
    network = load_network(Runtime("torch", CPU), SEGMENTER)
    assert isinstance(network, TorchNetwork) and network.input_shape == (1, 256, 256, 3)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"gone\.tflite is missing"):
        load_network(Runtime("torch", CPU), tmp_path / "gone.tflite")


def test_without_litert_and_without_cuda_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(networks.importlib.util, "find_spec", lambda name: None)
    assert pick_runtime("auto", CUDA).extractor == "torch"
    for name in ("auto", "litert"):
        with pytest.raises(BackendUnavailableError, match=r"needs LiteRT.*pip install ai-edge-litert.*torch"):
            pick_runtime(name, CPU)


def test_torch_leaves_litert_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert load_network(Runtime("torch", CPU), SEGMENTER)


@pytest.mark.slow
def test_torch_needs_no_litert():
    """In a process of its own, where LiteRT cannot be imported."""
    code = (
        "import sys; sys.modules['ai_edge_litert'] = None\n"
        "import numpy as np, torch\n"
        "from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker\n"
        "from data_gen.utils.mp_feature_extractors.networks import Runtime\n"
        "from data_gen.utils.process_video.face_detector import FaceDetector\n"
        "from data_gen.utils.process_video.occlusion_detector import OcclusionDetector\n"
        "from modules.structures.crops import CropRegion\n"
        "runtime = Runtime('torch', torch.device('cpu'))\n"
        "FaceDetector(runtime=runtime), OcclusionDetector(runtime=runtime)\n"
        "grey = np.full((64, 64, 3), 128, np.uint8)\n"
        "print(FaceLandmarker(runtime=runtime).detect(grey, CropRegion(32, 32, 64)).score < 0.5)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_a_litert_that_cannot_be_imported_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(BackendUnavailableError, match="LiteRT cannot be imported here"):
        LiteRtModel.from_file(SEGMENTER)
