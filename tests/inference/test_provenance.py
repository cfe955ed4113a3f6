"""Provenance: a file that names what was edited, from what and by what, and that anybody can check by hashing."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from inference.provenance import (
    DIGITAL_SOURCE_TYPE,
    EditedFace,
    Model,
    Provenance,
    plain,
    project_commit,
    provenance_path,
)
from modules.commons.errors import OutputError
from modules.structures.spans import Reason, SpanTable
from modules.structures.timeline import Timeline
from modules.video.writer import SYNTHESISED


@dataclass(frozen=True)
class _Nested:
    crf: int = 14
    name: Path = Path("/secret/folder/x.npz")


@dataclass(frozen=True)
class _Options:
    src_video: Path
    faces: tuple[int, ...] = (0, 1)
    nested: _Nested = _Nested()
    reason: Reason = Reason.PAUSE
    rate: Fraction = Fraction(1, 3)
    nothing: None = None


def record(tmp_path, strength=(0, 0.5, 1, 1, 0)):
    for name in ("out.mp4", "in.mp4", "a.wav"):
        (tmp_path / name).write_bytes(name.encode() * 999)
    person = tmp_path / "person"
    person.mkdir(exist_ok=True)
    (person / "model.safetensors").write_bytes(b"weights")
    (person / "MODEL_CARD.md").write_text("A person who agreed.")
    count = len(strength)
    pts = np.arange(count, dtype=np.int64) * 1001
    timeline = Timeline(
        np.arange(count), pts, pts / 30000, np.ones(count, bool), count, count * 1001, Fraction(1, 30000), Fraction(0),
        (Fraction(0), Fraction(count * 1001, 30000)),
    )  # fmt: skip
    reasons = tuple(Reason.EDITED if value else Reason.PAUSE for value in strength)
    face = EditedFace(0, tmp_path / "a.wav", SpanTable(np.array(strength, np.float32), reasons))
    return Provenance(
        tmp_path / "out.mp4", (tmp_path / "in.mp4", "c" * 64), timeline, (face,),
        (Model("person of face 0", person), Model("audio to motion", tmp_path / "a.wav")),
        _Options(tmp_path / "in.mp4"), copied_frames=2, watermark="mark",
    )  # fmt: skip


def test_everything_can_be_checked_by_hash(tmp_path):
    made = record(tmp_path)
    made.write()
    assert made.path == provenance_path(tmp_path / "out.mp4") == tmp_path / "out.mp4.provenance.json"
    data = json.loads(made.path.read_text())
    of = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("out.mp4", "a.wav")}
    assert data["output"] == {"name": "out.mp4", "sha256": of["out.mp4"]}
    assert data["inputs"] == [
        {"role": "video", "name": "in.mp4", "sha256": "c" * 64},
        {"role": "speech", "name": "a.wav", "sha256": of["a.wav"]},
    ]  # fmt: skip
    person, speech = data["models"]
    assert person["card"] == "MODEL_CARD.md" and speech["card"] is None
    assert person["sha256"]["model.safetensors"] == hashlib.sha256(b"weights").hexdigest()
    assert speech["sha256"] == {"a.wav": of["a.wav"]}
    assert data["statement"] == SYNTHESISED and data["digital_source_type"] == DIGITAL_SOURCE_TYPE
    assert data["watermark"] == "mark" and data["frames_copied_as_packets"] == 2


def test_edited_spans_have_frames_and_seconds_of_the_output(tmp_path):
    data = record(tmp_path).to_json()
    (face,) = data["edited"]
    assert face["face"] == 0 and face["speech"] == "a.wav" and face["frames_edited"] == 3 and data["frames"] == 5
    fade, edit = face["spans"]
    assert fade == {"first": 1, "stop": 2, "from_s": 0.033367, "to_s": 0.066733, "kind": "fade"}
    assert edit == {"first": 2, "stop": 4, "from_s": 0.066733, "to_s": 0.133467, "kind": "edited"}
    (last,) = record(tmp_path, (1, 1)).to_json()["edited"][0]["spans"]
    assert last["to_s"] == round(2 * 1001 / 30000, 6)


def test_no_folder_of_the_maker_is_told(tmp_path):
    made = record(tmp_path)
    made.write()
    text = made.path.read_text()
    assert str(tmp_path) not in text and "secret" not in text
    assert json.loads(text)["flags"] == {
        "src_video": "in.mp4", "faces": [0, 1], "nested": {"crf": 14, "name": "x.npz"},
        "reason": str(Reason.PAUSE), "rate": "1/3", "nothing": None,
    }  # fmt: skip
    assert plain({"a": Path("b/c")}) == {"a": "c"}


def test_versions_are_told_and_a_commit_where_there_is_one(tmp_path):
    software = record(tmp_path).to_json()["software"]
    assert software["av"] and software["torch"] and re.fullmatch(r"[\d.]+", software["ffmpeg"]["libavcodec"])
    assert project_commit(tmp_path) is None
    found = project_commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)


def test_a_record_that_cannot_be_written_is_one_sentence(tmp_path):
    made = record(tmp_path)
    made.path.mkdir()
    with pytest.raises(OutputError, match=r"out\.mp4\.provenance\.json: cannot be written"):
        made.write()
    assert not list(tmp_path.glob("*.tmp"))
