"""Workspace: the one owner of every path the project reads or writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository; commands run from here, files shipped with the code are found from here."""

CHECKPOINTS = ROOT / "checkpoints"
EGS = ROOT / "egs"
FACE_MODEL_FILE = CHECKPOINTS / "face_model" / "face_model.npz"
AUDIO2MOTION_DIR = CHECKPOINTS / "audio2motion"
MEDIAPIPE_DIR = CHECKPOINTS / "mediapipe"
CENTERFACE_FILE = CHECKPOINTS / "centerface" / "centerface.onnx"
WHISPER_FILE = CHECKPOINTS / "whisper_tiny_en" / "encoder.safetensors"
DEMO_DIR = CHECKPOINTS / "demo"
IDENTITIES = CHECKPOINTS / "identities"
MANIFEST_FILE = CHECKPOINTS / "manifest.json"


@dataclass(frozen=True, slots=True)
class VideoWorkspace:
    """Paths of one prepared video below ``data/``, named by ``video_id``."""

    video_id: str
    data_root: Path = ROOT / "data"

    @property
    def processed(self) -> Path:
        return self.data_root / "processed" / "videos" / self.video_id

    @property
    def binary(self) -> Path:
        return self.data_root / "binary" / "videos" / self.video_id

    @property
    def raw_video(self) -> Path:
        return self.data_root / "raw" / "videos" / f"{self.video_id}.mp4"

    @property
    def manifest(self) -> Path:
        return self.processed / "manifest.json"

    @property
    def times(self) -> Path:
        return self.processed / "frame_times.npz"

    @property
    def track(self) -> Path:
        return self.processed / "track.npz"

    @property
    def landmarks(self) -> Path:
        return self.processed / "landmarks.npz"

    @property
    def crop_metadata(self) -> Path:
        return self.processed / "crop_metadata.json"

    @property
    def hands(self) -> Path:
        return self.processed / "hands.npz"

    @property
    def coeffs(self) -> Path:
        return self.processed / "coeff_fit_mp.npz"

    @property
    def crops(self) -> Path:
        return self.binary / "crops"

    @property
    def dataset(self) -> Path:
        return self.binary / "trainval_dataset.npz"
