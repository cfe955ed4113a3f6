"""A hand with forearm that can be posed: part of MakeHuman's CC0 body, for putting something before faces in tests.

Reads: ``checkpoints/occluder_set/hand.npz``, made by ``data_gen/runs/build_occluder_hand.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import ModelFileError

HAND_SCHEMA = "occluder-hand/1"
FINGERS = ("finger1", "finger2", "finger3", "finger4", "finger5")
"""Thumb to little finger, as the rig names them; each has three bones ``-1`` to ``-3``."""


@dataclass(frozen=True, slots=True)
class FingerPose:
    """How far the fingers are bent.

    Attributes:
        curl: thumb to little finger, 0 (straight) to 1 (closed).
        spread: 0 (side by side) to 1 (fanned out).
        wrist_rad: bend of the wrist towards the palm.
    """

    curl: tuple[float, float, float, float, float]
    spread: float = 0.3
    wrist_rad: float = 0.0


FLAT = FingerPose((0.15, 0.06, 0.04, 0.06, 0.10), spread=0.15)
SPREAD = FingerPose((0.0, 0.10, 0.08, 0.10, 0.12), spread=1.0)
FIST = FingerPose((0.75, 1.0, 1.0, 1.0, 1.0), spread=0.0, wrist_rad=0.1)
POINTING = FingerPose((0.8, 0.05, 1.0, 1.0, 1.0), spread=0.0)
RELAXED = FingerPose((0.3, 0.35, 0.40, 0.45, 0.5), spread=0.3, wrist_rad=0.15)


@dataclass(frozen=True, slots=True, eq=False)
class HandMesh:
    """A left hand and forearm at rest. Units dm; wrist at the origin, fingers along +y, the palm faces +z.

    Attributes:
        vertices: float64 ``[V, 3]``. triangles: int64 ``[F, 3]``, counter-clockwise seen from outside.
        weights: float64 ``[V, J]``, rows sum to 1: how much each bone moves each vertex.
        heads: float64 ``[J, 3]``: where each bone turns. tails: its other end.
        parents: int64 ``[J]``; -1 for the forearm, and parents come before their children.
        names: the rig's names, one for each bone.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int64]
    weights: NDArray[np.float64]
    heads: NDArray[np.float64]
    tails: NDArray[np.float64]
    parents: NDArray[np.int64]
    names: tuple[str, ...]

    def posed(self, pose: FingerPose) -> NDArray[np.float64]:
        """Vertices ``[V, 3]`` dm with the fingers bent, by linear blend skinning."""
        world = np.tile(np.eye(4), (len(self.names), 1, 1))
        for bone, parent in enumerate(self.parents):
            above = world[parent] if parent >= 0 else np.eye(4)
            world[bone] = above @ _about(self.heads[bone], self._turn(bone, pose))
        homogeneous = np.concatenate([self.vertices, np.ones((len(self.vertices), 1))], axis=1)
        return np.einsum("vj,jab,vb->va", self.weights, world[:, :3], homogeneous)

    def _turn(self, bone: int, pose: FingerPose) -> NDArray[np.float64]:
        """Rotation ``[3, 3]`` of a bone against its parent."""
        name = self.names[bone]
        if name == "wrist":
            return _rotation(np.array([1.0, 0.0, 0.0]), pose.wrist_rad)
        finger = name.partition("-")[0]
        if finger not in FINGERS:
            return np.eye(3)
        along = self.tails[bone] - self.heads[bone]
        along /= np.linalg.norm(along)
        number, joint = FINGERS.index(finger), int(name.rpartition("-")[2])
        if number == 0:
            # the thumb closes across the palm, not towards it
            axis, reach = np.array([0.1, 0.75, -0.45]), (0.45, 0.55, 0.9)[joint - 1]
        else:
            axis, reach = np.cross(along, [0.0, 0.0, 1.0]), (1.35, 1.65, 1.15)[joint - 1]
        bent = _rotation(axis / np.linalg.norm(axis), reach * pose.curl[number])
        if joint == 1 and number:
            fan = (0.22, 0.04, -0.12, -0.3)[number - 1] * (pose.spread - 0.3)
            return bent @ _rotation(np.array([0.0, 0.0, 1.0]), fan)
        return bent

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` without pickle, through a temporary name; weights keep three digits."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.tmp.npz")
        np.savez_compressed(
            temporary,
            schema=np.array(HAND_SCHEMA),
            vertices=self.vertices.astype(np.float32),
            triangles=self.triangles.astype(np.uint16),
            weights=np.round(self.weights * 1000).astype(np.uint16),
            heads=self.heads.astype(np.float32),
            tails=self.tails.astype(np.float32),
            parents=self.parents.astype(np.int8),
            names=np.array(self.names),
        )
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> HandMesh:
        """Read what ``save`` wrote.

        Raises:
            ModelFileError: when the file is missing or of another schema.
        """
        try:
            with np.load(path, allow_pickle=False) as data:
                if str(data["schema"]) != HAND_SCHEMA:
                    raise ModelFileError(f"{path} is not of schema {HAND_SCHEMA}; check out the file again")
                weights = data["weights"].astype(np.float64)
                return cls(
                    data["vertices"].astype(np.float64),
                    data["triangles"].astype(np.int64),
                    weights / weights.sum(axis=1, keepdims=True),
                    data["heads"].astype(np.float64),
                    data["tails"].astype(np.float64),
                    data["parents"].astype(np.int64),
                    tuple(str(name) for name in data["names"]),
                )
        except (OSError, ValueError, KeyError) as error:
            raise ModelFileError(f"{path} cannot be read ({error}); check out the file again") from error


def _about(center: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[4, 4]`` map that turns about a point."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = center - rotation @ center
    return matrix


def _rotation(axis: NDArray[np.float64], angle_rad: float) -> NDArray[np.float64]:
    """``[3, 3]`` rotation about a unit axis, counter-clockwise seen from its tip (Rodrigues' formula)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle_rad) * cross + (1 - math.cos(angle_rad)) * cross @ cross
