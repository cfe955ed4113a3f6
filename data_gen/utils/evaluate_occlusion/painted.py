"""Base videos of painted heads: people who do not exist, talking, with landmarks that are known exactly."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_fit.made_up_speakers import RATE_HZ, SpeakerRanges, made_up_truth
from data_gen.utils.evaluate_occlusion.specification import PAINTED_PREFIX
from data_gen.utils.evaluate_occlusion.writing import BASE_QUALITY, COMMENT
from data_gen.utils.process_video.fitted_points import fitted_points
from modules.face_model.head_painter import HeadLook, HeadPainter
from modules.face_model.model import FaceModel
from modules.video.rgb_video import rgb_frame, rgb_video_info
from modules.video.writer import VideoWriter

RANGES = SpeakerRanges(
    yaw_deg=12.0, pitch_deg=5.0, roll_deg=4.0, face_px=220.0, distance_dm=(5.5, 6.5), focal_scale=(1.5, 1.8),
    distance_sway=0.02,
)  # fmt: skip
"""Heads that look towards the camera, in frames of about 500 px."""


def painted_base(
    face_model: FaceModel, seed: int, n_frames: int, out: Path, ranges: SpeakerRanges = RANGES
) -> NDArray[np.float32]:
    """Write a painted head's video; returns its landmarks ``[T, 478, 2]`` px."""
    generator = np.random.default_rng([seed, 8])
    truth = made_up_truth(face_model, generator, n_frames, ranges)
    painter = HeadPainter(face_model, truth.identity, HeadLook.random(generator))
    side = truth.camera.width // 2 * 2
    camera = replace(truth.camera, width=side, height=side)
    info = rgb_video_info(Path(f"{PAINTED_PREFIX}{seed}"), side, side, Fraction(int(RATE_HZ)))
    with VideoWriter(out, info, quality=BASE_QUALITY, comment=COMMENT) as writer:
        for row in range(n_frames):
            head = painter.paint(truth.expression[row], truth.euler[row], truth.translation[row], camera)
            grain = generator.normal(0, 2.0, (side, side, 1))
            rgb = np.clip(head.rgb + grain, 0, 255).astype(np.uint8)
            writer.write(rgb_frame(row, Fraction(row, int(RATE_HZ)), rgb))
    return fitted_points(truth, face_model)
