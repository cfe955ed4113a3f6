"""478 face landmarks, their depth and 52 blendshape scores through MediaPipe's networks, on LiteRT or in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from data_gen.utils.mp_feature_extractors.networks import Runtime, load_network, pick_runtime
from data_gen.utils.mp_feature_extractors.region_sampler import sample_regions
from data_gen.utils.mp_feature_extractors.regions import angle_between, region_of_points
from modules.commons.workspace import MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropRegion, sample_region, transform_points
from modules.structures.landmarks import (
    BLENDSHAPE_SUBSET,
    MEDIAPIPE_BLENDSHAPES,
    OUTER_EYE_CORNERS,
    LandmarkResult,
)

TASK_FILE = "face_landmarker.task"
REGION_SCALE = 1.5
"""Side of the square the network sees over the longer extent of the face."""


def region_of_face(face: FaceDetection) -> CropRegion:
    """Square around a detected face, turned so that its eyes are level."""
    left, right = face.keypoints[0], face.keypoints[1]
    side = max(face.box.width, face.box.height) * REGION_SCALE
    return CropRegion(*face.box.center, side, angle_between(left, right))


def region_of_landmarks(points: NDArray) -> CropRegion:
    """Square around landmarks ``[478, 2]`` px, turned so that the outer eye corners are level."""
    left, right = OUTER_EYE_CORNERS
    return region_of_points(points, angle_between(points[left], points[right]), REGION_SCALE)


def region_of_box(box: BoundingBox) -> CropRegion:
    """Upright square around a face box of unknown roll."""
    return CropRegion(*box.center, max(box.width, box.height) * REGION_SCALE)


class Landmarker(Protocol):
    """What finds landmarks inside a region of an image."""

    def detect(self, rgb: NDArray[np.uint8], region: CropRegion | BoundingBox) -> LandmarkResult:
        """Landmarks in pixels of ``rgb``."""
        ...


class FaceLandmarker:
    """MediaPipe's face mesh, without MediaPipe.

    Args:
        models: folder that holds ``face_landmarker.task``.
        blendshapes: also run the blendshape network (0.7 ms on a CPU core); zeros otherwise.
        scores_later: leave the blendshape scores zero until ``with_scores`` computes them for many faces at once: on
            a GPU one face takes it as long as a hundred.
        runtime: what the networks run on; by default torch on CUDA and LiteRT elsewhere.
    """

    def __init__(
        self,
        *,
        models: Path = MEDIAPIPE_DIR,
        blendshapes: bool = True,
        scores_later: bool = False,
        runtime: Runtime | None = None,
    ) -> None:
        task, self._runtime = models / TASK_FILE, runtime or pick_runtime()
        self._mesh = load_network(self._runtime, task, "face_landmarks_detector.tflite")
        self._size = self._mesh.input_shape[1]
        self._blendshapes = load_network(self._runtime, task, "face_blendshapes.tflite") if blendshapes else None
        self._scores_later = scores_later
        self._subset = np.array(BLENDSHAPE_SUBSET)

    def detect(self, rgb: NDArray[np.uint8], region: CropRegion | BoundingBox) -> LandmarkResult:
        """Landmarks of the face inside ``region``.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            region: the square to look through (``region_of_face``, ``region_of_landmarks``), or a face box.

        Returns:
            Points in pixels of ``rgb``; the score says whether there is a face at all, not whether it is visible:
            a covered mouth still gets lips.
        """
        square = region_of_box(region) if isinstance(region, BoundingBox) else region
        (result,) = self._results([square], self._mesh.run_images(sample_region(rgb, square, self._size)[None]))
        return result

    def detect_many(
        self, images: Sequence[NDArray[np.uint8]], regions: Sequence[CropRegion | BoundingBox]
    ) -> list[LandmarkResult]:
        """Landmarks of many faces at once: of image ``i`` inside region ``i``, as ``detect`` gives them.

        On CUDA the regions are cut out on the GPU, which rounds colours within one unit of ``detect``'s: landmarks
        differ by some hundredths of a pixel at most.

        Args:
            images: ``[H, W, 3]`` uint8 each, of any size; the same one again for several faces of one frame.
            regions: one per image.
        """
        squares = [region_of_box(r) if isinstance(r, BoundingBox) else r for r in regions]
        if not squares:
            return []
        crops = sample_regions(images, squares, self._size, self._runtime.device)
        return self._results(squares, self._mesh.run_images(crops))

    def with_scores(self, results: Sequence[LandmarkResult]) -> list[LandmarkResult]:
        """The results with the blendshape scores that ``scores_later`` put off; as they are where nothing was."""
        if not self._scores_later or not results:
            return list(results)
        scores = self._scores(np.stack([result.points for result in results]))
        return [replace(result, blendshapes=row) for result, row in zip(results, scores, strict=True)]

    def _results(
        self, squares: Sequence[CropRegion], outputs: Mapping[str, NDArray[np.float32]]
    ) -> list[LandmarkResult]:
        meshes = outputs["Identity"].reshape(len(squares), -1, 3)
        presences = expit(outputs["Identity_1"].reshape(-1))
        points = np.stack(
            [
                transform_points(square.frame_from_crop(self._size), mesh[:, :2].astype(np.float64))
                for square, mesh in zip(squares, meshes, strict=True)
            ]
        ).astype(np.float32)
        scores = np.zeros((len(points), len(MEDIAPIPE_BLENDSHAPES)), np.float32)
        if not self._scores_later:
            scores = self._scores(points)
        return [
            LandmarkResult(
                points[i],
                (meshes[i, :, 2] * (square.side / self._size)).astype(np.float32),
                float(presences[i]),
                scores[i],
            )
            for i, square in enumerate(squares)
        ]

    def _scores(self, points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Blendshape scores ``[B, 52]`` of landmarks ``[B, 478, 2]``."""
        if self._blendshapes is None:
            return np.zeros((len(points), len(MEDIAPIPE_BLENDSHAPES)), dtype=np.float32)
        (scores,) = self._blendshapes.run(points[:, self._subset]).values()
        return scores.astype(np.float32)


def detect_all(landmarker: Landmarker, looks: Sequence[tuple[NDArray[np.uint8], CropRegion]]) -> list[LandmarkResult]:
    """Landmarks of each (image, region): several at once where the landmarker can."""
    if len(looks) > 1 and isinstance(landmarker, FaceLandmarker):
        return landmarker.detect_many([rgb for rgb, _ in looks], [region for _, region in looks])
    return [landmarker.detect(rgb, region) for rgb, region in looks]


def build_landmarker(
    extractor: Literal["auto", "litert", "torch", "mediapipe"] = "auto",
    *,
    models: Path = MEDIAPIPE_DIR,
    runtime: Runtime | None = None,
    scores_later: bool = False,
) -> Landmarker:
    """The landmarker a configuration names.

    Args:
        extractor: runtime of the networks (``pick_runtime``), or the ``mediapipe`` package.
        models: folder of MediaPipe's models.
        runtime: instead of what ``extractor`` picks, where it was picked before.
        scores_later: see ``FaceLandmarker``; MediaPipe scores at once.

    Raises:
        BackendUnavailableError: when what is named cannot be imported here.
    """
    if extractor != "mediapipe":
        return FaceLandmarker(models=models, scores_later=scores_later, runtime=runtime or pick_runtime(extractor))
    from data_gen.utils.mp_feature_extractors.mediapipe_backend import MediaPipeLandmarker

    return MediaPipeLandmarker(models=models)
