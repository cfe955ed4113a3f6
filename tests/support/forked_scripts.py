"""Run scripts as ``python path/to/script.py ...`` does, several of them in forks of one process.

    python tests/support/forked_scripts.py FOLDER '[["SCRIPT", "ARGUMENT", ...], ...]'

Prints JSON, for each of them: [status, stdout, stderr].

A program of its own: it imports what is slow to import and nothing of this repository, and forks a child per script. A
child starts in an empty folder below FOLDER, with the script's own folder first on the path and nothing else of the
repository on it.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import traceback
from pathlib import Path
from typing import NoReturn

SLOW_TO_IMPORT = (
    "av", "cv2", "filterpy.kalman", "safetensors.torch", "scenedetect", "scipy.signal", "torch.utils.tensorboard",
)  # fmt: skip


def run_as_a_script(command: list[str], folder: Path) -> NoReturn:
    """The child's work; never returns."""
    status = 1
    try:
        for name, number in (("stdout", 1), ("stderr", 2)):
            os.dup2(os.open(folder.with_suffix(f".{name}"), os.O_WRONLY | os.O_CREAT, 0o644), number)
        os.chdir(folder)
        sys.argv, sys.path[0] = command, str(Path(command[0]).parent)
        runpy.run_path(command[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main(folder: Path, commands: list[list[str]]) -> None:
    """Run one script after the other and print what each did."""
    for name in SLOW_TO_IMPORT:
        importlib.import_module(name)
    own = {"modules", "data_gen", "tasks", "inference"} & set(sys.modules)
    assert not own, f"{own} must be imported by each script itself"
    results = []
    for number, command in enumerate(commands):
        place = folder / str(number)
        place.mkdir()
        child = os.fork()
        if not child:
            run_as_a_script(command, place)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = (place.with_suffix(f".{name}").read_text(encoding="utf-8") for name in ("stdout", "stderr"))
        results.append([status, *said])
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
