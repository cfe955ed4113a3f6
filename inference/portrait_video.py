"""GeneFace++'s own portraits speak: a head or torso checkpoint, its clip's dataset and an official network.

Reads: a checkpoint of GeneFace++ (or an imported one), ``data/binary/videos/<video_id>/``, BFM2009, HuBERT, a sound.
Writes: the video.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from data_gen.utils.process_audio.features import build_extractor
from data_gen.utils.process_audio.front_end import prepare_speech
from inference.driving import speech_track
from inference.jobs import ClassicJob
from inference.official_motion import official_features
from inference.person_clip import FRAME_RATE, pose_rows
from modules.audio2motion.official import is_official_motion, load_official
from modules.commons.device import pick_device
from modules.commons.errors import ConfigError
from modules.commons.progress import Progress
from modules.commons.workspace import VideoWorkspace
from modules.face_model.bfm import BfmModel
from modules.radnerfs.backends import get_backend
from modules.radnerfs.official import OfficialPortrait, load_portrait
from modules.radnerfs.official_dataset import load_portrait_dataset
from modules.radnerfs.portrait import PortraitFrame, PortraitOptions, render_portrait
from modules.radnerfs.portrait_motion import PortraitCameras, PortraitMotion
from modules.radnerfs.rays import pixel_centres, pixel_rays
from modules.structures.audio import AudioClip
from modules.structures.portrait_dataset import PortraitDataset
from modules.video.pipeline import encoding
from modules.video.rgb_video import rgb_frame, rgb_video_info
from modules.video.writer import VideoWriter

logger = logging.getLogger("lipsync")

PICTURE_SIDE = 512
"""Side of GeneFace++'s pictures, px; with super-resolution half as many rays per axis are rendered."""
OFFICIAL_MOUTH_AMP = 0.4
"""What GeneFace++ infers with; ``--mouth_amp`` multiplies it, so 1 is its default here too."""


class PortraitPlayer:
    """Renders the frames of a performance, one after the other.

    Args:
        official: the portrait, on its device.
        dataset: the clip it was trained on.
        bfm: BFM2009, on the CPU.
        t_thresh: transmittance at which rays end.
        side: of the pictures without super-resolution.
    """

    def __init__(
        self,
        official: OfficialPortrait,
        dataset: PortraitDataset,
        bfm: BfmModel,
        t_thresh: float = 0.01,
        side: int = PICTURE_SIDE,
    ) -> None:
        self.portrait, self.dataset = official.portrait, dataset
        self.motion = PortraitMotion(dataset, bfm)
        config, doubled = official.config, official.portrait.config.super_resolution
        self.side = side if doubled is None else doubled.size
        kernel = config.camera_kernel if config.smooth_camera_path else None
        sizes = config.portrait
        self.cameras = PortraitCameras.of(dataset, sizes.camera_scale, sizes.camera_offset, kernel)
        self.options = PortraitOptions(t_thresh=t_thresh)
        self._device = self.portrait.head.individual_embeddings.device
        self._pixels = pixel_centres(self.side, self.side, self._device)
        self._camera = self._camera_matrix()
        self._background = self._at_rays(still_background(dataset, config.background))

    @property
    def picture_side(self) -> int:
        """Of the pictures that ``frames`` gives, px."""
        return self.side if self.portrait.sr_net is None else 2 * self.side

    def frames(
        self,
        expression: NDArray[np.float32],
        rows: NDArray[np.int64],
        *,
        lle_percent: float = 0.2,
        blinks: bool = False,
    ) -> Iterator[NDArray[np.uint8]]:
        """RGB pictures uint8 ``[S, S, 3]`` of expressions ``[T, 64]`` under the head poses of clip rows ``[T]``."""
        moved = torch.from_numpy(expression)
        shown = self.motion.show(moved, self.portrait.config.head.smo_win_size, lle_percent=lle_percent, blinks=blinks)
        landmarks = self.motion.torso_landmarks(moved, rows)
        for index, row in enumerate(rows.tolist()):
            frame = PortraitFrame(
                window=shown.windows[index].to(self._device),
                background=self._background,
                pose6=self.cameras.pose6[row].to(self._device),
                landmarks68=landmarks[index].to(self._device),
                eye_area=float(shown.eye_area[index]),
            )
            rays = pixel_rays(self._pixels, self._camera, self.cameras.poses[row].to(self._device))
            picture = render_portrait(self.portrait, rays, (self.side, self.side), frame, self.options)
            yield (picture.finest.permute(1, 2, 0) * 255).round().byte().cpu().numpy()

    def _camera_matrix(self) -> Tensor:
        matrix = self.dataset.camera.matrix()
        matrix[:2] *= self.side / self.dataset.camera.width
        return torch.from_numpy(matrix).float().to(self._device)

    def _at_rays(self, picture: NDArray[np.uint8]) -> Tensor:
        """RGB uint8 ``[H, W, 3]`` at the size of the rays, ``[S * S, 3]`` 0..1."""
        plate = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255
        small = functional.interpolate(plate, (self.side, self.side), mode="bilinear", antialias=True)
        return small[0].clamp(0, 1).permute(1, 2, 0).reshape(-1, 3).to(self._device)


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


def official_expression(job: ClassicJob, speech: AudioClip) -> NDArray[np.float32]:
    """BFM expressions ``[T, 64]`` at 25 Hz for a speech, by the network that ``--a2m_ckpt`` names.

    Raises:
        ConfigError: it names none of GeneFace++'s, which alone speak BFM's coefficients.
        GeneFaceError: the network, HuBERT or the sound cannot be used.
    """
    if job.a2m_ckpt is None or not is_official_motion(job.a2m_ckpt):
        raise ConfigError(
            f"{job.head_ckpt} is a portrait of GeneFace++, which needs its own audio-to-motion network; "
            "give --a2m_ckpt its audio2motion_vae folder"
        )
    network = load_official(job.a2m_ckpt)
    heard = prepare_speech(speech)
    for sentence in heard.warnings:
        logger.warning("driving sound: %s", sentence)
    pitch = build_extractor("f0") if network.hears_pitch else None
    rows, f0_hz = official_features(heard.clip, build_extractor("hubert"), pitch)
    return network.predict(
        rows,
        f0_hz,
        temperature=job.temperature,
        mouth_amp=OFFICIAL_MOUTH_AMP * job.mouth_amp,
        generator=torch.Generator().manual_seed(job.seed),
    )


def open_player(job: ClassicJob) -> PortraitPlayer:
    """The portrait that a job names, with its clip's dataset and BFM.

    Raises:
        GeneFaceError: one of them is missing or wrong; the message says which, and what to do.
    """
    device = pick_device(job.device)
    official = load_portrait(job.head_ckpt, device, get_backend("auto", device))
    if not official.config.video_id:
        raise ConfigError(
            f"{official.source}: its config.yaml names no video_id, so its dataset cannot be found; add it"
        )
    dataset = load_portrait_dataset(VideoWorkspace(official.config.video_id).binary)
    return PortraitPlayer(official, dataset, BfmModel.load(), job.raymarching_end_threshold)


def write_portrait_video(job: ClassicJob, speech: AudioClip, progress: Progress) -> Path:
    """The video of a portrait that says a speech, streamed; the file appears when all frames are there.

    Raises:
        GeneFaceError: see ``open_player`` and ``official_expression``.
    """
    player = open_player(job)
    expression = official_expression(job, speech)
    rows = pose_rows(job.drv_pose, np.arange(len(player.dataset)) / FRAME_RATE, len(expression))
    blinks = job.controls.blink_mode == "period"
    pictures = player.frames(expression, rows, lle_percent=job.lle_percent, blinks=blinks)
    info = rgb_video_info(job.drv_aud, player.picture_side, player.picture_side, Fraction(FRAME_RATE))
    job.out_name.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(job.out_name, info, audio=speech_track(job.drv_aud)) as writer, encoding(writer) as encoded:
        for index, picture in enumerate(pictures):
            encoded.put(rgb_frame(index, Fraction(index, FRAME_RATE), picture))
            progress("render", index + 1, len(rows))
    logger.info("%s: %d frames of a %s portrait", job.out_name, len(rows), player.portrait.kind)
    return job.out_name
