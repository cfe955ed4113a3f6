"""Real clips with occluders drawn by hand: nothing that stands in front of a face is painted over."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from inference.prepared import PreparedSource, open_source
from modules.commons.progress import silent
from modules.structures.boxes import BoundingBox
from modules.structures.crops import CropMetadata, CropRegion
from modules.structures.frames import PlaneLayout, VideoInfo
from modules.structures.masks import OcclusionEvidence, OcclusionTable
from tests.support.made_up_source import made_up_source
from tests.support.occluder_annotations import DrawnOccluder, OccludedFace, occluders_of
from tests.support.occluder_scores import IN_REGION, edited_share, full_speech_plan, region_alpha, score_faces
from tests.support.tiny_run import own_folders

DEMO = "WolfgangLanger_Pexels.mp4"
MOST_EDITED = 0.01
SIDE = 160
INFO = VideoInfo(
    Path("made_up.mp4"), SIDE, SIDE, Fraction(25), Fraction(1, 25), 0,
    PlaneLayout("yuv420p", (1, 1), "left", False, "bt709"), (1, 1, 1, 1), False, None,
)  # fmt: skip


def covered(rows, mask):
    """A speaker of 20 frames with this mask over the whole frame in ``rows``."""
    source = made_up_source(INFO, 20)
    table = OcclusionTable.nothing(20, SIDE, OcclusionEvidence.APPEARANCE)
    masks = np.repeat(np.round(mask * 255).astype(np.uint8)[None], len(rows), axis=0)
    crops = CropMetadata((CropRegion(SIDE / 2, SIDE / 2, float(SIDE)),), (SIDE, SIDE), 256)
    table = replace(table, rows=np.array(rows, np.int64), masks=masks)
    return replace(source, crops=crops, occlusion=table)


def drawn(source, frame, points):
    seen = source.landmarks.points[frame]
    box = BoundingBox(*seen.min(axis=0).tolist(), *seen.max(axis=0).tolist())
    occluder = DrawnOccluder("hand", False, np.array(points, np.float64))
    return OccludedFace(frame, box, BoundingBox(0, 0, SIDE, SIDE), (occluder,))


def test_the_score_is_the_share_of_the_occluder_that_the_masks_leave_open():
    """A band over the face, masked in one frame, not at all in another, by half in a third."""
    band = [[0.0, 90.0], [SIDE, 90.0], [SIDE, 120.0], [0.0, 120.0]]
    truth = drawn(made_up_source(INFO, 20), 5, band).mask((SIDE, SIDE))
    left = truth * (np.arange(SIDE) < SIDE // 2)
    faces = [drawn(made_up_source(INFO, 20), frame, band) for frame in (5, 9)]
    masked, half = covered([5], truth), covered([5, 9], left)
    score, open_ = score_faces(masked, faces)
    assert min(score.occluder_px, open_.occluder_px) > 200 and score.strength == open_.strength == 1
    assert score.edited_px < 0.001 * score.occluder_px and score.iou > 0.99 and score.false_px == 0
    assert open_.edited_px > 0.95 * open_.occluder_px and open_.iou == 0
    assert edited_share([score, open_]) == pytest.approx(0.5, abs=0.03)
    assert [face.edited_px / face.occluder_px for face in score_faces(half, faces)] == pytest.approx(
        [0.47] * 2, abs=0.06
    )


def test_the_region_is_the_lower_face():
    source = made_up_source(INFO, 20)
    rows, columns = np.nonzero(region_alpha(source, 3) >= IN_REGION)
    seen = source.landmarks.points[3]
    middle, chin = seen[6, 1], seen[152, 1]
    assert rows.min() > middle and chin - 4 < rows.max() < chin + 0.25 * (chin - middle)
    assert seen[:, 0].min() - 3 < columns.min() and columns.max() < seen[:, 0].max() + 3


def test_another_persons_face_is_not_scored():
    source = made_up_source(INFO, 20)
    face = drawn(source, 5, [[0, 0], [9, 0], [9, 9]])
    assert score_faces(source, [replace(face, face=BoundingBox(0, 0, 20, 20))]) == []


def test_a_frame_that_passes_through_counts_as_untouched():
    source = covered([], np.zeros((SIDE, SIDE)))
    hidden = replace(source.occlusion, mouth=np.full(20, 0.9, np.float32))
    face = drawn(source, 5, [[0, 90], [SIDE, 90], [SIDE, 120], [0, 120]])
    (score,) = score_faces(replace(source, occlusion=hidden), [face])
    assert score.strength == 0 and score.edited_px == 0 < score.edited_if_px


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The most important face of a video with all that editing needs, made once."""
    known: dict[str, PreparedSource] = {}

    def prepare(video):
        if video.name not in known:
            with own_folders(tmp_path_factory.mktemp("clips")):
                known[video.name] = open_source(video, silent)
        return known[video.name]

    return prepare


@pytest.mark.slow
@pytest.mark.parametrize(
    "clip",
    [
        DEMO,
        "signing_book_hands_640x480_30fps.mkv",
        "signing_help_hands_640x480_30fps.mkv",
        "interview_two_speakers_hand_1280x720_25fps.mp4",
        "concert_cuts_hands_640x360_30fps.mp4",
        "webcam_expressions_hand_silent_400x300_25fps.mp4",
    ],
)
def test_at_most_one_percent_of_the_occluders_is_painted_over(clip, request, prepared):
    folder = request.getfixturevalue("demo_dir" if clip == DEMO else "shared_clips")
    source = prepared(folder / clip)
    scores = score_faces(source, occluders_of(clip).faces)
    assert sum(score.occluder_px for score in scores) > 1000, "the drawn faces are the prepared one's"
    assert edited_share(scores) <= MOST_EDITED, [score for score in scores if score.edited_px > 1]


@pytest.mark.slow
def test_the_demo_is_edited_wherever_nothing_is_in_front(demo_dir, prepared):
    """Passing everything through would protect every hand: where the face is free, the edit is there in full."""
    source = prepared(demo_dir / DEMO)
    free = [face.frame for face in occluders_of(DEMO).faces if not face.occluders]
    assert (full_speech_plan(source).strength[np.array(free)] == 1).all()
