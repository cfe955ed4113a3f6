"""The evaluation's command line, on made-up talkers."""

from __future__ import annotations

import json

import pytest

from inference.evaluate_audio2motion import main
from modules.commons.config import dump_config
from modules.commons.workspace import FACE_MODEL_FILE
from modules.face_model.model import FaceModel
from tests.tasks.audio2motion.test_held_out import CONFIG, write_corpus


@pytest.fixture
def arguments(tmp_path):
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write_corpus(corpus, FaceModel.load(FACE_MODEL_FILE))
    (tmp_path / "task.yaml").write_text(dump_config(CONFIG))
    places = {
        "corpus": corpus,
        "config": tmp_path / "task.yaml",
        "work_dir": tmp_path / "work",
        "out": tmp_path / "out",
    }
    return [part for name, place in places.items() for part in (f"--{name}", str(place))]


def test_one_command_measures_everything(arguments, tmp_path, capsys):
    card = tmp_path / "checkpoint"
    card.mkdir()
    (card / "MODEL_CARD.md").write_text("# Card\n\n## Error on speakers left out\n\nancient\n\n## Limits\n")
    assert main([*arguments, "--card", str(card)]) == 0
    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    titles = [row["title"] for row in stored["rows"]]
    assert titles[0] == "model" and "ridge on loudness" in titles and titles[-1] == "model, not stretched"
    by_title = {row["title"]: row for row in stored["rows"]}
    assert by_title["model"]["measures"]["opening"]["r_mean"] > 0.7
    assert abs(by_title["model, wrong clip's sound"]["measures"]["opening"]["r_mean"]) < 0.5
    assert len(by_title["model, all clips without dropping any"]["clips"]) == 5 == len(by_title["model"]["clips"]) + 1
    assert stored["clips"] == 4 and stored["speakers"] == 4
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert text in capsys.readouterr().out
    assert "ancient" not in (card / "MODEL_CARD.md").read_text() and text in (card / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--hparams", "n_folds=0"], "n_folds of at least 2"),
        (["--corpus", "nowhere"], "no prepared talking clips"),
        (["--clips", "."], "has no video of"),
        (["--speech", "."], "needs sound files"),
    ],
)
def test_errors_are_one_sentence(arguments, tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, *more]) == 1
    error = capsys.readouterr().err.strip().splitlines()
    assert words in error[-1]
    assert not (tmp_path / "out").exists()
