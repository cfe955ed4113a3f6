"""A painted speaker's crops and tables, as the occlusion pass takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modules.face_model.model import FaceModel
from modules.structures.crops import CropMetadata, CropRegion, sample_region
from modules.structures.face_coeffs import FaceModelCoeffs
from modules.structures.landmarks import Landmarks2D
from tests.support.synthetic_head import Occluder, SyntheticSpeaker

FRAME_HW = (200, 200)


@dataclass(frozen=True, slots=True, eq=False)
class TalkingCrops:
    """Crops ``[T, 256, 256, 3]`` of a speaker and the tables about them; the face moves, the crop stays."""

    crops: NDArray[np.uint8]
    coeffs: FaceModelCoeffs
    landmarks: Landmarks2D
    metadata: CropMetadata
    face_model: FaceModel
    times_s: NDArray[np.float64]
    speaker: SyntheticSpeaker

    def with_thing(self, row: int, occluder: Occluder) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The crop of ``row`` with a skin-like ellipse in front (frame px), and where it is, ``[256, 256]`` 0..1."""
        frame = self.speaker.frame(self.coeffs, row, occluder)
        region = self.metadata.region(row)
        truth = np.repeat((frame.occlusion * 255).astype(np.uint8)[..., None], 3, axis=2)
        shown = sample_region(truth, region, 256)[..., 0]
        return sample_region(frame.rgb, region, 256), (shown / 255).astype(np.float32)


def talking_crops(count: int = 20, *, seed: int = 3, noise: float = 2.0) -> TalkingCrops:
    """A speaker at 10 frames per second, with camera noise of ``noise`` grey levels."""
    speaker = SyntheticSpeaker(seed, size_hw=FRAME_HW, face_px=105.0)
    coeffs = speaker.coeffs(count, frame_rate=10.0, yaw_rad=0.1)
    metadata = CropMetadata((CropRegion(100, 100, 190),), FRAME_HW, 256)
    generator = np.random.default_rng(seed)
    crops = []
    for row in range(count):
        rgb = speaker.frame(coeffs, row).rgb.astype(np.float32)
        noisy = np.clip(rgb + generator.normal(0, noise, rgb.shape), 0, 255).round().astype(np.uint8)
        crops.append(sample_region(noisy, metadata.region(row), 256))
    return TalkingCrops(
        np.stack(crops), coeffs, speaker.landmarks(coeffs), metadata, speaker.model, np.arange(count) / 10, speaker
    )


def invalid(coeffs: FaceModelCoeffs, row: int) -> FaceModelCoeffs:
    """The same coefficients without a fit in frame ``row``."""
    valid = coeffs.valid.copy()
    valid[row] = False
    return replace(coeffs, valid=valid)
