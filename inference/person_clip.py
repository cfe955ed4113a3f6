"""The clip a person was trained on, as the stage of a new video: its tables, the frames to show, their square crops."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from data_gen.runs.process_video import file_sha256
from data_gen.utils.process_video.crop_utils import extract_face_crops
from inference.drv_pose import parse_drv_pose
from inference.identity import check_own_correction
from inference.prepared import PreparedSource, load_source
from modules.commons.checkpoint import load_checkpoint
from modules.commons.errors import CheckpointError, ConfigError, GeneFaceError
from modules.commons.progress import Progress
from modules.commons.workspace import ROOT, VideoWorkspace
from modules.structures.cameras import CameraIntrinsics, crop_camera_matrix
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.dataset import write_crop
from modules.structures.frames import Frame, VideoInfo
from modules.video.reader import VideoReader
from modules.video.rgb_video import rgb_frame, rgb_video_info
from tasks.configs import RADNeRFTaskConfig
from tasks.radnerfs.radnerf import resolve_data_root

logger = logging.getLogger(__name__)

PORTRAIT_SIZE = 512
"""Side of the classic command's picture, px."""
FRAME_RATE = 25


def open_person_clip(checkpoint_dir: Path) -> PreparedSource:
    """The prepared clip that a checkpoint was trained on.

    Raises:
        CheckpointError: its tables are missing or stale, or its video was moved or changed; the message says what to
            run.
    """
    checkpoint = load_checkpoint(checkpoint_dir, parts=())
    config = checkpoint.config(RADNeRFTaskConfig)
    workspace = VideoWorkspace(config.video_id, resolve_data_root(config), config.face)
    sha256 = str(checkpoint.extra.get("source_sha256", ""))
    remedy = (
        f"prepare it again: python data_gen/runs/process_video.py --video_id {config.video_id} "
        f"--video PATH_OF_THE_CLIP --data_root {workspace.data_root}"
        + (f" --face {config.face}" if config.face else "")
    )
    who = f"{checkpoint_dir} was trained on the clip {config.video_id!r}"
    needed = (
        workspace.manifest, workspace.frame_index, workspace.track, workspace.landmarks, workspace.crop_metadata,
        workspace.hands, workspace.occlusion,
    )  # fmt: skip

    missing = [path for path in (*needed, workspace.coeffs) if not path.is_file()]
    if missing:
        raise CheckpointError(f"{who}, but {missing[0]} is missing; {remedy}")
    video = _find_video(workspace, sha256)
    if video is None:
        raise CheckpointError(f"{who}, but its video is no longer where it was or has changed; {remedy}")
    try:
        with VideoReader(video) as reader:
            source = load_source(video, sha256, workspace, reader.info)
    except (GeneFaceError, ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"{who}, but its tables cannot be used ({error}); {remedy}") from error
    if source.coeffs.face_model_version != source.face_model.version or len(source.coeffs) != len(source):
        raise CheckpointError(f"{who}, but it was prepared with another face model; {remedy}")
    check_own_correction(checkpoint_dir, sha256, config.face, source.coeffs.correction)
    return source


def prepared_clip(workspace: VideoWorkspace) -> PreparedSource | None:
    """The clip of a workspace with its tables; None where they, or its video, are no longer there."""
    try:
        sha256 = str(json.loads(workspace.manifest.read_text(encoding="utf-8"))["source_sha256"])
        video = _find_video(workspace, sha256)
        if video is None:
            return None
        with VideoReader(video) as reader:
            return load_source(video, sha256, workspace, reader.info)
    except (GeneFaceError, ValueError, OSError, KeyError, TypeError) as error:
        logger.info("%s: its tables cannot be used (%s)", workspace.processed, error)
        return None


def _find_video(workspace: VideoWorkspace, sha256: str) -> Path | None:
    """The video the tables were made from, if it is still there and is the one the person was trained on."""
    try:
        manifest = json.loads(workspace.manifest.read_text(encoding="utf-8"))
        given = Path(manifest["video"])
        if manifest["source_sha256"] != sha256:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    candidates = (given, ROOT / given, workspace.raw_video)
    return next((path for path in candidates if path.is_file() and file_sha256(path) == sha256), None)


def pose_rows(drv_pose: str, times_s: NDArray[np.float64], n_frames: int) -> NDArray[np.int64]:
    """Which clip row each output frame shows: the chosen stretch back and forth, at its own speed.

    Args:
        drv_pose: see ``parse_drv_pose``.
        times_s: ``[T]`` times of the clip's frames. Of a 25 fps clip every frame is shown in order; of others the
            frame nearest in time.
        n_frames: output frames, 25 per second.

    Returns:
        int64 ``[n_frames]``.

    Raises:
        ConfigError: the clip has no such frames.
    """
    first, stop = parse_drv_pose(drv_pose)
    stop = len(times_s) if stop is None else stop
    if stop > len(times_s):
        raise ConfigError(f"--drv_pose {drv_pose}: the person's clip has {len(times_s)} frames, numbered from 0")
    stretch = times_s[first:stop] - times_s[first]
    length_s = float(stretch[-1])
    if length_s <= 0:
        return np.full(n_frames, first, np.int64)
    elapsed = np.arange(n_frames) / FRAME_RATE
    there_and_back = length_s - np.abs(length_s - elapsed % (2 * length_s))
    halfway = (stretch[1:] + stretch[:-1]) / 2
    # of two frames equally near the earlier one, whatever the rounding says
    return first + np.searchsorted(halfway, there_and_back - 1e-6).astype(np.int64)


def portrait_crops(metadata: CropMetadata) -> CropMetadata:
    """The clip's crops as the classic command shows them: 512 px, upright and inside the frame.

    Beyond the frame a crop repeats its edge, which training leaves out but a viewer would see; so squares that reach
    out are moved in, and shrunk where they are larger than the frame.
    """
    height, width = metadata.frame_size_hw
    regions = tuple(_inside(region, width, height) for region in metadata.regions)
    return replace(metadata, regions=regions, crop_size=PORTRAIT_SIZE)


def _inside(region: CropRegion, width: int, height: int) -> CropRegion:
    side = min(region.side, width, height)
    x, y = (
        min(max(center, side / 2), size - side / 2)
        for center, size in ((region.center_x, width), (region.center_y, height))
    )
    return CropRegion(x, y, side)


def portrait_camera(camera: CameraIntrinsics, crop_from_frame: NDArray[np.float64]) -> CameraIntrinsics:
    """``K_crop = crop_from_frame · K_frame`` of an upright crop."""
    matrix = crop_camera_matrix(camera, crop_from_frame)
    fx, fy, cx, cy = (float(v) for v in (matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]))
    return CameraIntrinsics(fx, fy, cx, cy, PORTRAIT_SIZE, PORTRAIT_SIZE)


def portrait_info(clip: Path) -> VideoInfo:
    """What the result is as a video: 512 px, 25 fps, BT.709."""
    return rgb_video_info(clip, PORTRAIT_SIZE, PORTRAIT_SIZE, Fraction(FRAME_RATE))


def portrait_frame(index: int, rgb: NDArray[np.uint8]) -> Frame:
    """An RGB picture ``[512, 512, 3]`` as output frame ``index``."""
    return rgb_frame(index, Fraction(index, FRAME_RATE), rgb)


@dataclass(frozen=True, slots=True, eq=False)
class CropStore:
    """Crops of a clip as files, to be shown in any order; memory stays one frame whatever the order."""

    folder: Path

    @classmethod
    def fill(
        cls, source: PreparedSource, crops: CropMetadata, rows: NDArray[np.int64], folder: Path, progress: Progress
    ) -> CropStore:
        """Cut the crops of ``rows`` out of the video, in one pass that ends with the last one.

        Raises:
            VideoReadError: the video cannot be read to that row.
        """
        wanted = sorted(set(rows.tolist()))
        with VideoReader(source.video) as reader:
            chosen = set(wanted)
            frames = (frame for frame in reader.frames() if frame.index in chosen)
            for done, (index, rgb) in enumerate(extract_face_crops(frames, crops), start=1):
                write_crop(folder, index, rgb, None)
                progress("crops", done, len(wanted))
                if index == wanted[-1]:
                    break
        return cls(folder)

    def crop(self, row: int) -> NDArray[np.uint8]:
        """RGB ``[512, 512, 3]`` of a clip row that was asked for."""
        image = cv2.imread(str(self.folder / f"{row:06d}.jpg"), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"row {row} was not stored")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
