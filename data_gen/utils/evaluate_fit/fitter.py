"""The fit under test, always through its public entry, and the clips it is tried on."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.utils.process_video.fit_3dmm_landmark import FitConfig, fit_3dmm
from modules.face_model.model import FaceModel
from modules.structures.cameras import CameraIntrinsics
from modules.structures.face_coeffs import FaceModelCoeffs, FittedPerson
from modules.structures.landmarks import Landmarks2D


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A tracked clip.

    Attributes:
        name: in tables.
        landmarks: T frames. times_s: ``[T]``. size_wh: of the frames, px.
        unsmoothed: points as the landmarker gave them frame by frame; None where only smoothed ones are known.
    """

    name: str
    landmarks: Landmarks2D
    times_s: NDArray[np.float64]
    size_wh: tuple[int, int]
    unsmoothed: Landmarks2D | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fitter:
    """How every fit of an evaluation is made.

    Attributes:
        face_model: that is fitted.
        config: of the fit.
        device: where it runs.
    """

    face_model: FaceModel
    config: FitConfig
    device: torch.device | str = "cpu"

    def corrected(self, wanted: bool) -> Fitter:
        """The same with the person's own expression units on or off."""
        return replace(self, config=replace(self.config, correct_expression=wanted))

    def fit(
        self,
        landmarks: Landmarks2D,
        size_wh: tuple[int, int],
        *,
        camera: CameraIntrinsics | None = None,
        person: FittedPerson | None = None,
        weights: NDArray[np.float32] | None = None,
        frame_by_frame: bool = False,
    ) -> FaceModelCoeffs:
        """Fit a clip.

        Args:
            landmarks: T frames.
            size_wh: of the frames, px.
            camera: None = estimated with the rest (or the person's).
            person: given and kept; None = fitted.
            weights: ``[T, 478]``, 0 = hidden.
            frame_by_frame: every frame is a shot of its own, so that nothing is smoothed over time.

        Raises:
            FitDivergedError: when nothing can be fitted.
        """
        starts = np.arange(len(landmarks)) if frame_by_frame else None
        return fit_3dmm(
            landmarks, camera, self.face_model, self.config, weights,
            size_wh=size_wh, person=person, device=self.device, shot_starts=starts,
        )  # fmt: skip

    def mean_face(self, camera: CameraIntrinsics) -> FittedPerson:
        """Nobody in particular: what a fit without an identity would assume."""
        return FittedPerson(np.zeros(self.face_model.n_identity, np.float32), camera)


def cut(landmarks: Landmarks2D, rows: slice | NDArray) -> Landmarks2D:
    """Some frames of a landmark table."""
    return replace(landmarks, **{field.name: getattr(landmarks, field.name)[rows] for field in fields(landmarks)})
