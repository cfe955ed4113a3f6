"""Every operation of every backend against GeneFace++'s own outputs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from modules.radnerfs.backends import get_backend
from modules.radnerfs.backends.base import MarchConfig, RenderBackend
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.occupancy_grid import all_cells, cell_centres, dilate, grid_cells, mark_untrained, merge_densities
from modules.radnerfs.radnerf import FieldOutput, RADNeRF
from modules.radnerfs.rays import RayBundle, RaySamples, background_coordinates, pixel_centres, pixel_rays
from modules.radnerfs.renderer import march_config, render_occupancy, sum_inference
from tests.modules.radnerfs import golden
from tests.support.kernels import kernel_device_or_skip

GRIDS = {
    "tiled3": (3, GridConfig()),
    "tiled2": (2, GridConfig()),
    "hash3": (3, GridConfig(grid_type="hash")),
    "tiled3ss": (3, GridConfig(interpolation="smoothstep")),
}


@pytest.fixture(scope="module", params=["torch", "triton"])
def backend(request) -> RenderBackend:
    if request.param == "torch":
        return get_backend("torch")
    kernel_device_or_skip()
    from modules.radnerfs.backends.triton_kernels.backend import TritonBackend

    return TritonBackend()


@pytest.fixture(scope="module")
def device(backend) -> torch.device:
    return torch.device("cpu") if backend.name == "torch" else kernel_device_or_skip()


@pytest.fixture(autouse=True)
def new_tensors_on_the_device(device, monkeypatch) -> Iterator[None]:
    """And convolutions in float32: cuDNN's default drops bits of the condition, which the steep golden field shows."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with device:
        yield


@pytest.fixture
def many_points(backend, device) -> None:
    """For tests that would take minutes in Triton's interpreter."""
    if backend.name == "triton" and device.type == "cpu":
        pytest.skip("too many points for Triton's interpreter")


@pytest.fixture(scope="module")
def ellipsoid(backend, device) -> torch.Tensor:
    """The golden density grid ``[1, 128³]`` in Morton order."""
    with device:
        grid = torch.empty(1, 128**3)
        grid[0, backend.morton_encode(grid_cells(128, device))] = golden.analytic_density()
    return grid


@pytest.fixture(scope="module")
def may_head(backend, device, ellipsoid) -> RADNeRF:
    """The May head with golden weights and the golden occupancy."""
    golden.load_json("manifest_radnerf_head")
    with device:
        field = RADNeRF(RADNeRFConfig(), backend)
    golden.fill(field)
    field.density_grid.copy_(ellipsoid)
    field.density_bitfield.copy_(backend.pack_bits(ellipsoid.view(-1), 10.0))
    return field


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.array(values))  # of the default device, which from_numpy does not heed


def largest_difference(actual: torch.Tensor, expected: np.ndarray) -> float:
    return float((actual.detach() - tensor(expected).view(actual.shape)).abs().max())


def camera_matrix(size: int) -> torch.Tensor:
    focal = 1015.0 * (size / 2) / 112
    return torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


@pytest.mark.parametrize("tag", GRIDS)
def test_grid_encoder(tag, backend):
    data = golden.load("encoders")
    n_dims, config = GRIDS[tag]
    levels = config.levels(n_dims)
    assert list(levels.offsets) == data[f"{tag}.offsets"].tolist()
    table = tensor(golden.symmetric((levels.n_rows, 2), f"enc.{tag}", 0.5)).requires_grad_()
    positions = tensor(data[f"{tag}.in"]).requires_grad_()
    features = backend.grid_encode((positions + 1) / 2, table, levels)
    assert largest_difference(features, data[f"{tag}.out"]) < 1e-4
    features.backward(tensor(golden.symmetric(tuple(features.shape), f"enc.gy.{tag}", 1.0)))
    scale = float(np.abs(data[f"{tag}.grad_in"]).max())
    assert largest_difference(positions.grad, data[f"{tag}.grad_in"]) < 1e-4 * scale
    touched = table.grad.abs().sum(dim=1).nonzero()[:, 0]
    assert touched.tolist() == data[f"{tag}.grad_emb_idx"].tolist()
    assert largest_difference(table.grad[touched], data[f"{tag}.grad_emb_val"]) < 2e-4  # sums of several 1e-4 terms


def test_direction_and_frequency_encoders(backend):
    data = golden.load("encoders")
    assert largest_difference(backend.sh_encode(tensor(data["sh.in"]), 4), data["sh.out"]) < 1e-5
    for n_dims, degree in ((2, 10), (6, 4), (14, 4)):
        encoded = backend.freq_encode(tensor(data[f"freq{n_dims}_{degree}.in"]), degree)
        assert largest_difference(encoded, data[f"freq{n_dims}_{degree}.out"]) < 1e-5


def test_morton_bits_and_dilation(backend, ellipsoid):
    data = golden.load("raymarching")
    cells = tensor(data["morton_coords"])
    assert backend.morton_encode(cells).tolist() == data["morton_idx"].tolist()
    assert backend.morton_decode(tensor(data["morton_idx"])).tolist() == cells.tolist()
    assert int(backend.pack_bits(ellipsoid.view(-1), 10.0).long().sum()) > 0
    assert _count_bits(backend.pack_bits(ellipsoid.view(-1), 10.0)) == int(data["bitfield_sum"])
    dilated = dilate(ellipsoid, 128, backend)[0, tensor(data["dilation_sample_idx"]).long()]
    assert largest_difference(dilated, data["dilation_sample"]) < 1e-4


def _count_bits(packed: torch.Tensor) -> int:
    return int(np.unpackbits(packed.cpu().numpy()).sum())


def test_rays_and_box(backend, device):
    data = golden.load("raymarching")
    rays = pixel_rays(pixel_centres(16, 16, device), camera_matrix(16), tensor(data["pose"])[0])
    assert largest_difference(rays.origins, data["rays_o"]) < 1e-5
    assert largest_difference(rays.directions, data["rays_d"]) < 1e-5
    near, far = backend.near_far(rays, torch.tensor([-1, -0.5, -1, 1, 0.5, 1]), 0.05)
    assert np.allclose(near.cpu().numpy(), data["nears"], rtol=1e-5)
    assert np.allclose(far.cpu().numpy(), data["fars"], rtol=1e-5)


def test_rays_of_fitted_poses(device):
    data = golden.load("face3d_pose")
    for index, pose in enumerate(data["ngp_pose"][: len(data["rays_o"])]):
        rays = pixel_rays(pixel_centres(16, 16, device), camera_matrix(16), tensor(pose))
        assert largest_difference(rays.origins, data["rays_o"][index]) < 1e-5
        assert largest_difference(rays.directions, data["rays_d"][index]) < 1e-5
    assert largest_difference(background_coordinates(16, 16, device), data["bg_coords_16"]) < 1e-5
    assert largest_difference(background_coordinates(4, 6, device), data["bg_coords_4x6"]) < 1e-5


MARCH = MarchConfig(1.0, 128, 1, 1 / 256, 2 * 3**0.5 / 128, 2 * 3**0.5 / 128)


def golden_rays(data) -> tuple[RayBundle, torch.Tensor, torch.Tensor]:
    return RayBundle(tensor(data["rays_o"]), tensor(data["rays_d"])), tensor(data["nears"]), tensor(data["fars"])


def test_march_for_training(backend, ellipsoid):
    data = golden.load("raymarching")
    bits = backend.pack_bits(ellipsoid.view(-1), 10.0)
    samples = backend.march_train(*golden_rays(data), bits, MARCH, 16)
    count = int(data["train_counter"][0])
    assert len(samples.positions) == count
    assert largest_difference(samples.positions, data["train_xyzs"][:count]) < 1e-4
    assert largest_difference(samples.directions[:256], data["train_dirs0"]) < 1e-4
    assert largest_difference(samples.deltas, data["train_deltas"][:count]) < 1e-4
    assert samples.counts.tolist() == data["train_rays"][:, 2].tolist()


def test_composite_for_training(backend):
    data = golden.load("raymarching")
    count = int(data["train_counter"][0])
    counts = tensor(data["train_rays"][:, 2]).long()
    ray_index = torch.repeat_interleave(torch.arange(len(counts)), counts)
    samples = RaySamples(
        tensor(data["train_xyzs"][:count]),
        tensor(data["train_xyzs"][:count]),
        tensor(data["train_deltas"][:count]),
        ray_index,
        counts,
    )
    sigmas, rgbs, ambient = (tensor(data[f"train_{k}"][:count]).requires_grad_() for k in ("sigmas", "rgbs", "amb"))
    sums = backend.composite_train(sigmas, rgbs, ambient, samples, 1e-4)
    for mine, theirs in ((sums.opacity, "ws"), (sums.ambient, "ambsum"), (sums.depth, "depth"), (sums.image, "image")):
        assert largest_difference(mine, data[f"train_{theirs}"]) < 1e-4
    torch.autograd.backward(
        [sums.opacity, sums.ambient, sums.image], [tensor(data[f"grad_{k}"]) for k in ("ws", "ambsum", "image")]
    )
    for mine, theirs in ((sigmas, "sigmas"), (rgbs, "rgbs"), (ambient, "amb")):
        assert largest_difference(mine.grad, data[f"grad_{theirs}"][:count]) < 1e-4


@pytest.mark.parametrize("threshold", ["0.01", "0.05", "0.0001"])
def test_inference_loop(threshold, backend, ellipsoid):
    data = golden.load("raymarching")
    rays, near, far = golden_rays(data)
    field = _BlobField(backend, backend.pack_bits(ellipsoid.view(-1), 10.0))
    sums = sum_inference(field, rays, near, far, torch.zeros(1), torch.zeros(1), float(threshold))
    assert largest_difference(sums.opacity, data[f"inf_T{threshold}_ws"]) < 1e-4
    assert largest_difference(sums.image, data[f"inf_T{threshold}_image"]) < 1e-4
    assert largest_difference(sums.depth, data[f"inf_T{threshold}_depth"]) < 1e-4
    trace = data[f"inf_T{threshold}_trace"]
    assert field.calls == [int(alive * steps) for _, alive, steps in trace]


class _CountingBackend:
    """Counts the sample slots that each block of the inference loop marches."""

    def __init__(self, backend, calls: list[int]) -> None:
        self._backend, self._calls = backend, calls

    def __getattr__(self, name: str):
        return getattr(self._backend, name)

    def march_infer(self, rays, start, far, bitfield, march, n_steps):
        self._calls.append(len(rays) * n_steps)
        return self._backend.march_infer(rays, start, far, bitfield, march, n_steps)


class _BlobField:
    """Stands in for the network: sigma = 60 exp(-8 r²), rgb = 0.5 + 0.5 p."""

    def __init__(self, backend, bits) -> None:
        self.calls: list[int] = []
        self.backend = _CountingBackend(backend, self.calls)
        self.density_bitfield, self.config, self.cascades = bits, RADNeRFConfig(), 1

    def __call__(self, positions, directions, cond_feat, code):
        sigma = 60 * torch.exp(-8 * (positions**2).sum(dim=-1))
        return FieldOutput(sigma, 0.5 + 0.5 * positions, torch.zeros_like(positions))


def test_march_config_is_the_originals(may_head):
    march = march_config(may_head)
    assert march.dt_min == march.dt_max == pytest.approx(0.0270633, abs=1e-7)


def test_manifest(may_head):
    manifest = golden.load_json("manifest_radnerf_head")
    mine = {k: {"shape": list(v.shape), "dtype": str(v.dtype)[6:]} for k, v in may_head.state_dict().items()}
    assert mine == manifest


def test_manifest_of_blink_keys(backend):
    manifest = golden.load_json("manifest_radnerf_head_sr")
    state = RADNeRF(RADNeRFConfig(smo_win_size=3, eye_blink_dim=2), backend).state_dict()
    wanted = {k: v for k, v in manifest.items() if not k.startswith("sr_net") and k != "lambda_ambient"}
    assert {k: {"shape": list(v.shape), "dtype": str(v.dtype)[6:]} for k, v in state.items()} == wanted


def golden_condition(field) -> torch.Tensor:
    return field.encode_condition(tensor(golden.symmetric((field.config.smo_win_size, 1, 204), "nerf.cond", 1.0)))


def test_field(may_head):
    data = golden.load("radnerf_head")
    window = tensor(data["cond"])
    with torch.no_grad():
        assert largest_difference(may_head.cond_prenet(window), data["cond_prenet"]) < 1e-4
        feature = may_head.encode_condition(window)
        assert largest_difference(feature, data["cond_feat_noeye"]) < 1e-4
        assert torch.allclose(may_head.encode_conditions(window[None])[0], feature, atol=1e-6)
        code = may_head.individual_embeddings[0]
        out = may_head(tensor(data["x"]), tensor(data["dirs"]), feature, code)
        density = may_head.density(tensor(data["x"]), feature)
    assert np.allclose(out.sigma.cpu().numpy(), data["sigma"], rtol=1e-3, atol=1e-3)
    assert np.allclose(density.cpu().numpy(), data["density_sigma"], rtol=1e-3, atol=1e-3)
    assert largest_difference(out.rgb, data["color"]) < 1e-3
    assert largest_difference(out.ambient, data["ambient"]) < 1e-3


def test_field_with_blink(backend):
    data = golden.load("radnerf_head_sr")
    field = RADNeRF(RADNeRFConfig(smo_win_size=3, eye_blink_dim=2, render=RenderConfig(sampler="surface")), backend)
    golden.fill(field)
    with torch.no_grad():
        window = tensor(data["cond"])
        assert largest_difference(field.encode_condition(window), data["cond_feat_noeye"]) < 1e-4
        feature = field.encode_condition(window, 0.35)
        assert largest_difference(feature, data["cond_feat_eye035"]) < 1e-4
        assert torch.allclose(field.encode_conditions(window[None], torch.tensor([0.35]))[0], feature, atol=1e-6)
        out = field(tensor(data["x"]), tensor(data["dirs"]), feature, field.individual_embeddings[0])
    assert np.allclose(out.sigma.cpu().numpy(), data["sigma"], rtol=1e-3, atol=1e-3)
    assert largest_difference(out.rgb, data["color"]) < 1e-3
    assert largest_difference(out.ambient, data["ambient"]) < 1e-3


@pytest.mark.usefixtures("many_points")
def test_full_render(may_head, device):
    data, scene = golden.load("radnerf_head"), golden.load("raymarching")
    rays = pixel_rays(pixel_centres(128, 128, device), camera_matrix(128), tensor(scene["pose"])[0])
    y, x = (background_coordinates(128, 128, device) * 0.5 + 0.5).unbind(1)
    background = torch.stack([x, y, (x + y) / 2], dim=1)
    with torch.no_grad():
        out = render_occupancy(
            may_head,
            rays,
            golden_condition(may_head),
            may_head.individual_embeddings[0],
            background,
            training=False,
            t_thresh=0.01,
        )
    assert_close_picture(out.rgb.view(128, 128, 3)[::2, ::2], data["render.rgb_map_sub2"])
    assert_close_picture(out.depth.view(128, 128)[::2, ::2], data["render.depth_map_sub2"])


def assert_close_picture(actual: torch.Tensor, expected: np.ndarray) -> None:
    """Mean 1e-4 and largest 5e-3: the golden field is steep, so last-bit differences of positions show at edges."""
    difference = (actual.detach() - tensor(expected).view(actual.shape)).abs()
    assert float(difference.mean()) < 1e-4
    assert float(difference.max()) < 5e-3


@pytest.mark.usefixtures("many_points")
def test_training_step(may_head, device):
    data, scene = golden.load("radnerf_head_train"), golden.load("raymarching")
    rays = pixel_rays(pixel_centres(48, 48, device), camera_matrix(48), tensor(scene["pose"])[0])
    may_head.zero_grad()
    out = render_occupancy(
        may_head,
        rays,
        golden_condition(may_head),
        may_head.individual_embeddings[3],
        tensor(data["bg"])[0],
        training=True,
    )
    assert_close_picture(out.opacity, data["weights_sum"])
    assert_close_picture(out.rgb, data["pred"][0])
    assert_close_picture(out.depth, data["depth"][0])
    assert largest_difference(out.ambient, data["ambient_sum"]) < 1e-3
    opacity = out.opacity.clamp(1e-5, 1 - 1e-5)
    entropy = (-opacity * torch.log2(opacity) - (1 - opacity) * torch.log2(1 - opacity)).mean()
    outside = ~tensor(data["face_mask"])[0]
    ambient = (out.ambient.abs() * outside).sum() / (outside.sum() + 1)
    mse = ((out.rgb - tensor(data["gt"])[0]) ** 2).mean()
    for mine, theirs in ((mse, "mse"), (entropy, "entropy"), (ambient, "ambient_loss")):
        assert float(mine.detach()) == pytest.approx(float(data[theirs]), rel=1e-4, abs=1e-4)
    loss = mse + 1e-4 * entropy + 0.1 * ambient
    assert float(loss.detach()) == pytest.approx(float(data["loss"]), rel=1e-4)
    loss.backward()
    for name, parameter in may_head.named_parameters():
        assert float(parameter.grad.norm()) == pytest.approx(float(data[f"gradnorm.{name}"]), rel=0.05), name
        if f"grad.{name}" in data:
            scale = float(np.abs(data[f"grad.{name}"]).max())
            assert largest_difference(parameter.grad, data[f"grad.{name}"]) < 0.05 * scale


@pytest.fixture(scope="module")
def marked_grid(backend, device) -> torch.Tensor:
    with device:
        poses = tensor(golden.load("mark_untrained")["poses"])
        return mark_untrained(torch.zeros(1, 128**3), poses, camera_matrix(512), 1.0, 128, backend)


def test_mark_untrained(marked_grid):
    data, grid = golden.load("mark_untrained"), marked_grid
    assert int((grid == -1).sum()) == int(data["n_untrained"])
    assert np.array_equal(np.packbits((grid == -1).view(-1).cpu().numpy()), data["packed"])


def test_update_grid(marked_grid, backend, device):
    data, grid = golden.load("update_grid"), marked_grid
    points = cell_centres(all_cells(128, device, backend), 128, 1.0)
    fresh = dilate((40 * torch.exp(-6 * (points**2).sum(dim=1)))[None], 128, backend)
    for _ in range(int(data["iter_density"])):
        update = merge_densities(grid, fresh, 0.95, 10.0, backend)
        grid = update.density_grid
    assert update.mean_density == pytest.approx(float(data["mean_density"]), rel=1e-4)
    assert largest_difference(grid[0, ::997], data["grid_sample"]) < 1e-4
    assert _count_bits(update.bitfield) == int(data["bit_sum"])
    assert np.array_equal(update.bitfield[::97].cpu().numpy(), data["bitfield_sample"])
