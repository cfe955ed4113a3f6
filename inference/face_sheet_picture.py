"""Draw a contact sheet of faces: pictures and bars by hand on a canvas, text by matplotlib over it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.structures.boxes import BoundingBox
from modules.structures.frames import RgbImage
from modules.structures.tracks import FrameStatus

MARGIN, GAP = 18, 8
TEXT_WIDTH = 252
ROW_WIDTH = 912
"""Of the thumbnails and of the bar that says when a face is on."""
MANY_FACES = 8
FEW_THUMBNAILS, MANY_THUMBNAILS = 6, 8
LABEL, BAR, BETWEEN = 18, 14, 24
LINE = 17
MIN_ROW = 124
"""Height of the words of a row."""
INK, FAINT, PAPER, EMPTY = (51, 55, 61), (150, 155, 161), (255, 255, 255), (236, 238, 241)
CHOSEN = (0, 103, 177)
COLOURS: dict[FrameStatus, tuple[int, int, int]] = {
    FrameStatus.LOST: EMPTY,
    FrameStatus.DETECTED: (0, 158, 115),
    FrameStatus.PREDICTED: (158, 216, 198),
    FrameStatus.OCCLUDED: (204, 121, 167),
    FrameStatus.PROFILE: (230, 159, 0),
    FrameStatus.TOO_SMALL: (120, 126, 134),
}
"""From Okabe and Ito's colour-blind-safe set."""
WORDS: dict[FrameStatus, str] = {
    FrameStatus.DETECTED: "editable",
    FrameStatus.PREDICTED: "short gap, bridged",
    FrameStatus.OCCLUDED: "covered",
    FrameStatus.PROFILE: "seen from the side",
    FrameStatus.TOO_SMALL: "too small",
    FrameStatus.LOST: "not seen",
}


@dataclass(frozen=True, slots=True, eq=False)
class Thumbnail:
    """A face at one moment: picture ``[S, S, 3]``, the face box in its pixels, and when that was."""

    picture: RgbImage
    box: BoundingBox
    status: FrameStatus
    time_s: float


@dataclass(frozen=True, slots=True, eq=False)
class SheetRow:
    """One face: its words, thumbnails in order of time, and uint8 ``[N]`` status over the video."""

    number: int
    is_chosen: bool
    lines: tuple[str, ...]
    thumbnails: tuple[Thumbnail, ...]
    status: NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """All that is drawn.

    Attributes:
        title: and ``lines`` below it.
        overview: a whole frame, small; at ``overview_s``.
        boxes: faces in it by number, in pixels of frames of ``size_hw``.
        times_s: ``[N]``.
        end_s: when the last frame ends.
        shot_starts: first frames of the shots.
        rows: one per face.
    """

    title: str
    lines: tuple[str, ...]
    overview: RgbImage
    overview_s: float
    boxes: dict[int, BoundingBox]
    size_hw: tuple[int, int]
    times_s: NDArray[np.float64]
    end_s: float
    shot_starts: NDArray[np.int64]
    rows: tuple[SheetRow, ...]


@dataclass(frozen=True, slots=True)
class _Text:
    """A line of text whose left edge (or middle) and baseline are at (x, y)."""

    x: float
    y: float
    text: str
    size_px: float = 13
    colour: tuple[int, int, int] = INK
    bold: bool = False
    align: str = "left"


def thumbnail_plan(faces: int) -> tuple[int, int]:
    """How many thumbnails a face gets, and their side in px: many faces get smaller ones, so that the sheet ends."""
    count = FEW_THUMBNAILS if faces <= MANY_FACES else MANY_THUMBNAILS
    return count, (ROW_WIDTH - (count - 1) * GAP) // count


def draw_sheet(sheet: Sheet) -> RgbImage:
    """The sheet as an image ``[H, W, 3]``, made to be read at 100 %."""
    size = thumbnail_plan(len(sheet.rows))[1]
    step = max(size + LABEL + BAR, MIN_ROW) + BETWEEN
    top = MARGIN + max(sheet.overview.shape[0], (len(WORDS) + 3) * LINE + 24) + LABEL + 46
    height = top + step * len(sheet.rows) + MARGIN
    canvas = np.full((height, 2 * MARGIN + TEXT_WIDTH + ROW_WIDTH, 3), PAPER, np.uint8)
    texts = _draw_header(canvas, sheet)
    texts += _draw_axis(canvas, sheet, top - 12)
    for index, row in enumerate(sheet.rows):
        texts += _draw_row(canvas, sheet, row, top + index * step, size)
    return _with_texts(canvas, texts)


def _draw_header(canvas: RgbImage, sheet: Sheet) -> list[_Text]:
    """Overview with numbered boxes, title, and what the colours mean."""
    height, width = sheet.overview.shape[:2]
    canvas[MARGIN : MARGIN + height, MARGIN : MARGIN + width] = sheet.overview
    texts = [_Text(MARGIN, MARGIN + height + 15, f"who is where at {sheet.overview_s:.2f} s", 12, FAINT)]
    scale = width / sheet.size_hw[1]
    chosen = {row.number for row in sheet.rows if row.is_chosen}
    for number, box in sheet.boxes.items():
        x0, y0, x1, y1 = (MARGIN + scale * float(value) for value in box.as_array())
        colour = CHOSEN if number in chosen else INK
        _frame(canvas, (x0, y0, x1, y1), colour)
        x, y = min(max(x0, MARGIN), MARGIN + width - 20), min(max(y0 - 17, MARGIN), MARGIN + height - 17)
        cv2.rectangle(canvas, (round(x), round(y)), (round(x) + 8 + 8 * len(str(number)), round(y) + 16), colour, -1)
        texts.append(_Text(x + 4, y + 13, str(number), 13, PAPER, bold=True))
    left, y = MARGIN + width + 28, MARGIN + 14
    texts.append(_Text(left, y, sheet.title, 17, bold=True))
    texts += [_Text(left, y + 8 + LINE * (1 + n), line) for n, line in enumerate(sheet.lines)]
    y += 24 + LINE * (1 + len(sheet.lines))
    for status, words in WORDS.items():
        cv2.rectangle(canvas, (left, y - 10), (left + 22, y), COLOURS[status], -1)
        texts.append(_Text(left + 30, y, words))
        y += LINE
    texts.append(_Text(left + 9, y, "│", colour=INK))
    texts.append(_Text(left + 30, y, "a new shot begins"))
    return texts


def _draw_axis(canvas: RgbImage, sheet: Sheet, y: int) -> list[_Text]:
    """Seconds along the bars, above the first row."""
    texts: list[_Text] = []
    for second in _round_times(float(sheet.times_s[-1])):
        x = _bar_x(sheet, second)
        cv2.line(canvas, (x, y - 4), (x, y), FAINT, 1)
        texts.append(_Text(x, y - 8, f"{second:g} s", 12, FAINT, align="center"))
    cv2.line(canvas, (_bar_x(sheet, 0.0), y), (MARGIN + TEXT_WIDTH + ROW_WIDTH - 1, y), FAINT, 1)
    return texts


def _draw_row(canvas: RgbImage, sheet: Sheet, row: SheetRow, top: int, size: int) -> list[_Text]:
    left = MARGIN + TEXT_WIDTH
    colour = CHOSEN if row.is_chosen else INK
    texts = [_Text(MARGIN, top + 18, f"face {row.number}", 18, colour, bold=True)]
    if row.is_chosen:
        texts.append(_Text(MARGIN + 66 + 11 * len(str(row.number)), top + 18, "chosen", 13, CHOSEN))
    texts += [_Text(MARGIN, top + 42 + LINE * n, line) for n, line in enumerate(row.lines)]
    _draw_bar(canvas, sheet, row.status, top)
    for n, thumbnail in enumerate(row.thumbnails):
        x, y = left + n * (size + GAP), top + BAR + 5
        canvas[y : y + size, x : x + size] = thumbnail.picture
        _frame(canvas[y : y + size, x : x + size], tuple(thumbnail.box.as_array()), COLOURS[thumbnail.status])
        mark = _bar_x(sheet, thumbnail.time_s)
        cv2.line(canvas, (mark, top + BAR), (mark, top + BAR + 3), INK, 1)
        texts.append(_Text(x + size / 2, y + size + 14, f"{thumbnail.time_s:.2f} s", 12, align="center"))
    return texts


def _draw_bar(canvas: RgbImage, sheet: Sheet, status: NDArray[np.uint8], top: int) -> None:
    """When the face is on, in the colours of its states; of the frames behind one pixel the commonest state wins.

    LOST wins only where there is nothing else, so that a short sight in a long video does not vanish.
    """
    left = MARGIN + TEXT_WIDTH
    weight = np.array([0.001 if value == FrameStatus.LOST else 1.0 for value in range(len(FrameStatus))])
    shown = np.eye(len(FrameStatus))[status] * weight
    up_to = np.concatenate([np.zeros((1, len(FrameStatus))), np.cumsum(shown, axis=0)])
    edges_s = np.arange(ROW_WIDTH + 1) / ROW_WIDTH * sheet.end_s
    first = np.maximum(np.searchsorted(sheet.times_s, edges_s[:-1] + 1e-9, side="right") - 1, 0)
    stop = np.maximum(np.searchsorted(sheet.times_s, edges_s[1:] - 1e-9), first + 1)
    table = np.array([COLOURS[FrameStatus(value)] for value in range(len(FrameStatus))], np.uint8)
    canvas[top : top + BAR, left : left + ROW_WIDTH] = table[(up_to[stop] - up_to[first]).argmax(axis=1)][None]
    for start in sheet.shot_starts[1:]:
        x = _bar_x(sheet, float(sheet.times_s[start]))
        canvas[top - 2 : top + BAR + 2, x] = INK


def _bar_x(sheet: Sheet, time_s: float) -> int:
    """Canvas column of a time."""
    return MARGIN + TEXT_WIDTH + min(int(time_s / sheet.end_s * ROW_WIDTH), ROW_WIDTH - 1)


def _round_times(end_s: float) -> list[float]:
    """At most a dozen round times from 0 to the end."""
    for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800):
        if end_s / step <= 12:
            break
    else:
        step = 3600 * np.ceil(end_s / 3600 / 12)
    return [round(float(step) * n, 6) for n in range(int(end_s / step + 1e-9) + 1)]


def _frame(canvas: RgbImage, corners: tuple[float, ...], colour: tuple[int, int, int]) -> None:
    """A box with a light rim, seen on any ground."""
    x0, y0, x1, y1 = (round(value) for value in corners)
    cv2.rectangle(canvas, (x0 - 1, y0 - 1), (x1 + 1, y1 + 1), PAPER, 1)
    cv2.rectangle(canvas, (x0, y0), (x1, y1), colour, 2)


def _with_texts(canvas: RgbImage, texts: list[_Text]) -> RgbImage:
    """The canvas with text over it, pixel for pixel."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second, and only this needs it
    from matplotlib.figure import Figure

    height, width = canvas.shape[:2]
    dpi = 100
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi)
    agg = FigureCanvasAgg(figure)
    figure.patch.set_alpha(0.0)
    for item in texts:
        figure.text(
            item.x / width,
            1 - item.y / height,
            item.text,
            fontsize=item.size_px * 72 / dpi,
            color=tuple(value / 255 for value in item.colour),
            fontweight="bold" if item.bold else "normal",
            ha=item.align,
            va="baseline",
            family="DejaVu Sans",
            parse_math=False,
        )
    agg.draw()
    layer = np.asarray(agg.buffer_rgba())[:height, :width]
    image, written = canvas.copy(), layer[..., 3] > 0
    alpha = layer[written][:, 3:].astype(np.float32) / 255
    mixed = canvas[written] * (1 - alpha) + layer[written][:, :3] * alpha
    image[written] = np.round(mixed).astype(np.uint8)  # between two bytes, so a byte
    return image
