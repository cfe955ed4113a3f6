"""Every YAML in egs/ loads with its dataclass."""

from collections.abc import Callable
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest

from data_gen.runs.build_av_corpus import CorpusConfig
from data_gen.runs.process_config import ProcessVideoConfig
from modules.commons.config import dump_config, load_config, read_mapping
from modules.commons.workspace import EGS, ROOT
from tasks.configs import load_any

CONFIGS = sorted(EGS.rglob("*.yaml"))


def loader_of(path: Path) -> Callable[[Path], Any]:
    """Who reads this file: data_gen's two kinds by their dataclass, everything else through tasks."""
    if path.name == "corpus.yaml":
        return lambda file: load_config(file, CorpusConfig)
    if read_mapping(path).get("task") == "process_video":
        return lambda file: load_config(file, ProcessVideoConfig)
    return load_any


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(EGS)))
def test_every_config_loads_and_round_trips(path, tmp_path):
    load = loader_of(path)
    config = load(path)
    assert is_dataclass(config)
    resolved = tmp_path / "config.yaml"
    resolved.write_text(dump_config(config), encoding="utf-8")
    assert load(resolved) == config


def test_the_presets_and_the_demo_are_there():
    names = {str(path.relative_to(EGS)) for path in CONFIGS}
    assert {"egs_bases/process_video/base.yaml"} <= names
    assert {f"egs_bases/radnerf/{preset}.yaml" for preset in ("cpu", "fast", "full", "geneface")} <= names
    assert {"datasets/demo/lm3d_radnerf.yaml"} <= names


def test_no_stray_yaml():
    assert not list(EGS.rglob("*.yml")), f"{ROOT}/egs: configuration files end in .yaml"
