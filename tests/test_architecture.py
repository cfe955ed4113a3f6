"""The rules of the house: who may import whom, what no file may do, and what lies at the top."""

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modules.commons.workspace import ROOT

CODE_FOLDERS = ("modules", "data_gen", "tasks", "inference")
TOP_LEVEL = {
    *CODE_FOLDERS, "egs", "checkpoints", "scripts", "tests", "README.md", "LICENSE", "pyproject.toml",
    "requirements.txt", "requirements-dev.txt", "requirements-mediapipe.txt",
    "requirements-speech.txt",
}  # fmt: skip
MAX_TREE_BYTES = 20 * 2**20
MAX_README_LINES = 150

# A group may import itself and the groups named here.
MAY_IMPORT = {
    "structures": set(),
    "commons": {"structures"},
    "modules": {"structures", "commons"},
    "data_gen": {"structures", "commons", "modules"},
    "tasks": {"structures", "commons", "modules"},
    "inference": {"structures", "commons", "modules", "data_gen", "tasks"},
}

# glibc's own, the compilers' run-time libraries, zlib, NVIDIA's driver, and what Python itself is built on.
SYSTEM_LIBRARIES = (
    "ld-", "libc.", "libc-", "libm.", "libm-", "libmvec", "libdl", "libpthread", "librt", "libutil", "libresolv",
    "libnss", "libgcc_s", "libstdc++", "libz.", "libcuda", "libnvidia", "libpython", "libffi", "libssl",
    "libcrypto", "libbz2", "liblzma", "libuuid", "libexpat", "libsqlite3", "libreadline", "libtinfo", "libncurses",
    "libcrypt", "libzstd",
)  # fmt: skip

SOURCES = sorted(path for folder in CODE_FOLDERS for path in (ROOT / folder).rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in SOURCES}


def group_of(dotted: str) -> str | None:
    """The group a module belongs to; None for a third-party one."""
    parts = dotted.split(".")
    if parts[0] not in CODE_FOLDERS:
        return None
    if parts[0] == "modules":
        return parts[1] if len(parts) > 1 and parts[1] in ("structures", "commons") else "modules"
    return parts[0]


def dotted_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted module) of every import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = node.module or ""
            yield node.lineno, module
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def places(found: Iterator[tuple[Path, int]]) -> list[str]:
    return [f"{path.relative_to(ROOT)}:{line}" for path, line in found]


def test_imports_follow_the_layers():
    wrong = []
    for path, tree in TREES.items():
        own = group_of(dotted_name(path))
        for line, name in imports_of(tree):
            other = group_of(name)
            if other is not None and other != own and other not in MAY_IMPORT[own]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {own} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_the_layer_rule_itself():
    assert group_of("modules.commons.config") == "commons" and group_of("modules.video.reader") == "modules"
    assert group_of("numpy.linalg") is None and group_of("modules") == "modules"
    assert "tasks" not in MAY_IMPORT["data_gen"] and "data_gen" not in MAY_IMPORT["tasks"]
    found = list(imports_of(ast.parse("def f():\n    from modules import video\n    import torch.nn\n")))
    assert found == [(2, "modules"), (2, "modules.video"), (3, "torch.nn")]


def test_triton_is_imported_in_one_place_only():
    home = ROOT / "modules" / "radnerfs" / "backends" / "triton_kernels"
    wrong = (
        (path, line)
        for path, tree in TREES.items()
        if not path.is_relative_to(home)
        for line, name in imports_of(tree)
        if name.split(".")[0] == "triton"
    )
    assert not places(wrong)


def test_no_pickle_no_shell_no_eval():
    forbidden_keywords = {("shell", True), ("allow_pickle", True), ("weights_only", False)}
    forbidden_calls = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads"}

    def bad(node: ast.AST) -> bool:
        if not isinstance(node, ast.Call):
            return False
        keywords = {(k.arg, k.value.value) for k in node.keywords if isinstance(k.value, ast.Constant)}
        return bool(keywords & forbidden_keywords) or ast.unparse(node.func) in forbidden_calls

    wrong = ((path, node.lineno) for path, tree in TREES.items() for node in ast.walk(tree) if bad(node))
    assert not places(wrong)


def test_torch_load_is_told_to_load_weights_only():
    wrong = (
        (path, node.lineno)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
        if not any(keyword.arg == "weights_only" for keyword in node.keywords)
    )
    assert not places(wrong)


def test_nothing_unfinished_is_left():
    words = ("TODO", "FIXME", "XXX", "NotImplementedError")
    assert not [
        f"{path.relative_to(ROOT)}: {word}" for path in SOURCES for word in words if word in path.read_text("utf-8")
    ]


def test_every_module_imports_without_gpu_network_or_side_effects(tmp_path):
    """One process imports everything with CUDA hidden and sockets closed; nothing may be printed or written."""
    names = [dotted_name(path) for path in SOURCES if "triton_kernels" not in path.parts]
    program = f"""
import importlib, os, socket, sys
def closed(*args, **kwargs):
    raise RuntimeError("network used at import time")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = closed
sys.path.insert(0, {str(ROOT)!r})
failed = []
for name in {names!r}:
    try:
        importlib.import_module(name)
    except Exception as error:
        failed.append(f"{{name}}: {{type(error).__name__}}: {{error}}")
import torch
if torch.cuda.is_initialized():
    failed.append("CUDA was initialised at import time")
if sys.platform == "linux":
    with open("/proc/self/maps") as maps:
        files = {{line.split()[-1] for line in maps if ".so" in line}}
    outside = {{os.path.basename(f) for f in files if "site-packages" not in f and "lib-dynload" not in f}}
    failed += [f"system library {{name}} was loaded" for name in outside if not name.startswith({SYSTEM_LIBRARIES!r})]
sys.exit("\\n".join(failed) or 0)
"""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def tracked_files() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip("not a git checkout")
    return [Path(name) for name in result.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_top_level_is_the_fixed_one():
    found = {path.parts[0] for path in tracked_files()}
    assert {name for name in found if not name.startswith(".")} == TOP_LEVEL


def test_the_tree_is_small():
    sizes = {path: (ROOT / path).stat().st_size for path in tracked_files()}
    largest = sorted(sizes, key=lambda p: sizes[p], reverse=True)[:5]
    assert sum(sizes.values()) <= MAX_TREE_BYTES, [(str(p), sizes[p]) for p in largest]


def test_the_readme_is_short_and_names_only_what_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_README_LINES
    for word in text.replace("`", " ").replace("(", " ").replace(")", " ").split():
        if word.startswith(("scripts/", "inference/", "tasks/", "data_gen/", "modules/", "egs/egs_bases/")):
            path = word.rstrip(".,:;")
            assert (ROOT / path).exists(), f"README names {path}, which does not exist"


def test_the_network_guard_works():
    with socket.socket() as connection, pytest.raises(RuntimeError, match="without a network"):
        connection.connect(("127.0.0.1", 9))
    with pytest.raises(RuntimeError, match="without a network"):
        socket.create_connection(("example.org", 80))
