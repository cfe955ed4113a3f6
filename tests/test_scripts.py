"""The scripts: their form, what set-up does step by step (against a recording stand-in for Python), and real runs."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import pytest

from modules.commons.workspace import CHECKPOINTS, IDENTITIES, ROOT
from tasks.configs import load_any

SCRIPTS = sorted((ROOT / "scripts").glob("*.sh"))
RUNNABLE = sorted(
    path
    for pattern in ("inference/*.py", "data_gen/runs/*.py", "tasks/*.py")
    for path in ROOT.glob(pattern)
    if "__main__" in path.read_text(encoding="utf-8")
)


def run(command: list, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("path", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_form(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n") and "\nset -euo pipefail\n" in text
    assert len(text.splitlines()) <= 30
    assert run(["bash", "-n", path], ROOT, PATH=os.environ["PATH"]).returncode == 0
    if path.suffix == ".sh":
        header = text.split("set -euo", 1)[0]
        assert f"bash scripts/{path.name}" in header


def test_ci_runs_the_test_script_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert lines == ["#!/usr/bin/env bash", "set -euo pipefail", 'cd "$(dirname "$0")/.."', "bash scripts/test.sh"]


@pytest.mark.parametrize(
    "name", ["evaluate.sh", "infer.sh", "infer_arbitrary.sh", "train_head.sh", "train_identity.sh", "train_torso.sh"]
)
def test_missing_arguments_print_the_usage(name):
    result = run(["bash", ROOT / "scripts" / name], ROOT, PATH=os.environ["PATH"])
    assert result.returncode == 2 and result.stderr.startswith(f"Usage: bash scripts/{name}")


@pytest.mark.parametrize("name", ["../up", "-x", "a b", ".hidden", "a/b"])
@pytest.mark.parametrize("script", ["train_identity.sh", "train_head.sh", "train_torso.sh"])
def test_an_identity_name_cannot_leave_its_folder(name, script):
    result = run(["bash", ROOT / "scripts" / script, name], ROOT, PATH=os.environ["PATH"])
    assert result.returncode == 2


# ---- evaluation against a stand-in for Python ----


@pytest.fixture
def evaluate(tmp_path):
    """Runs scripts/evaluate.sh; returns its result and the words of each call of Python."""
    stand_in, calls = tmp_path / "python", tmp_path / "calls"
    told = 'printf "%s\\n" "$(basename "$1")" "${@:2}" end >>"$CALLS"; [ "$(basename "$1")" != "${FAILING:-}" ]'
    stand_in.write_text(f"#!/usr/bin/env bash\n{told}\n")
    stand_in.chmod(0o755)

    def call(*arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
        calls.write_text("")
        variables = {"PATH": os.environ["PATH"], "PYTHON": str(stand_in), "CALLS": str(calls), **environment}
        result = run(["bash", ROOT / "scripts" / "evaluate.sh", *arguments], tmp_path, **variables)
        made = [part.splitlines() for part in calls.read_text().split("end\n") if part]
        return result, made

    return call


def test_an_evaluation_makes_trials_and_measures_them(evaluate):
    arguments = ["--src_video", "a clip.mp4", "--out", "my report", "--no_folds"]
    result, (made, measured) = evaluate(*arguments)
    assert result.returncode == 0, result.stderr
    assert made == ["make_trials.py", *arguments]
    command = r"bash scripts/evaluate.sh --src_video a\ clip.mp4 --out my\ report --no_folds"
    assert measured == ["evaluate.py", "--out", "my report", "--command", command]
    assert shlex.split(command) == ["bash", "scripts/evaluate.sh", *arguments], "it can be given to a shell again"
    _, (_, measured) = evaluate(*arguments, EVALUATE="--keep_trials --hparams draws=200")
    assert measured[-3:] == ["--keep_trials", "--hparams", "draws=200"]
    assert shlex.split(measured[4])[0] == "EVALUATE=--keep_trials --hparams draws=200"


def test_trials_that_cannot_be_made_are_not_measured(evaluate):
    result, made = evaluate("--src_video", "none.mp4", "--out", "report", FAILING="make_trials.py")
    assert result.returncode == 1 and [call[0] for call in made] == ["make_trials.py"]
    result, made = evaluate("--src_video", "in.mp4", "--out", "report", FAILING="evaluate.py")
    assert result.returncode == 1 and [call[0] for call in made] == ["make_trials.py", "evaluate.py"]


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--src_video", "a.mp4"], ["--src_video", "a.mp4", "--out"], ["--out=r"]]
)
def test_an_evaluation_without_a_folder_prints_its_usage(evaluate, arguments):
    result, made = evaluate(*arguments)
    assert result.returncode == 2 and made == []
    assert result.stderr.startswith("Usage: bash scripts/evaluate.sh --src_video V --out DIR")
    assert "make_trials.py --help" in result.stderr and "set -euo" not in result.stderr


# ---- set-up against a stand-in for Python that writes down what it is asked to do ----

STAND_IN = """#!/usr/bin/env bash
case "$*" in
  *"import torch"*) exit "${HAS_TORCH:-1}" ;;
  -c*) exit "${SUITABLE:-0}" ;;
esac
echo "$(basename "$0") $*" >>"$CALLS"
if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; fi
for word in $FAILING; do case "$*" in *"$word"*) exit 1 ;; esac; done
exit 0
"""


class Setup:
    """A checkout with only the set-up script, and a PATH with only what a bare machine has."""

    def __init__(self, folder: Path):
        self.root, self.bin, self.calls = folder / "checkout", folder / "bin", folder / "calls"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy(ROOT / "scripts" / "setup.sh", self.root / "scripts")
        for file in ROOT.glob("requirements*.txt"):
            shutil.copy(file, self.root)
        for tool in ("bash", "basename", "cat", "cksum", "cp", "dirname", "mkdir", "touch", "tr", "uname"):
            found = shutil.which(tool)
            assert found
            (self.bin / tool).symlink_to(found)
        self.add_tool("python3.12", STAND_IN)

    def add_tool(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def __call__(self, *arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        self.calls.write_text("")
        variables = {"PATH": str(self.bin), "CALLS": str(self.calls), "FAILING": "", **environment}
        result = run([self.bin / "bash", "scripts/setup.sh", *arguments], self.root, **variables)
        return result, self.calls.read_text().splitlines()


PIP = "python -m pip install --disable-pip-version-check --quiet"
MODELS = "python -m modules.commons.model_store"


@pytest.fixture
def setup(tmp_path) -> Setup:
    return Setup(tmp_path)


def test_setup_installs_once(setup):
    result, calls = setup()
    assert result.returncode == 0, result.stderr
    cpu_torch = [f"{PIP} torch==2.13.0+cpu"] if os.uname().sysname == "Linux" else []
    assert calls == ["python3.12 -m venv --clear .venv", *cpu_torch, f"{PIP} -r requirements.txt", MODELS]
    assert setup()[1] == [MODELS]


def test_setup_for_developers_adds_to_it(setup):
    setup()
    assert setup("--dev", HAS_TORCH="0")[1] == [f"{PIP} -r requirements-dev.txt", MODELS]
    assert setup("--dev")[1] == [MODELS]


def test_changed_requirements_are_installed_again(setup):
    setup()
    with (setup.root / "requirements.txt").open("a") as file:
        file.write("another>=1\n")
    assert setup(HAS_TORCH="0")[1] == [f"{PIP} -r requirements.txt", MODELS]


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="the CPU build is chosen on Linux only")
def test_torch_falls_back_from_the_configured_index_to_pytorchs_to_pypis(setup):
    _, calls = setup(FAILING="+cpu")
    index = "--index-url https://download.pytorch.org/whl/cpu torch>=2.11,<2.14"
    assert calls[1:4] == [f"{PIP} torch==2.13.0+cpu", f"{PIP} {index}", f"{PIP} -r requirements.txt"]
    shutil.rmtree(setup.root / ".venv")
    result, calls = setup(FAILING="+cpu --index-url")
    assert result.returncode == 0 and calls[3] == f"{PIP} -r requirements.txt"


def test_a_gpu_gets_the_ordinary_torch(setup):
    setup.add_tool("nvidia-smi", "#!/usr/bin/env bash\nexit 0\n")
    assert setup()[1] == ["python3.12 -m venv --clear .venv", f"{PIP} -r requirements.txt", MODELS]


def test_a_failed_install_is_not_remembered(setup):
    result, calls = setup(FAILING="requirements.txt")
    assert result.returncode != 0 and MODELS not in calls
    result, calls = setup(HAS_TORCH="0")
    assert result.returncode == 0 and calls == [f"{PIP} -r requirements.txt", MODELS]


def test_no_suitable_python_is_said_in_one_line(setup):
    result, calls = setup(SUITABLE="1")
    assert result.returncode == 1 and calls == []
    assert result.stderr.startswith("setup: no Python 3.11, 3.12 or 3.13") and len(result.stderr.splitlines()) == 1


# ---- real runs ----


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, demo_dir) -> Path:
    """A copy of the code beside the real models, so that a run leaves nothing in this one."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("modules", "data_gen", "tasks", "inference", "egs", "scripts"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "checkpoints").mkdir()
    for path in CHECKPOINTS.iterdir():
        if path != IDENTITIES:
            (root / "checkpoints" / path.name).symlink_to(path)
    clip = root / "data" / "raw" / "videos" / "short.mp4"
    clip.parent.mkdir(parents=True)
    cut = ["-i", demo_dir / "carphone_pristine.mp4", "-frames:v", "24", "-c", "copy", clip]
    assert run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *cut], root, **os.environ).returncode == 0
    return root


def test_a_person_is_trained_and_used_by_the_scripts(checkout, demo_dir):
    """Three steps teach nothing: this holds that the scripts, the commands and the file formats fit together."""
    environment = {**os.environ, "PYTHON": sys.executable, "PRESET": "cpu", "OMP_NUM_THREADS": "1"}
    hparams = "max_updates=3,rays_per_step=64,val_images=1"
    train = ["bash", checkout / "scripts" / "train_identity.sh", "short", "--hparams", hparams]
    result = run(train, checkout.parent, **environment)
    assert result.returncode == 0, result.stderr
    identity = checkout / "checkpoints" / "identities" / "short"
    assert (identity / "model.safetensors").is_file() and (identity / "checkpoint.json").is_file()
    assert load_any(checkout / "egs" / "datasets" / "short" / "lm3d_radnerf.yaml").video_id == "short"

    out = checkout / "out" / "short.mp4"
    inputs = [checkout / "data" / "raw" / "videos" / "short.mp4", demo_dir / "obama_speech.wav", out]
    flags = ["--head_ckpt", identity, "--preview", "2"]
    result = run(["bash", checkout / "scripts" / "infer_arbitrary.sh", *inputs, *flags], checkout.parent, **environment)
    assert result.returncode == 0, result.stderr
    assert [path.name for path in out.parent.iterdir()] == ["short.png"]


@dataclass(frozen=True)
class FromAnywhere:
    """What a script did in an empty folder: its exit status, what it said, and the files it left there."""

    status: int
    out: str
    errors: str
    left: list[Path]


JOB = ("--src_video", "a.mp4", "--drv_aud", "a.wav", "--out_name", "b.mp4")


@pytest.fixture(scope="module")
def scripts_run(tmp_path_factory) -> dict[tuple[str, ...], FromAnywhere]:
    """Every command asked for help, and one given an unknown flag, by command line."""
    folder = tmp_path_factory.mktemp("from_anywhere")
    commands = [(str(path), "--help") for path in RUNNABLE]
    commands.append((str(ROOT / "inference" / "genefacepp_infer_arbitrary.py"), *JOB, "--no_such_flag"))
    program = ROOT / "tests" / "support" / "forked_scripts.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = run([sys.executable, program, folder, json.dumps(commands)], folder, **environment)
    assert done.returncode == 0, done.stderr
    return {
        command: FromAnywhere(*said, list((folder / str(number)).iterdir()))
        for number, (command, said) in enumerate(zip(commands, json.loads(done.stdout), strict=True))
    }


@pytest.mark.parametrize("path", RUNNABLE, ids=lambda path: str(path.relative_to(ROOT)))
def test_runs_as_a_script_from_anywhere_without_pythonpath(path, scripts_run):
    """``python inference/x.py`` starts with inference/ on the path: each such file must add the root itself."""
    result = scripts_run[str(path), "--help"]
    assert result.status == 0, result.errors
    assert "usage:" in result.out
    assert result.left == []


def test_the_named_commands_are_runnable():
    names = {str(path.relative_to(ROOT)) for path in RUNNABLE}
    assert {"inference/genefacepp_infer_arbitrary.py", "data_gen/runs/process_video.py", "tasks/run.py"} <= names


def test_an_unknown_flag_is_refused(scripts_run):
    (result,) = (made for command, made in scripts_run.items() if command[-1] == "--no_such_flag")
    assert result.status != 0 and "--no_such_flag" in result.errors and "Traceback" not in result.errors


# ---- portraits against a stand-in for Python ----


def test_portraits_are_trained_head_first_at_sizes_that_go_together(tmp_path):
    for name in ("train_head.sh", "train_torso.sh"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/usr/bin/env bash\necho "$@"\n')
    stand_in.chmod(0o755)
    shutil.copytree(ROOT / "egs" / "egs_bases", tmp_path / "egs" / "egs_bases")

    def call(script: str, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {"PATH": os.environ["PATH"], "PYTHON": str(stand_in), **environment}
        return run(["bash", tmp_path / "scripts" / script, *more], tmp_path, **variables)

    early = call("train_torso.sh", "ann")
    assert early.returncode == 1 and "train the head first: bash scripts/train_head.sh ann" in early.stderr
    assert call("train_head.sh", "ann", PRESET="large").returncode == 2
    for who, preset in (("ann", "small"), ("ben", "original"), ("cyd", "fast")):
        made = call("train_head.sh", who, "--reset", PRESET=preset)
        head, torso = (f"egs/datasets/{who}/lm3d_radnerf{part}_sr.yaml" for part in ("", "_torso"))
        assert made.stdout.split() == f"tasks/run.py --config {head} --exp_name {who}/lm3d_radnerf_sr --reset".split()
        assert call("train_torso.sh", who).stdout.split()[-2:] == ["--exp_name", f"{who}/lm3d_radnerf_torso_sr"]
        sizes, onto = load_any(tmp_path / head), load_any(tmp_path / torso)
        assert (sizes.video_id, onto.video_id, onto.head_ckpt) == (who, who, f"checkpoints/{who}/lm3d_radnerf_sr")
        doubled = [one.portrait.super_resolution is not None for one in (sizes, onto)]
        assert doubled == [preset != "small"] * 2 and onto.portrait.torso is not None
