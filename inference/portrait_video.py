"""Portraits speak: head, torso and background rendered anew, GeneFace++'s own ones and this project's.

Reads: a portrait's checkpoint, its clip's dataset, what its face model needs (BFM2009 for GeneFace++'s), a sound.
Writes: the video; with ``--debug`` strips beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from inference.driving import speech_track
from inference.jobs import ClassicJob
from inference.person_clip import FRAME_RATE
from inference.portrait_performance import Performance, perform
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, ConfigError
from modules.commons.progress import Progress
from modules.face_model.portrait_face import PortraitFace, is_bfm, portrait_face
from modules.radnerfs.backends import get_backend
from modules.radnerfs.official import OfficialPortrait, load_portrait
from modules.radnerfs.official_dataset import load_portrait_dataset
from modules.radnerfs.portrait import PortraitFrame, PortraitOptions, PortraitPicture, render_portrait
from modules.radnerfs.portrait_motion import HeadPoses, PortraitCameras, PortraitMotion
from modules.radnerfs.rays import pixel_centres, pixel_rays
from modules.structures.audio import AudioClip
from modules.structures.portrait_dataset import PortraitDataset
from modules.video.pipeline import encoding
from modules.video.png import write_png
from modules.video.rgb_video import rgb_frame, rgb_video_info
from modules.video.writer import VideoWriter

logger = logging.getLogger("lipsync")

DEBUG_EVERY = 25
"""Frames between two strips of ``--debug``."""


class PortraitPlayer:
    """Renders the frames of a performance, one after the other.

    Args:
        official: the portrait, on its device.
        dataset: the clip it was trained on.
        face: of the model that the clip's coefficients belong to, on the CPU.
        t_thresh: transmittance at which rays end.
    """

    def __init__(
        self, official: OfficialPortrait, dataset: PortraitDataset, face: PortraitFace, t_thresh: float = 0.01
    ) -> None:
        self.portrait, self.dataset = official.portrait, dataset
        self.motion = PortraitMotion(dataset, face)
        self._sizes, doubled = official.portrait.config, official.portrait.config.super_resolution
        self.side = (self._sizes.picture_side or dataset.camera.width) if doubled is None else doubled.size
        self._kernel = official.config.camera_kernel if official.config.smooth_camera_path else None
        self.options = PortraitOptions(t_thresh=t_thresh)
        self.device = self.portrait.head.individual_embeddings.device
        self._pixels = pixel_centres(self.side, self.side, self.device)
        self._camera = self._camera_matrix()
        self.workspace = official.config.workspace
        self.picture_root = self.workspace.data_root.parent
        self._behind = Backgrounds(dataset, official.config.background, self.picture_root)
        self._plate: tuple[NDArray[np.uint8], Tensor] | None = None

    @property
    def picture_side(self) -> int:
        """Of the pictures that ``frames`` gives, px."""
        return self.side if self.portrait.sr_net is None else 2 * self.side

    def frames(
        self, performance: Performance, *, lle_percent: float = 0.2, blinks: bool = False
    ) -> Iterator[NDArray[np.uint8]]:
        """RGB pictures uint8 ``[S, S, 3]``, see ``pictures``."""
        for picture in self.pictures(performance, lle_percent=lle_percent, blinks=blinks):
            yield rgb_of(picture.finest)

    def pictures(
        self, performance: Performance, *, lle_percent: float = 0.2, blinks: bool = False
    ) -> Iterator[PortraitPicture]:
        """The frames of a performance.

        Args:
            performance: what is done.
            lle_percent: share of the motion that is rebuilt from the clip's own, 0..1.
            blinks: BFM's eyes blink by the clock, else they stay open; the embedded model's do as its expression says.

        Raises:
            CheckpointError: a background of the clip is missing.
        """
        scene = self.scene(performance, lle_percent=lle_percent, blinks=blinks)
        for index in range(len(performance)):
            yield scene.picture(index)

    def scene(
        self, performance: Performance, *, lle_percent: float = 0.2, blinks: bool = False, smooth: bool = True
    ) -> PortraitScene:
        """A performance, ready to be rendered in any order.

        Args:
            performance: see ``pictures``.
            lle_percent: likewise.
            blinks: likewise.
            smooth: the camera as the portrait's configuration wants it; False keeps it where the head was tracked.
        """
        moved, own = torch.from_numpy(performance.expression), not is_bfm(self.dataset)
        window = self.portrait.config.head.smo_win_size
        shown = self.motion.show(moved, window, lle_percent=lle_percent, blinks=blinks and not own)
        poses = performance.poses or HeadPoses.of_rows(self.dataset, performance.rows)
        return PortraitScene(
            player=self,
            rows=performance.rows,
            windows=shown.windows,
            eye_area=self.motion.eye_areas(moved) if own else shown.eye_area,
            landmarks=self.motion.torso_landmarks(moved, poses),
            cameras=self._cameras(performance, self._kernel if smooth else None),
        )

    def render(self, frame: PortraitFrame, pose: Tensor) -> PortraitPicture:
        """One frame, whose tensors lie on the portrait's device, by a pose ``[4, 4]`` of the camera."""
        rays = pixel_rays(self._pixels, self._camera, pose.to(self.device))
        return render_portrait(self.portrait, rays, (self.side, self.side), frame, self.options)

    def _cameras(self, performance: Performance, kernel: int | None) -> PortraitCameras:
        """GeneFace++ smooths the clip's cameras in the clip's order, whatever is played of them."""
        scale, offset = self._sizes.camera_scale, self._sizes.camera_offset
        if performance.poses is not None:
            return PortraitCameras.of(performance.poses, scale, offset, kernel)
        every = HeadPoses.of_rows(self.dataset, slice(None))
        return PortraitCameras.of(every, scale, offset, kernel).at(performance.rows)

    def _camera_matrix(self) -> Tensor:
        matrix = self.dataset.camera.matrix()
        matrix[:2] *= self.side / self.dataset.camera.width
        return torch.from_numpy(matrix).float().to(self.device)

    def background(self, row: int) -> Tensor:
        """What is behind the person in a clip row, at the size of the rays, ``[S * S, 3]`` 0..1.

        Raises:
            CheckpointError: its picture is missing.
        """
        picture = self._behind.at(row)
        if self._plate is None or self._plate[0] is not picture:  # a still one is made smaller once
            plate = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)[None].float() / 255
            small = functional.interpolate(plate, (self.side, self.side), mode="bilinear", antialias=True)
            self._plate = picture, small[0].clamp(0, 1).permute(1, 2, 0).reshape(-1, 3)
        return self._plate[1]


@dataclass(frozen=True, slots=True, eq=False)
class PortraitScene:
    """A performance of ``T`` frames, of which each can be rendered by itself.

    Attributes:
        player: renders it.
        rows: ``[T]`` clip rows whose background is shown.
        windows: ``[T, W, 1, 204]``. eye_area: ``[T]``. landmarks: ``[T, 68, 2]``. cameras: of every frame.
    """

    player: PortraitPlayer
    rows: NDArray[np.int64]
    windows: Tensor
    eye_area: Tensor
    landmarks: Tensor
    cameras: PortraitCameras

    def picture(self, index: int) -> PortraitPicture:
        """Frame ``index``.

        Raises:
            CheckpointError: a background of the clip is missing.
        """
        device = self.player.device
        frame = PortraitFrame(
            window=self.windows[index].to(device),
            background=self.player.background(int(self.rows[index])),
            pose6=self.cameras.pose6[index].to(device),
            landmarks68=self.landmarks[index].to(device),
            eye_area=float(self.eye_area[index]),
        )
        return self.player.render(frame, self.cameras.poses[index])


def rgb_of(picture: Tensor) -> NDArray[np.uint8]:
    """``[3, H, W]`` 0..1 as uint8 ``[H, W, 3]``."""
    return (picture.permute(1, 2, 0) * 255).round().byte().cpu().numpy()


class Backgrounds:
    """What is behind a person in each frame: one still picture, or with a moving camera the frame's own.

    Args:
        dataset: the clip.
        name: GeneFace++'s ``infer_bg_img_fname``: '' is the clip's own.
        root: folder that the names of the pictures are relative to.
    """

    def __init__(self, dataset: PortraitDataset, name: str, root: Path) -> None:
        self._samples, self._root = dataset.samples, root
        self._still = still_background(dataset, name) if name or not dataset.samples.background_files else None

    def at(self, row: int) -> NDArray[np.uint8]:
        """RGB uint8 ``[H, W, 3]`` of a clip row, or of the stored frame nearest to it.

        Raises:
            CheckpointError: the picture is missing.
        """
        if self._still is not None:
            return self._still
        file = self._root / self._samples.background_files[int(np.abs(self._samples.rows - row).argmin())]
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise CheckpointError(f"{file} is missing or cannot be read; prepare the video again")
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def still_background(dataset: PortraitDataset, name: str) -> NDArray[np.uint8]:
    """What is behind a portrait, RGB ``[H, W, 3]``: by GeneFace++'s ``infer_bg_img_fname``.

    Raises:
        ConfigError: it names a picture that cannot be read.
    """
    if not name:
        return dataset.background
    if name in ("white", "black"):
        return np.full_like(dataset.background, 255 if name == "white" else 0)
    image = cv2.imread(name, cv2.IMREAD_COLOR)
    if image is None:
        raise ConfigError(f"{name}: cannot be read as a background; name a picture, white, black or nothing")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def open_player(checkpoint: Path, device: torch.device, t_thresh: float) -> PortraitPlayer:
    """A portrait with its clip's dataset and face model.

    Raises:
        GeneFaceError: one of them is missing or wrong; the message says which, and what to do.
    """
    official = load_portrait(checkpoint, device, get_backend("auto", device))
    if not official.config.video_id:
        raise ConfigError(
            f"{official.source}: its config.yaml names no video_id, so its dataset cannot be found; add it"
        )
    dataset = load_portrait_dataset(official.config.workspace.binary)
    return PortraitPlayer(official, dataset, portrait_face(dataset), t_thresh)


def write_portrait_video(job: ClassicJob, speech: AudioClip, progress: Progress) -> Path:
    """The video of a portrait that says a speech, streamed; the file appears when all frames are there.

    Raises:
        GeneFaceError: see ``open_player`` and ``perform``.
    """
    if job.controls.postnet_ckpt is not None:
        raise ConfigError(f"{job.head_ckpt} is a portrait, which has no post-net; leave out --postnet_ckpt")
    player = open_player(job.head_ckpt, pick_device(job.device), job.raymarching_end_threshold)
    performance = perform(job, player.dataset, player.workspace, speech, progress)
    blinks = job.controls.blink_mode == "period"
    pictures = player.pictures(performance, lle_percent=job.lle_percent, blinks=blinks)
    info = rgb_video_info(job.drv_aud, player.picture_side, player.picture_side, Fraction(FRAME_RATE))
    job.out_name.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(job.out_name, info, audio=speech_track(job.drv_aud)) as writer, encoding(writer) as encoded:
        for index, picture in enumerate(pictures):
            encoded.put(rgb_frame(index, Fraction(index, FRAME_RATE), rgb_of(picture.finest)))
            if job.debug and index % DEBUG_EVERY == 0:
                folder = job.out_name.with_name(job.out_name.stem + "_debug")
                write_png(debug_strip(picture), folder / f"{index:06d}.png")
            progress("render", index + 1, len(performance))
    logger.info("%s: %d frames of a %s portrait", job.out_name, len(performance), player.portrait.kind)
    return job.out_name


def debug_strip(picture: PortraitPicture) -> NDArray[np.uint8]:
    """picture as its rays made it | what is behind the head | the head's opacity, RGB ``[S, 3 S, 3]``."""
    behind = torch.zeros_like(picture.rgb) if picture.torso_rgb is None else picture.torso_rgb
    parts = [picture.rgb, behind.clamp(0, 1), picture.opacity.clamp(0, 1).expand_as(picture.rgb)]
    return rgb_of(torch.cat(parts, dim=2))
