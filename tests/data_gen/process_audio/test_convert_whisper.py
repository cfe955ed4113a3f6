"""The CTranslate2 reader against a file written by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from data_gen.utils.process_audio.convert_whisper import _renamed, convert, main, read_ctranslate2
from data_gen.utils.process_audio.extract_whisper import EncoderNetwork
from modules.commons.errors import ModelFileError


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
    assert set(_renamed().values()) == set(shapes)
    rng = np.random.default_rng(0)
    theirs = {name: rng.standard_normal(shapes[ours]).astype(np.float16) for name, ours in _renamed().items()}
    theirs["decoder/embeddings/weight"] = np.zeros((4, 4), np.float16)
    out = tmp_path / "new" / "encoder.safetensors"
    assert main([str(write_model(tmp_path / "model.bin", theirs)), str(out)]) == 0
    with safe_open(out, framework="np") as stored:
        assert {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()} == shapes  # noqa: SIM118
        np.testing.assert_array_equal(stored.get_tensor("conv1.weight"), theirs["encoder/conv1/weight"])
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
    with pytest.raises(ModelFileError, match="not a Whisper tiny encoder"):
        convert(path, tmp_path / "out.safetensors")


def test_missing_file(tmp_path):
    with pytest.raises(ModelFileError, match="no such file"):
        read_ctranslate2(tmp_path / "model.bin")
