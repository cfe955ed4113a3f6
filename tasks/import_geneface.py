"""Move in from GeneFace++: its checkpoints and datasets as this project's, nothing in them run.

    python tasks/import_geneface.py checkpoints/motion2video_nerf/may_torso --out checkpoints/may_torso
    python tasks/import_geneface.py checkpoints/audio2motion_vae --out checkpoints/a2m_geneface
    python tasks/import_geneface.py data/binary/videos/May --out data/binary/videos/May
    python tasks/import_geneface.py GeneFacePlusPlus/checkpoints --out checkpoints/geneface     # all that lies below

Reads: ``model_ckpt_steps_*.ckpt`` with ``config.yaml``, ``trainval_dataset.npy``.
Writes: a checkpoint folder (``model.safetensors``, ``config.yaml``, ``checkpoint.json``), ``portrait_dataset.npz``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # `python tasks/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modules.audio2motion.official import motion_of_state, save_official
from modules.commons.command import exit_status
from modules.commons.errors import CheckpointError, OutputError
from modules.commons.official_checkpoint import (
    CONFIG_NAME,
    is_official,
    newest_checkpoint,
    read_official_hparams,
    read_official_state,
)
from modules.commons.workspace import PORTRAIT_DATASET
from modules.radnerfs.official import portrait_of_state, save_portrait
from modules.radnerfs.official_dataset import DATASET_NAME, is_official_dataset, read_official_dataset

log = logging.getLogger(__name__)

_MOTION_KEY, _PORTRAIT_KEY = "vae.decoder.out_proj.weight", "sigma_net.net.0.weight"
"""A tensor that only networks of one kind have."""


@dataclass(frozen=True, slots=True)
class Source:
    """Something of GeneFace++'s, and the folder that it is imported into."""

    path: Path
    out: Path

    def run(self) -> Path:
        """Import it; returns what was written.

        Raises:
            GeneFaceError: it cannot be read, is something else, or cannot be written.
        """
        if is_official_dataset(self.path):
            return import_dataset(self.path / DATASET_NAME if self.path.is_dir() else self.path, self.out)
        return import_checkpoint(self.path, self.out)


def sources_below(path: Path, out: Path) -> list[Source]:
    """What a path names: itself, or everything of GeneFace++'s that lies below it.

    Raises:
        CheckpointError: there is nothing of GeneFace++'s.
    """
    own = [Source(path, out)] if path.is_file() or is_official(path) else []
    if path.is_dir() and (path / DATASET_NAME).is_file():
        own.append(Source(path / DATASET_NAME, out))
    if own or not path.is_dir():
        return own or [Source(path, out)]
    folders = sorted({file.parent for file in path.rglob("model_ckpt_steps_*.ckpt")})
    files = sorted(path.rglob(DATASET_NAME))
    found = [Source(folder, out / folder.relative_to(path)) for folder in folders]
    found += [Source(file, out / file.parent.relative_to(path)) for file in files]
    if not found:
        raise CheckpointError(
            f"{path}: holds neither model_ckpt_steps_*.ckpt nor {DATASET_NAME}; give a folder of GeneFace++'s"
        )
    return found


def import_checkpoint(path: Path, out: Path) -> Path:
    """An audio → motion network or a renderer, as a checkpoint of this project in the folder ``out``.

    Args:
        path: folder of checkpoints (the newest is taken), or one of them; ``config.yaml`` beside it.
        out: the checkpoint; an older one there is replaced.

    Returns:
        ``out``.

    Raises:
        CheckpointError: missing, damaged, none of GeneFace++'s networks, or ``out`` holds GeneFace++'s own.
        ConfigError: its configuration is missing or wrong.
        OutputError: ``out`` cannot be written.
    """
    state = read_official_state(newest_checkpoint(path, "audio2motion_vae or motion2video_nerf/may_torso"))
    if out.exists() and (is_official(out) or out.resolve() == state.file.parent.resolve()):
        raise OutputError(
            f"{out}: holds GeneFace++'s own checkpoint, which an import would replace; give another --out"
        )
    config_file = state.file.with_name(CONFIG_NAME)
    if _MOTION_KEY in state.tensors:
        hparams = read_official_hparams(config_file) if config_file.is_file() else {}
        save_official(motion_of_state(state), out, hparams)
    elif _PORTRAIT_KEY in state.tensors:
        hparams = read_official_hparams(config_file)
        save_portrait(portrait_of_state(state, hparams), out, hparams)
    else:
        raise CheckpointError(
            f"{state.file}: is neither an audio-to-motion network nor a head or torso of GeneFace++ "
            f"(it begins with {next(iter(state.tensors))}); give one of these"
        )
    return out


def import_dataset(file: Path, out: Path) -> Path:
    """A dataset, as ``portrait_dataset.npz`` in the folder ``out``.

    Raises:
        CheckpointError: it cannot be read, or holds more than data.
        OutputError: ``out`` cannot be written.
    """
    dataset = read_official_dataset(file)
    written = out / PORTRAIT_DATASET
    try:
        out.mkdir(parents=True, exist_ok=True)
        dataset.save(written)
    except OSError as error:
        raise OutputError(f"{written}: cannot be written ({error.strerror or error})") from error
    return written


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Import GeneFace++'s checkpoints and datasets.", allow_abbrev=False)
    parser.add_argument("ckpt_dir", type=Path, help="a folder or file of GeneFace++'s, or a folder of such folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is imported")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = parse_arguments(argv)
    return exit_status(lambda: _import(arguments))


def _import(arguments: argparse.Namespace) -> None:
    for source in sources_below(arguments.ckpt_dir, arguments.out):
        log.info("%s -> %s", source.path, source.run())


if __name__ == "__main__":
    raise SystemExit(main())
