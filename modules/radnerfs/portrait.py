"""GeneFace++'s four renderers as one: a head, where there is one a torso behind it, and super-resolution after it.

The parts are modules of their own; this one puts them one behind the other. State-dict names are ``head.*``,
``torso.*`` and ``sr_net.*``; GeneFace++'s are the same without ``head.`` and ``torso.``, see ``official_names``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from modules.radnerfs.backends.base import RenderBackend
from modules.radnerfs.config import Noise, PortraitConfig
from modules.radnerfs.radnerf import RADNeRF
from modules.radnerfs.radnerf_torso import TorsoCues, TorsoField
from modules.radnerfs.rays import RayBundle, RenderOutput, background_coordinates
from modules.radnerfs.renderer import render_occupancy
from modules.radnerfs.super_resolution import SuperResolution

_TORSO_KEYS = ("torso_", "density_grid_torso", "head_color_weights_encoder.")
_WHOLE_KEYS = ("sr_net.", "lambda_ambient")


class Portrait(nn.Module):
    """A person as GeneFace++ renders it.

    Attributes:
        head: the 3-D head. torso: the flat torso, or None. sr_net: super-resolution, or None.
        lambda_ambient: ``[1]`` weight of the ambient loss, where the configuration keeps it.
    """

    lambda_ambient: Tensor

    def __init__(self, config: PortraitConfig, backend: RenderBackend | None = None) -> None:
        super().__init__()
        self.config = config
        self.head = RADNeRF(config.head, backend)
        self.torso = None if config.torso is None else TorsoField(config.torso, self.head.backend)
        sizes = config.super_resolution
        self.sr_net = None if sizes is None else SuperResolution(sizes)
        if config.adaptive_ambient:
            self.register_buffer("lambda_ambient", torch.ones(1))

    @property
    def kind(self) -> str:
        """'head', 'head_sr', 'torso' or 'torso_sr'."""
        return ("head" if self.torso is None else "torso") + ("" if self.sr_net is None else "_sr")


@dataclass(frozen=True, slots=True, eq=False)
class PortraitFrame:
    """What a frame shows; tensors on the portrait's device.

    Attributes:
        window: ``[W, time, C]`` condition window.
        pose6: ``[6]`` of the camera (``cameras.pose6``), for torsos that bend with it.
        landmarks68: ``[68, 2]`` 0..1, for torsos that bend with them.
        eye_area: eye opening, for heads that know it.
        background: ``[H * W, 3]`` or ``[3]`` colour behind the person, 0..1.
        row: which training frame's appearance is shown; 0 for new motion.
    """

    window: Tensor
    background: Tensor
    pose6: Tensor | None = None
    landmarks68: Tensor | None = None
    eye_area: float | None = None
    row: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class PortraitPicture:
    """A rendered frame of ``H`` × ``W`` rays.

    Attributes:
        rgb: ``[3, H, W]`` 0..1, everything in it. opacity, depth: ``[H, W]`` of the head.
        torso_rgb: ``[3, H, W]`` torso over the background, without the head. torso_alpha: ``[H, W]``. Both None
            without a torso.
        torso_shift: ``[M, 2]`` how far the ``M`` pixels were moved that may show torso.
        sr_rgb: ``[3, 2H, 2W]`` 0..1, None without super-resolution.
    """

    rgb: Tensor
    opacity: Tensor
    depth: Tensor
    torso_rgb: Tensor | None = None
    torso_alpha: Tensor | None = None
    torso_shift: Tensor | None = None
    sr_rgb: Tensor | None = None

    @property
    def finest(self) -> Tensor:
        """The picture at the size that the portrait shows."""
        return self.rgb if self.sr_rgb is None else self.sr_rgb


@dataclass(frozen=True, slots=True)
class PortraitOptions:
    """How a portrait is rendered.

    Attributes:
        t_thresh: transmittance at which a ray ends (GeneFace++ takes 0.01, and 0.05 with ``--fast``).
        noise: inside super-resolution; None = the configuration's.
        torso_threshold: alpha of cells worth rendering; a loaded checkpoint's are all those above 0.
    """

    t_thresh: float = 0.01
    noise: Noise | None = None
    torso_threshold: float = 0.0


@torch.no_grad()
def render_portrait(
    portrait: Portrait,
    rays: RayBundle,
    size_hw: tuple[int, int],
    frame: PortraitFrame,
    options: PortraitOptions | None = None,
    generator: torch.Generator | None = None,
) -> PortraitPicture:
    """Render a whole frame.

    Args:
        portrait: in evaluation mode or not, nothing in it depends on that.
        rays: ``H * W`` rays, row after row, in the head's cube.
        size_hw: ``(H, W)``; with super-resolution both are its ``size``.
        frame: what to show.
        options: None = the defaults.
        generator: source of random noise.

    Raises:
        ValueError: sizes that do not fit, or a cue that the torso needs and the frame lacks.
    """
    options = options or PortraitOptions()
    height, width = size_hw
    if len(rays) != height * width:
        raise ValueError(f"a picture of {height} x {width} needs as many rays, got {len(rays)}")
    head = head_alone(portrait, rays, frame, options.t_thresh)
    behind = frame.background.expand(len(rays), 3)
    coordinates = background_coordinates(*size_hw, head.rgb.device)
    torso = torso_layer(portrait, coordinates, frame, head, options.torso_threshold)
    if torso is not None:
        behind = torso.over(behind)
    rgb = _picture((head.rgb + (1 - head.opacity)[:, None] * behind).clamp(0, 1), size_hw)
    doubled = None
    if portrait.sr_net is not None:
        doubled = portrait.sr_net(rgb[None], options.noise, generator)[0].clamp(0, 1)
    depth, opacity = head.depth.view(size_hw), head.opacity.view(size_hw)
    if torso is None:
        return PortraitPicture(rgb, opacity, depth, sr_rgb=doubled)
    return PortraitPicture(
        rgb, opacity, depth, _picture(behind, size_hw), torso.alpha.view(size_hw), torso.shift, doubled
    )


def head_alone(portrait: Portrait, rays: RayBundle, frame: PortraitFrame, t_thresh: float) -> RenderOutput:
    """The head before nothing: colour ``[N, 3]`` already weighted by its opacity ``[N]``."""
    head = portrait.head
    condition = head.encode_condition(frame.window, frame.eye_area)
    code = head.individual_embeddings[frame.row]
    nothing = torch.zeros(3, device=code.device)
    return render_occupancy(head, rays, condition, code, nothing, training=False, t_thresh=t_thresh)


@dataclass(frozen=True, slots=True, eq=False)
class TorsoLayer:
    """A torso's alpha ``[N]`` and rgb ``[N, 3]`` of every pixel, and shifts ``[M, 2]`` of those that may show it."""

    alpha: Tensor
    rgb: Tensor
    shift: Tensor

    def over(self, background: Tensor) -> Tensor:
        """The torso before a background ``[N, 3]``."""
        return self.rgb * self.alpha[:, None] + background * (1 - self.alpha)[:, None]


def torso_layer(
    portrait: Portrait, coordinates: Tensor, frame: PortraitFrame, head: RenderOutput | None, threshold: float
) -> TorsoLayer | None:
    """The torso at pixels of a frame; differentiable in the torso.

    Args:
        portrait: None comes back where it has no torso.
        coordinates: ``[N, 2]`` of ``rays.background_coordinates``; only occupied ones are evaluated.
        frame: its cues.
        head: what ``head_alone`` shows at these pixels; only torsos that see it need it.
        threshold: see ``PortraitOptions``.
    """
    torso = portrait.torso
    if torso is None:
        return None
    chosen = torso.occupied(coordinates, threshold)
    cues = TorsoCues(frame.pose6, frame.landmarks68, torso.torso_individual_codes[frame.row])
    seen = None if head is None else torch.cat([head.rgb, head.opacity[:, None]], dim=1)[chosen]
    found = torso(coordinates[chosen], cues, seen)
    empty = coordinates.new_zeros(len(coordinates), 4)
    rgba = empty.masked_scatter(chosen[:, None], torch.cat([found.rgb, found.alpha[:, None]], dim=1).to(empty))
    return TorsoLayer(rgba[:, 3], rgba[:, :3], found.shift)


def _picture(values: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """``[H * W, 3]`` to ``[3, H, W]``."""
    return values.view(*size_hw, 3).permute(2, 0, 1)


def official_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A portrait's state under the names of GeneFace++'s checkpoints."""
    return {key.removeprefix("head.").removeprefix("torso."): value for key, value in state.items()}


def portrait_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of ``official_names``."""

    def name(key: str) -> str:
        if key.startswith(_WHOLE_KEYS):
            return key
        return ("torso." if key.startswith(_TORSO_KEYS) else "head.") + key

    return {name(key): value for key, value in state.items()}
