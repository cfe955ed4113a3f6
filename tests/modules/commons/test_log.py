"""Logging goes to stderr once, stages are timed also when they fail."""

import logging
import time

import pytest

from modules.commons.log import StageTimer, configure_logging


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    root.handlers[:], root.level = handlers, level


def test_levels_and_no_doubling(root_logger, capsys):
    for _ in range(2):
        configure_logging(0)
    logging.getLogger("x").info("shown")
    logging.getLogger("x").debug("hidden")
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("shown") == 1 and "hidden" not in captured.err
    configure_logging(-1)
    logging.getLogger("x").info("quiet")
    assert capsys.readouterr().err == ""
    configure_logging(1)
    logging.getLogger("x").debug("debug")
    assert "D debug" in capsys.readouterr().err


def test_stage_timer_orders_sums_and_survives_errors():
    timer = StageTimer()
    with timer.stage("a"), timer.stage("b"):
        time.sleep(0.01)
    with pytest.raises(KeyError), timer.stage("c"):
        raise KeyError
    first = timer.seconds["a"]
    with timer.stage("a"):
        time.sleep(0.01)
    assert list(timer.seconds) == ["a", "b", "c"]
    assert timer.seconds["a"] >= first + 0.01 and timer.seconds["b"] >= 0.01 and timer.seconds["c"] >= 0


def test_seconds_is_a_copy():
    timer = StageTimer()
    timer.seconds["x"] = 1.0
    assert timer.seconds == {}
