"""Frame t under the motion of frame t + k, against the real frame t + k: the only test in which a mouth really changes.

Self-reenactment cannot tell a good transfer from a picture left alone. Here the source shows one mouth, the result must
show another, and the truth is a frame of the same clip, carried to the source's pose by the fitted mesh.

Mouths are rendered here, never filmed: a filmed one is a mouth that this person showed with such lips, not that of this
moment, so it is sharp where a mean of all of them is nearest to the truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.driving import MOUTH_ROWS
from inference.edit_plan import EditPlan
from inference.evaluation.motion import full_plan, with_mouth
from inference.evaluation.persons import Person
from inference.face_compositor import BlendMode
from inference.frame_editor import FrameEditor
from inference.jobs import EvaluationJob
from inference.motion_to_frames import IdentityRenderer
from inference.person_blender import blender_for
from inference.prepared import PreparedSource
from modules.commons.progress import Progress
from modules.face_model.mesh_renderer import Bounds, interpolate, rasterize
from modules.radnerfs.surface import FacePose, PosedMesh, project_mesh, region_bounds
from modules.structures.frames import Frame
from modules.structures.transfer import UNTOUCHED, TransferScore
from modules.video.colour import rgb_float_from_planes
from modules.video.frame_range import frames_at
from modules.video.reader import VideoReader

LATE_S = (0.2, 0.5, 0.8)
"""How much later the motion is."""
MOST_ROWS = 10
"""Frames measured for each delay."""
MOST_TURNED = 0.12
"""Poses whose meshes lie farther apart than this share of the face's height are not similar: carrying would blur."""
LEAST_MOVED = 0.006
"""A mouth whose lips move less than this share of the face's height does not change."""
INSIDE = 0.3
"""Weight of the lower face from which a pixel is measured."""
MARGIN_PX = 20


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What frame t should show.

    Attributes:
        bounds: window of the frame.
        rgb: ``[h, w, 3]`` 0..1 frame t + k in the pose of frame t.
        lower_face: bool ``[h, w]`` where it is measured. mouth: bool ``[h, w]`` its part around the mouth.
    """

    bounds: Bounds
    rgb: NDArray[np.float32]
    lower_face: NDArray[np.bool_]
    mouth: NDArray[np.bool_]


def later_motion(source: PreparedSource, late: int) -> NDArray[np.float32]:
    """The tracked expression ``[T, E]`` with the mouth of ``late`` frames after; the clip's start follows its end."""
    return with_mouth(source, np.roll(source.coeffs.expression, -late, axis=0)[:, MOUTH_ROWS])


def comparable_rows(source: PreparedSource, rows: NDArray[np.int64], late: int) -> list[int]:
    """Those of ``rows`` whose frame ``late`` frames after is usable, in a similar pose, and says something else."""
    usable = [reason == "edited" for reason in source.evidence.reasons()]
    height = source.face_height_px
    chosen = []
    for row in rows.tolist():
        if row + late >= len(source) or not (usable[row] and usable[row + late]):
            continue
        here, there = (_mesh(source, row, at) for at in (row, row + late))
        moved = _mesh(source, row + late, row)
        turned = float(np.linalg.norm(here.pixels - there.pixels, axis=1).mean())
        lips = np.linalg.norm(here.pixels - moved.pixels, axis=1)[source.face_model.inner_lip.numpy()]
        if turned <= MOST_TURNED * height and float(lips.max()) >= LEAST_MOVED * height:
            chosen.append(row)
    return chosen


def true_picture(source: PreparedSource, row: int, late: int, later: Frame) -> Truth | None:
    """Frame ``row + late`` carried to the pose of ``row``; None where the face is out of sight."""
    model = source.face_model
    here, there = _mesh(source, row + late, row), _mesh(source, row + late, row + late)
    lower, mouth = (model.region_weights[name].numpy() for name in ("lower_face", "mouth"))
    camera = source.coeffs.camera
    bounds = region_bounds(here.pixels, lower, (camera.width, camera.height), MARGIN_PX)
    if bounds is None:
        return None
    triangles = model.triangles.numpy()
    fragments = rasterize(here.pixels, here.depth, triangles, bounds, cull_back_faces=True)
    values = interpolate(fragments, triangles, np.column_stack([there.pixels, lower, mouth]))
    place = np.ascontiguousarray(values[..., :2] - np.float32(0.5))
    picture = rgb_float_from_planes(later)
    carried = cv2.remap(picture, place[..., 0], place[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = fragments.covered & (values[..., 2] > INSIDE)
    return Truth(bounds, np.asarray(carried, np.float32), inside, inside & (values[..., 3] > INSIDE))


def transfer_scores(
    job: EvaluationJob, source: PreparedSource, person: Person, modes: Sequence[BlendMode], progress: Progress,
    late_s: Sequence[float] = LATE_S, most_rows: int = MOST_ROWS,
) -> tuple[TransferScore, ...]:  # fmt: skip
    """Scores by delay and blend mode, over frames that the person has not learnt from.

    Args:
        job: how frames are repainted otherwise.
        source: the clip.
        person: of the clip.
        modes: blend modes to compare.
        progress: told about the frames.
        late_s: how much later the motion is, s.
        most_rows: frames measured for each delay.
    """
    renderer = IdentityRenderer(person.checkpoint, source.face_model, job.device)
    by_mode = {mode: replace(job, blend_mode=mode, lle_percent=0.0) for mode in modes}
    blenders = {
        mode: blender_for(options, source, person.checkpoint, renderer, progress, person.learnt_rows)
        for mode, options in by_mode.items()
    }
    held_out, frame_s = np.flatnonzero(person.split.is_held_out), float(np.median(np.diff(source.times_s)))
    delays = {seconds: max(round(seconds / frame_s), 1) for seconds in late_s}
    found: list[TransferScore] = []
    for done, (seconds, late) in enumerate(delays.items()):
        rows, plan = thinned(comparable_rows(source, held_out, late), most_rows), later_plan(source, late)
        with VideoReader(source.video) as reader:
            wanted = {number for row in rows for number in (row, row + late)}
            frames = {frame.index: frame for frame in frames_at(reader, wanted)}
        editors = {
            mode: FrameEditor(options, source, renderer, plan, blender=blenders[mode])
            for mode, options in by_mode.items()
        }
        scores = measure_transfer(source, frames, editors, rows, late)
        found += [replace(score, late_s=seconds) for score in scores.values()]
        progress("transfer", done + 1, len(delays))
    return tuple(found)


def thinned(rows: Sequence[int], most: int) -> list[int]:
    """At most so many of ``rows``, evenly apart."""
    return list(rows[:: -(-len(rows) // most)]) if rows else []


def measure_transfer(
    source: PreparedSource,
    frames: Mapping[int, Frame],
    editors: Mapping[str, FrameEditor],
    rows: Sequence[int],
    late: int,
) -> dict[str, TransferScore]:
    """How near the results of each editor, and the source left alone, come to the truth.

    Args:
        source: the clip.
        frames: by row; those of ``rows`` and those ``late`` frames after them.
        editors: by name, of plans that drive with ``later_motion``.
        rows: ``comparable_rows``.
        late: frames.
    """
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in (UNTOUCHED, *editors)}
    for row in rows:
        truth = true_picture(source, row, late, frames[row + late])
        if truth is None or not truth.mouth.any():
            continue
        pictures = {name: editor.edit(frames[row])[0] for name, editor in editors.items()}
        for name, frame in {UNTOUCHED: frames[row], **pictures}.items():
            rgb = rgb_float_from_planes(frame, truth.bounds)
            found[name].append((psnr_db(rgb, truth.rgb, truth.lower_face), psnr_db(rgb, truth.rgb, truth.mouth)))
    means = {name: np.mean(scores, axis=0) if scores else (np.nan, np.nan) for name, scores in found.items()}
    late_s = late * float(np.median(np.diff(source.times_s)))
    return {
        name: TransferScore(late_s, name, len(found[name]), float(mean[0]), float(mean[1]))
        for name, mean in means.items()
    }


def psnr_db(result: NDArray[np.float32], truth: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """Peak signal to noise ratio of pictures ``[h, w, 3]`` in 0..1 over ``inside [h, w]``."""
    error = float(np.square(result - truth)[inside].mean(dtype=np.float64))
    return -10 * float(np.log10(max(error, 1e-10)))


def later_plan(source: PreparedSource, late: int) -> EditPlan:
    """Every usable frame at full strength under ``later_motion``."""
    return full_plan(source, later_motion(source, late))


def _mesh(source: PreparedSource, expression_row: int, pose_row: int) -> PosedMesh:
    """The head with one row's expression in another row's pose."""
    coeffs = source.coeffs
    pose = FacePose(
        coeffs.identity, coeffs.expression[expression_row], coeffs.euler[pose_row], coeffs.translation[pose_row]
    )
    return project_mesh(source.face_model, pose, coeffs.camera.matrix())
