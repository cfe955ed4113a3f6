"""An evaluation from end to end: every row of every protocol, held-out people, finished results, the report."""

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import make_trials as command
from inference.evaluation import protocols
from inference.evaluation.motion import own_speech
from inference.evaluation.persons import FOLDS, GUARD_S, fold_persons, usual_person
from inference.evaluation.protocols import self_reenactment
from inference.evaluation.results import LEFT_ALONE, ONLY_SHOWN, WITHOUT_MASKS
from inference.evaluation.transfer import LATE_S
from inference.evaluation.trials import MADE_FROM
from inference.genefacepp_infer_arbitrary import main as infer
from inference.identity import find_identity
from inference.jobs import EvaluationJob
from inference.make_trials import make_trials
from inference.prepared import open_source
from modules.commons.config import load_config
from modules.commons.errors import ConfigError
from modules.commons.progress import silent
from modules.metrics.seams import JAW_AGREES_PX
from modules.structures.dataset import NeRFDataset, block_folds
from modules.structures.evaluation import EDITED, Trial
from modules.structures.spans import Reason
from modules.structures.transfer import TRANSFER_FILE, UNTOUCHED
from tasks import evaluate as measuring
from tasks.evaluate import DEFAULT_CONFIG, evaluate_trials
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.reading import row_frames
from tests.support.spoken_clip import FRAMES, PRESET, SIZE_WH, spoken_clip, with_sound
from tests.support.tiny_run import (
    DEMO,
    all_frames,
    cut,
    listening,
    own_folders,
    tiny_run,
    write_wav,
)

COUNT = FRAMES[1] - FRAMES[0]
HELD_OUT = [30, 31, 32]
"""The last eleventh of the spoken clip; its last frame is black."""
LOST = "face lost"
"""Of the black frame."""
COMMAND = "bash scripts/evaluate.sh --src_video 'a clip.mp4' --out <somewhere>"
REFERENCE_ROWS = {
    "ground truth", "landmark-driven", "audio-driven", "retrieval", "retrieval, audio-driven", "static mean mouth",
    "closed mouth", "speech shifted by 2 s", "previous true frame",
}  # fmt: skip
DUBBING_ROWS = ["source", "dubbed", "retrieval", "static mean mouth", "closed mouth", "speech shifted by 2 s"]


@dataclass(frozen=True)
class Spoken:
    """A small clip with speech, its person, and its evaluation in all protocols but the folds."""

    root: Path
    clip: Path
    speech: Path
    foreign: Path
    job: EvaluationJob
    made: list[Path]

    @property
    def out(self) -> Path:
        return self.job.out

    @property
    def identity(self) -> Path:
        (found,) = (self.root / "identities").iterdir()
        return found

    def trial(self, name):
        return Trial.load(self.job.trials / name)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory, demo_dir):
    root = tmp_path_factory.mktemp("spoken")
    whole = load_audio_16k(DEMO / "obama_speech.wav")
    speech = write_wav(root / "speech.wav", cut(whole, 0.9, 2.6))
    foreign = write_wav(root / "foreign.wav", cut(whole, 3.0, 3.3))
    (root / "preset.yaml").write_text(PRESET)
    clip = spoken_clip(root / "clip.mp4", speech)
    job = EvaluationJob(
        clip, root / "report", drv_aud=(foreign,), mode="audio", folds=False, config=root / "preset.yaml", device="cpu"
    )
    with own_folders(root), pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "LEAKAGE_S", 0.25)
        made = make_trials(job, silent)
        evaluate_trials(job.out, config(), COMMAND, silent, keep_trials=True)
    return Spoken(root, clip, speech, foreign, job, made)


@pytest.fixture(scope="module")
def source(spoken):
    with own_folders(spoken.root):
        return open_source(spoken.clip, silent)


@pytest.fixture(scope="module")
def metrics(spoken):
    return read_metrics(spoken.out)


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


def config():
    return load_config(DEFAULT_CONFIG, EvaluationConfig, {"draws": "20", "worst_frames": "2"})


def read_metrics(out):
    return json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def trial_of(metrics, name):
    (found,) = [trial for trial in metrics["trials"] if trial["name"] == name]
    return found


def row_of(trial, name):
    (found,) = [row for row in trial["rows"] if row["name"] == name]
    return found


def value_of(trial, row, key):
    return row_of(trial, row)["measures"][key]["value"]


# ---- all protocols ----


def test_every_protocol_makes_its_trial(spoken, metrics):
    assert [folder.name for folder in spoken.made] == ["last", "dubbing", "leakage"]
    assert sorted(p.name for p in spoken.job.trials.iterdir()) == ["dubbing", "last", "leakage", TRANSFER_FILE]
    assert [(t["name"], t["protocol"]) for t in metrics["trials"]] == [
        ("last eleventh", "self-reenactment"), ("dubbing", "dubbing"), ("leakage", "leakage"),
    ]  # fmt: skip


def test_frames_under_other_frames_motion_are_in_the_report(spoken, metrics):
    """Of its three held-out frames none has another 0.2 s after it: that is said, too."""
    rows = {(score["late_s"], score["row"], score["frames"]) for score in metrics["transfer"]}
    assert rows == {(late, row, 0) for late in LATE_S for row in (UNTOUCHED, "delta", "alpha")}
    page, table = ((spoken.out / name).read_text(encoding="utf-8") for name in ("report.html", "tables.md"))
    for text in (page, table):
        assert "0.5 s later" in text and text.count("no comparable frame") == 9


def test_every_speech_is_a_dubbing_of_its_own(spoken, monkeypatch):
    job = replace(spoken.job, out=spoken.root / "two", drv_aud=(spoken.foreign, spoken.speech))
    shutil.copytree(spoken.job.trials, job.trials)
    painted = []

    def paint(job, source, person, heard, folder, progress, name):
        folder.mkdir()
        painted.append((folder.name, name, round(heard[0].duration_s, 1)))
        return folder

    monkeypatch.setattr(command, "dubbing", paint)
    with own_folders(spoken.root), listening() as said:
        made = make_trials(job, silent)
    assert [folder.name for folder in made] == ["last", "dubbing", "dubbing_2", "leakage"]
    assert painted == [("dubbing_2", "dubbing, speech", 1.7)], "the first speech has been painted"
    assert sum(text.endswith("is there already") for _, text in said) == 3
    with pytest.raises(ConfigError, match="10 speeches, but 9"):
        make_trials(replace(job, drv_aud=(spoken.foreign,) * 10), silent)
    with pytest.raises(ConfigError, match="2 speeches, but 1"):
        make_trials(replace(job, result=spoken.clip), silent)


def test_a_result_stands_beside_every_reference_row(metrics):
    trial = trial_of(metrics, "last eleventh")
    names = [row["name"] for row in trial["rows"]]
    assert names[0] == "ground truth" and set(names) == REFERENCE_ROWS and len(names) == len(REFERENCE_ROWS)
    assert {row["name"] for row in trial["rows"] if row["is_result"]} == {"landmark-driven", "audio-driven"}
    for row in trial["rows"]:
        measured = {key for key, measure in row["measures"].items() if measure["value"] is not None}
        assert {"psnr_edited", "psnr_mouth", "psnr_crop", "ssim_edited", "lmd", "exp_lower"} <= measured, row["name"]
        assert all(m["note"] for m in row["measures"].values() if m["value"] is None), "a gap without its reason"


def test_the_truth_is_perfect_and_nothing_else_is(metrics):
    trial = trial_of(metrics, "last eleventh")
    assert value_of(trial, "ground truth", "psnr_edited") == "inf" and value_of(trial, "ground truth", "lmd") == 0
    assert value_of(trial, "ground truth", "inexact") == 0
    for name in REFERENCE_ROWS - {"ground truth"}:
        assert value_of(trial, name, "psnr_edited") < 60 and value_of(trial, name, "lmd") > 0.05, name


def test_coverage_adds_up_and_says_why(metrics):
    for trial in metrics["trials"]:
        assert sum(trial["coverage"].values()) == len(trial["frames"]) == len(trial["outcomes"])
    assert trial_of(metrics, "last eleventh")["coverage"] == {EDITED: 2, LOST: 1}
    for row in trial_of(metrics, "last eleventh")["rows"]:
        assert row["measures"]["psnr_edited"]["count"] == 2, "a frame without a face is in no mean"
        assert row["frames"]["psnr_edited"][2] is None


def test_only_held_out_frames_are_tested(spoken, metrics, source):
    trial = trial_of(metrics, "last eleventh")
    assert trial["frames"] == HELD_OUT and trial["block"] == [0, 0, 0]
    dataset = NeRFDataset.load(source.workspace.dataset)
    assert dataset.rows[dataset.is_train].max() < HELD_OUT[0]
    assert (
        find_identity(source.sha256, source.face_model.version, None, 0, spoken.root / "identities") == spoken.identity
    )


def test_the_speech_of_a_trial_begins_with_the_first_frame(spoken):
    said = load_audio_16k(spoken.speech).samples
    for name in ("last", "dubbing"):
        wanted = said if name == "last" else load_audio_16k(spoken.foreign).samples
        heard = spoken.trial(name).speech.sound.samples
        length = min(len(heard), len(wanted))
        assert length > 0.25 * 16000 and np.corrcoef(heard[:length], wanted[:length])[0, 1] > 0.98
    assert spoken.trial("leakage").speech is None


def test_audio_driven_rows_are_driven_by_the_sound_and_landmark_driven_ones_are_not(spoken, source):
    trial = spoken.trial("last")
    driving = {row.name: row.driving_opening for row in trial.rows}
    for name in ("ground truth", "retrieval", "retrieval, audio-driven", "previous true frame"):
        assert driving[name] is None
    assert driving["landmark-driven"].max() < 0.03 < driving["audio-driven"].max(), "her own lips are shut"
    assert np.ptp(driving["closed mouth"]) < 0.01 and np.ptp(driving["static mean mouth"]) < 0.01
    assert not np.allclose(driving["audio-driven"], driving["speech shifted by 2 s"], atol=0.02)


def test_dubbing_has_no_truth_and_says_so(metrics):
    trial = trial_of(metrics, "dubbing")
    assert [row["name"] for row in trial["rows"]] == DUBBING_ROWS
    assert trial["frames"] == list(range(8)), "as long as the speech"
    assert trial["coverage"] == {EDITED: 8} and trial["notes"]
    for row in trial["rows"]:
        assert not {key for key in row["measures"] if key.startswith(("psnr", "ssim", "lmd", "exp_"))}
    assert value_of(trial, "dubbed", "inexact") == 0


def test_leakage_is_dubbed_with_silence_and_with_speech_reversed(metrics, spoken):
    trial = trial_of(metrics, "leakage")
    assert [(row["name"], row["is_result"]) for row in trial["rows"]] == [
        ("source", False), ("dubbed with silence", True), ("dubbed with reversed speech", True),
    ]  # fmt: skip
    assert trial["frames"] == list(range(6)) and trial["notes"] == []
    for row in trial["rows"][1:]:
        assert {"leak_r", "leak_band"} <= set(row["measures"])
    _, silence, backwards = spoken.trial("leakage").rows
    assert np.ptp(silence.driving_opening) < 0.01 < np.ptp(backwards.driving_opening)


def test_the_report_needs_nothing_but_itself(spoken, metrics):
    page = (spoken.out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page and 'src="http' not in page and "@import" not in page
    for text in (*REFERENCE_ROWS, *DUBBING_ROWS, "dubbed with reversed speech", LOST):
        assert text in page
    assert "&lt;somewhere&gt;" in page and "data:video/mp4;base64," in page and "<svg" in page
    assert metrics["command"] == COMMAND and metrics["seed"] == EvaluationConfig().seed
    assert metrics["source"] == str(spoken.clip) and metrics["versions"]["torch"]
    names = {path.name for path in spoken.out.iterdir()}
    assert {"side_by_side_last_1.mp4", "worst_last_1.jpg", "side_by_side_dubbing_1.mp4"} <= names
    assert len(all_frames(spoken.out / "side_by_side_last_1.mp4")) == len(HELD_OUT)


def test_an_interrupted_evaluation_goes_on_from_what_is_there(spoken):
    """Nothing is painted twice, and what another command left is not mixed in."""
    job = replace(spoken.job, out=spoken.root / "again")
    shutil.copytree(spoken.job.trials, job.trials)
    (job.trials / "folds").mkdir()
    before = {path: path.stat().st_mtime_ns for path in job.trials.rglob("*.mkv")}
    with own_folders(spoken.root), listening() as said:
        made = make_trials(job, silent)
    assert [folder.name for folder in made] == ["last", "dubbing", "leakage"]
    assert sum(text.endswith("is there already") for _, text in said) == 3
    assert {path: path.stat().st_mtime_ns for path in job.trials.rglob("*.mkv")} == before
    assert not (job.trials / "folds").exists()
    assert not any("training" in text for _, text in said), "the person is found again"


def test_the_renderer_alone_by_the_command_line(spoken, caplog):
    """Without speech: tracked motion drives, and what is missing is said."""
    out = spoken.root / "landmark"
    flags = ["--mode", "landmark", "--no_folds", "--head_ckpt", spoken.identity, "--device", "cpu"]
    arguments = ["--src_video", spoken.clip, "--out", out, *flags]
    with own_folders(spoken.root), pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "LEAKAGE_S", 0.1)
        assert command.main([str(argument) for argument in arguments]) == 0
    assert measuring.main(["--out", str(out), "--hparams", "draws=20,worst_frames=1", "--command", COMMAND]) == 0
    made = read_metrics(out)
    last, leakage = made["trials"]
    speechless = {"audio-driven", "retrieval, audio-driven", "speech shifted by 2 s"}
    assert {row["name"] for row in last["rows"]} == REFERENCE_ROWS - speechless | {"motion shifted by 2 s"}
    assert [note for note in last["notes"] if note.startswith("Audio-driven rows: not measured")]
    assert [row["name"] for row in leakage["rows"]] == ["source", "dubbed with silence"]
    assert leakage["notes"] and "reversed speech: not measured" in leakage["notes"][0]
    assert (out / "report.html").is_file() and not (out / "trials").exists(), "trials are large and are not kept"
    assert last["speech"] is None


# ---- folds ----


@pytest.fixture(scope="module")
def folds(spoken, source):
    with own_folders(spoken.root):
        usual = usual_person(spoken.job, source, silent)
        return usual, fold_persons(usual, source, silent)


def test_no_fold_has_seen_its_frames_or_their_neighbours(folds, source):
    _, persons = folds
    splits = block_folds(source.times_s, FOLDS, GUARD_S)
    assert len(persons) == len(splits) == FOLDS == 5
    tested = np.sum([person.split.is_held_out for person in persons], axis=0)
    assert tested.tolist() == [1] * COUNT, "every frame is tested once"
    for person, split in zip(persons, splits, strict=True):
        np.testing.assert_array_equal(person.split.is_held_out, split.is_held_out)
        held_out_s = source.times_s[split.is_held_out]
        learnt_s = source.times_s[person.dataset.rows]
        assert np.abs(learnt_s[:, None] - held_out_s).min() >= GUARD_S
        stored = {int(path.stem) for path in person.dataset.crops_dir.glob("*.jpg")}
        assert stored == set(person.dataset.rows.tolist()), "no crop of another frame lies about"


def test_people_of_folds_are_no_identities(folds, spoken, source):
    usual, persons = folds
    assert [path for path in (spoken.root / "identities").iterdir()] == [usual.checkpoint]
    assert len({person.checkpoint for person in persons}) == FOLDS
    for person in persons:
        assert person.checkpoint.is_relative_to(source.workspace.data_root / "evaluation")
    assert (
        find_identity(source.sha256, source.face_model.version, None, 0, spoken.root / "identities") == usual.checkpoint
    )


def test_finished_people_of_folds_are_found_again(folds, spoken, source):
    usual, persons = folds
    before = [(p.checkpoint / "model.safetensors").stat().st_mtime_ns for p in persons]
    crops = [p.dataset.crop_path(0).stat().st_mtime_ns for p in persons]
    with own_folders(spoken.root), listening() as said:
        again = fold_persons(usual, source, silent)
    assert not [text for _, text in said if "training" in text]
    assert [(p.checkpoint / "model.safetensors").stat().st_mtime_ns for p in again] == before
    assert [p.dataset.crop_path(0).stat().st_mtime_ns for p in again] == crops


def test_every_fold_is_played_by_the_person_that_has_not_seen_it(folds, spoken, source, tmp_path):
    """One frame of each fold is painted."""
    _, persons = folds
    few = []
    for person in persons:
        is_held_out = np.zeros(COUNT, bool)
        is_held_out[np.flatnonzero(person.split.is_held_out)[2]] = True
        few.append(replace(person, split=replace(person.split, is_held_out=is_held_out)))
    self_reenactment("five folds", spoken.job, source, few, None, tmp_path / "folds", silent, ())
    trial = Trial.load(tmp_path / "folds")
    assert trial.block.tolist() == [0, 1, 2, 3, 4] and trial.outcomes == (EDITED,) * FOLDS
    assert trial.frames.tolist() == [2, 9, 16, 22, 29]
    swapped = [replace(person, split=own.split) for person, own in zip(reversed(few), few, strict=True)]
    self_reenactment("five folds", spoken.job, source, swapped, None, tmp_path / "swapped", silent, ())
    pairs = zip(
        pictures(trial, "landmark-driven"), pictures(Trial.load(tmp_path / "swapped"), "landmark-driven"), strict=True
    )
    assert [np.array_equal(a, b) for a, b in pairs] == [False, False, True, False, False]


def pictures(trial, name):
    """What a row shows, frame by frame."""
    (row,) = [row for row in trial.rows if row.name == name]
    return [shown.rgb for shown in row_frames(trial, row) if shown is not None]


@pytest.mark.slow
def test_the_whole_clip_in_five_folds(spoken, tmp_path):
    job = replace(spoken.job, out=tmp_path / "report", folds=True, drv_aud=())
    with own_folders(spoken.root), pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocols, "LEAKAGE_S", 0.1)
        made = make_trials(job, silent)
        evaluate_trials(job.out, config(), COMMAND, silent)
    assert [folder.name for folder in made] == ["last", "folds", "leakage"]
    trial = trial_of(read_metrics(job.out), "five folds")
    assert trial["frames"] == list(range(COUNT)) and trial["block"] == sorted(trial["block"])
    assert {row["name"] for row in trial["rows"]} == REFERENCE_ROWS
    assert trial["coverage"] == {EDITED: COUNT - 1, LOST: 1}
    assert value_of(trial, "landmark-driven", "inexact") == 0


# ---- finished results ----


def test_a_finished_result_is_measured_with_its_masks(run, tmp_path):
    out = tmp_path / "report"
    arguments = ["--src_video", run.clip, "--out", out, "--result", run.out, "--masks", run.masks]
    before = digest(run.out), digest(run.masks)
    with own_folders(run.root):
        assert command.main([str(argument) for argument in arguments]) == 0
    evaluate_trials(out, config(), COMMAND, silent, keep_trials=True)
    assert (digest(run.out), digest(run.masks)) == before
    (trial,) = read_metrics(out)["trials"]
    assert [row["name"] for row in trial["rows"]] == ["source", "result", "speech shifted by 2 s"]
    masked = sum(bool(mask.planes[0].any()) for mask in all_frames(run.masks))
    left_alone = {reason: count for reason, count in trial["coverage"].items() if reason != EDITED}
    assert trial["coverage"][EDITED] == masked
    assert sum(left_alone.values()) == len(all_frames(run.clip)) - masked
    assert set(left_alone) <= {LEFT_ALONE, Reason.COVERED, Reason.UNSURE}, "by the result's masks, or by the source"
    result = row_of(trial, "result")["measures"]
    assert result["inexact"]["value"] == 0 and result["inexact"]["count"] == sum(trial["coverage"].values())
    assert 0.5 < result["jitter"]["value"] < 2 and result["flicker"]["value"] > 0
    assert WITHOUT_MASKS not in trial["notes"]
    made = Trial.load(out / "trials" / "dubbing")
    seen = made.rows[0].landmarks.valid & made.rows[1].landmarks.valid
    gap = made.rows[1].jaw_gap_px
    assert gap is not None and np.array_equal(np.isfinite(gap), seen), "where jaws disagree, no colour is compared"
    assert result["delta_e"]["count"] <= int((gap[seen] <= JAW_AGREES_PX).sum()) and ONLY_SHOWN in trial["notes"]
    assert made.speech is not None
    heard, said = made.speech.sound.samples, load_audio_16k(run.speech).samples
    assert np.corrcoef(heard[: len(said)], said)[0, 1] > 0.98, "its own sound is what it should say"


def test_the_sound_of_a_result_is_heard_on_its_pictures_clock(run, spoken, source, tmp_path):
    """Sound that begins before the picture does is not taken for late lips; without masks nothing is known of edits."""
    early = with_sound(spoken.clip, tmp_path / "early.mp4", spoken.speech, Fraction(0))
    job = EvaluationJob(spoken.clip, tmp_path / "report", result=early)
    (job.trials / "dubbing").mkdir(parents=True)
    (job.trials / "dubbing" / MADE_FROM).write_text("{}")
    with own_folders(spoken.root):
        (folder,) = make_trials(job, silent)
    trial = Trial.load(folder)
    expected = own_speech(early).samples
    assert trial.speech is not None
    np.testing.assert_allclose(trial.speech.sound.samples, expected, atol=1e-4)
    assert len(expected) / 16000 < load_audio_16k(early).duration_s - 0.3
    assert trial.outcomes == (EDITED,) * (COUNT - 1) + (LOST,) and WITHOUT_MASKS in trial.notes
    assert not (folder / MADE_FROM).exists(), "a result's trial is nothing that an interrupted command could go on from"


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- the report of a job ----


def test_a_job_writes_its_report_and_the_same_result(spoken, tmp_path):
    """Eight frames, once with a report and once without."""
    reports = tmp_path / "reports"
    (reports / "trials" / "last").mkdir(parents=True)  # an evaluation that was broken off
    (reports / "trials" / "last" / "trial.json").write_text("{}")
    job = ["--src_video", spoken.clip, "--drv_aud", spoken.foreign, "--length", "shortest", "--device", "cpu"]
    with own_folders(spoken.root):
        plain, told = tmp_path / "plain" / "out.mp4", tmp_path / "told" / "out.mp4"
        assert infer([str(a) for a in [*job, "--out_name", plain]]) == 0
        assert infer([str(a) for a in [*job, "--out_name", told, "--report", reports]]) == 0
    assert digest(told) == digest(plain)
    assert [p.name for p in told.parent.iterdir()] == [p.name for p in plain.parent.iterdir()]
    (trial,) = read_metrics(reports)["trials"]
    assert trial["protocol"] == "dubbing" and trial["coverage"] == {EDITED: 8}
    result = row_of(trial, "result")["measures"]
    assert result["area"]["value"] > 0 and result["r_driving"]["note"] is not None
    assert result["inexact"]["value"] > 0, "an encoded result shows its codec"
    record = json.loads(told.with_name("out.mp4.json").read_text(encoding="utf-8"))
    assert record["seconds_per_stage"]["edit"] > 0, "the record is there before the report"
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert "speech shifted by 2 s" in page and not (reports / "trials").exists()
    assert record["frame_size"] == list(SIZE_WH)
