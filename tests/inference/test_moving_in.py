"""Who comes from GeneFace++ finds its flags, commands and keys: ``.github/MIGRATING.md`` says nothing untrue."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from data_gen.runs import process_video
from data_gen.runs.process_config import ProcessVideoConfig
from inference import genefacepp_infer, genefacepp_infer_arbitrary
from inference.jobs import END_THRESHOLD, FAST_END_THRESHOLD
from modules.commons.config import load_config
from modules.commons.errors import ConfigError
from modules.commons.hparams import parse_hparams
from modules.commons.workspace import ROOT
from tasks import download_models, import_geneface
from tasks import run as tasks_run
from tasks.configs import load_any
from tests.modules.radnerfs import golden

GUIDE = ROOT / ".github" / "MIGRATING.md"
TEXT = GUIDE.read_text(encoding="utf-8")
BLOCKS = [line for block in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL) for line in block.splitlines()]
COMMANDS = [*BLOCKS, *re.findall(r"`((?:python|bash) [^`]+)`", TEXT)]
HEARD, SEEN = "data/raw/val_wavs/MacronSpeech.wav", ("in.mp4", "data/raw/videos/May.mp4")
FOLDERS = (
    "checkpoints/audio2motion_vae", "checkpoints/motion2video_nerf/may_torso", "checkpoints/May/lm3d_radnerf_torso_sr",
    "data/binary/videos/May",
)  # fmt: skip


def parse_run(argv: Sequence[str]) -> Any:
    """The command line of ``tasks/run.py``, and the configuration that it names."""
    arguments = tasks_run.parse_arguments(argv)
    if arguments.config is not None:
        load_any(arguments.config, parse_hparams(arguments.hparams))
    return arguments


def parse_process(argv: Sequence[str]) -> Any:
    """The command line of ``process_video.py``, and the stage that it names."""
    arguments = process_video.parse_arguments(argv)
    load_config(arguments.config, ProcessVideoConfig, parse_hparams(arguments.hparams))
    stages = process_video.PORTRAIT_STAGES if arguments.portrait else process_video.STAGES
    return process_video.select_stages(arguments.first, arguments.only, stages)


def parse_download(argv: Sequence[str]) -> Any:
    arguments = download_models.parse_arguments(argv)
    return download_models.chosen_sets(download_models.load_downloads(), arguments.names)


PARSERS: dict[str, Callable[[Sequence[str]], Any]] = {
    "inference/genefacepp_infer.py": genefacepp_infer.parse_arguments,
    "inference/genefacepp_infer_arbitrary.py": genefacepp_infer_arbitrary.parse_arguments,
    "tasks/run.py": parse_run,
    "tasks/import_geneface.py": import_geneface.parse_arguments,
    "tasks/download_models.py": parse_download,
    "data_gen/runs/process_video.py": parse_process,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Scripts, configurations and empty inputs, and a stand-in for Python that writes down what it is given."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("scripts", "egs"):
        shutil.copytree(ROOT / name, root / name)
    for folder in FOLDERS:
        (root / folder).mkdir(parents=True)
    for file in (HEARD, "speech.wav", *SEEN):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    stand_in = root / "python"
    stand_in.write_text('#!/usr/bin/env bash\n{ printf \'%q \' "$@"; echo; } >>"$CALLS"\n')
    stand_in.chmod(0o755)
    return root


def calls_of(script: str, arguments: Sequence[str], tree: Path) -> list[list[str]]:
    """What a script gives to Python."""
    calls = tree / "calls"
    calls.write_text("")
    environment = {"PATH": os.environ["PATH"], "PYTHON": str(tree / "python"), "CALLS": str(calls)}
    command = ["bash", str(tree / script), *arguments]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in calls.read_text().splitlines()]


def check(call: Sequence[str], tree: Path) -> None:
    """A call of Python: the file is one of ours, and its parser takes the rest."""
    file = str(Path(call[0]).relative_to(tree)) if Path(call[0]).is_absolute() else call[0]
    assert (ROOT / file).is_file(), file
    assert PARSERS[file](list(call[1:])) is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_guide_is_taken(command, tree, monkeypatch):
    monkeypatch.chdir(tree)
    program, file, *arguments = shlex.split(command)
    if program == "python":
        check([file, *arguments], tree)
    elif file != "scripts/setup.sh":
        calls = calls_of(file, arguments, tree)
        assert calls
        for call in calls:
            check(call, tree)


def test_the_guide_is_complete_and_short():
    assert len(TEXT.splitlines()) <= 200 and len(COMMANDS) > 15
    scripts = set(re.findall(r"scripts/\w+\.sh", TEXT))
    assert {f"scripts/{name}.sh" for name in ("process_video", "train_head", "train_torso", "infer")} <= scripts
    for name in re.findall(r"`((?:egs|scripts|inference|tasks|modules|tests)/[\w./]+\w)[` ]", TEXT):
        assert (ROOT / name).exists() or name.startswith("inference/app_"), name


def test_every_key_of_the_originals_configurations_is_explained():
    keys = {key for hparams in golden.load_json("hparams_resolved").values() for key in hparams}
    explained = set(re.findall(r"`(\w+)`", TEXT))
    assert len(keys) == 125 and sorted(keys - explained) == []


FLAGS = {
    "--a2m_ckpt": "checkpoints/audio2motion_vae", "--head_ckpt": "", "--postnet_ckpt": "",
    "--torso_ckpt": "checkpoints/motion2video_nerf/may_torso", "--drv_aud": HEARD, "--drv_pose": "nearest",
    "--blink_mode": "none", "--lle_percent": "0.2", "--temperature": "0.2", "--mouth_amp": "0.4",
    "--raymarching_end_threshold": "0.01", "--debug": None, "--fast": None, "--out_name": "tmp.mp4",
    "--low_memory_usage": None,
}  # fmt: skip
"""Every flag of the original's command, with its default."""


def given(flags: dict[str, str | None]) -> list[str]:
    return [flag if value is None else f"{flag}={value}" for flag, value in flags.items()]


def test_every_flag_of_the_original_is_taken_and_explained(tree, monkeypatch):
    monkeypatch.chdir(tree)
    job = genefacepp_infer.parse_arguments(given(FLAGS))
    assert job.head_ckpt == Path(FLAGS["--torso_ckpt"] or "") and job.a2m_ckpt == Path(FLAGS["--a2m_ckpt"] or "")
    assert (job.lle_percent, job.temperature, job.mouth_amp, job.drv_pose) == (0.2, 0.2, 0.4, "nearest")
    assert job.debug and job.raymarching_end_threshold == FAST_END_THRESHOLD and job.drv_aud == Path(HEARD)
    assert job.controls.postnet_ckpt is None and job.controls.blink_mode == "none" and job.out_name == Path("tmp.mp4")
    for flag in FLAGS:
        assert f"`{flag}`" in TEXT, f"the guide is silent about {flag}"


def test_empty_checkpoints_mean_left_out(tree, monkeypatch):
    """``--torso_ckpt=`` must not win over the head that is given, nor be read as the folder one stands in."""
    monkeypatch.chdir(tree)
    head = {**FLAGS, "--head_ckpt": "checkpoints/motion2video_nerf/may_torso", "--torso_ckpt": "", "--a2m_ckpt": ""}
    job = genefacepp_infer.parse_arguments(given(head))
    assert job.head_ckpt == Path("checkpoints/motion2video_nerf/may_torso") and job.a2m_ckpt is None
    with pytest.raises(ConfigError, match="no person is given"):
        genefacepp_infer.parse_arguments(given({**FLAGS, "--torso_ckpt": ""}))
    needed = {"--src_video": "in.mp4", "--drv_aud": "speech.wav", "--out_name": "out.mp4"}
    found = genefacepp_infer_arbitrary.parse_arguments(given({**needed, "--head_ckpt": "", "--a2m_ckpt": ""}))
    assert found.head_ckpt is None and found.a2m_ckpt is None


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"--fast": None}, "raymarching_end_threshold", FAST_END_THRESHOLD),
        ({}, "raymarching_end_threshold", END_THRESHOLD),
        ({"--raymarching_end_threshold": "0.03"}, "raymarching_end_threshold", 0.03),
        ({}, "temperature", 0.0),
        ({}, "mouth_amp", 1.0),
        ({}, "seed", 0),
        ({"--drv_pose": "static"}, "drv_pose", "static"),
        ({"--drv_pose": "3-90"}, "drv_pose", "3-90"),
        ({"--drv_pose": "in.mp4"}, "drv_pose", "in.mp4"),
    ],
)
def test_what_flags_mean(tree, monkeypatch, changes, field, value):
    monkeypatch.chdir(tree)
    needed = {flag: FLAGS[flag] for flag in ("--torso_ckpt", "--drv_aud", "--out_name")}
    assert getattr(genefacepp_infer.parse_arguments(given({**needed, **changes})), field) == value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--drv_pose": "backwards"}, "--drv_pose 'backwards'"),
        ({"--drv_pose": "9-3"}, "--drv_pose '9-3'"),
        ({"--raymarching_end_threshold": "0,05"}, "--raymarching_end_threshold"),
        ({"--blink_mode": "often"}, "--blink_mode"),
        ({"--temperature": "-1"}, "--temperature -1"),
        ({"--lle_percent": "3"}, "--lle_percent 3"),
        ({"--world_size": "2"}, "--world_size"),
    ],
)
def test_what_flags_may_not_say(tree, monkeypatch, changes, words):
    monkeypatch.chdir(tree)
    with pytest.raises(ConfigError) as caught:
        genefacepp_infer.parse_arguments(given({**FLAGS, **changes}))
    assert words in str(caught.value) and "\n" not in str(caught.value)
