"""What a source video carries beside its picture and the sound that is replaced: other tracks, chapters, titles.

Reads: the source. Packets are copied at their own times; what the output's container cannot hold is said once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.stream import AttachmentStream, Disposition, Stream
from av.video.stream import VideoStream

from modules.commons.errors import VideoReadError
from modules.video.packet_copy import CopiedStreams
from modules.video.sound import AudioTrack, SoundFeed, holds_sound, open_sound

_OF_THE_FILE = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "comment"})
"""Container tags that describe the file that was read, or that the writer sets itself."""
_OF_THE_STREAM = frozenset(
    {"encoder", "duration", "vendor_id", "bps", "number_of_frames", "number_of_bytes", "timecode"}
)
_OF_THE_PICTURE = ("language", "title")
_QUICKTIME_LANGUAGES = {
    "deu": "ger", "nld": "dut", "swe": "sve", "ell": "gre", "isl": "ice", "zho": "chi", "sqi": "alb",
}  # fmt: skip
"""QuickTime knows these languages by other letters."""
_ORIGINAL_TITLE = "Original sound"
_COVER_TYPES = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}


@dataclass(frozen=True, slots=True)
class Passengers:
    """What of a source travels with the new picture.

    Subtitles, chapters, attachments, titles and languages always do.

    Attributes:
        path: the source video.
        audio: also its sound: the replaced track and all others, behind the new one.
        first_audio: the first of its audio streams that travels: 1 where the output's own sound is already the source's
            first one.
    """

    path: Path
    audio: bool = False
    first_audio: int = 0


@dataclass(frozen=True, slots=True)
class Aboard:
    """What was added to an output.

    Attributes:
        feeds: fill its streams; none when nothing has to be read.
        left_out: one clause per stream that did not fit, with the reason.
    """

    feeds: tuple[SoundFeed, ...]
    left_out: tuple[str, ...]


def open_passengers(passengers: Passengers, output: OutputContainer, picture: VideoStream, bit_rate: int) -> Aboard:
    """Add the passengers' streams, chapters and tags to an output that has its picture and its own sound.

    Args:
        passengers: what travels.
        output: not started yet.
        picture: its video stream; takes the source's title and language.
        bit_rate: of sound that has to be encoded because the container cannot hold its packets.

    Returns:
        What fills the streams, and what was left out.

    Raises:
        VideoReadError: when the source cannot be opened.
    """
    try:
        source = av.open(str(passengers.path))
    except (av.error.FFmpegError, OSError) as error:
        raise VideoReadError(f"{passengers.path} cannot be opened for its other tracks ({error})") from error
    boarding = _Boarding(passengers, source, output, bit_rate)
    try:
        boarding.tag(picture)
        if passengers.audio:
            boarding.add_audio()
        boarding.add_subtitles()
        boarding.add_attachments()
        boarding.leave_the_rest()
    except BaseException:
        for feed in (*boarding.encoded, source):
            feed.close()
        raise
    return Aboard(tuple(boarding.feeds()), tuple(boarding.left_out))


class _Boarding:
    """Adds the source's streams to the output, one kind after the other."""

    def __init__(self, passengers: Passengers, source: InputContainer, output: OutputContainer, bit_rate: int) -> None:
        self._passengers, self._source, self._output, self._bit_rate = passengers, source, output, bit_rate
        self._is_matroska = "matroska" in output.format.name
        self._copied: dict[int, Stream] = {}
        self.left_out: list[str] = []
        self.encoded: list[SoundFeed] = []

    def tag(self, picture: VideoStream) -> None:
        """Title and other tags of the container and the picture; chapters."""
        source, output = self._source, self._output
        kept = {key: value for key, value in source.metadata.items() if key.lower() not in _OF_THE_FILE}
        for key, value in kept.items():
            output.metadata.setdefault(key, value)
        comment = next((value for key, value in source.metadata.items() if key.lower() == "comment"), "")
        own = output.metadata.get("comment", "")
        if comment and comment != own:
            output.metadata["comment"] = f"{own} {comment}".strip()
        output.set_chapters(source.chapters())
        shown = next((s for s in source.streams.video if not is_cover(s)), None)
        if shown is not None:
            picture.metadata.update({key: value for key, value in shown.metadata.items() if key in _OF_THE_PICTURE})

    def add_audio(self) -> None:
        """The source's audio streams, none of them the default any more."""
        for new in self._output.streams.audio:
            new.disposition = Disposition.default
        for number, stream in enumerate(self._source.streams.audio):
            if number < self._passengers.first_audio:
                continue
            if stream.codec_context is not None and holds_sound(self._output, stream.codec_context.name):
                added: Stream = self._output.add_stream_from_template(stream)
                self._copied[stream.index] = added
            else:
                track = AudioTrack(self._passengers.path, keep_source=True, number=number)
                self.encoded.append(open_sound(track, self._output, self._bit_rate))
                added = self._output.streams[-1]
            self._take_tags(stream, added)
            added.disposition = stream.disposition & ~Disposition.default
            if number == 0:
                added.metadata.setdefault("title", _ORIGINAL_TITLE)

    def add_subtitles(self) -> None:
        """Every subtitle stream whose packets the container can hold."""
        supported = self._output.supported_codecs
        for stream in self._source.streams.subtitles:
            name = stream.codec_context.name if stream.codec_context is not None else "unknown"
            if name not in supported:
                other = "a .mkv output holds it" if not self._is_matroska else "an .mp4 output may hold it"
                self._leave(stream, f"{name} subtitles do not fit this container; {other}")
                continue
            added = self._output.add_stream_from_template(stream)
            self._take_tags(stream, added)
            added.disposition = stream.disposition
            self._copied[stream.index] = added

    def add_attachments(self) -> None:
        """Fonts and other files; a cover picture becomes one in Matroska and stays a picture elsewhere."""
        for stream in self._source.streams.attachments:
            self._attach(stream)
        for stream in self._source.streams.video:
            if is_cover(stream):
                self._add_cover(stream)

    def leave_the_rest(self) -> None:
        """Note further pictures and data streams, which never travel."""
        pictures = [stream for stream in self._source.streams.video if not is_cover(stream)]
        for stream in pictures[1:]:
            self._leave(stream, "only the first picture is carried")
        for stream in self._source.streams.data:
            is_chapter_track = stream.name == "bin_data" and bool(self._source.chapters())
            if not is_chapter_track:
                self._leave(stream, f"data streams ({stream.name or 'unknown'}) are not carried")

    def feeds(self) -> Iterator[SoundFeed]:
        """What fills the added streams; the source is closed where nothing has to be read from it any more."""
        if self._copied:
            yield CopiedStreams(self._passengers.path, self._source, self._copied, self._output)
        else:
            self._source.close()
        yield from self.encoded

    def _attach(self, stream: AttachmentStream) -> None:
        if not self._is_matroska:
            self._leave(stream, "attachments need a .mkv output")
            return
        name, mimetype = stream.name or f"attachment{stream.index}", stream.mimetype or "application/octet-stream"
        self._take_tags(stream, self._output.add_attachment(name, mimetype, stream.data))

    def _add_cover(self, stream: VideoStream) -> None:
        """A cover is one packet that the demuxer hands out first."""
        codec = stream.codec_context.name
        if codec not in _COVER_TYPES:
            self._leave(stream, f"{codec} cover pictures are not carried")
        elif self._is_matroska:
            name, mimetype = _COVER_TYPES[codec]
            with av.open(str(self._passengers.path)) as again:
                picture = next(p for p in again.demux(again.streams[stream.index]) if p.size)
                self._output.add_attachment(stream.metadata.get("filename", name), mimetype, bytes(picture))
        else:
            added = self._output.add_stream_from_template(stream, opaque=True)
            added.disposition = Disposition.attached_pic
            self._copied[stream.index] = added

    def _take_tags(self, source: Stream, target: Stream) -> None:
        """Language, title and the like, without what only described the old file."""
        for key, value in source.metadata.items():
            if key.lower().split("-")[0] in _OF_THE_STREAM or key.startswith("_STATISTICS"):
                continue
            if key == "language" and self._output.format.name == "mov":
                value = _QUICKTIME_LANGUAGES.get(value, value)
            # MP4 states a track's title as its name when it is read, and takes it as its title when it is written.
            target.metadata["title" if key == "name" else key] = value

    def _leave(self, stream: Stream, reason: str) -> None:
        language = stream.metadata.get("language")
        self.left_out.append(f"stream {stream.index}{f' ({language})' if language else ''} is left out: {reason}")


def is_cover(stream: VideoStream) -> bool:
    """Whether a picture stream is the cover of its file."""
    return bool(stream.disposition & Disposition.attached_pic)
