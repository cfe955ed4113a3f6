"""Compositor: exact outside its alpha, hands in front, colour followed over time, crops back where they came from."""

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from inference.face_compositor import FaceCompositor, patch_from_crop
from modules.commons.workspace import DEMO_DIR
from modules.structures.carried_patch import CarriedPatch
from modules.structures.crops import CropRegion, warp_affine
from modules.structures.frames import Frame, FramePatch, PlaneLayout
from modules.structures.masks import OcclusionMask
from modules.video.colour import chroma_alpha, rgb_float_from_planes, rgb_from_planes
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter
from tests.support.synthetic_video import ClipSpec, make_clip

LAYOUT = PlaneLayout("yuv420p", (1, 1), "left", full_range=False, matrix="bt709")
NO_HANDS = np.zeros((0, 21, 2), np.float32)


def skin_frame(width=160, height=120, index=0, rate=25, gain=1.0):
    """A smooth skin-toned frame; ``gain`` scales its light."""
    y, x = np.mgrid[:height, :width] / 100
    luma = 16 + 219 * gain * (0.55 + 0.08 * np.sin(2 * x + y))
    cy, cx = np.mgrid[: height // 2, : width // 2] / 50
    planes = (luma, 118 + 3 * np.sin(cx + cy), 142 + 3 * np.cos(cx))
    return Frame(index, index, Fraction(1, rate), tuple(np.rint(p).astype(np.uint8) for p in planes), LAYOUT)


def soft_ellipse(height, width, edge=0.3):
    y, x = np.mgrid[:height, :width] + 0.5
    radius = np.hypot((x - width / 2) / (width / 2), (y - height / 2) / (height / 2))
    return np.clip((0.95 - radius) / edge, 0, 1).astype(np.float32)


def skin_patch(frame, bounds=(31, 21, 131, 101), cast=(1.0, 1.0, 1.0)):
    rgb = rgb_float_from_planes(frame, bounds) * np.array(cast, np.float32)
    return FramePatch(
        bounds, np.clip(rgb, 0, 1).astype(np.float32), soft_ellipse(bounds[3] - bounds[1], bounds[2] - bounds[0])
    )


def spread(frame, bounds, alpha):
    """Luma alpha of the whole frame, and the planes' masks of touched samples."""
    whole = np.zeros(frame.size_hw, np.float32)
    whole[bounds[1] : bounds[3], bounds[0] : bounds[2]] = alpha
    return whole > 0, *(chroma_alpha(whole, frame.layout) > 0,) * 2


def assert_exact_outside(before, after, masks):
    for a, b, mask in zip(before.planes, after.planes, masks, strict=True):
        assert np.array_equal(a[~mask], b[~mask])


@pytest.mark.parametrize("mode", ["alpha", "multiband", "seamless"])
def test_samples_outside_the_final_alpha_are_bit_exact(mode):
    frame = skin_frame()
    patch = skin_patch(frame, cast=(1.3, 0.9, 0.8))
    patch.rgb[30:50, 20:80] = 0.1
    hand = np.zeros(frame.size_hw, np.float32)
    hand[:, 90:] = 1
    result = FaceCompositor(mode).composite_patch(frame, patch, OcclusionMask(hand, "frame", NO_HANDS))
    x0, y0, x1, y1 = patch.bounds
    masks = spread(frame, patch.bounds, patch.alpha * (1 - hand[y0:y1, x0:x1]))
    assert_exact_outside(frame, result, masks)
    assert np.array_equal(frame.planes[0][:, 90:], result.planes[0][:, 90:])
    assert not np.array_equal(frame.planes[0][:, :90], result.planes[0][:, :90])


@pytest.mark.parametrize("mode", ["alpha", "multiband", "seamless"])
def test_a_colour_cast_hardly_shows_after_matching(mode):
    frame = skin_frame()
    patch = skin_patch(frame, cast=(1.2, 1.0, 0.85))
    plain = FaceCompositor("alpha", match_colour=False).composite_patch(frame, patch)
    matched = FaceCompositor(mode).composite_patch(frame, patch)
    truth = rgb_from_planes(frame).astype(int)
    before, after = (np.abs(rgb_from_planes(f) - truth).mean() for f in (plain, matched))
    assert after < 0.15 * before
    assert np.abs(rgb_from_planes(matched) - truth).max() <= 6


@pytest.mark.parametrize("mode", ["multiband", "seamless"])
def test_a_hand_in_front_colours_nothing_beside_it(mode):
    frame = skin_frame()
    patch, bounds = skin_patch(frame), skin_patch(frame).bounds
    hand = np.zeros(frame.size_hw, np.float32)
    hand[:, 90:] = 1
    frame.planes[0][:, 90:] = 20
    result = FaceCompositor(mode).composite_patch(frame, patch, OcclusionMask(hand, "frame", NO_HANDS))
    beside = np.s_[bounds[1] : bounds[3], bounds[0] : 89]
    assert np.abs(result.planes[0][beside].astype(int) - frame.planes[0][beside]).max() <= 2
    assert np.array_equal(result.planes[0][:, 90:], frame.planes[0][:, 90:])


def test_a_true_patch_changes_nothing_worth_seeing():
    frame = skin_frame()
    result = FaceCompositor().composite_patch(frame, skin_patch(frame))
    for a, b in zip(frame.planes, result.planes, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1


def brightness(frame, compositor, patch, at=0.5):
    x0, y0, x1, y1 = patch.bounds
    row, column = (y0 + y1) // 2, round(x0 + at * (x1 - x0))
    return float(compositor.composite_patch(frame, patch).planes[0][row - 9 : row + 9, column - 9 : column + 9].mean())


def side_lit(left=31, right=131):
    """Light from the right: brighter there and darker to the left, by as much."""
    return skin_frame(gain=1 + 0.2 * np.clip((np.arange(160) - (left + right) / 2) / (right - left) * 2, -1, 1))


def test_the_shape_of_light_follows_slowly_over_time_and_at_once_after_a_reset():
    """The light moves to one side; the patch keeps the old light."""
    before, after = skin_frame(), side_lit()
    patch = skin_patch(before)
    compositor = FaceCompositor(smoothing_s=0.4)
    start = brightness(before, compositor, patch, at=0.25)
    goal = brightness(after, FaceCompositor(), patch, at=0.25)
    seen = [brightness(replace(after, index=i, pts=i), compositor, patch, at=0.25) for i in range(1, 26)]
    share = [(start - value) / (start - goal) for value in seen]
    assert 0.03 < share[0] < 0.25  # 1 - exp(-0.04 / 0.4) = 0.095
    assert share[9] == pytest.approx(1 - np.exp(-1), abs=0.08)
    assert all(b >= a - 1e-3 for a, b in zip(share, share[1:], strict=False)) and share[-1] > 0.88
    compositor.reset()
    last = brightness(replace(after, index=26, pts=26), compositor, patch, at=0.25)
    assert last == pytest.approx(goal, abs=0.3)


def test_a_change_of_exposure_is_followed_at_once():
    bright, dark = skin_frame(gain=1.0), skin_frame(gain=0.8)
    patch = skin_patch(bright)
    compositor = FaceCompositor(smoothing_s=10.0)
    brightness(bright, compositor, patch)
    seen = brightness(replace(dark, index=1, pts=1), compositor, patch)
    assert seen == pytest.approx(brightness(dark, FaceCompositor(), patch), abs=0.5)


@pytest.mark.parametrize("change", ["gap", "jump", "back"])
def test_colour_of_another_moment_or_place_is_not_carried_over(change):
    plain, lit = skin_frame(), side_lit(4, 84) if change != "jump" else side_lit(75, 155)
    compositor = FaceCompositor(smoothing_s=10.0)
    first = skin_patch(plain, bounds=(4, 4, 84, 84))
    brightness(replace(plain, pts=50), compositor, first)
    pts = {"gap": 100, "jump": 51, "back": 2}[change]
    patch = first if change != "jump" else skin_patch(plain, bounds=(75, 30, 155, 110))
    after = replace(lit, pts=pts)
    alone = brightness(after, FaceCompositor(), patch, at=0.25)
    assert brightness(after, compositor, patch, at=0.25) == pytest.approx(alone, abs=0.3)
    slow = FaceCompositor(smoothing_s=10.0)
    brightness(replace(plain, pts=pts - 1), slow, patch)
    assert abs(brightness(after, slow, patch, at=0.25) - alone) > 5


def test_speed_of_change_depends_on_time_not_on_frame_rate():
    results = []
    for rate in (12, 60):
        patch = skin_patch(skin_frame(gain=1.0))
        compositor = FaceCompositor(smoothing_s=0.4)
        brightness(skin_frame(gain=1.0, rate=rate), compositor, patch)
        results.append(
            [brightness(skin_frame(gain=0.8, index=i, rate=rate), compositor, patch) for i in range(1, rate // 2 + 1)][
                -1
            ]
        )
    assert results[0] == pytest.approx(results[1], abs=0.5)


def test_a_frame_where_nothing_can_be_compared_keeps_the_last_colour():
    frame = skin_frame()
    patch = skin_patch(frame, cast=(1.2, 1.2, 1.2))
    compositor = FaceCompositor()
    matched = brightness(frame, compositor, patch)
    everything_soft_is_covered = OcclusionMask(
        np.pad((patch.alpha < 0.95).astype(np.float32), ((21, 19), (31, 29)), constant_values=1), "frame", NO_HANDS
    )
    later = compositor.composite_patch(replace(frame, index=1, pts=1), patch, everything_soft_is_covered)
    assert float(later.planes[0][51:71, 71:91].mean()) == pytest.approx(matched, abs=0.5)


def test_a_patch_fully_behind_a_hand_returns_the_same_frame():
    frame = skin_frame()
    hand = OcclusionMask(np.ones(frame.size_hw, np.float32), "frame", NO_HANDS)
    assert FaceCompositor().composite_patch(frame, skin_patch(frame), hand) is frame


def demo_frames(count, name="WolfgangLanger_Pexels.mp4"):
    path = DEMO_DIR / name
    if not path.exists():
        pytest.skip(f"{name} is not set up (scripts/setup.sh fetches it)")
    with VideoReader(path) as reader:
        return [frame for frame, _ in zip(reader.frames(), range(count), strict=False)], reader.info


def natural_frame():
    return demo_frames(1)[0][0]


def crop_of(frame, region, size):
    return warp_affine(rgb_float_from_planes(frame), region.crop_from_frame(size), (size, size), flags=cv2.INTER_CUBIC)


@pytest.mark.parametrize(
    ("region", "size"),
    [
        (CropRegion(432.0, 200.0, 300.0), 512),
        (CropRegion(431.3, 199.6, 301.7, 0.2), 512),
        (CropRegion(432.4, 200.9, 256.0), 256),
    ],
)
def test_crop_and_composite_give_the_frame_back_without_drift(region, size):
    frame = natural_frame()
    mask = soft_ellipse(size, size)
    current = frame
    for _ in range(3):
        current = FaceCompositor().composite(current, crop_of(current, region, size), region, mask)
    once = FaceCompositor().composite(frame, crop_of(frame, region, size), region, mask)
    x0, y0, x1, y1 = region.bounding_box().pixel_bounds(640, 360)
    for result, least in ((once, 45), (current, 40)):
        difference = (result.planes[0].astype(float) - frame.planes[0])[y0:y1, x0:x1]
        assert 10 * np.log10(255**2 / (difference**2).mean()) >= least
    luma = [f.planes[0][y0:y1, x0:x1].astype(np.float64) for f in (frame, current)]
    shift, _ = cv2.phaseCorrelate(*luma)
    assert np.hypot(*shift) < 0.02


def test_uint8_and_float_faces_agree_and_a_wrong_half_pixel_would_show():
    frame, region = natural_frame(), CropRegion(432.0, 200.0, 300.0)
    face, mask = crop_of(frame, region, 512), np.ones((512, 512), np.float32)
    coded = np.clip(np.rint(face * 255), 0, 255).astype(np.uint8)
    plain = FaceCompositor(match_colour=False)
    a, b = plain.composite(frame, face, region, mask), plain.composite(frame, coded, region, mask)
    assert np.abs(a.planes[0].astype(int) - b.planes[0]).mean() < 0.3
    wrong = plain.composite(frame, face, CropRegion(432.5, 200.5, 300.0), mask)
    errors = [float(((f.planes[0].astype(float) - frame.planes[0]) ** 2).mean()) for f in (a, wrong)]
    assert errors[1] > 4 * errors[0]


def test_a_crop_larger_than_its_place_is_shrunk_without_aliasing():
    frame = skin_frame()
    stripes = np.zeros((512, 512, 3), np.float32)
    stripes[:, ::2] = 1.0
    region = CropRegion(80.0, 60.0, 60.0)
    patch = patch_from_crop(frame, stripes, region, np.ones((512, 512), np.float32))
    assert np.abs(patch.rgb[10:-10, 10:-10] - 0.5).max() < 0.1
    assert patch.alpha[10:-10, 10:-10].min() == 1.0


def test_a_crop_that_reaches_over_the_border_or_lies_outside():
    frame = skin_frame()
    face, mask = np.full((256, 256, 3), 0.5, np.float32), np.ones((256, 256), np.float32)
    patch = patch_from_crop(frame, face, CropRegion(150.0, 110.0, 100.0), mask)
    assert patch.bounds == (100, 60, 160, 120)
    assert FaceCompositor().composite(frame, face, CropRegion(400.0, 400.0, 50.0), mask) is frame
    with pytest.raises(ValueError, match="face and mask"):
        FaceCompositor().composite(frame, face, CropRegion(80.0, 60.0, 50.0), mask[:100])


@pytest.mark.parametrize("space", ["frame", "crop"])
def test_hands_stay_in_front_in_either_space(space):
    frame, region = skin_frame(), CropRegion(80.0, 60.0, 80.0)
    face, mask = np.full((256, 256, 3), 0.2, np.float32), np.ones((256, 256), np.float32)
    hand = np.zeros(frame.size_hw if space == "frame" else (256, 256), np.float32)
    hand[:, hand.shape[1] // 2 :] = 1
    compositor = FaceCompositor(match_colour=False)
    result = compositor.composite_with_hands(frame, face, region, mask, OcclusionMask(hand, space, NO_HANDS))
    without = compositor.composite(frame, face, region, mask)
    assert np.array_equal(result.planes[0][:, 81:], frame.planes[0][:, 81:])
    assert np.array_equal(result.planes[0][:, :79], without.planes[0][:, :79])
    assert abs(int(result.planes[0][60, 60]) - (16 + 219 * 0.2)) <= 1


def test_masks_that_do_not_fit_and_unknown_modes_are_refused():
    frame = skin_frame()
    small = OcclusionMask(np.zeros((10, 10), np.float32), "frame", NO_HANDS)
    with pytest.raises(ValueError, match="frame space"):
        FaceCompositor().composite_patch(frame, skin_patch(frame), small)
    crop = OcclusionMask(np.zeros(frame.size_hw, np.float32), "crop", NO_HANDS)
    with pytest.raises(ValueError, match="frame space"):
        FaceCompositor().composite_patch(frame, skin_patch(frame), crop)
    with pytest.raises(ValueError, match="blend_mode"):
        FaceCompositor("poisson")
    with pytest.raises(ValueError, match="smoothing_s"):
        FaceCompositor(smoothing_s=-1)


@pytest.mark.parametrize("source", ["demo", "odd 4:2:0", "4:2:2", "4:4:4", "turned"])
def test_a_lossless_file_equals_the_source_where_alpha_is_zero(tmp_path, source):
    if source == "demo":
        frames, info = demo_frames(6)
    else:
        spec = {
            "odd 4:2:0": ClipSpec(175, 143),
            "4:2:2": ClipSpec(176, 143, pixel_format="yuv422p"),
            "4:4:4": ClipSpec(175, 143, pixel_format="yuv444p"),
            "turned": ClipSpec(176, 144, rotation_deg=90),
        }[source]
        with VideoReader(make_clip(tmp_path / "in.mp4", replace(spec, n_frames=4)).path) as reader:
            frames, info = list(reader.frames()), reader.info
    bounds = (31, 23, 120, 110)
    alpha = soft_ellipse(87, 89)
    patch = FramePatch(bounds, np.full((87, 89, 3), 0.7, np.float32), alpha)
    compositor, out = FaceCompositor(), tmp_path / "out.mp4"
    with VideoWriter(out, info, quality=EncodeConfig(preset="ultrafast", lossless=True)) as writer:
        for frame in frames:
            writer.write(compositor.composite_patch(frame, patch))
    with VideoReader(out) as reader:
        written = list(reader.frames())
    assert len(written) == len(frames)
    for before, after in zip(frames, written, strict=True):
        assert before.pts == after.pts
        assert_exact_outside(before, after, spread(before, bounds, alpha))
        assert not np.array_equal(before.planes[0], after.planes[0])


class Brighter:
    """A restorer that makes stripes, which are detail, and light, which is none."""

    def restore(self, crop):
        return np.clip(crop + 0.1 + 0.1 * (np.arange(crop.shape[1]) // 8 % 2)[None, :, None], 0, 1).astype(np.float32)


def test_a_restorer_changes_the_rendered_mouth_alone():
    frame, bounds = skin_frame(), (31, 21, 131, 101)
    rgb = rgb_float_from_planes(frame, bounds)
    ones, mouth = np.ones((80, 100), np.float32), np.zeros((80, 100), np.float32)
    mouth[30:50, 30:70] = 1
    flow = np.zeros((80, 100, 2), np.float32)
    patch = FramePatch(bounds, np.clip(rgb + 0.02, 0, 1), ones)
    carried = CarriedPatch(patch, rgb, flow, mouth, ones, ones, ones, mouth, edge_px=3.0)
    plain, _ = FaceCompositor("delta").composite_carried(frame, carried)
    made, _ = FaceCompositor("delta", restorer=Brighter()).composite_carried(frame, carried)
    changed = np.abs(made.planes[0].astype(int) - plain.planes[0])
    assert changed[55:67, 65:97].max() >= 8
    changed[21 + 30 - 8 : 21 + 50 + 8, 31 + 30 - 8 : 31 + 70 + 8] = 0
    assert not changed.any()
