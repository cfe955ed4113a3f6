"""The one owner of chroma siting, range and matrix: planes to RGB, and RGB patches back into planes.

Planes stay as decoded. Only regions become RGB, and a patch changes only the samples its alpha covers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import Frame, FramePatch, PlaneLayout, RgbImage, Siting

Bounds = tuple[int, int, int, int]
Matrix = Literal["bt601", "bt709", "bt2020"]
ColorTags = tuple[int, int, int, int]

_SHIFT_OF_SAMPLING = {"yuv420p": (1, 1), "yuv422p": (1, 0), "yuv444p": (0, 0)}
_SUFFIX_OF_DEPTH = {8: "", 10: "10le", 12: "12le"}
CHROMA_SHIFT = {
    name + suffix: shift for suffix in _SUFFIX_OF_DEPTH.values() for name, shift in _SHIFT_OF_SAMPLING.items()
}
"""The planar formats of 8, 10 and 12 bits that are kept as decoded."""
BIT_DEPTH = {name + suffix: depth for depth, suffix in _SUFFIX_OF_DEPTH.items() for name in _SHIFT_OF_SAMPLING}
RANGE_FULL = 2
"""FFmpeg's AVCOL_RANGE_JPEG."""

_LUMA_WEIGHTS: dict[Matrix, tuple[float, float]] = {
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020": (0.2627, 0.0593),
}  # (Kr, Kb) of each matrix
_MATRIX_OF_TAG: dict[int, Matrix] = {
    1: "bt709", 4: "bt601", 5: "bt601", 6: "bt601", 7: "bt709", 9: "bt2020", 10: "bt2020",
}  # fmt: skip
_CENTRE_SITED_CODECS = frozenset({"mjpeg", "mpeg1video", "theora", "h261", "h263", "flv1", "vp6f", "vp8"})
_HD_LINES = 720
_STRIP_PIXELS = 1 << 16

NEIGHBOUR_SHARES = {0.5: (0.0, 0.5), 1.0: (0.25, 0.25), 1.5: (0.5, 0.0)}
"""By where a chroma sample is centred in its pair of pixels: how much of its outer neighbour each pixel takes."""
SITE_WEIGHTS = {0.5: (0.25, 0.5, 0.25, 0.0), 1.0: (0.0, 0.5, 0.5, 0.0), 1.5: (0.0, 0.25, 0.5, 0.25)}
"""Likewise the weights of pixels -1 to 2 of a pair in the mean at its site: whole pixels between the sites, or one
whole and two halves around a pixel's centre."""


def resolve_layout(pixel_format: str, color_tags: ColorTags, coded_height: int, codec: str) -> PlaneLayout:
    """What the numbers of a stream's planes mean.

    Args:
        pixel_format: ``yuv420p | yuv422p | yuv444p``, alone, with ``10le`` or ``12le`` behind it, or with FFmpeg's old
            full-range prefix ``yuvj``.
        color_tags: FFmpeg's numbers (primaries, transfer, space, range). An unspecified space means BT.601 below
            720 coded lines and BT.709 from there on.
        coded_height: lines before the display rotation.
        codec: FFmpeg's decoder name; it decides the siting, which PyAV does not report (MPEG-1 and JPEG put chroma
            between the luma samples, everything later on the left ones).

    Raises:
        ValueError: for a pixel format that is not one of these.
    """
    name = pixel_format.replace("yuvj", "yuv")
    if name not in CHROMA_SHIFT:
        raise ValueError(f"pixel format {pixel_format} is not planar 4:2:0, 4:2:2 or 4:4:4 of 8, 10 or 12 bits")
    matrix = _MATRIX_OF_TAG.get(color_tags[2], "bt601" if coded_height < _HD_LINES else "bt709")
    return PlaneLayout(
        pixel_format=name,
        chroma_shift=CHROMA_SHIFT[name],
        siting="center" if codec in _CENTRE_SITED_CODECS else "left",
        full_range=pixel_format != name or color_tags[3] == RANGE_FULL,
        matrix=matrix,
        bit_depth=BIT_DEPTH[name],
    )


def deepened(pixel_format: str, bits: int) -> str:
    """The 8-bit format's counterpart that holds samples of ``bits``; 12 bits are the most that is kept."""
    name = pixel_format.replace("yuvj", "yuv") if bits > 8 else pixel_format
    return name + _SUFFIX_OF_DEPTH[8 if bits <= 8 else 10 if bits <= 10 else 12]


def largest_code(layout: PlaneLayout) -> int:
    """The highest number a sample can hold: 255, 1023 or 4095."""
    return (1 << layout.bit_depth) - 1


def luma_8bit(frame: Frame) -> NDArray[np.uint8]:
    """The luma plane on the scale of 8-bit codes, for measures made for them: itself at 8 bits, rounded above."""
    luma = frame.planes[0]
    if frame.layout.bit_depth == 8:
        return luma
    return np.asarray(cv2.convertScaleAbs(luma, alpha=2.0 ** (8 - frame.layout.bit_depth)), np.uint8)


def rotated_layout(layout: PlaneLayout, quarter_turns: int) -> PlaneLayout:
    """The layout after the planes were turned counter-clockwise ``quarter_turns`` times (even plane sizes)."""
    shift, siting = layout.chroma_shift, layout.siting
    for _ in range(quarter_turns % 4):
        shift, siting = (shift[1], shift[0]), _turned_siting(siting)
    return replace(layout, chroma_shift=shift, siting=siting)


def rgb_from_planes(frame: Frame, bounds: Bounds | None = None) -> RgbImage:
    """RGB uint8 ``[h, w, 3]`` of a region; equals that crop of the whole frame's conversion.

    Args:
        frame: any layout.
        bounds: integer half-open (x0, y0, x1, y1) inside the frame; None is the whole frame.

    Raises:
        ValueError: when the bounds are empty or reach outside the frame.
    """
    x0, y0, x1, y1 = _checked_bounds(frame, bounds)
    rgb = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
    # Strips stay in the processor's cache: 1080p takes a third of the time it takes in one piece.
    step = max(_STRIP_PIXELS // (x1 - x0), 1)
    for top in range(y0, y1, step):
        strip = _rgb_255(frame, (x0, top, x1, min(top + step, y1)))
        # Adding nothing with an 8-bit destination rounds and saturates in one pass.
        cv2.addWeighted(strip, 1.0, strip, 0.0, 0.0, dst=rgb[top - y0 : top - y0 + len(strip)], dtype=cv2.CV_8U)
    return rgb


def rgb_float_from_planes(frame: Frame, bounds: Bounds | None = None) -> NDArray[np.float32]:
    """RGB float32 ``[h, w, 3]`` in 0..1 of a region, not rounded."""
    rgb = _rgb_255(frame, _checked_bounds(frame, bounds))
    rgb *= np.float32(1 / 255)
    return np.clip(rgb, 0.0, 1.0, out=rgb)


def chroma_alpha(alpha: NDArray[np.float32], layout: PlaneLayout) -> NDArray[np.float32]:
    """Alpha of the chroma planes: area mean of the luma alpha around each chroma site.

    Args:
        alpha: ``[h, w]`` whose first sample lies on even frame coordinates; continued by its edge values outside.
        layout: gives subsampling and siting.

    Returns:
        float32 at chroma size, ``[ceil(h / 2^sy), ceil(w / 2^sx)]``.
    """
    return _site_mean(np.asarray(alpha, np.float32), layout)


def blend_patch(frame: Frame, patch: FramePatch) -> Frame:
    """Lay ``patch`` over the frame's planes in their own depth: one alpha per plane, blended in float, rounded once.

    Samples where their plane's alpha is 0 are the source's own. Chroma is filtered weighted by alpha, so what
    ``patch.rgb`` holds where alpha is 0 never shows.

    Raises:
        ValueError: when the patch reaches outside the frame.
    """
    height, width = frame.size_hw
    x0, y0, x1, y1 = patch.bounds
    if x1 > width or y1 > height:
        raise ValueError(f"patch {patch.bounds} reaches outside the {width}x{height} frame")
    seen = _seen(patch)
    if seen is None:
        return frame
    rgb = np.array(seen.rgb, np.float32, order="C")  # a renderer may hand over planes, turned
    cv2.patchNaNs(rgb, 0.0)  # where its alpha is 0 it may hold anything
    codes = _planes_from_rgb(np.clip(rgb, 0.0, 1.0, out=rgb), frame.layout)
    luma, blue, red = (plane.copy() for plane in frame.planes)
    x0, y0, x1, y1 = seen.bounds
    new_luma, blue_codes, red_codes = cv2.split(codes)
    luma[y0:y1, x0:x1] = _mixed(luma[y0:y1, x0:x1], np.asarray(new_luma, np.float32), seen.alpha)
    canvas = _ChromaCanvas.around(seen.bounds, frame)
    shares = cv2.merge([seen.alpha, *(cv2.multiply(part, seen.alpha) for part in (blue_codes, red_codes))])
    alpha, *colours = cv2.split(canvas.at_sites(np.asarray(shares, np.float32)))
    for plane, colour in zip((blue, red), colours, strict=True):
        window = canvas.window(plane, alpha.shape)
        blended = window + (colour - alpha * window)
        blended = np.clip(np.rint(blended), 0, largest_code(frame.layout))
        window[:] = np.where(alpha > 0, blended, window).astype(plane.dtype)
    return replace(frame, planes=(luma, blue, red))


def _seen(patch: FramePatch) -> FramePatch | None:
    """The smallest part of a patch that holds all of its alpha; None where there is none."""
    covered = patch.alpha > 0
    rows, columns = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if not len(rows):
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    x0, y0 = patch.bounds[:2]
    return FramePatch(
        (x0 + left, y0 + top, x0 + right, y0 + bottom),
        patch.rgb[top:bottom, left:right],
        patch.alpha[top:bottom, left:right],
    )


def _mixed(samples: NDArray, codes: NDArray[np.float32], alpha: NDArray[np.float32]) -> NDArray:
    """Samples ``[h, w]`` with ``alpha`` of other codes, rounded once."""
    change = cv2.multiply(cv2.subtract(codes, samples, dtype=cv2.CV_32F), alpha)
    depth = cv2.CV_8U if samples.dtype == np.uint8 else cv2.CV_16U
    return np.asarray(cv2.add(change, samples, dtype=depth), samples.dtype)


@dataclass(frozen=True, slots=True)
class _ChromaCanvas:
    """Luma pixels around a patch, aligned to the chroma grid.

    It keeps one free chroma sample around the patch where the frame has one, because a sited filter reaches a pixel
    beyond its block; at the frame's border its edge values continue, as the source's own filter saw them.
    """

    patch: Bounds
    canvas: Bounds
    layout: PlaneLayout

    @classmethod
    def around(cls, patch: Bounds, frame: Frame) -> _ChromaCanvas:
        height, width = frame.size_hw
        x0, y0, x1, y1 = patch
        shift_x, shift_y = frame.layout.chroma_shift
        left, top = max((x0 >> shift_x) - 1, 0) << shift_x, max((y0 >> shift_y) - 1, 0) << shift_y
        right = min((((x1 - 1) >> shift_x) + 2) << shift_x, width)
        bottom = min((((y1 - 1) >> shift_y) + 2) << shift_y, height)
        return cls(patch, (left, top, right, bottom), frame.layout)

    def at_sites(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Patch values ``[h, w, ...]``, 0 around them, as means at the chroma sites of the canvas."""
        x0, y0, x1, y1 = self.patch
        left, top, right, bottom = self.canvas
        padding = (y0 - top, bottom - y1, x0 - left, right - x1)
        padded = cv2.copyMakeBorder(np.ascontiguousarray(values), *padding, cv2.BORDER_CONSTANT, value=0)
        return _site_mean(np.asarray(padded, np.float32), self.layout)

    def window(self, plane: NDArray, size_hw: tuple[int, ...]) -> NDArray:
        """The canvas's part of a chroma plane, as a view."""
        row, column = self.canvas[1] >> self.layout.chroma_shift[1], self.canvas[0] >> self.layout.chroma_shift[0]
        return plane[row : row + size_hw[0], column : column + size_hw[1]]


def _checked_bounds(frame: Frame, bounds: Bounds | None) -> Bounds:
    height, width = frame.size_hw
    x0, y0, x1, y1 = bounds or (0, 0, width, height)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise ValueError(f"bounds {bounds} are empty or outside the {width}x{height} frame")
    return x0, y0, x1, y1


def _rgb_255(frame: Frame, bounds: Bounds) -> NDArray[np.float32]:
    """RGB float32 ``[h, w, 3]`` of a region on the 0..255 scale, not clipped."""
    x0, y0, x1, y1 = bounds
    luma = frame.planes[0][y0:y1, x0:x1].astype(np.float32)
    chroma = [_upsampled(plane, frame.layout, bounds) for plane in frame.planes[1:]]
    return _transformed(cv2.merge([luma, *chroma]), rgb_from_codes(frame.layout))


def _upsampled(plane: NDArray, layout: PlaneLayout, bounds: Bounds) -> NDArray[np.float32]:
    """Chroma at the luma pixels of ``bounds``, linear between the chroma sites, ``[h, w]``."""
    x0, y0, x1, y1 = bounds
    shift_x, shift_y = layout.chroma_shift
    offset_x, offset_y = site_offset(layout)
    rows, columns = _samples_needed(y0, y1, shift_y), _samples_needed(x0, x1, shift_x)
    window = _replicated(plane, rows, columns)
    # Rows first: they are the cheaper ones while the image is still narrow.
    if shift_y:
        window = _doubled(window, 0, offset_y)[y0 % 2 :][: y1 - y0]
    if shift_x:
        window = _doubled(window, 1, offset_x)[:, x0 % 2 :][:, : x1 - x0]
    return window


def _samples_needed(start: int, stop: int, shift: int) -> tuple[int, int]:
    """Chroma samples [first, last) around luma pixels [start, stop), with one more at each end for interpolation."""
    return ((start >> 1) - 1, ((stop - 1) >> 1) + 2) if shift else (start, stop)


def _replicated(plane: NDArray, rows: tuple[int, int], columns: tuple[int, int]) -> NDArray[np.float32]:
    """float32 window of a plane; beyond the plane its edge values continue."""
    height, width = plane.shape
    inside = plane[max(rows[0], 0) : min(rows[1], height), max(columns[0], 0) : min(columns[1], width)]
    top, bottom = max(-rows[0], 0), max(rows[1] - height, 0)
    left, right = max(-columns[0], 0), max(columns[1] - width, 0)
    padded = cv2.copyMakeBorder(inside, top, bottom, left, right, cv2.BORDER_REPLICATE)
    return padded.astype(np.float32)


def _doubled(values: NDArray[np.float32], axis: int, offset: float) -> NDArray[np.float32]:
    """Linear interpolation onto two pixels per sample along ``axis``, whose first and last sample are margin.

    ``offset`` is where a sample is centred in its pair of pixels: 0.5, 1.0 or 1.5.
    """
    before, after = NEIGHBOUR_SHARES[offset]
    shape = list(values.shape)
    shape[axis] = 2 * (shape[axis] - 2)
    doubled = np.empty(shape, np.float32)
    samples, pairs = np.moveaxis(values, axis, 0), np.moveaxis(doubled, axis, 0)
    here = samples[1:-1]
    pairs[0::2] = here + (samples[:-2] - here) * np.float32(before)
    pairs[1::2] = here + (samples[2:] - here) * np.float32(after)
    return doubled


def site_offset(layout: PlaneLayout) -> tuple[float, float]:
    """Where chroma sample (0, 0) is centred, in continuous luma pixels (x, y)."""
    step_x, step_y = (1 << shift for shift in layout.chroma_shift)
    right = "right" in layout.siting
    left = "left" in layout.siting
    top, bottom = "top" in layout.siting, "bottom" in layout.siting
    x = 0.5 if left else step_x - 0.5 if right else step_x / 2
    y = 0.5 if top else step_y - 0.5 if bottom else step_y / 2
    return x, y


def _site_mean(values: NDArray[np.float32], layout: PlaneLayout) -> NDArray[np.float32]:
    """Mean of ``[h, w, ...]`` over one chroma sample's area centred on each chroma site."""
    offsets = site_offset(layout)
    for axis, (shift, offset) in enumerate(zip(layout.chroma_shift[::-1], offsets[::-1], strict=True)):
        if shift:
            values = _halved(values, axis, offset)
    return values


def _halved(values: NDArray[np.float32], axis: int, offset: float) -> NDArray[np.float32]:
    """Mean over windows two pixels wide centred at ``offset + 2k`` along ``axis``; edge values continue outside."""
    odd = values.shape[axis] % 2
    margins = (1, 1 + odd, 0, 0) if axis == 0 else (0, 0, 1, 1 + odd)
    padded = cv2.copyMakeBorder(values, *margins, cv2.BORDER_REPLICATE)
    padded = np.moveaxis(np.asarray(padded, np.float32), axis, 0)  # pixel i is row i + 1
    count = (values.shape[axis] + odd) // 2
    mean = sum(np.float32(w) * padded[k : k + 2 * count - 1 : 2] for k, w in enumerate(SITE_WEIGHTS[offset]) if w)
    return np.moveaxis(np.asarray(mean), 0, axis)


def rgb_from_codes(layout: PlaneLayout) -> NDArray[np.float64]:
    """``[3, 4]`` affine map of code values to R'G'B' on the 0..255 scale."""
    affine = np.eye(4)
    affine[:3] = codes_from_rgb(layout)
    return np.asarray(np.linalg.inv(affine)[:3], np.float64)


def codes_from_rgb(layout: PlaneLayout) -> NDArray[np.float64]:
    """``[3, 4]`` affine map of R'G'B' on the 0..255 scale to code values."""
    red, blue = _LUMA_WEIGHTS[layout.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    blue_difference = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue))
    red_difference = (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    # Above 8 bits, limited range and the middle of chroma are shifted; full range ends at the highest code.
    finer = float(1 << (layout.bit_depth - 8))
    whole = largest_code(layout) / 255
    luma_scale, chroma_scale, black = (
        (whole, whole, 0.0) if layout.full_range else (219 / 255 * finer, 224 / 255 * finer, 16 * finer)
    )
    affine = np.empty((3, 4), np.float64)
    affine[:, :3] = luma * luma_scale, blue_difference * chroma_scale, red_difference * chroma_scale
    affine[:, 3] = black, 128 * finer, 128 * finer
    return affine


def _planes_from_rgb(rgb: NDArray[np.float32], layout: PlaneLayout) -> NDArray[np.float32]:
    """Code values float32 ``[h, w, 3]`` (Y', Cb, Cr at luma resolution) of RGB in 0..1."""
    affine = codes_from_rgb(layout)
    affine[:, :3] *= 255
    return _transformed(np.ascontiguousarray(rgb, np.float32), affine)


def _transformed(image: NDArray, affine: NDArray[np.float64]) -> NDArray[np.float32]:
    """``affine`` ``[3, 4]`` applied to each pixel of a float32 ``[h, w, 3]`` image."""
    return np.asarray(cv2.transform(image, affine), np.float32)


def _turned_siting(siting: Siting) -> Siting:
    """The siting after one counter-clockwise quarter turn: left becomes bottom, top becomes left."""
    horizontal = next((word for word in ("left", "right") if word in siting), "")
    vertical = next((word for word in ("top", "bottom") if word in siting), "")
    turned_vertical = {"left": "bottom", "right": "top", "": ""}[horizontal]
    turned_horizontal = {"top": "left", "bottom": "right", "": ""}[vertical]
    return next(name for name in get_args(Siting) if name == (turned_vertical + turned_horizontal or "center"))
