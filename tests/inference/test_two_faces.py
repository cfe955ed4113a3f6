"""Two people in one picture: both speak anew, each as its own person, each where its own face is."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data_gen.utils.process_audio.resample_audio_to_16k import load_audio_16k
from inference.genefacepp_infer_arbitrary import main
from inference.prepared import open_video
from modules.commons.checkpoint import load_checkpoint
from modules.commons.progress import silent
from modules.structures.spans import SpanTable
from tests.support.edited_clips import SIZE_WH, alphas, assert_untouched, is_same_picture, people_beside, run_job
from tests.support.spoken_clip import PRESET
from tests.support.synthetic_video import read_audio
from tests.support.tiny_run import all_frames, cut, own_folders, write_wav

COUNT = 24


@dataclass(frozen=True)
class Couple:
    """A clip of two people, two sounds, and a run in which each says one of them."""

    root: Path
    clip: Path
    hers: Path
    his: Path

    @property
    def out(self) -> Path:
        return self.root / "out.mp4"

    @property
    def people(self) -> list[str]:
        return sorted(path.name for path in (self.root / "identities").iterdir())

    def job(self, **changes: object) -> list[str]:
        """Arguments of the main command."""
        given = {"src_video": self.clip, "out_name": self.out, "config": self.root / "preset.yaml", **changes}
        return [str(word) for flag, value in given.items() for word in (f"--{flag}", value)]

    def record(self, out: Path) -> dict:
        return json.loads(out.with_name(out.name + ".json").read_text())


@pytest.fixture(scope="module")
def couple(tmp_path_factory, demo_dir):
    root = tmp_path_factory.mktemp("couple")
    whole = load_audio_16k(demo_dir / "obama_speech.wav")
    hers, his = (
        write_wav(root / f"{name}.wav", cut(whole, start_s, stop_s))
        for name, start_s, stop_s in (("hers", 0.9, 1.5), ("his", 2.0, 2.9))
    )
    (root / "preset.yaml").write_text(PRESET)
    made = Couple(root, people_beside(root / "clip.mp4", COUNT), hers, his)
    sounds = ["--drv_aud", f"1={his}", "--drv_aud", f"0={hers}", "--lossless"]
    with own_folders(root):
        assert main([*made.job(face="all", save_masks=root / "masks.mp4"), *sounds]) == 0
    return made


@pytest.fixture(scope="module")
def table(couple):
    with own_folders(couple.root):
        return open_video(couple.clip, silent).faces


def test_each_face_says_its_own_and_is_a_person_of_its_own(couple):
    record = couple.record(couple.out)
    hers, his = record["faces"]
    assert [hers["face"], his["face"]] == [0, 1], "she is the larger one"
    assert (hers["drv_aud"], his["drv_aud"]) == (str(couple.hers), str(couple.his))
    names = [Path(face["identity"]).name for face in (hers, his)]
    assert names == couple.people[::-1] == [names[0], names[0].replace("-preset", "-face1-preset")]
    persons = [load_checkpoint(Path(face["identity"]), parts={"model"}) for face in (hers, his)]
    assert [person.extra.get("face", 0) for person in persons] == [0, 1]
    assert persons[0].extra["source_sha256"] == persons[1].extra["source_sha256"]
    assert any(not np.array_equal(persons[0].model[key], persons[1].model[key]) for key in persons[0].model)
    assert hers["face_height_px"] > his["face_height_px"] > 60
    hers_stop, his_stop = (np.flatnonzero(SpanTable.from_json(face["spans"]).edited)[-1] + 1 for face in (hers, his))
    assert (hers_stop, his_stop) == (hers["frames_edited"], his["frames_edited"]) == (15, 22), "as long as each speaks"
    assert record["frames_edited"] == 22 and record["frames"] == COUNT


def test_each_edit_stays_in_its_own_face(couple, table):
    before, after, masks = all_frames(couple.clip), all_frames(couple.out), alphas(couple.root / "masks.mp4")
    width = SIZE_WH[0]
    hers, his = (table.track_over_video(number).boxes for number in (0, 1))
    assert hers[:, 2].max() < width < his[:, 0].min()
    record = couple.record(couple.out)["faces"]
    for number, (old, new, mask) in enumerate(zip(before, after, masks, strict=True)):
        assert_untouched(old, new, mask)
        halves = np.split(mask, 2, axis=1)
        for half, box, face, left in zip(halves, (hers, his), record, (0, width), strict=True):
            assert half.any() == (number < face["frames_edited"])
            if half.any():
                assert_about(half, box[number] - [left, 0, left, 0])
                changed = np.split(new.planes[0] != old.planes[0], 2, axis=1)[left // width]
                assert changed.any()
    assert all(is_same_picture(old, new) for old, new in zip(before[22:], after[22:], strict=True))


def assert_about(alpha, box):
    """A lower face: below the middle of the face's box, and nowhere beyond its surroundings."""
    x0, y0, x1, y1 = box
    ys, xs = np.nonzero(alpha)
    margin = 0.35 * (y1 - y0)
    assert xs.min() > x0 - margin and xs.max() < x1 + margin
    assert ys.min() > y0 and ys.max() < y1 + margin
    weight = alpha[ys, xs].astype(float)
    assert x0 < np.average(xs, weights=weight) < x1
    assert (y0 + y1) / 2 < np.average(ys, weights=weight) < y1


def test_the_sound_is_the_mix(couple):
    samples, rate, start_s = read_audio(couple.out)
    place = round((start_s - float(all_frames(couple.clip)[0].time_s)) * rate)
    result = np.concatenate([np.zeros(max(place, 0), np.float32), samples[max(-place, 0) :]])
    hers, his = (load_audio_16k(path).samples for path in (couple.hers, couple.his))
    mix = his.copy()
    mix[: len(hers)] += hers
    length = min(len(mix), len(result))
    assert rate == 16000 and length > 14000
    assert np.corrcoef(result[:length], mix[:length])[0, 1] > 0.98
    for alone in (hers, his):
        count = min(len(alone), len(hers))
        assert np.corrcoef(result[:count], alone[:count])[0, 1] < 0.95


def test_one_sound_for_all(couple, tmp_path):
    """The people are found again; both faces are edited as long as the one sound lasts, and it is heard once."""
    out = tmp_path / "out.mp4"
    with own_folders(couple.root):
        assert main(couple.job(face="all", drv_aud=couple.hers, out_name=out)) == 0
    record = couple.record(out)
    assert [face["frames_edited"] for face in record["faces"]] == [15, 15]
    assert not any(face["identity_trained_now"] for face in record["faces"])
    samples, _, _ = read_audio(out)
    spoken = load_audio_16k(couple.hers).samples
    assert np.abs(samples).max() == pytest.approx(np.abs(spoken).max(), rel=0.2)


@pytest.mark.parametrize(
    ("choice", "number"), [({"face": "right"}, 1), ({"face_at": f"{SIZE_WH[0] + 140},100"}, 1), ({"face": "left"}, 0)]
)
def test_one_of_them(couple, tmp_path, choice, number):
    """The other one's half is the source's own."""
    with own_folders(couple.root):
        out = run_job(
            {"src_video": couple.clip, "drv_aud": couple.hers, "out_name": tmp_path / "out.mp4", "lossless": True,
             "end": 0.2, "config": couple.root / "preset.yaml", **choice}
        )  # fmt: skip
    (face,) = couple.record(out)["faces"]
    assert face["face"] == number and face["frames_edited"] == 5
    for index, (old, new) in enumerate(zip(all_frames(couple.clip), all_frames(out), strict=True)):
        halves = zip(np.split(old.planes[0], 2, axis=1), np.split(new.planes[0], 2, axis=1), strict=True)
        assert [bool((a != b).any()) for a, b in halves] == [index < 5 and number == side for side in (0, 1)]


def test_the_faces_are_listed(couple, tmp_path, caplog):
    caplog.set_level("INFO")
    with own_folders(couple.root):
        assert main(["--src_video", str(couple.clip), "--list_faces", str(tmp_path / "faces"), "--face", "right"]) == 0
    said = [record.getMessage() for record in caplog.records]
    assert any(text.startswith("face 0: ") for text in said) and any(
        text.startswith("face 1 (chosen)") for text in said
    )
    assert [path.name for path in tmp_path.iterdir()] == ["faces.png"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--face", "7"], "--face 7: the video has 2 faces, numbered 0 to 1"),
        (["--face_at", "5,5,0.1"], "--face_at 5,5,0.1: no face is within a face's size of that point"),
        (["--face_at", "9000,5"], "outside the frames, which are 640x180"),
        (["--face_at", "5,5,77"], "the video ends at 1.00 s"),
        (["--start", "8"], "--start 8 lies beyond the video, which lasts 1.00 s"),
        (["--end", "9"], "--end 9 lies beyond the video"),
        (["--audio_offset", "8"], "--audio_offset 8: the speech would begin at 8.00 s"),
        (["--audio_offset", "-8"], "cuts off the whole speech"),
        (["--preview", "24"], "--preview 24: the result has 24 frames"),
        (["--face", "speaking"], "--face speaking needs the video's own sound"),
    ],
)
def test_what_does_not_fit_this_video_is_said(couple, tmp_path, caplog, flags, words):
    with own_folders(couple.root):
        assert main([*couple.job(drv_aud=couple.hers, out_name=tmp_path / "o.mp4"), *flags]) == 1
    (message,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert words in message and "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_speech_for_a_face_that_is_not_there_or_not_chosen(couple, tmp_path, caplog):
    arguments = ["--src_video", str(couple.clip), "--out_name", str(tmp_path / "o.mp4"), "--drv_aud"]
    with own_folders(couple.root):
        assert main([*arguments, f"2={couple.his}"]) == 1
        assert main([*arguments, f"1={couple.his}", "--face", "0"]) == 1
        head = ["--head_ckpt", str(couple.root / "identities" / couple.people[0])]
        assert main([*arguments, str(couple.his), "--face", "all", *head]) == 1
    missing, left_out, one_head = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert f"--drv_aud 2={couple.his}: the video has 2 faces" in missing
    assert "--face 0 does not choose face 1" in left_out
    assert "is the head of one person, but 2 faces are chosen" in one_head
    assert list(tmp_path.iterdir()) == []
