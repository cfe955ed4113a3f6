"""How long work tells how far it is: one callable, with a console bar as the usual listener."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable

from tqdm import tqdm

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``; ``total`` 0 means unknown; ``done == total > 0`` ends that work."""

_LOG_INTERVAL_S = 30.0


class ConsoleProgress:
    """One tqdm bar per piece of work, on stderr; ends a bar when the work is done or another begins.

    Where stderr is no terminal a bar would fill the log with half-drawn lines, so a line now and then stands there.
    """

    def __init__(self, shown: bool | None = None) -> None:
        """Listen.

        Args:
            shown: True or False decides whether bars are drawn; None draws them on a terminal only.
        """
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: tqdm | None = None
        self._what = ""
        self._said_s = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self._shown:
            self._log_now_and_then(what, done, total)
            return
        if self._bar is None or what != self._what:
            self.close()
            self._bar = tqdm(total=total or None, desc=what, file=sys.stderr, mininterval=0.5)
            self._what = what
        self._bar.update(done - self._bar.n)
        if total and done >= total:
            self.close()

    def close(self) -> None:
        """End the current bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _log_now_and_then(self, what: str, done: int, total: int) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= _LOG_INTERVAL_S:
            self._said_s = now_s
            logger.info("%s: %d of %s", what, done, total or "an unknown number")


def silent(what: str, done: int, total: int) -> None:
    """A listener that says nothing."""
