"""Which faces are meant: what the flags say, what they refuse, and whom they find in a table made by hand."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.face_choice import (
    NAMED_RULES,
    FaceChoice,
    SpeechFiles,
    add_face_arguments,
    chosen_faces,
    distances_in_faces,
    parse_drv_aud,
    parse_face,
    speech_of_faces,
    usable_faces,
)
from modules.commons.errors import AudioReadError, ConfigError, NoFaceError
from modules.structures.faces import FaceTable, TrackedFace
from modules.structures.tracks import FaceTrack, FrameStatus

FRAMES = 100
SIZE_HW = (360, 640)


def face(x: float, size: float = 60, first: int = 0, stop: int = FRAMES, status=FrameStatus.DETECTED, y: float = 180):
    """A face that stands still about (x, y)."""
    count = stop - first
    boxes = np.tile([x - size / 2, y - size / 2, x + size / 2, y + size / 2], (count, 1)).astype(np.float64)
    track = FaceTrack(boxes, np.full(count, status, np.uint8), np.full(count, 0.9, np.float32), first)
    return TrackedFace(track, np.zeros(count, np.float32))


def table(*faces: TrackedFace, shot_starts=(0,)) -> FaceTable:
    ordered = tuple(sorted(faces, key=lambda one: -one.area))
    return FaceTable(SIZE_HW, np.arange(FRAMES) / 25, np.array(shot_starts), ordered)


THREE = table(face(320, 90), face(100, 80), face(560, 70))
"""Number 0 in the middle, 1 on the left, 2 on the right."""


@pytest.mark.parametrize(
    ("flag", "numbers"),
    [
        (None, (0,)),
        ("largest", (0,)),
        ("left", (1,)),
        ("right", (2,)),
        ("center", (0,)),
        ("Centre", (0,)),
        ("all", (0, 1, 2)),
        ("speaking", (0, 1, 2)),
        ("2", (2,)),
        (1, (1,)),
    ],
)
def test_named_faces(flag, numbers):
    assert chosen_faces(parse_face(flag), THREE) == numbers


@pytest.mark.parametrize("wrong", ["big", "-1", "1.5", "", "0,1", "²"])
def test_words_that_name_no_face(wrong):
    with pytest.raises(ConfigError, match=rf"--face {wrong}.*largest, left.*--list_faces"):
        parse_face(wrong)


def test_a_number_that_does_not_exist_says_how_many_there_are():
    with pytest.raises(ConfigError, match=r"--face 7: the video has 3 faces, numbered 0 to 2; look with --list_faces"):
        chosen_faces(parse_face("7"), THREE)
    with pytest.raises(ConfigError, match=r"has 1 face, its number is 0"):
        chosen_faces(parse_face("1"), table(face(100)))


def test_both_flags_are_one_too_many():
    with pytest.raises(ConfigError, match="--face left and --face_at 1,2"):
        parse_face("left", "1,2")
    assert parse_face(None, None) is None


@pytest.mark.parametrize("rule", [*NAMED_RULES, "0"])
def test_no_face_at_all(rule):
    with pytest.raises(NoFaceError, match=rf"--face {rule}: no face was found"):
        chosen_faces(parse_face(rule), table())


def test_passers_by_and_what_cannot_be_worked_on_are_not_left_or_right():
    passer_by = face(20, 80, 0, 19)  # under a fifth of the longest-seen face's frames
    poster = face(600, 20, status=FrameStatus.TOO_SMALL)
    people = table(face(300, 90), face(400, 85), passer_by, poster)
    assert chosen_faces(FaceChoice("left"), people) == (0,) and chosen_faces(FaceChoice("right"), people) == (1,)
    longer = table(face(300, 90), face(20, 80, 0, 20))
    assert chosen_faces(FaceChoice("left"), longer) == (1,)
    assert usable_faces(people) == chosen_faces(FaceChoice("all"), people) == (0, 1, 2)


def test_usable_is_a_matter_of_time_and_belief():
    doubtful = face(100)
    doubtful = TrackedFace(
        FaceTrack(doubtful.track.boxes, doubtful.track.status, np.full(FRAMES, 0.2, np.float32)), doubtful.opening
    )
    assert usable_faces(table(face(1, stop=10))) == (0,)  # 10 frames of 40 ms
    assert usable_faces(table(face(1, stop=9))) == usable_faces(table(doubtful)) == ()
    with pytest.raises(NoFaceError, match="--face all: none of the 1 face is large and frontal enough"):
        chosen_faces(FaceChoice("all"), table(doubtful))


@pytest.mark.parametrize(
    ("at", "number"),
    [
        ("100,180", 1),
        ("560,180,2", 2),
        ("100,80", 1),  # above the box, within a face's size of it
        ("320.5,170,0", 0),
        ("225,180,3.99", 1),  # between two faces: 85 px from one box of 80 px would be too far, 50 px of 90 is nearer
    ],
)
def test_the_face_at_a_point(at, number):
    if at.startswith("225"):
        number = 0
    assert chosen_faces(parse_face(None, at), THREE) == (number,)


def test_time_decides_between_faces_at_one_place():
    follow_on = table(face(200, 80, 0, 40), face(210, 60, 40, 100), shot_starts=(0, 40))
    assert [one.track.first_frame for one in follow_on.faces] == [0, 40]
    assert chosen_faces(parse_face(None, "200,180,1.55"), follow_on) == (0,)
    assert chosen_faces(parse_face(None, "200,180,1.6"), follow_on) == (1,)  # not across the cut
    assert chosen_faces(parse_face(None, "200,180"), follow_on) == (1,)  # there the longest
    gone = table(face(200, 80, 0, 40))
    assert chosen_faces(parse_face(None, "200,180,1.7"), gone) == (0,)  # seen a moment ago
    with pytest.raises(ConfigError, match=r"--face_at 200,180,2: no face .*no face is on then.*--list_faces"):
        chosen_faces(parse_face(None, "200,180,2"), gone)


def test_of_two_boxes_that_hold_the_point_the_better_centred_wins():
    crowd = table(face(300, 200), face(340, 100))
    assert chosen_faces(parse_face(None, "335,180,1"), crowd) == (1,)
    assert chosen_faces(parse_face(None, "280,180,1"), crowd) == (0,)


@pytest.mark.parametrize("wrong", ["5", "1,2,3,4", "a,b", "-1,5", "1,,2", "nan,2", "1;2"])
def test_what_is_no_point(wrong):
    with pytest.raises(ConfigError, match=r"--face_at .*X,Y,T"):
        parse_face(None, wrong)


def test_points_and_times_outside_the_video():
    with pytest.raises(ConfigError, match=r"--face_at 700,10: .*outside the frames, which are 640x360"):
        chosen_faces(parse_face(None, "700,10"), THREE)
    with pytest.raises(ConfigError, match=r"the video ends at 4\.00 s"):
        chosen_faces(parse_face(None, "10,10,4.1"), THREE)
    with pytest.raises(ConfigError, match=r"--face_at 320,5: no face .*face 0 is at 320,180, face 1 is at 100,180"):
        chosen_faces(parse_face(None, "320,5"), table(face(320, 40), face(100, 30)))


@given(st.floats(0, 640), st.floats(0, 360), st.floats(20, 200))
def test_distance_to_a_box_against_its_naive_twin(x, y, size):
    people = table(face(320, size))
    box = people.faces[0].track.box(0)
    nearest = np.clip([x, y], [box.x0, box.y0], [box.x1, box.y1])
    expected = np.linalg.norm(nearest - [x, y]) / size
    assert np.allclose(distances_in_faces(people, 0, (x, y)), expected, atol=1e-9)


@pytest.fixture
def sounds(tmp_path, monkeypatch):
    """a.wav, b.wav and x=y.wav in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "b.wav", "x=y.wav"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def test_speech_for_all_or_by_face(sounds):
    a, b = Path("a.wav"), Path("b.wav")
    assert parse_drv_aud("a.wav") == parse_drv_aud([a]) == SpeechFiles(a)
    by_face = SpeechFiles(None, ((0, a), (1, b)))
    assert parse_drv_aud(["1=b.wav", "0=a.wav"]) == parse_drv_aud({1: "b.wav", 0: a}) == by_face
    assert by_face.paths == (a, b) and parse_drv_aud(["0=a.wav", "3=a.wav"]).paths == (a,)
    assert parse_drv_aud(["x=y.wav"]) == SpeechFiles(Path("x=y.wav"))
    assert parse_drv_aud(["2=x=y.wav"]) == SpeechFiles(None, ((2, Path("x=y.wav")),))


def test_a_file_whose_name_looks_like_a_face(sounds):
    (sounds / "0=c.wav").write_bytes(b"x")
    assert parse_drv_aud(["0=c.wav"]) == SpeechFiles(Path("0=c.wav"))
    (sounds / "c.wav").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"files 0=c\.wav and c\.wav; write \./0=c\.wav .*0=\./c\.wav"):
        parse_drv_aud(["0=c.wav"])
    assert parse_drv_aud(["./0=c.wav"]) == SpeechFiles(Path("0=c.wav"))
    assert parse_drv_aud(["0=./c.wav"]) == SpeechFiles(None, ((0, Path("c.wav")),))


@pytest.mark.parametrize(
    ("values", "error", "says"),
    [
        ([], ConfigError, "--drv_aud is missing"),
        (["a.wav", "b.wav"], ConfigError, r"names a\.wav and b\.wav: .*--drv_aud 0=a\.wav --drv_aud 1=b\.wav"),
        (["a.wav", "0=b.wav"], ConfigError, r"a\.wav is for all faces and --drv_aud 0=b\.wav for one"),
        (["0=a.wav", "0=b.wav"], ConfigError, r"face 0 two sounds, a\.wav and b\.wav"),
        (["1="], ConfigError, "a file is missing after '='"),
        (["c.wav"], AudioReadError, r"c\.wav: there is no such sound file; check --drv_aud$"),
        (["0=a.wav", "1=c.wav"], AudioReadError, r"c\.wav: .*check --drv_aud of face 1"),
        (["left=a.wav"], AudioReadError, "left=a.wav: there is no such sound file"),
    ],
)
def test_speech_that_does_not_go_together(sounds, values, error, says):
    with pytest.raises(error, match=says):
        parse_drv_aud(values)


def test_who_gets_which_speech(sounds):
    a, b = Path("a.wav"), Path("b.wav")
    shared, by_face = SpeechFiles(a), SpeechFiles(None, ((0, a), (2, b)))
    assert speech_of_faces(None, shared, THREE) == ((0, a),)
    assert speech_of_faces(FaceChoice("all"), shared, THREE) == ((0, a), (1, a), (2, a))
    assert speech_of_faces(None, by_face, THREE) == ((0, a), (2, b))  # the faces named are the chosen ones
    assert speech_of_faces(FaceChoice("all"), by_face, THREE) == ((0, a), (2, b))  # face 1 keeps its lips
    with pytest.raises(ConfigError, match=r"--drv_aud 2=b\.wav: --face left does not choose face 2 but 1"):
        speech_of_faces(FaceChoice("left"), SpeechFiles(None, ((2, b),)), THREE)
    with pytest.raises(ConfigError, match=r"--drv_aud 2=b\.wav: the video has 2 faces, numbered 0 to 1"):
        speech_of_faces(None, by_face, table(face(100), face(300)))
    with pytest.raises(NoFaceError, match="no face was found"):
        speech_of_faces(None, by_face, table())


def test_the_flags_reach_their_parser():
    parser = argparse.ArgumentParser()
    add_face_arguments(parser)
    given_flags = parser.parse_args(["--face", "left", "--list_faces", "f.png"])
    assert parse_face(given_flags.face, given_flags.face_at) == FaceChoice("left")
    assert given_flags.list_faces == Path("f.png")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (FaceChoice(), "--face largest"),
        (FaceChoice("number", 3), "--face 3"),
        (FaceChoice("point", point=(3.5, 4.0)), "--face_at 3.5,4"),
        (FaceChoice("point", point=(3.0, 4.0), time_s=1.5), "--face_at 3,4,1.5"),
    ],
)
def test_a_choice_reads_as_its_flag(choice, words):
    assert str(choice) == words
