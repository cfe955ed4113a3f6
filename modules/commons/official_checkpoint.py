"""Checkpoint files as GeneFace++ writes them, read without running anything in them.

A run's folder holds ``model_ckpt_steps_<step>.ckpt`` (torch's file format, old or new: ``state_dict`` beside the
optimiser's and trainer's state) and ``config.yaml`` (flat keys).
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy._core import multiarray
from torch import Tensor

from modules.commons.errors import CheckpointError, ConfigError, first_line

CONFIG_NAME = "config.yaml"
_FLAT_PREFIX = "model."
_STEPS = re.compile(r"model_ckpt_steps_(\d+)\.ckpt")
_REFUSED = re.compile(r"(?:GLOBAL|Unsupported (?:global|class|operand):?)\s+(?:GLOBAL\s+)?([\w.]+)")
_PLAIN_NUMBERS = [
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    (multiarray.scalar, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(kind)) for kind in (bool, np.int32, np.int64, np.float32, np.float64)},
]
"""What NumPy numbers among a trainer's values are made of; they hold data only."""


@dataclass(frozen=True, slots=True, eq=False)
class OfficialState:
    """What a checkpoint file holds of a network.

    Attributes:
        file: it was read from.
        tensors: of the network under their official names, weight norm in its older spelling.
        step: of training; 0 where the file does not say.
    """

    file: Path
    tensors: dict[str, Tensor]
    step: int


def is_official(path: Path) -> bool:
    """Whether a path names a GeneFace++ checkpoint: a ``.ckpt`` file, or a folder of them."""
    return path.suffix == ".ckpt" or any(path.glob("model_ckpt_steps_*.ckpt"))


def newest_checkpoint(path: Path, example: str = "audio2motion_vae") -> Path:
    """The file itself, or the folder's file of most steps.

    Args:
        path: file or folder.
        example: what such a folder is called, for messages.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_dir():
        found = {int(match[1]): file for file in path.iterdir() if (match := _STEPS.fullmatch(file.name))}
        if not found:
            raise CheckpointError(f"{path}: holds no model_ckpt_steps_*.ckpt; give the folder {example}")
        return found[max(found)]
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give GeneFace++'s {example} folder or a .ckpt")
    return path


def read_official_state(file: Path) -> OfficialState:
    """The network's tensors; nothing in the file is run.

    Raises:
        CheckpointError: unreadable, something that would have to be run, or no network in it.
    """
    try:
        with torch.serialization.safe_globals(_PLAIN_NUMBERS):
            saved: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError,
        AttributeError, AssertionError,
    ) as error:  # fmt: skip
        raise CheckpointError(_why_unreadable(file, error)) from error
    state = saved.get("state_dict", saved) if isinstance(saved, dict) else None
    nested = state.get("model") if isinstance(state, dict) else None
    if isinstance(nested, dict):
        state = nested
    elif isinstance(state, dict):
        state = {str(key).removeprefix(_FLAT_PREFIX): value for key, value in state.items()}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{file}: holds no 'state_dict' of tensors; give GeneFace++'s model_ckpt_steps_*.ckpt")
    step = saved.get("global_step", 0)
    tensors = {_old_name(str(key)): value for key, value in state.items()}
    return OfficialState(file, tensors, step if isinstance(step, int) else 0)


def _why_unreadable(file: Path, error: Exception) -> str:
    refused = _REFUSED.search(str(error))
    if refused:
        return (
            f"{file}: cannot be read as a checkpoint of tensors: it wants to run {refused[1]}, which was refused, so "
            "nothing ran; get the file from GeneFace++'s authors"
        )
    return f"{file}: cannot be read as a checkpoint of tensors ({first_line(error)}); download it again"


def _old_name(key: str) -> str:
    key = key.replace("parametrizations.weight.original0", "weight_g")
    return key.replace("parametrizations.weight.original1", "weight_v")


def read_official_hparams(file: Path) -> dict[str, Any]:
    """The flat keys of a run's ``config.yaml``, its parents' below its own where they can be found.

    GeneFace++ writes the file resolved; a hand-written one may still name parents (``base_config``) that lie in
    GeneFace++'s own folder. A parent that is nowhere is left out: its values are then missing, and whoever needs one
    says so.

    Args:
        file: of the checkpoint's folder.

    Raises:
        ConfigError: missing, not YAML, no mapping, or parents that lead back to themselves.
    """
    return _read_with_parents(file, ())


def _read_with_parents(file: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    if file.resolve() in chain:
        raise ConfigError(f"{file}: base_config leads back to itself; remove one of these links")
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read as GeneFace++'s config.yaml ({first_line(error)})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: is not GeneFace++'s config.yaml, which holds keys with values")
    parents = values.pop("base_config", None) or []
    merged: dict[str, Any] = {}
    for name in [parents] if isinstance(parents, str) else parents:
        for parent in _places_of(str(name), file):
            merged = _merged(merged, _read_with_parents(parent, (*chain, file.resolve())))
    return _merged(merged, {str(key): value for key, value in values.items() if not str(key).startswith("__")})


def _places_of(parent: str, file: Path) -> list[Path]:
    """Where a parent lies: beside the file ('./name'), or below the nearest folder above it; empty when nowhere."""
    folders = [file.parent] if parent.startswith(".") else file.resolve().parents
    found = (folder / parent for folder in folders if (folder / parent).is_file())
    return list(found)[:1]


def _merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in top.items():
        below = both.get(key)
        both[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both
