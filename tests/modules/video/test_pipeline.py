"""Pipeline: order kept, memory bounded, every failure surfaces in the caller's thread, nothing hangs."""

import threading
import time

import pytest

from modules.video.pipeline import QUEUE_DEPTH, decoding, encoding, run_pipeline


class Broken(Exception):
    pass


@pytest.fixture(autouse=True)
def no_hang_and_no_thread_left():
    """Runs each test against a deadline and counts threads after it."""
    before = threading.active_count()
    done = threading.Event()
    stuck = []

    def watch():
        if not done.wait(10):
            stuck.append(True)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield
    done.set()
    watcher.join()
    assert not stuck, "took longer than 10 s"
    assert threading.active_count() == before


class CountingReader:
    """Counts items that are decoded and not yet written: what the pipeline holds in memory."""

    def __init__(self, length, fail_at=None):
        self.length, self.fail_at = length, fail_at
        self.alive = self.most = self.produced = 0
        self.closed = False
        self.lock = threading.Lock()

    def frames(self):
        try:
            for i in range(self.length):
                if i == self.fail_at:
                    raise Broken(f"decoder at {i}")
                with self.lock:
                    self.alive += 1
                    self.produced += 1
                    self.most = max(self.most, self.alive)
                yield i
        finally:
            self.closed = True

    def write(self, _item):
        """Counts an item as written: this fake is its own writer."""
        with self.lock:
            self.alive -= 1


class Writer:
    """Calls a function for each item."""

    def __init__(self, write=lambda item: None):
        self.write = write


class Listed:
    """A source of given items."""

    def __init__(self, items):
        self.frames = lambda: iter(items)


def same(item):
    return item


@pytest.mark.parametrize("slow", ["decode", "process", "encode"])
def test_order_is_kept_and_memory_is_bounded(slow):
    reader, written = CountingReader(60), []

    def wait(stage):
        if stage == slow:
            time.sleep(0.001)

    def slowly():
        for item in CountingReader.frames(reader):
            wait("decode")
            yield item

    reader.frames = slowly

    def process(item):
        wait("process")
        return item

    def write(item):
        wait("encode")
        written.append(item)
        reader.write(item)

    assert run_pipeline(reader, process, Writer(write)) == 60
    assert written == list(range(60))
    # two queues, one item in the decoder's hand, one being processed, one being written
    assert reader.most <= 2 * QUEUE_DEPTH + 3


def test_a_long_stream_needs_no_more_than_a_short_one():
    peaks = []
    for length in (20, 2000):
        reader = CountingReader(length)
        run_pipeline(reader, same, reader)
        peaks.append(reader.most)
    assert peaks[1] <= 2 * QUEUE_DEPTH + 3


@pytest.mark.parametrize("fail_at", [0, 1, 17])
def test_a_failing_decoder_raises_after_what_it_gave_was_handed_on(fail_at):
    reader, written = CountingReader(50, fail_at), []
    with pytest.raises(Broken, match=f"decoder at {fail_at}"):
        run_pipeline(reader, same, Writer(written.append))
    assert reader.closed
    assert written == list(range(len(written))) and len(written) <= fail_at


@pytest.mark.parametrize("fail_at", [0, 1, 17])
def test_a_failing_processor_stops_both_workers(fail_at):
    reader = CountingReader(10_000)

    def process(item):
        if item == fail_at:
            raise Broken("processor")
        return item

    with pytest.raises(Broken, match="processor"):
        run_pipeline(reader, process, Writer())
    assert reader.closed and reader.produced <= fail_at + QUEUE_DEPTH + 2


@pytest.mark.parametrize("fail_at", [0, 1, 17])
def test_a_failing_encoder_raises_in_the_caller_and_stops_the_decoder(fail_at):
    reader, caller = CountingReader(10_000), threading.get_ident()
    threads = set()

    def write(item):
        threads.add(threading.get_ident())
        if item == fail_at:
            raise Broken("encoder")

    with pytest.raises(Broken, match="encoder"):
        run_pipeline(reader, same, Writer(write))
    assert caller not in threads
    assert reader.closed and reader.produced <= fail_at + 2 * QUEUE_DEPTH + 4


def test_an_encoder_that_fails_on_the_last_item_is_not_missed():
    def write(item):
        time.sleep(0.01)
        if item == 4:
            raise Broken("last")

    with pytest.raises(Broken, match="last"), encoding(Writer(write)) as sink:
        for item in range(5):
            sink.put(item)


def test_leaving_early_closes_the_source():
    reader = CountingReader(10_000)
    with decoding(reader, depth=2) as items:
        assert next(items) == 0
    assert reader.closed and reader.produced <= 4


def test_an_interrupt_in_the_caller_ends_both_workers():
    reader = CountingReader(10_000)

    def process(item):
        if item == 3:
            raise KeyboardInterrupt
        return item

    with pytest.raises(KeyboardInterrupt):
        run_pipeline(reader, process, Writer())
    assert reader.closed


def test_a_source_that_fails_before_its_first_item_raises_instead_of_hanging():
    reader = CountingReader(3)
    reader.frames = lambda: (_ for _ in ()).throw(Broken("open"))
    with pytest.raises(Broken, match="open"), decoding(reader) as items:
        next(items)
    with pytest.raises(AttributeError, match="frames"), decoding(5) as items:
        next(items)


def test_an_empty_stream_writes_nothing_and_a_depth_of_zero_is_refused():
    assert run_pipeline(Listed([]), same, Writer()) == 0
    with pytest.raises(ValueError, match="depth 0"), decoding(Listed([1]), depth=0):
        pass
