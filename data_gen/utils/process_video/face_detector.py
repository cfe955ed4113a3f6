"""Find faces, follow them through a video and choose a stable crop.

A detector (CenterFace, or one of ``detector_backends``) acquires faces on the whole frame and audits them; a found face
is followed by its own landmarks (``face_tracker``), so the cost hardly depends on the size of the frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Unpack

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker
from data_gen.utils.mp_feature_extractors.networks import Runtime, pick_runtime
from data_gen.utils.process_video.centerface import suppress
from data_gen.utils.process_video.detector_backends import Backend, ModelFiles, build_finder
from data_gen.utils.process_video.face_roll import RollFinder, faces_in_turned, looks_upright
from data_gen.utils.process_video.landmark_track import track_in_memory
from data_gen.utils.process_video.stable_crop import CropTables, stable_crop
from data_gen.utils.process_video.tracker_state import FollowConfig
from modules.commons.workspace import CENTERFACE_FILE, MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropMetadata
from modules.structures.frames import Frame
from modules.structures.tracks import FaceTrack

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """What counts as a face and how hard to look.

    CenterFace finds a face for certain from about 27 px of what it sees: one of 40 px at 1280 in 1080p and at 2560 in
    4K; most of 24 px at the frame's own size. A look at 16:9 takes 95, 350, 1,450 and 3,500 ms of one (shared) core at
    640, 1280, 2560 and 3840.

    Attributes:
        min_score: detections below it are dropped; None takes the backend's own usual threshold.
        max_sides: longer sides of what the network sees, tried in turn until a face is found; the first is the cheap
            look of every acquisition, the others find small faces in large frames.
    """

    min_score: float | None = None
    max_sides: tuple[int, ...] = (640, 1280, 2560, 3840)


class FaceDetector:
    """Faces in images and in streams of frames.

    Args:
        backend: ``auto`` takes CenterFace when its file is there and BlazeFace otherwise, and logs which; the others
            are described in ``detector_backends``. One that is named but cannot run raises.
        config: thresholds and scales.
        centerface: CenterFace's weights.
        mediapipe: folder of MediaPipe's models.
        files: where all weights lie, instead of the two before.
        runtime: what the project's own networks run on; by default torch on CUDA, OpenCV and LiteRT elsewhere.

    Raises:
        BackendUnavailableError: when the package or the weights of a named backend are missing.
        ModelFileError: when a model file of the project is missing.
    """

    def __init__(
        self,
        backend: Backend = "auto",
        *,
        config: DetectorConfig | None = None,
        centerface: Path = CENTERFACE_FILE,
        mediapipe: Path = MEDIAPIPE_DIR,
        files: ModelFiles | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        self.config, self._runtime = config or DetectorConfig(), runtime or pick_runtime()
        files = files or ModelFiles(centerface=centerface, mediapipe=mediapipe)
        if backend == "auto":
            backend = "centerface" if files.centerface.is_file() else "blazeface"
            logger.info("face detector: %s", backend)
        self.backend: Backend = backend
        self._finder = build_finder(backend, files, self.config.min_score, self._runtime)
        self._mediapipe = files.mediapipe

    def detect_face_bbox(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int | None = None
    ) -> list[FaceDetection]:
        """Faces in an RGB image, largest first: boxes from forehead to chin, five key points each.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            area: look only here.
            max_side: look once at this size of the longer side; by default ever finer looks until a face is found.
        """
        longer = max(rgb.shape[:2]) if area is None else max(area.width, area.height)
        if max_side is not None:
            return self._finder.detect(rgb, area, max_side=max_side)
        for side in self.config.max_sides:
            faces = self._finder.detect(rgb, area, max_side=side)
            if faces or side >= longer:
                return faces
        return []

    def detect_any_roll(
        self,
        rgb: NDArray[np.uint8],
        area: BoundingBox | None = None,
        *,
        max_side: int | None = None,
        turn: bool = True,
    ) -> list[FaceDetection]:
        """Faces at any roll, largest first.

        Faces whose key points are not plainly those of an upright one get them from four cheap looks, so that the line
        of the eyes gives the roll and ``region_of_face`` a square turned with the head. The first key point is the eye
        that is image-left on the upright face.

        Args:
            rgb: ``[H, W, 3]`` uint8.
            area: look only here.
            max_side: look at this size of the longer side; by default at the first of the configured ones.
            turn: when there is no face, look at the picture turned by 90°, 180° and 270° too: four times the cost.
        """
        side = max_side or self.config.max_sides[0]
        faces = self._finder.detect(rgb, area, max_side=side)
        if faces or not turn:
            return [face if looks_upright(face) else self._roll_finder.settle(rgb, face) or face for face in faces]
        height, width = rgb.shape[:2]
        bounds = (area or BoundingBox(0, 0, width, height)).pixel_bounds(width, height)
        if bounds is None:
            return []
        x0, y0, x1, y1 = bounds
        turned = [
            self._roll_finder.settle(rgb, face.shifted(x0, y0))
            for quarters in (1, 2, 3)
            for face in faces_in_turned(self._finder, rgb[y0:y1, x0:x1], quarters, side)
        ]
        return _best_of_each([face for face in turned if face is not None])

    @cached_property
    def _roll_finder(self) -> RollFinder:
        return RollFinder(self._mediapipe, runtime=self._runtime)

    def track_faces(self, frames: Iterable[Frame], *, audit_s: float = 0.5) -> list[FaceTrack]:
        """Follow every face of a short clip; the one with the most face area over time comes first.

        Whole videos go through the stages of ``data_gen/runs/process_video.py``, which keep landmarks on disk.

        Args:
            frames: upright frames in presentation order.
            audit_s: seconds between whole-frame looks for new faces.
        """
        follow = FollowConfig(audit_s=audit_s)
        landmarker = FaceLandmarker(models=self._mediapipe, runtime=self._runtime)
        table = track_in_memory(frames, landmarker, self, follow=follow)
        return [face.track for face in table.faces]

    def compute_stable_crop_region(
        self,
        track: FaceTrack,
        frame_size_hw: tuple[int, int],
        margin: float = 0.3,
        crop_size: int = 512,
        *,
        roll: bool = False,
        **tables: Unpack[CropTables],
    ) -> CropMetadata:
        """One fixed square when the head stays put, else a smooth moving one; it may leave the frame.

        Args:
            track: the face, from ``track_faces`` or ``track_and_landmark``.
            frame_size_hw: size of the frames.
            margin: grow each box by this much of its width or height on each side; the square always covers that.
            crop_size: side of the crop in its own pixels, 256 or 512.
            roll: turn the square slowly with a head that rolls much.
            **tables: landmarks to hold, shots, frame rate; see ``stable_crop``.
        """
        return stable_crop(track, frame_size_hw, margin, crop_size, roll=roll, **tables)


def _best_of_each(faces: list[FaceDetection]) -> list[FaceDetection]:
    """The surest view of each face, largest first."""
    if not faces:
        return []
    boxes = np.stack([face.box.as_array() for face in faces])
    kept = suppress(boxes, np.array([face.score for face in faces]), min_iou=0.3)
    return sorted((faces[i] for i in kept), key=lambda face: -face.box.area)
