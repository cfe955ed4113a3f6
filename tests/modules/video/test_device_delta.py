"""What is done to pictures in mode delta, in batches on a device, is what the CPU does window by window."""

import cv2
import numpy as np
import pytest
import torch

from modules.structures.carried_patch import CarriedPatch
from modules.structures.frames import FramePatch
from modules.video.delta_transfer import DeltaTransfer, Part
from modules.video.delta_transfer import in_source_light as lit_on_cpu
from modules.video.detail import refined
from modules.video.device_delta import CarriedBatch, in_source_light, moved, over_cells, with_detail, with_grain
from modules.video.device_grids import Grids
from modules.video.grain import NO_GRAIN, Grain
from modules.video.linear_light import LightCurve

SIZES = np.array([[96, 120], [75, 131], [110, 88]])
EDGES = np.array([3.0, 2.2, 4.1])
LEVEL = 1 / 255
PQ = LightCurve.of(16)
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device(request.param)


def smooth(rng, size_hw, depth, sigma, low=0.0, high=1.0):
    noise = cv2.GaussianBlur(rng.normal(0, 1, (*size_hw, depth)).astype(np.float32), (0, 0), sigma)
    noise = noise.reshape(*size_hw, depth)
    return np.clip((low + high) / 2 + (high - low) * 0.4 * noise / noise.std(), low, high).astype(np.float32)


def window(seed, size_hw, edge_px, *, still=False):
    """A source and a carried patch with everything in it: motion up to 8 px, a mouth, skin in another light."""
    rng = np.random.default_rng(seed)
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    radius = np.hypot(x / width * 2 - 1.1, y / height * 2 - 0.9)
    inside = np.clip((0.85 - radius) / 0.2, 0, 1).astype(np.float32)
    mouth = np.clip((0.4 - radius) / 0.1, 0, 1).astype(np.float32)
    shown = smooth(rng, size_hw, 3, 3.0, 0.2, 0.7)
    new = shown if still else np.clip(shown + 0.1 * (smooth(rng, size_hw, 3, 6.0) - 0.5), 0, 1)
    source = np.clip(shown * (0.9, 1.0, 1.15) + rng.normal(0, 0.02, shown.shape), 0, 1).astype(np.float32)
    flow = np.zeros((height, width, 2), np.float32) if still else smooth(rng, size_hw, 2, 7.0, -8, 8)
    compared = inside * smooth(rng, size_hw, 1, 4.0, 0.5, 1)[..., 0]
    rendered = np.zeros_like(mouth) if still else mouth
    x0, y0 = int(rng.integers(0, 9)), int(rng.integers(0, 9))
    patch = FramePatch((x0, y0, x0 + width, y0 + height), new.astype(np.float32), inside)
    carried = CarriedPatch(
        patch, shown, flow * inside[..., None], rendered, (inside > 0.2).astype(np.float32), compared,
        compared * (1 - mouth), np.roll(mouth, 3, axis=0), float(edge_px),
    )  # fmt: skip
    return source, carried


def batch_of(carried, device):
    grids = Grids(SIZES, (112, 144), device)

    def put(images):
        depth = images[0].shape[2:]
        out = torch.zeros((len(images), *depth, *grids.padded_hw))
        for number, image in enumerate(images):
            values = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1) if depth else image))
            out[number, ..., : image.shape[0], : image.shape[1]] = values
        return out.to(device)

    maps = ("shown", "flow", "rendered", "paintable", "compared", "matched", "mouth_shown")
    chosen = {name: put([getattr(one, name) for one in carried]) for name in maps}
    new, alpha = put([one.patch.rgb for one in carried]), put([one.patch.alpha for one in carried])
    return CarriedBatch(new=new, alpha=alpha, **chosen, grids=grids, edge_px=EDGES), put


def taken(batch, number):
    height, width = SIZES[number]
    values = batch[number, ..., :height, :width].cpu().numpy()
    return values.transpose(1, 2, 0) if values.ndim == 3 else values


def windows(**options):
    made = [window(seed, size, edge, **options) for seed, (size, edge) in enumerate(zip(SIZES, EDGES, strict=True))]
    return [source for source, _ in made], [carried for _, carried in made]


def occluders():
    made = []
    for number, (height, width) in enumerate(SIZES):
        free = np.ones((height, width), np.float32)
        free[: height // 2, number * 20 : number * 20 + 30] = 0
        made.append(cv2.GaussianBlur(free, (0, 0), 1.5))
    return made


@pytest.mark.parametrize("light", [LightCurve(), PQ], ids=["bt709", "pq"])
@pytest.mark.parametrize("hidden", [False, True])
def test_both_renderings_come_into_the_sources_light(device, hidden, light):
    sources, carried = windows()
    batch, put = batch_of(carried, device)
    free = occluders() if hidden else None
    made = in_source_light(put(sources), batch, put(free) if free else None, light)
    for number, (source, one) in enumerate(zip(sources, carried, strict=True)):
        expected = lit_on_cpu(source, Part.whole(one, free[number] if free else None), light)
        read = (one.compared > 0) | (one.rendered > 0) | (one.mouth_shown > 0) | np.full_like(one.rendered > 0, hidden)
        np.testing.assert_allclose(taken(made.shown, number)[read], expected.shown[read], atol=2e-5)
        np.testing.assert_allclose(taken(made.new, number)[read], expected.patch.rgb[read], atol=2e-5)
        assert np.abs(expected.shown - one.shown).max() > 0.02


def test_bands_are_lifted(device):
    _, carried = windows()
    batch, _ = batch_of(carried, device)
    gains = [(1.4, 1.2, 0.8), (1.0, 1.0, 1.0), (0.6, 1.0, 1.3)]
    made = with_detail(batch, torch.tensor(gains, device=device))
    for number, one in enumerate(carried):
        expected = refined(one.patch.rgb, gains[number], one.rendered)
        np.testing.assert_allclose(taken(made.new, number), expected, atol=2e-4)
    outside = batch.rendered[1] == 0
    assert outside.any() and torch.equal(made.new[1][:, outside], batch.new[1][:, outside])
    assert not torch.equal(made.new[0], batch.new[0])


@pytest.mark.parametrize("hidden", [False, True])
def test_sources_move_and_cells_change_as_on_the_cpu(device, hidden):
    sources, carried = windows()
    batch, put = batch_of(carried, device)
    free = occluders() if hidden else None
    done = moved(put(sources), batch, put(free) if free else None)
    for number, (source, one) in enumerate(zip(sources, carried, strict=True)):
        transfer = DeltaTransfer()
        expected = transfer.patch(source, Part.whole(one, free[number] if free else None), 0.0)
        off = np.abs(taken(done.rgb, number) - expected.rgb)
        assert off.max() < LEVEL / 2 and off.mean() < 0.01 * LEVEL
        rows, columns = done.cells.size_hw[number]
        cells = DeltaTransfer().written(
            done.active[number, :rows, :columns].cpu().numpy(), done.plain[number, :rows, :columns].cpu().numpy(),
            one.patch.bounds, 0.0,
        )  # fmt: skip
        plain = done.plain[number, :rows, :columns].cpu().numpy()
        assert (plain != transfer.state()["changed"]).mean() < 1e-3 and 0.1 < plain.mean() < 0.95
        written = torch.zeros_like(done.active)
        written[number, :rows, :columns] = torch.from_numpy(cells).to(device)
        alpha = taken(over_cells(done, written, batch.grids), number)
        assert (np.abs(alpha - expected.alpha) > LEVEL).mean() < 2e-3


def test_equal_motions_change_nothing_at_all(device):
    sources, carried = windows(still=True)
    batch, put = batch_of(carried, device)
    done = moved(put(sources), batch, None)
    assert not done.active.any() and not over_cells(done, done.active, batch.grids).any()


def test_grain_is_the_same_grain(device):
    sources, carried = windows()
    batch, put = batch_of(carried, device)
    grain = Grain(3)
    strengths = [(0.02, 0.01, 0.004, 0.006), NO_GRAIN, (0.01, 0.0, 0.0, 0.002)]
    offsets = torch.from_numpy(np.stack([grain.offsets(frame) for frame in (7, 8, 9)])).to(device)
    tiles = torch.from_numpy(np.stack(grain.tiles)).to(device)
    given = put(sources)
    made = with_grain(given, batch.alpha, batch.rendered, tiles, offsets, torch.tensor(strengths, device=device))
    for number, (source, one) in enumerate(zip(sources, carried, strict=True)):
        expected = grain.add(source, one.patch.alpha, one.rendered, strengths[number], 7 + number)
        np.testing.assert_allclose(taken(made, number), expected, atol=2e-6)
    assert torch.equal(made[1], given[1]) and not torch.equal(made[0], given[0])
