"""What a source frame should look like with nothing in front: the person's own head, moved as the frame's was."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.canonical_texture import CanonicalTexture
from data_gen.utils.process_video.clean_appearance import LEAST_SPREAD, Exemplars, calmed
from data_gen.utils.process_video.clean_exemplars import USUAL_SPREAD
from data_gen.utils.process_video.exposure_match import matched_exposure
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import PreparedSource
from modules.face_model.model import Region
from modules.radnerfs.surface import FacePose
from modules.structures.cameras import crop_camera_matrix
from modules.structures.expected_face import ExpectedFace, FaceExpectation
from modules.structures.frames import FramePatch

SPREAD_FRAMES = 24
"""Clean frames that say how far frames stray from the head."""
LEAST_FRAMES = 4
"""So many must show a place before anything is said of it."""
SURELY_SHOWN = 0.9
"""Alpha from which a pixel is the head's own."""
WHOLLY = 0.99
"""Of interpolated flags: places that touch others are left out."""


class NerfExpectation:
    """A ``FaceExpectation`` by analysis and synthesis: the trained head where it was trained, ``around`` elsewhere.

    Args:
        renderer: of the person.
        source: whose tracked motion drives it.
        around: what is known of the rest of the face, and of how far frames stray from what is expected.
        spread: how far clean frames stray from the head itself; None = as far as from ``around``.
    """

    def __init__(
        self,
        renderer: IdentityRenderer,
        source: PreparedSource,
        around: FaceExpectation,
        spread: HeadSpread | None = None,
    ) -> None:
        self._renderer, self._source, self._around, self._spread = renderer, source, around, spread
        self._region: Region = renderer.config.data.region
        self._conditions = renderer.conditions(source.coeffs.expression)

    def knows(self, row: int) -> bool:
        """Whether the face model was fitted to frame ``row``."""
        return bool(self._source.coeffs.valid[row]) and self._around.knows(row)

    def at(self, row: int, size: int) -> ExpectedFace | None:
        """The crop of frame ``row`` without occluders at ``[size, size]``; None = nothing is known of that frame."""
        if not self.knows(row):
            return None
        around = self._around.at(row, size)
        if around is None:
            return None
        made = laid_over(around, self.rendered(row, size))
        return made if self._spread is None else self._spread.laid_over(made, around, row)

    def rendered(self, row: int, size: int) -> FramePatch:
        """The head alone, moved as in frame ``row``, in the crop's pixels at ``[size, size]``."""
        source = self._source
        coeffs, crops = source.coeffs, source.crops
        reduced = np.diag([size / crops.crop_size, size / crops.crop_size, 1.0])
        matrix = reduced @ crop_camera_matrix(coeffs.camera, crops.crop_from_frame(row))
        pose = FacePose(coeffs.identity, coeffs.expression[row], coeffs.euler[row], coeffs.translation[row])
        return self._renderer.render_view(pose, matrix, (size, size), self._conditions[row], region=self._region)


@dataclass(frozen=True, slots=True, eq=False)
class HeadSpread:
    """How far clean frames stray from the rendered head, place by place: it knows lips, but not every light.

    Attributes:
        texture: maps between crops and the unrolled face.
        values: float32 ``[h, w]`` root mean square of a channel's error; NaN where too few frames say.
    """

    texture: CanonicalTexture
    values: NDArray[np.float32]

    @classmethod
    def learnt(cls, head: NerfExpectation, texture: CanonicalTexture, exemplars: Exemplars) -> HeadSpread:
        """From the clean frames that the appearance was learnt from, some of them, after their light is matched."""
        certain = exemplars.certain
        chosen = certain[np.linspace(0, len(certain) - 1, min(len(certain), SPREAD_FRAMES)).round().astype(int)]
        squares, counts = np.zeros(texture.size_hw, np.float32), np.zeros(texture.size_hw, np.float32)
        for index in np.unique(chosen).tolist():
            row, observed = int(exemplars.rows[index]), exemplars.views[index].astype(np.float32) / np.float32(255)
            patch = head.rendered(row, len(observed))
            (x0, y0, x1, y1), shown = patch.bounds, patch.alpha > SURELY_SHOWN
            if not shown.any():
                continue
            window = observed[y0:y1, x0:x1]
            flat = np.full(shown.shape, USUAL_SPREAD, np.float32)
            left = window - matched_exposure(patch.rgb, window, flat, shown.astype(np.float32))
            error = np.zeros((*observed.shape[:2], 3), np.float32)
            error[y0:y1, x0:x1, 0], error[y0:y1, x0:x1, 1] = (left**2).mean(axis=2), shown
            sample = texture.sample(error, row)
            counted = sample.seen & exemplars.usable[index] & (sample.rgb[..., 1] > WHOLLY)
            squares += np.where(counted, sample.rgb[..., 0], 0)
            counts += counted
        known = counts >= LEAST_FRAMES
        rms = np.sqrt(squares / np.maximum(counts, 1))
        return cls(texture, np.where(known, calmed(rms, known), np.nan).astype(np.float32))

    def laid_over(self, expected: ExpectedFace, around: ExpectedFace, row: int) -> ExpectedFace:
        """``expected`` with this spread where the head was laid over ``around``, never below the noise."""
        size = expected.known.shape[0]
        places = self.texture.places(row, size)
        known = np.isfinite(self.values).astype(np.float32)
        layers = cv2.remap(
            np.dstack([np.nan_to_num(self.values), known]), places.x, places.y, cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
        )  # fmt: skip
        changed = np.abs(expected.rgb - around.rgb).max(axis=2) > 0
        measured = changed & (layers[..., 1] > WHOLLY)
        spread = np.where(measured, np.maximum(layers[..., 0], LEAST_SPREAD), expected.spread)
        return replace(expected, spread=spread.astype(np.float32))


def laid_over(around: ExpectedFace, patch: FramePatch) -> ExpectedFace:
    """An expectation with a rendering over it, as far as its alpha goes."""
    x0, y0, x1, y1 = patch.bounds
    alpha = np.zeros_like(around.known)
    alpha[y0:y1, x0:x1] = patch.alpha
    rgb = around.rgb.copy()
    share = _share_of(patch.alpha, around.known[y0:y1, x0:x1])[..., None]
    rgb[y0:y1, x0:x1] += share * (patch.rgb - rgb[y0:y1, x0:x1])
    return ExpectedFace(rgb, around.spread, np.maximum(around.known, alpha))


def _share_of(alpha: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of the mixture is the rendering: all of it where nothing else is known."""
    return np.where(known > 0, alpha, (alpha > 0).astype(np.float32)).astype(np.float32)
