"""The contact sheet: facts, moments, and what is on the picture."""

import logging

import cv2
import numpy as np
import pytest

from inference.face_sheet import MAX_ROWS, _collect, facts_of, fullest_frame, list_faces, moments_of, percent
from inference.face_sheet_picture import BAR, COLOURS, MARGIN, ROW_WIDTH, TEXT_WIDTH, thumbnail_plan
from modules.commons.errors import NoFaceError, VideoReadError
from modules.structures.faces import FaceTable, TrackedFace
from modules.structures.tracks import FaceTrack, FrameStatus
from tests.support.synthetic_video import ClipSpec, make_clip

FRAMES, WIDTH, HEIGHT = 40, 160, 96


def face(first: int, stop: int, x: float = 40, size: float = 30, status=None) -> TrackedFace:
    count = stop - first
    boxes = np.tile([x, 20.0, x + 0.8 * size, 20 + size], (count, 1))
    states = np.full(count, FrameStatus.DETECTED, np.uint8) if status is None else np.array(status, np.uint8)
    return TrackedFace(FaceTrack(boxes, states, np.full(count, 0.9, np.float32), first), np.zeros(count, np.float32))


def table(*faces: TrackedFace, shot_starts=(0,)) -> FaceTable:
    return FaceTable((HEIGHT, WIDTH), np.arange(FRAMES) / 25, np.array(shot_starts), faces)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("sheet") / "c.mp4", ClipSpec(WIDTH, HEIGHT, FRAMES)).path


def test_facts():
    status = [FrameStatus.DETECTED] * 10 + [FrameStatus.LOST] * 4 + [FrameStatus.PROFILE] * 6
    facts = facts_of(table(face(4, 24, status=status)), 0)
    assert (facts.first_s, facts.last_s) == (4 / 25, 23 / 25)
    assert np.isclose(facts.seen_share, 16 / 40) and np.isclose(facts.workable_share, 10 / 40)
    assert facts.height_px == (30, 30) and facts.center == (52, 35) and np.isclose(facts.confidence, 0.9)
    assert facts.lines == (
        "0.2 to 0.9 s, seen 40 %",
        "25 % of the time editable",
        "30 px high, about 52,35",
        "confidence 0.90",
    )
    assert (percent(0.0), percent(0.001), percent(1.0)) == ("0 %", "<1 %", "100 %")


def test_moments_are_spread_over_the_sights_and_prefer_editable_ones():
    status = [FrameStatus.PROFILE, FrameStatus.DETECTED, FrameStatus.LOST, FrameStatus.PROFILE] * 6
    people = table(face(10, 34, status=status))
    moments = moments_of(people, 0, 6)
    assert len(moments) == 6 and np.all(np.diff(moments) > 0)
    assert all(people.track_over_video(0).status[row] == FrameStatus.DETECTED for row in moments)
    assert moments_of(table(face(3, 5)), 0, 6) == [3, 4]


def test_the_overview_shows_most_faces():
    assert 20 <= fullest_frame(table(face(0, 30), face(20, 40, x=100)), [0, 1]) < 30


def sheet_of(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def test_a_sheet_and_its_listing(clip, tmp_path, caplog):
    states = [FrameStatus.DETECTED] * 10 + [FrameStatus.OCCLUDED] * 10
    people = table(face(0, 40), face(10, 30, x=100, status=states), shot_starts=(0, 20))
    target = tmp_path / "new" / "faces.png"
    with caplog.at_level(logging.INFO):
        facts = list_faces(clip, people, target, chosen=(1,))
    assert [fact.number for fact in facts] == [0, 1]
    assert "face 1 (chosen): 0.4 to 1.2 s, seen 50 %; 25 % of the time editable" in caplog.text
    assert "face 0: 0.0 to 1.6 s, seen 100 %" in caplog.text
    assert [path.name for path in target.parent.iterdir()] == ["faces.png"]
    sheet = sheet_of(target)
    assert sheet.shape[1] == 2 * MARGIN + TEXT_WIDTH + ROW_WIDTH
    # each bar: the colours of the states over time, in the place of the time
    bars = np.flatnonzero(
        (sheet[:, MARGIN + TEXT_WIDTH + 7 * ROW_WIDTH // 8] == COLOURS[FrameStatus.DETECTED]).all(axis=1)
    )
    first_bar = sheet[bars[BAR // 2], MARGIN + TEXT_WIDTH :][:ROW_WIDTH]
    green = (first_bar == COLOURS[FrameStatus.DETECTED]).all(axis=1)
    assert green.mean() > 0.99 and not green[ROW_WIDTH // 2]  # but for the line of the cut
    size = thumbnail_plan(2)[1]
    second_bar = sheet[:, MARGIN + TEXT_WIDTH :][:, :ROW_WIDTH]
    covered = (second_bar == COLOURS[FrameStatus.OCCLUDED]).all(axis=2)
    rows = np.flatnonzero(covered[:, 5 * ROW_WIDTH // 8])
    assert len(rows) >= BAR and rows[0] > bars[0] + size
    assert np.flatnonzero(covered[rows[3]])[[0, -1]] == pytest.approx([ROW_WIDTH / 2, 0.75 * ROW_WIDTH], abs=2)


def test_thumbnails_hold_the_pictures_of_their_moments(tmp_path):
    spec = ClipSpec(WIDTH, HEIGHT, FRAMES)
    video = make_clip(tmp_path / "c.mp4", spec)
    people = table(face(0, 40))
    moments = {0: moments_of(people, 0, 6)}
    thumbnails, overview = _collect(video.path, people, moments, 3, 60)
    assert [round(one.time_s * 25) for one in thumbnails[0]] == moments[0]
    for one, row in zip(thumbnails[0], moments[0], strict=True):
        luma = video.planes[row][0][20:50, 40:64].mean()
        x0, y0, x1, y1 = (round(v) for v in one.box.as_array())
        assert abs(cv2.cvtColor(one.picture, cv2.COLOR_RGB2GRAY)[y0:y1, x0:x1].mean() - (luma - 16) * 255 / 219) < 12
    assert overview.shape[1] / overview.shape[0] == pytest.approx(WIDTH / HEIGHT, rel=0.02)


def test_many_faces_get_smaller_thumbnails_and_the_sheet_ends(clip, tmp_path, caplog):
    crowd = table(*(face(k, k + 6, x=3 * k) for k in range(MAX_ROWS + 3)))
    with caplog.at_level(logging.INFO):
        facts = list_faces(clip, crowd, tmp_path / "f.png")
    assert len(facts) == MAX_ROWS + 3 and f"face {MAX_ROWS + 2}:" in caplog.text
    assert sheet_of(tmp_path / "f.png").shape[0] < 200 * MAX_ROWS + 500
    for count in (1, 8, 9, 30):
        thumbnails, size = thumbnail_plan(count)
        assert size >= 96 and thumbnails * size <= ROW_WIDTH


def test_what_cannot_be_listed(clip, tmp_path):
    with pytest.raises(NoFaceError, match=r"no face was found in any of its 40 frames"):
        list_faces(clip, table(), tmp_path / "f.png")
    other = FaceTable((90, 160), np.arange(FRAMES) / 25, np.array([0]), (face(0, 40),))
    with pytest.raises(VideoReadError, match="another size"):
        list_faces(clip, other, tmp_path / "f.png")
    longer = FaceTable((HEIGHT, WIDTH), np.arange(60) / 25, np.array([0]), (face(0, 60),))
    with pytest.raises(VideoReadError, match="shorter than when"):
        list_faces(clip, longer, tmp_path / "f.png")
    assert not (tmp_path / "f.png").exists()
