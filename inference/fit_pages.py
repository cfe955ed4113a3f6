"""The pages of a fit, frame by frame: what is known of each frame, and where the enlarged views look."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.evaluate_fit.measures import relative_errors
from inference.face_sheet_picture import WORDS
from inference.fit_measures import FitErrors, FittedFace
from inference.fit_overlay import wires_of
from inference.fit_picture import MOUTH_HEIGHT, PANEL, FitPainter, FrameFit, Item, Layout, item_width
from inference.prepared import PreparedSource
from modules.face_model.model import LABEL_EYE, LABEL_MEMBRANE, FaceModel
from modules.structures.cameras import CAMERA_DISTANCE
from modules.structures.frame_index import shot_ranges
from modules.structures.frames import Frame
from modules.structures.tracks import FrameStatus
from modules.video.colour import rgb_from_planes
from modules.video.rgb_video import rgb_frame

STEADY_S = 0.4
"""The enlarged views follow the face no faster than a mean over this time."""
_UNITS = (
    ("jawOpen", ("jawOpen",)),
    ("close", ("mouthClose",)),
    ("funnel", ("mouthFunnel",)),
    ("pucker", ("mouthPucker",)),
    ("smile", ("mouthSmileLeft", "mouthSmileRight")),
    ("upperUp", ("mouthUpperUpLeft", "mouthUpperUpRight")),
    ("lowerDown", ("mouthLowerDownLeft", "mouthLowerDownRight")),
    ("blink", ("eyeBlinkLeft", "eyeBlinkRight")),
)
"""What the strip calls one or two expression units; of two, both are told."""


class FitPages:
    """Paints the frames of one stretch of a video.

    Args:
        source: the prepared face.
        fitted: its fit.
        errors: of the fit.
        longest: longest side of the frame on the page, px.
        span: frames ``[first, stop)`` that are shown; each shot of them keeps one enlargement.
    """

    def __init__(
        self, source: PreparedSource, fitted: FittedFace, errors: FitErrors, longest: int, span: tuple[int, int]
    ) -> None:
        self._source, self._fitted, self._errors = source, fitted, errors
        self._units = [
            (label, [source.face_model.expression_names.index(name) for name in names]) for label, names in _UNITS
        ]
        widths = [item_width(item) for item in self._items(span[0])]
        info = source.info
        self._layout = Layout.of(info.width, info.height, longest, widths)
        self._painter = FitPainter(self._layout, wires_of(*_drawn_mesh(source.face_model)))
        self._look(span)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of every page."""
        return self._layout.page

    def page(self, frame: Frame) -> Frame:
        """The page of a frame, as a frame of an RGB video with the same time."""
        return rgb_frame(frame.index, frame.time_s, self._painter.paint(rgb_from_planes(frame), self._fit(frame.index)))

    def _look(self, span: tuple[int, int]) -> None:
        """Where the enlarged views look in each frame, and how closely."""
        errors, info = self._errors, self._source.info
        middle = np.array([info.width, info.height]) / 2
        count = len(self._source)
        self._centers, self._mouths = np.tile(middle, (count, 1)), np.tile(middle, (count, 1))
        self._face_scale, self._mouth_scale = np.zeros(count), np.zeros(count)  # nothing to look at
        reach = round(STEADY_S * float(info.frame_rate) / 2)
        for first, stop in shot_ranges(self._source.shot_starts, count):
            rows = slice(max(first, span[0]), min(stop, span[1]))
            if rows.start >= rows.stop or not np.isfinite(errors.center[rows]).any():
                continue
            face, mouth = (np.nanpercentile(size[rows], 95, axis=0) for size in (errors.face_size, errors.mouth_size))
            scales = self._layout.face_scale(face), self._layout.mouth_scale(mouth)
            self._face_scale[rows], self._mouth_scale[rows] = scales
            views = (PANEL, self._layout.face_height), (PANEL, MOUTH_HEIGHT)
            rooms = (
                np.array(view) / scale - size for view, scale, size in zip(views, scales, (face, mouth), strict=True)
            )
            for where, centers, room in zip(
                (self._centers, self._mouths), (errors.center, errors.mouth), rooms, strict=True
            ):
                where[rows] = steadied(centers[rows], reach, room / 2)

    def _fit(self, row: int) -> FrameFit:
        source = self._source
        is_tracked = bool(source.landmarks.valid[row])
        tracked = np.array(source.landmarks.points[row], np.float64) if is_tracked else None
        fitted = self._fitted.frame(row) if np.isfinite(self._errors.face[row]) else None
        errors = np.full(source.landmarks.points.shape[1], np.nan)
        if fitted is not None and tracked is not None:
            errors = relative_errors(fitted.landmarks_px[None], tracked[None], ~source.occlusion.hidden[row][None])[0]
        return FrameFit(
            fitted=fitted,
            tracked_px=tracked,
            errors=errors,
            face_center=self._centers[row],
            mouth_center=self._mouths[row],
            face_scale=float(self._face_scale[row]),
            mouth_scale=float(self._mouth_scale[row]),
            items=self._items(row),
            note="" if fitted is not None else self._why_not(row),
        )

    def _why_not(self, row: int) -> str:
        status = self._source.status
        state = "" if status is None else f": {WORDS[FrameStatus(int(status[row]))]}"
        return f"no fit in this frame{state}"

    def _items(self, row: int) -> tuple[Item, ...]:
        """What the strip says of a frame."""
        coeffs, errors = self._source.coeffs, self._errors
        pitch, yaw, roll = np.degrees(coeffs.euler[row].astype(np.float64))
        fits = bool(np.isfinite(errors.face[row]))

        def told(value: float, form: str, unit: str = "") -> str:
            text = f"{value:{form}}"
            return (text if fits and np.isfinite(value) else "–".rjust(len(f"{0.0:{form}}"))) + unit

        units = [
            (label, " ".join(told(float(coeffs.expression[row, column]), "z5.2f") for column in columns))
            for label, columns in self._units
        ]
        return (
            ("frame", f"{row:6d}"),
            ("time", f"{self._source.times_s[row]:8.3f} s"),
            ("yaw", told(yaw, "+z6.1f", "°")),
            ("pitch", told(pitch, "+z6.1f", "°")),
            ("roll", told(roll, "+z6.1f", "°")),
            ("distance", told(CAMERA_DISTANCE - float(coeffs.translation[row, 2]), "z5.1f", " dm")),
            ("error: face", told(float(errors.face[row]), "z5.2f", " %")),
            ("lips", told(float(errors.lips[row]), "z5.2f", " %")),
            *units,
        )


def steadied(points: NDArray[np.float64], reach: int, room: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where a view looks so that it follows calmly, but never loses what it follows.

    Args:
        points: ``[T, 2]`` what is followed; at least one row is finite, gaps are bridged.
        reach: rows to either side that are averaged.
        room: ``[2]`` how far a point may be from where the view looks, at most.

    Returns:
        ``[T, 2]``.
    """
    rows = np.arange(len(points))
    known = np.isfinite(points).all(axis=1)
    whole = np.stack([np.interp(rows, rows[known], column[known]) for column in points.T], axis=1)
    padded = np.pad(whole, ((reach, reach), (0, 0)), mode="edge")
    sums = np.concatenate([np.zeros((1, 2)), np.cumsum(padded, axis=0)])
    calm = (sums[2 * reach + 1 :] - sums[: -2 * reach - 1]) / (2 * reach + 1)
    most = np.maximum(room, 0.0)
    return whole + np.clip(calm - whole, -most, most)


def _drawn_mesh(model: FaceModel) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]:
    """Vertices at rest, triangles, and which of them are drawn: not what lies behind the lips, nor the eyeballs."""
    triangles = model.triangles.numpy()
    is_inside = np.isin(model.labels.numpy(), (LABEL_MEMBRANE, LABEL_EYE))
    return model.mean.numpy(), triangles, np.asarray(is_inside[triangles].sum(axis=1) == 0)
