"""A video encoded in closed segments, so that a job killed at any moment goes on where its last segment ended.

Writes: in a folder of its own, ``manifest.json`` and per segment the encoder's packets and a record; at the end the
video, for which the packets are copied as they are. A segment counts only with its record, which is renamed into place
last and holds the packets' hash. Every segment begins with a keyframe of a new encoder, at frame numbers that do not
depend on interruptions; so the result has the same bytes whether a job was interrupted or not.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain, islice, repeat
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error

from modules.commons.errors import OutputError
from modules.commons.hashing import file_sha256
from modules.structures.frames import Frame, VideoInfo
from modules.video.codecs import EncodeConfig, codec_for
from modules.video.open_segment import (
    FRAMES_PER_SEGMENT,
    CopiedSegment,
    EncodedSegment,
    Encoder,
    OpenSegment,
    SegmentPlan,
    check_frames,
)
from modules.video.packet_file import read_packets
from modules.video.passengers import Passengers
from modules.video.smart_copy import CopyPlan
from modules.video.sound import AudioTrack, SoundPlan
from modules.video.writer import SYNTHESISED, VideoWriter, check_frame

logger = logging.getLogger(__name__)

_VERSION = 1
_OURS = re.compile(r"(manifest\.json|joining\.txt|\d{6}\.(packets|json))(\.part)?")


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """What makes a segment finished.

    Attributes:
        pts: of its packets in decoding order, in the video's time base.
        delay: how many frames its decoding runs ahead of showing.
        sha256: of its packets.
        is_last: it was closed by the end of the video, so it may be short.
        state: what the caller stored with its last frame, base64.
        checks: of a copied segment, ``frame_check`` of every frame as the source was decoded; else empty.
    """

    pts: tuple[int, ...]
    delay: int
    sha256: str
    is_last: bool
    state: str | None
    checks: tuple[int, ...] = ()

    @classmethod
    def load(cls, path: Path) -> SegmentRecord:
        """Read a record.

        Raises:
            ValueError: when it is damaged.
            OSError: when there is none.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            numbers = {name: tuple(int(value) for value in values.get(name, ())) for name in ("pts", "checks")}
            record = cls(**{**values, **numbers})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is no segment's record") from error
        if not record.pts:
            raise ValueError(f"{path} records an empty segment")
        return record


class SegmentedWriter:
    """A ``VideoWriter`` that survives being killed; used as a context manager.

    On entering, finished segments of the same ``key`` are found; the caller goes on with frame ``finished_frames`` and
    may take up ``state``. When the block ends well the segments are joined under ``path`` and the folder is emptied; on
    an exception the finished segments stay. All that can fail at the end (sound, container, name) is tried on entering.

    Args:
        folder: of this video's segments alone; made when missing.
        path: of the result: mp4, m4v, mov or mkv.
        info: of the video.
        key: names everything the frames depend on; segments of another key are discarded.
        quality: of picture and sound.
        frames_per_segment: a kill costs at most so many.
        audio: the sound, as for ``VideoWriter``; it does not belong to the key, for it is made when joining.
        passengers: the source's other streams.
        comment: stored in the result.
        copies: what of the source goes into the result as it is; the result is then decoded and compared with what was
            written before it gets its name.

    Raises:
        OutputError: when ``path`` or ``folder`` cannot be written.
        AudioReadError: when the sound cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        path: Path,
        info: VideoInfo,
        *,
        key: str,
        quality: EncodeConfig | None = None,
        frames_per_segment: int = FRAMES_PER_SEGMENT,
        audio: AudioTrack | SoundPlan | Path | None = None,
        passengers: Passengers | None = None,
        comment: str = SYNTHESISED,
        copies: CopyPlan | None = None,
    ) -> None:
        self._plan = SegmentPlan(frames_per_segment, () if copies is None else copies.runs)
        self._folder, self._info, self._key, self._copies = Path(folder), info, key, copies
        quality = quality or EncodeConfig()
        self._final = VideoWriter(
            path, info, quality=quality, audio=audio, passengers=passengers, comment=comment, copies=copies,
            check=self._check_result,
        )  # fmt: skip
        self._suffix = Path(path).suffix.lower()
        self._codec = codec_for(info, self._suffix, quality) if copies is None else copies.codec
        self._open: OpenSegment | None = None
        self._n_segments = self._finished_frames = 0
        self._last_pts: int | None = None
        self._is_complete = False
        self._state: bytes | None = None
        self._last_state: bytes | None = None

    def __enter__(self) -> SegmentedWriter:
        self._final.check()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove_unfinished_output()
            manifest = self._manifest()
            if _loaded(self._folder / "manifest.json") == manifest:
                self._resume()
            self._remove_strays()
            _write_json(self._folder / "manifest.json", manifest)
        except (OSError, av.error.FFmpegError) as error:
            raise self._failure(error) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._drop_open_segment()
            return
        try:
            self._join()
            self.discard()
        finally:
            self._drop_open_segment()

    @property
    def finished_frames(self) -> int:
        """How many frames lie in finished segments; the next one to write has this index."""
        return self._finished_frames

    @property
    def state(self) -> bytes | None:
        """What was stored with the last finished segment."""
        return self._state

    def ends_segment(self, index: int) -> bool:
        """Whether frame ``index``, counted from the video's first one written, closes a segment."""
        return self._plan.ends_with(index)

    def write(self, frame: Frame, state: bytes | None = None) -> None:
        """Encode one frame; its ``pts`` must rise.

        Args:
            frame: of this video, the first one being number ``finished_frames``.
            state: what the caller needs to go on after this frame; kept only where ``ends_segment`` says so, and of
                the video's last frame.

        Raises:
            OutputError: when the disk or the encoder fails.
            ValueError: when the frame is not of this video, or the video had already ended.
        """
        check_frame(frame, self._info, self._last_pts)
        if self._is_complete:
            raise ValueError(f"{frame} comes after the end of a video of {self._finished_frames} frames")
        try:
            if self._open is None:
                self._open = self._opened()
            self._open.write(frame)
            self._last_pts, self._last_state = frame.pts, state
            if self._finished_frames + self._open.n_frames == self._plan.stop_of(self._finished_frames):
                self._close_segment(state, is_last=False)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failure(error) from error

    def _opened(self) -> OpenSegment:
        packets = self._file(self._n_segments, "packets.part")
        run = self._plan.run_from(self._finished_frames)
        if run is not None and self._copies is not None:
            return CopiedSegment(packets, self._copies, run)
        encoder = Encoder(self._folder, self._info, self._codec, self._suffix)
        return EncodedSegment(packets, self._info, encoder, self._copies is not None and self._copies.repeats_sets)

    def discard(self) -> None:
        """Remove all segments, and the folder when nothing else is in it."""
        self._drop_open_segment()
        self._n_segments = 0
        self._remove_strays()
        if not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _join(self) -> None:
        """Close the last segment and copy all packets into the result."""
        try:
            if self._open is not None:
                self._close_segment(self._last_state, is_last=True)
            marker = self._folder / "joining.txt"
            marker.write_text(str(self._final.temporary.absolute()), encoding="utf-8")
            with self._final as final:
                for packet in self._timed_packets():
                    final.copy(packet)
        except OSError as error:
            raise self._failure(error) from error

    def _timed_packets(self) -> Iterator[av.Packet]:
        """All packets in decoding order; encoders that knew nothing of each other get one row of decoding times."""
        delay = max((record.delay for record in self._records()), default=0)
        shown = chain.from_iterable(sorted(record.pts) for record in self._records())
        step = max(round(1 / (self._info.frame_rate * self._info.time_base)), 1)
        times = decoding_times(shown, delay, step)
        for number in range(self._n_segments):
            for packet in read_packets(self._file(number, "packets")):
                packet.dts = next(times)
                yield packet

    def _check_result(self, result: Path) -> None:
        """See that a result with copied parts decodes to what was written, before it gets its name."""
        if self._copies is None:
            return
        written = (
            pair
            for record in self._records()
            for pair in zip(sorted(record.pts), record.checks or repeat(None), strict=False)
        )
        check_frames(result, written, self._info.time_base)

    def _records(self) -> Iterator[SegmentRecord]:
        for number in range(self._n_segments):
            yield SegmentRecord.load(self._file(number, "json"))

    def _resume(self) -> None:
        """Count the segments that are whole, from the first on."""
        while not self._is_complete and (record := self._whole_record(self._n_segments)) is not None:
            self._count(record)
        if self._n_segments:
            logger.info("%s: goes on after %d finished frames", self._folder, self._finished_frames)

    def _whole_record(self, number: int) -> SegmentRecord | None:
        """The record of a finished segment; None when there is none or its packets are not what was written."""
        try:
            record = SegmentRecord.load(self._file(number, "json"))
            is_whole = file_sha256(self._file(number, "packets")) == record.sha256
        except (OSError, ValueError):
            return None
        is_full = record.is_last or self._finished_frames + len(record.pts) == self._plan.stop_of(self._finished_frames)
        return record if is_whole and is_full else None

    def _count(self, record: SegmentRecord) -> None:
        self._n_segments += 1
        self._finished_frames += len(record.pts)
        self._last_pts = max(record.pts)
        self._is_complete = record.is_last
        self._state = None if record.state is None else base64.b64decode(record.state)

    def _close_segment(self, state: bytes | None, *, is_last: bool) -> None:
        """Flush the encoder and make the segment count: first the packets get their name, then the record."""
        assert self._open is not None
        written, checks = self._open.finish(), self._open.checks
        self._open = None
        number = self._n_segments
        self._file(number, "packets.part").replace(self._file(number, "packets"))
        kept = None if state is None else base64.b64encode(state).decode()
        record = SegmentRecord(written.pts, written.delay, written.sha256, is_last, kept, tuple(checks))
        _write_json(self._file(number, "json"), asdict(record))
        self._count(record)

    def _manifest(self) -> dict[str, Any]:
        """Everything that finished segments depend on, the headers that decoders need among it."""
        encoder = Encoder(self._folder, self._info, self._codec, self._suffix)
        headers = encoder.headers()
        encoder.close()
        copies = {} if self._copies is None else {"copies": [asdict(run) for run in self._copies.runs]}
        return {
            **copies,
            "version": _VERSION,
            "key": self._key,
            "suffix": self._suffix,
            "frames_per_segment": self._plan.per_segment,
            "codec": {"name": self._codec.name, "options": dict(self._codec.options), "tag": self._codec.tag},
            "info": repr(replace(self._info, path=Path())),
            "libraries": {name: list(numbers) for name, numbers in sorted(av.library_versions.items())},
            "headers": base64.b64encode(headers).decode(),
        }

    def _remove_unfinished_output(self) -> None:
        """A kill while joining leaves the half-written result under its temporary name."""
        marker = self._folder / "joining.txt"
        if marker.is_file():
            left = Path(marker.read_text(encoding="utf-8"))
            if left.name.startswith(".") and ".part" in left.name:
                left.unlink(missing_ok=True)

    def _remove_strays(self) -> None:
        """Remove everything of ours that belongs to no finished segment."""
        finished = {self._file(n, kind).name for n in range(self._n_segments) for kind in ("packets", "json")}
        for file in list(self._folder.iterdir()):
            if _OURS.fullmatch(file.name) and file.name not in finished:
                file.unlink()

    def _drop_open_segment(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
            self._file(self._n_segments, "packets.part").unlink(missing_ok=True)

    def _file(self, number: int, kind: str) -> Path:
        return self._folder / f"{number:06d}.{kind}"

    def _failure(self, error: Exception) -> OutputError:
        reason = getattr(error, "strerror", None) or error
        return OutputError(f"cannot write segments into {self._folder} ({reason}); check disk and folder")


def decoding_times(shown: Iterable[int], delay: int, step: int) -> Iterator[int]:
    """When each packet is decoded, in decoding order.

    Args:
        shown: rising presentation times.
        delay: how many frames decoding runs ahead: packet n is decoded when frame n - delay is shown.
        step: a frame's length, for videos shorter than the delay.

    Yields:
        As many rising times as there are frames, and ``delay`` more; the first ``delay`` lie before the first frame.
    """
    times = iter(shown)
    head = list(islice(times, delay + 1))
    ahead = head[-1] - head[0] + (0 if len(head) > delay else step) if head else 0
    yield from (time - ahead for time in head[:delay])
    yield from chain(head, times)


def _loaded(path: Path) -> object:
    """What a JSON file holds, None when it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write under another name first: a file that can be seen is whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(values), encoding="utf-8")
    part.replace(path)
