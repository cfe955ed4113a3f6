"""How long work tells how far it is: one callable, with a console bar as the usual listener."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``; ``total`` 0 means unknown; ``done == total > 0`` ends that work."""


class ConsoleProgress:
    """One tqdm bar per piece of work, on stderr; ends a bar when the work is done or another begins."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._what = ""

    def __call__(self, what: str, done: int, total: int) -> None:
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


def silent(what: str, done: int, total: int) -> None:
    """A listener that says nothing."""
