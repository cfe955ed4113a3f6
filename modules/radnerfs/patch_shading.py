"""Colours of surface points of several frames at once."""

from __future__ import annotations

import logging
from typing import Protocol

import torch
from torch import Tensor

from modules.commons.errors import BackendUnavailableError
from modules.radnerfs.packed_field import FrameTerms, PackedField
from modules.radnerfs.person import PersonField
from modules.radnerfs.surface_sampling import samples_around_surface
from modules.radnerfs.surface_tensors import SurfaceSamples

logger = logging.getLogger(__name__)


class Shader(Protocol):
    """Gives samples their colours; ``waits`` where the CPU has to know how many there are."""

    waits: bool

    def shade(self, samples: SurfaceSamples, condition: Tensor) -> Tensor:
        """Colours ``[M, 3]`` 0..1 under the encoded conditions ``[B, C]`` of the frames."""
        ...


class FieldShader:
    """The person's own field, in full precision: what the CPU renderer does."""

    waits = True

    def __init__(self, person: PersonField) -> None:
        self.person = person

    def shade(self, samples: SurfaceSamples, condition: Tensor) -> Tensor:
        """See ``Shader``."""
        used = slice(None if samples.count is None else int(samples.count[0]))
        frames = samples.frame[used].long()
        return self.person.shade(samples.position[used], samples.direction[used], condition[frames]).rgb


class PackedShader:
    """The fused kernels: half precision, and never a look at the number of samples from the CPU.

    Raises:
        BackendUnavailableError: the field has sizes the fused kernels do not have.
    """

    waits = False

    def __init__(self, person: PersonField) -> None:
        from modules.radnerfs.backends.triton_kernels.field import evaluate

        self._evaluate = evaluate
        self.packed = PackedField.of(person.radnerf)
        self.code = person.mean_code().detach().clone()
        self.render = person.config.render
        self.shell = self.render.shell_dm * float(person.box_scale)
        self.backend = person.radnerf.backend

    def shade(self, samples: SurfaceSamples, condition: Tensor) -> Tensor:
        """See ``Shader``."""
        terms = self.packed.terms(condition, self.code)
        if self.render.n_samples == 1:
            return self._evaluate(
                self.packed,
                samples.position,
                samples.direction,
                samples.frame,
                terms,
                samples.count,
                need_density=False,
            )[1]
        return self._shell(samples, terms)

    def _shell(self, samples: SurfaceSamples, terms: FrameTerms) -> Tensor:
        """Several points around the surface per ray, the last one opaque."""
        steps = self.render.n_samples
        positions, deltas = samples_around_surface(samples.position, samples.direction, steps, self.shell)
        count = None if samples.count is None else samples.count * steps
        directions, frames = (v.repeat_interleave(steps, dim=0) for v in (samples.direction, samples.frame))
        sigma, rgb = self._evaluate(self.packed, positions.flatten(0, 1), directions, frames, terms, count)
        density = sigma.view(-1, steps) * self.render.density_scale
        return self.backend.composite_opaque(density, rgb.view(-1, steps, 3), deltas / self.shell)[0]


def shader_of(person: PersonField) -> Shader:
    """The shader for the device the person is on; a field that the fused kernels do not have is said in the log."""
    if person.device.type != "cuda":
        return FieldShader(person)
    try:
        return PackedShader(person)
    except BackendUnavailableError as error:
        logger.warning("this person is painted without the fused kernels, several times slower: %s", error)
        return FieldShader(person)


def encode_conditions(person: PersonField, windows: Tensor) -> Tensor:
    """Encoded conditions ``[B, C]`` of z-scored windows ``[B, window, 204]``, without TF32's rounding."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        return person.encode(windows)
