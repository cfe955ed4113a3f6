"""The real stages, killed at random moments: they go on where they were and make what one run makes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from data_gen.runs.process_video import STAGES
from modules.commons.workspace import ROOT
from tests.support.killed_runs import FINISHED, HANDS_STRETCH, SEGMENT, Attempt
from tests.support.real_frames import DEMO_CLIP
from tests.support.tiny_run import remux

NAMES = [stage.name for stage in STAGES]


def killed_runs(clip: Path, folder: Path, kills: int, seed: int) -> list[Attempt]:
    """See ``tests/support/killed_runs.py``; a process of its own, since only one without threads can fork."""
    command = [sys.executable, str(ROOT / "tests" / "support" / "killed_runs.py"), str(clip), str(folder)]
    done = subprocess.run(
        [*command, str(kills), str(seed)], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return [Attempt(**attempt) for attempt in json.loads(done.stdout)]


def artefacts(attempt: Attempt) -> dict[str, str]:
    return {name: content for name, content in attempt.files.items() if Path(name).name != "manifest.json"}


def told(attempt: Attempt, what: str) -> list[int]:
    """The first number of each event of one kind."""
    return [int(event.split()[1]) for event in attempt.events if event.split()[0] == what]


def check_resumed(attempts: list[Attempt]) -> None:
    """Every attempt went on where the one before was, left only whole files, and the last left what one run makes."""
    whole, *tries = attempts
    assert [attempt.killed for attempt in (whole, tries[-1])] == [False, False]
    assert sum(attempt.killed for attempt in tries) >= len(tries) - 2, "one may have been over before its kill came"
    assert artefacts(tries[-1]) == artefacts(whole), "byte for byte"
    for attempt in tries:
        for name, content in artefacts(attempt).items():
            if name in whole.files:
                assert content == whole.files[name], f"{name} was not whole"
            else:
                assert ".tmp" in name or ".parts" in name, f"{name} is nothing that an uninterrupted run makes"
    for before, now in zip(tries[:-1], tries[1:], strict=True):
        assert set(before.stages) <= set(now.stages), "nothing is forgotten"
        if not now.killed:
            assert now.events[-1].split() == [FINISHED, *(name for name in NAMES if name not in before.stages)]
        tracked = told(now, "track")
        assert not tracked or tracked[0] == before.segments * SEGMENT + 1, "finished segments are not tracked again"
        assert not tracked or "track" not in before.stages
        assert not set(told(now, "stretch")) & set(before.stretches), "finished stretches are not searched again"
        done = {"shots": "shots", "hands": "stretch", "fit": "fit", "binarize": "crops"}
        assert not [name for name, what in done.items() if name in before.stages and told(now, what)]


def test_killed_three_times_it_makes_the_same(demo_dir, tmp_path):
    clip = remux(demo_dir / DEMO_CLIP, tmp_path / "clip.mp4", 30, 66)
    attempts = killed_runs(clip, tmp_path, 3, seed=2)
    check_resumed(attempts)
    assert len(told(attempts[0], "track")) == 36
    assert sorted(told(attempts[0], "stretch")) == list(range(0, 36, HANDS_STRETCH))  # threads begin in any order


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_ten_times_it_makes_the_same(seed, demo_dir, tmp_path):
    clip = remux(demo_dir / DEMO_CLIP, tmp_path / "clip.mp4", 0, 120)
    check_resumed(killed_runs(clip, tmp_path, 10, seed))
