"""Live Link Face's layout of facial motion: which columns, in which order, and what their numbers mean.

Left and right are the subject's own, as in ARKit and in MediaPipe's names: nothing is mirrored. Angles are radians.
Head space has ARKit's axes of a face (x to the subject's left, y up, z out of the face), and so an angle is counted
from a face that looks straight along the camera's axis. A positive yaw turns towards the subject's right, a positive
pitch turns down, a positive roll leans the head towards the subject's left shoulder; yaw is outermost, then pitch,
then roll. Eyes are counted in the head's own space, with the same signs. These are the signs of a rotator of Unreal
Engine, into which Epic's software turns ARKit's transforms; recorded takes bear out those of the eyes.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from modules.structures.cameras import rotation_matrices

# fmt: off
LIVE_LINK_UNITS = (
    "EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft",
    "EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight", "EyeLookUpRight",
    "EyeSquintRight", "EyeWideRight", "JawForward", "JawRight", "JawLeft", "JawOpen", "MouthClose", "MouthFunnel",
    "MouthPucker", "MouthRight", "MouthLeft", "MouthSmileLeft", "MouthSmileRight", "MouthFrownLeft",
    "MouthFrownRight", "MouthDimpleLeft", "MouthDimpleRight", "MouthStretchLeft", "MouthStretchRight",
    "MouthRollLower", "MouthRollUpper", "MouthShrugLower", "MouthShrugUpper", "MouthPressLeft", "MouthPressRight",
    "MouthLowerDownLeft", "MouthLowerDownRight", "MouthUpperUpLeft", "MouthUpperUpRight", "BrowDownLeft",
    "BrowDownRight", "BrowInnerUp", "BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft",
    "CheekSquintRight", "NoseSneerLeft", "NoseSneerRight", "TongueOut",
)
"""The 52 units in the order of the file; 0..1. Note that right comes before left for the jaw and for the mouth."""
LIVE_LINK_ANGLES = (
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch",
    "RightEyeRoll",
)
"""The nine angles behind them, rad."""
# fmt: on
LIVE_LINK_VALUES = (*LIVE_LINK_UNITS, *LIVE_LINK_ANGLES)
LIVE_LINK_HEADER = ("Timecode", "BlendShapeCount", *LIVE_LINK_VALUES)
LIVE_LINK_RATE = Fraction(60)
"""Rows per second that the app records at."""

EYE_ACROSS_RAD, EYE_DOWN_RAD, EYE_UP_RAD = 0.60, 0.60, 0.45
"""How far an eye turns when its unit is 1, sideways, down and up: read off takes of the app, which hold both."""


def unit_name(column: str) -> str:
    """ARKit's own spelling of a unit's column: ``JawOpen`` is ``jawOpen``."""
    return column[0].lower() + column[1:]


def head_angles(euler: NDArray[np.floating]) -> NDArray[np.float64]:
    """Head rotation as the file holds it.

    Args:
        euler: ``[T, 3]`` rad, as in ``FaceModelCoeffs``.

    Returns:
        ``[T, 3]`` rad: yaw, pitch, roll.
    """
    # row-vector rotations are transposed: [..., i, j] here is [..., j, i] of Ry(-yaw) · Rx(pitch) · Rz(-roll)
    rows = rotation_matrices(np.asarray(euler, np.float64))
    yaw = -np.arctan2(rows[..., 2, 0], rows[..., 2, 2])
    pitch = np.arcsin(np.clip(-rows[..., 2, 1], -1.0, 1.0))
    roll = -np.arctan2(rows[..., 0, 1], rows[..., 1, 1])
    return np.stack([yaw, pitch, roll], axis=-1)


def eye_angles(units: NDArray[np.floating]) -> NDArray[np.float64]:
    """Where the eyes look, from the units that say so; an eye does not roll.

    Args:
        units: ``[T, 52]`` in the order of ``LIVE_LINK_UNITS``, 0..1.

    Returns:
        ``[T, 6]`` rad: yaw, pitch and roll of the left, then of the right eye.
    """

    def unit(name: str) -> NDArray[np.float64]:
        return np.asarray(units[:, LIVE_LINK_UNITS.index(name)], np.float64)

    angles = np.zeros((len(units), 6))
    # the left eye looks to the subject's right when it looks in, the right one when it looks out
    angles[:, 0] = EYE_ACROSS_RAD * (unit("EyeLookInLeft") - unit("EyeLookOutLeft"))
    angles[:, 3] = EYE_ACROSS_RAD * (unit("EyeLookOutRight") - unit("EyeLookInRight"))
    for column, side in ((1, "Left"), (4, "Right")):
        angles[:, column] = EYE_DOWN_RAD * unit(f"EyeLookDown{side}") - EYE_UP_RAD * unit(f"EyeLookUp{side}")
    return angles


def time_code(time_s: float, rate: Fraction) -> str:
    """``HH:MM:SS:FF.mmm``: seconds of real time, then frames at ``rate`` since the full second, to the thousandth.

    Seconds are real ones at every rate, so that ``seconds + FF.mmm / rate`` gives the time back and nothing drifts:
    at 29.97 the frames of a second therefore begin at a fraction of a frame.

    Args:
        time_s: 0 or more.
        rate: frames per second.
    """
    if time_s < 0 or rate <= 0:
        raise ValueError(f"no time code of {time_s} s at {rate} frames per second")
    seconds = int(time_s)
    thousandths = round((time_s - seconds) * float(rate) * 1000)
    if thousandths >= rate * 1000:  # a time that rounding kept just below the full second
        seconds, thousandths = seconds + 1, 0
    frames, fraction = divmod(thousandths, 1000)
    minutes, second = divmod(seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02d}:{minute:02d}:{second:02d}:{frames:02d}.{fraction:03d}"
