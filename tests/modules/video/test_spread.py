"""Work spread over several threads: order, bounded memory, errors in the caller's thread, and nothing left behind."""

import threading
import time

import pytest

from modules.video.spread import IN_FLIGHT, Relay, batched, spread


class Broken(Exception):
    """Breaks a worker or the source."""


@pytest.fixture(autouse=True)
def no_thread_left():
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive(), f"{thread.name} is still there"


class Squarer:
    """Squares numbers, at its own speed; notes what it does."""

    def __init__(self, delay_s=0.0, fail_start=None, fail_finish=None):
        self.delay_s, self.fail_start, self.fail_finish = delay_s, fail_start, fail_finish
        self.log = []
        self.was_cancelled = False

    def start(self, number, item):
        self.log.append(("start", number))
        if number == self.fail_start:
            raise Broken(f"start {number}")
        return number, item

    def finish(self, started):
        number, item = started
        time.sleep(self.delay_s)
        self.log.append(("finish", number))
        if number == self.fail_finish:
            raise Broken(f"finish {number}")
        return item * item

    def cancel(self, last):
        self.was_cancelled = True


@pytest.mark.parametrize("delays", [(0,), (0.002,), (0.004, 0), (0, 0.003, 0.001)])
def test_results_come_in_order_and_workers_take_turns(delays):
    workers = [Squarer(delay) for delay in delays]
    with spread(range(30), workers) as results:
        assert list(results) == [n * n for n in range(30)]
    for position, worker in enumerate(workers):
        assert {number for _, number in worker.log} == set(range(position, 30, len(delays)))


def test_a_worker_starts_an_item_before_it_finishes_the_one_before():
    worker = Squarer()
    with spread(range(4), [worker]) as results:
        assert list(results) == [0, 1, 4, 9]
    expected = [("start", 0), ("start", 1), ("finish", 0), ("start", 2), ("finish", 1), ("start", 3)]
    assert worker.log == [*expected, ("finish", 2), ("finish", 3)]


def test_the_source_runs_ahead_by_a_bounded_number():
    taken = []

    def source():
        for number in range(200):
            taken.append(number)
            yield number

    workers = [Squarer(), Squarer()]
    with spread(source(), workers) as results:
        for number, _ in enumerate(results):
            time.sleep(0.001)
            # started, waiting and made of each worker, what each holds, and the one that is dealt out
            assert len(taken) <= number + 2 + len(workers) * (IN_FLIGHT + 3)


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@pytest.mark.parametrize("where", ["fail_start", "fail_finish"])
def test_a_failing_worker_raises_after_what_was_made_before(where, n_workers):
    failing = 7 % n_workers
    workers = [Squarer(**({where: 7} if position == failing else {})) for position in range(n_workers)]
    seen = []
    with pytest.raises(Broken, match="7"), spread(range(50), workers) as results:
        for result in results:
            seen.append(result)
    assert seen == [n * n for n in range(7)]
    assert all(worker.was_cancelled for worker in workers)


@pytest.mark.parametrize("n_workers", [1, 2, 3])
@pytest.mark.parametrize("fail_at", [0, 1, 8])
def test_a_failing_source_raises_after_what_it_gave_was_worked_on(n_workers, fail_at):
    def source():
        yield from range(fail_at)
        raise Broken("source")

    seen = []
    with pytest.raises(Broken, match="source"), spread(source(), [Squarer() for _ in range(n_workers)]) as results:
        for result in results:
            seen.append(result)
    assert seen == [n * n for n in range(fail_at)]


def test_leaving_early_ends_every_thread():
    workers = [Squarer(), Squarer()]
    with spread(iter(range(10**9)), workers) as results:
        assert next(results) == 0
    assert all(worker.was_cancelled for worker in workers)


def test_an_empty_stream_gives_nothing_and_no_worker_is_refused():
    with spread([], [Squarer(), Squarer()]) as results:
        assert list(results) == []
    with pytest.raises(ValueError, match="worker"), spread([1], []):
        pass


class Chained:
    """Adds to a sum that goes from item to item."""

    def __init__(self, relay, delay_s=0.0, fail_at=None):
        self.relay, self.delay_s, self.fail_at = relay, delay_s, fail_at

    def start(self, number, item):
        time.sleep(self.delay_s)
        if number == self.fail_at:
            raise Broken(str(number))
        total = self.relay.take(number) + item
        self.relay.give(number, total)
        return total

    def finish(self, started):
        return started

    def cancel(self, last):
        self.relay.cancel(last)


@pytest.mark.parametrize("delays", [(0,), (0.002, 0), (0, 0.002, 0.001)])
def test_a_relay_hands_on_in_order(delays):
    relay = Relay(100)
    with spread([1] * 20, [Chained(relay, delay) for delay in delays]) as results:
        assert list(results) == list(range(101, 121))


@pytest.mark.parametrize("delays", [(0, 0, 0), (0.03, 0.03, 0), (0, 0.03, 0)])
def test_who_waits_for_a_worker_that_failed_is_woken_and_what_came_before_is_done(delays):
    relay, seen = Relay(0), []
    workers = [Chained(relay, delay, fail_at=5) for delay in delays]
    with pytest.raises(Broken, match="5"), spread([1] * 20, workers) as results:
        for result in results:
            seen.append(result)
    assert seen == [1, 2, 3, 4, 5]
    with pytest.raises(RuntimeError, match="cancelled"):
        relay.take(6)


def test_a_failing_source_lets_relayed_work_before_it_be_done():
    def source():
        yield from [1] * 8
        raise Broken

    relay, seen = Relay(0), []
    with pytest.raises(Broken), spread(source(), [Chained(relay), Chained(relay, 0.02)]) as results:
        for result in results:
            seen.append(result)
    assert seen == list(range(1, 9))


def test_batches_do_not_depend_on_where_a_stream_was_taken_up():
    whole = list(batched(range(21), int, 8))
    assert [len(batch) for batch in whole] == [8, 8, 5]
    assert list(batched(range(8, 21), int, 8)) == whole[1:]
    assert list(batched(range(5, 10), int, 8)) == [[5, 6, 7], [8, 9]]
    assert list(batched([], int, 8)) == []
