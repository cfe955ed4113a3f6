"""The benchmark on a few frames: every stage is there, its figures are figures, and bad input is one sentence.

How long anything takes is measured, never asserted.
"""

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference import benchmark, benchmark_stages
from inference.benchmark import BenchmarkOptions, main, measure, parse_arguments, run_benchmark
from inference.benchmark_result import BENCHMARK_SCHEMA, Benchmark, StageTiming, report, table, write_json
from inference.benchmark_stages import STAGE_NAMES, Stage
from modules.commons.errors import OutputError, VideoReadError
from modules.commons.machine import Machine
from modules.commons.progress import silent
from modules.commons.workspace import IDENTITIES
from modules.metrics.timing import Spread
from tests.support.tiny_run import cut, listening, own_folders, remux, write_wav

COUNT = 9
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, demo_dir):
    """A folder with nine frames and one second of speech, and the options to time them."""
    root = tmp_path_factory.mktemp("benchmark")
    clip = remux(demo_dir / "WolfgangLanger_Pexels.mp4", root / "clip.mp4", 50, 50 + COUNT)
    speech = write_wav(root / "speech.wav", cut(load_audio_16k(demo_dir / "obama_speech.wav"), 0.9, 1.9))
    out = root / "out" / "benchmark.json"
    return root, BenchmarkOptions(clip, speech, frames=COUNT - 1, repeats=1, device="cpu", out=out, command="test")


@pytest.fixture(scope="module")
def found(inputs):
    """(result, every progress report) of one run on the CPU."""
    root, options = inputs
    told = []
    with own_folders(root):
        result = run_benchmark(options, lambda *report: told.append(report))
    return result, told


def test_every_stage_is_timed_once_in_order_with_real_figures(found):
    result, _ = found
    assert tuple(timing.name for timing in result.timings) == STAGE_NAMES
    for timing in result.timings:
        spread = timing.ms_per_frame
        assert timing.device == "CPU" and timing.covers and timing.frames >= 1
        assert all(math.isfinite(value) and value > 0 for value in (spread.low, spread.median, spread.high))
        assert timing.frames_per_second == pytest.approx(1000 / spread.median)
        assert timing.cuda_memory_mib is None
        assert timing.memory_mib is None or (math.isfinite(timing.memory_mib) and timing.memory_mib >= 0)


def test_what_was_worked_on(found, inputs):
    result, _ = found
    frames = {timing.name: timing.frames for timing in result.timings}
    whole = COUNT - 1
    assert frames == {
        "decode": whole, "detect": 1, "track": whole, "hands": whole, "fit": whole,
        "audio": round(1.0 * result.frame_rate), "render": 2, "composite": 2, "encode": whole,
    }  # fmt: skip
    assert result.frame_size == (640, 360) and 150 < result.face_px < 330 and result.speech_s == 1.0
    assert result.repeats == 1 and result.command == "test" and result.src_video == inputs[1].src_video


def test_only_sound_has_a_figure_per_second(found):
    result, _ = found
    per_second = {timing.name: timing.ms_per_second for timing in result.timings}
    assert [name for name, spread in per_second.items() if spread is not None] == ["audio"]
    (audio,) = [timing for timing in result.timings if timing.name == "audio"]
    assert per_second["audio"].median == pytest.approx(audio.ms_per_frame.median * audio.frames / result.speech_s)


def test_loading_networks_shows_as_memory(found):
    """The speech encoder alone is 33 MB of weights."""
    (audio,) = [timing for timing in found[0].timings if timing.name == "audio"]
    assert audio.memory_mib is None or audio.memory_mib > 20


def test_progress_counts_every_run_up_to_the_end(found):
    told = [(done, total) for what, done, total in found[1] if what == "benchmark"]
    total = len(STAGE_NAMES) * 2
    assert told == [(done, total) for done in range(1, total + 1)]


def test_nothing_but_the_prepared_tables_is_left(found, inputs):
    root, _ = inputs
    assert sorted(path.name for path in root.iterdir()) == ["clip.mp4", "data", "speech.wav"]


def test_the_json_file(found, inputs, tmp_path):
    result, _ = found
    path = tmp_path / "deep" / "benchmark.json"
    write_json(result, path)
    assert [p.name for p in path.parent.iterdir()] == ["benchmark.json"]
    data = json.loads(path.read_text())
    assert data["schema"] == BENCHMARK_SCHEMA and data["command"] == "test"
    assert data["repeats"] == 1 and data["discarded_runs"] == 1
    assert set(data["machine"]) == {field.name for field in fields(Machine)}
    assert data["machine"]["cores"] >= 1 and data["machine"]["torch"] == str(torch.__version__)
    assert (data["input"]["width"], data["input"]["height"]) == (640, 360)
    assert data["input"]["face_px"] == result.face_px and data["input"]["src_video"] == str(inputs[1].src_video)
    assert [stage["stage"] for stage in data["stages"]] == list(STAGE_NAMES)
    for stage, timing in zip(data["stages"], result.timings, strict=True):
        spread = timing.ms_per_frame
        assert stage["ms_per_frame"] == {"median": spread.median, "min": spread.low, "max": spread.high}
        assert stage["frames_per_second"] > 0 and stage["frames"] == timing.frames
        assert (stage["ms_per_second_of_sound"] is None) == (stage["stage"] != "audio")
        assert {"device", "covers", "memory_mib", "cuda_memory_mib"} <= set(stage)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_with_cuda_the_stages_that_can_use_it_are_there_twice(inputs):
    root, options = inputs
    with own_folders(root):
        result = run_benchmark(replace(options, device="auto"), silent)
    devices = {name: [t.device for t in result.timings if t.name == name] for name in STAGE_NAMES}
    assert {name for name, found in devices.items() if found == ["CPU", "CUDA"]} == {"audio", "render"}
    assert all(found in (["CPU"], ["CPU", "CUDA"]) for found in devices.values())
    assert all((t.cuda_memory_mib or 0) > 0 for t in result.timings if t.device == "CUDA")
    assert result.machine.gpu is not None


def test_cuda_stages_follow_the_cpu_ones(monkeypatch):
    """Where both devices are measured, without having CUDA here."""
    monkeypatch.setattr(benchmark, "pick_device", lambda name: torch.device("cpu" if name == "cpu" else "cuda:0"))
    both = (CPU, torch.device("cuda:0"))
    assert [benchmark._devices(name) for name in ("auto", "cpu", "cuda")] == [both, both[:1], both[1:]]


def test_one_run_is_discarded_and_the_rest_are_timed():
    events = []

    def load():
        events.append("load")
        return lambda: events.append("run")

    timing = measure(Stage("track", CPU, 4, "work", load, sound_s=0.5), 3, lambda: events.append("tick"))
    assert events == ["load", *["run", "tick"] * 4]
    assert timing.ms_per_second is not None
    assert timing.ms_per_second.median * 0.5 == pytest.approx(timing.ms_per_frame.median * 4)


def made_up() -> Benchmark:
    machine = Machine("A CPU", 2, 1, "A GPU", None, "Linux x86_64", "3.12", "2.11", "2.5")
    timings = (
        StageTiming("decode", "CPU", 100, "pictures", Spread(1.0, 0.5, 2.0), None, 12.34, None),
        StageTiming("audio", "CUDA", 7, "sound", Spread(123.456, 100.0, 1234.5), Spread(20.0, 10.0, 30.0), None, 5.0),
    )
    return Benchmark(
        command="c", machine=machine, src_video=Path("a/v.mp4"), drv_aud=Path("s.wav"), head_ckpt=Path("p/anna"),
        frame_size=(64, 48), frame_rate=25.0, face_px=20.0, speech_s=8.7, repeats=5, timings=timings,
    )  # fmt: skip


def test_the_table_is_aligned():
    heading, first, second = table(made_up().timings)
    assert first.split() == ["decode", "CPU", "1.00", "0.50", "2.00", "1000.0", "12.3", "-", "100", "pictures"]
    assert second.split()[:9] == ["audio", "CUDA", "123.46", "100.00", "1234.50", "8.1", "-", "5.0", "7"]
    assert second.endswith("sound; 20.0 ms per second of it")
    for word in ("stage", "device", "what a run does"):
        start = heading.index(word)
        assert all(line[start - 1 : start].strip() == "" and line[start] != " " for line in (first, second))
    for word in ("ms/frame", "min", "max", "frames/s", "MiB", "frames "):
        end = heading.index(word) + len(word.strip())
        assert all(line[end - 1] != " " and line[end] == " " for line in (first, second)), word


def test_the_report_names_inputs_and_machine():
    text = report(made_up())
    for part in ("v.mp4 64x48 at 25.00", "face 20 px", "s.wav 8.7 s", "person anna", "median of 5", "A CPU, 2 cores"):
        assert part in text
    assert "A GPU" in text and "load before: unknown" in text and len(text.splitlines()) == 5


def test_figures_that_are_none_are_not_written(tmp_path):
    broken = replace(made_up().timings[0], ms_per_frame=Spread(math.nan, 1, 1))
    with pytest.raises(ValueError, match="JSON"):
        write_json(replace(made_up(), timings=(broken,)), tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


def test_a_folder_that_is_a_file_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_json(made_up(), tmp_path / "file" / "b.json")


def test_frames_begin_with_the_first_face_and_stay_inside_the_video(inputs, found):
    root, options = inputs
    with own_folders(root):
        source = benchmark_stages.open_source(options.src_video, silent)
    valid = np.zeros(COUNT, bool)
    valid[4:] = True
    late = replace(source, coeffs=replace(source.coeffs, valid=valid))

    def indices(count):
        return [frame.index for frame in benchmark_stages._held_frames(late, count)]

    assert indices(3) == [4, 5, 6]
    assert indices(7) == [2, 3, 4, 5, 6, 7, 8]
    assert indices(100) == list(range(COUNT))
    nobody = replace(source, coeffs=replace(source.coeffs, valid=np.zeros(COUNT, bool)))
    with pytest.raises(VideoReadError, match=r"clip\.mp4: none of 3 frames shows a face"):
        benchmark_stages._held_frames(nobody, 3)


def test_frames_too_large_to_hold_are_fewer_and_that_is_said(inputs, found, monkeypatch):
    root, options = inputs
    with own_folders(root):
        source = benchmark_stages.open_source(options.src_video, silent)
    monkeypatch.setattr(benchmark_stages, "MAX_HELD_BYTES", 3 * 640 * 360 * 3 // 2)
    with listening() as said:
        assert len(benchmark_stages._held_frames(source, 7)) == 4
    assert ("WARNING", "only 4 frames are timed: more of this size would fill the memory") in said


def fails(caplog, folder, *arguments):
    """Run the command where it must fail; its one error sentence."""
    before = set(folder.rglob("*"))
    caplog.clear()
    assert main([str(argument) for argument in arguments]) == 1
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1 and "\n" not in errors[0].strip(), errors
    assert set(folder.rglob("*")) == before
    return errors[0]


def test_bad_input_is_one_sentence(inputs, tmp_path, caplog):
    options = inputs[1]
    out = ["--out", tmp_path / "b.json"]
    given = ["--src_video", options.src_video, "--drv_aud", options.drv_aud, *out]
    assert "no.mp4: there is no such video" in fails(caplog, tmp_path, "--src_video", tmp_path / "no.mp4", *out)
    missing = ["--src_video", options.src_video, "--drv_aud", tmp_path / "no.wav", *out]
    assert "no.wav: there is no such sound" in fails(caplog, tmp_path, *missing)
    assert "nobody: there is no such checkpoint" in fails(caplog, tmp_path, *given, "--head_ckpt", tmp_path / "nobody")
    assert "at least 5 runs" in fails(caplog, tmp_path, *given, "--repeats", 4)
    assert "at least one frame" in fails(caplog, tmp_path, *given, "--frames", 0)
    assert "--frames" in fails(caplog, tmp_path, *given, "--frames", "many")
    assert "--no_such" in fails(caplog, tmp_path, *given, "--no_such")
    assert "is a folder" in fails(caplog, tmp_path, *given[:-1], tmp_path)
    assert "also an input" in fails(caplog, tmp_path, *given[:-1], options.src_video)
    (tmp_path / "file").write_text("")
    assert "cannot write to" in fails(caplog, tmp_path, *given[:-1], tmp_path / "file" / "b.json")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_cuda_that_is_not_there_is_one_sentence(inputs, tmp_path, caplog):
    options = inputs[1]
    given = ["--src_video", options.src_video, "--drv_aud", options.drv_aud, "--out", tmp_path / "b.json"]
    assert "device cuda was asked for" in fails(caplog, tmp_path, *given, "--device", "cuda")


def test_the_command_runs_and_prints_one_table(inputs, tmp_path, monkeypatch):
    _, options = inputs
    out = tmp_path / "benchmark.json"
    monkeypatch.setattr(
        benchmark, "run_benchmark", lambda options, progress: replace(made_up(), command=options.command)
    )
    arguments = ["--src_video", options.src_video, "--drv_aud", options.drv_aud, "--out", out, "--frames", 8]
    with listening() as said:
        assert main([str(argument) for argument in arguments]) == 0
    (text,) = [text for _, text in said if "ms/frame" in text]
    assert report(made_up()) in text
    command = json.loads(out.read_text())["command"]
    assert command.startswith("bash scripts/benchmark.sh --src_video ") and command.endswith("--frames 8")


def test_defaults_are_the_demo(demo_dir):
    options = parse_arguments([])
    assert (options.src_video.parent, options.drv_aud.parent) == (demo_dir, demo_dir)
    assert options.head_ckpt == IDENTITIES / "demo" and options.frames == 100 and options.repeats == 5
    assert options.device == "auto" and options.out == Path("out") / "benchmark.json"
    assert options.command == "bash scripts/benchmark.sh"
