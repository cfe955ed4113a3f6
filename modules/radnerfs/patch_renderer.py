"""Frames to pixels in batches: the surface path of one person on one device.

It gives what ``inference.motion_to_frames`` renders frame by frame on the CPU: cast the windows' pixels onto the head,
find the alpha, shade what it shows, look again at contours in the mouth, sharpen. Nothing waits for the GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modules.face_model.model import FaceModel, Region
from modules.radnerfs.antialias import FINER, JUMP_DM, SHARPEN_SIGMA_PX
from modules.radnerfs.backends.surface_ops import surface_ops
from modules.radnerfs.patch_graphs import GraphCache, upload
from modules.radnerfs.patch_shading import encode_conditions, shader_of
from modules.radnerfs.person import PersonField
from modules.radnerfs.surface import LEAST_KNOWN, SILHOUETTE_DM, SILHOUETTE_EDGES
from modules.radnerfs.surface_batch import (
    FaceFrames,
    RegionOutline,
    Views,
    Windows,
    WindowShape,
    face_tables,
    frame_arrays,
    vertices,
)
from modules.radnerfs.surface_tensors import (
    SIZE_MOUTH,
    SIZE_RADIUS,
    SIZE_REACH,
    FaceTables,
    FrameTensors,
    SurfaceSamples,
    SurfaceTensors,
)
from modules.structures.device_patch import DevicePatch

MOST_PIXELS = 4_000_000
"""Padded pixels rendered at once; a pixel takes about 190 bytes on the way."""

MOST_WASTE = 1.5
"""Batches take the padded size of earlier ones, so that their graphs serve again, if it is at most this much larger."""

Mark = Callable[[str], None]
"""Told the name of each step when its work is queued."""


def no_mark(step: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """A batch before it has colours: what is seen, alpha and mouth contours ``[B, H, W]``, and what is to be shaded."""

    surface: SurfaceTensors
    alpha: Tensor
    jumps: Tensor
    samples: SurfaceSamples


@dataclass(frozen=True, slots=True, eq=False)
class PatchBatch:
    """Frames (``rows`` of those asked for) that are rendered at once.

    Attributes:
        rows: int64 ``[B]``.
        windows: where they are looked at. shape: padded size.
        face: the head.
        arrays: ``frame_arrays``, and their conditions as ``windows``.
    """

    rows: NDArray[np.int64]
    windows: Windows
    shape: WindowShape
    face: FaceTables
    arrays: dict[str, NDArray]


class PatchRenderer:
    """Renders one person's region in many frames at once.

    Args:
        person: on the device that renders; a copy of its field is packed, so later training does not show.
        face_model: CPU model the coefficients belong to.
        graphs: replay batches of a shape seen before as a CUDA graph; without CUDA this does nothing.
    """

    def __init__(self, person: PersonField, face_model: FaceModel, *, graphs: bool = True) -> None:
        self.person, self.face_model = person, face_model
        self.device = person.device
        self._ops, self._shader = surface_ops(self.device), shader_of(person)
        self._faces: dict[tuple[bytes, Region], tuple[RegionOutline, FaceTables]] = {}
        recordable = self.device.type == "cuda" and not self._shader.waits
        self._graphs = GraphCache(self.device) if graphs and recordable else None
        self._shapes: dict[int, WindowShape] = {}

    def render(
        self, frames: FaceFrames, cond_windows: Tensor, region: Region, *, everything: bool = False
    ) -> list[DevicePatch]:
        """Render a region of ``B`` frames.

        Args:
            frames: the frames.
            cond_windows: float32 ``[B, window, 204]`` on the CPU, z-scored.
            region: what to replace.
            everything: paint all of the region that the heads show, with an alpha of 0 or 1: not less of what training
                knew badly, and without a soft edge.

        Returns:
            One patch per frame, views of one padded batch: rows are not adjacent. One transparent pixel where the
            region lies outside the frame.

        Raises:
            KeyError: when the region is unknown.
        """
        patches: dict[int, DevicePatch] = {}
        for batch in self.batches(frames, cond_windows, region):
            rgb, alpha = self._run(batch, everything)
            for place, row in enumerate(batch.rows):
                x0, y0, x1, y1 = box = batch.windows.box(place)
                size = slice(y1 - y0), slice(x1 - x0)
                patches[int(row)] = DevicePatch(box, rgb[place][size], alpha[place][size])
        return [patches[row] if row in patches else self._nothing() for row in range(len(frames))]

    def batches(self, frames: FaceFrames, cond_windows: Tensor, region: Region) -> list[PatchBatch]:
        """The CPU's part of ``render``, same arguments: batches that fit, without frames that show nothing."""
        outline, face = self._face(frames.identity, region)
        views = Views.of(frames)
        windows = outline.windows(frames, views)
        batches = []
        for rows in _fitting_rows(windows):
            part = windows.rows(rows)
            whole = len(rows) == len(frames)
            arrays = frame_arrays(*((frames, views) if whole else (frames.rows(rows), views.rows(rows))), part)
            arrays["windows"] = (cond_windows if whole else cond_windows[torch.from_numpy(rows)]).float().numpy()
            batches.append(PatchBatch(rows, part, self._kept_shape(len(rows), part.shape()), face, arrays))
        return batches

    def _kept_shape(self, count: int, needed: WindowShape) -> WindowShape:
        """A shape that holds what is needed; with graphs that of earlier batches where it is not much larger."""
        if self._graphs is None:
            return needed
        kept = self._shapes.get(count, needed).joined(needed)
        if kept.n_samples > MOST_WASTE * needed.n_samples:
            kept = needed
        self._shapes[count] = kept
        return kept

    def cast(self, frames: FaceFrames, windows: Windows, region: Region) -> tuple[SurfaceTensors, Tensor]:
        """What the pixels of ``windows`` see of the heads, and their view quality ``[B, H, W]``."""
        face = self._face(frames.identity, region)[1]
        shape = windows.shape()
        with torch.no_grad():
            tensors = frame_tensors(upload(frame_arrays(frames, Views.of(frames), windows), self.device))
            surface = self._cast(face, tensors, shape)[0]
            distance = self._to_silhouettes(surface, tensors)
            return surface, self._ops.view_quality(surface, distance, tensors.edge_px, face, SILHOUETTE_EDGES)

    def _face(self, identity: NDArray[np.float32], region: Region) -> tuple[RegionOutline, FaceTables]:
        key = np.asarray(identity, np.float32).tobytes(), region
        if key not in self._faces:
            outline = RegionOutline(self.face_model, identity, region)
            self._faces[key] = outline, face_tables(self.face_model, self.person, identity, region)
        return self._faces[key]

    def _nothing(self) -> DevicePatch:
        empty = torch.zeros(1, 1, 4, device=self.device)
        return DevicePatch((0, 0, 1, 1), empty[..., :3], empty[..., 3])

    def _run(self, batch: PatchBatch, everything: bool) -> tuple[Tensor, Tensor]:
        """Colours ``[B, H, W, 3]`` and alpha ``[B, H, W]``."""

        def work(inputs: dict[str, Tensor]) -> tuple[Tensor, ...]:
            frames = frame_tensors(inputs)
            return self.paint(batch.face, frames, inputs["windows"], batch.shape, everything=everything)

        with torch.no_grad():
            if self._graphs is None:
                rgb, alpha = work(upload(batch.arrays, self.device))
            else:
                key = (id(batch.face), batch.shape, everything, *(a.shape for a in batch.arrays.values()))
                rgb, alpha = self._graphs.run(key, work, batch.arrays)
        return rgb, alpha

    def paint(
        self, face: FaceTables, frames: FrameTensors, windows: Tensor, shape: WindowShape, mark: Mark = no_mark,
        *, everything: bool = False,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The device's work on a batch.

        Args:
            face: the head.
            frames: ``B`` frames.
            windows: ``[B, window, 204]`` on the device.
            shape: padded sizes.
            mark: told when a step's work is queued.
            everything: see ``render``.

        Returns:
            float32 colours ``[B, H, W, 3]`` and alpha ``[B, H, W]``, both 0 beyond a frame's own window.
        """
        painting = self.prepare(face, frames, shape, mark, everything=everything)
        colours = self._shader.shade(painting.samples, encode_conditions(self.person, windows))
        mark("shading")
        image = self._ops.assemble(colours, painting.samples, painting.jumps, frames, FINER)
        surface, alpha = painting.surface, painting.alpha
        share = surface.mouth * self.person.sharpen_share
        image = self._ops.sharpen(image, surface.seen & (alpha > 0), share, frames.sizes, SHARPEN_SIGMA_PX)
        mark("picture")
        return image, alpha

    def prepare(
        self, face: FaceTables, frames: FrameTensors, shape: WindowShape, mark: Mark = no_mark, *,
        everything: bool = False,
    ) -> Painting:  # fmt: skip
        """Everything but the colours; arguments as for ``paint``."""
        ops = self._ops
        surface, screen, head = self._cast(face, frames, shape, mark)
        shown = surface.seen & (surface.weight > 0)
        alpha = shown.float() if everything else self._alpha(face, frames, surface)
        mark("alpha")
        jumps = ops.mouth_jumps(surface, alpha, JUMP_DM)
        origin = frames.sizes[:, SIZE_MOUTH : SIZE_MOUTH + 2]
        fine = FINER * shape.mouth_height, FINER * shape.mouth_width
        fine_keys = ops.rasterize(screen[: len(alpha)], face.triangles, *fine, origin, FINER)
        samples = ops.collect_samples(surface, alpha, jumps, fine_keys, screen, head, face, frames, FINER)
        mark("antialias")
        return Painting(surface, alpha, jumps, samples)

    def _cast(
        self, face: FaceTables, frames: FrameTensors, shape: WindowShape, mark: Mark = no_mark
    ) -> tuple[SurfaceTensors, Tensor, Tensor]:
        """What the pixels see, and all meshes on the screen and in head space ``[N, V, 3]``."""
        head = vertices(face, frames)
        screen = self._ops.project(head, frames.pixel_from_head)
        mark("mesh")
        keys = self._ops.rasterize(screen, face.triangles, shape.height, shape.width)
        mark("raster")
        surface = self._ops.surface_points(keys, screen, head, face, frames)
        mark("surface")
        return surface, screen, head

    def _to_silhouettes(self, surface: SurfaceTensors, frames: FrameTensors) -> Tensor:
        edges = self._ops.silhouettes(surface.depth, frames.sizes, SILHOUETTE_DM)
        return self._ops.bounded_distance(edges, frames.sizes, SIZE_REACH)

    def _alpha(self, face: FaceTables, frames: FrameTensors, surface: SurfaceTensors) -> Tensor:
        """Alpha ``[B, H, W]``: ``surface.soft_alpha`` times what is known."""
        ops, sizes = self._ops, frames.sizes
        distance = self._to_silhouettes(surface, frames)
        reliable = ops.known(surface, distance, frames.edge_px, face, SILHOUETTE_EDGES)
        to_edge = ops.bounded_distance(reliable <= LEAST_KNOWN, sizes, SIZE_RADIUS)
        soft = ops.soften(ops.dilate(surface.weight, sizes), sizes)
        return ops.fade(soft, to_edge, reliable, sizes, LEAST_KNOWN)


def frame_tensors(inputs: dict[str, Tensor]) -> FrameTensors:
    """Uploaded ``frame_arrays``."""
    return FrameTensors(**{field.name: inputs[field.name] for field in fields(FrameTensors)})


def _fitting_rows(windows: Windows) -> Sequence[NDArray[np.int64]]:
    """Rows that show something, in batches that fit."""
    rows = windows.filled
    if not len(rows):
        return []
    shape = windows.rows(rows).shape()
    parts = -(-len(rows) * shape.height * shape.width // MOST_PIXELS)
    return np.array_split(rows, min(parts, len(rows)))
