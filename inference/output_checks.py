"""Refusing outputs before any work is done: one sentence that names the path."""

from __future__ import annotations

import os
from pathlib import Path

from modules.commons.errors import OutputError
from modules.structures.evaluation import TRIAL_NAMES, TRIALS
from modules.structures.transfer import TRANSFER_FILE

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")


def check_output(output: Path, inputs: tuple[Path, ...], *, flag: str = "--out_name", example: str = "out.mp4") -> None:
    """Refuse an output that is an input, a folder, or in a place that cannot be written.

    Args:
        output: what is to be written.
        inputs: what must not be overwritten.
        flag: that named the output.
        example: a file name that would do.

    Raises:
        OutputError: with one sentence that names the path.
    """
    for path in inputs:
        if output.resolve() == path.resolve() or (output.exists() and os.path.samefile(output, path)):
            raise OutputError(f"{output}: the output is also an input; choose another {flag}")
    if output.is_dir():
        raise OutputError(f"{output}: the output is a folder; name a file such as {output / example}")
    _check_writable(output, output.resolve().parent, flag)


def check_folder(output: Path) -> None:
    """Refuse a report's folder that is a file, cannot be written, or holds trials that are somebody's own.

    Raises:
        OutputError: with one sentence that names the path.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file; name a folder for the report")
    _check_writable(output, output.resolve(), "folder")
    trials = output / TRIALS
    there = [path.name for path in trials.iterdir() if not path.name.startswith(".")] if trials.is_dir() else []
    foreign = [name for name in there if name.removesuffix(".part") not in (*TRIAL_NAMES, TRANSFER_FILE)]
    if foreign:
        raise OutputError(f"{trials} would be emptied, but holds {foreign[0]}, no trial; choose another folder")


def _check_writable(output: Path, folder: Path, flag: str) -> None:
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(f"{output}: cannot write to {folder}; choose another {flag}")


def check_container(output: Path) -> None:
    """Refuse a name whose suffix is no container that can be written.

    Raises:
        OutputError: with one sentence that names the path.
    """
    if output.suffix.lower() not in VIDEO_SUFFIXES:
        raise OutputError(f"{output}: no supported container; let the name end in .mp4, .mov or .mkv")


def check_motion_outputs(arkit: Path | None, npz: Path | None, inputs: tuple[Path, ...]) -> None:
    """Refuse files of facial motion that are inputs, have another suffix, or cannot be written.

    Args:
        arkit: what ``--export_arkit`` named; None = not asked for.
        npz: what ``--export_npz`` named, likewise.
        inputs: what must not be overwritten.

    Raises:
        OutputError: with one sentence that names the path.
    """
    for flag, path, suffix in (("--export_arkit", arkit, ".csv"), ("--export_npz", npz, ".npz")):
        if path is None:
            continue
        check_output(path, inputs, flag=flag, example=f"motion{suffix}")
        if path.suffix.lower() != suffix:
            raise OutputError(f"{path}: {flag} writes a {suffix} file; let the name end in {suffix}")
