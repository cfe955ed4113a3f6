"""Writes: report.html, one page that needs nothing but itself: tables, plots, pictures and videos of an evaluation."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from modules.structures.evaluation import EDITED, Protocol
from modules.structures.scores import Evaluation, Metric, RowScores, TrialScores
from modules.structures.transfer import TransferScore
from tasks.evaluation.files import write_parts
from tasks.evaluation.media import clip_html, sheet_html
from tasks.evaluation.plots import legend_of, palette_css, plots_of
from tasks.evaluation.tables import (
    NOT_MEASURED,
    TRANSFER_ABOUT,
    Cell,
    Table,
    coverage_of,
    good_way,
    label_of,
    stretches_text,
    tables_of,
    transfer_table,
    verdicts_of,
)

STYLE_FILE = Path(__file__).with_name("report.css")
CONTENT_POLICY = (
    "default-src 'none'; img-src data: file: 'self'; media-src data: file: 'self'; style-src 'unsafe-inline'"
)
"""What the browser may load: what the page holds, and large files beside it. No script, no network."""

WIDE_FACT = 40


def write_report(evaluation: Evaluation, path: Path) -> None:
    """Write the page through a temporary name.

    Clips and pictures above ``media.MAX_EMBEDDED_BYTES`` are named relative to the page instead of embedded.

    Raises:
        OutputError: the file cannot be written.
    """
    write_parts(path, _page(evaluation, path))


def protocol_sentence(protocol: Protocol) -> str:
    """What the figures of a protocol mean."""
    return {
        "self-reenactment": "Held-out frames of the same video are made again; the true frames are known and "
        "every row is compared with them.",
        "dubbing": "The video gets foreign speech; there is no true picture of that, so the figures compare the result "
        "with the untouched source.",
        "leakage": "The video is dubbed with silence and with its own speech played backwards; the mouth must not go "
        "on following what the source says.",
    }[protocol]


def _page(evaluation: Evaluation, path: Path) -> Iterator[str]:
    title = f"Evaluation of {evaluation.source.name}"
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(title)}</title>\n'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    yield f'<meta http-equiv="Content-Security-Policy" content="{CONTENT_POLICY}">\n'
    yield f"<style>\n{_style()}</style></head>\n<body><main>\n"
    yield from _introduction(evaluation)
    for number, trial in enumerate(evaluation.trials):
        yield from _trial(number, trial, evaluation.metrics)
    yield from _transfer(evaluation.transfer)
    yield from _media(evaluation, path)
    yield from _definitions(evaluation.metrics)
    yield (
        "<footer><p>Every result on this page is synthesised: the person did not say this. Make and show such pictures "
        "of a person only with their consent, and say that they are synthesised.</p></footer>\n</main></body></html>\n"
    )


def _style() -> str:
    light, dark = palette_css(is_dark=False), palette_css(is_dark=True)
    palette = f":root{{{light}}}\n@media (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
    return STYLE_FILE.read_text(encoding="utf-8") + palette


def _introduction(evaluation: Evaluation) -> Iterator[str]:
    yield f'<header><p class="kicker">Lip-sync evaluation</p><h1>{_text(evaluation.source.name)}</h1>\n'
    yield f'<p class="muted">{_text(str(evaluation.source))}</p>\n<nav>'
    yield "".join(f'<a href="#trial-{i}">{_text(trial.name)}</a>' for i, trial in enumerate(evaluation.trials))
    yield '<a href="#transfer">Another frame\'s motion</a>' if evaluation.transfer else ""
    yield '<a href="#pictures">Pictures and videos</a>' if evaluation.sheets or evaluation.clips else ""
    yield '<a href="#definitions">What the figures mean</a></nav></header>\n'
    yield _facts(evaluation.facts)
    yield f"<h3>Command</h3>\n<pre>{_command(evaluation.command)}</pre>\n"
    yield "<h3>Made with</h3>\n"
    yield _facts({**evaluation.versions, "seed of the intervals": str(evaluation.seed)})
    yield (
        "<p>Figures in brackets are 95 % intervals, from resampling blocks of neighbouring frames; two figures whose "
        "intervals overlap may differ by chance alone.</p>\n"
    )


def _command(command: str) -> str:
    """A command that may be wrapped, but not inside the name of a flag."""
    return re.sub(r"(?<= )--[\w-]+", r'<span class="label">\g<0></span>', _text(command))


def _facts(facts: Mapping[str, str]) -> str:
    """Labels and values in columns; long values get a line of their own, below the others."""
    items = sorted(facts.items(), key=lambda item: len(item[1]) > WIDE_FACT)
    cells = [
        f'<div class="{"wide" if len(value) > WIDE_FACT else "narrow"}">'
        f"<dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>"
        for label, value in items
    ]
    return f'<dl class="facts">{"".join(cells)}</dl>\n'


def _trial(number: int, trial: TrialScores, metrics: tuple[Metric, ...]) -> Iterator[str]:
    start, stop = trial.times_s[0], trial.times_s[-1]
    yield f'<section id="trial-{number}"><h2>{_text(trial.name)}</h2>\n'
    yield f'<p class="kicker">{trial.protocol} · {len(trial.frames)} frames, {start:.1f} to {stop:.1f} s</p>\n'
    yield f"<p>{_text(protocol_sentence(trial.protocol))}</p>\n"
    yield _coverage(trial)
    yield _rows(trial.rows)
    yield from _tables(trial, metrics)
    yield f"<h3>Notes</h3>\n{_list(trial.notes)}" if trial.notes else ""
    yield from _plots(trial, metrics)
    yield "</section>\n"


def _coverage(trial: TrialScores) -> str:
    lines = [
        f'<tr class="{"edited" if part.outcome == EDITED else "left"}"><td>{_text(part.outcome)}</td>'
        f"<td>{part.frames}</td><td>{100 * part.share:.1f} %</td>"
        f'<td class="track"><span class="bar" style="width:{100 * part.share:.2f}%"></span></td>'
        f"<td>{_text(stretches_text(part.stretches))}</td></tr>"
        for part in coverage_of(trial)
    ]
    head = "<tr><th>outcome</th><th>frames</th><th>share</th><th></th><th>frame numbers</th></tr>"
    total = f"<tr><td>all</td><td>{len(trial.frames)}</td><td>100.0 %</td><td></td><td></td></tr>"
    return (
        "<h3>Coverage: what happened to each frame</h3>\n"
        f'<div class="scroll"><table class="coverage"><thead>{head}</thead>'
        f"<tbody>{''.join(lines)}{total}</tbody></table></div>\n"
    )


def _rows(rows: Iterable[RowScores]) -> str:
    """What each row of the tables is."""
    terms = "".join(f"<dt>{_text(row.name)}</dt><dd>{_text(row.about)}</dd>" for row in rows)
    return f'<h3>What is compared</h3>\n<dl class="terms">{terms}</dl>\n'


def _tables(trial: TrialScores, metrics: tuple[Metric, ...]) -> Iterator[str]:
    results = [row for row in trial.rows if row.is_result and row.verdicts]
    if results:
        yield "<h3>Against the retrieval baseline</h3>\n"
        yield (
            '<p class="muted">The retrieval baseline shows the nearest training frame, warped into place. A result is '
            "better or worse where the 95 % interval of the paired difference leaves out zero, else undecided.</p>\n"
        )
        yield f'<ul class="verdicts">{"".join(_verdicts(row, metrics) for row in results)}</ul>\n'
    for table in tables_of(trial, metrics):
        yield f"<h3>{_text(table.group)}</h3>\n"
        yield f'<div class="scroll" tabindex="0"><table class="figures"><thead>{_head(table)}</thead>\n<tbody>\n'
        yield from (_line(table, row, cells) for row, cells in table.rows)
        yield "</tbody></table></div>\n"
        notes = [f"<li><sup>{i}</sup> {_text(note)}</li>" for i, note in enumerate(table.notes, 1)]
        yield f'<ul class="notes">{"".join(notes)}</ul>\n' if notes else ""


def _verdicts(row: RowScores, metrics: tuple[Metric, ...]) -> str:
    parts = [
        f'<dt><span class="mark {verdict}">{verdict}</span></dt><dd>{_labels(labels)}</dd>'
        for verdict, labels in verdicts_of(row, metrics).items()
        if labels
    ]
    return f"<li><b>{_text(row.name)}</b><dl>{''.join(parts)}</dl></li>"


def _labels(labels: Iterable[str]) -> str:
    return "; ".join(f'<span class="label">{_text(label)}</span>' for label in labels)


def _head(table: Table) -> str:
    cells = []
    for number, metric in enumerate(table.columns):
        fewest, most = table.counts(number)
        what = "frames" if metric.is_per_frame else "n ="
        counted = f"{fewest}" if fewest == most else f"{fewest}–{most}"
        counted = f"{counted} {what}" if metric.is_per_frame else f"{what} {counted}"
        small = " · ".join(_text(part) for part in (metric.unit, good_way(metric.better)) if part) or "&nbsp;"
        label = f'<a href="#metric-{_text(metric.key)}" title="{_text(metric.about)}">{_text(metric.label)}</a>'
        cells.append(f"<th>{label}<small>{small}</small><small>{counted if most else '&nbsp;'}</small></th>")
    return f"<tr><th></th>{''.join(cells)}</tr>"


def _line(table: Table, row: RowScores, cells: Iterable[Cell]) -> str:
    columns = "".join(_cell(cell, table.note_number(cell)) for cell in cells)
    opening = '<tr class="result">' if row.is_result else "<tr>"
    return f'{opening}<th scope="row"><span class="name">{_text(row.name)}</span></th>{columns}</tr>\n'


def _cell(cell: Cell, note: int) -> str:
    mark = f"<sup>{note}</sup>" if note else ""
    if not cell.is_measured:
        return f'<td><span class="none">{NOT_MEASURED}</span>{mark}</td>'
    counted = f' title="over {cell.count}"' if cell.count else ""
    interval = f'<span class="interval">{_number(cell.interval)}</span>' if cell.interval else ""
    verdict = f'<span class="mark {_text(cell.verdict)}">{_text(cell.verdict)}</span>' if cell.verdict else ""
    return f'<td{counted}><span class="value">{_number(cell.value)}</span>{mark}{interval}{verdict}</td>'


def _plots(trial: TrialScores, metrics: tuple[Metric, ...]) -> Iterator[str]:
    plots = list(plots_of(trial, metrics))
    if not plots:
        return
    yield "<h3>Over time</h3>\n"
    entries = [
        f'<li><span class="swatch {entry.style}" style="{"background" if entry.style == "area" else "border-color"}:'
        f'var(--plot-{entry.colour})"></span>{_text(entry.label)}</li>'
        for entry in legend_of(trial)
    ]
    yield f'<ul class="legend">{"".join(entries)}</ul>\n'
    for plot in plots:
        yield f'<figure><h4>{_text(plot.title)}</h4><div class="scroll" tabindex="0">\n{plot.svg}\n</div>'
        yield f"<figcaption>{_text(plot.caption)}</figcaption></figure>\n"


def _transfer(scores: Sequence[TransferScore]) -> Iterator[str]:
    if not scores:
        return
    table = transfer_table(scores)
    yield f'<section id="transfer"><h2>Another frame\'s motion</h2>\n<p>{_text(TRANSFER_ABOUT)}</p>\n'
    heads = "".join(f"<th>{_text(head)}</th>" for head in table.heads)
    yield f'<div class="scroll" tabindex="0"><table class="figures"><thead><tr><th></th>{heads}</tr></thead>\n<tbody>\n'
    for name, cells in table.rows:
        values = "".join(f'<td><span class="value">{_number(cell)}</span></td>' for cell in cells)
        yield f'<tr><th scope="row"><span class="name">{_text(name)}</span></th>{values}</tr>\n'
    yield "</tbody></table></div></section>\n"


def _media(evaluation: Evaluation, path: Path) -> Iterator[str]:
    if not evaluation.sheets and not evaluation.clips:
        return
    yield '<section id="pictures"><h2>Pictures and videos</h2>\n'
    for title, file in evaluation.sheets:
        yield sheet_html(title, file, path)
    for title, file in evaluation.clips:
        yield clip_html(title, file, path)
    yield "</section>\n"


def _definitions(metrics: tuple[Metric, ...]) -> Iterator[str]:
    yield '<section id="definitions"><h2>What the figures mean</h2>\n'
    for group in dict.fromkeys(metric.group for metric in metrics):
        yield f'<h3>{_text(group)}</h3>\n<dl class="terms">'
        for metric in metrics:
            if metric.group == group:
                way = good_way(metric.better)
                way = f"Good: {way}." if way else "Neither way is good by itself."
                yield f'<dt id="metric-{_text(metric.key)}">{_text(label_of(metric))}</dt>'
                yield f'<dd>{_text(metric.about)} <span class="muted">{way}</span></dd>'
        yield "</dl>\n"
    yield "</section>\n"


def _list(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(sentence)}</li>' for sentence in sentences)}</ul>\n"


def _number(text: str) -> str:
    """A printed figure with the typographic minus."""
    return _text(text).replace("-", "−")


def _text(text: str) -> str:
    return html.escape(text, quote=True)
