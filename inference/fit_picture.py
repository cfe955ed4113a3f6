"""One picture of a fit: the frame, the face and the mouth enlarged beside it, and the figures below.

The layout is the same in every frame of a video, so the pictures can be frames of one themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.fit_lettering import Lettering
from inference.fit_measures import FittedFrame
from inference.fit_overlay import (
    AXES,
    BAD,
    GOOD,
    GREEN,
    HIDDEN,
    RED,
    YELLOW,
    Rgb,
    View,
    Wires,
    draw_axes,
    draw_contour,
    draw_dots,
    draw_offsets,
    draw_wires,
    error_colours,
    visible_wires,
)
from modules.structures.frames import RgbImage
from modules.structures.landmarks import INNER_LIP, LM131, OUTER_LIP

PANEL = 480
"""Width of the enlarged views, px."""
MOUTH_HEIGHT, LEAST_FACE_HEIGHT = 360, 400
GAP, MARGIN = 4, 12
LINE = 20
PAPER, INK, FAINT, ALARM = (24, 26, 30), (236, 239, 244), (140, 148, 160), (255, 120, 100)
MAGNIFIED = 5.0
"""How much longer than true the error lines are drawn, except in the view of the mouth."""
MOUTH_ZOOM = 3.0
_ROOMY = 0.45
"""Size of the face in the frame over that in its enlarged view, above which all marks fit into the frame too."""
_FACE_ROOM, _MOUTH_ROOM = 1.12, 1.25
"""Sides of the enlarged views over the sizes of face and mouth."""

Item = tuple[str, str]
"""A label and what it says, both of fixed width so that nothing dances."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things are on the page; all sizes even, as video wants them.

    Attributes:
        scale: of the frame on the page.
        frame: its width and height there. frame_y: its top.
        height: of the pictures. width: of the page.
        lines: of text below the pictures.
    """

    scale: float
    frame: tuple[int, int]
    frame_y: int
    height: int
    width: int
    lines: int

    @classmethod
    def of(cls, width: int, height: int, longest: int, items: Sequence[int]) -> Layout:
        """The page of a ``width`` x ``height`` video shown at no more than ``longest`` px; ``items`` = their widths."""
        scale = min(1.0, longest / max(width, height))
        shown = max(round(width * scale), 2), max(round(height * scale), 2)
        tall = _even(max(shown[1], MOUTH_HEIGHT + GAP + LEAST_FACE_HEIGHT))
        wide = _even(shown[0] + GAP + PANEL)
        return cls(scale, shown, (tall - shown[1]) // 2, tall, wide, len(flow(items, wide)) + 1)

    @property
    def page(self) -> tuple[int, int]:
        """Width and height of the page."""
        return self.width, _even(self.height + self.lines * LINE + MARGIN)

    @property
    def face_height(self) -> int:
        """Height of the view of the face; that of the mouth is below it."""
        return self.height - GAP - MOUTH_HEIGHT

    def face_scale(self, size_px: NDArray[np.floating]) -> float:
        """Enlargement that shows a face of width and height ``size_px`` whole."""
        return _fitting(size_px * _FACE_ROOM, (PANEL, self.face_height))

    def mouth_scale(self, size_px: NDArray[np.floating]) -> float:
        """Enlargement of a mouth: as large as its view, and ``MOUTH_ZOOM`` at least where that cuts nothing off."""
        roomy, tight = (_fitting(size_px * room, (PANEL, MOUTH_HEIGHT)) for room in (_MOUTH_ROOM, 1.02))
        return min(max(roomy, MOUTH_ZOOM), tight)


def flow(widths: Sequence[int], width: int) -> list[list[int]]:
    """Numbers of the items on each line of a page ``width`` px wide."""
    lines: list[list[int]] = [[]]
    x = MARGIN
    for number, wide in enumerate(widths):
        if lines[-1] and x + wide > width - MARGIN:
            lines.append([])
            x = MARGIN
        lines[-1].append(number)
        x += wide
    return lines


@dataclass(frozen=True, slots=True, eq=False)
class FrameFit:
    """What is known of one frame.

    Attributes:
        fitted: None where there is no fit.
        tracked_px: ``[478, 2]`` px, None where there are no landmarks.
        errors: ``[478]`` % of the distance between the eyes; NaN for points that nobody saw.
        face_center, mouth_center: ``[2]`` px, where the enlarged views look. face_scale, mouth_scale: how
            close; 0 = they show nothing.
        items: what the strip says.
        note: said in the frame, where something is missing.
    """

    fitted: FittedFrame | None
    tracked_px: NDArray[np.float64] | None
    errors: NDArray[np.float64]
    face_center: NDArray[np.float64]
    mouth_center: NDArray[np.float64]
    face_scale: float
    mouth_scale: float
    items: tuple[Item, ...]
    note: str = ""


class FitPainter:
    """Paints the pages of one video.

    Args:
        layout: of the page.
        wires: of the face model.
    """

    def __init__(self, layout: Layout, wires: Wires) -> None:
        self._layout, self._wires = layout, wires
        self._letters, self._large = Lettering(13), Lettering(20)
        self._blank = self._empty_page()

    def paint(self, rgb: RgbImage, fit: FrameFit) -> RgbImage:
        """The page of one frame ``[H, W, 3]`` of the video's own size."""
        layout, page = self._layout, self._blank.copy()
        width, height = layout.frame
        wires = None
        if fit.fitted is not None:
            wires = visible_wires(self._wires, fit.fitted.vertices, fit.fitted.vertices_px, fit.fitted.depth)
        page[layout.frame_y : layout.frame_y + height, :width] = self._whole(rgb, fit, wires)
        if fit.face_scale > 0 and fit.mouth_scale > 0:
            top, x = layout.height - MOUTH_HEIGHT, layout.width - PANEL
            face = View.around(fit.face_center, fit.face_scale, PANEL, layout.face_height)
            mouth = View.around(fit.mouth_center, fit.mouth_scale, PANEL, MOUTH_HEIGHT)
            page[: layout.face_height, x:] = self._face(rgb, fit, wires, face)
            page[top : layout.height, x:] = self._mouth(rgb, fit, wires, mouth)
        self._write_items(page, fit.items)
        return page

    def _whole(self, rgb: RgbImage, fit: FrameFit, wires: tuple[NDArray, NDArray] | None) -> RgbImage:
        width, height = self._layout.frame
        view = View(0.0, 0.0, self._layout.scale, width, height)
        canvas = view.sample(rgb) if view.scale < 1.0 else rgb.copy()
        # marks shrink with the face; on a small one only the view beside it has room for them all
        size = float(np.clip(self._layout.scale / max(fit.face_scale, 1e-6), 0.2, 1.0))
        if fit.fitted is not None and wires is not None:
            draw_wires(canvas, view.points(fit.fitted.vertices_px), *wires, opacity=0.42)
        chosen = np.arange(len(fit.errors)) if size > _ROOMY else np.array(LM131)
        lines = MAGNIFIED if size > _ROOMY else None
        self._draw_points(canvas, view, fit, chosen, radius=max(2.2 * size, 0.7), magnified=lines)
        if fit.fitted is not None:
            draw_axes(canvas, view.points(fit.fitted.axes_px), thickness=2 if size > 0.5 else 1)
        if fit.note:
            self._large.write(canvas, MARGIN, 30, fit.note, ALARM, backed=True)
        return canvas

    def _face(self, rgb: RgbImage, fit: FrameFit, wires: tuple[NDArray, NDArray] | None, view: View) -> RgbImage:
        canvas = view.sample(rgb)
        if fit.fitted is not None and wires is not None:
            draw_wires(canvas, view.points(fit.fitted.vertices_px), *wires, opacity=0.42)
        self._draw_points(canvas, view, fit, np.arange(len(fit.errors)), radius=2.0, magnified=MAGNIFIED)
        self._caption(canvas, f"face {view.scale:.1f}x, errors {MAGNIFIED:.0f}x")
        return canvas

    def _mouth(self, rgb: RgbImage, fit: FrameFit, wires: tuple[NDArray, NDArray] | None, view: View) -> RgbImage:
        """The lips alone: the model's contours as lines, the tracked points, and between them the true errors."""
        canvas = view.sample(rgb)
        if fit.fitted is not None and wires is not None:
            draw_wires(canvas, view.points(fit.fitted.vertices_px), *wires, opacity=0.22)
            model = view.points(fit.fitted.landmarks_px)
            for contour in (INNER_LIP, OUTER_LIP):
                draw_contour(canvas, model[list(contour)], opacity=0.95)
        lips = np.array(INNER_LIP + OUTER_LIP)
        self._draw_points(canvas, view, fit, lips, radius=3.0, magnified=1.0)
        self._caption(canvas, f"mouth {view.scale:.1f}x, true errors")
        return canvas

    @staticmethod
    def _draw_points(
        canvas: RgbImage,
        view: View,
        fit: FrameFit,
        chosen: NDArray[np.int64],
        *,
        radius: float,
        magnified: float | None,
    ) -> None:
        """The tracked points, and unless ``magnified`` is None from each a line towards where the model has it."""
        if fit.tracked_px is None:
            return
        tracked, errors = view.points(fit.tracked_px)[chosen], fit.errors[chosen]
        colours, known = error_colours(errors), np.isfinite(errors)
        if fit.fitted is not None and magnified is not None:
            model = view.points(fit.fitted.landmarks_px)[chosen]
            draw_offsets(canvas, tracked[known], model[known], colours[known], magnified=magnified)
        draw_dots(canvas, tracked, colours, ~known, radius=radius)

    def _caption(self, canvas: RgbImage, text: str) -> None:
        self._letters.write(canvas, 8, 18, text, INK, backed=True)

    def _empty_page(self) -> RgbImage:
        """What never changes: the ground and the legend."""
        width, height = self._layout.page
        page = np.full((height, width, 3), PAPER, np.uint8)
        y = self._layout.height + self._layout.lines * LINE
        x = self._letters.write(page, MARGIN, y, "error / distance of the eyes:", FAINT) + 10
        for value, colour in ((GOOD, GREEN), ((GOOD + BAD) / 2, YELLOW), (BAD, RED)):
            sign = "≤" if value == GOOD else "≥" if value == BAD else ""
            x = self._legend(page, x, y, colour, f"{sign}{value:g} %")
        x = self._legend(page, x, y, HIDDEN, "not seen", hollow=True)
        for colour, name in zip(AXES, ("x", "y", "z"), strict=True):
            page[y - 5 : y - 3, x : x + 16] = colour
            x = self._letters.write(page, x + 20, y, name, FAINT) + 12
        return page

    def _legend(self, page: RgbImage, x: int, y: int, colour: Rgb, text: str, *, hollow: bool = False) -> int:
        """A dot and what it means; where the next one goes."""
        dots = np.array([[x + 5, y - 4.0]]), np.array([colour], np.uint8)
        draw_dots(page, *dots, np.array([hollow]), radius=4.0)
        return self._letters.write(page, x + 14, y, text, FAINT) + 14

    def _write_items(self, page: RgbImage, items: tuple[Item, ...]) -> None:
        widths = [item_width(item) for item in items]
        for number, line in enumerate(flow(widths, self._layout.width), start=1):
            x, y = MARGIN, self._layout.height + number * LINE
            for index in line:
                label, value = items[index]
                after = self._letters.write(page, x, y, label + " ", FAINT)
                self._letters.write(page, after, y, value, INK)
                x += widths[index]


def item_width(item: Item) -> int:
    """Room for an item of the strip and what parts it from the next, px."""
    return (len(item[0]) + 1 + len(item[1])) * Lettering.advance(13) + 18


def _fitting(size_px: NDArray[np.floating], room: tuple[int, int]) -> float:
    """The largest scale at which ``size_px`` (width, height) fits into ``room``."""
    return float(min(place / max(float(size), 1.0) for size, place in zip(size_px, room, strict=True)))


def _even(value: int) -> int:
    return value + value % 2
