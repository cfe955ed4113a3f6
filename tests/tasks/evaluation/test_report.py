"""report.html: self-contained, complete, escaped, well formed."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from modules.structures.scores import Evaluation
from tasks.evaluation.report import protocol_sentence, write_report
from tests.support.made_up_evaluation import HOSTILE_SOURCE, LONG_NAME, METRICS, NO_WEIGHTS, made_up_evaluation

VOID = {"meta", "br", "img", "input"}


class Page(HTMLParser):
    """Checks nesting, and collects addresses, ids, text and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for key, value in attrs if key in ("src", "href", "xlink:href", "poster", "action")]
        self.ids += [given["id"]] if "id" in given else []
        assert not [key for key in given if key.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Evaluation:
    return made_up_evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture(scope="module")
def written(evaluation: Evaluation, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report")
    write_report(evaluation, folder / "report.html")
    assert [path.name for path in folder.iterdir()] == ["report.html"]
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written: str) -> Page:
    return Page(written)


def test_it_needs_nothing_but_itself(written: str, page: Page):
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)|https?:", re.sub(r'"data:[^"]*"', "", written))
    assert page.tags.count("img") == 1 and page.tags.count("video") == 1 and page.tags.count("svg") == 6


def test_hostile_names_are_text(written: str, page: Page):
    assert HOSTILE_SOURCE in page.text and LONG_NAME in page.text and "<i>nothing</i>" in page.text
    assert "<script" not in written and "<i>" not in written and "<again>" not in written


def test_the_parts_stand_in_order(page: Page):
    text = page.text
    marks = [
        HOSTILE_SOURCE, "frame rate", "Command", "python tasks/evaluate.py --src_video",
        "--head_ckpt", "opencv", "seed of the intervals",
        protocol_sentence("self-reenactment"), "Coverage", "hand in front of the mouth", "PSNR, head",
        "Notes", "Over time", "Lip opening and speech", "LMD (px) over time",
        protocol_sentence("dubbing"), "Pictures and videos", "Worst ten frames", "Side by side",
        "What the figures mean", "consent",
    ]  # fmt: skip
    places = []
    for mark in marks:
        places.append(text.find(mark, places[-1] if places else 0))
        assert places[-1] >= 0, mark
    assert all(metric.about in text for metric in METRICS)


def test_figures_intervals_and_reasons(written: str, page: Page):
    assert "∞" in page.text and NO_WEIGHTS in page.text
    assert written.count('<span class="none">not measured</span><sup>') == 7 + 7 + 7 + 1 + 2
    assert written.count('<tr class="result">') == 3 * 2 + 2
    for verdict in ("better", "worse", "undecided"):
        assert f'<span class="mark {verdict}">{verdict}</span></td>' in written
    assert re.search(
        r'<span class="value">31\.\d\d</span><span class="interval">\[\d\d\.\d\d, \d\d\.\d\d\]</span>', written
    )
    assert "dB · higher ↑" in written and "× · nearest 1" in written
    assert not re.search(r'class="(value|interval)">[^<]*-', written)  # a minus, not a hyphen


def test_every_frame_is_accounted_for(written: str):
    counts = re.findall(r'<tr class="(?:edited|left)"><td>[^<]*</td><td>(\d+)</td>', written)
    assert sum(map(int, counts)) == 480
    assert "2480–2488" in written


def test_without_pictures_trials_or_notes(evaluation: Evaluation, tmp_path: Path):
    bare = replace(evaluation, trials=(), sheets=(), clips=(), facts={}, versions={})
    write_report(bare, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Pictures and videos" not in page.text and "What the figures mean" in page.text


def test_a_trial_without_results_has_no_comparison(evaluation: Evaluation, tmp_path: Path):
    trial = evaluation.trials[0]
    references = replace(trial, rows=tuple(row for row in trial.rows if not row.is_result))
    write_report(replace(evaluation, trials=(references,)), tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Against the retrieval baseline" not in page.text and "retrieval baseline" in page.text


def test_every_protocol_has_a_sentence():
    sentences = {protocol_sentence(protocol) for protocol in ("self-reenactment", "dubbing", "leakage")}
    assert len(sentences) == 3
