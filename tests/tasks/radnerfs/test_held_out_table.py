"""The held-out table, and ``evaluate``, which writes its figures and strips to files."""

from __future__ import annotations

import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch

from modules.commons.errors import CheckpointError
from modules.commons.progress import silent
from tasks.radnerfs.evaluate import evaluate
from tasks.radnerfs.held_out_table import (
    MATCHED,
    METHODS,
    RENDERED,
    RETRIEVAL,
    STILL,
    UNSHARPENED,
    HeldOutTable,
    Likeness,
    held_out_table,
)
from tasks.radnerfs.radnerf import RADNeRFTask, load_dataset
from tests.support.synthetic_clip import prepare_synthetic_clip
from tests.support.tiny_heads import tiny_config


@pytest.fixture(scope="module")
def person_and_clip(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    _, speaker = prepare_synthetic_clip(root)
    config = tiny_config(root)
    dataset = load_dataset(config, speaker.model, silent)
    task = RADNeRFTask(config, dataset, torch.device("cpu"))
    person = task.averaged()
    with torch.no_grad():  # any texture will do
        person.radnerf.position_embedder.embeddings.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))
    person.sharpen_share.fill_(0.6)
    return dataset, person, root


@pytest.fixture(scope="module")
def table(person_and_clip):
    dataset, person, _ = person_and_clip
    return held_out_table(dataset, person, silent, workers=2, pictures=dataset.source.rows[dataset.val_indices[:1]])


def test_the_evaluation_writes_the_figures_down(person_and_clip, table):
    dataset, person, root = person_and_clip
    scores = evaluate(dataset, person, root / "evaluation", silent, pictures=1)
    assert json.loads((root / "evaluation" / "scores.json").read_text()) == asdict(scores)
    assert list(table.rows) == list(METHODS) and table.frames == scores.frames
    both = (
        (RENDERED, scores.psnr, scores.psnr_mouth),
        (RETRIEVAL, scores.retrieval_psnr, scores.retrieval_psnr_mouth),
        (MATCHED, scores.matched_retrieval_psnr, scores.matched_retrieval_psnr_mouth),
        (STILL, scores.mean_psnr, scores.mean_psnr_mouth),
    )
    for name, edited, mouth in both:
        assert (table.rows[name].psnr_edited, table.rows[name].psnr_mouth) == pytest.approx((edited, mouth))
    assert table.rows[RENDERED].sharpness == pytest.approx(scores.sharpness)
    assert table.rows[RETRIEVAL].sharpness == pytest.approx(scores.retrieval_sharpness)
    (row,) = table.pictures
    written = cv2.imread(str(root / "evaluation" / f"{row:06d}.png"))
    np.testing.assert_array_equal(written[..., ::-1], table.pictures[row])


def test_sharpening_shows_and_leaves_the_person_alone(person_and_clip, table):
    found = table.rows
    assert found[UNSHARPENED].sharpness < found[RENDERED].sharpness
    assert float(person_and_clip[1].sharpen_share) == pytest.approx(0.6)


def test_the_crop_counts_what_is_untouched(table):
    for likeness in table.rows.values():
        assert likeness.psnr_crop > likeness.psnr_edited > likeness.psnr_mouth - 20
        assert -1 <= likeness.ssim_edited <= 1


def test_strips_and_text(table):
    (strip,) = table.pictures.values()
    assert strip.dtype == np.uint8 and strip.ndim == 3 and (strip[:, -1] != 255).any()
    lines = str(HeldOutTable(1, {RENDERED: Likeness(30.123, 25.0, 40.0, 0.95, 0.9)})).splitlines()
    assert lines[-1] == "| landmark-driven | 30.12 | 25.00 | 40.00 | 0.9500 | 0.90 |"
    assert len(str(table).splitlines()) == 2 + len(METHODS)


def test_a_clip_without_held_out_frames_is_refused(person_and_clip, monkeypatch):
    dataset, person, _ = person_and_clip
    monkeypatch.setattr(dataset, "val_indices", dataset.val_indices[:0])
    with pytest.raises(CheckpointError, match="no held-out frame"):
        held_out_table(dataset, person, silent)


def test_strips_of_rows_without_retrieval_lack_its_panel(person_and_clip, table):
    dataset, person, _ = person_and_clip
    (row,) = table.pictures
    found = held_out_table(dataset, person, silent, methods=[RENDERED], pictures=[row])
    (strip,) = found.pictures.values()
    assert list(found.rows) == [RENDERED] and found.rows[RENDERED] == table.rows[RENDERED]
    np.testing.assert_array_equal(strip, table.pictures[row][:, : strip.shape[1]])


def test_a_frame_that_fails_ends_the_scoring(person_and_clip, monkeypatch):
    dataset, person, _ = person_and_clip
    begun: list[int] = []

    def fails(dataset, person, index):
        begun.append(index)
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.radnerfs.held_out_table.render_stored_frame", fails)
    monkeypatch.setattr(dataset, "val_indices", np.repeat(dataset.val_indices, 500))
    with pytest.raises(KeyboardInterrupt):
        held_out_table(dataset, person, silent)
    assert len(begun) < 1000
