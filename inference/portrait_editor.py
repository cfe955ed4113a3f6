"""A portrait, head and torso, in the place of the filmed person: what ``--torso_ckpt`` does in any video.

The portrait is rendered before the clip's own background (with a moving camera each frame's own), and put into the
frame wherever the filmed or the new person is; all other samples stay the source's, and so does what is in front.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from inference.driving import occlusion_in
from inference.edit_plan import EditPlan
from inference.face_compositor import FaceCompositor
from inference.identity import Identity
from inference.jobs import EditOptions
from inference.person_clip import FRAME_RATE
from inference.portrait_performance import Performance
from inference.portrait_video import open_player
from inference.prepared import PreparedSource
from modules.commons.device import pick_device
from modules.commons.errors import CheckpointError, ConfigError
from modules.radnerfs.official import load_portrait
from modules.radnerfs.portrait import PortraitPicture
from modules.radnerfs.portrait_motion import HeadPoses
from modules.structures.crops import warp_affine
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask

REACH, SOFT = 0.015, 0.01
"""Shares of the picture's side by which the person is taken to be larger, and over which the edge is soft."""
TINY = 1e-3
"""Edges that miss a pixel's border by less lie on it, px."""
BORDER = 0.04
"""Share of the picture's side over which it fades out towards its own border."""


def portrait_identity(checkpoint: Path, source: PreparedSource) -> Identity:
    """A portrait as the person of a video.

    Raises:
        GeneFaceError: it has no torso, was made of another clip, or of other coefficients than this project's.
    """
    official = load_portrait(checkpoint)
    if official.portrait.torso is None:
        raise ConfigError(f"{checkpoint} is a portrait's head alone; train its torso, and name that with --torso_ckpt")
    manifest = official.config.workspace.manifest
    try:
        made_of = json.loads(manifest.read_text(encoding="utf-8"))["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{checkpoint} is a portrait of {official.config.video_id}, but {manifest} cannot be read; prepare its "
            "video again, or leave out --torso_ckpt"
        ) from error
    if made_of != source.sha256:
        raise ConfigError(
            f"{checkpoint} is a portrait made of another video than {source.video}, whose body stands elsewhere; train "
            "one of this video, or leave out --torso_ckpt"
        )
    return Identity(checkpoint, trained_now=False)


class PortraitEditor:
    """Puts a rendered person into one frame at a time; keeps nothing between frames.

    Args:
        options: how frames are repainted.
        source: the face, with its tables.
        checkpoint: the portrait, of ``portrait_identity``.
        plan: the new expression of every output frame.
        rows: ``[N]`` source frame that each output frame shows.
        device: where it is rendered.
    """

    def __init__(
        self,
        options: EditOptions,
        source: PreparedSource,
        checkpoint: Path,
        plan: EditPlan,
        rows: NDArray[np.int64],
        device: str,
    ) -> None:
        self.source, self.plan, self.rows = source, plan, rows
        self.player = open_player(checkpoint, pick_device(device), options.raymarching_end_threshold)
        dataset = self.player.dataset
        if dataset.face_model_version != source.coeffs.face_model_version:
            raise CheckpointError(
                f"{checkpoint} was made with the face model {dataset.face_model_version}, the video with "
                f"{source.coeffs.face_model_version}; train it again"
            )
        in_clip = np.round(source.times_s[rows] * FRAME_RATE).astype(np.int64).clip(0, len(dataset) - 1)
        poses = HeadPoses(source.coeffs.euler[rows], source.coeffs.translation[rows])
        acted = Performance(plan.expression, in_clip, poses)
        self._scene = self.player.scene(acted, lle_percent=options.lle_percent, smooth=False)
        self._frame_from_square = source.coeffs.camera.matrix() @ np.linalg.inv(dataset.camera.matrix())
        self._compositor = FaceCompositor(match_colour=False)

    @property
    def runs_in_batches(self) -> bool:
        """Frames are rendered one by one."""
        return False

    def edit(self, frame: Frame) -> tuple[Frame, FramePatch, OcclusionMask | None]:
        """The frame with the new person; what was put in and what was kept in front of it."""
        size_wh = (self.source.info.width, self.source.info.height)
        occlusion = occlusion_in(self.source, int(self.rows[frame.index]), np.eye(3), size_wh)
        patch = self.patch(frame.index)
        return self._compositor.composite_patch(frame, patch, occlusion), patch, occlusion

    def patch(self, number: int) -> FramePatch:
        """The rendered person of output frame ``number`` on the frame's own grid, edit strength included."""
        picture = self._scene.picture(number)
        side = self.player.picture_side
        alpha = self._person(picture, int(self._scene.rows[number])) * float(self.plan.strength[number])
        shrunk = self.player.dataset.camera.width / side
        frame_from_picture = self._frame_from_square @ np.diag([shrunk, shrunk, 1.0])
        bounds = self._bounds()
        x0, y0, x1, y1 = bounds
        window_from_picture = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1.0]]) @ frame_from_picture
        layers = np.dstack([picture.finest.permute(1, 2, 0).cpu().numpy(), alpha]).astype(np.float32)
        warped = warp_affine(
            layers, window_from_picture, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR, border_mode=cv2.BORDER_REPLICATE
        ).clip(0, 1)
        return FramePatch(bounds, np.ascontiguousarray(warped[..., :3]), np.ascontiguousarray(warped[..., 3]))

    def _person(self, picture: PortraitPicture, row: int) -> NDArray[np.float32]:
        """Where the new or the filmed person is in the picture, ``[S, S]`` 0..1, soft, and 0 at its inner borders."""
        side = self.player.picture_side
        assert picture.torso_alpha is not None
        shown = picture.opacity + (1 - picture.opacity) * picture.torso_alpha
        new = functional.interpolate(shown[None, None], (side, side), mode="bilinear")[0, 0].cpu().numpy()
        person = np.maximum(new, self._filmed(row, side)).astype(np.float32)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (1 + 2 * max(1, round(REACH * side)),) * 2)
        wide = cv2.GaussianBlur(np.asarray(cv2.dilate(person, kernel)), (0, 0), SOFT * side)
        return np.asarray(wide * self._inside(side), np.float32)

    def _filmed(self, row: int, side: int) -> NDArray[np.float32]:
        """Where the person was in the stored frame nearest to a clip row, ``[S, S]`` 0..1.

        Raises:
            CheckpointError: its picture is missing.
        """
        samples, root = self.player.dataset.samples, self.player.picture_root
        nearest = int(np.abs(samples.rows - row).argmin())
        alpha = np.zeros((side, side), np.float32)
        for name in (samples.head_files[nearest], samples.torso_files[nearest]):
            image = cv2.imread(str(root / name), cv2.IMREAD_UNCHANGED)
            if image is None or image.ndim != 3 or image.shape[2] != 4:
                raise CheckpointError(f"{root / name} is missing or has no alpha; prepare the video again")
            small = cv2.resize(image[..., 3], (side, side), interpolation=cv2.INTER_AREA)
            alpha = np.maximum(alpha, small.astype(np.float32) / 255)
        return alpha

    def _inside(self, side: int) -> NDArray[np.float32]:
        """1 in the picture, falling to 0 at those of its borders that lie inside the frame, ``[S, S]``."""
        camera, place = self.source.coeffs.camera, np.arange(side) + 0.5
        x0, y0, x1, y1 = self._square
        falls = []
        for low, high, size in ((y0, y1, camera.height), (x0, x1, camera.width)):
            from_low = place if low > 1 else np.full(side, np.inf)
            from_high = side - place if high < size - 1 else np.full(side, np.inf)
            falls.append(np.clip(np.minimum(from_low, from_high) / (BORDER * side), 0, 1))
        return np.outer(*falls).astype(np.float32)

    @property
    def _square(self) -> tuple[float, float, float, float]:
        """The picture's edges in the frame: x0, y0, x1, y1 px."""
        side = self.player.dataset.camera.width
        (x0, x1), (y0, y1), _ = self._frame_from_square @ np.array([[0, side], [0, side], [1, 1.0]])
        return float(x0), float(y0), float(x1), float(y1)

    def _bounds(self) -> tuple[int, int, int, int]:
        camera, (x0, y0, x1, y1) = self.source.coeffs.camera, self._square
        low = max(0, math.floor(x0 + TINY)), max(0, math.floor(y0 + TINY))
        return *low, min(camera.width, math.ceil(x1 - TINY)), min(camera.height, math.ceil(y1 - TINY))

    def remember_colour(self, frame: Frame) -> None:
        """Nothing of a frame is needed for a later one."""

    def colour_rows(self, times_s: NDArray[np.float64], number: int) -> list[int]:
        """Earlier frames that show in this one: none."""
        return []

    def state(self) -> dict[str, NDArray]:
        """What the next frame depends on: nothing."""
        return {}

    def resume(self, state: dict[str, NDArray]) -> None:
        """Go on after any frame."""
