"""The preparation dataflow: STAGES hang together, run only when needed, and go on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_gen.runs import process_video
from data_gen.runs.process_config import HandsConfig, ProcessVideoConfig
from data_gen.runs.process_video import STAGES, Stage, is_up_to_date, main, run_stages, select_stages, stage_keys
from data_gen.runs.stages import StageInput, hands
from data_gen.utils.process_video.part_store import PartStore
from modules.commons.errors import ConfigError, NoFaceError, VideoReadError
from modules.commons.progress import silent
from modules.commons.workspace import DEMO_DIR, VideoWorkspace
from modules.structures.faces import FaceTable
from modules.structures.landmarks import Landmarks2D
from modules.structures.masks import OcclusionTable

NAMES = [stage.name for stage in STAGES]
OF_FACE = [stage.name for stage in STAGES if stage.of_face]
SECTIONS = tuple(ProcessVideoConfig.__dataclass_fields__)


def test_every_stage_reads_what_an_earlier_one_writes():
    available: set[str] = set()
    for stage in STAGES:
        assert set(stage.reads) <= available, f"{stage.name} reads what nobody wrote"
        assert not set(stage.writes) & available, f"{stage.name} overwrites an earlier stage's artefact"
        available |= set(stage.writes)
    assert "dataset" in available


def test_what_belongs_to_the_video_needs_nothing_of_a_face():
    of_a_face = {name for stage in STAGES if stage.of_face for name in stage.writes}
    assert not [stage.name for stage in STAGES if not stage.of_face and of_a_face & set(stage.reads)]
    assert OF_FACE and [*(name for name in NAMES if name not in OF_FACE), *OF_FACE] == NAMES, "the video's come first"


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
    """Stages that only write their files, a video of five bytes, and what each stage was given, in order."""
    given: list[StageInput] = []

    def writer(stage: Stage):
        def run(stage_input):
            given.append(stage_input)
            for name in stage.writes:
                path: Path = getattr(stage_input.workspace, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                if name == "observations":
                    path.mkdir(exist_ok=True)
                    path = path / f"{len(list(path.iterdir())):06d}.npz"
                path.write_text(stage.name)

        return run

    fakes = tuple(replace(stage, run=writer(stage), check=None) for stage in STAGES)
    monkeypatch.setattr(process_video, "STAGES", fakes)
    video = tmp_path / "in.mp4"
    video.write_bytes(b"video")
    return fakes, video, VideoWorkspace("clip", tmp_path / "data"), given


def run(flow, config=None, stages=None, face=0, **options):
    fakes, video, workspace, _ = flow
    config = config or ProcessVideoConfig()
    return run_stages(stages or fakes, video, workspace.of_face(face), config, silent, **options)


def after(*changed: str) -> list[str]:
    """The stages whose result depends on one of these, themselves included, by following what each reads."""
    stale: list[str] = []
    for stage in STAGES:
        writers = {other.name for other in STAGES if set(other.writes) & set(stage.reads)}
        if stage.name in changed or writers & set(stale):
            stale.append(stage.name)
    return stale


def test_second_run_does_nothing(flow):
    assert run(flow) == NAMES
    assert run(flow) == []


def test_a_changed_video_runs_everything_again(flow):
    run(flow)
    flow[1].write_bytes(b"other")
    assert run(flow) == NAMES


def test_a_changed_section_runs_its_stage_and_those_that_read_from_it(flow):
    run(flow)
    config = ProcessVideoConfig()
    changed = replace(config, binarizer=replace(config.binarizer, max_train_frames=10))
    assert run(flow, changed) == ["binarize"]
    assert run(flow, replace(changed, hands=replace(config.hands, enabled=False))) == after("hands")


def test_a_lost_artefact_is_made_again(flow):
    run(flow)
    flow[2].crop_metadata.unlink()
    assert run(flow) == ["crop"]


def test_a_stage_that_dies_is_run_again_and_those_before_are_not(flow):
    fakes, _, _, given = flow

    def die(stage_input):
        raise RuntimeError("killed")

    broken = tuple(replace(s, run=die) if s.name == "fit" else s for s in fakes)
    with pytest.raises(RuntimeError):
        run(flow, stages=broken)
    given.clear()
    assert run(flow) == ["fit", "binarize"]
    assert len(given) == 2


def test_a_foreign_or_broken_manifest_counts_as_none(flow):
    run(flow)
    flow[2].manifest.write_text("{")
    assert run(flow) == NAMES
    assert json.loads(flow[2].manifest.read_text())["stages"].keys() == {s.name for s in STAGES}


def test_only_and_from_select_stages(flow):
    run(flow)
    chosen, forced = select_stages(None, "crop")
    assert [s.name for s in chosen] == ["crop"] and run(flow, stages=chosen, forced=forced) == ["crop"]
    chosen, forced = select_stages("hands", None)
    assert run(flow, stages=chosen, forced=forced) == after("hands")
    with pytest.raises(ConfigError, match="unknown stage 'x'; the stages are shots, track, landmarks, crop, "):
        select_stages(None, "x")


def test_a_stage_without_its_inputs_says_so(flow):
    with pytest.raises(ConfigError, match=r"stage fit needs .*landmarks\.npz"):
        run(flow, stages=[s for s in flow[0] if s.name == "fit"])


def test_missing_video_is_one_clear_sentence(tmp_path):
    with pytest.raises(VideoReadError, match=r"nowhere\.mp4: cannot be read"):
        run_stages(STAGES, tmp_path / "nowhere.mp4", VideoWorkspace("x", tmp_path), ProcessVideoConfig(), silent)
    assert list(tmp_path.iterdir()) == []


def keys(config=None, version="model/1", face=0):
    return stage_keys("hash", config or ProcessVideoConfig(), version, face)


def changed(before, now):
    assert before.keys() == now.keys()
    return [name for name in before if before[name] != now[name]]


@pytest.mark.parametrize("bumped", NAMES)
def test_keys_depend_on_the_code_schema(bumped, monkeypatch):
    before = keys()
    monkeypatch.setattr(
        process_video, "STAGES", tuple(replace(s, schema=s.schema + 1) if s.name == bumped else s for s in STAGES)
    )
    assert changed(before, keys()) == after(bumped)


CHANGES = {
    "shots": {"min_shot_s": 7.0},
    "detect": {"backend": "blazeface"},
    "crop": {"margin": 0.7},
    "hands": {"mask_size": 32},
    "occlusion": {"mask_size": 32},
    "fit": {},
    "binarizer": {"max_train_frames": 10},
}


def reconfigured(section):
    config = ProcessVideoConfig()
    if section == "face_model":
        return replace(config, face_model="bfm2009")
    part = getattr(config, section)
    change = CHANGES[section] or {
        next(name for name in part.__slots__ if isinstance(getattr(part, name), float)): 0.123
    }
    return replace(config, **{section: replace(part, **change)})


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in ("task", "device", "portrait")])
def test_keys_depend_on_the_configuration(section):
    direct = [stage.name for stage in STAGES if section in stage.config]
    assert direct, f"nobody heeds {section}"
    assert changed(keys(), keys(reconfigured(section))) == after(*direct)


def test_another_device_makes_nothing_stale():
    assert keys(replace(ProcessVideoConfig(), device="cpu")) == keys()


def test_another_face_model_makes_stale_what_is_measured_with_it():
    users = [stage.name for stage in STAGES if stage.uses_face_model]
    assert {"fit", "binarize"} <= set(users)
    assert changed(keys(), keys(version="model/2")) == after(*users)


def test_another_fitted_model_makes_stale_what_is_fitted_and_leaves_the_tracks_alone():
    embedded, fitted = keys(), stage_keys("hash", ProcessVideoConfig(), "model/1", 0, "bfm/1")
    assert changed(embedded, fitted) == after("fit_first")
    assert changed(fitted, stage_keys("hash", ProcessVideoConfig(), "model/1", 0, "bfm/2")) == after("fit_first")


def test_keys_of_the_faces_differ_where_their_work_does():
    assert changed(keys(), keys(face=3)) == OF_FACE
    assert changed(keys(face=3), keys(face=4)) == OF_FACE


def test_another_video_has_other_keys():
    assert changed(keys(), stage_keys("other", ProcessVideoConfig(), "model/1")) == NAMES


# --- faces of one video -----------------------------------------------------------------------------------------------


def manifest_of(workspace):
    return json.loads(workspace.manifest.read_text())


def test_a_second_face_reuses_what_belongs_to_the_video(flow):
    _, _, workspace, given = flow
    run(flow)
    first = {path: path.read_bytes() for path in workspace.data_root.rglob("*") if path.is_file()}
    given.clear()
    assert run(flow, face=3) == OF_FACE
    assert [stage.workspace.face for stage in given] == [3] * len(OF_FACE)
    third = workspace.of_face(3)
    new = {path for path in workspace.data_root.rglob("*") if path.is_file()} - set(first)
    assert new == {third.manifest, *(getattr(third, n) for s in STAGES if s.of_face for n in s.writes)}
    assert all("face_3" in path.parts for path in new)
    assert all(path.read_bytes() == content for path, content in first.items()), "face 0 is untouched"
    assert list(manifest_of(third)["stages"]) == OF_FACE
    assert run(flow) == run(flow, face=3) == []


def test_any_face_can_be_the_first_that_is_prepared(flow):
    _, _, workspace, given = flow
    assert run(flow, face=2) == NAMES
    assert [stage.workspace.face for stage in given] == [2 if name in OF_FACE else 0 for name in NAMES]
    assert set(manifest_of(workspace)["stages"]) == set(NAMES) - set(OF_FACE)
    assert not workspace.landmarks.exists()
    assert run(flow) == OF_FACE


def test_every_stage_is_given_its_own_key(flow):
    _, video, workspace, given = flow
    run(flow)
    run(flow, face=3)
    for face, stages_of_run in ((0, given[: len(NAMES)]), (3, given[len(NAMES) :])):
        names = NAMES if face == 0 else OF_FACE
        made = manifest_of(workspace.of_face(face))["stages"]
        assert [stage.key for stage in stages_of_run] == [made[name]["key"] for name in names]
        assert all(stage.video == video for stage in stages_of_run)
    assert not {stage.key for stage in given[: len(NAMES)]} & {stage.key for stage in given[len(NAMES) :]}


def test_what_makes_the_video_stale_makes_all_of_its_faces_stale(flow):
    run(flow)
    run(flow, face=3)
    config = reconfigured("detect")
    assert run(flow, config, face=3) == after("track")
    assert run(flow, config) == [name for name in after("track") if name in OF_FACE]


def test_what_happens_to_one_face_leaves_the_others_alone(flow):
    workspace = flow[2]
    run(flow)
    run(flow, face=3)
    workspace.of_face(3).manifest.write_text("{")
    workspace.of_face(3).hands.unlink()
    assert run(flow) == []
    assert run(flow, face=3) == OF_FACE
    workspace.hands.unlink()
    assert run(flow, face=3) == []
    assert run(flow) == ["hands"]


# --- running again on purpose -----------------------------------------------------------------------------------------


def test_a_forced_stage_starts_without_the_pieces_it_had_finished(flow):
    workspace = flow[2]
    run(flow)
    chosen, forced = select_stages(None, "track")
    run(flow, stages=chosen, forced=forced)
    assert [path.name for path in workspace.observations.iterdir()] == ["000000.npz"]


def test_a_forced_stage_that_was_killed_goes_on_with_its_pieces(flow):
    fakes, _, workspace, _ = flow
    run(flow)

    def die_after_a_piece(stage_input):
        workspace.observations.mkdir()
        (workspace.observations / "000000.npz").write_text("half way")
        raise RuntimeError("killed")

    forced = frozenset({"track"})
    with pytest.raises(RuntimeError):
        run(flow, stages=[replace(s, run=die_after_a_piece) for s in fakes if s.name == "track"], forced=forced)
    run(flow, stages=[s for s in fakes if s.name == "track"], forced=forced)
    assert (workspace.observations / "000000.npz").read_text() == "half way"
    assert len(list(workspace.observations.iterdir())) == 2


def test_pieces_of_a_search_that_is_switched_off_do_not_stay(tmp_path):
    workspace = VideoWorkspace("clip", tmp_path)
    workspace.processed.mkdir(parents=True)
    PartStore(workspace.processed / "hands.parts", "another key").save(0, OcclusionTable.nothing(2, 16))
    count = 3
    Landmarks2D(
        np.full((count, 478, 2), np.nan, np.float32), np.full((count, 478), np.nan, np.float32),
        np.zeros(count, bool), np.full((count, 52), np.nan, np.float32),
    ).save(workspace.landmarks)  # fmt: skip
    off = replace(ProcessVideoConfig(), hands=HandsConfig(enabled=False))
    hands(StageInput(tmp_path / "in.mp4", "hash", workspace, off, silent, "key"))
    assert sorted(path.name for path in workspace.processed.iterdir()) == ["hands.npz", "landmarks.npz"]
    assert OcclusionTable.load(workspace.hands).coverage.tolist() == [0, 0, 0]


def test_faces_are_counted_from_0(tmp_path, caplog):
    assert main(["--video", str(tmp_path / "a.mp4"), "--data_root", str(tmp_path), "--face", "-1"]) == 1
    assert "--face -1: faces are numbered from 0" in caplog.text
    assert list(tmp_path.iterdir()) == []


# --- the real stages -------------------------------------------------------------------------------------------------


def test_a_face_that_is_not_there_is_one_sentence(tmp_path):
    workspace = VideoWorkspace("clip", tmp_path)
    video = DEMO_DIR / "carphone_pristine.mp4"
    run_stages(STAGES[:2], video, workspace, ProcessVideoConfig(), silent)
    assert len(FaceTable.load(workspace.faces)) == 1
    with pytest.raises(NoFaceError, match=r"^there is no face 4: the video shows 1, numbered from 0$"):
        run_stages(STAGES, video, workspace.of_face(4), ProcessVideoConfig(), silent)
    assert not workspace.of_face(4).processed.exists() and not workspace.of_face(4).binary.exists()


def test_up_to_date_needs_the_files_too(tmp_path):
    stage = STAGES[0]
    assert not is_up_to_date(stage, "k", {stage.name: {"key": "k"}}, VideoWorkspace("clip", tmp_path))
