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
from modules.radnerfs.condition import ConditionStatistics, condition_from_expression
from modules.radnerfs.config import RADNeRFConfig
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.renderer import render_surface
from modules.radnerfs.surface import SurfaceHits
from modules.radnerfs.surface_sampling import samples_around_surface


class PersonField(nn.Module):
    """A person's RAD-NeRF on the canonical head.

    Attributes:
        radnerf: the field, over the cube ±1.
        identity: ``[I]`` 3DMM identity of the training clip.
        condition_mean, condition_std: ``[204]`` statistics of the training clip.
        box_center: ``[3]`` dm. box_scale: ``[]`` 1/dm; head space goes to the cube by ``(point - center) * scale``.
        px_per_dm: ``[]`` how finely the training crops showed the face, frame pixels at most.
    """

    identity: Tensor
    condition_mean: Tensor
    condition_std: Tensor
    box_center: Tensor
    box_scale: Tensor
    px_per_dm: Tensor

    def __init__(self, config: RADNeRFConfig, n_identity: int) -> None:
        super().__init__()
        self.radnerf = RADNeRF(config)
        self.register_buffer("identity", torch.zeros(n_identity))
        self.register_buffer("condition_mean", torch.zeros(config.cond_in_dim))
        self.register_buffer("condition_std", torch.ones(config.cond_in_dim))
        self.register_buffer("box_center", torch.zeros(3))
        self.register_buffer("box_scale", torch.ones(()))
        self.register_buffer("px_per_dm", torch.ones(()))

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

    def condition_feature(self, raw_window: NDArray[np.float32]) -> Tensor:
        """Feature ``[C]`` of one frame from raw conditions ``[window, 204]``; NaN rows lie outside the clip."""
        windows = torch.from_numpy(np.nan_to_num(self.statistics.normalize(raw_window), nan=0.0))
        return self.encode(windows[None].to(self.device))[0]

    def shade(
        self,
        position: Tensor,
        direction: Tensor,
        condition: Tensor,
        code: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Colour of surface points.

        Args:
            position: ``[N, 3]`` in the cube.
            direction: unit ``[N, 3]`` in head space, from the camera on.
            condition: ``[C]`` or ``[N, C]`` encoded.
            code: ``[D]`` or ``[N, D]`` appearance code; None takes the person's mean.
            generator: jitters the samples in their shell (training).

        Returns:
            ``[N, 3]`` 0..1; differentiable.
        """
        render = self.config.render
        shell = render.shell_dm * float(self.box_scale)
        if render.n_samples == 1:
            samples, deltas = position[:, None], torch.ones_like(position[:, :1])
        else:
            samples, deltas = samples_around_surface(position, direction, render.n_samples, shell, generator)
        codes = self.mean_code() if code is None else code
        return render_surface(self.radnerf, samples, deltas / shell, direction, condition, codes).rgb

    def mean_code(self) -> Tensor:
        """The appearance ``[D]`` used for frames that were not trained on."""
        return self.radnerf.individual_embeddings.mean(dim=0)


def raw_condition_windows(
    face_model: FaceModel, identity: NDArray[np.float32], expression: NDArray[np.float32], size: int
) -> NDArray[np.float32]:
    """Raw condition windows ``[T, size, 204]`` of a whole motion, NaN outside it (what ``condition_feature`` takes)."""
    raw = torch.from_numpy(condition_from_expression(face_model, identity, expression))
    inside = condition_windows(torch.ones(len(raw)), size).numpy() > 0
    windows = condition_windows(raw, size).numpy()
    windows[~inside] = np.nan
    return windows


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
    with torch.inference_mode():
        positions = person.to_unit(torch.from_numpy(hits.canonical[chosen]).to(person.device))
        directions = torch.from_numpy(hits.direction[chosen]).to(person.device)
        parts = [
            person.shade(position, direction, condition).cpu()
            for position, direction in zip(positions.split(chunk), directions.split(chunk), strict=True)
        ]
        if parts:
            image[chosen] = torch.cat(parts).numpy()
    return image
