"""What a prepared video offers to a fit, read from its workspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from data_gen.utils.process_video.landmark_visibility import inside_frame
from modules.commons.errors import GeneFaceError
from modules.commons.workspace import VideoWorkspace
from modules.structures.crops import CropMetadata
from modules.structures.frame_index import FrameIndex
from modules.structures.landmarks import N_MEDIAPIPE, Landmarks2D
from modules.structures.masks import OcclusionTable

Table = TypeVar("Table")


@dataclass(frozen=True, slots=True, eq=False)
class FitTables:
    """The tables of one face.

    Attributes:
        landmarks: T frames, mapped.
        metadata: where the crop lies in each frame, and how large frames are.
        visible: float32 ``[T, 478]`` 0..1, 0 outside the frame and behind what was seen in front of the face.
        shot_starts: frames that begin a shot; None = not known.
    """

    landmarks: Landmarks2D
    metadata: CropMetadata
    visible: NDArray[np.float32]
    shot_starts: NDArray[np.int64] | None

    @property
    def size_wh(self) -> tuple[int, int]:
        """Width and height of the frames, px."""
        height, width = self.metadata.frame_size_hw
        return width, height

    @classmethod
    def load(cls, workspace: VideoWorkspace, occluders: Path | None = None) -> FitTables:
        """Read the tables; the occlusion table and the frame index may be missing.

        Args:
            workspace: of the face.
            occluders: table of what hides landmarks; None = ``workspace.occlusion``.

        Raises:
            GeneFaceError: a table is missing, is something else, or disagrees with the others.
        """
        landmarks = _read(workspace.landmarks, Landmarks2D.load)
        metadata = _read(workspace.crop_metadata, lambda path: CropMetadata.from_json(path.read_text(), path))
        height, width = metadata.frame_size_hw
        visible = inside_frame(landmarks.points, (width, height))
        occluders = occluders or workspace.occlusion
        if occluders.is_file():
            hidden = _read(occluders, OcclusionTable.load).hidden
            if hidden.shape != (len(landmarks), N_MEDIAPIPE):
                raise GeneFaceError(
                    f"{occluders} covers {len(hidden)} frames, {workspace.landmarks} {len(landmarks)}; "
                    "prepare the video again"
                )
            visible *= ~hidden
        shots = _read(workspace.frame_index, FrameIndex.load).shot_starts if workspace.frame_index.is_file() else None
        return cls(landmarks, metadata, visible, shots)


def _read(path: Path, load: Callable[[Path], Table]) -> Table:
    try:
        return load(path)
    except FileNotFoundError as error:
        raise GeneFaceError(f"{path} is missing; run the detect and crop stages of this video first") from error
    except (ValueError, OSError) as error:
        raise GeneFaceError(f"{path} cannot be used ({error}); delete it and prepare the video again") from error
