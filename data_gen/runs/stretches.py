"""Long work on a clip, several stretches of frames at a time; finished ones are kept for the run after a kill."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from data_gen.utils.process_video.part_store import PartStore, Savable
from modules.commons.progress import Progress
from modules.structures.frames import Frame

STRETCHES_BYTES = 1 << 30
"""Most that the frames of the stretches' decoders may take together."""
DECODER_FRAMES = 12
"""Frames that a decoder and the queue behind it hold, besides one in each of its threads."""
BYTES_PER_PIXEL = 3
"""Of a frame: planes of ten bits, chroma halved both ways."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames ``first`` up to, not including, ``stop``, and a flag that is set when the work ends early."""

    first: int
    stop: int
    stopping: threading.Event

    def until_stopped(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass frames on until the work ends early.

        Raises:
            CancelledError: it does; half a stretch must not be kept.
        """
        for frame in frames:
            if self.stopping.is_set():
                raise CancelledError
            yield frame

    def with_margin(self, margin: int, count: int) -> tuple[int, int]:
        """The stretch with ``margin`` frames more on both sides, within a clip of ``count``."""
        return max(self.first - margin, 0), min(self.stop + margin, count)


def in_stretches(
    what: str,
    count: int,
    length: int,
    parts: PartStore,
    work: Callable[[Stretch], Savable],
    progress: Progress,
    *,
    at_once: Callable[[int], int],
) -> None:
    """Let ``work`` make the parts of all stretches of a clip that are not made yet.

    Args:
        what: how ``progress`` is told.
        count: frames of the clip.
        length: frames of a stretch.
        parts: keeps what is finished.
        work: makes the part of one stretch; called on threads.
        progress: told about frames.
        at_once: stretches to work on at a time, of so many that are missing.
    """
    starts = range(0, count, length)
    missing = [start for start in starts if not parts.has(start)]
    done = sum(min(length, count - start) for start in starts if start not in missing)
    stopping = threading.Event()

    def make(start: int) -> None:
        parts.save(start, work(Stretch(start, min(start + length, count), stopping)))

    # most of the time goes to networks, OpenCV and decoding, which let other threads run
    with ThreadPoolExecutor(at_once(len(missing))) as pool:
        jobs = {pool.submit(make, start): start for start in missing}
        try:
            for job in as_completed(jobs):
                job.result()
                done += min(length, count - jobs[job])
                progress(what, done, count)
        except BaseException:
            stopping.set()
            pool.shutdown(cancel_futures=True)
            raise


def stretches_at_once(count: int, size_hw: tuple[int, int], cores: int, most: int) -> int:
    """How many of ``count`` stretches to look through at a time, at most ``most``.

    Large frames are held by each decoder's threads.
    """
    held = (cores + DECODER_FRAMES) * math.prod(size_hw) * BYTES_PER_PIXEL
    return max(1, min(count, most, cores, STRETCHES_BYTES // held))
