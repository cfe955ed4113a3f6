"""Logging and stage timing for the commands."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

logger = logging.getLogger(__name__)


class _TqdmHandler(logging.Handler):
    """Writes records above a running progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:  # noqa: BLE001 - logging's own contract: report, never raise into the caller
            self.handleError(record)


def configure_logging(verbosity: int = 0) -> None:
    """Send the project's log to stderr; call once, from a command's ``main``.

    Args:
        verbosity: -1 warnings only, 0 info, 1 debug.
    """
    level = logging.WARNING if verbosity < 0 else logging.DEBUG if verbosity > 0 else logging.INFO
    handler = _TqdmHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname).1s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, _TqdmHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder writes to stderr by itself: errors only


class StageTimer:
    """Seconds of wall time per named stage, in the order the stages began.

    Example:
        >>> timer = StageTimer()
        >>> with timer.stage("track"):
        ...     pass
        >>> list(timer.seconds)
        ['track']
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> dict[str, float]:
        """``{stage: seconds}``; a stage entered several times adds up."""
        return dict(self._seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body under ``name``, also when it raises."""
        self._seconds.setdefault(name, 0.0)
        logger.info("%s ...", name)
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self._seconds[name] += elapsed
            logger.info("%s: %.1f s", name, elapsed)
