"""The compositor on a device gives the CPU compositor's frames, over time too, whatever is in front of the face."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.device_compositor import ColourMemory, DeviceCompositor, Edits
from inference.face_compositor import FaceCompositor
from modules.structures.device_patch import DevicePatch
from modules.structures.frames import FramePatch, PlaneLayout
from modules.structures.masks import OcclusionMask
from modules.video.colour import rgb_float_from_planes
from tests.support.plane_layouts import LAYOUTS, noisy_frame
from tests.support.real_frames import DEMO_CLIP, read_frames

NO_HANDS = np.zeros((0, 21, 2), np.float32)
CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
LARGEST_OFF = {8: 1, 10: 4, 12: 16}
"""1/255 in codes of each depth."""


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device(request.param)


def cast_patch(frame, bounds, seed=0):
    """What the frame shows, in another light, with noise and a dark mouth; a soft alpha that thins out irregularly."""
    rng = np.random.default_rng(seed)
    x0, y0, x1, y1 = bounds
    y, x = np.mgrid[: y1 - y0, : x1 - x0]
    radius = np.hypot((x + 0.5) / (x1 - x0) * 2 - 1, (y + 0.5) / (y1 - y0) * 2 - 1)
    alpha = np.clip((0.97 - radius) / 0.35 + 0.05 * np.sin(x / 3), 0, 1).astype(np.float32)
    rgb = rgb_float_from_planes(frame, bounds) * (1.15, 1.0, 0.85) + rng.normal(0, 0.02, (*alpha.shape, 3))
    rgb[radius < 0.2] = 0.05
    rgb[alpha == 0] = np.nan
    return FramePatch(bounds, np.clip(rgb, 0, 1).astype(np.float32), alpha)


def hand_over(frame, share):
    """An occluder with a soft edge over the left ``share`` of the frame."""
    width = frame.size_hw[1]
    values = np.clip((share * width - np.arange(width)) / 6 + 0.5, 0, 1).astype(np.float32)
    return OcclusionMask(np.broadcast_to(values, frame.size_hw).copy(), "frame", NO_HANDS)


def edits_of(frames, patches, occlusions, begins, device, **options):
    free = []
    for patch, mask in zip(patches, occlusions, strict=True):
        x0, y0, x1, y1 = patch.bounds
        free.append(None if mask is None else 1 - mask.values[y0:y1, x0:x1])
    on_device = [
        DevicePatch(p.bounds, torch.from_numpy(p.rgb).to(device), torch.from_numpy(p.alpha).to(device)) for p in patches
    ]
    strength = np.ones(len(frames), np.float32)
    return Edits(tuple(frames), tuple(on_device), strength, tuple(free), np.array(begins), **options)


def on_device(compositor, edits, memory, remembered=()):
    estimated = compositor.estimate(edits)
    fields, memory, rows = compositor.follow(estimated, memory, remembered)
    pending = compositor.blend(estimated, fields, rows)
    return pending.frames(), memory, pending.memories()


def assert_near(expected, made, source):
    for one, other, own in zip(expected.planes, made.planes, source.planes, strict=True):
        off = np.abs(one.astype(int) - other.astype(int))
        assert off.max() <= LARGEST_OFF[source.layout.bit_depth]
        assert off.max() == 0 or (off > 0).mean() < 0.02
        assert np.array_equal(one == own, other == own) or (off[(one == own) != (other == own)] > 0).all()
    assert not np.array_equal(made.planes[0], source.planes[0])


def assert_sequences_agree(frames, patches, occlusions, device, cut=None):
    """Composite frame by frame on the CPU and in two batches on the device."""
    plain = FaceCompositor()
    expected, states = [], []
    for number, (frame, patch, mask) in enumerate(zip(frames, patches, occlusions, strict=True)):
        if number == cut:
            plain.reset()
        expected.append(plain.composite_patch(frame, patch, mask))
        states.append(plain.state())
    compositor, memory = DeviceCompositor(device), ColourMemory.of({}, device)
    half = len(frames) // 2
    made = []
    for part in (slice(0, half), slice(half, None)):
        begins = [number == cut for number in range(len(frames))][part]
        edits = edits_of(frames[part], patches[part], occlusions[part], begins, device)
        done, memory, remembered = on_device(compositor, edits, memory, remembered=[len(edits.frames)])
        made += done
        assert_same_state(remembered[0], states[len(made) - 1])
    for one, other, source in zip(expected, made, frames, strict=True):
        assert_near(one, other.frame, source)
    assert_same_state(memory.state(), states[-1])


def assert_same_state(state, expected):
    assert state.keys() == expected.keys()
    if expected:
        assert np.abs(state["field"] - expected["field"]).max() < 3e-4 and state["field"].dtype == np.float32
        assert float(state["time_s"]) == float(expected["time_s"])
        assert np.array_equal(state["bounds"], expected["bounds"])


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.pixel_format}-{layout.siting}")
def test_every_layout_gives_the_frames_of_the_cpu(layout, device):
    size = (97, 131)
    frames = [noisy_frame(layout, size, seed=0, index=index) for index in range(4)]
    bounds = [(20, 10, 110, 80), (21, 10, 111, 80), (41, 27, 131, 97), (40, 0, 131, 97)]
    patches = [cast_patch(frame, box, seed) for seed, (frame, box) in enumerate(zip(frames, bounds, strict=True))]
    assert_sequences_agree(frames, patches, [None, hand_over(frames[0], 0.4), None, None], device)


def test_real_frames_with_a_hand_give_the_frames_of_the_cpu(demo_dir, device):
    frames = list(read_frames(demo_dir / DEMO_CLIP, 50, 62, 2))
    height, width = frames[0].size_hw
    box = (width // 4 + 1, height // 3, 3 * width // 4, height - 5)
    patches = [cast_patch(frame, box, seed) for seed, frame in enumerate(frames)]
    occlusions = [None, None, hand_over(frames[0], 0.45), hand_over(frames[0], 0.5), None, None]
    assert_sequences_agree(frames, patches, occlusions, device)


@pytest.mark.parametrize("change", ["cut", "gap", "jump"])
def test_colour_is_forgotten_and_kept_as_on_the_cpu(change, device):
    layout = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")
    frames = [noisy_frame(layout, (96, 160), seed=0, index=index) for index in range(4)]
    boxes = [(4, 4, 74, 74)] * 4
    if change == "gap":
        frames[2:] = [replace(frame, pts=frame.pts + 60) for frame in frames[2:]]
    if change == "jump":
        boxes[2:] = [(80, 20, 150, 90)] * 2
    patches = [cast_patch(frames[0], box, seed) for seed, box in enumerate(boxes)]
    patches[2:] = [replace(patch, rgb=patch.rgb * np.float32(0.8)) for patch in patches[2:]]
    assert_sequences_agree(frames, patches, [None] * 4, device, cut=2 if change == "cut" else None)


def test_a_wholly_hidden_face_leaves_frame_and_memory_alone(device):
    frame = noisy_frame(LAYOUTS[0], (96, 160), seed=0, index=3)
    patch = cast_patch(frame, (4, 4, 74, 74))
    compositor = DeviceCompositor(device)
    known = FaceCompositor()
    known.composite_patch(replace(frame, index=2, pts=2), patch)
    memory = ColourMemory.of(known.state(), device)
    edits = edits_of([frame], [patch], [hand_over(frame, 2.0)], [False], device, wants_alpha=True)
    (done,), after, _ = on_device(compositor, edits, memory)
    assert all(np.array_equal(a, b) for a, b in zip(done.frame.planes, frame.planes, strict=True))
    assert done.area_px == 0 and not done.alpha.any()
    assert_same_state(after.state(), known.state())


def test_alpha_and_area_are_those_that_show(device):
    frame = noisy_frame(LAYOUTS[0], (96, 160), seed=0)
    patch, hand = cast_patch(frame, (4, 4, 74, 74)), hand_over(frame, 0.3)
    edits = edits_of([frame], [patch], [hand], [False], device, wants_alpha=True)
    edits.strength[:] = 0.25
    (done,), *_ = on_device(DeviceCompositor(device), edits, ColourMemory.of({}, device))
    expected = patch.alpha * np.float32(0.25) * (1 - hand.values[4:74, 4:74])
    assert np.abs(done.alpha - expected).max() < 1e-6 and done.area_px == pytest.approx(expected.sum(), rel=1e-5)
    weak = FaceCompositor().composite_patch(frame, replace(patch, alpha=patch.alpha * np.float32(0.25)), hand)
    assert_near(weak, done.frame, frame)


def test_what_the_memory_says_survives_the_way_to_a_state_and_back(device):
    frame = noisy_frame(LAYOUTS[0], (96, 160), seed=0)
    known = FaceCompositor()
    known.composite_patch(frame, cast_patch(frame, (4, 4, 74, 74)))
    state = ColourMemory.of(known.state(), device).state()
    assert all(np.array_equal(state[name], array) for name, array in known.state().items())
    assert ColourMemory.of({}, device).state() == {}


def test_a_patch_outside_its_frame_is_refused():
    frame = noisy_frame(LAYOUTS[0], (96, 160), seed=0)
    patch = cast_patch(frame, (4, 4, 74, 74))
    small = noisy_frame(LAYOUTS[0], (40, 160), seed=0)
    cpu = torch.device("cpu")
    with pytest.raises(ValueError, match="outside"):
        DeviceCompositor(cpu).estimate(edits_of([small], [patch], [None], [False], cpu))
