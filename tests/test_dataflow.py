"""The preparation dataflow: STAGES hang together, run only when needed, and go on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_gen.runs import process_video
from data_gen.runs.process_config import ProcessVideoConfig
from data_gen.runs.process_video import STAGES, Stage, is_up_to_date, run_stages, select_stages, stage_keys
from modules.commons.errors import ConfigError, VideoReadError
from modules.commons.progress import silent
from modules.commons.workspace import VideoWorkspace


def test_every_stage_reads_what_an_earlier_one_writes():
    available: set[str] = set()
    for stage in STAGES:
        assert set(stage.reads) <= available, f"{stage.name} reads what nobody wrote"
        assert not set(stage.writes) & available, f"{stage.name} overwrites an earlier stage's artefact"
        available |= set(stage.writes)
    assert "dataset" in available


def test_stage_names_are_unique_and_config_sections_exist():
    assert len({stage.name for stage in STAGES}) == len(STAGES)
    sections = set(ProcessVideoConfig.__dataclass_fields__)
    assert all(set(stage.config) <= sections for stage in STAGES)


def test_workspace_owns_every_artefact(tmp_path):
    workspace = VideoWorkspace("clip", tmp_path)
    for stage in STAGES:
        for name in (*stage.reads, *stage.writes):
            assert getattr(workspace, name).is_relative_to(tmp_path)


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """Stages that only write their files, a video of five bytes, and the list of stages that ran."""
    ran: list[str] = []

    def writer(stage: Stage):
        def run(stage_input):
            ran.append(stage.name)
            for name in stage.writes:
                path: Path = getattr(stage_input.workspace, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(stage.name)

        return run

    fakes = tuple(replace(stage, run=writer(stage)) for stage in STAGES)
    monkeypatch.setattr(process_video, "STAGES", fakes)
    video = tmp_path / "in.mp4"
    video.write_bytes(b"video")
    return fakes, video, VideoWorkspace("clip", tmp_path / "data"), ran


def run(flow, config=None, stages=None, **options):
    fakes, video, workspace, _ = flow
    config = config or ProcessVideoConfig()
    return run_stages(stages or fakes, video, workspace, config, silent, **options)


def test_second_run_does_nothing(flow):
    names = [stage.name for stage in STAGES]
    assert run(flow) == names
    assert run(flow) == []


def test_a_changed_video_runs_everything_again(flow):
    run(flow)
    flow[1].write_bytes(b"other")
    assert run(flow) == [stage.name for stage in STAGES]


def test_a_changed_section_runs_its_stage_and_those_that_read_from_it(flow):
    run(flow)
    config = ProcessVideoConfig()
    changed = replace(config, binarizer=replace(config.binarizer, max_train_frames=10))
    assert run(flow, changed) == ["binarize"]
    assert run(flow, replace(changed, hands=replace(config.hands, enabled=False))) == ["hands", "fit", "binarize"]


def test_a_lost_artefact_is_made_again(flow):
    run(flow)
    flow[2].crop_metadata.unlink()
    assert run(flow) == ["crop"]


def test_a_stage_that_dies_is_run_again_and_those_before_are_not(flow):
    fakes, _, _, ran = flow

    def die(stage_input):
        raise RuntimeError("killed")

    broken = tuple(replace(s, run=die) if s.name == "fit" else s for s in fakes)
    with pytest.raises(RuntimeError):
        run(flow, stages=broken)
    ran.clear()
    assert run(flow) == ["fit", "binarize"]
    assert ran == ["fit", "binarize"]


def test_a_foreign_or_broken_manifest_counts_as_none(flow):
    run(flow)
    flow[2].manifest.write_text("{")
    assert run(flow) == [stage.name for stage in STAGES]
    assert json.loads(flow[2].manifest.read_text())["stages"].keys() == {s.name for s in STAGES}


def test_only_and_from_select_stages(flow):
    run(flow)
    chosen, forced = select_stages(None, "crop")
    assert [s.name for s in chosen] == ["crop"] and run(flow, stages=chosen, forced=forced) == ["crop"]
    chosen, forced = select_stages("hands", None)
    assert run(flow, stages=chosen, forced=forced) == ["hands", "fit", "binarize"]
    with pytest.raises(ConfigError, match="unknown stage 'x'; the stages are track, crop"):
        select_stages(None, "x")


def test_a_stage_without_its_inputs_says_so(flow):
    with pytest.raises(ConfigError, match=r"stage fit needs .*landmarks\.npz"):
        run(flow, stages=[s for s in flow[0] if s.name == "fit"])


def test_missing_video_is_one_clear_sentence(tmp_path):
    with pytest.raises(VideoReadError, match=r"nowhere\.mp4: cannot be read"):
        run_stages(STAGES, tmp_path / "nowhere.mp4", VideoWorkspace("x", tmp_path), ProcessVideoConfig(), silent)
    assert list(tmp_path.iterdir()) == []


def test_keys_depend_on_the_code_schema(monkeypatch):
    before = stage_keys("hash", ProcessVideoConfig(), "model/1")
    bumped = tuple(replace(s, schema=s.schema + 1) if s.name == "hands" else s for s in STAGES)
    monkeypatch.setattr(process_video, "STAGES", bumped)
    after = stage_keys("hash", ProcessVideoConfig(), "model/1")
    assert {name for name in before if before[name] != after[name]} == {"hands", "fit", "binarize"}


def test_another_face_model_makes_fit_and_dataset_stale():
    first, second = (stage_keys("hash", ProcessVideoConfig(), version) for version in ("model/1", "model/2"))
    assert {name for name in first if first[name] != second[name]} == {"fit", "binarize"}


def test_up_to_date_needs_the_files_too(tmp_path):
    stage = STAGES[0]
    assert not is_up_to_date(stage, "k", {stage.name: {"key": "k"}}, VideoWorkspace("clip", tmp_path))
