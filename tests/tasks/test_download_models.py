"""`scripts/download_models.sh`: licence first, nothing unasked, and what is there is read."""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_gen.utils.mp_feature_extractors.multiclass_segmenter import MULTICLASS_FILE
from data_gen.utils.process_audio.features import HUBERT_DIR
from modules.audio2motion.speech_vae import SpeechVAEConfig, build_speech_vae
from modules.audio2motion.vae import FlowVAEConfig
from modules.commons.downloads import DownloadFile, Downloads, DownloadSet, load_downloads
from modules.commons.errors import CheckpointError, ConfigError, ModelFileError
from modules.commons.workspace import BFM2009_DIR, CHECKPOINTS, EGS, MEDIAPIPE_DIR, ROOT, VideoWorkspace
from modules.face_model.bfm import BFM_FILE, MEDIAPIPE_INDEX_FILE
from modules.radnerfs.official_dataset import DATASET_NAME
from tasks import download_models
from tasks.configs import load_any
from tasks.download_models import accept_licence, chosen_sets, main, parse_arguments, read_bfm, read_geneface, run
from tasks.radnerfs.perceptual import NETWORK_FILE
from tests.support.local_http import local_server
from tests.support.official_portraits import official_dataset, write_official, write_small_portrait
from tests.support.small_bfm import VERTICES, small_bfm_arrays, write_bfm

MOTION, NERF = "checkpoints/audio2motion_vae", "checkpoints/motion2video_nerf"
MAY = "data/binary/videos/May/trainval_dataset.npy"
CONTENT = b"\x80\x02weights"
NET = DownloadFile(
    "checkpoints/net/net.bin",
    "torch",
    ("https://models.invalid/net",),
    len(CONTENT),
    hashlib.sha256(CONTENT).hexdigest(),
)
SETS = Downloads(
    "downloads/1",
    (
        DownloadSet("net", "a net", "MIT", "do what you like", "https://page.invalid", (NET,)),
        DownloadSet(
            "bfm2009", "faces", "research", "sign for yourself", "https://basel.invalid",
            (
                DownloadFile("checkpoints/bfm2009/BFM_model_front.mat", "mat"),
                DownloadFile("checkpoints/bfm2009/index_mp468_from_mesh35709.npy", "npy"),
            ),
        ),
    ),
)  # fmt: skip


@pytest.fixture
def asked(monkeypatch, tmp_path, caplog):
    """Runs the command in an empty place; the network is a list of addresses asked for."""
    addresses: list[str] = []

    def fetch_part(transfer, progress, wait):
        addresses.append(transfer.url)
        transfer.part.parent.mkdir(parents=True, exist_ok=True)
        transfer.part.write_bytes(CONTENT)

    monkeypatch.setattr(download_models, "load_downloads", lambda: SETS)
    monkeypatch.setattr("modules.commons.download_fetch.fetch_part", fetch_part)
    caplog.set_level(logging.INFO)

    def call(*arguments: str) -> list[str]:
        caplog.clear()
        run(parse_arguments(arguments), tmp_path, tmp_path / "lock.json")
        return addresses

    return call


def test_nothing_is_fetched_unasked(asked, tmp_path, caplog):
    assert asked() == [] and asked("--list", "net") == [] and list(tmp_path.iterdir()) == []
    assert "licence: MIT (do what you like)" in caplog.text and "not here" in caplog.text and "bfm" not in caplog.text
    with pytest.raises(ModelFileError, match=r"not here; fetch it with: bash scripts/download_models\.sh net"):
        asked("net", "--check")
    assert asked("--list") == []


def test_the_licence_comes_first(asked, tmp_path, caplog):
    with pytest.raises(ConfigError, match=r"nobody can be asked here; .* add --accept_licence"):
        asked("net")
    assert "licence: MIT" in caplog.text and not (tmp_path / "checkpoints").exists()
    assert asked("net", "--accept_licence") == ["https://models.invalid/net"]
    assert "here, verified" in caplog.text
    assert asked("net") == ["https://models.invalid/net"], "what is there needs no second yes"


def test_only_yes_is_yes():
    one = SETS.sets[0]
    for answer in ("y", "YES", " yes "):
        accept_licence(one, False, lambda question, answer=answer: answer)
    for answer in ("", "n", "no", "yess"):
        with pytest.raises(ConfigError, match="was not accepted, so nothing was fetched"):
            accept_licence(one, False, lambda question, answer=answer: answer)


def test_unknown_names():
    with pytest.raises(ConfigError, match=r"did you mean net\?"):
        chosen_sets(SETS, ["nett"])
    with pytest.raises(ConfigError, match="there are net, bfm2009"):
        chosen_sets(SETS, ["xyzzy"])


def test_the_command_ends_with_one_sentence(monkeypatch, caplog):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert main(["nosuchthing"]) == 1
    assert "nothing called 'nosuchthing'" in caplog.records[-1].getMessage()

    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(download_models, "run", interrupted)
    assert main(["net"]) == 130


def test_bfm_is_only_checked(asked, tmp_path, caplog, monkeypatch):
    with pytest.raises(ModelFileError, match=r"not here; get it from https://basel\.invalid and put it there"):
        asked("bfm2009", "--accept_licence")
    arrays, index = small_bfm_arrays()
    write_bfm(tmp_path / "checkpoints" / "bfm2009", arrays, index)
    with pytest.raises(ModelFileError, match=f"its mesh has {VERTICES} vertices, GeneFace"):
        asked("bfm2009")
    monkeypatch.setattr(download_models, "BFM_VERTICES", VERTICES)
    assert asked("bfm2009") == []
    assert f"{VERTICES} vertices, 460 of 468 landmarks" in caplog.text and "put there by hand" in caplog.text
    del arrays["exBase"]
    write_bfm(tmp_path / "checkpoints" / "bfm2009", arrays, index)
    with pytest.raises(ModelFileError, match="has no 'exBase'"):
        read_bfm(tmp_path)


@pytest.fixture
def release(tmp_path) -> Path:
    """GeneFace++'s files as its users have them, with small networks; ``motion2video_nerf.zip`` beside them."""
    root = tmp_path / "release"
    sizes = FlowVAEConfig(hidden=8, latent=4, encoder_layers=1, decoder_layers=1, flow_hidden=8)
    network = build_speech_vae(SpeechVAEConfig(n_audio=8, n_condition=6, vae=sizes))
    write_official(root / MOTION, network.state_dict(), {"motion_type": "exp"}, step=400000)
    write_small_portrait(root / NERF / "may_head", "head_sr")
    write_small_portrait(root / NERF / "may_torso", "torso_sr")
    (root / MAY).parent.mkdir(parents=True)
    np.save(root / MAY, official_dataset())
    with zipfile.ZipFile(root / f"{NERF}.zip", "w") as archive:
        for file in sorted((root / NERF).rglob("*.*")):
            archive.write(file, file.relative_to(root / "checkpoints"))
    return root


SAID = "audio to motion after 400000 steps, portraits head_sr and torso_sr, May with 22 frames"


def test_genefaces_files_are_read(release):
    assert read_geneface(release) == SAID
    torch.save({"state_dict": {"model": {}}}, release / MOTION / "model_ckpt_steps_400000.ckpt")
    with pytest.raises(CheckpointError, match="holds no 'state_dict' of tensors"):
        read_geneface(release)


def test_genefaces_files_are_fetched_whichever_address_is_which(release, tmp_path, monkeypatch, caplog):
    """The manifest's own set, its addresses replaced by a server on this machine; those of two files are swapped."""
    one = load_downloads().named("geneface")
    assert one is not None
    caplog.set_level(logging.INFO)
    with local_server() as server:
        pair = []
        for file in one.files[1::-1]:
            server.put(f"/{file.path}", (release / file.path).read_bytes())
            pair.append(server.url(f"/{file.path}"))
        files = [replace(file, urls=tuple(pair)) for file in one.files[:2]]
        for file in one.files[2:]:
            server.put(f"/{file.path}", (release / file.path).read_bytes())
            files.append(replace(file, urls=(server.url(f"/{file.path}"),)))
        here = Downloads("downloads/1", (replace(one, files=tuple(files)),))
        monkeypatch.setattr(download_models, "load_downloads", lambda: here)
        arguments = parse_arguments(["geneface", "--accept_licence"])
        for _ in range(2):
            run(arguments, tmp_path / "home", tmp_path / "lock.json")
            assert caplog.records[-1].getMessage() == f"    read: {SAID}"
        assert [len(server.pages[f"/{file.path}"].asked) for file in files] == [1, 2, 1, 1]
    assert caplog.text.count("trusted from now on") == 4
    (tmp_path / "home" / NERF / "may_head" / "config.yaml").write_text("changed: 1")
    with pytest.raises(ModelFileError, match=r"motion2video_nerf\.zip: here, but ANOTHER CONTENT"):
        run(parse_arguments(["geneface", "--check"]), tmp_path / "home", tmp_path / "lock.json")


def test_files_go_where_the_code_looks_for_them():
    places = {ROOT / file.path for one in load_downloads().sets for file in one.files}
    places |= {ROOT / file.folder for one in load_downloads().sets for file in one.files}
    evaluation = load_any(EGS / "egs_bases" / "evaluation" / "base.yaml")
    may = VideoWorkspace("May")
    for wanted in (
        MEDIAPIPE_DIR / MULTICLASS_FILE, HUBERT_DIR / "config.json", HUBERT_DIR / "pytorch_model.bin", NETWORK_FILE,
        ROOT / evaluation.syncnet, ROOT / evaluation.lpips_backbone, BFM2009_DIR / BFM_FILE,
        BFM2009_DIR / MEDIAPIPE_INDEX_FILE, may.raw_video, may.binary / DATASET_NAME, CHECKPOINTS / "motion2video_nerf",
    ):  # fmt: skip
        assert wanted in places, wanted
