"""``scripts/process_video.sh`` and the configurations of GeneFace++'s example person."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from data_gen.runs.process_video import parse_arguments
from modules.commons.official_checkpoint import read_official_hparams
from modules.commons.workspace import EGS, ROOT
from tasks.radnerfs.portrait_config import load_portrait_task

SCRIPT = ROOT / "scripts" / "process_video.sh"
MAY = {
    "head": "lm3d_radnerf.yaml",
    "head_sr": "lm3d_radnerf_sr.yaml",
    "torso": "lm3d_radnerf_torso.yaml",
    "torso_sr": "lm3d_radnerf_torso_sr.yaml",
}


@pytest.fixture
def call(tmp_path):
    """Runs the script with a stand-in for Python; returns its result and the words Python was given."""
    python, words = tmp_path / "python", tmp_path / "words"
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@" >"$WORDS"\n')
    python.chmod(0o755)

    def run(*arguments: str, **more: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        words.write_text("")
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "WORDS": str(words), **more}
        command = ["bash", str(SCRIPT), *arguments]
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return result, words.read_text().splitlines()

    return run


def test_an_id_or_a_video_is_prepared_with_flags_passed_on(call, tmp_path):
    result, words = call("May", "--from", "segment")
    assert result.returncode == 0 and words[0] == "data_gen/runs/process_video.py"
    parsed = parse_arguments(words[1:])
    assert (parsed.video_id, parsed.video, parsed.portrait, parsed.first) == ("May", None, True, "segment")
    assert parsed.config == Path("egs/egs_bases/process_video/base.yaml")
    (tmp_path / "a clip.mp4").touch()
    _, words = call("a clip.mp4", PRESET="small")
    parsed = parse_arguments(words[1:])
    assert (parsed.video_id, parsed.video) == (None, tmp_path / "a clip.mp4")
    assert (ROOT / parsed.config).name == "portrait_small.yaml" and (ROOT / parsed.config).is_file()


@pytest.mark.parametrize(("arguments", "preset"), [((), "small"), (("--list",), "small"), (("May",), "huge")])
def test_what_cannot_be_meant_ends_with_the_usage(call, arguments, preset):
    result, words = call(*arguments, PRESET=preset)
    assert result.returncode == 2 and words == []
    assert result.stderr.startswith("PRESET is huge" if preset == "huge" else "Usage: bash scripts/process_video.sh")


@pytest.mark.parametrize("kind", MAY)
def test_mays_configurations_say_what_genefaces_say(kind):
    resolved = ROOT.parent / "shared" / "fixtures" / "geneface" / "hparams_resolved.json"
    if not resolved.is_file():
        pytest.skip("../shared/fixtures is not on this machine")
    theirs = json.loads(resolved.read_text())[kind]
    ours = read_official_hparams(EGS / "datasets" / "May" / MAY[kind])
    ours.pop("head_model_dir", None)  # theirs names a folder of their own machine
    assert {key: theirs[key] for key in ours} == ours and len(ours) > 40


@pytest.mark.parametrize("kind", MAY)
def test_mays_configurations_are_read_as_trainings(kind):
    task = load_portrait_task(EGS / "datasets" / "May" / MAY[kind], {"max_updates": "1000"})
    with_sr, with_torso = kind.endswith("_sr"), kind.startswith("torso")
    assert task.video_id == "May" and task.max_updates == 1000
    assert (task.portrait.super_resolution is not None, task.portrait.torso is not None) == (with_sr, with_torso)
    suffix = "_sr" if with_sr else ""
    assert task.head_ckpt == (f"checkpoints/May/lm3d_radnerf{suffix}" if with_torso else "")
