"""A small visible mark that says a face was synthesised: in a corner, while it is edited, never over a face.

The mark is laid into the planes like any edit, so samples outside it stay what they were. It comes and goes softly and
stays over short pauses, so that it does not blink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.edit_plan import fade_edges
from inference.file_options import DEFAULT_MARK
from modules.commons.errors import ConfigError
from modules.structures.frame_index import shot_ranges
from modules.structures.frames import Frame, FramePatch, VideoInfo
from modules.structures.spans import runs_of
from modules.video.colour import blend_patch

Bounds = tuple[int, int, int, int]

__all__ = ["DEFAULT_MARK", "Watermark", "plan_watermark"]

BRIDGED_S = 2.0
"""The mark stays over pauses up to this long."""
_FADE_S = 0.2
_HEIGHT_SHARE, _SMALLEST_PX, _WIDEST_SHARE = 0.032, 9, 0.42
"""Size of the letters in shorter sides of the frame, their least size, and the mark's width in frame widths."""
_MARGIN_SHARE = 0.02
_FACE_GROWN = 0.15
_LETTERS, _SHADE = 0.8, 0.55
"""How opaque the letters and the shade around them are."""
_WHITE_OF_TRANSFER = {16: 0.58, 18: 0.75}
"""Code of paper white in PQ and HLG (ITU-R BT.2408: 203 cd/m2), where 1 is as bright as the sun; else 1."""
_FONT = "DejaVu Sans"
_DPI = 100


@dataclass(frozen=True, slots=True, eq=False)
class Watermark:
    """Where the mark lies in every output frame.

    Attributes:
        rgb: float32 ``[h, w, 3]`` in 0..1 and ``alpha [h, w]`` of the mark at full strength.
        corners: int64 ``[N, 2]`` its left top pixel (x, y) in each output frame.
        strength: float32 ``[N]`` in 0..1.
    """

    rgb: NDArray[np.float32]
    alpha: NDArray[np.float32]
    corners: NDArray[np.int64]
    strength: NDArray[np.float32]

    @property
    def shown(self) -> NDArray[np.bool_]:
        """bool ``[N]``: frames that carry it."""
        return self.strength > 0

    def bounds(self, number: int) -> Bounds:
        """Where it lies in output frame ``number``."""
        x, y = (int(value) for value in self.corners[number])
        height, width = self.alpha.shape
        return x, y, x + width, y + height

    def put(self, frame: Frame) -> Frame:
        """The frame with the mark on it; the frame itself where it carries none."""
        strength = self.strength[frame.index]
        if strength <= 0:
            return frame
        return blend_patch(frame, FramePatch(self.bounds(frame.index), self.rgb, self.alpha * strength))


def plan_watermark(
    text: str, info: VideoInfo, times_s: NDArray[np.float64], edited: NDArray[np.bool_],
    faces: Sequence[NDArray[np.float64]], shot_starts: NDArray[np.int64] | None = None,
) -> Watermark:  # fmt: skip
    """Decide where and when the mark is shown.

    In each shot it lies in the first corner (from the lower right on) that no face comes near; where there is none, in
    the one that is free most of the time, and it is left out while a face is there.

    Args:
        text: one line.
        info: of the video.
        times_s: ``[N]`` of the output frames, rising.
        edited: bool ``[N]``.
        faces: of every face the boxes ``[N, 4]`` (x0, y0, x1, y1) in px, NaN where it is not seen.
        shot_starts: ascending output frames that begin a shot; None = one shot.

    Raises:
        ConfigError: the letters cannot be drawn.
    """
    rgb, alpha = drawn_mark(text, info)
    shown = _bridged(edited, times_s)
    strength = fade_edges(shown, times_s, _FADE_S)
    corners = np.zeros((len(edited), 2), np.int64)
    choices = _corners(alpha.shape, info)
    for first, stop in shot_ranges(shot_starts, len(edited)):
        covered = np.array([_covered(corner, alpha.shape, faces, first, stop) for corner in choices])
        covered &= shown[first:stop]
        best = int(np.argmin(covered.sum(axis=1)))  # the first of equals
        corners[first:stop] = choices[best]
        strength[first:stop][covered[best]] = 0.0
    return Watermark(rgb, alpha, corners, strength.astype(np.float32))


def drawn_mark(text: str, info: VideoInfo) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """RGB ``[h, w, 3]`` and alpha ``[h, w]`` of the text at the video's size: light letters in a dark shade.

    Raises:
        ConfigError: the letters cannot be drawn.
    """
    shorter = min(info.width, info.height)
    size_px = max(round(_HEIGHT_SHARE * shorter), _SMALLEST_PX)
    letters = _lettering(text, size_px)
    widest = round(_WIDEST_SHARE * info.width)
    if letters.shape[1] > widest:
        scale = widest / letters.shape[1]
        letters = cv2.resize(letters, (widest, max(round(letters.shape[0] * scale), 1)), interpolation=cv2.INTER_AREA)
    around = max(round(size_px / 5), 1)
    letters = np.pad(letters, 2 * around)
    reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * around + 1, 2 * around + 1))
    shade = cv2.GaussianBlur(cv2.dilate(letters, reach), (0, 0), around / 2)
    over, under = _LETTERS * letters, np.clip(_SHADE * shade, 0, 1)
    alpha = over + under * (1 - over)
    white = _WHITE_OF_TRANSFER.get(info.color_tags[1], 1.0)
    grey = white * over / np.maximum(alpha, 1e-6)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.float32), np.clip(alpha, 0, 1).astype(np.float32)


def check_letters(text: str) -> None:
    """Refuse a text that the font cannot show.

    Raises:
        ConfigError: it has a letter that is missing.
    """
    from matplotlib.font_manager import findfont, get_font  # slow to import, and only this needs it

    font = get_font(findfont(_FONT))
    unknown = [letter for letter in text if not font.get_char_index(ord(letter))]
    if unknown:
        raise ConfigError(f"--watermark: the font has no {unknown[0]!r}; use Latin, Greek or Cyrillic letters")


def _lettering(text: str, size_px: int) -> NDArray[np.float32]:
    """Coverage of the text cut to its ink, ``[h, w]`` in 0..1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second, and only this needs it
    from matplotlib.figure import Figure

    check_letters(text)
    width, height = size_px * (len(text) + 2), 3 * size_px
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    canvas = FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    figure.text(
        size_px / width, 0.4, text, fontsize=size_px * 72 / _DPI, color="black", family=_FONT,
        parse_math=False,
    )  # fmt: skip
    canvas.draw()
    ink = np.asarray(canvas.buffer_rgba())[..., 3].astype(np.float32) / np.float32(255)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _bridged(edited: NDArray[np.bool_], times_s: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The edited frames, and the pauses between them that are short."""
    shown = np.asarray(edited, bool).copy()
    for first, stop in runs_of(~shown):
        if first > 0 and stop < len(shown) and times_s[stop] - times_s[first] <= BRIDGED_S:
            shown[first:stop] = True
    return shown


def _corners(size_hw: tuple[int, ...], info: VideoInfo) -> list[tuple[int, int]]:
    """Left top pixel of the mark in each corner, the lower right one first."""
    height, width = size_hw
    margin = max(round(_MARGIN_SHARE * min(info.width, info.height)), 1)
    left, top = min(margin, info.width - width), min(margin, info.height - height)
    right, bottom = max(info.width - width - margin, 0), max(info.height - height - margin, 0)
    return [(right, bottom), (left, bottom), (right, top), (left, top)]


def _covered(
    corner: tuple[int, int], size_hw: tuple[int, ...], faces: Sequence[NDArray[np.float64]], first: int, stop: int
) -> NDArray[np.bool_]:
    """bool ``[stop - first]``: whether the mark would lie over a face, or close to one."""
    (x, y), (height, width) = corner, size_hw
    covered = np.zeros(stop - first, bool)
    for boxes in faces:
        x0, y0, x1, y1 = boxes[first:stop].T
        grown_x, grown_y = _FACE_GROWN * (x1 - x0), _FACE_GROWN * (y1 - y0)
        beside = (x1 + grown_x <= x) | (x0 - grown_x >= x + width) | (y1 + grown_y <= y) | (y0 - grown_y >= y + height)
        covered |= ~beside & np.isfinite(x0)
    return covered
