"""Text on pictures, fast enough for every frame of a video: letters drawn once by matplotlib, then copied."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from modules.structures.frames import RgbImage

_LETTERS = "".join(chr(code) for code in range(32, 127)) + "°±×≤≥–…"
_DPI = 100
_ABOVE, _BELOW = 0.95, 0.30
"""Room above and below the base line, in sizes of the letters."""


class Lettering:
    """DejaVu Sans Mono at one size; letters it lacks are shown as '?'.

    Args:
        size_px: of the letters.
    """

    def __init__(self, size_px: int) -> None:
        self._advance = self.advance(size_px)
        self._above, self._below = round(_ABOVE * size_px), round(_BELOW * size_px)
        self._sheet = self._drawn(size_px)
        self._place = {letter: number for number, letter in enumerate(_LETTERS)}

    @staticmethod
    def advance(size_px: int) -> int:
        """From one letter to the next, px."""
        return round(0.602 * size_px)

    def write(
        self, image: RgbImage, x: int, y: int, text: str, colour: tuple[int, int, int], *, backed: bool = False
    ) -> int:
        """Write ``text`` with its left end and base line at (x, y); what does not fit is cut off.

        Args:
            image: uint8 ``[H, W, 3]``, written on.
            x: px.
            y: px.
            text: one line.
            colour: RGB.
            backed: darken the picture behind it.

        Returns:
            x behind the text.
        """
        number = [self._place.get(letter, self._place["?"]) for letter in text]
        end = x + len(number) * self._advance
        alpha = np.concatenate([self._sheet[n] for n in number], axis=1) if number else np.zeros((0, 0), np.float32)
        top, left = y - self._above, x
        if backed and number:
            _dim(image, left - 5, top - 1, end + 5, y + self._below + 1)
        rows = slice(max(top, 0), min(top + len(alpha), image.shape[0]))
        columns = slice(max(left, 0), min(left + alpha.shape[1], image.shape[1]))
        if rows.start < rows.stop and columns.start < columns.stop:
            part = alpha[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left, None]
            under = image[rows, columns].astype(np.float32)
            mixed = under + part * (np.array(colour, np.float32) - under)
            image[rows, columns] = np.rint(mixed).astype(np.uint8)
        return end

    def _drawn(self, size_px: int) -> NDArray[np.float32]:
        """Coverage of every letter, ``[N, above + below, advance]`` in 0..1."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second, and only this needs it
        from matplotlib.figure import Figure

        cell, height = self._advance, self._above + self._below
        width = cell * len(_LETTERS)
        figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
        agg = FigureCanvasAgg(figure)
        figure.patch.set_alpha(0.0)
        for number, letter in enumerate(_LETTERS):
            figure.text(
                number * cell / width, self._below / height, letter, fontsize=size_px * 72 / _DPI, color="black",
                ha="left", va="baseline", family="DejaVu Sans Mono", parse_math=False,
            )  # fmt: skip
        agg.draw()
        drawn = np.asarray(agg.buffer_rgba())[:height, :width, 3].astype(np.float32) / np.float32(255)
        return drawn.reshape(height, len(_LETTERS), cell).transpose(1, 0, 2).copy()


def _dim(image: RgbImage, x0: int, y0: int, x1: int, y1: int) -> None:
    """Darken a rectangle to half."""
    part = image[max(y0, 0) : max(y1, 0), max(x0, 0) : max(x1, 0)]
    part[:] = part // 2
