"""What the user may change about the mouth: adaptation, silence, style, blinks, and the person's own post-net."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from inference.audio_to_motion import SILENCE_MODES, SilenceMode
from inference.edit_plan import EditConfig
from modules.commons.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

AdaptMode = Literal["auto", "on", "off"]
StyleName = Literal["source", "neutral"]
BlinkMode = Literal["source", "none", "period"]
CHOICES: Mapping[str, tuple[str, ...]] = {
    "adapt": get_args(AdaptMode),
    "silence": SILENCE_MODES,
    "style": get_args(StyleName),
    "blink_mode": get_args(BlinkMode),
}


@dataclass(frozen=True, slots=True)
class MotionControls:
    """How predicted motion becomes this person's.

    Attributes:
        adapt: learn the person's way of speaking from the video's own sound: 'auto' where that helps on seconds left
            out, 'on' wherever there is speech, 'off' never.
        silence: 'fade': the mouth rests, and in a long pause in which the actor's own mouth rests too the picture
            fades back to the source; 'close': the mouth rests and stays painted; 'keep': it does what the model makes
            of the silence.
        style: 'source' keeps half of the smile the actor wears, 'neutral' none of it.
        blink_mode: 'source': the actor's own eyes; 'none': open ones; 'period': open ones with a blink every 4 s.
        postnet_ckpt: this person's post-net; None = none.
    """

    adapt: AdaptMode = "auto"
    silence: SilenceMode = "fade"
    style: StyleName = "source"
    blink_mode: BlinkMode = "source"
    postnet_ckpt: Path | None = None

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                raise ConfigError(f"--{name} {value!r}: choose one of {', '.join(choices)}")
        if self.postnet_ckpt is not None and not self.postnet_ckpt.exists():
            raise CheckpointError(
                f"{self.postnet_ckpt}: there is no such checkpoint; check --postnet_ckpt or leave it out"
            )

    @classmethod
    def taken_from(cls, given: MutableMapping[str, Any]) -> MotionControls:
        """The controls among a job's keys, which are taken out of ``given``.

        Raises:
            GeneFaceError: one of them makes no sense.
        """
        names = [field.name for field in fields(cls) if field.name in given]
        values = {name: given.pop(name) for name in names}
        if values.get("postnet_ckpt") is not None:
            values["postnet_ckpt"] = Path(values["postnet_ckpt"])
        return cls(**values)

    def warn_of_unseen_eyes(self, region: str) -> None:
        """Say so when eyes are asked for that nobody will see."""
        if self.blink_mode != "source" and region != "face":
            logger.warning("--blink_mode %s shows nowhere but in exports: eyes need --region face", self.blink_mode)

    def edit_config(self, fade_s: float) -> EditConfig:
        """How the plan treats pauses and smiles."""
        usual = EditConfig()
        return EditConfig(
            fade_s=fade_s,
            silence_s=usual.silence_s if self.silence == "fade" else float("inf"),
            keep_smile=usual.keep_smile if self.style == "source" else 0.0,
        )


def path_or_none(text: str) -> Path | None:
    """A path on the command line; '' means that the flag is left out, as in GeneFace++'s ``--head_ckpt=``."""
    return Path(text) if text else None


def add_control_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    usual = MotionControls()
    helps = {
        "adapt": "learn this person's way of speaking from the video's own sound (auto: where it measurably helps)",
        "silence": "fade: rest, and show the source in long pauses; close: rest; keep: what the model makes of it",
        "style": "source keeps half of the actor's own smile, neutral none of it",
        "blink_mode": "source: the actor's own eyes; none: open ones; period: with a blink every 4 s (--region face)",
    }
    for name, choices in CHOICES.items():
        parser.add_argument(f"--{name}", choices=choices, default=getattr(usual, name), help=helps[name])
    parser.add_argument("--postnet_ckpt", type=path_or_none, help="this person's post-net (default: none)")
