"""Workspace: the one owner of every path the project reads or writes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository; commands run from here, files shipped with the code are found from here."""

CHECKPOINTS = ROOT / "checkpoints"
EGS = ROOT / "egs"
FACE_MODEL_FILE = CHECKPOINTS / "face_model" / "face_model.npz"
BFM2009_DIR = CHECKPOINTS / "bfm2009"
AUDIO2MOTION_DIR = CHECKPOINTS / "audio2motion"
MEDIAPIPE_DIR = CHECKPOINTS / "mediapipe"
CENTERFACE_FILE = CHECKPOINTS / "centerface" / "centerface.onnx"
WHISPER_FILE = CHECKPOINTS / "whisper_tiny_en" / "encoder.safetensors"
SPEECH_DETECTOR_FILE = CHECKPOINTS / "speech_detector" / "speech_detector.safetensors"
DEMO_DIR = CHECKPOINTS / "demo"
DEMO_VIDEO = DEMO_DIR / "WolfgangLanger_Pexels.mp4"
DEMO_SPEECH = DEMO_DIR / "obama_speech.wav"
IDENTITIES = CHECKPOINTS / "identities"
POSTNETS = CHECKPOINTS / "postnets"
OCCLUDER_HAND_FILE = CHECKPOINTS / "occluder_set" / "hand.npz"
MANIFEST_FILE = CHECKPOINTS / "manifest.json"
DOWNLOADS_FILE = CHECKPOINTS / "downloads.json"
DOWNLOADS_LOCK = CHECKPOINTS / "downloads.lock.json"
PORTRAIT_DATASET = "portrait_dataset.npz"
"""What a clip of GeneFace++'s is imported as; ``trainval_dataset.npz`` is this project's own kind."""


@dataclass(frozen=True, slots=True)
class VideoWorkspace:
    """Paths of one prepared video below ``data/``, named by ``video_id``, and of one of its faces.

    What belongs to the video lies in its folder, what belongs to face 0 (the most important one) beside it, and what
    belongs to another face in a folder of its own.
    """

    video_id: str
    data_root: Path = ROOT / "data"
    face: int = 0

    @property
    def video_folder(self) -> Path:
        return self.data_root / "processed" / "videos" / self.video_id

    @property
    def processed(self) -> Path:
        return self.video_folder / self._face_folder

    @property
    def binary(self) -> Path:
        return self.data_root / "binary" / "videos" / self.video_id / self._face_folder

    @property
    def _face_folder(self) -> str:
        return f"face_{self.face}" if self.face else ""

    @property
    def of_video(self) -> VideoWorkspace:
        """The workspace of the video's most important face, which is the video's own."""
        return replace(self, face=0)

    def of_face(self, face: int) -> VideoWorkspace:
        """The workspace of another face of the video."""
        return replace(self, face=face)

    @property
    def raw_video(self) -> Path:
        return self.data_root / "raw" / "videos" / f"{self.video_id}.mp4"

    @property
    def frame_index(self) -> Path:
        return self.video_folder / "frame_index.npz"

    @property
    def observations(self) -> Path:
        return self.video_folder / "observations"

    @property
    def faces(self) -> Path:
        return self.video_folder / "faces.npz"

    @property
    def manifest(self) -> Path:
        return self.processed / "manifest.json"

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
    def first_coeffs(self) -> Path:
        return self.processed / "first_coeffs.npz"

    @property
    def appearance(self) -> Path:
        """What the face looks like with nothing before it; missing where too few frames are clean."""
        return self.processed / "appearance.npz"

    @property
    def occlusion(self) -> Path:
        return self.processed / "occlusion.npz"

    def occlusion_nerf(self, made_from: str) -> Path:
        """What stands before the face as a trained head sees it; ``made_from`` hashes all that it depends on."""
        return self.processed / f"occlusion_nerf-{made_from[:16]}.npz"

    @property
    def coeffs(self) -> Path:
        return self.processed / "coeff_fit_mp.npz"

    def segments(self, output: Path) -> Path:
        """Where an output of a job on this video grows until it is complete."""
        name = hashlib.sha256(str(output.resolve()).encode()).hexdigest()[:12]
        return self.data_root / "binary" / "videos" / self.video_id / "segments" / name

    @property
    def crops(self) -> Path:
        return self.binary / "crops"

    @property
    def dataset(self) -> Path:
        return self.binary / "trainval_dataset.npz"

    @property
    def portrait_dataset(self) -> Path:
        return self.binary / PORTRAIT_DATASET

    @property
    def portrait_plan(self) -> Path:
        """Which frames of a portrait's clip are shown, and what square of them."""
        return self.processed / "portrait_plan.npz"

    @property
    def portrait_speech(self) -> Path:
        """Features of the video's own sound, the same for all of its faces."""
        return self.video_folder / "portrait_speech.npz"

    @property
    def gt_imgs(self) -> Path:
        """The square frames; this and the folders below are called as GeneFace++ calls them."""
        return self.processed / "gt_imgs"

    @property
    def segmaps(self) -> Path:
        return self.processed / "segmaps"

    @property
    def head_imgs(self) -> Path:
        return self.processed / "head_imgs"

    @property
    def inpaint_torso_imgs(self) -> Path:
        return self.processed / "inpaint_torso_imgs"

    @property
    def background_plate(self) -> Path:
        """What is behind the person."""
        return self.processed / "bg.png"

    @property
    def bg_imgs(self) -> Path:
        """What is behind the person in each frame; there only where the camera moves."""
        return self.processed / "bg_imgs"

    @property
    def com_imgs(self) -> Path:
        """The frames as they are learnt: the person before what is behind it."""
        return self.processed / "com_imgs"
