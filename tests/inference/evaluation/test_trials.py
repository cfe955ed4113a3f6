"""Painting a trial: landmarks through one frozen square, windows of whole samples, and nothing touched but the face."""

from dataclasses import replace

import numpy as np
import pytest

from data_gen.utils.mp_feature_extractors.face_landmarker import FaceLandmarker, region_of_landmarks
from inference.edit_plan import COVERED
from inference.evaluation.motion import full_plan, jaw_gap_px, model_opening
from inference.evaluation.painters import Painted, PersonPainter, RetrievalPainter
from inference.evaluation.trials import LandmarkScout, RowPlan, Stretch, paint_trial, stacked, trial_window
from inference.frame_editor import FrameEditor
from inference.jobs import EvaluationJob
from inference.motion_to_frames import IdentityRenderer
from inference.prepared import open_source
from inference.seen_occluders import seen_from
from modules.commons.progress import silent
from modules.face_model.model import ARKIT_NAMES
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.dataset import NeRFDataset
from modules.structures.evaluation import EDITED, Trial
from modules.structures.frames import FramePatch, PlaneLayout
from modules.structures.landmarks import LandmarkResult
from modules.video.colour import chroma_alpha
from modules.video.window import window_frame
from tasks.evaluation.reading import shown_frames
from tasks.radnerfs.retrieval import RetrievalBaseline
from tests.support.tiny_run import all_frames, own_folders, tiny_run

ROWS = np.array([0, 1, 33, 34])
"""Of the tiny clip; in the last two her hand is in front of her face."""
LEFT_ALONE = 1


@pytest.fixture(scope="module")
def run(tmp_path_factory, demo_dir):
    return tiny_run(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="module")
def source(run):
    with own_folders(run.root):
        found = seen_from("hands", open_source(run.clip, silent))
    visible = replace(found.occlusion, mouth=np.zeros_like(found.occlusion.mouth))
    return replace(found, occlusion=visible)  # hands hide what they hide, and never all of the mouth


@pytest.fixture(scope="module")
def frames(run):
    return all_frames(run.clip)


@pytest.fixture(scope="module")
def stretch(source):
    outcomes = [COVERED if row == LEFT_ALONE else EDITED for row in range(len(source))]
    return Stretch(ROWS, np.array([0, 0, 1, 1]), outcomes)


@pytest.fixture(scope="module")
def acted(run, source):
    """A row in which the tiny person opens its jaw, played as two persons, one per block."""
    expression = source.coeffs.expression.copy()
    expression[:, ARKIT_NAMES.index("jawOpen")] = 0.5
    job = EvaluationJob(run.clip, run.root / "report", blend_mode="alpha")  # as of every self-reenactment
    renderer = IdentityRenderer(run.identity, source.face_model, "cpu")
    editors = {block: FrameEditor(job, source, renderer, full_plan(source, expression)) for block in (0, 1)}
    return RowPlan("acted", "", is_result=True, painter=PersonPainter(editors), expression=expression)


@pytest.fixture(scope="module")
def painted(tmp_path_factory, source, stretch, acted):
    """A trial on disk: the source, the actor, retrieval, the frame before."""
    dataset = NeRFDataset.load(source.workspace.dataset)
    baseline = RetrievalBaseline(dataset, np.flatnonzero(dataset.is_train))
    retrieval = RetrievalPainter({0: baseline, 1: baseline}, source.landmarks.points, source.crops, "alpha")
    plans = [
        RowPlan("source", "untouched"),
        acted,
        RowPlan("retrieval", "", painter=retrieval),
        RowPlan("before", "", frames_late=1),
    ]
    folder = tmp_path_factory.mktemp("trials") / "made"
    folder.mkdir()
    (folder / "of an older trial").write_text("")
    seen = []
    made = paint_trial(
        "a trial", "leakage", source, stretch, plans, None, folder, lambda *step: seen.append(step), ("a note",)
    )
    assert made == folder and seen == [("a trial", number, len(ROWS)) for number in (1, 2, 3, 4)]
    return folder


@pytest.fixture(scope="module")
def shown(painted):
    """Every row's picture of every frame."""
    return [row for _, row in shown_frames(Trial.load(painted))]


# ---- landmarks ----


def seen(scout, frame, row):
    """Landmarks of a face that must be found."""
    found = scout(frame, row)
    assert found is not None
    return found


def test_the_scout_sees_what_was_tracked(source, frames):
    scout = LandmarkScout(source)
    for row in (0, 12):
        found = seen(scout, frames[row], row)
        error = np.linalg.norm(found.points - source.landmarks.points[row], axis=1)
        assert error.mean() < 0.01 * source.face_height_px


def test_the_scouts_square_is_the_sources_whatever_the_picture_shows(source, frames, monkeypatch):
    squares = []
    nothing = LandmarkResult(np.zeros((478, 2), np.float32), np.zeros(478, np.float32), 0.4, np.zeros(52, np.float32))

    def look(self, rgb, region):
        squares.append((rgb.shape, region))
        return nothing

    monkeypatch.setattr(FaceLandmarker, "detect", look)
    scout, row = LandmarkScout(source), 6
    height, width = frames[row].size_hw
    moved = replace(frames[row], planes=tuple(np.roll(p, 12, axis=1) for p in frames[row].planes))
    for picture in (frames[row], moved, frames[20]):
        assert scout(picture, row) is None, "a presence below a half is no face"
    assert squares[0] == squares[1] == squares[2]
    shape, square = squares[0]
    own = region_of_landmarks(source.landmarks.points[row])
    bounds = own.bounding_box().pixel_bounds(width, height)
    assert bounds is not None
    assert square == own.shifted(-bounds[0], -bounds[1])
    assert shape[:2] == (bounds[3] - bounds[1], bounds[2] - bounds[0])
    scout(frames[row], 20)
    assert squares[3] != squares[0]


def test_landmarks_follow_the_picture_inside_the_square(source, frames):
    """Frozen is the square, not the answer: a picture moved by 4 px has its landmarks 4 px on."""
    scout, row = LandmarkScout(source), 6
    luma, *chroma = frames[row].planes
    moved = replace(frames[row], planes=(np.roll(luma, 4, axis=1), *(np.roll(plane, 2, axis=1) for plane in chroma)))
    shift = seen(scout, moved, row).points - seen(scout, frames[row], row).points
    np.testing.assert_allclose(np.median(shift, axis=0), (4, 0), atol=0.5)


def test_where_no_face_is_known_or_seen_there_are_no_landmarks(source, frames):
    valid = source.landmarks.valid.copy()
    valid[3] = False
    scout = LandmarkScout(replace(source, landmarks=replace(source.landmarks, valid=valid)))
    assert scout(frames[3], 3) is None and scout(frames[4], 4) is not None
    grey = replace(frames[4], planes=tuple(np.full_like(plane, 128) for plane in frames[4].planes))
    assert scout(grey, 4) is None
    points = source.landmarks.points.copy()
    points[4] += 5000
    outside = LandmarkScout(replace(source, landmarks=replace(source.landmarks, points=points)))
    assert outside(frames[4], 4) is None


def test_missing_results_are_invalid_rows_of_the_table(source, frames):
    found = seen(LandmarkScout(source), frames[0], 0)
    table = stacked([None, found, None])
    assert table.valid.tolist() == [False, True, False]
    np.testing.assert_array_equal(table.points[1], found.points)
    np.testing.assert_array_equal(table.blendshapes[1], found.blendshapes)
    assert np.isnan(table.points[[0, 2]]).all() and np.isnan(table.blendshapes[[0, 2]]).all()


# ---- the window ----


@pytest.mark.parametrize("shift", [(0, 0), (1, 0), (1, 1)])
@pytest.mark.parametrize("size", [(640, 360), (175, 143)])
@pytest.mark.parametrize("center", [(90.3, 70.7), (5.1, 3.9), (170.0, 140.0)])
def test_a_window_holds_every_crop_in_whole_samples_of_all_planes(source, shift, size, center):
    width, height = size
    regions = tuple(CropRegion(center[0] + 7 * i, center[1] + 3 * i, 61.3, 0.2) for i in range(3))
    layout = PlaneLayout("yuv420p", shift, "left", False, "bt709")
    clip = replace(
        source,
        info=replace(source.info, width=width, height=height, layout=layout),
        crops=CropMetadata(regions, (height, width), 256),
    )
    x0, y0, x1, y1 = trial_window(clip, np.array([0, 2]))
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert x0 % (1 << shift[0]) == 0 and y0 % (1 << shift[1]) == 0
    assert x1 % (1 << shift[0]) == 0 or x1 == width
    assert y1 % (1 << shift[1]) == 0 or y1 == height
    for region in (regions[0], regions[2]):
        left, top, right, bottom = region.bounding_box().as_array()
        assert x0 <= max(left, 0) and y0 <= max(top, 0) and x1 >= min(right, width) and y1 >= min(bottom, height)
    everything = np.array([r.bounding_box().as_array() for r in (regions[0], regions[2])])
    widest = everything[:, 2].max() - everything[:, 0].min()
    assert x1 - x0 <= widest + 4, "no larger than needed"


# ---- painting ----


def test_the_record_of_a_painted_trial(painted, source):
    trial = Trial.load(painted)
    assert (trial.name, trial.protocol, trial.notes, trial.speech) == ("a trial", "leakage", ("a note",), None)
    assert trial.frames.tolist() == ROWS.tolist() and trial.block.tolist() == [0, 0, 1, 1]
    assert trial.outcomes == (EDITED, COVERED, EDITED, EDITED)
    np.testing.assert_array_equal(trial.times_s, source.times_s[ROWS])
    assert trial.window == trial_window(source, ROWS)
    assert [(r.name, r.is_result, r.frames_late) for r in trial.rows] == [
        ("source", False, 0), ("acted", True, 0), ("retrieval", False, 0), ("before", False, 1),
    ]  # fmt: skip
    assert sorted(p.name for p in painted.iterdir()) == sorted(
        ["trial.json", "tables.npz", "row1.mkv", "row1_alpha.mkv", "row2.mkv", "row2_alpha.mkv"]
        + [f"landmarks{row}.npz" for row in range(4)]
    )
    assert [path.name for path in painted.parent.iterdir()] == [painted.name]


def test_outside_the_alpha_every_sample_is_the_sources_own(shown, painted, frames):
    window = Trial.load(painted).window
    for number, (own, acted, retrieved, _) in enumerate(shown):
        truth = window_frame(frames[ROWS[number]], window, number)
        for mine, whole in zip(own.frame.planes, truth.planes, strict=True):
            np.testing.assert_array_equal(mine, whole)
        for made in (acted, retrieved):
            chroma = chroma_alpha(made.alpha, truth.layout) == 0
            untouched = (made.alpha == 0, chroma, chroma)
            for old, new, outside in zip(truth.planes, made.frame.planes, untouched, strict=True):
                assert outside.any()
                np.testing.assert_array_equal(new[outside], old[outside])


def test_inside_the_alpha_the_face_is_new_and_elsewhere_unedited_frames_are_the_sources(shown, frames):
    for number, (own, acted, retrieved, _) in enumerate(shown):
        for made, least in ((acted, 0.8), (retrieved, 0.2)):  # skin warped onto skin is often the same
            differs = made.frame.planes[0] != own.frame.planes[0]
            if ROWS[number] == LEFT_ALONE:
                assert not made.alpha.any()
                assert all(np.array_equal(a, b) for a, b in zip(made.frame.planes, own.frame.planes, strict=True))
            else:
                assert made.alpha.max() > 0.99 and differs[made.alpha > 0.99].mean() > least


def test_references_are_painted_into_the_first_painters_alpha(shown):
    for number, (_, acted, retrieved, _) in enumerate(shown):
        np.testing.assert_array_equal(acted.alpha, retrieved.alpha)
        if ROWS[number] != LEFT_ALONE:
            assert (acted.rgb != retrieved.rgb).any()


def test_a_hand_stays_in_front(shown, source, painted):
    x0, y0, x1, y1 = Trial.load(painted).window
    for number in (2, 3):
        row = int(ROWS[number])
        hand = source.occlusion.mask(row, source.crops.crop_size)
        ys, xs = np.nonzero(hand)
        to_frame = source.crops.frame_from_crop(row)
        x, y = np.floor(np.stack([xs + 0.5, ys + 0.5], axis=1) @ to_frame[:2, :2].T + to_frame[:2, 2]).astype(int).T
        inside = (x >= x0) & (x < x1) & (y >= y0) & (y < y1)
        assert inside.any() and shown[number][1].alpha[y[inside] - y0, x[inside] - x0].mean() < 0.25


def test_the_frame_before_is_shown_late_with_its_own_landmarks(shown, painted, frames, source):
    trial = Trial.load(painted)
    before = trial.rows[3]
    assert shown[0][3] is None and before.landmarks.valid.tolist() == [False, True, True, True]
    for number in (1, 2, 3):
        truth = window_frame(frames[ROWS[number] - 1], trial.window, number)
        assert all(np.array_equal(a, b) for a, b in zip(shown[number][3].frame.planes, truth.planes, strict=True))
    np.testing.assert_array_equal(before.landmarks.points[1], trial.rows[0].landmarks.points[0])
    np.testing.assert_array_equal(before.landmarks.points[3], trial.rows[0].landmarks.points[2])


def test_landmarks_are_detected_anew_in_what_was_painted(painted):
    rows = Trial.load(painted).rows
    own, acted = (row.landmarks for row in rows[:2])
    assert own.valid.all() and acted.valid.all()
    np.testing.assert_array_equal(acted.points[1], own.points[1], err_msg="an unedited frame is the source's")
    assert (acted.points[0] != own.points[0]).any()


def test_what_drove_a_row_is_on_record(painted, source, acted):
    trial = Trial.load(painted)
    row = trial.rows[1]
    assert row.lower_face_px is not None
    np.testing.assert_array_equal(row.driving_opening, model_opening(source, acted.expression)[ROWS])
    np.testing.assert_array_equal(row.tracked_opening, model_opening(source, source.coeffs.expression)[ROWS])
    np.testing.assert_array_equal(row.jaw_gap_px, jaw_gap_px(source, acted.expression)[ROWS])
    edited = np.array(trial.outcomes) == EDITED
    np.testing.assert_array_equal(np.isnan(row.lower_face_px), ~edited)
    assert row.lower_face_px[edited].min() > 1000
    for other in (trial.rows[0], trial.rows[2], trial.rows[3]):
        assert other.driving_opening is other.tracked_opening is other.lower_face_px is other.jaw_gap_px is None


class Recorder:
    """A painter that changes nothing and writes down what it was asked."""

    def __init__(self):
        self.asked, self.made = [], []

    def paint(self, frame, block, first):
        patch = FramePatch((0, 0, 2, 2), np.zeros((2, 2, 3), np.float32), np.zeros((2, 2), np.float32))
        self.asked.append((frame.index, block, first))
        self.made.append(Painted(frame, patch, None, patch.alpha))
        return self.made[-1]


def test_every_painter_is_asked_in_order_and_shown_what_the_first_has_made(tmp_path, source, stretch):
    painters = [Recorder(), Recorder(), Recorder()]
    plans = [RowPlan("source", ""), *(RowPlan(f"row {i}", "", painter=p) for i, p in enumerate(painters))]
    paint_trial("t", "leakage", source, stretch, plans, None, tmp_path / "t", silent)
    edited = [(row, block) for row, block in zip(ROWS.tolist(), [0, 0, 1, 1], strict=True) if row != LEFT_ALONE]
    for painter in painters:
        assert [(row, block) for row, block, _ in painter.asked] == edited
    assert [first for *_, first in painters[0].asked] == [None] * 3
    for painter in painters[1:]:
        assert all(shown is made for (*_, shown), made in zip(painter.asked, painters[0].made, strict=True))


class BreaksOff:
    """A painter that does not come to an end."""

    def paint(self, frame, block, first):
        raise InterruptedError


def test_a_trial_that_breaks_off_leaves_the_finished_one_of_before(tmp_path, source, stretch):
    folder = tmp_path / "trial"
    folder.mkdir()
    (folder / "trial.json").write_text("the one of before")
    plans = [RowPlan("source", ""), RowPlan("acted", "", painter=BreaksOff())]
    with pytest.raises(InterruptedError):
        paint_trial("t", "leakage", source, stretch, plans, None, folder, silent)
    assert [p.name for p in folder.iterdir()] == ["trial.json"]


def test_each_block_is_played_by_its_own_person(frames):
    class Editor:
        def __init__(self, name):
            self.name = name

        def edit(self, frame):
            raise LookupError(self.name)

    editors = {block: Editor(f"person {block}") for block in (0, 1, 2)}
    painter = PersonPainter(editors)  # type: ignore[arg-type]
    for block in (2, 0, 1):
        with pytest.raises(LookupError, match=f"person {block}"):
            painter.paint(frames[0], block, None)


def test_retrieval_cannot_paint_first(source, frames):
    painter = RetrievalPainter({}, source.landmarks.points, source.crops, "alpha")
    with pytest.raises(ValueError, match="cannot be the first"):
        painter.paint(frames[0], 0, None)
