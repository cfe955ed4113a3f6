"""The recipe for large corpora, run small: it reads from disk, trains, and holds on speakers left out."""

from __future__ import annotations

import pytest

from modules.commons.checkpoint import load_checkpoint
from modules.commons.progress import silent
from modules.commons.workspace import EGS, FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tasks.audio2motion.train import train
from tasks.configs import load_any
from tests.support.talking_clips import BLOCK_WIDTH, UNITS, talking_clip

RECIPE = EGS / "egs_bases" / "audio2motion" / "large.yaml"
SMALLER = {
    "device": "cpu",
    "threads": "1",
    "max_updates": "120",
    "batch_windows": "6",
    "window_rows": "48",
    "lr": "0.004",
    "ema_decay": "0.9",
    "corpus": "{resident_clips: 6, refresh_clips: 2, probe_clips: 6, held_out_speakers: 2, held_out_clips: 4}",
    "model": f"{{block_width: {BLOCK_WIDTH}, bottleneck: {BLOCK_WIDTH}, units: [{', '.join(UNITS)}], hidden: 16}}",
    "model.vae": "{hidden: 16, latent: 4, encoder_layers: 2, decoder_layers: 2, flow_hidden: 8, flow_layers: 1}",
    "sync": "{hidden: 12, embedding: 8, layers: 1, max_lag_rows: 12, max_updates: 30, lr: 0.002}",
}


def test_the_recipe_asks_for_what_large_corpora_need():
    config = load_any(RECIPE)
    assert config.corpus.resident_clips > 0 and config.n_folds == 0 and config.model.variational == 1
    assert config.ema_decay > 0.99 and config.speed_range > 0
    loss = config.loss
    assert min(loss.variance_weight, loss.closure_weight, loss.kl_weight, loss.sync_weight, loss.velocity_weight) > 0


@pytest.mark.slow
def test_it_trains(tmp_path):
    face_model = FaceModel.load(FACE_MODEL_FILE)
    for seed in range(12):
        folder = tmp_path / "clips" / f"id{seed % 6}"
        folder.mkdir(parents=True, exist_ok=True)
        talking_clip(face_model, seed, speaker=f"id{seed % 6}", noise=0.1).save(folder / f"{seed}.npz")
    config = load_any(RECIPE, {**SMALLER, "clips": f"'{tmp_path / 'clips'}'"})
    train(config, tmp_path / "out", silent, work_dir=tmp_path / "work")
    saved = load_checkpoint(tmp_path / "out")
    assert saved.extra["n_speakers"] == 4
    table = saved.extra["cross_validation"]
    assert table["model"]["opening"]["r_mean"] > 0.6 > table["model, wrong sound"]["opening"]["r_mean"]
