"""One picture of predicted motion: the default face saying it, beside the waveform and the lip opening around now."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.fit_lettering import Lettering
from modules.face_model.head_painter import HeadLook, HeadPainter
from modules.face_model.model import FaceModel
from modules.structures.audio import AudioClip
from modules.structures.cameras import CameraIntrinsics
from modules.structures.frames import RgbImage
from modules.structures.motion import MotionSequence

FACE_PX = 320
LANES_PX = 480
PX_PER_S = 160
"""Of the lanes: 3 s are seen at once, now in the middle."""
_WAVE, _LIPS = (30, 138), (172, 282)
"""Rows of the two lanes."""
_PAPER, _LANE, _SPEECH = (24, 26, 30), (34, 37, 43), (44, 54, 66)
_INK, _FAINT, _SOUND, _LIP, _NOW = (236, 239, 244), (140, 148, 160), (120, 190, 250), (250, 170, 110), (255, 90, 80)
_MM_PER_DM = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class SpokenClip:
    """What is shown: the speech, the motion predicted from it, and the expression ``[N, E]`` at each frame's time."""

    speech: AudioClip
    motion: MotionSequence
    expression: NDArray[np.float32]
    times_s: NDArray[np.float64]


class MotionPictures:
    """Draws a frame at a time.

    Args:
        clip: what is shown.
        face_model: whose mean face says it.
    """

    size_wh = (FACE_PX + LANES_PX, FACE_PX)

    def __init__(self, clip: SpokenClip, face_model: FaceModel) -> None:
        if clip.motion.opening is None:
            raise ValueError("the motion does not know its lip opening")
        self._clip = clip
        self._painter = HeadPainter(face_model, np.zeros(face_model.n_identity, np.float32), HeadLook())
        self._camera = CameraIntrinsics.geneface(FACE_PX)
        self._small, self._large = Lettering(14), Lettering(18)
        peak = float(np.abs(clip.speech.samples).max(initial=0.0))
        self._loudest = max(peak, 1e-4)
        self._opening_mm = _MM_PER_DM * clip.motion.opening.astype(np.float64)
        self._widest_mm = max(float(self._opening_mm.max(initial=0.0)), 5.0)

    def picture(self, number: int) -> RgbImage:
        """uint8 ``[H, W, 3]`` of frame ``number``."""
        image = np.empty((FACE_PX, FACE_PX + LANES_PX, 3), np.uint8)
        image[:] = _PAPER
        still = np.zeros(3, np.float32)
        head = self._painter.paint(self._clip.expression[number], still, still, self._camera)
        image[:, :FACE_PX] = head.rgb
        self._draw_lanes(image[:, FACE_PX:], float(self._clip.times_s[number]))
        return image

    def _draw_lanes(self, image: RgbImage, now_s: float) -> None:
        """The two lanes ``[H, LANES_PX, 3]`` about a time."""
        edges_s = now_s + (np.arange(LANES_PX + 1) - LANES_PX / 2) / PX_PER_S
        for top, bottom in (_WAVE, _LIPS):
            image[top:bottom] = _LANE
            image[top:bottom, self._is_speech(edges_s)] = _SPEECH
        self._draw_wave(image, edges_s)
        self._draw_opening(image, edges_s)
        middle = LANES_PX // 2
        for top, bottom in (_WAVE, _LIPS):
            image[top:bottom, middle - 1 : middle + 1] = _NOW
        self._small.write(image, 12, _WAVE[0] - 10, "sound (brighter ground: speech)", _FAINT)
        self._small.write(image, 12, _LIPS[0] - 10, f"lip opening over rest, 0 to {self._widest_mm:.0f} mm", _FAINT)
        opening = float(np.interp(now_s, self._row_times(), self._opening_mm)) if len(self._opening_mm) else 0.0
        self._large.write(image, 12, FACE_PX - 8, f"{now_s:7.2f} s  {opening:5.1f} mm", _INK)

    def _row_times(self) -> NDArray[np.floating]:
        return (np.arange(len(self._opening_mm)) + 0.5) / self._clip.motion.rate_hz

    def _is_speech(self, edges_s: NDArray[np.float64]) -> NDArray[np.bool_]:
        gate, rate = self._clip.motion.is_speech, self._clip.motion.rate_hz
        rows = np.floor(edges_s[:-1] * rate).astype(np.int64)
        inside = (rows >= 0) & (rows < len(gate))
        result = np.zeros(len(rows), bool)
        result[inside] = gate[rows[inside]] > 0.5
        return result

    def _draw_wave(self, image: RgbImage, edges_s: NDArray[np.float64]) -> None:
        """From the lowest to the highest sample of each column."""
        samples, rate = self._clip.speech.samples, self._clip.speech.sample_rate_hz
        edges = np.round(edges_s * rate).astype(np.int64).clip(0, len(samples))
        centre, half = (_WAVE[0] + _WAVE[1]) / 2, 0.48 * (_WAVE[1] - _WAVE[0])
        for column, (first, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            if first < stop:
                part = samples[first:stop] / self._loudest
                top, bottom = centre - half * float(part.max()), centre - half * float(part.min())
                image[int(top) : int(bottom) + 1, column] = _SOUND

    def _draw_opening(self, image: RgbImage, edges_s: NDArray[np.float64]) -> None:
        times_s = (edges_s[1:] + edges_s[:-1]) / 2
        inside = (times_s >= 0) & (times_s <= self._clip.motion.duration_s)
        if inside.sum() < 2:
            return
        opening = np.interp(times_s[inside], self._row_times(), self._opening_mm)
        bottom, height = _LIPS[1] - 16, _LIPS[1] - _LIPS[0] - 32
        image[bottom, :] = _FAINT
        y = np.clip(bottom - height * opening / self._widest_mm, _LIPS[0], _LIPS[1] - 1)
        points = np.stack([np.flatnonzero(inside), y], axis=1)
        cv2.polylines(image, [np.round(points * 16).astype(np.int32)], False, _LIP, 2, cv2.LINE_AA, 4)
