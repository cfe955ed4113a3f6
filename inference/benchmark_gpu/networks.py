"""How fast the detector, landmark, hand and segmentation networks are on a GPU, beside the CPU."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import TASK_FILE, FaceLandmarker
from data_gen.utils.mp_feature_extractors.networks import NetworkRunner, Runtime, load_network
from data_gen.utils.mp_feature_extractors.onnx_file import read_onnx
from data_gen.utils.mp_feature_extractors.onnx_ops import onnx_steps
from data_gen.utils.mp_feature_extractors.torch_network import CAPTURE_AT, TorchNetwork
from inference.benchmark_gpu.row import GpuRow
from modules.commons.progress import Progress
from modules.commons.workspace import CENTERFACE_FILE, MEDIAPIPE_DIR
from modules.structures.crops import CropRegion
from modules.structures.landmarks import BLENDSHAPE_SUBSET

TABLE = "networks"
BATCHES = (1, 8, 32)
REPEATS = 20
CPU_REPEATS = 3
WHOLE_FRAME_HW = (384, 640)
"""What CenterFace sees of a 16:9 frame at its usual look."""


@dataclass(frozen=True, slots=True)
class NetworkToTime:
    """A network by name, and where its file lies; no file = CenterFace, which is no .tflite."""

    name: str
    file: str = ""
    member: str = ""

    def load(self, runtime: Runtime) -> NetworkRunner | None:
        """The network; None where the runtime is not one it runs on."""
        if self.file:
            return load_network(runtime, MEDIAPIPE_DIR / self.file, self.member)
        if runtime.extractor != "torch":
            return None
        return TorchNetwork(onnx_steps(read_onnx(CENTERFACE_FILE)), runtime.device)


NETWORKS = (
    NetworkToTime("face landmarks, 256²", TASK_FILE, "face_landmarks_detector.tflite"),
    NetworkToTime("blendshape scores", TASK_FILE, "face_blendshapes.tflite"),
    NetworkToTime("faces close by, 128²", TASK_FILE, "face_detector.tflite"),
    NetworkToTime("faces farther off, 192²", "face_detection_full_range_sparse.tflite"),
    NetworkToTime("palms, 192²", "palm_detection_full.tflite"),
    NetworkToTime("hand landmarks, 224²", "hand_landmark_full.tflite"),
    NetworkToTime("person mask, 256²", "selfie_segmentation.tflite"),
    NetworkToTime("CenterFace, 640 × 384"),
)


def rows(device: torch.device, progress: Progress) -> list[GpuRow]:
    """The networks' lines of the GPU tables: inputs per second by batch, from memory to memory.

    Args:
        device: CUDA.
        progress: told about each network.

    Raises:
        ModelFileError: a model file is missing.
    """
    following = following_row(device)
    times: dict[tuple[NetworkToTime, int], list[float]] = {}
    for done, network in enumerate(NETWORKS):
        on_gpu = network.load(Runtime("torch", device))
        assert on_gpu is not None
        times |= {(network, batch): timed(_call(on_gpu, batch), REPEATS) for batch in BATCHES}
        progress("networks", done + 1, len(NETWORKS) + 1)
    # last: torch's CPU threads go on spinning for a while, in the way of whoever launches kernels
    beside = {network: _cpu_note(network) for network in NETWORKS}
    progress("networks", len(NETWORKS) + 1, len(NETWORKS) + 1)
    return [*(_row(network, batch, seconds, beside[network]) for (network, batch), seconds in times.items()), following]


def _row(network: NetworkToTime, batch: int, times: list[float], beside: str) -> GpuRow:
    rates = [batch / seconds for seconds in times]
    detail = f"batch {batch}: {median(times) * 1e3:.2f} ms; one by one {beside}"
    return GpuRow(TABLE, network.name, median(rates), "per s", "", (min(rates), max(rates)), detail)


def following_row(device: torch.device) -> GpuRow:
    """What it takes to find the landmarks of a face that is followed, cutting its square out of the frame included."""
    landmarker = FaceLandmarker(scores_later=True, runtime=Runtime("torch", device))
    frame = _pictures(1, (720, 1280))[0]
    region = CropRegion(640.0, 360.0, 400.0, 0.1)
    times = [seconds * 1e3 for seconds in timed(lambda: landmarker.detect(frame, region), REPEATS)]
    spread = min(times), max(times)
    return GpuRow(TABLE, "landmarks of one followed face", median(times), "ms", "<= 1", spread, "scores come later")


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of some calls; warmed up, so that CUDA graphs are made."""
    for _ in range(CAPTURE_AT + 1):
        call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _cpu_note(network: NetworkToTime) -> str:
    """What one input takes on the CPU, on each runtime there is."""
    cpu = torch.device("cpu")
    runtimes = [Runtime("torch", cpu)]
    if importlib.util.find_spec("ai_edge_litert") is not None:
        runtimes.append(Runtime("litert", cpu))
    notes = []
    for runtime in runtimes:
        runner = network.load(runtime)
        if runner is not None:
            seconds = median(timed(_call(runner, 1), CPU_REPEATS))
            threads = f"{torch.get_num_threads()} threads" if runtime.extractor == "torch" else "1 thread"
            notes.append(f"{seconds * 1e3:.1f} ms {runtime}, {threads}")
    return "; ".join(notes)


def _call(runner: NetworkRunner, batch: int) -> Callable[[], object]:
    shape = runner.input_shape[1:]
    if len(shape) == 2:
        points = np.random.default_rng(0).uniform(0, 256, (batch, len(BLENDSHAPE_SUBSET), 2)).astype(np.float32)
        return lambda: runner.run(points)
    images = _pictures(batch, (shape[0], shape[1]) if shape[0] > 0 else WHOLE_FRAME_HW)
    return lambda: runner.run_images(images)


def _pictures(count: int, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (count, *size_hw, 3), dtype=np.uint8)
