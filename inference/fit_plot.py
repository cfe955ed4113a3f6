"""The coefficients of a fit over time, as one picture that is read at 100 %."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import CAMERA_DISTANCE
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.frames import RgbImage
from tasks.evaluation.curves import envelope, runs_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH_PX, PANEL_PX, TOP_PX, BOTTOM_PX, BETWEEN_PX = 1600, 168, 64, 44, 34
LEFT_PX, RIGHT_PX = 64, 190
_DPI = 100
_MAX_POINTS = 4000
TARGET_PERCENT = 2.0
"""What the errors of a good fit stay below."""
INK, FAINT, SHADE, CUT = "#33373d", "#dfe2e6", "#e9ecf0", "#8a929c"
COLOURS = ("#0067b1", "#c4400f", "#00805c", "#b0307f", "#c77c02", "#5b4bb5", "#5f6670")
_STYLE: tuple[tuple[Any, Any], ...] = (
    ("font.size", 9.0),
    ("axes.linewidth", 0.6),
    ("xtick.major.width", 0.6),
    ("ytick.major.size", 0.0),
    ("lines.solid_joinstyle", "round"),
    ("path.simplify_threshold", 0.2),
)


@dataclass(frozen=True, slots=True, eq=False)
class FitCurves:
    """What is drawn: rows of the frames of one stretch of a video.

    Attributes:
        title: above the picture. times_s: ``[T]``.
        shot_starts: rows that begin a shot.
        coeffs: of these rows. names: of the expression units.
        fits: ``[T]`` rows that have a fit; others are shaded, and their values, which are interpolated, left out.
        face, lips: ``[T]`` errors, % of the distance between the eyes.
    """

    title: str
    times_s: NDArray[np.float64]
    shot_starts: NDArray[np.int64]
    coeffs: FaceModelCoeffs
    names: tuple[str, ...]
    fits: NDArray[np.bool_]
    face: NDArray[np.float64]
    lips: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """Some lines with a common scale; ``limits`` None = what the lines need, ``least`` = but no narrower than this."""

    title: str
    lines: tuple[tuple[str, NDArray[np.float64]], ...]
    limits: tuple[float, float] | None = None
    least: float = 0.0
    target: float | None = None


def plot_fit(curves: FitCurves) -> RgbImage:
    """Draw pose, distance, mouth, eyes and errors below each other: ``[H, 1600, 3]``."""
    panels = _panels(curves)
    height = TOP_PX + BOTTOM_PX + len(panels) * PANEL_PX + (len(panels) - 1) * BETWEEN_PX
    with _figure(height) as figure:
        figure.text(LEFT_PX / WIDTH_PX, 1 - 22 / height, curves.title, fontsize=12, color=INK, va="center",
                    fontweight="bold", parse_math=False)  # fmt: skip
        for number, panel in enumerate(panels):
            axes = _axes(figure, height, number)
            _shade(axes, curves)
            for (_, values), colour in zip(panel.lines, COLOURS, strict=False):
                _draw(axes, curves, values, colour)
            _finish(axes, panel, is_last=number == len(panels) - 1)
        return _pixels(figure, height)


def _panels(curves: FitCurves) -> tuple[_Panel, ...]:
    coeffs = curves.coeffs
    pitch, yaw, roll = np.degrees(coeffs.euler.astype(np.float64)).T
    x, y, z = coeffs.translation.astype(np.float64).T

    def unit(name: str) -> NDArray[np.float64]:
        return coeffs.expression[:, curves.names.index(name)].astype(np.float64)

    def pair(name: str) -> NDArray[np.float64]:
        return (unit(f"{name}Left") + unit(f"{name}Right")) / 2

    mouth = ("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthShrugLower")
    shapes = ("mouthSmile", "mouthStretch", "mouthUpperUp", "mouthLowerDown", "mouthPress", "mouthFrown")
    return (
        _Panel("turn of the head, °", (("yaw, + = image right", yaw), ("pitch, + = down", pitch),
                                       ("roll, + = anticlockwise", roll)), least=4.0),
        _Panel("place of the head, dm", (("x, + = image right", x), ("y, + = up", y)), least=0.4),
        _Panel("distance from the camera, dm", (("distance", CAMERA_DISTANCE - z),), least=0.4),
        _Panel("jaw and lips, 0 to 1", tuple((name, unit(name)) for name in mouth), (-0.05, 1.05)),
        _Panel("both corners of the mouth (mean of left and right)", tuple((name, pair(name)) for name in shapes),
               (-0.05, 1.05)),
        _Panel("lids and brows", (("blink left", unit("eyeBlinkLeft")), ("blink right", unit("eyeBlinkRight")),
                                  ("browInnerUp", unit("browInnerUp")), ("browDown", pair("browDown"))), (-0.05, 1.05)),
        _Panel("error, % of the distance between the eyes", (("whole face", curves.face), ("lips", curves.lips)),
               least=3.0, target=TARGET_PERCENT),
    )  # fmt: skip


def _draw(axes: Axes, curves: FitCurves, values: NDArray[np.float64], colour: str) -> None:
    """A line that is broken where there is no fit and where a shot begins."""
    times, shown = curves.times_s, np.where(curves.fits, values, np.nan)
    cuts = curves.shot_starts[(curves.shot_starts > 0) & (curves.shot_starts < len(times))]
    times = np.insert(times, cuts, (times[cuts - 1] + times[cuts]) / 2)
    shown = np.insert(shown, cuts, np.nan)
    times, shown = envelope(times, shown, _MAX_POINTS)
    axes.plot(times, shown, color=colour, linewidth=1.1)
    known = np.isfinite(shown)
    before, after = np.concatenate([[False], known[:-1]]), np.concatenate([known[1:], [False]])
    single = known & ~before & ~after  # a line needs two points
    axes.plot(times[single], shown[single], color=colour, linestyle="none", marker="o", markersize=2)


def _shade(axes: Axes, curves: FitCurves) -> None:
    """Grey where there is no fit, thin lines where shots begin; the time axis ends with the last frame."""
    times = curves.times_s
    step = float(np.median(np.diff(times))) if len(times) > 1 else 0.04
    edges = np.concatenate([times, [times[-1] + step]])
    bars = [(float(edges[a]), float(edges[b] - edges[a])) for a, b in runs_of(~curves.fits)]
    axes.broken_barh(bars, (0, 1), transform=axes.get_xaxis_transform(), facecolor=SHADE, linewidth=0, zorder=0)
    for start in curves.shot_starts:
        if 0 < start < len(times):
            axes.axvline(float(times[start]), color=CUT, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.set_xlim(float(edges[0]), float(edges[-1]))


def _finish(axes: Axes, panel: _Panel, *, is_last: bool) -> None:
    """Limits, title, and the names of the lines beside them."""
    if panel.limits is not None:
        axes.set_ylim(*panel.limits)
    else:
        axes.set_ylim(*_limits(panel.lines, panel.least, from_zero=panel.target is not None))
    if panel.target is not None:
        axes.axhline(panel.target, color=INK, linewidth=0.8, linestyle=(0, (5, 3)))
    axes.set_title(panel.title, loc="left", fontsize=9, color=INK, pad=5)
    for number, ((name, _), colour) in enumerate(zip(panel.lines, COLOURS, strict=False)):
        axes.text(1.008, 0.96 - number * 0.155, name, transform=axes.transAxes, color=colour, va="top", fontsize=9)
    if is_last:
        axes.set_xlabel("seconds in the video", color=INK, labelpad=3)
    else:
        axes.tick_params(labelbottom=False)


def _limits(lines: Sequence[tuple[str, NDArray[np.float64]]], least: float, *, from_zero: bool) -> tuple[float, float]:
    """Room for all values, a little air, and at least ``least`` of height."""
    values = np.concatenate([line[np.isfinite(line)] for _, line in lines])
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, least)
    if from_zero:
        return 0.0, max(1.08 * high, least)
    spare = max(least - (high - low), 0.0) / 2
    air = 0.06 * max(high - low, least)
    return low - spare - air, high + spare + air


@contextmanager
def _figure(height_px: int) -> Iterator[Figure]:
    """An empty figure, whatever matplotlibrc says; matplotlib's settings are put back afterwards."""
    import matplotlib  # half a second, and only this needs it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(WIDTH_PX / _DPI, height_px / _DPI), dpi=_DPI)
        FigureCanvasAgg(figure)
        yield figure


def _axes(figure: Figure, height: int, number: int) -> Axes:
    """The panel with ``number`` from the top."""
    bottom = height - TOP_PX - number * (PANEL_PX + BETWEEN_PX) - PANEL_PX
    box = (LEFT_PX / WIDTH_PX, bottom / height, 1 - (LEFT_PX + RIGHT_PX) / WIDTH_PX, PANEL_PX / height)
    axes = figure.add_axes(box)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(colors=INK, pad=3)
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=6)
    axes.locator_params(axis="x", nbins=16)
    return axes


def _pixels(figure: Figure, height: int) -> RgbImage:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    agg = figure.canvas
    assert isinstance(agg, FigureCanvasAgg)
    agg.draw()
    return np.asarray(agg.buffer_rgba())[:height, :WIDTH_PX, :3].copy()
