"""What preparing a video can be told: ``egs/egs_bases/process_video/base.yaml`` and what inherits from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from data_gen.runs.binarizer_nerf import BinarizerConfig
from data_gen.utils.mp_feature_extractors.multiclass_segmenter import multiclass_file
from data_gen.utils.process_audio.features import HUBERT_DIR
from data_gen.utils.process_video.face_detector import Backend
from data_gen.utils.process_video.face_table import BeliefConfig
from data_gen.utils.process_video.fit_3dmm_landmark import FitConfig
from data_gen.utils.process_video.occlusion_pass import PassConfig
from data_gen.utils.process_video.person_linking import LinkConfig
from data_gen.utils.process_video.portrait_framing import Framing
from data_gen.utils.process_video.scene_cuts import ShotConfig
from data_gen.utils.process_video.tracker_state import FollowConfig
from modules.commons.device import DeviceName
from modules.commons.hashing import file_sha256
from modules.face_model.choice import FaceModelName


@dataclass(frozen=True, slots=True)
class DetectConfig:
    """How faces are found and followed.

    Attributes:
        backend: 'auto' takes CenterFace when its file is there and BlazeFace otherwise.
        extractor: runtime of the networks: 'litert' (CPU), 'torch' on the configuration's device, or 'auto': torch on
            CUDA and LiteRT elsewhere. They differ by rounding alone (see ``networks``), so what was made with one of
            them is up to date for the others. 'mediapipe' puts the optional package in the landmark model's place.
        follow: when a face is acquired, followed and given up.
        link: which of what was followed are one person.
        believe: when what was followed is a face, and when it is worth working on.
    """

    backend: Backend = "auto"
    extractor: Literal["auto", "litert", "torch", "mediapipe"] = "auto"
    follow: FollowConfig = field(default_factory=FollowConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    believe: BeliefConfig = field(default_factory=BeliefConfig)


@dataclass(frozen=True, slots=True)
class CropConfig:
    """The square the networks see.

    Attributes:
        margin: each face box grows by this share of its size on every side.
        crop_size: side of the crop, px; 'auto' takes 256 when the square is at most 300 frame pixels wide, else 512.
        roll: turn the square slowly with a head that rolls much.
        min_face_px: below this face height it is said that the crop is an enlargement.
    """

    margin: float = 0.3
    crop_size: Literal["auto", 256, 512] = "auto"
    roll: bool = False
    min_face_px: float = 60.0


@dataclass(frozen=True, slots=True)
class HandsConfig:
    """Looking for hands in front of the face.

    Attributes:
        enabled: off, every frame counts as uncovered.
        mask_size: side of the stored masks, px.
    """

    enabled: bool = True
    mask_size: int = 256


@dataclass(frozen=True, slots=True)
class OcclusionStageConfig:
    """Looking for anything in front of the face, by what the face should look like.

    Attributes:
        enabled: off, only hands count.
        mask_size: side of the stored masks, px.
        segmentation: 'auto' also asks MediaPipe's multiclass segmentation where its file is there, 'off' never.
        judge: see ``PassConfig``.
    """

    enabled: bool = True
    mask_size: int = 256
    segmentation: Literal["auto", "off"] = "auto"
    judge: PassConfig = field(default_factory=PassConfig)

    def has_segmentation(self) -> bool:
        """Whether classes of pixels are evidence."""
        return self.segmentation == "auto" and multiclass_file() is not None

    def hashed(self) -> dict[str, Any]:
        """The section as results depend on it: the network's own hash stands for asking it."""
        path = multiclass_file() if self.has_segmentation() else None
        return asdict(self) | {"segmentation": "" if path is None else file_sha256(path)}


@dataclass(frozen=True, slots=True)
class PortraitDataConfig:
    """What portraits in GeneFace++'s manner are made of, beside the tables that every face has.

    Attributes:
        framing: see ``portrait_square``.
        segmenter: 'multiclass' is MediaPipe's network with six classes, 'embedded' what stands in for it, see
            ``head_torso_segmenter``; 'auto' takes the first when its file is there.
        background: 'still' puts one plate behind the person in all frames, 'each' keeps each frame's own, 'auto' looks
            whether the camera moves.
        speech: features of the clip's own sound; 'auto' takes HuBERT when it is there and Whisper otherwise.
        max_train_frames, max_val_frames: stored frames at most, evenly spaced; 0 is all of them.
        max_occlusion: frames with more of the lower face covered are not learnt from.
    """

    framing: Framing = "auto"
    segmenter: Literal["auto", "multiclass", "embedded"] = "auto"
    background: Literal["auto", "still", "each"] = "auto"
    speech: Literal["auto", "hubert", "whisper"] = "auto"
    max_train_frames: int = 0
    max_val_frames: int = 0
    max_occlusion: float = 0.1

    def __post_init__(self) -> None:
        if min(self.max_train_frames, self.max_val_frames) < 0 or not 0 <= self.max_occlusion <= 1:
            raise ValueError(f"needs frames >= 0 and max_occlusion in 0..1, got {self}")

    def resolved(self) -> PortraitDataConfig:
        """The same with what 'auto' means on this machine, by the files that are there."""
        segmenter, speech = self.segmenter, self.speech
        if segmenter == "auto":
            segmenter = "multiclass" if multiclass_file() else "embedded"
        if speech == "auto":
            weights = (
                HUBERT_DIR / name for name in ("pytorch_model.bin", "model.safetensors")
            )  # a download's are .part
            speech = "hubert" if any(file.is_file() for file in weights) else "whisper"
        return replace(self, segmenter=segmenter, speech=speech)


@dataclass(frozen=True, slots=True)
class ProcessVideoConfig:
    """Settings of every stage of ``data_gen/runs/process_video.py``.

    Attributes:
        face_model: what is fitted: 'embedded', or 'bfm2009' when its files are there; only the first can be trained
            and rendered with.
        device: where it is fitted, and where networks run that run in torch; no result depends on it but for rounding.
    """

    task: Literal["process_video"] = "process_video"
    face_model: FaceModelName = "embedded"
    device: DeviceName = "auto"
    shots: ShotConfig = field(default_factory=ShotConfig)
    detect: DetectConfig = field(default_factory=DetectConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    hands: HandsConfig = field(default_factory=HandsConfig)
    occlusion: OcclusionStageConfig = field(default_factory=OcclusionStageConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    binarizer: BinarizerConfig = field(default_factory=BinarizerConfig)
    portrait: PortraitDataConfig = field(default_factory=PortraitDataConfig)

    def hashed_sections(self) -> dict[str, Any]:
        """The sections as stages depend on them: what changes no result but for rounding counts as one and the same."""
        sections = asdict(self)
        if self.detect.extractor in ("auto", "torch"):
            sections["detect"]["extractor"] = "litert"
        sections["portrait"] = asdict(self.portrait.resolved())
        sections["occlusion"] = self.occlusion.hashed()
        return sections
