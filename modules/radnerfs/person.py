"""One person's head, complete: the field plus everything that belongs to this person and no other.

Training fills it, a checkpoint holds it, inference renders with it; both go through ``shade``.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from modules.face_model.keypoints import condition_windows
from modules.face_model.model import FaceModel
from modules.postnet import lle
from modules.postnet.postnet import LandmarkPostNet
from modules.postnet.soft_clamp import soft_clamp
from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.condition import ConditionStatistics, condition_from_expression
from modules.radnerfs.config import RADNeRFConfig
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.rays import RenderOutput
from modules.radnerfs.renderer import render_surface
from modules.radnerfs.surface import SurfaceHits
from modules.radnerfs.surface_sampling import samples_around_surface
from modules.radnerfs.trust import CELLS, GOOD_SHARE, UNSEEN_SHARE, read_cells

BANK_MARGIN = 0.25
"""Conditions may leave the range of the training motion by this many standard deviations."""


class PersonField(nn.Module):
    """A person's RAD-NeRF on the canonical head.

    Attributes:
        radnerf: the field, over the cube ±1.
        identity: ``[I]`` 3DMM identity of the training clip.
        condition_mean, condition_std: ``[204]`` statistics of the training clip.
        box_center: ``[3]`` dm. box_scale: ``[]`` 1/dm; head space goes to the cube by ``(point - center) * scale``.
        px_per_dm: ``[]`` how finely the training crops showed the face, frame pixels at most.
        motion_bank: ``[M, 204]`` z-scored conditions of the training frames: the motion this person showed.
        trust: uint8 ``[G, G, G]`` per cell (z, y, x) of the cube: 0 where training saw no skin or could not explain
            what it saw (hair that falls over a cheek), 255 where it could.
        sharpen_share: ``[]`` strength of the unsharp mask that makes renderings as sharp as the clip.
        best_view: uint8 ``[G, G, G]`` quality (``surface.view_quality`` · 255) of the frame that shows the cell best.
        correction: ``[I, E]`` of the expression units in the training clip's fit; None = the face model's own units.
    """

    identity: Tensor
    condition_mean: Tensor
    condition_std: Tensor
    box_center: Tensor
    box_scale: Tensor
    px_per_dm: Tensor
    motion_bank: Tensor
    trust: Tensor
    best_view: Tensor
    sharpen_share: Tensor
    correction: Tensor | None

    def __init__(
        self,
        config: RADNeRFConfig,
        n_identity: int,
        n_motion: int,
        correction: Tensor | None = None,
        backend: RenderBackend | None = None,
    ) -> None:
        super().__init__()
        self.radnerf = RADNeRF(config, backend)
        self.register_buffer("identity", torch.zeros(n_identity))
        self.register_buffer("condition_mean", torch.zeros(config.cond_in_dim))
        self.register_buffer("condition_std", torch.ones(config.cond_in_dim))
        self.register_buffer("box_center", torch.zeros(3))
        self.register_buffer("box_scale", torch.ones(()))
        self.register_buffer("px_per_dm", torch.ones(()))
        self.register_buffer("sharpen_share", torch.zeros(()))
        self.register_buffer("motion_bank", torch.zeros(n_motion, config.cond_in_dim))
        self.register_buffer("trust", torch.zeros(CELLS, CELLS, CELLS, dtype=torch.uint8))
        self.register_buffer("best_view", torch.zeros(CELLS, CELLS, CELLS, dtype=torch.uint8))
        self.register_buffer("correction", None if correction is None else correction.clone())

    @property
    def config(self) -> RADNeRFConfig:
        return self.radnerf.config

    @property
    def device(self) -> torch.device:
        return self.box_center.device

    @property
    def statistics(self) -> ConditionStatistics:
        """What z-scores this person's condition."""
        return ConditionStatistics(self.condition_mean.cpu().numpy(), self.condition_std.cpu().numpy())

    def to_unit(self, canonical: Tensor) -> Tensor:
        """Head-space points ``[..., 3]`` dm in the field's cube."""
        return (canonical - self.box_center) * self.box_scale

    def encode(self, windows: Tensor) -> Tensor:
        """z-scored condition windows ``[F, window, 204]`` to condition features ``[F, C]``."""
        return self.radnerf.encode_conditions(windows[:, :, None])

    def condition_windows(
        self,
        face_model: FaceModel,
        expression: NDArray[np.float32],
        lle_percent: float = 0.0,
        postnet: LandmarkPostNet | None = None,
    ) -> Tensor:
        """z-scored condition windows ``[T, window, 204]`` of new motion, kept near what this person showed.

        Identity and correction are the person's own, whoever's head is rendered onto: the field knows no others.

        Args:
            face_model: CPU model of the version the person was trained with, of whatever correction.
            expression: ``[T, E]``.
            lle_percent: share that is rebuilt from the training motion, 0..1.
            postnet: this person's, on the CPU; None = none.
        """
        own_model = face_model.corrected(self.correction)
        raw = condition_from_expression(own_model, self.identity.cpu().numpy(), expression)
        if postnet is not None:
            with torch.no_grad():
                raw = postnet(torch.from_numpy(raw)[None])[0].numpy()
        features = torch.from_numpy(self.statistics.normalize(raw))
        bank = self.motion_bank.cpu()
        features = lle.blend(features, bank, lle_percent)
        kept = soft_clamp(features, bank.amin(dim=0), bank.amax(dim=0), BANK_MARGIN)
        return condition_windows(kept, self.config.smo_win_size)

    def known(self, canonical: NDArray[np.float32], quality: NDArray[np.float32]) -> NDArray[np.float32]:
        """How far the field is to be believed, 0..1.

        Args:
            canonical: points ``[..., 3]`` dm.
            quality: ``[...]`` how well this view shows them; a view much worse than training's best one is left alone.
        """
        unit = (canonical - self.box_center.cpu().numpy()) * float(self.box_scale)
        best = read_cells(self.best_view, unit)
        seen = np.clip((quality / np.maximum(best, 1e-3) - UNSEEN_SHARE) / (GOOD_SHARE - UNSEEN_SHARE), 0, 1)
        return (read_cells(self.trust, unit) * seen).astype(np.float32)

    def shade(
        self,
        position: Tensor,
        direction: Tensor,
        condition: Tensor,
        code: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> RenderOutput:
        """What surface points show.

        Args:
            position: ``[N, 3]`` in the cube.
            direction: unit ``[N, 3]`` in head space, from the camera on.
            condition: ``[C]`` or ``[N, C]`` encoded.
            code: ``[D]`` or ``[N, D]`` appearance code; None takes the person's mean.
            generator: jitters the samples in their shell (training).

        Returns:
            Colours ``[N, 3]`` and how far the ambient coordinates are off their rest; differentiable.
        """
        render = self.config.render
        shell = render.shell_dm * float(self.box_scale)
        if render.n_samples == 1:
            samples, deltas = position[:, None], torch.ones_like(position[:, :1])
        else:
            samples, deltas = samples_around_surface(position, direction, render.n_samples, shell, generator)
        codes = self.mean_code() if code is None else code
        return render_surface(self.radnerf, samples, deltas / shell, direction, condition, codes)

    def mean_code(self) -> Tensor:
        """The appearance ``[D]`` used for frames that were not trained on."""
        return self.radnerf.individual_embeddings.mean(dim=0)


def single_code(config: RADNeRFConfig) -> RADNeRFConfig:
    """The configuration of a finished person: one appearance code, the mean over the training frames."""
    return replace(config, individual_embedding_num=1)


def render_hits(
    person: PersonField, hits: SurfaceHits, wanted: NDArray[np.bool_], condition: Tensor, chunk: int = 1 << 15
) -> NDArray[np.float32]:
    """Render the wanted pixels of a window.

    Args:
        person: the person, on any device.
        hits: what the window's pixels see.
        wanted: ``[h, w]`` pixels to render; those that miss the head stay black.
        condition: ``[C]`` encoded condition of the frame.
        chunk: pixels rendered at once.

    Returns:
        float32 ``[h, w, 3]`` 0..1.
    """
    chosen = wanted & hits.mask
    image = np.zeros((*chosen.shape, 3), dtype=np.float32)
    image[chosen] = render_points(person, hits.canonical[chosen], hits.direction[chosen], condition, chunk)
    return image


def render_points(
    person: PersonField,
    canonical: NDArray[np.float32],
    direction: NDArray[np.float32],
    condition: Tensor,
    chunk: int = 1 << 15,
) -> NDArray[np.float32]:
    """Colours float32 ``[N, 3]`` of canonical points ``[N, 3]`` dm seen along unit ``direction [N, 3]``."""
    with torch.inference_mode():
        positions = person.to_unit(torch.from_numpy(canonical).to(person.device)).split(chunk)
        directions = torch.from_numpy(direction).to(person.device).split(chunk)
        parts = [person.shade(p, d, condition).rgb.cpu() for p, d in zip(positions, directions, strict=True)]
    return torch.cat(parts).numpy()
