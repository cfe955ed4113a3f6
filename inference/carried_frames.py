"""One face's editor in blend mode delta on one device, for ``edited_frames``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inference.carried_compositor import CarriedCompositor, CarriedEdits, Lit, Written, over_window
from inference.device_compositor import Pending
from inference.face_edits import FaceEdit, State, Wanted, with_last
from inference.frame_editor import FrameEditor
from modules.face_model.mesh_renderer import Bounds
from modules.radnerfs.device_skin_motion import per_window
from modules.radnerfs.motion_batch import MotionCaster
from modules.radnerfs.surface_batch import FaceFrames
from modules.structures.frames import Frame
from modules.video.device_delta import CarriedBatch
from modules.video.spread import Relay


@dataclass(frozen=True, slots=True, eq=False)
class CarriedPart:
    """One face's edits of a batch under way.

    Attributes:
        pending: what comes back; None = nothing does.
        places: of the edited frames in the batch that show the region.
        unseen: of those that do not.
        windows: bounds, and whether something is in front, of those that do.
        states: that are wanted, by place.
    """

    pending: Pending | None
    places: tuple[int, ...]
    unseen: tuple[int, ...]
    windows: tuple[tuple[Bounds, bool], ...]
    states: dict[int, State]


class CarriedOnDevice:
    """Changes one face's pixels batch by batch.

    Args:
        editor: plans and renders.
        device: where.
        relay: hands the state from batch to batch.
    """

    def __init__(self, editor: FrameEditor, device: torch.device, relay: Relay[State]) -> None:
        self.relay = relay
        self._editor = editor
        self._compositor = CarriedCompositor(device, editor.compositor.light)
        renderer = editor.renderer
        self._caster = MotionCaster(renderer.face_model, renderer.person, editor.source.coeffs.identity, editor.region)

    def cancel(self, last: int) -> None:
        """Wake up whoever waits for the turn of a batch after ``last``."""
        self.relay.cancel(last)

    def start(self, batch: int, frames: Sequence[Frame], wanted: Wanted) -> CarriedPart:
        """Do the work on a batch up to what comes back; waits for its turn, and for the device."""
        edited = [place for place, frame in enumerate(frames) if self._editor.plan.edited[frame.index]]
        lit = self._prepared([frames[place] for place in edited], wanted) if edited else None
        before = self.relay.take(batch)
        written = None if lit is None else self._compositor.follow(lit, before)
        states = self._states(before, [frames[place].index for place in edited], written)
        self.relay.give(batch, states[-1])
        pending = None if written is None else self._compositor.blend(written)
        edits = () if lit is None else zip(lit.edits.frames, lit.edits.bounds.tolist(), lit.edits.free, strict=True)
        seen = {frame.index: ((x0, y0, x1, y1), free is not None) for frame, (x0, y0, x1, y1), free in edits}
        places = tuple(place for place in edited if frames[place].index in seen)
        kept = [place for place, frame in enumerate(frames) if wanted.state_after(frame.index)]
        return CarriedPart(
            pending, places, tuple(place for place in edited if place not in places),
            tuple(seen[frames[place].index] for place in places),
            {last: states[sum(place <= last for place in edited)] for last in kept},
        )  # fmt: skip

    def _states(self, before: State, numbers: Sequence[int], written: Written | None) -> list[State]:
        """The state before a batch's edited frames and after each; one out of sight only forgets, where it begins."""
        made = {} if written is None else dict(
            zip((frame.index for frame in written.lit.edits.frames), written.states, strict=True)
        )  # fmt: skip
        states = [before]
        for number in numbers:
            states.append(made.get(number, {} if self._editor.begins[number] else states[-1]))
        return states

    def _begins(self, numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether what was is forgotten before those ``rows`` of the edited frames; some may be out of sight."""
        begun = np.concatenate([[0], np.cumsum(self._editor.begins[numbers])])
        since = np.concatenate([[0], rows[:-1] + 1])
        return begun[rows + 1] > begun[since]

    def _faces(self, numbers: NDArray[np.int64]) -> FaceFrames:
        """The face in output frames ``[B]``, with what they show."""
        editor, coeffs = self._editor, self._editor.source.coeffs
        rows = editor.rows[numbers]
        return FaceFrames(
            identity=coeffs.identity,
            expression=editor.expression[numbers],
            euler=coeffs.euler[rows],
            translation=coeffs.translation[rows],
            cameras=np.tile(coeffs.camera.matrix(), (len(rows), 1, 1)),
            size_wh=(coeffs.camera.width, coeffs.camera.height),
            shown=coeffs.expression[rows],
        )

    def _prepared(self, frames: Sequence[Frame], wanted: Wanted) -> Lit | None:
        """Render both motions, read off how skin moves, and put all of it into the light of the frames that show it.

        None where none of them does.
        """
        editor, faces = self._editor, self._faces(np.array([frame.index for frame in frames]))
        shown_conditions = editor.shown_conditions
        if shown_conditions is None:
            raise ValueError("only blend mode delta carries the source's pixels")
        bounds, head = editor.renderer.motion_windows(faces, editor.region)
        rows = np.flatnonzero(bounds[:, 2] > bounds[:, 0])
        if not len(rows):
            return None
        head = head[np.concatenate([rows, rows + len(frames)])]
        begins = self._begins(np.array([frame.index for frame in frames]), rows)
        frames, faces, bounds = [frames[int(row)] for row in rows], faces.rows(rows), bounds[rows]
        motion, grids = self._caster.motions(faces, bounds, head)
        numbers = np.array([frame.index for frame in frames])
        chosen = torch.from_numpy(numbers)
        windows = torch.cat([editor.conditions[chosen], shown_conditions[chosen]])
        patches = editor.renderer.render_everything(_one_by_one(faces), windows, editor.region)
        share, rendered = editor.rendered_share(numbers), motion.rendered
        if (share < 1).any():
            rendered = rendered * per_window(share, rendered.device)
        images = over_window(patches, np.concatenate([bounds, bounds]), grids.padded_hw)
        carried = CarriedBatch(
            new=images[: len(frames)], shown=images[len(frames) :], flow=motion.flow, alpha=motion.region,
            rendered=rendered, paintable=motion.paintable, compared=motion.compared, matched=motion.matched,
            mouth_shown=motion.mouth_shown, grids=grids, edge_px=faces.edge_px,
        )  # fmt: skip
        free = [
            editor.free_of_occluders(int(number), (x0, y0, x1, y1))
            for number, (x0, y0, x1, y1) in zip(numbers, bounds.tolist(), strict=True)
        ]
        real = [
            editor.real_mouth(int(number), (x0, y0, x1, y1))
            for number, (x0, y0, x1, y1) in zip(numbers, bounds.tolist(), strict=True)
        ]
        edits = CarriedEdits(tuple(frames), bounds, carried, tuple(free), begins, wanted.alpha, tuple(real))
        return self._compositor.prepare(edits)

    def finish(
        self, part: CarriedPart, frames: Sequence[Frame]
    ) -> tuple[list[Frame], dict[int, FaceEdit], dict[int, State]]:
        """Wait for a batch: its frames, the edits and the states by place."""
        made, edits = list(frames), {}
        for place in part.unseen:
            is_occluded = self._editor.occlusion(frames[place].index) is not None
            edits[place] = FaceEdit((0, 0, 1, 1), 0.0, np.zeros((1, 1), np.float32), is_occluded)
        for number, done in enumerate(part.pending.frames() if part.pending else ()):
            place, (bounds, is_occluded) = part.places[number], part.windows[number]
            made[place] = done.frame
            edits[place] = FaceEdit(bounds, done.area_px, done.alpha, is_occluded)
        edited = self._editor.plan.edited
        return made, edits, {p: with_last(state, edited, frames[p].index) for p, state in part.states.items()}


def _one_by_one(faces: FaceFrames) -> FaceFrames:
    """Each of the two meshes of ``B`` frames as a face by itself, the new ones first."""
    again = np.tile(np.arange(len(faces)), 2)
    twice = faces.rows(again)
    return FaceFrames(twice.identity, faces.meshes, twice.euler, twice.translation, twice.cameras, twice.size_wh, None)
