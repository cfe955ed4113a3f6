"""Find faces, follow them through a video and choose a stable crop.

CenterFace (re)acquires faces on the whole frame; a found face is followed frame to frame by a cheap detector
inside its own region, so the cost hardly depends on the size of the frame.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import BlazeFace
from data_gen.utils.process_video.centerface import CenterFace
from data_gen.utils.process_video.landmark_track import track_and_landmark
from data_gen.utils.process_video.multi_track import MultiTracker
from data_gen.utils.process_video.stable_crop import stable_crop
from modules.commons.workspace import CENTERFACE_FILE, MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox, FaceDetection
from modules.structures.crops import CropMetadata
from modules.structures.frames import Frame
from modules.structures.tracks import FaceTrack

__all__ = ["DetectorConfig", "FaceDetector", "track_and_landmark"]

logger = logging.getLogger(__name__)

Backend = Literal["auto", "centerface", "blazeface"]


@dataclass(frozen=True, slots=True)
class DetectorConfig:
    """What counts as a face and how hard to look.

    Attributes:
        min_score: CenterFace detections below it are dropped.
        max_sides: longer sides of what the network sees, tried in turn until a face is found; the first is the cheap
            look of every acquisition, the others find small faces in large frames.
    """

    min_score: float = 0.5
    max_sides: tuple[int, ...] = (640, 1280, 1920)


class _Finder(Protocol):
    def detect(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int = 640
    ) -> list[FaceDetection]: ...


class FaceDetector:
    """Faces in images and in streams of frames.

    Args:
        backend: ``auto`` takes CenterFace when its file is there and BlazeFace otherwise, and logs which.
        config: thresholds.
    """

    def __init__(
        self,
        backend: Backend = "auto",
        *,
        config: DetectorConfig | None = None,
        centerface: Path = CENTERFACE_FILE,
        mediapipe: Path = MEDIAPIPE_DIR,
    ) -> None:
        self.config = config or DetectorConfig()
        if backend == "auto":
            backend = "centerface" if centerface.is_file() else "blazeface"
            logger.info("face detector: %s", backend)
        self.backend: Backend = backend
        self._finder: _Finder = (
            CenterFace(centerface, min_score=self.config.min_score)
            if backend == "centerface"
            else WholeBlazeFace(mediapipe)
        )
        self._mediapipe = mediapipe

    def detect_face_bbox(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int | None = None
    ) -> list[FaceDetection]:
        """Faces in an RGB image, largest first.

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

    def track_faces(self, frames: Iterable[Frame], *, audit_s: float = 2.0) -> list[FaceTrack]:
        """Follow every face of a stream; the longest-seen large face comes first.

        Args:
            frames: upright frames in presentation order.
            audit_s: seconds between whole-frame looks for new faces.
        """
        tracker = MultiTracker(self, BlazeFace("short", models=self._mediapipe), audit_s=audit_s)
        for frame in frames:
            tracker.step(frame)
        return tracker.finish()

    def compute_stable_crop_region(
        self, track: FaceTrack, frame_size_hw: tuple[int, int], margin: float = 0.3, crop_size: int = 512
    ) -> CropMetadata:
        """One fixed square when the head stays put, else a smooth moving one; it may leave the frame.

        Args:
            track: the face, from ``track_faces`` or ``track_and_landmark``.
            frame_size_hw: size of the frames.
            margin: grow each box by this much of its width or height on each side; the square always covers that.
            crop_size: side of the crop in its own pixels, 256 or 512.
        """
        return stable_crop(track, frame_size_hw, margin, crop_size)


class WholeBlazeFace:
    """BlazeFace full range behind CenterFace's signature, for when CenterFace is not there; misses small faces."""

    def __init__(self, models: Path = MEDIAPIPE_DIR) -> None:
        self._model = BlazeFace("full", models=models, min_score=0.6)

    def detect(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int = 640
    ) -> list[FaceDetection]:
        """Faces, largest first; ``max_side`` is without effect because the network's input is fixed."""
        del max_side
        return sorted(self._model.detect(rgb, area), key=lambda face: -face.box.area)
