"""The learned blender: undoes made-up casts it never saw, sees the ring alone, the same for a seed."""

import cv2
import numpy as np
import pytest
import torch

from modules.video.colour_match import FIELD_SIZE, RingConfig, apply_field
from modules.video.neural_blend import CHANNELS, INPUT_SIZE, BlendNetwork, BlendPair, NeuralBlender, network_input
from tasks.blending import BlendTraining, train_blender

CPU = torch.device("cpu")
SHORT = BlendTraining(steps=40, batch=8, examples=96)


def pair(seed, height=72, width=96):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    alpha = np.clip((0.95 - radius) / 0.3, 0, 1).astype(np.float32)
    skin = np.stack([0.6 + 0.1 * x / width, 0.45 + 0.05 * y / height, 0.4 + 0 * x], 2)
    skin[radius < 0.25] = rng.uniform(0.05, 0.5)
    skin += 0.02 * cv2.GaussianBlur(rng.normal(size=skin.shape), (0, 0), 2)
    return BlendPair(skin.astype(np.float32), skin.astype(np.float32), alpha)


@pytest.fixture(scope="module")
def network():
    return train_blender([pair(seed) for seed in range(6)], torch.Generator().manual_seed(1), CPU, training=SHORT)


@pytest.mark.slow
def test_it_undoes_casts_it_never_saw(network):
    blender, rng = NeuralBlender(network, RingConfig()), np.random.default_rng(7)
    before, after = [], []
    for seed in range(20, 26):
        seen = pair(seed)
        cast = np.broadcast_to(rng.normal(0, 0.15, 3).astype(np.float32), (FIELD_SIZE, FIELD_SIZE, 3))
        patch = apply_field(seen.render, -cast)
        field = blender(seen.source, patch, seen.alpha, np.ones_like(seen.alpha))
        inside = seen.alpha > 0.5
        before.append(np.abs(patch - seen.source)[inside].mean())
        after.append(np.abs(apply_field(patch, field) - seen.source)[inside].mean())
    assert np.mean(after) < 0.5 * np.mean(before)


def test_it_sees_the_source_in_the_ring_alone():
    network = BlendNetwork()
    with torch.no_grad():
        network.last.weight.normal_(generator=torch.Generator().manual_seed(0))
    blender, seen = NeuralBlender(network, RingConfig()), pair(30)
    other = seen.source.copy()
    other[seen.alpha >= 0.9] = 0.9
    other[seen.alpha == 0] = np.nan
    ones = np.ones_like(seen.alpha)
    fields = [blender(source, seen.render, seen.alpha, ones) for source in (seen.source, other)]
    assert np.array_equal(*fields) and np.isfinite(fields[0]).all()
    assert blender(seen.source, seen.render, seen.alpha, 0 * ones) is None


def test_training_is_the_same_for_a_seed():
    short = BlendTraining(steps=3, batch=4, examples=8)
    pairs = [pair(seed) for seed in range(2)]
    first, again, other = (
        train_blender(pairs, torch.Generator().manual_seed(seed), CPU, training=short).state_dict()
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_sizes_and_refusals():
    seen = pair(0)
    inputs = network_input(seen.source, seen.render, seen.alpha, np.ones_like(seen.alpha), RingConfig())
    assert inputs.shape == (CHANNELS, INPUT_SIZE, INPUT_SIZE)
    begun = BlendNetwork()(torch.from_numpy(inputs[None]))
    assert begun.shape == (1, 3, FIELD_SIZE, FIELD_SIZE) and torch.allclose(begun, begun[..., :1, :1].expand_as(begun))
    hard = BlendPair(seen.source, seen.render, np.ones_like(seen.alpha))
    with pytest.raises(ValueError, match="no soft edge"):
        train_blender([hard], torch.Generator().manual_seed(0), CPU, training=SHORT)
    with pytest.raises(ValueError, match="above 0"):
        BlendTraining(steps=0)
    with pytest.raises(ValueError, match="disagree"):
        BlendPair(seen.source, seen.render, seen.alpha[1:])
