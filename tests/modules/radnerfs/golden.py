"""Golden arrays of the original GeneFace++ and the deterministic weights they were made with.

The weights are not stored: a splitmix64 stream, seeded with the CRC of a parameter's name, is scaled by rules on name
and shape. Tests that need the arrays skip where the folder is absent.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modules.commons.workspace import ROOT
from modules.radnerfs.backends.base import GridLevels
from modules.radnerfs.portrait import Portrait, official_names, portrait_names

FOLDER = Path(os.environ.get("GENEFACE_FIXTURES", ROOT.parent / "shared" / "fixtures" / "geneface"))
KEPT = {"aabb_train", "aabb_infer", "density_grid", "density_grid_torso", "resample_filter", "lambda_ambient"}
CODES = {"individual_embeddings", "torso_individual_codes"}


def load(name: str) -> dict[str, np.ndarray]:
    """Arrays of one fixture file; skips the test where the fixtures are not on this machine."""
    return dict(np.load(_existing(f"{name}.npz"), allow_pickle=False))


def load_json(name: str) -> dict:
    return json.loads(_existing(f"{name}.json").read_text())


def _existing(name: str) -> Path:
    if not (FOLDER / name).is_file():
        pytest.skip(f"golden fixture {name} is not on this machine")
    return FOLDER / name


def uniform(count: int, seed: int) -> np.ndarray:
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) / float(1 << 24)).astype(np.float32)


def symmetric(shape: tuple[int, ...], name: str, scale: float = 1.0) -> np.ndarray:
    """float32 in ±scale, fixed by ``name``."""
    values = 2.0 * uniform(int(np.prod(shape)), zlib.crc32(name.encode())) - 1.0
    return (values * np.float32(scale)).astype(np.float32).reshape(shape)


def fill(module: torch.nn.Module) -> None:
    """Give every float parameter and buffer its golden value."""
    module.load_state_dict(filled(module.state_dict(), _grids(module)))


def fill_portrait(portrait: Portrait) -> None:
    """The same for a portrait, whose golden values go by GeneFace++'s names."""
    grids = {official(name): levels for name, levels in _grids(portrait).items()}
    portrait.load_state_dict(portrait_names(filled(official_names(portrait.state_dict()), grids)))


def official(name: str) -> str:
    return name.removeprefix("head.").removeprefix("torso.")


def _grids(module: torch.nn.Module) -> dict[str, GridLevels]:
    return {f"{name}.embeddings": part.levels for name, part in module.named_modules() if hasattr(part, "levels")}


def filled(state: Mapping[str, Tensor], grids: Mapping[str, GridLevels]) -> dict[str, Tensor]:
    """Every float tensor of a state by its name and shape; ``grids`` are the levels of its embeddings."""
    return {
        key: torch.from_numpy(_value(key, tuple(tensor.shape), grids.get(key)))
        if tensor.dtype.is_floating_point and key.split(".")[-1] not in KEPT
        else tensor
        for key, tensor in state.items()
    }


def _value(key: str, shape: tuple[int, ...], levels) -> np.ndarray:
    values = symmetric(shape, key)
    if levels is not None:
        for start, end, resolution in zip(levels.offsets, levels.offsets[1:], levels.resolutions, strict=False):
            values[start:end] *= np.float32(16.0 / resolution)
        return values
    last = key.split(".")[-1]
    if last in CODES:
        return np.float32(0.2) * values
    if last == "noise_strength":
        return np.zeros(shape, np.float32)
    if last == "noise_const":
        return values
    if len(shape) < 2:
        return np.float32(0.1) * values
    gain = 18.0 if key.split(".")[0] in ("ambient_net", "sigma_net", "color_net") else 3.0
    values = np.float32(np.sqrt(gain / np.prod(shape[1:]))) * values
    if key == "sigma_net.net.2.weight":
        values[0] *= np.float32(8.0)
    return values


def analytic_density() -> Tensor:
    """``[128³]`` density of an ellipsoid, x slowest."""
    g = torch.arange(128).float() * 2 / 127 - 1
    x, y, z = torch.meshgrid(g, g, g, indexing="ij")
    return (30 * torch.exp(-2.0 * ((x / 0.40) ** 2 + (y / 0.30) ** 2 + (z / 0.30) ** 2))).reshape(-1)
