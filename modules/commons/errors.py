"""Errors a user can act on: each message names what was found, where, and what to do."""

from __future__ import annotations


class GeneFaceError(Exception):
    """Base of every error that ends a command with one clear sentence; raised with that sentence."""


class VideoReadError(GeneFaceError):
    """A video cannot be opened or decoded."""


class AudioReadError(GeneFaceError):
    """Sound cannot be read, or there is none."""


class OutputError(GeneFaceError):
    """The result cannot be written."""


class NoFaceError(GeneFaceError):
    """No usable face was found."""


class FitDivergedError(GeneFaceError):
    """The 3DMM fit did not converge to finite coefficients."""


class ConfigError(GeneFaceError):
    """A configuration key or value is wrong; the message holds file and line."""


class CheckpointError(GeneFaceError):
    """A checkpoint is missing, corrupt or belongs to something else."""


class BackendUnavailableError(GeneFaceError):
    """A backend that was named cannot run here."""


class ModelFileError(GeneFaceError):
    """A model file is missing or its hash is wrong; the message says which script fetches it."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line: torch lists every tensor that does not fit on a line of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines else type(error).__name__
