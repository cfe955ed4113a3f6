"""What travels beside the picture: dubs, subtitles, chapters, titles, fonts and covers; said where it cannot."""

import hashlib
import logging
import shlex
import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import pytest
from av.stream import Disposition

from modules.video.passengers import Passengers
from modules.video.reader import VideoReader
from modules.video.segments import SegmentedWriter
from modules.video.sound import AudioTrack
from modules.video.writer import SYNTHESISED, EncodeConfig, VideoWriter
from tests.modules.video.test_sound import click_times, clicks

FAST = EncodeConfig(preset="ultrafast")
SUBTITLES = {
    "eng": "1\n00:00:00,200 --> 00:00:00,900\nHello\n\n2\n00:00:01,000 --> 00:00:01,800\nWorld\n",
    "deu": "1\n00:00:00,300 --> 00:00:00,700\nHallo\n",
}
TAGS = """;FFMETADATA1
title=A film
artist=Somebody
comment=shot in Rome
[CHAPTER]
TIMEBASE=1/1000
START=0
END=1000
title=One
[CHAPTER]
TIMEBASE=1/1000
START=1000
END=2000
title=Two
"""
MARKS = """-map_metadata 5 -map_chapters 5 -c:v:0 libx264 -pix_fmt:v:0 yuv420p -c:a aac -metadata:s:v:0 language=fra
-metadata:s:a:0 language=eng -metadata:s:a:1 language=deu -metadata:s:a:1 title=Synchronfassung
-metadata:s:s:0 language=eng -metadata:s:s:1 language=deu -disposition:a:1 dub -disposition:s:1 forced"""
FONT = bytes(range(200))
DUB_S = (0.3, 1.4)


def ffmpeg(*arguments):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)], check=True)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """One film in both containers: two sounds, two subtitles, chapters, tags; a font in Matroska, a cover in MP4."""
    folder = tmp_path_factory.mktemp("sources")
    for language, text in SUBTITLES.items():
        (folder / f"{language}.srt").write_text(text)
    (folder / "tags.txt").write_text(TAGS)
    (folder / "font.ttf").write_bytes(FONT)
    original = clicks(folder / "original.wav", (0.5, 1.2), 2.0, 44100)
    dub = clicks(folder / "dub.wav", DUB_S, 2.0, 44100)
    ffmpeg("-f", "lavfi", "-i", "color=red:size=32x32", "-frames:v", 1, folder / "cover.png")
    picture = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=2"]
    texts = ["-i", folder / "eng.srt", "-i", folder / "deu.srt", "-i", folder / "tags.txt"]
    marks = shlex.split(MARKS)
    maps = [part for number in range(5) for part in ("-map", number)]
    common = [*picture, "-i", original, "-i", dub, *texts]
    font = ["-attach", folder / "font.ttf", "-metadata:s:t:0", "mimetype=application/x-truetype-font"]
    ffmpeg(*common, *maps, *marks, "-c:s", "srt", *font, folder / "film.mkv")
    cover = ["-map", 6, "-c:v:1", "png", "-disposition:v:1", "attached_pic"]
    ffmpeg(*common, "-i", folder / "cover.png", *maps, *cover, *marks, "-c:s", "mov_text", folder / "film.mp4")
    return folder


def rewrite(source, out, **options):
    with VideoReader(source) as reader, VideoWriter(out, reader.info, quality=FAST, **options) as writer:
        for frame in reader.frames():
            writer.write(frame)
    return out


def packets(path, kind, number=0):
    """(time, hash) of the packets of one stream that hold something, and how long a subtitle stays."""
    with av.open(str(path)) as container:
        stream = getattr(container.streams, kind)[number]
        return [
            (
                (p.pts or 0) * p.time_base,
                p.duration * p.time_base if kind == "subtitles" else None,
                hashlib.sha256(bytes(p)).hexdigest(),
            )
            for p in container.demux(stream)
            if p.size
        ]


def tags(stream):
    """Language and title, as either container reads them."""
    return stream.metadata.get("language"), stream.metadata.get("title") or stream.metadata.get("name")


def tagged(container):
    return {key.lower(): value for key, value in container.metadata.items()}


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_everything_travels_within_one_kind_of_container(sources, tmp_path, suffix):
    source = sources / f"film{suffix}"
    speech = clicks(tmp_path / "speech.wav", (0.7,), 1.5, 16000)
    out = rewrite(source, tmp_path / f"out{suffix}", audio=speech, passengers=Passengers(source, audio=True))
    with av.open(str(out)) as container:
        sounds, texts = container.streams.audio, container.streams.subtitles
        assert [tags(s) for s in sounds][1:] == [("eng", "Original sound"), ("deu", "Synchronfassung")]
        assert [tags(s)[0] for s in texts] == ["eng", "deu"]
        assert [s.disposition & (Disposition.default | Disposition.dub) for s in sounds] == [
            Disposition.default, Disposition(0), Disposition.dub,
        ]  # fmt: skip
        assert texts[1].disposition & Disposition.forced
        assert container.streams.video[0].metadata["language"] == "fra"
        chapters = [
            (*(Fraction(c[end]) * (c["time_base"] or 1) for end in ("start", "end")), c["metadata"]["title"])
            for c in container.chapters()
        ]
        assert chapters == [(0, 1, "One"), (1, 2, "Two")]
        found = tagged(container)
        assert (found["title"], found["artist"]) == ("A film", "Somebody")
        assert found["comment"] == f"{SYNTHESISED} shot in Rome"
        assert sounds[0].sample_rate == 16000 and sounds[0].channels == 1
    for number in range(2):
        assert packets(out, "subtitles", number) == packets(source, "subtitles", number)
        assert packets(out, "audio", number + 1) == packets(source, "audio", number)
    assert click_times(out) == pytest.approx([0.7], abs=0.001)
    assert click_times(out, 1) == pytest.approx([0.5, 1.2], abs=0.001)
    assert click_times(out, 2) == pytest.approx(DUB_S, abs=0.001)
    with VideoReader(source) as before, VideoReader(out) as after:
        assert [f.pts for f in after.frames()] == [f.pts for f in before.frames()]


@pytest.mark.parametrize(
    ("source", "target"), [("film.mkv", "out.mp4"), ("film.mp4", "out.mkv"), ("film.mp4", "o.mov")]
)
def test_another_container_takes_what_it_can_and_the_rest_is_said(sources, tmp_path, caplog, source, target):
    with caplog.at_level(logging.WARNING):
        out = rewrite(sources / source, tmp_path / target, passengers=Passengers(sources / source, audio=True))
    said = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == 2 and [c["metadata"]["title"] for c in container.chapters()] == [
            "One",
            "Two",
        ]
        assert len(container.streams.subtitles) == (2 if target.endswith(".mov") else 0)
    if source == "film.mkv":
        assert len(said) == 3 and len([s for s in said if "subtitles do not fit" in s and ".mkv" in s]) == 2
        assert "stream 5 is left out: attachments need a .mkv" in said[2]
    elif target == "out.mkv":
        assert len(said) == 2 and "(eng)" in said[0] and "(deu)" in said[1]
    else:
        assert said == []
    assert click_times(out, 1) == pytest.approx(DUB_S, abs=0.001)


def test_fonts_and_covers_travel(sources, tmp_path):
    out = rewrite(sources / "film.mkv", tmp_path / "out.mkv", passengers=Passengers(sources / "film.mkv"))
    with av.open(str(out)) as container:
        (font,) = container.streams.attachments
        assert (font.name, font.mimetype, font.data) == ("font.ttf", "application/x-truetype-font", FONT)
        assert not container.streams.audio
    ((_, _, cover),) = packets(sources / "film.mp4", "video", 1)
    for name in ("cover.mp4", "cover.mkv"):
        out = rewrite(sources / "film.mp4", tmp_path / name, passengers=Passengers(sources / "film.mp4"))
        with av.open(str(out)) as container:
            assert container.streams.video[1].disposition & Disposition.attached_pic
        assert packets(out, "video", 1)[0][2] == cover
        with VideoReader(out) as reader:
            assert sum(1 for _ in reader.frames()) == 50


def test_the_kept_first_sound_is_not_carried_twice(sources, tmp_path):
    source = sources / "film.mkv"
    out = rewrite(
        source,
        tmp_path / "out.mkv",
        audio=AudioTrack(source, keep_source=True),
        passengers=Passengers(source, audio=True, first_audio=1),
    )
    assert [packets(out, "audio", k) for k in range(2)] == [packets(source, "audio", k) for k in range(2)]
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == 2


def test_sound_that_the_container_cannot_hold_is_encoded(tmp_path):
    dub = clicks(tmp_path / "dub.wav", DUB_S, 2.0, 16000)
    source = tmp_path / "pcm.mkv"
    picture = ["-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=2"]
    ffmpeg(*picture, "-i", dub, "-map", 0, "-map", 1, "-metadata:s:a:0", "language=ita", "-c:v", "libx264", "-c:a",
           "pcm_s16le", source)  # fmt: skip
    out = rewrite(source, tmp_path / "out.mp4", passengers=Passengers(source, audio=True))
    assert click_times(out) == pytest.approx(DUB_S, abs=0.001)
    with av.open(str(out)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert tags(container.streams.audio[0]) == ("ita", "Original sound")


def test_passengers_stop_where_the_picture_does(sources, tmp_path):
    source = sources / "film.mp4"
    out = tmp_path / "out.mp4"
    with (
        VideoReader(source) as reader,
        VideoWriter(out, reader.info, quality=FAST, passengers=Passengers(source, audio=True)) as writer,
    ):
        for frame in reader.frames():
            if frame.index == 20:
                break
            writer.write(frame)
    last = [packets(out, kind, number)[-1][0] for kind in ("audio", "subtitles") for number in range(2)]
    assert max(last) < Fraction(20, 25)
    assert click_times(out, 1) == pytest.approx(DUB_S[:1], abs=0.001)


def test_passengers_travel_with_joined_segments(sources, tmp_path, caplog):
    source = sources / "film.mkv"
    plain = rewrite(source, tmp_path / "plain.mp4", passengers=Passengers(source, audio=True))
    caplog.clear()
    with (
        caplog.at_level(logging.WARNING),
        VideoReader(source) as reader,
        SegmentedWriter(
            tmp_path / "segments", tmp_path / "out.mp4", reader.info, key="", quality=FAST, frames_per_segment=9,
            passengers=Passengers(source, audio=True),
        ) as writer,
    ):  # fmt: skip
        for frame in reader.frames():
            writer.write(frame)
    assert len([r for r in caplog.records if "left out" in r.getMessage()]) == 3
    for number in range(2):
        assert packets(tmp_path / "out.mp4", "audio", number) == packets(plain, "audio", number)


def test_a_source_without_passengers_needs_no_second_reading(tmp_path):
    source = tmp_path / "silent.mp4"
    ffmpeg("-f", "lavfi", "-i", "testsrc=size=64x48:rate=25:duration=0.4", "-pix_fmt", "yuv420p", source)
    out = rewrite(source, tmp_path / "out.mp4", passengers=Passengers(source, audio=True))
    with av.open(str(out)) as container:
        assert len(container.streams) == 1
