"""Face detectors behind one signature, each imported when it is named and never before.

All give CenterFace's box, forehead to chin, and five key points: the eyes, the nose, the corners of the mouth; of each
pair first the one that is image-left on an upright face. What is named but cannot run raises; nothing falls back.

Packages are installed with ``--no-deps``: their own lists would replace torch or the headless OpenCV.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.mp_feature_extractors.blazeface import BlazeFace
from data_gen.utils.mp_feature_extractors.networks import Runtime
from data_gen.utils.process_video.centerface import CenterFace
from modules.commons.errors import BackendUnavailableError
from modules.commons.workspace import CENTERFACE_FILE, CHECKPOINTS, MEDIAPIPE_DIR
from modules.structures.boxes import BoundingBox, FaceDetection

Backend = Literal["auto", "centerface", "blazeface", "mediapipe", "mtcnn", "retinaface", "scrfd"]
SCRFD_FILE = CHECKPOINTS / "insightface" / "det_10g.onnx"
RETINAFACE_FILE = CHECKPOINTS / "retinaface" / "retinaface.onnx"

MIN_FACE_PX = 16
"""MTCNN's image pyramid stops at faces this small in what it is given."""
RETINAFACE_ENGINE = "DEEPFACE_BACKEND_ENGINE"
"""Environment variable by which ``retina-face`` picks its engine when it is imported."""

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Where weights lie that come as files.

    Attributes:
        centerface, scrfd, retinaface: ONNX files.
        mediapipe: folder of MediaPipe's models.
    """

    centerface: Path = CENTERFACE_FILE
    mediapipe: Path = MEDIAPIPE_DIR
    scrfd: Path = SCRFD_FILE
    retinaface: Path = RETINAFACE_FILE


class Finder(Protocol):
    """What finds faces in an image or a part of it."""

    def detect(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int = 640
    ) -> list[FaceDetection]:
        """Faces in pixels of ``rgb``, largest first; the longer side is shrunk to ``max_side`` before looking."""
        ...


@dataclass(frozen=True, slots=True)
class BoxFit:
    """How a detector's own box turns into CenterFace's; medians measured on real clips.

    Attributes:
        half_width: half of the new width, in widths of the old box.
        up, down: new edges above and below the old centre, in heights of the old box.
    """

    half_width: float = 0.5
    up: float = 0.5
    down: float = 0.5

    def apply(self, box: BoundingBox) -> BoundingBox:
        """The box, forehead to chin."""
        x, y = box.center
        half = self.half_width * box.width
        return BoundingBox(x - half, y - self.up * box.height, x + half, y + self.down * box.height)


SAME_BOX = BoxFit()
"""SCRFD and RetinaFace learned from the same annotations as CenterFace."""
BLAZEFACE_BOX = BoxFit(0.45, 0.65, 0.51)
"""Of 94 faces in 14 clips; mean IoU with CenterFace's box 0.84, unfitted 0.75."""
MTCNN_BOX = BoxFit(0.51, 0.49, 0.5)
"""Of the same faces; mean IoU 0.89."""
MOUTH_HALF_WIDTH = 0.42
"""Half of the mouth's width over the distance of the eyes, for detectors that only know the middle of the mouth."""


@dataclass(frozen=True, slots=True, eq=False)
class RawFaces:
    """What a package says, in pixels of the picture it was given.

    Attributes:
        boxes: ``[N, 4]`` x0 y0 x1 y1. keypoints: ``[N, 5, 2]``. scores: ``[N]`` 0..1.
    """

    boxes: NDArray[np.floating]
    keypoints: NDArray[np.floating]
    scores: NDArray[np.floating]

    @classmethod
    def none(cls) -> RawFaces:
        """No face."""
        return cls(np.zeros((0, 4)), np.zeros((0, 5, 2)), np.zeros(0))


class PackageFinder:
    """A package's detector: cuts and shrinks the picture for it, and brings its answer back into image pixels.

    Args:
        find: faces in RGB uint8 ``[h, w, 3]``.
        fit: turns its boxes into forehead-to-chin boxes.
        min_score: what is scored lower is dropped.
    """

    def __init__(self, find: Callable[[Image], RawFaces], fit: BoxFit, min_score: float) -> None:
        self._find, self._fit, self._min_score = find, fit, min_score

    def detect(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int = 640
    ) -> list[FaceDetection]:
        """Faces in pixels of ``rgb``, largest first."""
        height, width = rgb.shape[:2]
        bounds = (area or BoundingBox(0, 0, width, height)).pixel_bounds(width, height)
        if bounds is None:
            return []
        x0, y0, x1, y1 = bounds
        window = np.ascontiguousarray(rgb[y0:y1, x0:x1])
        scale = min(1.0, max_side / max(window.shape[:2]))
        if scale < 1:
            size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
            window = np.asarray(cv2.resize(window, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        factor = np.array([(x1 - x0) / window.shape[1], (y1 - y0) / window.shape[0]])
        raw = self._find(window)
        faces = [
            self._face(box.reshape(2, 2) * factor + (x0, y0), points * factor + (x0, y0), float(score))
            for box, points, score in zip(raw.boxes, raw.keypoints, raw.scores, strict=True)
            if score >= self._min_score and (box[2:] > box[:2]).all()
        ]
        return sorted(faces, key=lambda face: -face.box.area)

    def _face(self, corners: NDArray, keypoints: NDArray, score: float) -> FaceDetection:
        (x0, y0), (x1, y1) = corners
        box = self._fit.apply(BoundingBox(float(x0), float(y0), float(x1), float(y1)))
        return FaceDetection(box, min(score, 1.0), np.asarray(keypoints, dtype=np.float32))


class WholeBlazeFace:
    """BlazeFace full range behind the common signature, for when CenterFace is not there; misses small faces."""

    def __init__(self, models: Path = MEDIAPIPE_DIR, *, min_score: float = 0.6, runtime: Runtime | None = None) -> None:
        self._model = BlazeFace("full", models=models, min_score=min_score, runtime=runtime)

    def detect(
        self, rgb: NDArray[np.uint8], area: BoundingBox | None = None, *, max_side: int = 640
    ) -> list[FaceDetection]:
        """Faces, largest first; ``max_side`` is without effect because the network's input is fixed."""
        del max_side
        faces = [
            FaceDetection(BLAZEFACE_BOX.apply(face.box), face.score, five_points(face.keypoints))
            for face in self._model.detect(rgb, area)
        ]
        return sorted(faces, key=lambda face: -face.box.area)


def five_points(six: NDArray) -> NDArray[np.float32]:
    """Five key points of BlazeFace's six ``[6, 2]`` (eyes, nose, middle of the mouth, ears): the corners are estimated.

    They lie on both sides of the middle of the mouth, along the line of the eyes.
    """
    half = (six[1] - six[0]) * MOUTH_HALF_WIDTH
    return np.stack([six[0], six[1], six[2], six[3] - half, six[3] + half]).astype(np.float32)


def build_finder(
    backend: Backend,
    files: ModelFiles | None = None,
    min_score: float | None = None,
    runtime: Runtime | None = None,
) -> Finder:
    """The detector of a name.

    Args:
        backend: any but ``auto``.
        files: where weights lie.
        min_score: what is scored lower is dropped; None takes the detector's own usual threshold.
        runtime: what CenterFace's and BlazeFace's networks run on; the packages bring their own.

    Raises:
        BackendUnavailableError: when its package cannot be imported or its weights are missing or unusable.
        ModelFileError: when a model file of the project is missing.
        ValueError: for a name that is none of these.
    """
    files = files or ModelFiles()
    builders: dict[str, Callable[[ModelFiles, float], Finder]] = {
        "centerface": lambda f, score: CenterFace(f.centerface, min_score=score, runtime=runtime),
        "blazeface": lambda f, score: WholeBlazeFace(f.mediapipe, min_score=score, runtime=runtime),
        "mediapipe": mediapipe_finder,
        "mtcnn": mtcnn_finder,
        "retinaface": retinaface_finder,
        "scrfd": scrfd_finder,
    }
    usual = {"centerface": 0.5, "blazeface": 0.6, "mediapipe": 0.6, "mtcnn": 0.9, "retinaface": 0.8, "scrfd": 0.5}
    if backend not in builders:
        raise ValueError(f"no face detector is called {backend!r}; there are {', '.join(get_args(Backend))}")
    return builders[backend](files, usual[backend] if min_score is None else min_score)


def _unavailable(backend: str, found: object, remedy: str) -> BackendUnavailableError:
    reason = str(found).splitlines()[0] if str(found) else type(found).__name__
    return BackendUnavailableError(
        f"face detector '{backend}' cannot run here ({reason}): {remedy}, or use detector 'auto'"
    )


def mediapipe_finder(files: ModelFiles, min_score: float) -> PackageFinder:
    """The ``mediapipe`` package's FaceDetector task on the full-range model.

    Raises:
        BackendUnavailableError: when the package, a system library it needs or the model file is missing.
    """
    model = files.mediapipe / "face_detection_full_range_sparse.tflite"
    if not model.is_file():
        raise _unavailable("mediapipe", f"{model} is missing", "run `bash scripts/setup.sh` to fetch the model files")
    try:
        import mediapipe
        from mediapipe.tasks.python import BaseOptions
        from mediapipe.tasks.python.vision import FaceDetector, FaceDetectorOptions

        options = FaceDetectorOptions(
            base_options=BaseOptions(model_asset_path=str(model)), min_detection_confidence=min_score
        )
        task = FaceDetector.create_from_options(options)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise _unavailable("mediapipe", error, "`pip install -r requirements-mediapipe.txt`") from error

    def find(image: Image) -> RawFaces:
        found = task.detect(mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=image)).detections
        return mediapipe_faces(found, image.shape[:2])

    finder = PackageFinder(find, BLAZEFACE_BOX, min_score)
    # MediaPipe complains at exit about a task that is still open
    weakref.finalize(finder, task.close)
    return finder


def mediapipe_faces(detections: list[Any], size_hw: tuple[int, ...]) -> RawFaces:
    """MediaPipe's detections: boxes in whole pixels, key points in shares of the picture."""
    if not detections:
        return RawFaces.none()
    boxes = [
        (d.bounding_box.origin_x, d.bounding_box.origin_y, d.bounding_box.width, d.bounding_box.height)
        for d in detections
    ]
    x, y, width, height = np.array(boxes, dtype=np.float64).T
    size = np.array([size_hw[1], size_hw[0]])
    six = [np.array([(point.x, point.y) for point in d.keypoints]) * size for d in detections]
    scores = np.array([d.categories[0].score for d in detections])
    return RawFaces(
        np.stack([x, y, x + width, y + height], axis=1), np.stack([five_points(points) for points in six]), scores
    )


def mtcnn_finder(files: ModelFiles, min_score: float) -> PackageFinder:
    """MTCNN of the ``facenet-pytorch`` package, whose wheel holds the weights.

    Raises:
        BackendUnavailableError: when it cannot be imported.
    """
    del files
    try:
        from facenet_pytorch import MTCNN

        network = MTCNN(keep_all=True, min_face_size=MIN_FACE_PX, device="cpu")
    except (ImportError, OSError, RuntimeError) as error:
        remedy = (
            "`pip install torchvision requests` and `pip install --no-deps facenet-pytorch` (its weights come with it)"
        )
        raise _unavailable("mtcnn", error, remedy) from error

    def find(image: Image) -> RawFaces:
        boxes, scores, points = network.detect(image, landmarks=True)
        if boxes is None:
            return RawFaces.none()
        return RawFaces(*(np.asarray(values, dtype=np.float64) for values in (boxes, points, scores)))

    return PackageFinder(find, MTCNN_BOX, min_score)


def scrfd_finder(files: ModelFiles, min_score: float) -> PackageFinder:
    """InsightFace's SCRFD through the ``insightface`` package.

    Raises:
        BackendUnavailableError: when the package or the weights are missing, or the file is no such network.
    """
    remedy = (
        "`pip install onnx onnxruntime scikit-image requests` and `pip install --no-deps insightface`, and put "
        f"det_10g.onnx of its model pack buffalo_l (for non-commercial research only) at {files.scrfd}"
    )
    try:
        from insightface.model_zoo import get_model
    except (ImportError, OSError) as error:
        raise _unavailable("scrfd", error, remedy) from error
    if not files.scrfd.is_file():
        raise _unavailable("scrfd", f"{files.scrfd} is missing", remedy)
    try:
        network = get_model(str(files.scrfd))
    except Exception as error:  # onnxruntime's errors share no base class
        raise _unavailable("scrfd", error, f"put a readable det_10g.onnx at {files.scrfd}") from error
    if getattr(network, "taskname", None) != "detection" or not network.use_kps:
        raise _unavailable("scrfd", f"{files.scrfd} is no face detector with key points", remedy)
    network.prepare(ctx_id=-1, det_thresh=min_score)
    fixed: tuple[int, int] | None = network.static_input_size

    def find(image: Image) -> RawFaces:
        boxes, points = network.detect(image[..., ::-1], input_size=fixed or _padded_size(image))
        return RawFaces(boxes[:, :4], points, boxes[:, 4])

    return PackageFinder(find, SAME_BOX, min_score)


def _padded_size(image: Image, multiple: int = 32) -> tuple[int, int]:
    """(width, height) in whole multiples, so that nothing is resized for the network."""
    height, width = (-(-side // multiple) * multiple for side in image.shape[:2])
    return width, height


def retinaface_finder(files: ModelFiles, min_score: float) -> PackageFinder:
    """RetinaFace (ResNet-50) of the ``retina-face`` package, run on onnxruntime from a file the user puts here.

    The package would download weights by itself; it is handed a loaded network instead.

    Raises:
        BackendUnavailableError: when the package or the weights are missing, or the file is no such network.
    """
    remedy = (
        "`pip install onnxruntime gdown requests` and `pip install --no-deps retina-face`, and put retinaface.onnx of "
        f"https://github.com/serengil/deepface_models/releases at {files.retinaface}"
    )
    os.environ.setdefault(RETINAFACE_ENGINE, "onnx")
    try:
        import onnxruntime
        from retinaface import RetinaFace
        from retinaface.commons import backend_utils
        from retinaface.model.retinaface_onnx_model import RetinaFace as Network

        if not backend_utils.is_onnx():
            raise ImportError(f"it was told to run on {backend_utils.get_backend_engine()}, not on onnx")
    except (ImportError, OSError, ValueError) as error:
        raise _unavailable("retinaface", error, remedy) from error
    if not files.retinaface.is_file():
        raise _unavailable("retinaface", f"{files.retinaface} is missing", remedy)
    try:
        session = onnxruntime.InferenceSession(str(files.retinaface), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base class
        raise _unavailable("retinaface", error, f"put a readable retinaface.onnx at {files.retinaface}") from error
    network = Network(session)

    def find(image: Image) -> RawFaces:
        found = RetinaFace.detect_faces(image[..., ::-1], min_score, network, allow_upscaling=False)
        return retinaface_faces(found)

    return PackageFinder(find, SAME_BOX, min_score)


def retinaface_faces(found: dict[str, Any]) -> RawFaces:
    """``retina-face``'s answer; it names eyes and corners from the person's side: their right is image-left."""
    if not found:
        return RawFaces.none()
    names = ("right_eye", "left_eye", "nose", "mouth_right", "mouth_left")
    faces = list(found.values())
    return RawFaces(
        np.array([face["facial_area"] for face in faces], dtype=np.float64),
        np.array([[face["landmarks"][name] for name in names] for face in faces], dtype=np.float64),
        np.array([face["score"] for face in faces], dtype=np.float64),
    )
