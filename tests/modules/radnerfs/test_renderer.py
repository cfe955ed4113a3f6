from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.radnerfs.backends import get_backend
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.occupancy_grid import update_occupancy
from modules.radnerfs.radnerf import BlockMLP, RADNeRF, truncated_exp
from modules.radnerfs.rays import RayBundle, pixel_centres, pixel_rays
from modules.radnerfs.renderer import render_occupancy, render_surface
from modules.radnerfs.surface_sampling import samples_around_surface


def small_config(**changes) -> RADNeRFConfig:
    grid = GridConfig(4, 2, 4, 32, 10, "hash")
    sizes = dict(hidden_dim_ambient=16, hidden_dim_sigma=16, hidden_dim_color=16, geo_feat_dim=7, sh_degree=2)
    sizes |= dict(individual_embedding_num=5, ambient_dim=2, position_grid=grid, ambient_grid=grid)
    return RADNeRFConfig(**(sizes | changes))


def small_field(**changes) -> RADNeRF:
    torch.manual_seed(0)
    field = RADNeRF(small_config(**changes), get_backend("torch"))
    with torch.no_grad():
        for encoder in (field.position_embedder, field.ambient_embedder):
            encoder.embeddings.uniform_(-1, 1)
    return field


SURFACE = RenderConfig(sampler="surface", density_scale=20.0)


def surface_inputs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    position = torch.rand(count, 3, generator=generator) - 0.5
    return position, torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)


@settings(max_examples=50, deadline=None)
@given(n_samples=st.integers(1, 6), shell=st.floats(0.01, 0.5), seed=st.none() | st.integers(0, 99))
def test_samples_lie_in_their_intervals(n_samples, shell, seed):
    position, direction = surface_inputs(9)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    positions, deltas = samples_around_surface(position, direction, n_samples, shell, generator)
    assert torch.allclose(deltas.sum(dim=1), torch.full((9,), 2 * shell), rtol=1e-5)
    along = ((positions - position[:, None]) * direction[:, None]).sum(dim=-1)
    edges = torch.linspace(-shell, shell, n_samples + 1)
    assert ((along >= edges[:-1] - 1e-5) & (along <= edges[1:] + 1e-5)).all()
    assert torch.allclose(positions, position[:, None] + along[..., None] * direction[:, None], atol=1e-5)
    if seed is None:
        assert torch.allclose(along, (edges[1:] + edges[:-1]).div(2).expand_as(along), atol=1e-5)


def test_surface_render_is_opaque_and_in_range():
    field = small_field(render=SURFACE)
    position, direction = surface_inputs(33)
    positions, deltas = samples_around_surface(position, direction, 3, 0.05)
    condition = field.encode_condition(torch.randn(5, 1, 204))
    out = render_surface(field, positions, deltas, direction, condition, field.individual_embeddings[1])
    assert torch.allclose(out.opacity, torch.ones(33), atol=1e-5)
    assert ((out.rgb > 0) & (out.rgb < 1)).all()
    assert ((out.depth > 0) & (out.depth < 0.1)).all()
    assert out.weights.shape == (33, 3)
    assert ((out.ambient >= 0) & (out.ambient <= 3 * 2)).all()


def test_surface_render_takes_one_condition_per_ray():
    field = small_field(render=SURFACE, smo_win_size=3)
    position, direction = surface_inputs(6)
    positions, deltas = samples_around_surface(position, direction, 2, 0.05)
    conditions = field.encode_conditions(torch.randn(2, 3, 1, 204))
    frame = torch.tensor([0, 0, 1, 1, 0, 1])
    codes = field.individual_embeddings[torch.tensor([1, 4])]
    together = render_surface(field, positions, deltas, direction, conditions[frame], codes[frame])
    for i in (0, 1):
        rows = frame == i
        alone = render_surface(field, positions[rows], deltas[rows], direction[rows], conditions[i], codes[i])
        assert torch.allclose(together.rgb[rows], alone.rgb, atol=1e-6)


def test_a_single_sample_is_the_fields_colour_there():
    field = small_field(render=SURFACE, individual_embedding_dim=0, individual_embedding_num=1)
    position, direction = surface_inputs(5)
    condition, code = torch.randn(64), field.individual_embeddings[0]
    out = render_surface(field, position[:, None], torch.ones(5, 1), direction, condition, code)
    assert torch.allclose(out.rgb, field(position, direction, condition, code).rgb, atol=1e-6)
    assert (out.weights == 1).all()


def test_surface_field_carries_no_grid_and_says_so():
    field = small_field(render=SURFACE)
    assert not {"density_grid", "aabb_train", "step_counter"} & set(field.state_dict())
    rays = RayBundle(torch.zeros(1, 3), torch.ones(1, 3))
    with pytest.raises(ValueError, match="sampler: surface"):
        render_occupancy(field, rays, torch.zeros(64), torch.zeros(4), torch.zeros(3), training=False)


def test_surface_field_learns_a_picture():
    """A few seconds of training bring a coloured surface well below the error of its mean colour."""
    field = small_field(render=SURFACE, position_grid=GridConfig(6, 2, 8, 64, 12, "hash"))
    generator = torch.Generator().manual_seed(1)
    position, direction = surface_inputs(512)
    target = 0.5 + 0.4 * torch.sin(9 * position)
    condition = torch.zeros(5, 1, 204)
    optimiser = torch.optim.Adam(field.parameters(), lr=1e-2, eps=1e-15)
    for _ in range(60):
        positions, deltas = samples_around_surface(position, direction, 2, 0.05, generator)
        feature = field.encode_condition(condition)
        out = render_surface(field, positions, deltas, direction, feature, field.individual_embeddings[0])
        loss = ((out.rgb - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.1 * float(target.var())


def test_occupancy_render_and_update():
    field = small_field(render=RenderConfig(grid_size=16, density_thresh=0.5, max_steps=8))
    condition = field.encode_condition(torch.randn(5, 1, 204)).detach()
    update = update_occupancy(field, condition, torch.Generator().manual_seed(0))
    assert update.density_grid.shape == field.density_grid.shape
    assert update.mean_density > 0
    field.density_grid.copy_(update.density_grid)
    field.density_bitfield.copy_(update.bitfield)
    camera = torch.tensor([[16.0, 0, 8], [0, 16, 8], [0, 0, 1]])
    pose = torch.eye(4)
    pose[2, 3] = -2.5
    rays = pixel_rays(pixel_centres(16, 16), camera, pose)
    code, background = field.individual_embeddings[0], torch.rand(256, 3)
    train = render_occupancy(field, rays, condition, code, background, training=True, jitter=torch.rand(256))
    train.rgb.sum().backward()
    assert field.position_embedder.embeddings.grad.any()
    with torch.no_grad():
        steady = render_occupancy(field, rays, condition, code, background, training=True)
        blocks = render_occupancy(field, rays, condition, code, background, training=False, t_thresh=0.0)
    empty = steady.opacity == 0
    assert empty.any()
    assert torch.allclose(blocks.rgb[empty], background[empty])
    # a ray of both passes sees the same first samples; only rays cut at max_steps may differ
    same = (steady.opacity - blocks.opacity).abs() < 1e-5
    assert same.float().mean() > 0.5
    assert torch.allclose(steady.rgb[same], blocks.rgb[same], atol=1e-5)


def test_block_mlp_equals_the_mlp_on_joined_inputs():
    torch.manual_seed(0)
    mlp = BlockMLP((3, 4, 2), 8, 5, 3)
    a, b, c = torch.randn(6, 2, 3), torch.randn(6, 1, 4), torch.randn(2)
    joined = torch.cat([a, b.expand(6, 2, 4), c.expand(6, 2, 2)], dim=-1)
    expected = joined
    for index, layer in enumerate(mlp.net):
        expected = layer(expected if index == 0 else torch.relu(expected))
    assert torch.allclose(mlp(a, b, c), expected, atol=1e-6)


def test_density_is_the_fields_sigma():
    field = small_field()
    position, direction = surface_inputs(7)
    condition = torch.randn(64)
    out = field(position, direction, condition, field.individual_embeddings[0])
    assert torch.equal(field.density(position, condition), out.sigma)


def test_position_scale_is_a_change_of_units():
    field, scaled = small_field(), small_field(position_scale=0.5)
    scaled.load_state_dict(field.state_dict())
    position, direction = surface_inputs(7)
    condition, code = torch.randn(64), torch.zeros(4)
    a, b = field(position, direction, condition, code), scaled(2 * position, direction, condition, code)
    assert torch.allclose(a.rgb, b.rgb, atol=1e-5)


def test_truncated_exp_bounds_the_gradient():
    x = torch.tensor([-40.0, 0.0, 40.0], requires_grad=True)
    y = truncated_exp(x)
    y.sum().backward()
    assert torch.allclose(y.detach(), x.detach().exp())
    assert torch.allclose(x.grad, torch.tensor([-15.0, 0.0, 15.0]).exp())


def test_rays_of_a_turned_crop_pass_through_the_frames_pixels():
    camera = torch.tensor([[50.0, 0, 20], [0, 50, 30], [0, 0, 1]])
    turn = torch.tensor([[0.0, 2, 5], [-2, 0, 90], [0, 0, 1]])  # crop_from_frame
    pixels = torch.tensor([[3.5, 7.5], [20.0, 30.0]])
    cropped = pixels @ turn[:2, :2].T + turn[:2, 2]
    in_frame, in_crop = pixel_rays(pixels, camera, torch.eye(4)), pixel_rays(cropped, turn @ camera, torch.eye(4))
    assert torch.allclose(in_frame.directions, in_crop.directions, atol=1e-6)
    assert torch.allclose(in_frame.directions[1], torch.tensor([0.0, 0, 1]), atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridConfig(base_resolution=64, desired_resolution=32), "base_resolution"),
        (lambda: GridConfig(log2_table_size=22), "32-bit"),
        (lambda: GridConfig(log2_table_size=2), "3..24"),
        (lambda: GridConfig(n_levels=0), "one level"),
        (lambda: RenderConfig(grid_size=100), "power of two"),
        (lambda: RenderConfig(max_steps=0), "at least one sample"),
        (lambda: RenderConfig(shell_dm=0.0), "positive"),
        (lambda: RADNeRFConfig(ambient_dim=4), "ambient_dim"),
        (lambda: RADNeRFConfig(cond_win_size=5), "cond_win_size"),
        (lambda: RADNeRFConfig(sh_degree=5), "sh_degree"),
        (lambda: RADNeRFConfig(eye_blink_dim=65), "eye_blink_dim"),
        (lambda: RADNeRFConfig(num_layers_color=0), "layer"),
        (lambda: RADNeRFConfig(bound=0.0), "bound"),
    ],
)
def test_wrong_sizes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("win", [1, 2, 3, 4, 16])
def test_condition_windows(win):
    field = small_field(render=SURFACE, cond_win_size=win, smo_win_size=3)
    assert field.encode_condition(torch.randn(3, win, 204)).shape == (64,)
    assert small_field(render=SURFACE, with_att=False).encode_condition(torch.randn(1, 1, 204)).shape == (64,)
