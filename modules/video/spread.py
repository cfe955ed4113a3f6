"""A stream of items worked on by several workers at once, each in a thread of its own, the results in order.

    with spread(batches, workers) as results:
        for result in results:        # ends with the batches, or raises what came first: their error or a worker's
            ...

A worker starts an item before it finishes the one before, so that a device is never without work. Memory is
``IN_FLIGHT`` items and two queued ones for each worker, whatever the length of the stream.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Generic, Protocol, TypeVar

from modules.video.pipeline import Channel

IN_FLIGHT = 2
"""Items a worker has started and not finished: one computed, one uploaded or on its way back."""

Item = TypeVar("Item")
Given = TypeVar("Given", contravariant=True)
Started = TypeVar("Started")
Made = TypeVar("Made", covariant=True)
T = TypeVar("T")


class Worker(Protocol[Given, Started, Made]):
    """Does the work; all but ``cancel`` is called in its own thread."""

    def start(self, number: int, item: Given, /) -> Started:
        """Begin item ``number`` of the stream."""
        ...

    def finish(self, started: Started, /) -> Made:
        """Wait for an item that was started."""
        ...

    def cancel(self, last: int, /) -> None:
        """Wake all workers that wait for another one before an item after ``last``; those items are thrown away."""
        ...


class Relay(Generic[Item]):
    """Hands one thing from the worker of item k to that of item k + 1.

    Args:
        first: what the worker of item 0 takes.
    """

    def __init__(self, first: Item) -> None:
        self._changed = threading.Condition()
        self._held: Item = first
        self._turn = 0
        self._last = math.inf

    def take(self, number: int) -> Item:
        """Wait until item ``number`` is at its turn.

        Raises:
            RuntimeError: its turn will not come.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._turn == number or number > self._last)
            if self._turn != number:
                raise RuntimeError(f"item {number} was cancelled: an earlier one failed")
            return self._held

    def give(self, number: int, held: Item) -> None:
        """Let item ``number + 1`` go on."""
        with self._changed:
            self._held, self._turn = held, number + 1
            self._changed.notify_all()

    def cancel(self, last: int) -> None:
        """Wake those who wait for the turn of an item after ``last``."""
        with self._changed:
            self._last = min(self._last, last)
            self._changed.notify_all()


def batched(items: Iterable[Item], index: Callable[[Item], int], size: int) -> Iterator[list[Item]]:
    """Neighbours whose ``index // size`` is the same: batches do not depend on where a stream was taken up."""
    for _, group in groupby(items, key=lambda item: index(item) // size):
        yield list(group)


@contextmanager
def spread(
    items: Iterable[Given], workers: Sequence[Worker[Given, Started, Made]]
) -> Generator[Iterator[Made], None, None]:
    """Give item k to worker k modulo their number and hand out what they make, in order.

    Args:
        items: taken in a thread of its own.
        workers: at least one.

    Raises:
        ValueError: there is no worker.
    """
    if not workers:
        raise ValueError("work needs at least one worker")
    crews = [_Crew(worker) for worker in workers]
    feeder = threading.Thread(target=_feed, args=(items, crews), name="feed", daemon=True)
    threads = [feeder, *(crew.thread for crew in crews)]
    for thread in threads:
        thread.start()
    try:
        yield _in_order(crews)
    finally:
        for crew in crews:
            crew.cancel()
        for thread in threads:
            thread.join()


class _Crew(Generic[Given, Started, Made]):
    """One worker with its thread and the two queues it stands between."""

    def __init__(self, worker: Worker[Given, Started, Made]) -> None:
        self._worker = worker
        self.waiting: Channel[tuple[int, Given]] = Channel(1)
        self.made: Channel[Made] = Channel(1)
        self.thread = threading.Thread(target=self._work, name="work", daemon=True)

    def cancel(self) -> None:
        """Let the thread end."""
        self.waiting.cancel()
        self.made.cancel()
        self._worker.cancel(-1)

    def _work(self) -> None:
        started: deque[tuple[int, Started]] = deque()
        failure: BaseException | None = None
        try:
            for number, item in self.waiting:
                started.append((number, self._tried(number, lambda: self._worker.start(number, item))))  # noqa: B023
                if len(started) == IN_FLIGHT and not self._hand_out(started):
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failure = error
        try:
            while started and self._hand_out(started):
                pass
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            failure = failure or error
        self.made.finish(failure)

    def _hand_out(self, started: deque[tuple[int, Started]]) -> bool:
        """Finish the oldest item; nothing comes after one that cannot be finished."""
        number, first = started.popleft()
        try:
            made = self._tried(number, lambda: self._worker.finish(first))
        except BaseException:
            started.clear()
            raise
        return self.made.put(made)

    def _tried(self, number: int, work: Callable[[], T]) -> T:
        """Do it; workers that wait for one that failed would never finish what comes before, so they are woken."""
        try:
            return work()
        except BaseException:
            self._worker.cancel(number)
            raise


def _feed(items: Iterable[Given], crews: Sequence[_Crew[Given, Started, Made]]) -> None:
    """Deal the items out in turn; their error reaches the worker who would have had the next one."""
    number, failure = 0, None
    try:
        for item in items:
            if not crews[number % len(crews)].waiting.put((number, item)):
                return
            number += 1
    except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
        failure = error
    for position, crew in enumerate(crews):
        crew.waiting.finish(failure if position == number % len(crews) else None)


def _in_order(crews: Sequence[_Crew[Given, Started, Made]]) -> Iterator[Made]:
    """What the workers made, in turn, until one has no more."""
    sources = [iter(crew.made) for crew in crews]
    number = 0
    while True:
        try:
            made = next(sources[number % len(sources)])
        except StopIteration:
            return
        yield made
        number += 1
