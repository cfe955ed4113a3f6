"""load_config: inheritance, strictness with file:line, and the round trip through dump_config."""

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.commons.config import dump_config, load_config, read_mapping
from modules.commons.errors import ConfigError


@dataclass(frozen=True)
class Inner:
    lr: float = 1e-3
    widths: tuple[int, ...] = (8, 8)
    mode: Literal["fast", "slow"] = "fast"


@dataclass(frozen=True)
class Outer:
    name: str
    steps: int = 10
    ratio: float | None = None
    verbose: bool = False
    file: Path = Path("x")
    size_hw: tuple[int, int] = (4, 6)
    weights: dict[str, float] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    amount: int | float = 1
    inner: Inner = Inner()


@dataclass(frozen=True)
class Positive:
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be positive, got {self.count}")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def load(tmp_path: Path, text: str, cls=Outer, **overrides):
    return load_config(write(tmp_path / "a.yaml", text), cls, overrides)


def test_values_follow_the_type_hints(tmp_path):
    text = """
name: may
steps: 25_0000
ratio: 1e-4
verbose: true
file: data/x.mp4
size_hw: [3, 5]
weights: {lips: 1, face: 0.5}
tags: [a, "1"]
amount: 3
inner: {lr: 2, widths: [], mode: slow}
"""
    expected = Outer("may", 250000, 1e-4, True, Path("data/x.mp4"), (3, 5), {"lips": 1.0, "face": 0.5}, ["a", "1"])
    expected = dataclasses.replace(expected, amount=3, inner=Inner(2.0, (), "slow"))
    loaded = load(tmp_path, text)
    assert loaded == expected
    assert type(loaded.inner.lr) is float and type(loaded.amount) is int


def test_text_that_looks_like_old_yaml_stays_text(tmp_path):
    assert load(tmp_path, "name: no").name == "no"
    assert load(tmp_path, "name: 16:9").name == "16:9"
    assert load(tmp_path, "name: 2024-01-02").name == "2024-01-02"


def test_parents_are_merged_depth_first_and_deeply(tmp_path):
    write(tmp_path / "root.yaml", "name: root\nsteps: 1\ninner: {lr: 0.5, mode: slow}\n")
    write(tmp_path / "sub/mid.yaml", "base_config: ../root.yaml\nsteps: 2\ninner: {lr: 0.25}\n")
    write(tmp_path / "other.yaml", "verbose: true\nsteps: 3\n")
    text = "base_config: [./sub/mid.yaml, ./other.yaml]\ninner: {widths: [1]}\n"
    assert load(tmp_path, text) == Outer("root", 3, verbose=True, inner=Inner(0.25, (1,), "slow"))


def test_overrides_come_last_and_are_read_as_yaml(tmp_path):
    path = write(tmp_path / "a.yaml", "name: a\ninner: {lr: 1}\n")
    overrides = {"inner.lr": "1e-4", "size_hw": "[1, 2]", "verbose": "true", "ratio": "", "name": "'7'"}
    loaded = load_config(path, Outer, overrides)
    assert loaded == Outer("7", size_hw=(1, 2), verbose=True, inner=Inner(1e-4))


def test_an_override_is_data_never_code(tmp_path):
    path = write(tmp_path / "a.yaml", "name: a\n")
    loaded = load_config(path, Outer, {"name": "__import__('os').getcwd()"})
    assert loaded.name == "__import__('os').getcwd()"
    with pytest.raises(ConfigError, match="override steps"):
        load_config(path, Outer, {"steps": "!!python/object/apply:os.getcwd []"})


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("name: a\nstesp: 3\n", 2, "unknown key stesp; did you mean steps?"),
        ("name: a\ninner:\n  lr: 1\n  zzz: 1\n", 4, "unknown key inner.zzz; known keys: lr, mode, widths"),
        ("name: a\nsteps: 1\nsteps: 2\n", 3, "steps stands twice (first on line 2)"),
        ("name: a\ninner: {lr: 1,\n lr: 2}\n", 3, "lr stands twice"),
        ("name: a\nsteps: 1.5\n", 2, "steps must be an int, got float 1.5"),
        ("name: a\nsteps: true\n", 2, "steps must be an int, got bool True"),
        ("name: a\nverbose: 1\n", 2, "verbose must be a bool, got int 1"),
        ("name: 12\n", 1, "name must be a str, got int 12; put it in quotes"),
        ("name: a\ninner: 3\n", 2, "inner must be a mapping (Inner), got int 3"),
        ("name: a\ninner: {mode: medium}\n", 2, "inner.mode must be one of 'fast', 'slow', got str 'medium'"),
        ("name: a\nsize_hw: [1]\n", 2, "size_hw must be a list of 2"),
        ("name: a\nsize_hw:\n- 1\n- b\n", 4, "size_hw[1] must be an int, got str 'b'"),
        ("name: a\nweights: {x: y}\n", 2, "weights.x must be a float"),
        ("name: a\namount: x\n", 2, "amount must be int or float, got str 'x'"),
        ("steps: 1\n", 1, "missing key name"),
        ("name: [a\n", 2, "not valid YAML"),
        ("- a\n", 1, "must hold 'key: value' lines, got a list"),
        ("name: a\n? [x]\n: 1\n", 2, "a key must be plain text"),
        ("name: a\nweights: &w\n  x: *w\n", 2, "refers to itself"),
        ("name: a\nbase_config: 3\n", 2, "base_config must be a path"),
        ("name: a\nbase_config: ./none.yaml\n", 2, "is not a file"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, text, line, words):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert f"a.yaml:{line}: " in message
    assert words in message
    assert "\n" not in message


def test_a_mistake_in_a_parent_is_reported_there(tmp_path):
    write(tmp_path / "base.yaml", "\n\nsteps: many\n")
    with pytest.raises(ConfigError, match=r"base\.yaml:3: steps must be an int"):
        load(tmp_path, "base_config: ./base.yaml\nname: a\n")


def test_circular_parents_are_refused(tmp_path):
    write(tmp_path / "b.yaml", "base_config: ./a.yaml\n")
    with pytest.raises(ConfigError, match="leads back to itself"):
        load(tmp_path, "base_config: ./b.yaml\nname: a\n")


def test_one_parent_reached_twice_is_no_circle(tmp_path):
    write(tmp_path / "root.yaml", "name: r\n")
    write(tmp_path / "b.yaml", "base_config: ./root.yaml\n")
    assert load(tmp_path, "base_config: [./root.yaml, ./b.yaml]\n").name == "r"


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot read this configuration \(no such file\)"):
        load_config(tmp_path / "none.yaml", Outer, {})
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.yaml: cannot read"):
        load_config(tmp_path / "binary.yaml", Outer, {})


def test_a_dataclass_that_refuses_its_values_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"a\.yaml:1: Positive is not valid: count must be positive"):
        load(tmp_path, "count: 0\n", Positive)


def test_only_plain_data_is_accepted(tmp_path):
    for value in ("!!python/object/apply:os.system [ls]", "!custom x", "!!python/name:os.system"):
        with pytest.raises(ConfigError, match=r"a\.yaml:1: tag .* is not allowed"):
            load(tmp_path, f"name: {value}\n")


def test_read_mapping_merges_without_checking(tmp_path):
    write(tmp_path / "b.yaml", "task: head\nx: {y: 1}\n")
    path = write(tmp_path / "a.yaml", "base_config: ./b.yaml\nx: {z: [1, two]}\n")
    assert read_mapping(path) == {"task": "head", "x": {"y": 1, "z": [1, "two"]}}


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
floats = st.floats(allow_nan=False)
inners = st.builds(Inner, floats, st.lists(st.integers(), max_size=4).map(tuple), st.sampled_from(["fast", "slow"]))
outers = st.builds(
    Outer,
    name=texts,
    steps=st.integers(),
    ratio=st.none() | floats,
    verbose=st.booleans(),
    size_hw=st.tuples(st.integers(), st.integers()),
    weights=st.dictionaries(texts, floats, max_size=3),
    tags=st.lists(texts, max_size=3),
    amount=st.integers() | floats,
    inner=inners,
)


@given(outers)
def test_dump_and_load_round_trip(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(dump_config(config), encoding="utf-8", newline="")
    assert load_config(path, Outer, {}) == config


@pytest.mark.parametrize(
    "name",
    [
        "yes",
        "1e-4",
        "12",
        "0o17",
        "null",
        "~",
        "",
        "a: b",
        "# x",
        "16:9",
        "1_000",
        "=",
        "<<",
        "\x85",
        "a\u2028b",
        "\u2029",
        "\ufeff",
        "\r\n",
    ],
)
def test_awkward_text_survives(tmp_path, name):
    path = write(tmp_path / "a.yaml", dump_config(Outer(name, tags=[name], weights={name: 1.0})))
    loaded = load_config(path, Outer, {})
    assert (loaded.name, loaded.tags, loaded.weights) == (name, [name], {name: 1.0})


def test_infinity_survives(tmp_path):
    path = write(tmp_path / "a.yaml", dump_config(Outer("a", ratio=math.inf)))
    assert load_config(path, Outer, {}).ratio == math.inf
