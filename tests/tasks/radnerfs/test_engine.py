"""The training step: frame by frame shading is shading, and every term of the loss does its part."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modules.commons.progress import silent
from modules.radnerfs.config import RenderConfig
from tasks.configs import LossConfig, OptimConfig
from tasks.radnerfs.engine import shade_frames
from tasks.radnerfs.radnerf import RADNeRFTask, load_dataset
from tests.support.synthetic_clip import prepare_synthetic_clip
from tests.support.tiny_heads import SMALL, tiny_config

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    _, speaker = prepare_synthetic_clip(root, n_frames=11)
    return root, load_dataset(tiny_config(root), speaker.model, silent)


def engine_of(clip, **changes):
    root, dataset = clip
    return RADNeRFTask(tiny_config(root, **changes), dataset, CPU).engine


@pytest.mark.parametrize("n_samples", [1, 3])
def test_frames_together_show_what_each_shows_alone(clip, n_samples):
    render = RenderConfig(sampler="surface", n_samples=n_samples, shell_dm=0.05)
    engine = engine_of(clip, radnerf=replace(SMALL, render=render, individual_embedding_dim=3), rays_per_frame=32)
    person = engine.person
    batch = engine.draw()
    with torch.no_grad():
        condition = torch.randn(len(batch.frame), SMALL.cond_out_dim, generator=torch.Generator().manual_seed(0))
        code = person.radnerf.individual_embeddings[batch.frame]
        shell = render.shell_dm * float(person.box_scale)
        rgb, ambient = shade_frames(person, batch.position, batch.direction, condition, code, shell)
        for number in range(len(batch.frame)):
            alone = person.shade(batch.position[number], batch.direction[number], condition[number], code[number])
            torch.testing.assert_close(rgb[number], alone.rgb, atol=1e-5, rtol=0)
            torch.testing.assert_close(ambient[number], alone.ambient, atol=1e-5, rtol=0)


def test_frames_that_are_not_believed_teach_nothing(clip):
    engine = engine_of(clip, loss=LossConfig(ambient_weight=0.0, code_weight=0.0, patch_weight=1.0, patch_size=16))
    engine.believed.zero_()
    loss, _ = engine.loss()
    engine.optimizer.backward(loss)
    assert not any(grad.any() for grad in engine.optimizer.gradients())
    engine.believed.fill_(1)
    loss, _ = engine.loss()
    engine.optimizer.backward(loss)
    assert any(grad.any() for grad in engine.optimizer.gradients())


@pytest.mark.slow
def test_rays_far_off_what_is_usual_teach_nothing_on_patches_and_next_to_nothing_alone(clip):
    engine = engine_of(clip, loss=LossConfig(ambient_weight=0.0, code_weight=0.0, patch_weight=1.0, patch_size=16))

    def pull(usual: float) -> tuple[float, float]:
        engine.usual.usual.fill_(usual)
        loss, scalars = engine.loss()
        engine.optimizer.backward(loss)
        return sum(float(grad.abs().sum()) for grad in engine.optimizer.gradients()), float(scalars["patch_loss"])

    (all_count, patches), (strange, no_patches) = pull(1.0), pull(1e-4)
    assert patches > 0 and no_patches == pytest.approx(0, abs=1e-6)
    assert all_count > 0 and strange < 0.01 * all_count


def test_patches_can_be_fitted(clip):
    loss = LossConfig(patch_weight=0.5, patch_size=16, patches_per_step=16, condition_noise=0.0)
    fast = OptimConfig(lr=0.01, warmup_updates=5)
    engine = engine_of(clip, loss=loss, optim=fast, max_updates=100, rays_per_step=1024)
    values = [float(engine.step()["patch_loss"]) for _ in range(80)]
    assert sum(values[-10:]) < 0.9 * sum(values[:10])


def test_patches_add_their_term(clip):
    loss, scalars = engine_of(clip, loss=LossConfig(patch_weight=0.5, patch_size=16, code_weight=0.0)).loss()
    assert 0 < 0.5 * float(scalars["patch_loss"]) < float(loss)
    assert "patch_loss" not in engine_of(clip).loss()[1]


def test_half_precision_learns_the_same(clip):
    losses = {}
    for precision in ("float32", "bfloat16"):
        engine = engine_of(clip, precision=precision, max_updates=40, rays_per_step=1024)
        losses[precision] = [float(engine.step()["loss"]) for _ in range(30)][-1]
        assert all(value.dtype == torch.float32 for value in engine.optimizer.parameters.values())
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.1)


def test_seeds_decide_the_run(clip):
    weights = [engine_of(clip, seed=seed) for seed in (1, 1, 2)]
    for engine in weights:
        engine.step()
    assert torch.equal(weights[0].optimizer.flat, weights[1].optimizer.flat)
    assert not torch.equal(weights[0].optimizer.flat, weights[2].optimizer.flat)


def test_plain_rendering_uses_the_averaged_weights_and_no_noise(clip):
    engine = engine_of(clip)
    batch = engine.draw()
    before = engine.render_plainly(batch)
    torch.testing.assert_close(engine.render_plainly(batch), before, rtol=0, atol=0)
    for value in engine.person.parameters():
        value.data.add_(0.1)
    torch.testing.assert_close(engine.render_plainly(batch), before, rtol=0, atol=0)
