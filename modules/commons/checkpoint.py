"""Checkpoints: a directory of safetensors, the resolved configuration and a small JSON that ties them together.

``model.safetensors`` (and any further named tensor file, such as ``optimizer.safetensors``), ``config.yaml``,
``checkpoint.json`` (schema, step, face model version, size and sha256 of each tensor file, free extras). Nothing in it
can run code when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from modules.commons.config import dump_config, load_config
from modules.commons.errors import CheckpointError, OutputError

CHECKPOINT_SCHEMA = "checkpoint/1"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        directory: where it was read from.
        tensors: ``{"model": {name: tensor}, "optimizer": {...}}``, one entry per tensor file that was asked for.
        step: training step it was saved at.
        face_model_version: version of the 3DMM its coefficients belong to; empty when it uses none.
        extra: JSON values the saver added.
    """

    directory: Path
    tensors: dict[str, dict[str, Tensor]]
    step: int
    face_model_version: str
    extra: dict[str, Any]

    @property
    def model(self) -> dict[str, Tensor]:
        return self.tensors["model"]

    def config(self, cls: type[T]) -> T:
        """The saved configuration as ``cls``.

        Raises:
            ConfigError: when it does not fit; the message holds file and line.
        """
        return load_config(self.directory / "config.yaml", cls, {})


def save_checkpoint(
    directory: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Any,
    step: int,
    extra: Mapping[str, Any] | None = None,
    *,
    face_model_version: str = "",
    kept: Collection[str] = (),
) -> None:
    """Write a checkpoint beside its final place, then move it there: readers see the old one or the new one.

    Args:
        directory: the checkpoint; an older one there is replaced.
        tensors: tensor files by name; ``"model"`` must be among them.
        config: the resolved configuration (a dataclass instance).
        step: training step, >= 0.
        extra: further JSON values.
        face_model_version: version of the 3DMM the coefficients belong to.
        kept: names of files there that the caller writes again, so that they are no loss.

    Raises:
        OutputError: the directory cannot be written, or holds something else than a checkpoint, which would be lost.
    """
    if "model" not in tensors or any(isinstance(group, Tensor) for group in tensors.values()):
        raise ValueError("tensors must be {'model': {name: tensor}, ...}")
    directory = Path(directory)
    partial = directory.with_name(f"{directory.name}.tmp.{os.getpid()}")
    try:
        _refuse_to_replace_others(directory, kept)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_files(partial, tensors, config, step, dict(extra or {}), face_model_version)
        _replace_directory(partial, directory)
    except OSError as error:
        raise OutputError(f"{directory}: cannot write the checkpoint ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(
    directory: Path, *, device: torch.device | str = "cpu", parts: Collection[str] | None = None
) -> Checkpoint:
    """Read and verify a checkpoint.

    Args:
        directory: the checkpoint.
        device: where the tensors go.
        parts: names of the tensor files to load (``{"model"}`` is enough for inference); None loads all.

    Raises:
        CheckpointError: missing, truncated, altered, or not a checkpoint of this project.
    """
    directory = Path(directory)
    _finish_interrupted_replace(directory)
    header = _read_header(directory)
    wanted = header["files"] if parts is None else {name: header["files"].get(name) for name in parts}
    tensors = {name: _read_tensors(directory, name, record, device) for name, record in wanted.items()}
    if not (directory / "config.yaml").is_file():
        raise CheckpointError(f"{directory}: config.yaml is missing; restore it or train again.")
    return Checkpoint(directory, tensors, header["step"], header["face_model_version"], header["extra"])


def is_checkpoint(directory: Path) -> bool:
    """Whether something that calls itself a checkpoint lies there (``load_checkpoint`` verifies it)."""
    _finish_interrupted_replace(Path(directory))
    return (Path(directory) / "checkpoint.json").is_file()


def _write_files(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Any,
    step: int,
    extra: dict[str, Any],
    face_model_version: str,
) -> None:
    records = {}
    for name, group in tensors.items():
        file = folder / f"{name}.safetensors"
        # clone: safetensors refuses tensors that share memory, which tied weights and views do
        save_file({key: value.detach().cpu().contiguous().clone() for key, value in group.items()}, file)
        records[name] = {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (folder / "config.yaml").write_text(dump_config(config), encoding="utf-8")
    header = {
        "schema": CHECKPOINT_SCHEMA,
        "step": step,
        "face_model_version": face_model_version,
        "files": records,
        "extra": extra,
    }
    (folder / "checkpoint.json").write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")


def _refuse_to_replace_others(directory: Path, kept: Collection[str]) -> None:
    """What is replaced is deleted: only an older checkpoint, or an empty folder, may be."""
    if not directory.exists() or (directory / "checkpoint.json").is_file():
        return
    if {path.name for path in directory.iterdir()} - set(kept):
        raise OutputError(f"{directory}: holds other things than a checkpoint, which would be lost; give another name.")


def _previous(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.tmp.previous")


def _replace_directory(partial: Path, directory: Path) -> None:
    """Put ``partial`` in ``directory``'s place; a directory cannot be renamed over one that holds files."""
    _finish_interrupted_replace(directory)
    previous = _previous(directory)
    shutil.rmtree(previous, ignore_errors=True)
    if directory.exists():
        directory.rename(previous)
    partial.rename(directory)
    shutil.rmtree(previous, ignore_errors=True)


def _finish_interrupted_replace(directory: Path) -> None:
    """A run that died between the two renames left the good checkpoint under the other name: bring it back."""
    previous = _previous(directory)
    if previous.is_dir() and not directory.exists():
        previous.rename(directory)


def _read_header(directory: Path) -> dict[str, Any]:
    file = directory / "checkpoint.json"
    if not file.is_file():
        found = "no such directory" if not directory.exists() else "it has no checkpoint.json"
        raise CheckpointError(f"{directory}: not a checkpoint ({found}); give the directory that training wrote.")
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read as JSON ({error}); train again or restore the file.") from error
    schema = header.get("schema") if isinstance(header, dict) else None
    if schema != CHECKPOINT_SCHEMA:
        raise CheckpointError(f"{file}: schema is {schema!r}, this version reads {CHECKPOINT_SCHEMA!r}; train again.")
    expected = {"step": int, "face_model_version": str, "files": dict, "extra": dict}
    wrong = [key for key, kind in expected.items() if not isinstance(header.get(key), kind)]
    if wrong:
        raise CheckpointError(f"{file}: {', '.join(wrong)} missing or of the wrong type; train again.")
    return header


def _read_tensors(directory: Path, name: str, record: Any, device: torch.device | str) -> dict[str, Tensor]:
    file = directory / f"{name}.safetensors"
    if not isinstance(record, dict):
        raise CheckpointError(f"{directory}: this checkpoint holds no {name!r} tensors; it was saved without them.")
    try:
        blob = file.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{file}: cannot be read ({error.strerror}); restore the checkpoint or train again."
        ) from error
    if len(blob) != record.get("size"):
        raise CheckpointError(
            f"{file}: {len(blob)} bytes where {record.get('size')} were saved; restore the checkpoint or train again."
        )
    if hashlib.sha256(blob).hexdigest() != record.get("sha256"):
        raise CheckpointError(f"{file}: its content does not match checkpoint.json; restore it or train again.")
    try:
        return {key: value.to(device) for key, value in load(blob).items()}
    except SafetensorError as error:
        raise CheckpointError(f"{file}: not a safetensors file ({error}); restore it or train again.") from error
