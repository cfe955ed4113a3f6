"""What was done to faces in frames, and what is wanted beside the frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modules.face_model.mesh_renderer import Bounds

State = dict[str, NDArray]


@dataclass(frozen=True, slots=True, eq=False)
class FaceEdit:
    """What was done to one face in one frame.

    Attributes:
        bounds: of the patch.
        area_px: sum of the final alpha.
        alpha: ``[h, w]`` the final alpha; None where it was not asked for.
        is_occluded: something was in front of the face.
    """

    bounds: Bounds
    area_px: float
    alpha: NDArray[np.float32] | None
    is_occluded: bool


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is needed beside the frames.

    Attributes:
        state_after: whether the states after a frame of this number are needed.
        alpha: whether the alphas are.
    """

    state_after: Callable[[int], bool]
    alpha: bool


def with_last(state: State, edited: NDArray[np.bool_], number: int) -> State:
    """A compositor's state as ``FrameEditor.state`` gives it: with the last frame edited up to ``number``.

    Args:
        state: of the compositor.
        edited: bool ``[N]`` output frames that are edited.
        number: of the frame after which it is the state.
    """
    earlier = np.flatnonzero(edited[: number + 1])
    return {**state, "last": np.array(earlier[-1])} if len(earlier) else state
