"""Measure audio → motion on people it never heard: the table of the model card.

Reads: a corpus folder of ``build_av_corpus.py``, the task's configuration, finished folds of a training.
Writes: OUT/evaluation.json and OUT/evaluation.md; with --card also the model card of a checkpoint.
Run: ``bash scripts/evaluate_audio2motion.sh``
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # so that this file runs as a script from anywhere

from data_gen.utils.process_audio.extract_whisper import RATE_HZ, WhisperEncoder  # noqa: E402
from inference.speech_checks import (  # noqa: E402
    language_agreement,
    noisy_features,
    rate_differences,
    set_opening_effect,
)
from modules.audio2motion.model import Audio2Motion  # noqa: E402
from modules.audio2motion.motion_space import speech_envelope  # noqa: E402
from modules.audio2motion.speaker_folds import deal_speakers  # noqa: E402
from modules.audio2motion.speaker_table import VIDEO_SUFFIXES  # noqa: E402
from modules.commons.command import GOES_ON, exit_status  # noqa: E402
from modules.commons.errors import ConfigError  # noqa: E402
from modules.commons.hparams import parse_hparams  # noqa: E402
from modules.commons.progress import ConsoleProgress, Progress  # noqa: E402
from modules.commons.workspace import EGS, FACE_MODEL_FILE, WHISPER_FILE  # noqa: E402
from modules.face_model.model import FaceModel  # noqa: E402
from tasks.audio2motion.adaptation_scores import score_halves  # noqa: E402
from tasks.audio2motion.agreement import Row, ceiling, make_row, silence_figures  # noqa: E402
from tasks.audio2motion.configs import AudioToMotionTaskConfig  # noqa: E402
from tasks.audio2motion.evaluation import last_rendering, other_sound  # noqa: E402
from tasks.audio2motion.fitting import fit_model  # noqa: E402
from tasks.audio2motion.held_out import (  # noqa: E402
    Case,
    Features,
    FoldModel,
    calibrate_folds,
    direct_ridge,
    in_columns,
    load_cases,
    measures_of_units,
    own_sound,
    predict_all,
    train_folds,
)
from tasks.audio2motion.losses import opening_effect  # noqa: E402
from tasks.audio2motion.material import make_material  # noqa: E402
from tasks.audio2motion.model_card import rewrite_card  # noqa: E402
from tasks.audio2motion.result_table import (  # noqa: E402
    Check,
    Evaluation,
    as_json,
    as_markdown,
    silence_checks,
    target_checks,
)
from tasks.audio2motion.validation import Calibration  # noqa: E402
from tasks.configs import load_any  # noqa: E402

logger = logging.getLogger("evaluate_audio2motion")

ENGLISH = "english"
"""Sound files that start so are no foreign language."""
GERMAN_CLIP = "anchor_german"
NOISE_DB = 10.0
ADAPTED: dict[str, float | None] = {
    "anchor_german": 3.0,
    "glasses": 3.0,
    "clinton2": 0.0,
    "moustache": 0.0,
    "address": None,
}
"""Part of a clip's name → points of LMD that adaptation is to gain; None where it must stay off."""
LANGUAGE_GOALS = 0.8, 0.5
RATE_GOAL = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Bench:
    """Everything a row of the table is made from."""

    cases: Sequence[Case]
    folds: Sequence[FoldModel]
    calibrations: dict[int, Calibration]
    face_model: FaceModel
    config: AudioToMotionTaskConfig

    @property
    def kept(self) -> list[int]:
        """Positions of the cases whose sound goes with their mouth."""
        return [index for index, case in enumerate(self.cases) if case.kept]

    def row(self, title: str, units: Sequence[Tensor], *, stretched: bool = True, everything: bool = False) -> Row:
        """A line of the table from predicted units, over the kept clips or over all."""
        models = {fold.fold: fold for fold in self.folds}
        chosen = range(len(self.cases)) if everything else self.kept
        cases = [self.cases[index] for index in chosen]
        measures = [
            measures_of_units(
                self.cases[index],
                units[index],
                models[self.cases[index].fold],
                self.face_model,
                self.calibrations[self.cases[index].fold] if stretched else None,
            )
            for index in chosen
        ]
        return make_row(title, cases, measures)

    def row_of_sound(self, title: str, sound: Features) -> Row:
        """A line of the table from other sound."""
        return self.row(title, predict_all(self.cases, self.folds, sound))

    def ridge(self, title: str, *, energy: bool) -> Row:
        """A yardstick's line."""
        measures = direct_ridge(self.cases, self.folds, self.config, energy=energy)
        kept = self.kept
        return make_row(title, [self.cases[i] for i in kept], [measures[i] for i in kept], has_spread=False)


def set_bench(
    cases: Sequence[Case], work_dir: Path, config: AudioToMotionTaskConfig, progress: Progress
) -> tuple[Bench, list[Tensor]]:
    """The folds' models and their predictions of every clip's own sound."""
    face_model = FaceModel.load(FACE_MODEL_FILE)
    made_for = cases[0].clip.clip.face_model_version
    if made_for != face_model.version:
        raise ConfigError(
            f"{cases[0].name}: fitted with face model {made_for}, this is {face_model.version}; "
            "run data_gen/runs/build_av_corpus.py again"
        )
    folds = train_folds(cases, face_model, config, work_dir, progress)
    units = predict_all(cases, folds, own_sound)
    calibrations = calibrate_folds(cases, units, folds, face_model, config)
    return Bench(cases, folds, calibrations, face_model, config), units


def table_rows(bench: Bench, units: Sequence[Tensor]) -> list[Row]:
    """The table, the model's row first and the row without stretching last."""
    rows = [
        bench.row("model", units),
        bench.row("model, all clips without dropping any", units, everything=True),
        bench.row_of_sound("model, last rendering (equalised, noise of 8 to 25 dB)", last_rendering),
        bench.row_of_sound("model, wrong clip's sound", other_sound),
        bench.ridge("ridge on the same features", energy=False),
        bench.ridge("ridge on loudness", energy=True),
    ]
    again = ceiling([bench.cases[index] for index in bench.kept])
    if again is not None:
        rows.append(again)
    return [*rows, bench.row("model, not stretched", units, stretched=False)]


def check_silence(bench: Bench, units: Sequence[Tensor]) -> list[Check]:
    """Lips where nobody speaks, gated as inference gates them."""
    openings, speech = [], []
    for index in bench.kept:
        case = bench.cases[index]
        calibration = bench.calibrations[case.fold]
        gate = speech_envelope(case.seen.is_speech, case.seen.rate_hz)
        openings.append(gate * (calibration.apply(units[index]) @ calibration.opening_effect).numpy())
        speech.append(case.seen.is_speech)
    widest = [float(np.percentile(opening, 95)) for opening in openings]
    return silence_checks(silence_figures(openings, speech, float(RATE_HZ), lambda index: 0.1 * widest[index]))


def check_german(row: Row) -> list[Check]:
    """The German anchor against the mean of all others."""
    own = [clip.correlation[0] for clip in row.clips if GERMAN_CLIP in clip.name]
    others = [clip.correlation[0] for clip in row.clips if GERMAN_CLIP not in clip.name]
    if not own or not others:
        return []
    lost = float(np.mean(others)) - float(own[0])
    return [Check("German anchor, r of opening (others' mean)", f"{own[0]:.3f} ({np.mean(others):.3f})", "within 0.1",
                  lost <= 0.1)]  # fmt: skip


def check_adaptation(bench: Bench, units: Sequence[Tensor]) -> list[Check]:
    """What a person's own first half is worth on the second, beside the model that never heard the speaker."""
    models = {fold.fold: fold for fold in bench.folds}
    checks = []
    for part, least_gain in ADAPTED.items():
        for index, case in enumerate(bench.cases):
            if part not in case.name:
                continue
            fold = models[case.fold]
            fold.check_never_heard(case.speaker)
            natural = bench.calibrations[case.fold].apply(units[index]).numpy()
            score = score_halves(case.clip.clip, in_columns(case, natural, fold), bench.face_model, fold.columns)
            value = f"{score.general_lmd:+.1f} % → {score.adapted_lmd:+.1f} %, auto {'on' if score.used else 'off'}"
            gain = score.general_lmd - score.auto_lmd
            met = not score.used if least_gain is None else gain >= least_gain
            aim = "auto off" if least_gain is None else f"{least_gain:.0f} points" if least_gain else "never worse"
            checks.append(Check(f"adaptation, LMD of {case.name}", f"{value} ({score.reason})", aim, met))
    return checks


def find_videos(folder: Path, cases: Sequence[Case]) -> dict[str, Path]:
    """The video of every case by its name.

    Raises:
        ConfigError: one is missing.
    """
    found = {p.stem: p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES}
    missing = [case.name for case in cases if case.name not in found]
    if missing:
        raise ConfigError(f"{folder}: has no video of {missing[0]}; check --clips")
    return found


def find_speech(folder: Path) -> list[Path]:
    """Sound files, the English ones first.

    Raises:
        ConfigError: none is English.
    """
    files = sorted(p for p in folder.glob("*") if p.suffix.lower() in (".wav", ".mp3", ".flac", ".m4a"))
    english = [path for path in files if path.stem.startswith(ENGLISH)]
    if not english:
        raise ConfigError(f"{folder}: needs sound files, at least one of them named {ENGLISH}*; check --speech")
    return [*english, *(path for path in files if path not in english)]


def check_noise(bench: Bench, clean: Row, videos: dict[str, Path], encoder: WhisperEncoder) -> list[Check]:
    """Noise of 10 dB on every clip's sound."""
    noisy = bench.row_of_sound("noise", noisy_features(videos, encoder, NOISE_DB))
    checks = []
    for name in ("opening", "width"):
        lost = clean.figures[name].r_mean - noisy.figures[name].r_mean
        checks.append(Check(f"r of {name} lost in noise of {NOISE_DB:.0f} dB", f"{lost:.3f}", "≤ 0.06", lost <= 0.06))
    return checks


def check_speech(
    bench: Bench, files: Sequence[Path], work_dir: Path, encoder: WhisperEncoder, progress: Progress
) -> list[Check]:
    """Rates and layouts on an English file, agreement of two halves of the speakers on the others."""
    effect = opening_effect(bench.face_model)
    first, second = (set_opening_effect(m, effect) for m in _half_models(bench, work_dir, progress))
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, (rms, most) in rate_differences(files[0], first, encoder, Path(folder)).items():
            value = f"{100 * rms:.1f} % (at most {100 * most:.1f} %)"
            checks.append(Check(f"{kind}: motion differs by, rms over range", value, "≤ 2 %", rms <= RATE_GOAL))
    for path in files:
        together, left = language_agreement(path, first, second, encoder)
        is_english = path.stem.startswith(ENGLISH)
        met = None if is_english else together >= LANGUAGE_GOALS[0] and left >= LANGUAGE_GOALS[1]
        aim = "" if is_english else "≥ 0.8, ≥ 0.5"
        checks.append(Check(f"{path.stem}: two halves agree, beyond loudness", f"{together:.2f}, {left:.2f}", aim, met))
    return checks


def _half_models(bench: Bench, work_dir: Path, progress: Progress) -> list[Audio2Motion]:
    """Two models that have no speaker in common."""
    seconds: dict[str, float] = {}
    for index in bench.kept:
        case = bench.cases[index]
        seconds[case.speaker] = seconds.get(case.speaker, 0.0) + len(case.clip) / case.seen.rate_hz
    halves = deal_speakers(seconds, 2)
    models = []
    for half in range(2):
        clips = [bench.cases[i].clip for i in bench.kept if halves[bench.cases[i].speaker] == half]
        material = make_material(clips, bench.face_model, bench.config)
        models.append(fit_model(material, bench.config, work_dir / f"half{half}", progress, f"half {half + 1} of 2"))
    return models


def evaluate(arguments: argparse.Namespace, progress: Progress) -> Evaluation:
    """Everything the command line asks for."""
    config = load_any(arguments.config, parse_hparams(arguments.hparams))
    if not isinstance(config, AudioToMotionTaskConfig) or config.n_folds < 2:
        raise ConfigError(f"{arguments.config}: must be an audio2motion task with n_folds of at least 2")
    torch.set_num_threads(config.threads)
    cases = load_cases(arguments.corpus, config)
    videos = find_videos(arguments.clips, cases) if arguments.clips else {}
    sounds = find_speech(arguments.speech) if arguments.speech else []
    bench, units = set_bench(cases, arguments.work_dir, config, progress)
    rows = table_rows(bench, units)
    checks = target_checks(rows[0], rows[-1]) + check_silence(bench, units) + check_german(rows[0])
    checks += check_adaptation(bench, units)
    encoder = WhisperEncoder(WHISPER_FILE)
    if videos:
        checks += check_noise(bench, rows[0], videos, encoder)
    if sounds:
        checks += check_speech(bench, sounds, arguments.work_dir, encoder, progress)
    speakers = {bench.cases[index].speaker for index in bench.kept}
    return Evaluation(rows, len(bench.kept), len(speakers), checks, arguments.command)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--corpus", type=Path, default=ROOT / "data/audio2motion", help="folder of build_av_corpus.py")
    parser.add_argument("--config", type=Path, default=EGS / "egs_bases/audio2motion/base.yaml")
    parser.add_argument("--hparams", default="", help="configuration overrides: a.b=1,c=2")
    parser.add_argument("--work_dir", type=Path, default=ROOT / "data/training/audio2motion", help="folds' states")
    parser.add_argument("--clips", type=Path, help="the corpus's videos, to measure noise of 10 dB")
    parser.add_argument("--speech", type=Path, help="sound files named by language, to measure languages and rates")
    parser.add_argument("--out", type=Path, default=ROOT / "data/evaluation/audio2motion")
    parser.add_argument("--card", type=Path, help="checkpoint whose MODEL_CARD.md gets the table")
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["scripts/evaluate_audio2motion.sh", *(sys.argv[1:] if argv is None else argv)])
    return exit_status(lambda: _evaluate(arguments), GOES_ON)


def _evaluate(arguments: argparse.Namespace) -> None:
    stored = as_json(evaluate(arguments, ConsoleProgress()))
    _write(arguments.out / "evaluation.json", json.dumps(stored, indent=1) + "\n")
    _write(arguments.out / "evaluation.md", as_markdown(stored))
    if arguments.card:
        rewrite_card(arguments.card, stored)
    sys.stdout.write(as_markdown(stored))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
