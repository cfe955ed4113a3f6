"""Fetch, on request, models and clips that cannot be shipped; says under which licence first.

    python tasks/download_models.py --list                 # what there is, and what is here of it
    python tasks/download_models.py hubert syncnet         # shows licences, asks, fetches, verifies
    python tasks/download_models.py hubert --accept_licence  # does not ask: for scripts
    python tasks/download_models.py geneface --check       # fetches nothing; reads what is here

Reads: checkpoints/downloads.json, checkpoints/downloads.lock.json. Writes: the files it lists, below checkpoints/ and
data/, and the lock. What broke off goes on where it stopped when the command is given again.
"""

from __future__ import annotations

import argparse
import difflib
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

if __name__ == "__main__":  # `python tasks/x.py` puts this file's folder first, not the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modules.commons.command import GOES_ON, exit_status
from modules.commons.download_fetch import Fetcher
from modules.commons.downloads import Downloads, DownloadSet, FileState, load_downloads, load_lock, state_of
from modules.commons.errors import ConfigError, ModelFileError
from modules.commons.progress import ConsoleProgress
from modules.commons.workspace import DOWNLOADS_LOCK, ROOT

log = logging.getLogger(__name__)

BFM_VERTICES = 35709
"""Of the mesh that GeneFace++'s checkpoints were trained with."""
_SAID: Mapping[FileState, str] = {
    "missing": "not here",
    "verified": "here, verified",
    "unknown": "here, not verified: put there by hand",
    "altered": "here, but ANOTHER CONTENT than it must have",
}


def read_bfm(root: Path) -> str:
    """What the BFM that the user put there is.

    Raises:
        ModelFileError: an array is missing, of another shape, or the mesh is another than GeneFace++'s.
    """
    from modules.face_model.bfm import BfmModel  # here and below: torch takes seconds that a list need not

    folder = root / "checkpoints" / "bfm2009"
    model = BfmModel.load(folder)
    if len(model.mean) != BFM_VERTICES:
        raise ModelFileError(
            f"{folder}: its mesh has {len(model.mean)} vertices, GeneFace++'s has {BFM_VERTICES}; take the files that "
            "GeneFace++ makes of BFM2009"
        )
    return f"{model.version}: {len(model.mean)} vertices, {int(model.matched.sum())} of 468 landmarks on the mesh"


def read_geneface(root: Path) -> str:
    """What GeneFace++'s files are; nothing in them is run.

    Raises:
        CheckpointError, ConfigError: one of them is not what its place says.
    """
    from modules.audio2motion.official import load_official
    from modules.radnerfs.official import load_portrait
    from modules.radnerfs.official_dataset import load_portrait_dataset

    checkpoints = root / "checkpoints"
    motion = load_official(checkpoints / "audio2motion_vae")
    kinds = [
        load_portrait(checkpoints / "motion2video_nerf" / name).portrait.kind for name in ("may_head", "may_torso")
    ]
    dataset = load_portrait_dataset(root / "data" / "binary" / "videos" / "May")
    return f"audio to motion after {motion.step} steps, portraits {' and '.join(kinds)}, May with {len(dataset)} frames"


_READERS: Mapping[str, Callable[[Path], str]] = {"bfm2009": read_bfm, "geneface": read_geneface}
"""Sets whose files nobody names a hash of are read as well, to see that they are what they should be."""


def chosen_sets(downloads: Downloads, names: Sequence[str]) -> list[DownloadSet]:
    """The sets that the command line names.

    Raises:
        ConfigError: there is none of that name.
    """
    known = {one.name: one for one in downloads.sets}
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise ConfigError(f"nothing called {name!r} can be fetched; {hint}")
    return [known[name] for name in names]


def describe(wanted: DownloadSet, root: Path, lock_file: Path) -> dict[str, FileState]:
    """Tell a set's licence and how its files stand.

    Returns:
        The state of each file, by path.
    """
    lock = load_lock(lock_file)
    log.info("%s: %s", wanted.name, wanted.about)
    log.info("    licence: %s (%s)", wanted.licence, wanted.terms)
    log.info("    from: %s", wanted.page)
    states: dict[str, FileState] = {}
    for file in wanted.files:
        states[file.path] = state_of(file, lock, root)
        size = f"{file.size / 1e6:.1f} MB" if file.size else file.about or "size unknown"
        log.info("    %s (%s): %s", file.folder if file.unpack else file.path, size, _SAID[states[file.path]])
    return states


def check(wanted: DownloadSet, root: Path, lock_file: Path) -> None:
    """Say how a set stands, and read it where it can be read.

    Raises:
        ModelFileError: a file is missing or altered.
        GeneFaceError: one of them is something else.
    """
    states = describe(wanted, root, lock_file)
    wrong = [path for path, state in states.items() if state in ("missing", "altered")]
    if wrong:
        remedy = (
            f"get it from {wanted.page} and put it there"
            if wanted.by_hand
            else f"fetch it with: bash scripts/download_models.sh {wanted.name}"
        )
        raise ModelFileError(f"{', '.join(wrong)}: {_SAID[states[wrong[0]]]}; {remedy}")
    if wanted.name in _READERS:
        log.info("    read: %s", _READERS[wanted.name](root))


def accept_licence(wanted: DownloadSet, given: bool, answer: Callable[[str], str] | None) -> None:
    """Go on only when the user takes the licence that was just shown.

    Args:
        wanted: what is to be fetched.
        given: the command line says so.
        answer: asks the user; None where nobody can be asked.

    Raises:
        ConfigError: not accepted.
    """
    if given:
        return
    if answer is None:
        raise ConfigError(f"{wanted.name}: nobody can be asked here; read its licence above and add --accept_licence")
    if answer(f"Fetch {wanted.name} under this licence? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError(f"{wanted.name}: its licence was not accepted, so nothing was fetched")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Fetch models that cannot be shipped, or say what there is (without a name).", allow_abbrev=False
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch; --list shows the names")
    parser.add_argument("--list", action="store_true", help="show what there is and what is here of it, fetch nothing")
    parser.add_argument("--check", action="store_true", help="verify and read what is here, fetch nothing")
    parser.add_argument("--accept_licence", action="store_true", help="do not ask: the licences shown are accepted")
    return parser.parse_args(argv)


def run(arguments: argparse.Namespace, root: Path = ROOT, lock_file: Path = DOWNLOADS_LOCK) -> None:
    """Do what the command line asks.

    Raises:
        GeneFaceError: a set cannot be had, or is not what it should be.
    """
    downloads = load_downloads()
    chosen = chosen_sets(downloads, arguments.names)
    if arguments.list or not chosen:
        for one in chosen or downloads.sets:
            describe(one, root, lock_file)
        return
    answer = input if sys.stdin.isatty() else None
    fetcher = Fetcher(root, lock_file, ConsoleProgress())
    for one in chosen:
        if not arguments.check and not one.by_hand:
            states = describe(one, root, lock_file)
            if any(state != "verified" for state in states.values()):
                accept_licence(one, arguments.accept_licence, answer)
                fetcher.fetch(one)
        check(one, root, lock_file)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line entry; returns the exit status."""
    arguments = parse_arguments(argv)
    return exit_status(lambda: run(arguments), GOES_ON)


if __name__ == "__main__":
    raise SystemExit(main())
