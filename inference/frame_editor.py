"""Repainting one face frame by frame: render on the frame's grid, keep hands in front, put it back in the planes."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from inference.driving import end_rays_at, occlusion_in
from inference.edit_plan import EditPlan
from inference.face_compositor import Bounds, FaceCompositor
from inference.filmed_mouths import FilmedMouths
from inference.jobs import EditOptions
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import PreparedSource
from modules.face_model.model import Region
from modules.radnerfs.surface import FacePose
from modules.radnerfs.surface_batch import FaceFrames
from modules.structures.carried_patch import CarriedPatch
from modules.structures.device_patch import DevicePatch
from modules.structures.frames import Frame, FramePatch
from modules.structures.masks import OcclusionMask
from modules.video.colour_follow import FieldEstimator
from modules.video.restoration import Restorer

logger = logging.getLogger(__name__)

MEMORY_S = 1.6
"""How far back colour is still felt: four time constants of the compositor."""
MEMORY_STEP_S = 0.03
"""Of faster video, not every frame is needed for that."""


RENDERED_FROM = 0.6
"""Strength of an edit from which a mouth is wholly the rendered one."""


class FrameEditor:
    """Repaints one face in one frame at a time.

    Args:
        options: how frames are repainted.
        source: the face.
        renderer: of this person.
        plan: the new expression of every output frame.
        rows: ``[N]`` source frame that each output frame shows; None = frame by frame.
        restorer: of the rendered mouth; None = none.
        blender: that blend mode ``neural`` needs, see ``person_blender.blender_for``.
        mouths: of the clip, that may stand in for rendered ones; None = all are rendered.
    """

    def __init__(
        self,
        options: EditOptions,
        source: PreparedSource,
        renderer: IdentityRenderer,
        plan: EditPlan,
        rows: NDArray[np.int64] | None = None,
        restorer: Restorer | None = None,
        blender: FieldEstimator | None = None,
        mouths: FilmedMouths | None = None,
    ) -> None:
        self.source = source
        self.plan = plan
        self.renderer = renderer
        self.rows = np.arange(len(source)) if rows is None else rows
        self._cuts = _cuts(self.rows, source.shot_starts)
        self.begins = self._cuts | ~np.concatenate([plan.edited[:1], plan.edited[:-1]])
        """bool ``[N]``: output frames before which the colour of earlier ones is forgotten."""
        end_rays_at(renderer, options.raymarching_end_threshold)
        self.is_carried = options.blend_mode == "delta"
        if self.is_carried and plan.is_as_shown(source.coeffs.expression[self.rows]):
            logger.warning("face %d is driven by just the motion it shows: an identity run proves nothing", source.face)
        self.expression = self._faded() if self.is_carried else plan.expression
        self.conditions = renderer.conditions(self.expression, lle_percent=options.lle_percent)
        self.shown_conditions = self._conditions_of_shown(options.lle_percent) if self.is_carried else None
        """``[N, window, 204]`` of the tracked motion; None where nothing is carried."""
        filmed = mouths if self.is_carried else None
        self._stand_ins = None if filmed is None else filmed.stand_ins(self.expression, self.rows, plan.edited)
        self.compositor = FaceCompositor(
            blend_mode=options.blend_mode, transfer=source.info.color_tags[1], restorer=restorer, blender=blender
        )
        self.region: Region = options.region
        self._last: int | None = None

    @property
    def runs_in_batches(self) -> bool:
        """Whether ``edited_on_devices`` does the same in batches."""
        return self.compositor.has_device_twin

    def _faded(self) -> NDArray[np.float32]:
        """``[N, E]`` the new expressions, faded into the shown ones: lips that are carried move there, not dissolve."""
        shown = self.source.coeffs.expression[self.rows]
        strength = self.plan.strength[:, None].astype(np.float32)
        return np.where(strength < 1, shown + strength * (self.plan.expression - shown), self.plan.expression)

    def _conditions_of_shown(self, lle_percent: float) -> torch.Tensor:
        """``[N, window, 204]`` of the tracked motion, pulled towards the person's own as the new one is.

        Only so two equal motions give equal renderings.
        """
        return self.renderer.conditions(self.source.coeffs.expression[self.rows], lle_percent=lle_percent)

    def carried(self, number: int) -> CarriedPatch | None:
        """Output frame ``number`` rendered as it is shown and as it is to be; None where its region is out of sight.

        Raises:
            ValueError: the blend mode needs no such thing.
        """
        if self.shown_conditions is None:
            raise ValueError("only blend mode delta carries the source's pixels")
        coeffs, row = self.source.coeffs, int(self.rows[number])
        new, old = (
            FacePose(coeffs.identity, expression, coeffs.euler[row], coeffs.translation[row])
            for expression in (self.expression[number], coeffs.expression[row])
        )
        windows = torch.stack([self.conditions[number], self.shown_conditions[number]])
        carried = self.renderer.render_motion(new, old, coeffs.camera, windows, self.region)
        if carried is None:
            return None
        share = np.float32(self.rendered_share([number])[0])
        real = self.real_mouth(number, carried.patch.bounds)
        return replace(carried, rendered=carried.rendered * share, real=real)

    def real_mouth(self, number: int, bounds: Bounds) -> NDArray[np.uint8] | None:
        """``CarriedPatch.real`` over a window of output frame ``number``; None = the mouth is rendered."""
        return None if self._stand_ins is None else self._stand_ins.picture(number, bounds)

    def rendered_share(self, numbers: ArrayLike) -> NDArray[np.float32]:
        """How far a rendered mouth takes the place of the carried one in output frames ``[B]``, 0..1.

        While an edit fades, lips move to where the source has them; the mouth behind them fades, because a rendering
        of the very mouth that is shown still differs from it.
        """
        return np.clip(self.plan.strength[np.asarray(numbers)] / RENDERED_FROM, 0, 1).astype(np.float32)

    def patch(self, number: int) -> FramePatch:
        """The rendered region of output frame ``number`` with its alpha, edit strength included."""
        coeffs, row = self.source.coeffs, int(self.rows[number])
        patch = self.renderer.render_patch(
            coeffs.identity,
            self.plan.expression[number],
            coeffs.euler[row],
            coeffs.translation[row],
            coeffs.camera,
            self.conditions[number],
            source_expression=coeffs.expression[row],
            region=self.region,
        )
        strength = float(self.plan.strength[number])
        return patch if strength >= 1 else replace(patch, alpha=patch.alpha * np.float32(strength))

    def patches(self, numbers: NDArray[np.int64]) -> list[DevicePatch]:
        """The rendered region of output frames ``[B]`` on the renderer's device, edit strength not included."""
        coeffs, rows = self.source.coeffs, self.rows[numbers]
        frames = FaceFrames(
            identity=coeffs.identity,
            expression=self.plan.expression[numbers],
            euler=coeffs.euler[rows],
            translation=coeffs.translation[rows],
            cameras=np.tile(coeffs.camera.matrix(), (len(rows), 1, 1)),
            size_wh=(coeffs.camera.width, coeffs.camera.height),
            shown=coeffs.expression[rows],
        )
        return self.renderer.render_patches(frames, self.conditions[torch.from_numpy(numbers)], self.region)

    def free_of_occluders(self, number: int, bounds: Bounds) -> NDArray[np.float32] | None:
        """``1 - occlusion`` over ``bounds`` of output frame ``number``; None when nothing is in front of the face."""
        x0, y0, x1, y1 = bounds
        # Up to where it is needed: from the frame's corner on, the values are those of the whole frame's mask.
        mask = occlusion_in(self.source, int(self.rows[number]), np.eye(3), (x1, y1))
        return None if mask is None else 1 - mask.values[y0:, x0:]

    def occlusion(self, number: int) -> OcclusionMask | None:
        """What stands in front of the face in output frame ``number``, in frame space."""
        size_wh = (self.source.info.width, self.source.info.height)
        return occlusion_in(self.source, int(self.rows[number]), np.eye(3), size_wh)

    def remember_colour(self, frame: Frame) -> None:
        """Let the colour of ``frame`` count for a later one, as if the frames between had been edited too."""
        self._composited(frame)
        self._last = None

    def colour_rows(self, times_s: NDArray[np.float64], number: int) -> list[int]:
        """Output frames before ``number`` whose colour still shows in it; ``times_s [N]`` are the output's."""
        if not self.plan.edited[number]:
            return []
        return colour_memory(times_s, self.plan.edited, number, self._cuts)

    def edit(self, frame: Frame, carried: CarriedPatch | None = None) -> tuple[Frame, FramePatch, OcclusionMask | None]:
        """The frame with new lips; the patch put in and what was kept in front of it.

        Args:
            frame: numbered as the output's.
            carried: what ``carried`` says of it, when somebody has asked already.
        """
        number = frame.index
        is_next = self._last is None or number == self._last + 1
        if not is_next or self._cuts[number]:
            self.compositor.reset()
        self._last = number
        return self._composited(frame, carried)

    def _composited(
        self, frame: Frame, carried: CarriedPatch | None = None
    ) -> tuple[Frame, FramePatch, OcclusionMask | None]:
        number, occlusion = frame.index, self.occlusion(frame.index)
        if self.is_carried:
            carried = carried or self.carried(number)
            if carried is None:
                return frame, _nothing(), occlusion
            return *self.compositor.composite_carried(frame, carried, occlusion), occlusion
        patch = self.patch(number)
        return self.compositor.composite_patch(frame, patch, occlusion), patch, occlusion

    def state(self) -> dict[str, NDArray]:
        """What the next frame depends on, as arrays."""
        last = {} if self._last is None else {"last": np.array(self._last)}
        return {**self.compositor.state(), **last}

    def resume(self, state: dict[str, NDArray]) -> None:
        """Go on as the editor whose ``state`` this is."""
        self._last = int(state["last"]) if "last" in state else None
        self.compositor.resume({name: array for name, array in state.items() if name != "last"})


def _nothing() -> FramePatch:
    return FramePatch((0, 0, 1, 1), np.zeros((1, 1, 3), np.float32), np.zeros((1, 1), np.float32))


def final_alpha(patch: FramePatch, occlusion: OcclusionMask | None) -> NDArray[np.float32]:
    """The patch's alpha with what is in front of the face taken out."""
    if occlusion is None:
        return patch.alpha
    x0, y0, x1, y1 = patch.bounds
    return patch.alpha * (1 - occlusion.values[y0:y1, x0:x1])


def colour_memory(
    times_s: NDArray[np.float64], edited: NDArray[np.bool_], row: int, cuts: NDArray[np.bool_] | None = None
) -> list[int]:
    """Rows before ``row`` whose matched colour still shows in it: a few of those edited without a break before it.

    Args:
        times_s: ``[N]`` rising.
        edited: bool ``[N]``.
        row: of interest, edited.
        cuts: bool ``[N]`` rows that begin a shot; None = one shot.
    """
    breaks = np.flatnonzero(~edited[:row])
    first = int(breaks[-1]) + 1 if len(breaks) else 0
    begun = np.flatnonzero(cuts[: row + 1]) if cuts is not None else breaks[:0]
    first = max(first, int(begun[-1])) if len(begun) else first
    chosen: list[int] = []
    for near in range(row - 1, first - 1, -1):
        if times_s[row] - times_s[near] > MEMORY_S:
            break
        if not chosen or times_s[chosen[-1]] - times_s[near] >= MEMORY_STEP_S:
            chosen.append(near)
    return chosen


def _cuts(rows: NDArray[np.int64], shot_starts: NDArray[np.int64] | None) -> NDArray[np.bool_]:
    """bool ``[N]``: output frames that show another shot than the one before."""
    if shot_starts is None:
        return np.zeros(len(rows), bool)
    shots = np.searchsorted(shot_starts, rows, side="right")
    return np.diff(shots, prepend=shots[:1]) != 0
