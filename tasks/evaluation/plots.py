"""Plots over time of a trial, as inline SVG that follows the page's light or dark colours."""

from __future__ import annotations

import html
import io
import math
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from modules.structures.evaluation import SpeechTrack
from modules.structures.scores import Metric, RowScores, TrialScores
from tasks.evaluation.curves import FLAT, broken, envelope, matching_scale, running_correlation, running_mean, runs_of
from tasks.evaluation.tables import label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = (
    ("ink", "#33373d", "#d5d9de"),
    ("faint", "#d9dce0", "#3a3f46"),
    ("silence", "#eceef1", "#2a2f36"),
    ("speech", "#7cc4ae", "#3f9f83"),
    ("retrieval", "#c77c02", "#e8a33d"),
    ("result-1", "#0067b1", "#5cb3f2"),
    ("result-2", "#b0307f", "#ee8fcb"),
    ("result-3", "#c4400f", "#ff8a5c"),
    ("result-4", "#5b4bb5", "#a99bff"),
)
"""Name, light, dark: hues of Okabe and Ito's colour-blind-safe set, moved in lightness for contrast with the page."""

N_RESULT_COLOURS = sum(name.startswith("result") for name, _, _ in PALETTE)
TIME_PLOTS = ("lmd", "psnr", "jitter")
"""Beginnings of the keys of what is drawn over time; of several, the first in the order of the tables."""
MAX_POINTS = 2000
MANY_FRAMES = 150
PANEL_S = 10.0
MAX_PANELS = 4
FOLLOWING_S = 4.0
WIDTH_IN, HEIGHT_IN, PANEL_IN = 11.0, 1.75, 1.2
LEFT_IN, RIGHT_IN, BOTTOM_IN, TOP_IN, BETWEEN_IN = 0.5, 0.18, 0.42, 0.08, 0.32
_STYLE: tuple[tuple[Any, Any], ...] = (
    ("svg.fonttype", "path"),
    ("font.size", 8.0),
    ("axes.linewidth", 0.6),
    ("xtick.major.width", 0.6),
    ("xtick.major.size", 3.0),
    ("ytick.major.size", 0.0),
    ("lines.solid_joinstyle", "round"),
    ("path.simplify_threshold", 0.2),
)


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of the plots: the colour's name in the palette, and how it is drawn ('line', 'dashes' or 'area')."""

    label: str
    colour: str
    style: str = "line"


@dataclass(frozen=True, slots=True)
class Plot:
    """A picture for the page: ``svg`` is an element whose colours are CSS variables ``--plot-<name>``."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    row: RowScores
    entry: LegendEntry

    def values(self, key: str) -> NDArray[np.float64]:
        """Per-frame values ``[N]``; infinite ones (identical pictures) become gaps."""
        values = np.asarray(self.row.frames[key], np.float64)
        return np.where(np.isfinite(values), values, np.nan)

    def has(self, key: str) -> bool:
        return key in self.row.frames and bool(np.isfinite(self.row.frames[key]).any())


@dataclass(frozen=True, slots=True)
class _Span:
    """A stretch of time, s."""

    start_s: float
    stop_s: float


def palette_css(is_dark: bool) -> str:
    """The palette as CSS declarations."""
    return "".join(f"--plot-{name}:{dark if is_dark else light};" for name, light, dark in PALETTE)


def legend_of(trial: TrialScores) -> tuple[LegendEntry, ...]:
    """What the plots of a trial show."""
    area = LegendEntry("opening predicted from the speech alone", "speech", "area")
    silence = LegendEntry("no speech", "silence", "area")
    return (*(line.entry for line in _lines(trial)), *((area, silence) if trial.speech else ()))


def plots_of(trial: TrialScores, metrics: Sequence[Metric]) -> Iterator[Plot]:
    """Opening against speech, then LMD, PSNR and jitter over time; what no row has is left out."""
    lines = _lines(trial)
    yield from _opening_plots(trial, [line for line in lines if line.has("opening")])
    for stem in TIME_PLOTS:
        found = [m for m in metrics if m.key.startswith(stem) and any(line.has(m.key) for line in lines)]
        if found:
            yield _metric_plot(trial, [line for line in lines if line.has(found[0].key)], found[0])


def _lines(trial: TrialScores) -> list[_Line]:
    """The untouched source, the retrieval baseline and the results, later ones on top."""
    first, others = trial.rows[0], trial.rows[1:]
    retrieval = [row for row in others if not row.is_result and "retrieval" in row.name.lower()]
    lines = [_Line(first, LegendEntry(first.name, "ink"))]
    lines += [_Line(row, LegendEntry(row.name, "retrieval")) for row in retrieval]
    for number, row in enumerate(row for row in others if row.is_result):
        style = "dashes" if number >= N_RESULT_COLOURS else "line"
        lines.append(_Line(row, LegendEntry(row.name, f"result-{number % N_RESULT_COLOURS + 1}", style)))
    return lines


def _metric_plot(trial: TrialScores, lines: list[_Line], metric: Metric) -> Plot:
    """Every frame thin and a running mean thick; a row that never changes is named, not drawn."""
    constant = [line for line in lines if np.nanmin(line.values(metric.key)) == np.nanmax(line.values(metric.key))]
    drawn = [line for line in lines if line not in constant] or lines
    whole = _whole(trial)
    smooth_s = max(1.0, round((whole.stop_s - whole.start_s) / 60.0))
    is_smoothed = len(trial.times_s) > MANY_FRAMES
    title = f"{label_of(metric)} over time"
    with _figure(HEIGHT_IN) as figure:
        axes = _time_axes(figure, whole)
        for line in drawn:
            values = line.values(metric.key)
            if is_smoothed:
                _draw(axes, trial, values, line.entry, width=0.5, opacity=0.3)
                values = running_mean(trial.times_s, values, trial.block, smooth_s)
            _draw(axes, trial, values, line.entry, width=1.5)
        svg = _svg(figure, f"{trial.name}/{metric.key}", title)
    caption = f"Thin: every frame. Thick: mean over {smooth_s:g} s. " if is_smoothed else ""
    caption += "Gaps: nothing to measure there, or identical pictures."
    if drawn is not lines:
        what = ", ".join(f"{line.row.name} ({np.nanmin(line.values(metric.key)):g})" for line in constant)
        caption += f" Constant, so not drawn: {what}." if constant else ""
    return Plot(title, caption, svg)


def _opening_plots(trial: TrialScores, lines: list[_Line]) -> Iterator[Plot]:
    """A short trial whole, line below line; of a long one how well the lips follow, and the best and worst stretch."""
    lines = [line for line in lines if line.entry.colour != "retrieval"]
    if not lines:
        return
    title, caption = "Lip opening and speech", "Lip opening found again in the pictures, in distances between the eyes."
    if trial.speech is not None:
        caption += (
            " Green: what a model expects from the speech alone, stretched to the size of the measured opening;"
            " compare when it moves, not how far. Grey: no speech."
        )
    whole = _whole(trial)
    panels = max(1, math.ceil((whole.stop_s - whole.start_s) / PANEL_S - 0.05))
    if panels > MAX_PANELS and trial.speech is not None:
        yield _following_plot(trial, lines)
        stretches = _best_and_worst(trial, lines[-1])
    else:
        edges = np.linspace(whole.start_s, whole.stop_s, min(panels, MAX_PANELS) + 1).tolist()
        stretches = [("", [_Span(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)])]
    for which, spans in stretches:
        yield Plot(title + which, caption, _opening_svg(trial, lines, spans, title + which))
        caption = ""


def _following_plot(trial: TrialScores, lines: list[_Line]) -> Plot:
    """Running correlation of each row's opening with what the speech asks for."""
    title = "How well the lips follow the speech"
    with _figure(HEIGHT_IN) as figure:
        axes = _time_axes(figure, _whole(trial))
        axes.set_ylim(-1.0, 1.0)
        for line in lines:
            r = running_correlation(trial.times_s, line.values("opening"), _expected(trial), trial.block, FOLLOWING_S)
            _draw(axes, trial, r, line.entry, width=1.2)
        svg = _svg(figure, f"{trial.name}/following", title)
    caption = (
        f"Correlation of the lip opening with the opening predicted from the speech, over the {FOLLOWING_S:g} s around"
        " each frame, at no lag: 1 = in step, 0 = unrelated."
    )
    return Plot(title, caption, svg)


def _best_and_worst(trial: TrialScores, line: _Line) -> list[tuple[str, list[_Span]]]:
    """The stretches of ``PANEL_S`` in which the row's lips follow the speech best and worst, with words for each."""
    opening, expected = line.values("opening"), _expected(trial)
    found: list[tuple[float, _Span]] = []
    for start in np.arange(trial.times_s[0], trial.times_s[-1] - PANEL_S / 2, PANEL_S).tolist():
        inside = (trial.times_s >= start) & (trial.times_s < start + PANEL_S)
        known = inside & np.isfinite(opening + expected)
        if known.sum() > inside.sum() / 2 and min(opening[known].std(), expected[known].std()) > FLAT:
            r = float(np.corrcoef(opening[known], expected[known])[0, 1])
            found.append((r, _Span(start, start + PANEL_S)))
    found.sort(key=lambda item: item[0])
    chosen = (("best", found[-1]), ("worst", found[0])) if len(found) > 1 else ()
    return [
        (f", {span.start_s:.0f}–{span.stop_s:.0f} s: where {line.row.name} follows {how} (r = {r:.2f})", [span])
        for how, (r, span) in chosen
    ]


def _opening_svg(trial: TrialScores, lines: list[_Line], spans: Sequence[_Span], title: str) -> str:
    height = len(spans) * PANEL_IN + (len(spans) - 1) * BETWEEN_IN + TOP_IN + BOTTOM_IN
    highest = max(float(np.nanmax(line.values("opening"))) for line in lines)
    with _figure(height) as figure:
        for number, span in enumerate(spans):
            axes = _time_axes(figure, span, panel=(number, len(spans)))
            axes.set_ylim(0.0, 1.08 * max(highest, 1e-3))
            if trial.speech is not None:
                _draw_speech(axes, trial, _speaking(trial, lines), span)
                _shade_silence(axes, trial.speech, span)
            for line in lines:
                _draw(axes, trial, line.values("opening"), line.entry, width=1.3, span=span)
        return _svg(figure, f"{trial.name}/opening/{spans[0].start_s}", title)


def _speaking(trial: TrialScores, lines: list[_Line]) -> _Line:
    """The row whose lips the speech belongs to: the truth in self-reenactment, else the last result."""
    return lines[0] if trial.protocol == "self-reenactment" else lines[-1]


def _expected(trial: TrialScores) -> NDArray[np.float64]:
    """The predicted opening at the trial's frames ``[N]``; NaN after the end of the speech."""
    assert trial.speech is not None
    return np.interp(trial.times_s, trial.speech.times_s, trial.speech.opening, right=np.nan).astype(np.float64)


def _draw_speech(axes: Axes, trial: TrialScores, line: _Line, span: _Span) -> None:
    """The predicted opening as an area behind the lines."""
    assert trial.speech is not None
    scale, offset = matching_scale(_expected(trial), line.values("opening"))
    times = trial.speech.times_s
    inside = (times >= span.start_s) & (times <= span.stop_s)
    if inside.any():
        times, expected = envelope(times[inside], offset + scale * trial.speech.opening[inside], MAX_POINTS)
        axes.fill_between(times, 0.0, expected, facecolor=_hex("speech"), alpha=0.4, linewidth=0, zorder=1)


def _shade_silence(axes: Axes, speech: SpeechTrack, span: _Span) -> None:
    pauses = (runs_of(~speech.is_speech) / speech.rate_hz).clip(span.start_s, span.stop_s)
    bars = [(start, stop - start) for start, stop in pauses.tolist() if stop > start]
    axes.broken_barh(bars, (0, 1), transform=axes.get_xaxis_transform(), facecolor=_hex("silence"), zorder=0)


def _draw(
    axes: Axes,
    trial: TrialScores,
    values: NDArray[np.float64],
    entry: LegendEntry,
    *,
    width: float,
    opacity: float = 1.0,
    span: _Span | None = None,
) -> None:
    """A line over time, its gaps kept."""
    times, values = broken(trial.times_s, values, trial.block)
    if span is not None:
        inside = (times >= span.start_s - 0.1) & (times <= span.stop_s + 0.1)
        times, values = times[inside], values[inside]
    if len(times):
        times, values = envelope(times, values, MAX_POINTS)
        dashes = (0, (5, 1.5)) if entry.style == "dashes" else "solid"
        axes.plot(times, values, color=_hex(entry.colour), linewidth=width, alpha=opacity, linestyle=dashes)


def _whole(trial: TrialScores) -> _Span:
    return _Span(float(trial.times_s[0]), float(trial.times_s[-1]))


def _hex(name: str) -> str:
    return next(light for known, light, _ in PALETTE if known == name)


@contextmanager
def _figure(height_in: float) -> Iterator[Figure]:
    """An empty figure, whatever matplotlibrc says; matplotlib's settings are put back afterwards."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(WIDTH_IN, height_in))
        FigureCanvasAgg(figure)
        yield figure


def _time_axes(figure: Figure, span: _Span, panel: tuple[int, int] = (0, 1)) -> Axes:
    """Axes over ``span`` with the same margins in every plot; ``panel`` = number from the top, and of how many."""
    height = float(figure.get_figheight())
    number, panels = panel
    tall = (height - TOP_IN - BOTTOM_IN - (panels - 1) * BETWEEN_IN) / panels
    bottom = BOTTOM_IN + (panels - 1 - number) * (tall + BETWEEN_IN)
    box = (LEFT_IN / WIDTH_IN, bottom / height, 1 - (LEFT_IN + RIGHT_IN) / WIDTH_IN, tall / height)
    axes = figure.add_axes(box)
    axes.patch.set_visible(False)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_hex("ink"))
    axes.tick_params(colors=_hex("ink"), pad=3)
    axes.grid(axis="y", color=_hex("faint"), linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(span.start_s, max(span.stop_s, span.start_s + 1e-3))
    axes.locator_params(axis="y", nbins=6)
    axes.locator_params(axis="x", nbins=11)
    if number == panels - 1:
        axes.set_xlabel("seconds in the video", color=_hex("ink"), labelpad=2)
    return axes


def _svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an SVG element: no prologue, ids of its own, colours as CSS variables, two decimals."""
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = name
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    head = re.search(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', text)
    assert head is not None
    body = re.sub(r"<metadata>.*?</metadata>", "", text[head.end() :], flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>p{zlib.crc32(name.encode()):x}-", body)
    body = re.sub(r'\bd="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path.group()), body)
    for colour, light, _ in PALETTE:
        body = body.replace(light, f"var(--plot-{colour},{light})")
    body = re.sub(r"\n\s*", "\n", body).strip()
    return f'<svg {head.group(1)} role="img" aria-label="{html.escape(title, quote=True)}">{body}'
