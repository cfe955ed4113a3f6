"""How every command ends: with a result, one sentence of what is wrong, or a word on what an interruption left."""

from __future__ import annotations

import logging
from collections.abc import Callable

from modules.commons.errors import GeneFaceError
from modules.commons.log import configure_logging

logger = logging.getLogger(__name__)

NOTHING_WRITTEN = "nothing was written"
GOES_ON = "what was finished is kept and the same command goes on from there"
"""What an interrupted command left."""


def exit_status(work: Callable[[], int | None], interrupted: str = NOTHING_WRITTEN) -> int:
    """Do a command's work with its log on stderr.

    Args:
        work: reads the arguments, works and logs the result; returns an exit status, None = 0.
        interrupted: said after Ctrl-C.

    Returns:
        That of ``work``; 1 after a ``GeneFaceError``, whose sentence is logged; 130 after Ctrl-C.
    """
    configure_logging()
    try:
        return work() or 0
    except GeneFaceError as error:
        logger.error("error: %s", error)
        return 1
    except KeyboardInterrupt:
        logger.error("interrupted; %s", interrupted)
        return 130
