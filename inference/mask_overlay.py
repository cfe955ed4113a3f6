"""Every mask over the source frame: what is in front of each face, what that was judged by, and what was done about it.

Colours say what a frame was judged by: hands alone orange, the clip's clean frames green, the trained head blue. A
white line is the hand detector's outline, with the bones and points it found inside; a yellow one is the edge of the
edit, a grey one the jaw of a face left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.driving import occluder_in_frame
from inference.edit_plan import EditPlan
from inference.edited_frames import EditedFrame
from inference.fit_lettering import Lettering
from inference.prepared import PreparedSource
from modules.structures.frames import Frame, FramePatch, RgbImage
from modules.structures.landmarks import HAND_FINGERS, HAND_PALM, JAW_LINE
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from modules.video.colour import blend_patch, rgb_from_planes

COLOURS: dict[OcclusionEvidence, tuple[int, int, int]] = {
    OcclusionEvidence.NONE: (128, 128, 128),
    OcclusionEvidence.HANDS: (255, 140, 0),
    OcclusionEvidence.APPEARANCE: (0, 200, 80),
    OcclusionEvidence.NERF: (40, 120, 255),
}
STRENGTH = 0.55
"""Of the tint: what lies behind it stays visible."""
WHITE, YELLOW, GREY, CYAN = (255, 255, 255), (255, 230, 0), (150, 150, 150), (0, 230, 255)
LINES_PER_HEIGHT = 40
"""Lines of text that would fill the picture's height."""
DOTS_PER_HAND = 70
"""A point of a hand is drawn so many times smaller than the hand is long."""


@dataclass(frozen=True, slots=True, eq=False)
class ShownFace:
    """A face whose masks are shown; ``hands`` is what the hand detector alone found."""

    source: PreparedSource
    plan: EditPlan
    hands: OcclusionTable


class MaskOverlay:
    """Draws the masks of a job's faces over its frames.

    Args:
        faces: in the order of the job's edits.
        rows: int64 ``[N]`` source frame that each output frame shows.
        height: of the frames, px.
    """

    def __init__(self, faces: Sequence[ShownFace], rows: NDArray[np.int64], height: int) -> None:
        self._faces, self._rows = tuple(faces), rows
        self._size_px = max(9, height // LINES_PER_HEIGHT)
        self._lettering = Lettering(self._size_px)

    def __call__(self, done: EditedFrame) -> Frame:
        """The overlay of one output frame."""
        frame = done.before
        picture = rgb_from_planes(frame).copy()
        row = int(self._rows[frame.index])
        for number, face in enumerate(self._faces):
            _tint(picture, face, row)
            edit = done.edits.get(number)
            if edit is not None and edit.alpha is not None:
                _draw_outline(picture, edit.alpha > 0.5, edit.bounds[:2], YELLOW)
            elif face.source.landmarks.valid[row]:
                jaw = face.source.landmarks.points[row][list(JAW_LINE)]
                cv2.polylines(picture, [np.round(jaw).astype(np.int32)], isClosed=True, color=GREY)
            y = round((number + 1) * 1.5 * self._size_px)
            self._lettering.write(picture, self._size_px, y, described(face, row, frame.index), WHITE, backed=True)
        height, width = frame.size_hw
        everywhere = np.ones((height, width), np.float32)
        return blend_patch(
            frame, FramePatch((0, 0, width, height), picture.astype(np.float32) / np.float32(255), everywhere)
        )


def described(face: ShownFace, row: int, number: int) -> str:
    """One line on a face in output frame ``number``, which shows clip row ``row``."""
    table = face.source.occlusion
    judge = OcclusionEvidence(int(table.evidence[row])).name.lower()
    strength = float(face.plan.strength[number])
    outcome = f"edited {100 * strength:.0f} %" if strength > 0 else f"left alone: {face.plan.reasons[number]}"
    covered, mouth = 100 * float(table.coverage[row]), 100 * float(table.mouth[row])
    return f"{number} face {face.source.face} by {judge}: jaw {covered:.0f} % mouth {mouth:.0f} % covered, {outcome}"


def _tint(picture: RgbImage, face: ShownFace, row: int) -> None:
    """Colour what is in front of the face, and draw outlines and points of the hands that were found. In place."""
    source, size_wh = face.source, (picture.shape[1], picture.shape[0])
    mask = occluder_in_frame(source.occlusion, source.crops, row, size_wh)
    if mask is not None:
        colour = np.array(COLOURS[OcclusionEvidence(int(source.occlusion.evidence[row]))], np.float32)
        alpha = (STRENGTH * mask)[..., None]
        picture[:] = np.rint(picture + alpha * (colour - picture)).astype(np.uint8)
    hands = occluder_in_frame(face.hands, source.crops, row, size_wh)
    if hands is not None:
        _draw_outline(picture, hands > 0.5, (0, 0), WHITE)
    for points in face.hands.hands_in(row):
        _draw_hand(picture, points)


def _draw_hand(picture: RgbImage, points: NDArray[np.floating]) -> None:
    """Draw the bones between the points ``[21, 2]`` px of a hand, and the points. In place."""
    places = np.round(points - 0.5).astype(np.int32)
    cv2.polylines(picture, [places[list(HAND_PALM)]], isClosed=True, color=WHITE, lineType=cv2.LINE_AA)
    for finger in HAND_FINGERS:
        cv2.polylines(picture, [places[list(finger)]], isClosed=False, color=WHITE, lineType=cv2.LINE_AA)
    radius = max(1, round(float(np.ptp(points, axis=0).max()) / DOTS_PER_HAND))
    for x, y in places.tolist():
        cv2.circle(picture, (x, y), radius, CYAN, -1, cv2.LINE_AA)


def _draw_outline(
    picture: RgbImage, mask: NDArray[np.bool_], corner: tuple[int, int], colour: tuple[int, int, int]
) -> None:
    """Draw the edge of a mask whose first pixel lies at ``corner`` (x, y). In place."""
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE, offset=corner)
    cv2.drawContours(picture, edges, -1, colour, 1)
