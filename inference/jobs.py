"""What the commands are asked to do: options as frozen dataclasses, checked before any work starts."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from inference.face_compositor import BlendMode
from modules.commons.device import DeviceName
from modules.commons.errors import AudioReadError, CheckpointError, ConfigError, OutputError, VideoReadError
from modules.face_model.model import Region

BLEND_MODES = get_args(BlendMode)


@dataclass(frozen=True, slots=True)
class ArbitraryJob:
    """One lip-sync job on an arbitrary video.

    Attributes:
        src_video: the video to edit. drv_aud: sound or video file with the new speech. out_name: the result.
        a2m_ckpt: audio → motion checkpoint; None = the embedded one.
        head_ckpt: this person's checkpoint; None = found by content or trained on demand.
        region: what may be repainted. blend_mode: how it is put back.
        length: 'source' keeps the rest of a longer video untouched, 'shortest' ends with the shorter input.
        mouth_amp: 1.0 = natural size of the predicted motion. temperature: 0 = deterministic.
        lle_percent: share of the landmark condition pulled onto this person's own motion.
        preview: write only this frame, composited, as a PNG. save_masks: where the alpha goes, losslessly.
        config: preset for preparing and training a person (YAML below egs/).
        crf: x264 quality of the result. lossless: exact samples instead.
        debug: also write strips source | result | alpha.
    """

    src_video: Path
    drv_aud: Path
    out_name: Path
    a2m_ckpt: Path | None = None
    head_ckpt: Path | None = None
    region: Region = "lower_face"
    blend_mode: BlendMode = "alpha"
    length: Literal["source", "shortest"] = "source"
    mouth_amp: float = 1.0
    temperature: float = 0.0
    lle_percent: float = 0.2
    preview: int | None = None
    save_masks: Path | None = None
    config: Path | None = None
    device: DeviceName = "auto"
    crf: int = 14
    lossless: bool = False
    debug: bool = False

    def __post_init__(self) -> None:
        if not self.src_video.is_file():
            raise VideoReadError(f"{self.src_video}: there is no such video file; check --src_video")
        if not self.drv_aud.is_file():
            raise AudioReadError(f"{self.drv_aud}: there is no such sound file; check --drv_aud")
        for path in (self.a2m_ckpt, self.head_ckpt):
            if path is not None and not path.exists():
                raise CheckpointError(f"{path}: there is no such checkpoint; check the path or leave the flag out")
        if self.config is not None and not self.config.is_file():
            raise ConfigError(f"{self.config}: there is no such configuration file; presets lie in egs/egs_bases/")
        outputs = [p for p in (self.out_name, self.save_masks) if p is not None]
        for output in outputs:
            check_output(output, inputs=(self.src_video, self.drv_aud))
        if len({p.resolve() for p in outputs}) != len(outputs):
            raise OutputError(f"{self.save_masks}: --save_masks and --out_name name the same file")
        _check_range("--lle_percent", self.lle_percent, 0.0, 1.0)
        _check_range("--mouth_amp", self.mouth_amp, 0.0, 3.0)
        _check_range("--temperature", self.temperature, 0.0, 2.0)
        _check_range("--crf", self.crf, 0, 51)
        if self.preview is not None and self.preview < 0:
            raise ConfigError(f"--preview {self.preview}: frame numbers start at 0")

    @property
    def summary_path(self) -> Path:
        """Where the JSON record of the run goes."""
        return self.out_name.with_name(self.out_name.name + ".json")

    @property
    def preview_path(self) -> Path:
        return self.out_name.with_suffix(".png")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ArbitraryJob:
        """Build a job from ``{'src_video', 'audio', 'out_name', ...}`` (``audio`` is another name of ``drv_aud``).

        Raises:
            ConfigError: for a missing or unknown key.
        """
        values = dict(values)
        if "audio" in values:
            values["drv_aud"] = values.pop("audio")
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"unknown job key {unknown[0]!r}; known keys: {', '.join(cls.__dataclass_fields__)}")
        missing = [key for key in ("src_video", "drv_aud", "out_name") if not values.get(key)]
        if missing:
            raise ConfigError(f"the job lacks {missing[0]!r}; it needs src_video, audio and out_name")
        for key in ("src_video", "drv_aud", "out_name", "a2m_ckpt", "head_ckpt", "save_masks", "config"):
            if values.get(key) is not None:
                values[key] = Path(values[key])
        return cls(**values)


def check_output(output: Path, inputs: tuple[Path, ...]) -> None:
    """Refuse an output that is an input, a folder, or in a place that cannot be written.

    Raises:
        OutputError: with one sentence that names the path.
    """
    for path in inputs:
        if output.resolve() == path.resolve() or (output.exists() and os.path.samefile(output, path)):
            raise OutputError(f"{output}: the output is also an input; choose another --out_name")
    if output.is_dir():
        raise OutputError(f"{output}: the output is a folder; name a file such as {output / 'out.mp4'}")
    folder = output.resolve().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise OutputError(f"{output}: cannot write to {folder}; choose another --out_name")


def resolve_head_ckpt(head_ckpt: Path | None, torso_ckpt: Path | None) -> Path | None:
    """GeneFace++'s rule: a torso checkpoint holds the head too and wins when both are given."""
    return torso_ckpt if torso_ckpt is not None else head_ckpt


def _check_range(flag: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{flag} {value}: must lie between {low} and {high}")


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
    parser.add_argument("--a2m_ckpt", type=Path, default=None, help="audio → motion checkpoint (default: embedded)")
    parser.add_argument("--head_ckpt", type=Path, default=None, help="this person's checkpoint folder")
    parser.add_argument("--torso_ckpt", type=Path, default=None, help="as --head_ckpt; wins when both are given")
    parser.add_argument("--drv_aud", type=Path, required=True, help="new speech: any sound or video file")
    parser.add_argument("--blink_mode", choices=("source", "none"), default="source", help="eyes stay the actor's own")
    parser.add_argument("--lle_percent", type=float, default=0.2, help="pull towards the person's own motion, 0..1")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = deterministic")
    parser.add_argument("--mouth_amp", type=float, default=1.0, help="1 = natural size of the mouth motion")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--debug", action="store_true", help="also write strips source | result | alpha as PNG")
    parser.add_argument("--low_memory_usage", action="store_true", help="accepted; frames are always streamed")
