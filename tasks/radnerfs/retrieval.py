"""What any renderer must beat: the training frame nearest in lip shape, warped onto the wanted landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

from modules.face_model.mesh_renderer import Bounds, interpolate, rasterize
from modules.structures.crops import transform_points
from modules.structures.dataset import NeRFDataset
from modules.structures.landmarks import MOUTH, N_MESH


@dataclass(frozen=True, slots=True)
class RetrievalBaseline:
    """Answers a held-out frame with a warped training frame.

    Attributes:
        source: the prepared clip.
        train: stored indices of its training frames ``[N]``.
    """

    source: NeRFDataset
    train: NDArray[np.int64]

    def nearest(self, points: NDArray[np.floating]) -> int:
        """Stored index of the training frame whose lips, moved and scaled onto those of ``points``, fit best.

        Args:
            points: ``[478, 2]`` landmarks in any pixels.
        """
        shapes = normalized_lips(self.source.landmarks_px[self.train])
        wanted = normalized_lips(points[None])[0]
        return int(self.train[np.argmin(align_error(shapes, wanted))])

    def render(self, index: int, bounds: Bounds) -> NDArray[np.uint8]:
        """The nearest frame warped onto the landmarks of stored frame ``index``: RGB of a window of the crop."""
        return self._warped(self.nearest(self.source.landmarks_px[index]), index, bounds)

    def render_in_frame(
        self, points: NDArray[np.floating], frame_from_crop: NDArray[np.float64], bounds: Bounds
    ) -> NDArray[np.uint8]:
        """The nearest frame warped onto landmarks of a frame: RGB of the frame's window ``bounds``.

        Args:
            points: ``[478, 2]`` wanted landmarks, frame pixels.
            frame_from_crop: ``[3, 3]`` where that frame's crop lies; beyond it the warp repeats its edge.
            bounds: half-open x0, y0, x1, y1.
        """
        taken = self.nearest(points)
        return warp_by_landmarks(
            self.source.crop(taken), self.source.landmarks_px[taken], points, bounds, frame_from_crop
        )

    def render_mean(self, index: int, bounds: Bounds, count: int = 10) -> NDArray[np.uint8]:
        """The mean of ``count`` training frames, each warped onto the landmarks of ``index``: lips that never move."""
        chosen = self.train[np.linspace(0, len(self.train) - 1, min(count, len(self.train))).round().astype(int)]
        warped = np.stack([self._warped(int(i), index, bounds) for i in chosen])
        return np.round(warped.astype(np.float32).mean(axis=0)).astype(np.uint8)

    def _warped(self, taken: int, index: int, bounds: Bounds) -> NDArray[np.uint8]:
        landmarks = self.source.landmarks_px
        return warp_by_landmarks(self.source.crop(taken), landmarks[taken], landmarks[index], bounds)


def normalized_lips(points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mouth points of landmarks ``[N, 478, 2]`` centred and of unit size: complex ``[N, M]``."""
    mouth = points[:, list(MOUTH)].astype(np.float64)
    lips = mouth[..., 0] + 1j * mouth[..., 1]
    lips = lips - lips.mean(axis=1, keepdims=True)
    return lips / np.linalg.norm(lips, axis=1, keepdims=True)


def align_error(shapes: NDArray, wanted: NDArray) -> NDArray[np.float64]:
    """Squared distance of unit shapes ``[N, M]`` to one shape ``[M]`` after the best rotation and scale, ``[N]``."""
    return 1.0 - np.abs(shapes @ wanted.conj()) ** 2


def warp_by_landmarks(
    rgb: NDArray[np.uint8],
    source: NDArray[np.floating],
    wanted: NDArray[np.floating],
    bounds: Bounds,
    wanted_from_rgb: NDArray[np.float64] | None = None,
) -> NDArray[np.uint8]:
    """Piecewise-affine warp of ``rgb [S, S, 3]`` that moves landmarks ``source [478, 2]`` to ``wanted``.

    Towards the edge of the picture the warp fades out.

    Args:
        rgb: the picture.
        source: its landmarks.
        wanted: where they are to go, in pixels of the target.
        bounds: window of the target.
        wanted_from_rgb: ``[3, 3]`` where the picture's edge goes in the target; None leaves it where it is.

    Returns:
        The window ``bounds`` of the warped picture.
    """
    edge = _frame_corners(rgb.shape[0])
    moved_edge = edge if wanted_from_rgb is None else transform_points(wanted_from_rgb, edge)
    anchors = np.concatenate([wanted[:N_MESH], moved_edge]).astype(np.float64)
    origins = np.concatenate([source[:N_MESH], edge]).astype(np.float64)
    triangles = Delaunay(anchors).simplices
    fragments = rasterize(anchors, np.ones(len(anchors)), triangles, bounds)
    lookup = interpolate(fragments, triangles, origins) - np.float32(0.5)
    warped = cv2.remap(rgb, lookup[..., 0], lookup[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.uint8)


def _frame_corners(size: int) -> NDArray[np.float64]:
    """Fixed points around the image, so that the warp fades out towards its edge."""
    steps = np.linspace(-1.0, size + 1.0, 9)
    edges = [(x, y) for x in steps for y in steps if min(x, y) < 0 or max(x, y) > size]
    return np.array(edges)
