"""The networks on CUDA against the same on the CPU, on made-up pictures: nothing but torch is needed here."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_landmarks
from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network, pick_runtime
from data_gen.utils.mp_feature_extractors.onnx_file import read_onnx
from data_gen.utils.mp_feature_extractors.onnx_ops import onnx_steps
from data_gen.utils.mp_feature_extractors.torch_network import CAPTURE_AT, TorchNetwork
from data_gen.utils.process_video.centerface import OUTPUTS
from modules.commons.workspace import CENTERFACE_FILE
from modules.structures.crops import CropRegion
from tests.support.networks import PICTURE_NETWORKS, SCORES, NetworkFile, assert_close, made_up_picture, score_input

TORCH = Runtime("torch", torch.device("cpu"))
LOOK = CropRegion(435.0, 205.0, 400.0, 0.05)


@pytest.fixture(scope="module")
def cuda():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA here")
    return Runtime("torch", torch.device("cuda"))


def made_up(network, count):
    size = network.input_shape[1]
    return np.stack([made_up_picture(size, size, seed) for seed in range(count)])


@pytest.mark.gpu
@pytest.mark.parametrize("network", PICTURE_NETWORKS, ids=str)
def test_cuda_says_what_the_cpu_says(cuda, network):
    on_cpu, on_cuda = (load_network(runtime, network.path, network.member) for runtime in (TORCH, cuda))
    for count in (1, 3):
        pictures = made_up(on_cpu, count)
        expected = on_cpu.run_images(pictures, network.low, network.high)
        assert_close(on_cuda.run_images(pictures, network.low, network.high), expected, 3e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("network", [PICTURE_NETWORKS[1], NetworkFile("face_landmarker.task", SCORES)], ids=str)
def test_a_cuda_graph_gives_what_plain_calls_give(cuda, network):
    plain, graphed = (load_network(cuda, network.path, network.member) for _ in range(2))
    plain._graphs = False
    for turn in range(CAPTURE_AT + 3):
        if network.member == SCORES:
            values = score_input(2) + turn
            found, expected = graphed.run(values), plain.run(values)
        else:
            pictures = made_up(plain, 2) + np.uint8(turn)
            found, expected = graphed.run_images(pictures), plain.run_images(pictures)
        assert_close(found, expected, 1e-3)
    assert len(graphed._captured) == 1 and not plain._captured


@pytest.mark.gpu
def test_threads_with_networks_of_their_own_do_not_disturb_each_other(cuda):
    """The stage for hands looks through several stretches at a time."""
    palms = PICTURE_NETWORKS[3]
    pictures = [made_up_picture(192, 192, seed)[None] for seed in range(4)]
    expected = [load_network(cuda, palms.path).run_images(picture) for picture in pictures]

    def look(turn):
        network = load_network(cuda, palms.path)
        return [network.run_images(pictures[(turn + i) % 4]) for i in range(12)]

    allowed = torch.backends.cudnn.allow_tf32
    with ThreadPoolExecutor(4) as pool:
        for turn, found in enumerate(pool.map(look, range(4))):
            for i, one in enumerate(found):
                assert_close(one, expected[(turn + i) % 4], 1e-3)
    assert torch.backends.cudnn.allow_tf32 == allowed, "the process's flags are as before"


@pytest.mark.gpu
def test_centerface_on_cuda_is_centerface_on_the_cpu(cuda):
    pictures = np.stack([made_up_picture(192, 320, seed) for seed in range(2)])
    networks = [TorchNetwork(onnx_steps(read_onnx(CENTERFACE_FILE)), r.device) for r in (TORCH, cuda)]
    expected, found = (network.run_images(pictures, 0.0, 255.0) for network in networks)
    assert set(found) == set(OUTPUTS)
    assert_close(found, expected, 1e-3)


@pytest.mark.gpu
def test_regions_cut_out_on_the_gpu_give_the_same_landmarks(cuda):
    picture = made_up_picture(360, 640)
    landmarker = FaceLandmarker(runtime=cuda)
    first = landmarker.detect(picture, LOOK)
    looks = [LOOK, region_of_landmarks(first.points), CropRegion(300.0, 180.0, 900.0, 0.3)]
    for found, look in zip(landmarker.detect_many([picture] * 3, looks), looks, strict=True):
        one = landmarker.detect(picture, look)
        assert np.abs(found.points - one.points).max() < 0.1


@pytest.mark.gpu
def test_cuda_is_what_auto_picks(cuda):
    assert pick_runtime().extractor == "torch" and pick_runtime().device.type == cuda.device.type
