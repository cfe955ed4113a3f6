"""Progress: bars on a terminal, a line now and then elsewhere."""

import logging

from modules.commons import progress as module
from modules.commons.progress import ConsoleProgress, silent


def test_bars_end_with_their_work_or_with_the_next(capsys):
    progress = ConsoleProgress(shown=True)
    progress("track", 1, 3)
    progress("track", 3, 3)
    progress("fit", 1, 2)
    progress("render", 1, 0)
    progress.close()
    progress.close()
    drawn = capsys.readouterr().err
    assert "track: 100%" in drawn and "fit:" in drawn and "render: 1it" in drawn


def test_no_bar_where_stderr_is_no_terminal(capsys):
    progress = ConsoleProgress()
    progress("track", 1, 3)
    progress.close()
    silent("track", 1, 3)
    assert capsys.readouterr().err == ""


def test_a_log_tells_now_and_then(monkeypatch, caplog):
    clock = iter([0.0, 1.0, 31.0, 32.0, 62.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    progress = ConsoleProgress(shown=False)
    with caplog.at_level(logging.INFO):
        for done in (1, 2, 3):
            progress("track", done, 9)
        progress("mux", 4, 0)
    assert [record.getMessage() for record in caplog.records] == ["track: 2 of 9", "mux: 4 of an unknown number"]
