"""The CTranslate2 reader against a file written by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from data_gen.utils.process_audio.convert_whisper import _renamed, convert, main, read_ctranslate2
from data_gen.utils.process_audio.extract_whisper import EncoderNetwork, EncoderSize, WhisperEncoder, _load_network
from modules.commons.errors import ModelFileError
from modules.structures.audio import AudioClip


def packed_string(text: str) -> bytes:
    raw = text.encode() + b"\0"
    return struct.pack("<H", len(raw)) + raw


def write_model(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    codes = {"float32": 0, "float16": 4, "int16": 2}
    blob = struct.pack("<I", 6) + packed_string("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, tensor in tensors.items():
        blob += packed_string(name) + struct.pack("<B", tensor.ndim) + struct.pack(f"<{tensor.ndim}I", *tensor.shape)
        blob += struct.pack("<BI", codes[tensor.dtype.name], tensor.nbytes) + tensor.tobytes()
    path.write_bytes(blob)
    return path


def test_reads_names_shapes_and_values(tmp_path):
    tensors = {
        "encoder/a": np.arange(6, dtype=np.float16).reshape(2, 3),
        "b": np.array(7, np.int16),
        "c": np.ones((1, 2, 2), np.float32),
    }
    loaded = read_ctranslate2(write_model(tmp_path / "model.bin", tensors))
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype


def test_converted_file_fits_the_network(tmp_path):
    shapes = {name: tuple(tensor.shape) for name, tensor in EncoderNetwork().state_dict().items()}
    assert set(_renamed(4).values()) == set(shapes)
    rng = np.random.default_rng(0)
    theirs = {name: rng.standard_normal(shapes[ours]).astype(np.float16) for name, ours in _renamed(4).items()}
    theirs["decoder/embeddings/weight"] = np.zeros((51864, 1), np.float16)
    out = tmp_path / "new" / "encoder.safetensors"
    assert main([str(write_model(tmp_path / "model.bin", theirs)), str(out)]) == 0
    with safe_open(out, framework="np") as stored:
        assert {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()} == shapes  # noqa: SIM118
        np.testing.assert_array_equal(stored.get_tensor("conv1.weight"), theirs["encoder/conv1/weight"])
        assert stored.metadata()["model"] == "whisper-tiny.en"
    assert sorted(path.name for path in out.parent.iterdir()) == ["encoder.safetensors"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", struct.pack("<I", 6) + b"\xff\xff"])
def test_foreign_files_are_refused(tmp_path, content, capsys):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="not a CTranslate2 model file"):
        convert(path, tmp_path / "out.safetensors")
    assert main([str(path), str(tmp_path / "out.safetensors")]) == 1
    assert "model.bin" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()


def test_other_models_are_refused(tmp_path):
    path = write_model(tmp_path / "model.bin", {"encoder/conv1/weight": np.zeros((2, 2), np.float16)})
    with pytest.raises(ModelFileError, match="not a Whisper encoder"):
        convert(path, tmp_path / "out.safetensors")


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        read_ctranslate2(tmp_path / "model.bin")


def openai_tensors(n_blocks: int, width: int, words: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {
        "conv1": (width, 80, 3),
        "conv2": (width, width, 3),
        "embed_positions": (1500, width),
        "layer_norm": (width,),
    }
    for i in range(n_blocks):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"layers.{i}.self_attn.{part}"] = (width, width)
        shapes |= {f"layers.{i}.{part}": (width,) for part in ("self_attn_layer_norm", "final_layer_norm")}
        shapes |= {f"layers.{i}.fc1": (4 * width, width), f"layers.{i}.fc2": (width, 4 * width)}
    tensors = {"model.decoder.embed_tokens.weight": np.zeros((words, 1), np.float32)}
    for name, shape in shapes.items():
        tensors[f"model.encoder.{name}.weight"] = rng.standard_normal(shape).astype(np.float32) * 0.05
        if name != "embed_positions" and not name.endswith("k_proj"):
            tensors[f"model.encoder.{name}.bias"] = rng.standard_normal(shape[0]).astype(np.float32) * 0.05
    return tensors


def test_openais_file_of_another_size(tmp_path):
    """Base has blocks of 512 (here two of its six): sizes and name are read off the file, and the features run."""
    save_file(openai_tensors(2, 512, 51865), tmp_path / "model.safetensors")
    out = tmp_path / "whisper_base" / "encoder.safetensors"
    convert(tmp_path / "model.safetensors", out)
    encoder = WhisperEncoder(out)
    assert encoder.name == "whisper-base/blocks-1-2" and encoder.width == 1024
    assert encoder.extract(AudioClip(np.zeros(3_200, np.float32), 16_000)).values.shape == (10, 1024)
    assert EncoderSize(512, 6).kept == (3, 4, 5) and EncoderSize(512, 6).n_heads == 8


def test_equals_transformers_own_encoder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.WhisperConfig(
        d_model=384, encoder_layers=2, encoder_attention_heads=6, decoder_layers=1, decoder_attention_heads=6,
        encoder_ffn_dim=1536, decoder_ffn_dim=8, vocab_size=51865,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.WhisperModel(config).eval()
    tensors = {f"model.{name}": tensor.contiguous().numpy() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors")
    convert(tmp_path / "model.safetensors", tmp_path / "encoder.safetensors")
    ours, name = _load_network(tmp_path / "encoder.safetensors")
    assert name == "whisper-tiny"
    mel = torch.randn(1, 80, 3000)
    with torch.inference_mode():
        expected = model.encoder(mel).last_hidden_state[0]
        found = ours.eval()(mel)[0, :, 384:]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=5e-3)


def test_quantised_weights_are_refused(tmp_path):
    shapes = {name: tuple(tensor.shape) for name, tensor in EncoderNetwork().state_dict().items()}
    theirs = {name: np.zeros(shapes[ours], np.int16) for name, ours in _renamed(4).items()}
    with pytest.raises(ModelFileError, match="quantised"):
        convert(write_model(tmp_path / "model.bin", theirs), tmp_path / "out.safetensors")
