"""The networks' part of the GPU benchmark, at its smallest and on the CPU."""

import torch

from inference.benchmark_gpu import networks
from inference.benchmark_gpu.networks import NETWORKS, rows


def test_each_network_is_timed_by_batch_and_beside_the_cpu(monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", (NETWORKS[1], NETWORKS[-1]))
    monkeypatch.setattr(networks, "BATCHES", (1, 2))
    monkeypatch.setattr(networks, "REPEATS", 2)
    monkeypatch.setattr(networks, "CPU_REPEATS", 1)
    monkeypatch.setattr(networks, "WHOLE_FRAME_HW", (32, 64))
    told = []
    found = rows(torch.device("cpu"), lambda *heard: told.append(heard))
    assert [row.what for row in found] == [
        *["blendshape scores"] * 2, *["CenterFace, 640 × 384"] * 2, "landmarks of one followed face"
    ]  # fmt: skip
    assert all(row.value > 0 and row.table == "networks" for row in found)
    assert "batch 2" in found[1].detail and "litert, 1 thread" in found[0].detail
    assert "litert" not in found[2].detail, "CenterFace is no .tflite file"
    assert found[-1].goal == "<= 1" and told[-1] == ("networks", 3, 3)


def test_every_network_can_be_loaded():
    cpu = torch.device("cpu")
    for network in NETWORKS:
        assert network.load(networks.Runtime("torch", cpu)) is not None
