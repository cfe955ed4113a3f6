"""The batched surface path's kernels against plain torch, on a crumpled sheet in front of another one."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch

from modules.radnerfs.backends.surface_ops import TORCH_OPS as PLAIN
from modules.radnerfs.backends.torch_surface import EMPTY
from modules.radnerfs.config import GridConfig, RADNeRFConfig, RenderConfig
from modules.radnerfs.patch_shading import FieldShader, PackedShader
from modules.radnerfs.person import PersonField
from modules.radnerfs.surface_tensors import (
    COLUMN_MEMBRANE,
    SIZE_MOUTH,
    SIZE_RADIUS,
    SIZE_REACH,
    FaceTables,
    FrameTensors,
    SurfaceSamples,
)
from modules.radnerfs.trust import CELLS

HEIGHT, WIDTH = 40, 64
BOX = 16
"""Side of the mouth box."""
FINER = 2


@pytest.fixture(scope="module")
def kernels(kernel_device):
    from modules.radnerfs.backends.triton_kernels.surface import TRITON_OPS

    return TRITON_OPS


def on(device: torch.device, value: Any) -> Any:
    """A tensor, or a record of tensors, on ``device``."""
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if hasattr(value, "__dataclass_fields__"):
        return type(value)(**{f.name: on(device, getattr(value, f.name)) for f in fields(value)})
    return value


def sheet(rows: int, columns: int, depth: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vertices ``[R·C, 3]`` over ±1 and triangles that face the camera."""
    y, x = np.meshgrid(np.linspace(1, -1, rows), np.linspace(-1, 1, columns), indexing="ij")
    points = np.stack([x, y, depth + 0 * x], axis=-1) + rng.normal(0, 0.08, (rows, columns, 3))
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    faces = np.concatenate([np.stack(t, axis=-1).reshape(-1, 3) for t in ((a, d, c), (a, c, b))])
    return points.reshape(-1, 3), faces


@pytest.fixture(scope="module")
def scene():
    """Face and two frames with different windows, in plain torch on the CPU."""
    rng = np.random.default_rng(3)
    front, near = sheet(4, 5, 0.3, rng)
    back, far = sheet(3, 3, -0.2, rng)
    vertices = np.concatenate([front, 1.3 * back]).astype(np.float32)
    attributes = rng.uniform(0, 1, (len(vertices), 9)).astype(np.float32)
    attributes[:, :3] = vertices
    attributes[: len(front), COLUMN_MEMBRANE] = 0
    attributes[: len(front), 8] -= 0.4  # some of it is no mouth
    tensor = torch.from_numpy
    face = FaceTables(
        triangles=tensor(np.concatenate([near, far + len(front)]).astype(np.int32)),
        attributes=tensor(attributes),
        neutral=tensor(vertices.reshape(-1)),
        basis=tensor(rng.normal(0, 0.05, (2, vertices.size)).astype(np.float32)),
        teeth_origin=torch.tensor([0.0, 0.1, -0.3]),
        teeth_place=torch.tensor([0.1, 0.0, -0.2]),
        box_center=torch.tensor([0.05, -0.1, 0.1]),
        box_scale=torch.tensor(0.7),
        trust=tensor(rng.uniform(0.3, 1, (CELLS,) * 3).astype(np.float32)),
        best_view=tensor(rng.uniform(0.2, 1, (CELLS,) * 3).astype(np.float32)),
    )
    focal = 230.0
    matrices = np.array([[[focal, 0, -32, 320], [0, -focal, -20, 200], [0, 0, -1, 10]]] * 2, float)
    matrices[1, 0, 3] += 40
    rays = np.array([[[1, 0, 0], [0, -1, 0], [-32, 20, -focal]]] * 2, np.float32)
    sizes = np.array([[WIDTH, HEIGHT, 20, 12, 2, 6], [51, 33, 40, 20, 3, 9]], np.int32)
    frames = FrameTensors(
        expression=tensor(rng.normal(0, 1, (4, 2)).astype(np.float32)),
        pixel_from_head=tensor(matrices),
        rays=tensor(rays),
        edge_px=torch.tensor([1.4, 2.2]),
        sizes=tensor(sizes),
    )
    head = torch.addmm(face.neutral, frames.expression, face.basis).unflatten(1, (-1, 3))
    screen = PLAIN.project(head, frames.pixel_from_head)
    keys = PLAIN.rasterize(screen, face.triangles, HEIGHT, WIDTH)
    surface = PLAIN.surface_points(keys, screen, head, face, frames)
    return face, frames, head, screen, keys, surface


@pytest.fixture(scope="module")
def alpha(scene):
    pattern = torch.rand(2, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(4))
    return torch.where(scene[5].seen & (pattern > 0.3), pattern, 0.0)


def test_projection(kernels, kernel_device, scene):
    _, frames, head, *_ = scene
    behind = head.clone()
    behind[0, 2, 2] = 30.0
    behind[1, 3, 0] = torch.inf
    plain = PLAIN.project(behind, frames.pixel_from_head)
    fast = kernels.project(behind.to(kernel_device), on(kernel_device, frames).pixel_from_head).cpu()
    torch.testing.assert_close(fast, plain, atol=2e-5, rtol=1e-6, equal_nan=True)
    assert plain[0, 2].isnan().all() and plain[1, 3].isnan().all() and plain.isnan().sum() == 6


@pytest.mark.parametrize("finer", [1, 3])
def test_pixels_see_the_same_triangles(kernels, kernel_device, scene, finer):
    face, frames, _, screen, *_ = scene
    place = None if finer == 1 else frames.sizes[:, SIZE_MOUTH : SIZE_MOUTH + 2]
    chosen = screen if finer == 1 else screen[:2]
    size = (HEIGHT, WIDTH) if finer == 1 else (BOX * finer, BOX * finer)
    plain = PLAIN.rasterize(chosen, face.triangles, *size, place, finer)
    moved = None if place is None else place.to(kernel_device)
    fast = kernels.rasterize(chosen.to(kernel_device), on(kernel_device, face).triangles, *size, moved, finer).cpu()
    other = (fast & 0xFFFFFFFF) != (plain & 0xFFFFFFFF)
    assert other.float().mean() < 0.002
    assert (plain != EMPTY).float().mean() > 0.1 and plain[plain != EMPTY].remainder(2**32).unique().numel() > 10


def test_ties_go_to_the_triangle_listed_first(kernels, kernel_device, scene):
    face, _, _, screen, *_ = scene
    twice = torch.cat([face.triangles, face.triangles])
    for ops, device in ((PLAIN, torch.device("cpu")), (kernels, kernel_device)):
        once = ops.rasterize(screen[:1].to(device), face.triangles.to(device), HEIGHT, WIDTH)
        assert torch.equal(ops.rasterize(screen[:1].to(device), twice.to(device), HEIGHT, WIDTH), once)


def test_surface_points(kernels, kernel_device, scene):
    face, frames, head, screen, keys, plain = scene
    fast = kernels.surface_points(*(on(kernel_device, v) for v in (keys, screen, head, face, frames)))
    for field in fields(plain):
        torch.testing.assert_close(getattr(fast, field.name).cpu(), getattr(plain, field.name), atol=1e-5, rtol=1e-5)
    assert not plain.seen[1, 33:].any() and not plain.seen[1, :, 51:].any()
    alone = PLAIN.surface_points(keys[:2], screen[:2], head[:2], face, frames)
    assert (plain.weight >= alone.weight).all() and (plain.weight > alone.weight).any()


def test_samples_and_their_picture(kernels, kernel_device, scene, alpha):
    face, frames, head, screen, _, surface = scene
    jumps = PLAIN.mouth_jumps(surface, alpha, 0.1)
    fast_jumps = kernels.mouth_jumps(on(kernel_device, surface), alpha.to(kernel_device), 0.1)
    assert torch.equal(fast_jumps.cpu(), jumps) and jumps.sum() > 20
    jumps = in_boxes(frames) & (alpha > 0)
    fine_keys = PLAIN.rasterize(
        screen[:2], face.triangles, BOX * FINER, BOX * FINER, frames.sizes[:, SIZE_MOUTH : SIZE_MOUTH + 2], FINER
    )
    arguments = surface, alpha, jumps, fine_keys, screen, head, face, frames
    plain = PLAIN.collect_samples(*arguments, FINER)
    fast = kernels.collect_samples(*(on(kernel_device, v) for v in arguments), FINER)
    count = int(fast.count.cpu()[0])
    assert count == len(plain.frame) > 100
    assert_same_samples(plain, fast)
    colours = torch.rand(count, 3, generator=torch.Generator().manual_seed(5))
    picture = PLAIN.assemble(colours, plain, jumps, frames, FINER)
    ordered = torch.empty(len(fast.frame), 3)
    for slots in ("slots", "fine_slots"):
        used = getattr(plain, slots) >= 0
        ordered[getattr(fast, slots).cpu()[used].long()] = colours[getattr(plain, slots)[used].long()]
    fast_picture = kernels.assemble(*(on(kernel_device, v) for v in (ordered, fast, jumps, frames)), FINER)
    torch.testing.assert_close(fast_picture.cpu(), picture, atol=1e-6, rtol=0)
    assert (picture[alpha == 0] == 0).all() and (plain.fine_slots >= 0).sum() > 20


def in_boxes(frames: FrameTensors) -> torch.Tensor:
    """Pixels of the mouth boxes."""
    inside = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    for frame, (left, top) in enumerate(frames.sizes[:, SIZE_MOUTH : SIZE_MOUTH + 2].tolist()):
        inside[frame, top : top + BOX, left : left + BOX] = True
    return inside


def assert_same_samples(plain: SurfaceSamples, fast: SurfaceSamples) -> None:
    """Equal sets; kernels may number them in another order."""
    for slots in ("slots", "fine_slots"):
        one, other = getattr(plain, slots), getattr(fast, slots).cpu()
        used = one >= 0
        assert torch.equal(used, other >= 0)
        for name in ("position", "direction", "frame"):
            values, others = getattr(plain, name)[one[used].long()], getattr(fast, name).cpu()[other[used].long()]
            torch.testing.assert_close(others, values, atol=1e-5, rtol=1e-5)


def test_stencils(kernels, kernel_device, scene, alpha):
    _, frames, *_, surface = scene
    sizes, there = frames.sizes, frames.sizes.to(kernel_device)
    edges = PLAIN.silhouettes(surface.depth, sizes, 0.3)
    assert torch.equal(kernels.silhouettes(surface.depth.to(kernel_device), there, 0.3).cpu(), edges)
    assert 10 < edges.sum() < 0.5 * edges.numel()
    marks = torch.rand(edges.shape, generator=torch.Generator().manual_seed(6)) > 0.99
    for reach in (SIZE_REACH, SIZE_RADIUS):
        plain = PLAIN.bounded_distance(marks, sizes, reach)
        fast = kernels.bounded_distance(marks.to(kernel_device), there, reach).cpu()
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-6)
    for name in ("dilate", "soften"):
        plain = getattr(PLAIN, name)(alpha, sizes)
        torch.testing.assert_close(
            getattr(kernels, name)(alpha.to(kernel_device), there).cpu(), plain, atol=1e-5, rtol=0
        )


def test_sharpening(kernels, kernel_device, scene, alpha):
    _, frames, *_ = scene
    image = torch.rand(2, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(7))
    share = torch.where(alpha > 0.8, alpha, 0.0)
    arguments = image, alpha > 0.2, share, frames.sizes
    plain = PLAIN.sharpen(*arguments, 1.0)
    fast = kernels.sharpen(*(on(kernel_device, v) for v in arguments), 1.0).cpu()
    torch.testing.assert_close(fast, plain, atol=1e-5, rtol=0)
    assert (plain != image).any()


def test_what_is_believed_and_the_alphas_end(kernels, kernel_device, scene, alpha):
    face, frames, *_, surface = scene
    surface = replace(surface, mouth=torch.zeros_like(surface.mouth))
    distance = torch.rand(alpha.shape, generator=torch.Generator().manual_seed(8)) * 9
    results = {}
    for name in ("known", "view_quality"):
        arguments = surface, distance, frames.edge_px, face
        results[name] = getattr(PLAIN, name)(*arguments, 4)
        fast = getattr(kernels, name)(*(on(kernel_device, v) for v in arguments), 4).cpu()
        torch.testing.assert_close(fast, results[name], atol=1e-5, rtol=0)
        assert results[name].std() > 0.05
    arguments = alpha, distance, results["known"], frames.sizes
    plain = PLAIN.fade(*arguments, 0.05)
    torch.testing.assert_close(
        kernels.fade(*(on(kernel_device, v) for v in arguments), 0.05).cpu(), plain, atol=1e-6, rtol=0
    )
    assert plain.std() > 0.01


@pytest.mark.parametrize("n_samples", [1, 3])
def test_the_fused_shader_gives_the_fields_colours(kernel_device, n_samples):
    grid = GridConfig(n_levels=3, desired_resolution=64, log2_table_size=10, grid_type="hash")
    config = RADNeRFConfig(
        position_grid=grid, ambient_grid=grid, ambient_dim=2, hidden_dim_ambient=16, hidden_dim_sigma=16,
        hidden_dim_color=16, num_layers_ambient=2, num_layers_sigma=2, geo_feat_dim=8, cond_out_dim=8, sh_degree=2,
        individual_embedding_num=1, individual_embedding_dim=0,
        render=RenderConfig(sampler="surface", n_samples=n_samples, shell_dm=0.1),
    )  # fmt: skip
    torch.manual_seed(0)
    person = PersonField(config, 4, 2)
    with torch.no_grad():
        person.radnerf.position_embedder.embeddings.uniform_(-4, 4)
        person.radnerf.color_net.net[-1].weight.mul_(4)
    person = person.to(kernel_device).eval()
    generator = torch.Generator().manual_seed(1)
    position, direction = torch.rand(2, 48, 3, generator=generator) - 0.5
    nothing = torch.empty(0, dtype=torch.int32)
    samples = SurfaceSamples(
        position, torch.nn.functional.normalize(direction, dim=1), torch.arange(48, dtype=torch.int32) // 16, nothing,
        nothing, torch.tensor([40], dtype=torch.int32),
    )  # fmt: skip
    samples = on(kernel_device, samples)
    condition = torch.randn(3, 8, generator=generator).to(kernel_device)
    with torch.no_grad():
        wanted = FieldShader(person).shade(samples, condition)[:40]
        assert len(FieldShader(person).shade(samples, condition)) == 40
        torch.testing.assert_close(PackedShader(person).shade(samples, condition)[:40], wanted, atol=4e-3, rtol=0)
    assert wanted.std() > 0.03
