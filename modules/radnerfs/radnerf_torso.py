"""RAD-NeRF torso: a flat picture of shoulders and neck that bends with the head.

A pixel's place is moved by a deformation that depends on the head's pose (or on the chin's landmarks), then colour and
alpha are looked up in a 2-D grid. State-dict names and shapes are those of GeneFace++'s torso.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.config import TorsoConfig
from modules.radnerfs.encoders.frequency import FrequencyEncoder
from modules.radnerfs.encoders.grid import GridEncoder
from modules.radnerfs.radnerf import CODE_AMPLITUDE, BlockMLP

CHIN = slice(5, 12)
"""Of the 68 landmarks: what the torso sees of them."""
PLACE_OCTAVES, CUE_OCTAVES = 10, 4
HEAD_LEAK = 0.02
HEAD_FEATURES = 16
DILATION_CELLS = 5
OCCUPANCY_DECAY = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class TorsoCues:
    """What a frame tells the torso.

    Attributes:
        pose6: ``[6]`` of ``cameras.pose6``; read by torsos with the cue 'pose'.
        landmarks68: ``[68, 2]`` picture coordinates 0..1, x right, y down; read with the cue 'landmarks'.
        code: ``[D]`` appearance code.
    """

    pose6: Tensor | None
    landmarks68: Tensor | None
    code: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class TorsoOutput:
    """Alpha ``[N]`` and rgb ``[N, 3]``, both 0..1, and how far each place was moved, ``[N, 2]`` (row, column)."""

    alpha: Tensor
    rgb: Tensor
    shift: Tensor


class TorsoField(nn.Module):
    """The torso of one person.

    Attributes:
        torso_individual_codes: ``[frames, dim]``; row 0 is used for new motion.
        density_grid_torso: ``[grid_size²]`` alpha that was seen in each cell; the row coordinate runs fastest.
    """

    density_grid_torso: Tensor

    def __init__(self, config: TorsoConfig, backend: RenderBackend) -> None:
        super().__init__()
        self.config = config
        codes = torch.randn(config.individual_embedding_num, config.individual_embedding_dim) * CODE_AMPLITUDE
        self.torso_individual_codes = nn.Parameter(codes)
        self.register_buffer("density_grid_torso", torch.zeros(config.grid_size**2))
        self.place_encoder = FrequencyEncoder(2, PLACE_OCTAVES, backend)
        n_cue = 6 if config.cue == "pose" else 2 * (CHIN.stop - CHIN.start)
        self.cue_encoder = FrequencyEncoder(n_cue, CUE_OCTAVES, backend)
        self.torso_embedder = GridEncoder(config.grid, 2, backend)
        if config.head_aware:
            self.head_color_weights_encoder = _head_layers()
        blocks = self._block_widths()
        self.torso_deform_net = BlockMLP(blocks, config.hidden_dim_deform, 2, config.num_layers)
        blocks = (self.torso_embedder.width, *blocks)
        self.torso_canonicial_net = BlockMLP(blocks, config.hidden_dim_color, 4, config.num_layers)

    def _block_widths(self) -> tuple[int, ...]:
        """Widths of what every pixel is told, in the order of the checkpoints' weights."""
        cue, code = self.cue_encoder.width, self.config.individual_embedding_dim
        told = (cue, code) if self.config.cue == "pose" else (code, cue)
        return (self.place_encoder.width, *told, *((HEAD_FEATURES,) if self.config.head_aware else ()))

    def forward(self, coordinates: Tensor, cues: TorsoCues, head: Tensor | None = None) -> TorsoOutput:
        """Look the torso up; differentiable.

        Args:
            coordinates: ``[N, 2]`` picture coordinates (row, column), -1..1 (``rays.background_coordinates``).
            cues: of the frame.
            head: ``[N, 4]`` the head's rgb without background, and its opacity; only head-aware torsos read it. None
                counts as no head anywhere.

        Raises:
            ValueError: the cue that this torso bends with is missing.
        """
        place = coordinates * self.config.shrink
        told = self._told(place, cues, head)
        shift = self.torso_deform_net(*told)
        moved = (place + shift).clamp(-1, 1)
        out = torch.sigmoid(self.torso_canonicial_net(self.torso_embedder(moved), *told).float())
        return TorsoOutput(out[:, 0], out[:, 1:], shift)

    def _told(self, place: Tensor, cues: TorsoCues, head: Tensor | None) -> tuple[Tensor, ...]:
        """Feature blocks ``[N or 1, C]``; what is the same all over the frame has one row."""
        cue, code = self.cue_encoder(self._cue(cues)[None]), cues.code[None]
        told = (cue, code) if self.config.cue == "pose" else (code, cue)
        blocks = (self.place_encoder(place), *told)
        if not self.config.head_aware:
            return blocks
        seen = place.new_zeros(1, 4) if head is None else head
        return (*blocks, self.head_color_weights_encoder(seen))

    def _cue(self, cues: TorsoCues) -> Tensor:
        given = cues.pose6 if self.config.cue == "pose" else cues.landmarks68
        if given is None:
            raise ValueError(f"this torso bends with the {self.config.cue}; none were given")
        return given if self.config.cue == "pose" else given[CHIN].flatten()

    def occupied(self, coordinates: Tensor, threshold: float = 0.0) -> Tensor:
        """Which of the picture coordinates ``[N, 2]`` may show torso: bool ``[N]``."""
        size = self.config.grid_size
        cells = self.density_grid_torso.view(1, 1, size, size)
        alpha = F.grid_sample(cells, coordinates.view(1, -1, 1, 2), align_corners=True)
        return alpha.view(-1) > threshold


def _head_layers() -> nn.Sequential:
    """Head colour and opacity ``[..., 4]`` to features ``[..., 16]``."""
    layers = [nn.Linear(4, 16), nn.LeakyReLU(HEAD_LEAK), nn.Linear(16, 32), nn.LeakyReLU(HEAD_LEAK)]
    return nn.Sequential(*layers, nn.Linear(32, HEAD_FEATURES))


@torch.no_grad()
def updated_torso_grid(torso: TorsoField, cues: TorsoCues, generator: torch.Generator | None) -> Tensor:
    """The torso's occupancy after a look at one frame: old alphas decayed, raised to the new ones around each cell.

    Args:
        torso: not changed.
        cues: of a (random) training frame.
        generator: source of the jitter inside cells; None looks at their centres.

    Returns:
        ``[grid_size²]``, a new ``density_grid_torso``.
    """
    size, old = torso.config.grid_size, torso.density_grid_torso
    axis = torch.linspace(-1, 1, size, device=old.device) * (1 - 1 / size)
    column, row = torch.meshgrid(axis, axis, indexing="ij")  # the row coordinate runs fastest
    coordinates = torch.stack([row.flatten(), column.flatten()], dim=1)
    if generator is not None:
        noise = torch.rand(coordinates.shape, generator=generator, device=old.device)
        coordinates = coordinates + (2 * noise - 1) / size
    alpha = torso(coordinates, cues).alpha.view(1, 1, size, size)
    spread = F.max_pool2d(alpha, DILATION_CELLS, stride=1, padding=DILATION_CELLS // 2).flatten()
    return torch.maximum(old * OCCUPANCY_DECAY, spread)
