"""Bounded decode → process → encode: two worker threads, two short queues, errors re-raised in the caller's thread.

    with decoding(reader) as decoded, encoding(writer) as encoded:
        for frame in decoded:              # ends with the stream, or raises the decoder's error
            encoded.put(process(frame))    # raises at once when the encoder has died

Memory is the two queues plus one item in each worker, whatever the length of the video.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar

QUEUE_DEPTH = 4
"""Enough to hide the jitter of single frames; more only costs memory."""

T = TypeVar("T")
U = TypeVar("U")
Produced = TypeVar("Produced", covariant=True)
Consumed = TypeVar("Consumed", contravariant=True)


class Source(Protocol[Produced]):
    """What is decoded: a ``VideoReader``, or anything with its ``frames``."""

    def frames(self) -> Iterator[Produced]:
        """The items, in order."""
        ...


class Target(Protocol[Consumed]):
    """What is encoded into: a ``VideoWriter``, or anything with its ``write``."""

    def write(self, frame: Consumed, /) -> object:
        """Take one item."""
        ...


class Channel(Generic[T]):
    """A queue of at most ``depth`` items that either side can end; nobody waits for a side that is gone.

    ``finish`` means no more items: what is queued is still handed out, then the error is raised, if there is one.
    ``cancel`` drops everything and wakes both sides.
    """

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"a channel needs room for one item, got depth {depth}")
        self._depth = depth
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._finished = self._cancelled = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Wait for room and add ``item``; False when nobody will take it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._cancelled or len(self._items) < self._depth)
            if self._cancelled:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def finish(self, error: BaseException | None = None) -> None:
        """Say that no more items come."""
        with self._changed:
            self._finished, self._error = True, error
            self._changed.notify_all()

    def cancel(self) -> None:
        """Drop what is queued and wake both sides."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._cancelled or self._finished or bool(self._items))
                if not self._items:
                    if self._error is not None and not self._cancelled:
                        raise self._error
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item


class Sink(Generic[T]):
    """Where the caller puts items for a worker; the worker's error surfaces here."""

    def __init__(self, channel: Channel[T]) -> None:
        self._channel = channel
        self.error: BaseException | None = None

    def put(self, item: T) -> None:
        """Wait for room and hand ``item`` over.

        Raises:
            BaseException: what the worker died of.
        """
        if not self._channel.put(item) and self.error is not None:
            raise self.error


@contextmanager
def decoding(source: Source[T], depth: int = QUEUE_DEPTH) -> Generator[Iterator[T], None, None]:
    """Iterate ``source.frames()`` in a worker thread, at most ``depth`` ahead.

    The frames' iterator is closed in the worker, however the block ends. Its error is raised by the iterator handed
    out.
    """
    channel: Channel[T] = Channel(depth)

    def work() -> None:
        try:
            with _closed_after(source.frames()) as iterator:
                for item in iterator:
                    if not channel.put(item):
                        break
            channel.finish()
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            channel.finish(error)

    worker = threading.Thread(target=work, name="decode", daemon=True)
    worker.start()
    try:
        yield iter(channel)
    finally:
        channel.cancel()
        worker.join()


@contextmanager
def _closed_after(iterator: Iterator[T]) -> Generator[Iterator[T], None, None]:
    """Close a generator in the thread that runs it; other iterators have nothing to close."""
    try:
        yield iterator
    finally:
        close = getattr(iterator, "close", None)
        if close is not None:
            close()


@contextmanager
def encoding(target: Target[T], depth: int = QUEUE_DEPTH) -> Generator[Sink[T], None, None]:
    """Call ``target.write`` in a worker thread for each item put.

    Leaving the block waits until everything put is written, then raises the worker's error, if any. When the block
    itself fails, what is queued is dropped and its own error goes on.
    """
    channel: Channel[T] = Channel(depth)
    sink = Sink(channel)

    def work() -> None:
        try:
            for item in channel:
                target.write(item)
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            sink.error = error
            channel.cancel()

    worker = threading.Thread(target=work, name="encode", daemon=True)
    worker.start()
    try:
        yield sink
    except BaseException:
        channel.cancel()
        worker.join()
        raise
    channel.finish()
    worker.join()
    if sink.error is not None:
        raise sink.error


def run_pipeline(source: Source[T], process: Callable[[T], U], target: Target[U], depth: int = QUEUE_DEPTH) -> int:
    """Decode, process in the caller's thread, encode; returns the number of items written.

    Raises:
        BaseException: the first error of any of the three, in the caller's thread, after both workers have ended.
    """
    count = 0
    with decoding(source, depth) as decoded, encoding(target, depth) as encoded:
        for item in decoded:
            encoded.put(process(item))
            count += 1
    return count
