"""Colour: exact regions, parity with libswscale, chroma alpha by area, untouched samples bit-exact."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from av.video.reformatter import Interpolation
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.structures.frames import Frame, FramePatch, PlaneLayout
from modules.video.colour import (
    blend_patch,
    chroma_alpha,
    luma_8bit,
    resolve_layout,
    rgb_float_from_planes,
    rgb_from_planes,
    rotated_layout,
    site_offset,
)
from tests.support.synthetic_video import ClipSpec, depth_of, frame_planes, video_frame

SHIFTS = {
    f"yuv{sampling}p{suffix}": shift
    for suffix in ("", "10le", "12le")
    for sampling, shift in (("420", (1, 1)), ("422", (1, 0)), ("444", (0, 0)))
}
EIGHT_BIT = ("yuv420p", "yuv422p", "yuv444p")
ACCURATE = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
SITINGS = ("left", "center", "topleft", "top", "right", "bottom", "topright", "bottomleft", "bottomright")


def make_layout(pixel_format="yuv420p", siting="left", *, full_range=False, matrix="bt709"):
    shift, depth = SHIFTS[pixel_format], depth_of(pixel_format)
    return PlaneLayout(pixel_format, shift, siting, full_range=full_range, matrix=matrix, bit_depth=depth)


def make_frame(width=64, height=48, layout=None, index=0):
    layout = layout or make_layout()
    spec = ClipSpec(width=width, height=height, pixel_format=layout.pixel_format)
    return Frame(index, 0, Fraction(1, 25), frame_planes(spec, index), layout)


def smooth_frame(width, height, layout):
    """Planes so smooth that every sensible chroma filter agrees."""
    planes = []
    for k in range(3):
        shift_x, shift_y = layout.chroma_shift if k else (0, 0)
        w, h = -(-width >> shift_x), -(-height >> shift_y)
        x, y = np.meshgrid(np.arange(w) / w, np.arange(h) / h)
        codes = (128 + (50 - 15 * k) * np.sin(2 * x + 3 * y + k)) * 2 ** (layout.bit_depth - 8)
        planes.append(np.rint(codes).astype(np.uint8 if layout.bit_depth == 8 else np.uint16))
    return Frame(0, 0, Fraction(1, 25), tuple(planes), layout)


def naive_rgb(frame, x, y):
    """One pixel's RGB by textbook formulas, chroma linear between its sites."""
    layout = frame.layout
    offset_x, offset_y = site_offset(layout)
    step_x, step_y = 1 << layout.chroma_shift[0], 1 << layout.chroma_shift[1]

    def sample(plane):
        u, v = (x + 0.5 - offset_x) / step_x, (y + 0.5 - offset_y) / step_y
        i, j = int(np.floor(u)), int(np.floor(v))
        total = 0.0
        for dj, wj in ((0, 1 - (v - j)), (1, v - j)):
            for di, wi in ((0, 1 - (u - i)), (1, u - i)):
                row, column = np.clip(j + dj, 0, plane.shape[0] - 1), np.clip(i + di, 0, plane.shape[1] - 1)
                total += wj * wi * float(plane[row, column])
        return total

    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}[layout.matrix]
    finer, top = 2 ** (layout.bit_depth - 8), 2**layout.bit_depth - 1
    luma_span, chroma_span, black = (top, top, 0) if layout.full_range else (219 * finer, 224 * finer, 16 * finer)
    luma = (float(frame.planes[0][y, x]) - black) / luma_span
    blue, red = ((sample(p) - 128 * finer) / chroma_span for p in frame.planes[1:])
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return np.clip(np.rint(255 * np.array([r, g, b])), 0, 255)


@pytest.mark.parametrize("pixel_format", SHIFTS)
@pytest.mark.parametrize("siting", SITINGS)
def test_rgb_equals_the_textbook_at_every_siting(pixel_format, siting):
    frame = make_frame(11, 7, make_layout(pixel_format, siting, full_range=siting == "top", matrix="bt2020"))
    rgb = rgb_from_planes(frame)
    for y in range(7):
        for x in range(11):
            assert np.abs(rgb[y, x] - naive_rgb(frame, x, y)).max() <= 1, (x, y)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(tuple(SHIFTS)), st.sampled_from(SITINGS), st.integers(0, 30), st.integers(0, 20),
    st.integers(1, 33), st.integers(1, 23),
)  # fmt: skip
def test_a_region_is_the_crop_of_the_whole(pixel_format, siting, x0, y0, width, height):
    frame = make_frame(63, 43, make_layout(pixel_format, siting))
    bounds = (x0, y0, x0 + width, y0 + height)
    whole = rgb_from_planes(frame)
    assert np.array_equal(rgb_from_planes(frame, bounds), whole[y0 : y0 + height, x0 : x0 + width])
    exact = rgb_float_from_planes(frame, bounds)
    assert np.abs(exact * 255 - rgb_from_planes(frame, bounds)).max() <= 0.5001


@pytest.mark.parametrize("pixel_format", SHIFTS)
@pytest.mark.parametrize(("matrix", "number"), [("bt601", 5), ("bt709", 1), ("bt2020", 9)])
@pytest.mark.parametrize("full_range", [False, True])
def test_rgb_agrees_with_libswscale(pixel_format, matrix, number, full_range):
    frame = smooth_frame(128, 96, make_layout(pixel_format, "center", full_range=full_range, matrix=matrix))
    decoded = video_frame(frame.planes, pixel_format, 0, Fraction(1, 25))
    theirs = decoded.reformat(
        format="rgb24", src_colorspace=number, dst_colorspace=number, src_color_range=2 if full_range else 1,
        dst_color_range=2, interpolation=ACCURATE,
    ).to_ndarray()  # fmt: skip
    difference = np.abs(rgb_from_planes(frame).astype(int) - theirs.astype(int))
    assert difference.mean() <= 0.6, difference.mean()
    wrong = replace(frame.layout, matrix="bt601" if matrix != "bt601" else "bt709")
    perturbed = rgb_from_planes(replace(frame, layout=wrong)).astype(int)
    assert np.abs(perturbed - theirs.astype(int)).mean() > 2 * difference.mean()


@pytest.mark.parametrize("pixel_format", SHIFTS)
@pytest.mark.parametrize("siting", ["left", "center", "topleft", "bottom"])
def test_planes_to_rgb_and_back_is_within_rounding(pixel_format, siting):
    frame = smooth_frame(96, 64, make_layout(pixel_format, siting))
    bounds = (11, 7, 77, 55)
    rgb = rgb_float_from_planes(frame, bounds)
    back = blend_patch(frame, FramePatch(bounds, rgb, np.ones(rgb.shape[:2], np.float32)))
    layout_depth = frame.layout.bit_depth
    for before, after in zip(frame.planes, back.planes, strict=True):
        difference = np.abs(before.astype(int) - after.astype(int))
        # Halving and doubling chroma is not lossless; above 8 bits a quarter of an 8-bit step of it can be seen.
        is_halved = before.shape != frame.size_hw and layout_depth > 8
        assert difference.max() <= (1 if not is_halved else 2 ** (layout_depth - 10) + 2)
        assert difference.mean() < (0.02 if not is_halved else 0.1 * 2 ** (layout_depth - 8))


def naive_chroma_alpha(alpha, layout):
    """Mean over the area of one chroma sample centred on its site, on a 4x finer grid."""
    offset_x, offset_y = site_offset(layout)
    step_x, step_y = 1 << layout.chroma_shift[0], 1 << layout.chroma_shift[1]
    height, width = alpha.shape
    result = np.zeros((-(-height // step_y), -(-width // step_x)))
    for j in range(result.shape[0]):
        for i in range(result.shape[1]):
            xs = offset_x + step_x * i + (np.arange(4 * step_x) + 0.5) / 4 - step_x / 2
            ys = offset_y + step_y * j + (np.arange(4 * step_y) + 0.5) / 4 - step_y / 2
            columns = np.clip(np.floor(xs), 0, width - 1).astype(int)
            rows = np.clip(np.floor(ys), 0, height - 1).astype(int)
            result[j, i] = alpha[np.ix_(rows, columns)].mean()
    return result


@pytest.mark.parametrize("pixel_format", EIGHT_BIT)
@pytest.mark.parametrize("siting", SITINGS)
def test_chroma_alpha_is_the_area_mean_at_the_site(pixel_format, siting):
    alpha = np.random.default_rng(1).random((9, 13)).astype(np.float32)
    layout = make_layout(pixel_format, siting)
    assert np.allclose(chroma_alpha(alpha, layout), naive_chroma_alpha(alpha, layout), atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_samples_with_alpha_zero_are_bit_exact_and_noise_there_never_shows(data):
    pixel_format = data.draw(st.sampled_from(tuple(SHIFTS)))
    layout = make_layout(pixel_format, data.draw(st.sampled_from(SITINGS)))
    frame = make_frame(35, 27, layout)
    x0, y0 = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 22))
    x1, y1 = data.draw(st.integers(x0 + 1, 35)), data.draw(st.integers(y0 + 1, 27))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    alpha = (generator.random((y1 - y0, x1 - x0)) * generator.integers(0, 2, (y1 - y0, x1 - x0))).astype(np.float32)
    rgb = generator.random((y1 - y0, x1 - x0, 3)).astype(np.float32)
    blended = blend_patch(frame, FramePatch((x0, y0, x1, y1), rgb, alpha))

    whole = np.zeros((27, 35), np.float32)
    whole[y0:y1, x0:x1] = alpha
    assert all(a.dtype == b.dtype for a, b in zip(frame.planes, blended.planes, strict=True))
    touched = (whole > 0, *(chroma_alpha(whole, layout) > 0,) * 2)
    for before, after, mask in zip(frame.planes, blended.planes, touched, strict=True):
        assert np.array_equal(before[~mask], after[~mask])
    poisoned = np.where(alpha[..., None] > 0, rgb, np.float32(np.nan))
    again = blend_patch(frame, FramePatch((x0, y0, x1, y1), poisoned, alpha))
    assert all(np.array_equal(a, b) for a, b in zip(blended.planes, again.planes, strict=True))
    in_planes = np.ascontiguousarray(rgb.transpose(2, 0, 1)).transpose(1, 2, 0)  # as networks hand pictures over
    turned = blend_patch(frame, FramePatch((x0, y0, x1, y1), in_planes, alpha))
    assert all(np.array_equal(a, b) for a, b in zip(blended.planes, turned.planes, strict=True))


def test_full_alpha_writes_the_colour_and_half_alpha_the_mean():
    layout = make_layout("yuv420p", "left", matrix="bt601")
    grey = tuple(np.full(shape, 128, np.uint8) for shape in ((48, 64), (24, 32), (24, 32)))
    frame = Frame(0, 0, Fraction(1, 25), grey, layout)
    red = np.zeros((20, 20, 3), np.float32)
    red[..., 0] = 1.0
    for strength, expected in ((1.0, (81, 90, 240)), (0.5, (105, 109, 184))):  # BT.601 red is 81, 90, 240
        patch = FramePatch((10, 10, 30, 30), red, np.full((20, 20), strength, np.float32))
        planes = blend_patch(frame, patch).planes
        found = planes[0][20, 20], planes[1][10, 10], planes[2][10, 10]
        assert all(abs(int(f) - e) <= 1 for f, e in zip(found, expected, strict=True)), found
    assert rgb_from_planes(blend_patch(frame, FramePatch((10, 10, 30, 30), red, np.ones((20, 20), np.float32))))[
        20, 20
    ].tolist() == pytest.approx([254, 0, 0], abs=2)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("depth", [10, 12])
def test_a_deep_blend_is_the_float_blend_rounded_once_in_its_own_depth(depth, full_range):
    """Half a step of the depth, not of 8 bits: the edit of a 10-bit video is a 10-bit edit."""
    layout = make_layout(f"yuv444p{depth}le", "center", full_range=full_range, matrix="bt2020")
    frame = make_frame(24, 18, layout)
    generator = np.random.default_rng(3)
    alpha = generator.random((18, 24)).astype(np.float32)
    rgb = generator.random((18, 24, 3)).astype(np.float32)
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    top, finer = 2**depth - 1, 2 ** (depth - 8)
    luma_span, chroma_span, black = (top, top, 0) if full_range else (219 * finer, 224 * finer, 16 * finer)
    codes = (
        black + luma_span * luma,
        128 * finer + chroma_span * (blue - luma) / (2 * (1 - 0.0593)),
        128 * finer + chroma_span * (red - luma) / (2 * (1 - 0.2627)),
    )
    blended = blend_patch(frame, FramePatch((0, 0, 24, 18), rgb, alpha))
    for before, after, code in zip(frame.planes, blended.planes, codes, strict=True):
        exact = before + alpha.astype(np.float64) * (code - before)
        assert after.dtype == np.uint16
        assert np.abs(after - np.clip(exact, 0, top)).max() <= 0.502


def test_ends_of_the_range_do_not_wrap_around_in_any_depth():
    for name in SHIFTS:
        frame = make_frame(16, 12, make_layout(name, full_range=True))
        for colour in ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)):
            rgb = np.tile(np.float32(colour), (12, 16, 1))
            back = blend_patch(frame, FramePatch((0, 0, 16, 12), rgb, np.ones((12, 16), np.float32)))
            assert np.abs(rgb_float_from_planes(back) - rgb).max() < 0.006


def test_luma_for_measures_is_on_the_8_bit_scale():
    frame = make_frame(16, 12, make_layout("yuv420p10le"))
    assert luma_8bit(frame).dtype == np.uint8
    assert np.abs(luma_8bit(frame) - frame.planes[0] / 4).max() <= 0.5
    white = replace(frame, planes=tuple(np.full_like(plane, 1023) for plane in frame.planes))
    assert (luma_8bit(white) == 255).all()
    eight = make_frame(16, 12)
    assert luma_8bit(eight) is eight.planes[0]


def test_blending_leaves_the_source_frame_alone_and_nothing_covered_is_the_same_frame():
    frame = make_frame()
    before = [plane.copy() for plane in frame.planes]
    rgb = np.ones((8, 8, 3), np.float32)
    assert blend_patch(frame, FramePatch((0, 0, 8, 8), rgb, np.zeros((8, 8), np.float32))) is frame
    blend_patch(frame, FramePatch((0, 0, 8, 8), rgb, np.ones((8, 8), np.float32)))
    assert all(np.array_equal(a, b) for a, b in zip(before, frame.planes, strict=True))


def test_a_patch_or_region_outside_the_frame_is_refused():
    frame = make_frame()
    patch = FramePatch((60, 40, 68, 48), np.ones((8, 8, 3), np.float32), np.ones((8, 8), np.float32))
    with pytest.raises(ValueError, match="outside the 64x48 frame"):
        blend_patch(frame, patch)
    with pytest.raises(ValueError, match="outside the 64x48 frame"):
        rgb_from_planes(frame, (0, 0, 65, 48))


def test_a_turned_frame_has_the_turned_rgb():
    """Planes turned by a quarter with their siting turned along give the turned picture."""
    frame = make_frame(32, 24, make_layout("yuv420p", "left"))
    upright = rgb_from_planes(frame)
    for turns in range(4):
        planes = tuple(np.rot90(plane, turns) for plane in frame.planes)
        turned = replace(frame, planes=planes, layout=rotated_layout(frame.layout, turns))
        assert np.array_equal(rgb_from_planes(turned), np.rot90(upright, turns))
    assert [rotated_layout(frame.layout, k).siting for k in range(4)] == ["left", "bottom", "right", "top"]


@pytest.mark.parametrize(
    ("space", "height", "matrix"),
    [
        (2, 719, "bt601"),
        (2, 720, "bt709"),
        (1, 480, "bt709"),
        (5, 1080, "bt601"),
        (6, 1080, "bt601"),
        (9, 100, "bt2020"),
    ],
)
def test_an_unspecified_matrix_follows_the_number_of_lines(space, height, matrix):
    assert resolve_layout("yuv420p", (2, 2, space, 0), height, "h264").matrix == matrix


def test_range_and_siting_come_from_format_tags_and_codec():
    assert resolve_layout("yuvj420p", (2, 2, 2, 0), 480, "mjpeg") == make_layout(
        "yuv420p", "center", full_range=True, matrix="bt601"
    )
    assert resolve_layout("yuv444p", (1, 1, 1, 2), 480, "h264").full_range
    assert not resolve_layout("yuv420p", (1, 1, 1, 1), 480, "h264").full_range
    assert resolve_layout("yuv422p12le", (9, 16, 9, 1), 480, "hevc") == make_layout("yuv422p12le", matrix="bt2020")
    assert resolve_layout("yuv420p", (1, 1, 1, 1), 480, "hevc").siting == "left"
    with pytest.raises(ValueError, match="yuv420p14le"):
        resolve_layout("yuv420p14le", (1, 1, 1, 1), 480, "hevc")
