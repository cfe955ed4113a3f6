"""Commands end with a status and, where something is wrong, one sentence."""

from __future__ import annotations

import pytest

from modules.commons.command import GOES_ON, NOTHING_WRITTEN, exit_status
from modules.commons.errors import ConfigError


def _raising(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(("given", "status"), [(None, 0), (0, 0), (1, 1)])
def test_what_work_returns_is_the_status(given, status, capsys):
    assert exit_status(lambda: given) == status
    assert capsys.readouterr().err == ""


def test_errors_a_user_can_act_on_are_one_line(capsys):
    assert exit_status(_raising(ConfigError("x.yaml:3: no key 'speed'; remove it"))) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].endswith("error: x.yaml:3: no key 'speed'; remove it")


@pytest.mark.parametrize("left", [GOES_ON, NOTHING_WRITTEN])
def test_an_interruption_says_what_it_left(left, capsys):
    assert exit_status(_raising(KeyboardInterrupt()), left) == 130
    assert capsys.readouterr().err.rstrip().endswith(f"interrupted; {left}")


def test_faults_of_ours_are_not_hidden():
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: 1 // 0)
