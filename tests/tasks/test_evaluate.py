"""``tasks/evaluate.py`` on a small real trial: the report and its files, and one clear sentence where there is none."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from modules.commons.errors import ConfigError
from modules.structures.evaluation import EDITED, TRIALS, Trial
from modules.video.reader import VideoReader
from modules.video.writer import EncodeConfig, VideoWriter
from tasks import evaluate
from tasks.evaluate import evaluate_trials
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.judge import BASELINE
from tasks.evaluation.metrics import METRICS
from tests.support.small_trial import first_frames, quiet, small_trial
from tests.support.tiny_run import listening

COUNT = 6
COMMAND = "bash scripts/evaluate.sh --src_video 'a clip.mp4' --out report"


@pytest.fixture(scope="module")
def small(tmp_path_factory, demo_dir):
    return small_trial(tmp_path_factory.getbasetemp() / "small_trial")


def quick(folder, **changes) -> EvaluationConfig:
    """A configuration whose networks are nowhere."""
    weights = {"syncnet": folder / "syncnet_v2.model", "lpips_backbone": folder / "alexnet.pth"}
    return EvaluationConfig(**{"draws": 20, "block_s": 0.1, "worst_frames": 2, "seed": 5, **weights, **changes})


def put(trial: Trial, out, name: str) -> Trial:
    """Save a trial where the command looks for it."""
    folder = out / TRIALS / name
    folder.mkdir(parents=True)
    trial.save(folder)
    return trial


def dubbing(small, *rows) -> Trial:
    return first_frames(small.of(*rows, protocol="dubbing"), COUNT)


def flags(out, *more) -> list[str]:
    weights = f"syncnet={out / 'none.model'},lpips_backbone={out / 'none.pth'}"
    return ["--out", str(out), "--hparams", f"draws=20,worst_frames=2,{weights}", *more]


def only_error(out, *more) -> str:
    """What the command says when it fails, which is one sentence."""
    with listening() as said:
        assert evaluate.main(flags(out, *more)) == 1
    (error,) = [text for level, text in said if level == "ERROR"]
    assert error.startswith("error: ") and "\n" not in error and "Traceback" not in error
    assert not (out / "report.html").exists() and not (out / "metrics.json").exists()
    return error


@pytest.fixture(scope="module")
def report(small, tmp_path_factory):
    """Folder, evaluation and messages of a report about two trials."""
    out = tmp_path_factory.mktemp("report")
    ours = replace(small.row("step 1"), name="ours")
    outcomes = (EDITED,) * (COUNT - 1) + ("hand in front",)
    like = first_frames(small.of(ours, replace(small.row("step 2"), name=BASELINE, is_result=False)), COUNT)
    put(replace(like, name="self-reenactment, last 1/11", outcomes=outcomes), out, "last")
    put(replace(dubbing(small, "same"), name="dubbing, other words"), out, "dubbing")
    put(dubbing(small, "same"), out, "no such protocol")
    with listening() as said:
        evaluation = evaluate_trials(out, quick(out), COMMAND, quiet)
    return out, evaluation, said


def no_constant(name: str):
    raise AssertionError(f"{name} is no JSON")


def test_a_report_is_written_beside_its_files(report):
    out, evaluation, _ = report
    assert sorted(path.name for path in out.iterdir()) == [
        "metrics.json", "report.html", "side_by_side_dubbing_1.mp4", "side_by_side_last_1.mp4", "tables.md",
        "worst_dubbing_1.jpg", "worst_last_1.jpg",
    ]  # fmt: skip
    assert [trial.name for trial in evaluation.trials] == ["self-reenactment, last 1/11", "dubbing, other words"]
    assert [file.name for _, file in evaluation.sheets] == ["worst_last_1.jpg", "worst_dubbing_1.jpg"]
    assert [file.name for _, file in evaluation.clips] == ["side_by_side_last_1.mp4", "side_by_side_dubbing_1.mp4"]
    tables = (out / "tables.md").read_text(encoding="utf-8")
    assert all(row.name in tables for trial in evaluation.trials for row in trial.rows)
    with VideoReader(out / "side_by_side_last_1.mp4") as reader:
        assert len(list(reader.frames())) == COUNT


def test_the_page_holds_everything_and_names_the_command(report):
    page = (report[0] / "report.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 2 and page.count("data:video/mp4;base64,") == 2
    assert COMMAND in html.unescape(re.sub(r"<[^>]*>", "", page))
    for text in ("self-reenactment, last 1/11", "dubbing, other words", "hand in front", "ours", BASELINE):
        assert text in page, text
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "nothing is fetched"


def test_metrics_json_is_strict_and_holds_every_figure(report):
    out, evaluation, _ = report
    data = json.loads((out / "metrics.json").read_text(encoding="utf-8"), parse_constant=no_constant)
    assert (data["command"], data["seed"]) == (COMMAND, 5) and data["source"] == str(evaluation.source)
    assert {"python", "torch", "numpy", "torchmetrics"} <= set(data["versions"])
    assert data["facts"]["size"] == "640 x 360"
    assert [metric["key"] for metric in data["metrics"]] == [metric.key for metric in METRICS]
    last, dubbed = data["trials"]
    assert last["coverage"] == {EDITED: COUNT - 1, "hand in front": 1}
    source, ours, _ = last["rows"]
    assert source["measures"]["psnr_edited"]["value"] == "inf" and 30 < ours["measures"]["psnr_edited"]["value"] < 45
    assert ours["verdicts"]["psnr_edited"] == "better" and ours["frames"]["psnr_edited"][-1] is None
    assert str(out / "syncnet_v2.model") in ours["measures"]["lse_c"]["note"]
    assert "psnr_edited" not in dubbed["rows"][0]["measures"]


def test_the_log_shows_a_table_of_each_trial(report):
    tables = [text for level, text in report[2] if level == "INFO" and "PSNR" in text]
    assert len(tables) == 1 and "* ours" in tables[0], "dubbing has no PSNR"
    assert any("dubbing, other words" in text for _, text in report[2])


def test_the_same_seed_gives_the_same_figures(report, small, tmp_path):
    put(replace(dubbing(small, "same"), name="dubbing, other words"), tmp_path, "dubbing")
    evaluate_trials(tmp_path, quick(report[0]), COMMAND, quiet)
    one, other = (
        json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["trials"][-1]["rows"]
        for folder in (report[0], tmp_path)
    )
    assert one == other


@pytest.mark.parametrize("keep", [True, False])
def test_the_command_leaves_the_trials_only_when_asked(small, tmp_path, keep):
    put(dubbing(small, "same"), tmp_path, "dubbing")
    with listening() as said:
        assert evaluate.main(flags(tmp_path, *(["--keep_trials"] if keep else []), "--command", "mine <1>")) == 0
    assert (tmp_path / TRIALS / "dubbing" / "trial.json").is_file() == keep
    assert (tmp_path / TRIALS).exists() == keep
    assert said[-1] == ("INFO", f"report: {tmp_path / 'report.html'}")
    assert "mine &lt;1&gt;" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert small.row("same").pictures.is_file(), "what lies elsewhere stays"


# One clear sentence each.


def test_an_empty_folder(tmp_path):
    assert "holds no trial; make them with bash scripts/evaluate.sh" in only_error(tmp_path)
    with pytest.raises(ConfigError, match="holds no trial"):
        evaluate_trials(tmp_path / "nowhere", quick(tmp_path), COMMAND, quiet)


@pytest.mark.parametrize("kind", ["pictures", "alpha"])
def test_a_result_that_is_shorter_than_the_source(small, tmp_path, kind):
    row = small.row("same")
    file = tmp_path / "short.mkv"
    with (
        VideoReader(getattr(row, kind)) as reader,
        VideoWriter(file, reader.info, quality=EncodeConfig(lossless=True)) as writer,
    ):
        for frame in reader.frames():
            if frame.index < COUNT - 2:
                writer.write(frame)
    put(dubbing(small, replace(row, **{kind: file})), tmp_path, "dubbing")
    error = only_error(tmp_path)
    assert f"short.mkv ends before frame {COUNT - 2} of a few frames of a face" in error
    assert (tmp_path / TRIALS / "dubbing" / "trial.json").is_file(), "a failure leaves the trials"


@pytest.mark.parametrize("missing", ["pictures", "source"])
def test_a_video_that_is_gone(small, tmp_path, missing):
    gone = tmp_path / "gone.mkv"
    trial = dubbing(small, replace(small.row("same"), **({"pictures": gone} if missing == "pictures" else {})))
    put(replace(trial, source=gone) if missing == "source" else trial, tmp_path, "dubbing")
    assert "gone.mkv does not exist" in only_error(tmp_path)


@pytest.mark.parametrize("file", ["trial.json", "tables.npz", "landmarks1.npz"])
@pytest.mark.parametrize("damage", ["cut", "gone", "foreign"])
def test_a_damaged_trial(small, tmp_path, file, damage):
    put(dubbing(small, "same"), tmp_path, "dubbing")
    path = tmp_path / TRIALS / "dubbing" / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "gone":
        path.unlink()
    elif file == "trial.json":
        path.write_text("[]", encoding="utf-8")
    else:
        np.savez(path, something=np.zeros(3))
    error = only_error(tmp_path)
    expected = "holds no trial" if (file, damage) == ("trial.json", "gone") else "delete it and make it again"
    assert expected in error and str(tmp_path / TRIALS) in error


def test_weights_that_are_something_else(small, tmp_path):
    put(dubbing(small, "same"), tmp_path, "dubbing")
    (tmp_path / "none.model").write_bytes(b"no weights")
    assert "none.model: not SyncNet's weights" in only_error(tmp_path)


def test_a_setting_that_does_not_exist(small, tmp_path):
    put(dubbing(small, "same"), tmp_path, "dubbing")
    with listening() as said:
        assert evaluate.main(["--out", str(tmp_path), "--hparams", "drawss=20"]) == 1
    (error,) = [text for level, text in said if level == "ERROR"]
    assert "drawss" in error
