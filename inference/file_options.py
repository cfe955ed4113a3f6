"""How the result is written: codec, encoder, copied parts, a visible mark, a picture beside the source's."""

from __future__ import annotations

import argparse
from collections.abc import MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from inference.output_checks import check_container, check_output
from modules.commons.errors import ConfigError, OutputError
from modules.video.encoders import CodecName, EncodeConfig, EncoderKind, check_hardware

CODECS = get_args(CodecName)
ENCODERS = get_args(EncoderKind)
DEFAULT_MARK = "Synthesised speech"


@dataclass(frozen=True, slots=True)
class FileOptions:
    """What the result's file is like.

    Attributes:
        codec: 'auto' keeps the source's format and depth: H.264, or what holds them; with ``smart_copy`` the source's
            own codec.
        encoder: 'hardware' only where it is asked for: for the same quality it needs more bits.
        smart_copy: parts without edits keep the source's packets, where its key frames allow it.
        watermark: a line of text that is shown small in a corner while a face is edited; None = none.
        compare: a second video, source | result, and beside it a strip of mouths as PNG.
    """

    codec: CodecName = "auto"
    encoder: EncoderKind = "software"
    smart_copy: bool = False
    watermark: str | None = None
    compare: Path | None = None

    def __post_init__(self) -> None:
        for flag, value, choices in (("--codec", self.codec, CODECS), ("--encoder", self.encoder, ENCODERS)):
            if value not in choices:
                raise ConfigError(f"{flag} {value!r}: choose one of {', '.join(choices)}")
        if self.smart_copy and self.encoder == "hardware":
            raise ConfigError(
                "--smart_copy needs --encoder software: a graphics card's pictures cannot lie beside the source's"
            )
        if self.watermark is not None and (not self.watermark.strip() or "\n" in self.watermark):
            raise ConfigError("--watermark shows one line of text; name it, or give the flag alone")

    @property
    def strip(self) -> Path | None:
        """Where the strip of mouths goes."""
        return None if self.compare is None else self.compare.with_name(self.compare.stem + "_mouth.png")

    def quality(self, crf: int, lossless: bool, threads: Literal["slices", "frames"]) -> EncodeConfig:
        """How the result is encoded."""
        return EncodeConfig(crf=crf, lossless=lossless, threads=threads, codec=self.codec, encoder=self.encoder)

    def check_outputs(self, inputs: tuple[Path, ...], others: tuple[Path, ...]) -> None:
        """Refuse a comparison that cannot be written.

        Args:
            inputs: what must not be overwritten.
            others: the job's other outputs.

        Raises:
            OutputError: with one sentence that names the path.
        """
        if self.compare is None:
            return
        check_output(self.compare, inputs, flag="--compare")
        check_container(self.compare)
        if self.compare.resolve() in {path.resolve() for path in others}:
            raise OutputError(f"{self.compare}: --compare names another output; choose another name")

    def check_encoder(self) -> None:
        """Find out now whether the graphics card encodes, where it was asked for.

        Raises:
            OutputError: it does not.
        """
        if self.encoder == "hardware":
            check_hardware(self.codec)

    @classmethod
    def taken_from(cls, given: MutableMapping[str, Any]) -> FileOptions:
        """The options among a job's keys, which are taken out of ``given``.

        Raises:
            ConfigError: one of them makes no sense.
        """
        values = {field.name: given.pop(field.name) for field in fields(cls) if field.name in given}
        if values.get("compare") is not None:
            values["compare"] = Path(values["compare"])
        return cls(**values)


def add_file_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags behind ``FileOptions``."""
    parser.add_argument("--codec", choices=CODECS, default="auto", help="auto keeps the source's format and depth")
    parser.add_argument(
        "--encoder", choices=ENCODERS, default="software", help="hardware = the graphics card's (faster, larger files)"
    )
    parser.add_argument(
        "--smart_copy", action="store_true", help="parts without edits keep the source's packets, bit by bit"
    )
    parser.add_argument(
        "--watermark", nargs="?", const=DEFAULT_MARK, metavar="TEXT",
        help=f"a small visible mark where a face is edited (default text: {DEFAULT_MARK!r})",
    )  # fmt: skip
    parser.add_argument(
        "--compare", type=Path, metavar="F", help="also write source | result side by side, and F_mouth.png"
    )
