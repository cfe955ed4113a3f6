"""The command line: a parser that complains in one sentence, and the flags that both commands understand."""

from __future__ import annotations

import argparse
from typing import NoReturn

from inference.controls import add_control_arguments, path_or_none
from inference.jobs import END_THRESHOLD, FAST_END_THRESHOLD
from modules.commons.errors import ConfigError


class CommandParser(argparse.ArgumentParser):
    """An argument parser that fails with one sentence instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Turn argparse's complaint into ours.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{message}; --help lists every flag")


def add_shared_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags in GeneFace++'s spelling that both commands understand."""
    parser.add_argument("--a2m_ckpt", type=path_or_none, help="audio → motion checkpoint (default: embedded)")
    parser.add_argument("--head_ckpt", type=path_or_none, help="this person's checkpoint folder")
    parser.add_argument("--torso_ckpt", type=path_or_none, help="as --head_ckpt, and wins; a portrait is shown whole")
    add_control_arguments(parser)
    parser.add_argument("--lle_percent", type=float, default=0.2, help="pull towards the person's own motion, 0..1")
    parser.add_argument("--temperature", type=float, default=0.0, help="variety between takes; 0 = none")
    parser.add_argument("--seed", type=int, default=0, help="another take, when --temperature is above 0")
    parser.add_argument("--mouth_amp", type=float, default=1.0, help="1 = this person's natural range")
    parser.add_argument("--raymarching_end_threshold", type=float, default=END_THRESHOLD, help="where rays end")
    parser.add_argument("--fast", action="store_true", help=f"--raymarching_end_threshold {FAST_END_THRESHOLD}")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--debug", action="store_true", help="also write strips source | result | alpha as PNG")
    parser.add_argument("--low_memory_usage", action="store_true", help="accepted; frames are always streamed")
