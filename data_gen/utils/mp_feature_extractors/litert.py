"""One .tflite network on LiteRT, the runtime MediaPipe itself uses."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from modules.commons.errors import ModelFileError

SETUP_HINT = "run `bash scripts/setup.sh` to fetch the model files"


class LiteRtModel:
    """A network with one float32 image or vector input, run on the CPU.

    Args:
        content: the bytes of a ``.tflite`` file.
        source: where the bytes came from, for messages.
        threads: CPU threads; one is fastest for networks this small when cores are shared.
    """

    def __init__(self, content: bytes, source: str, threads: int = 1) -> None:
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelFileError(f"{source} is not a network LiteRT can run ({error}); {SETUP_HINT}") from error
        self.source = source
        details = self._interpreter.get_input_details()[0]
        self._input_index: int = details["index"]
        self.input_shape: tuple[int, ...] = tuple(int(n) for n in details["shape"])
        self._outputs = {d["name"]: d["index"] for d in self._interpreter.get_output_details()}

    @classmethod
    def from_file(cls, path: Path, threads: int = 1) -> LiteRtModel:
        """Load a ``.tflite`` file.

        Raises:
            ModelFileError: when the file is missing or not a network.
        """
        if not path.is_file():
            raise ModelFileError(f"model file {path} is missing; {SETUP_HINT}")
        return cls(path.read_bytes(), str(path), threads)

    @classmethod
    def from_task(cls, path: Path, member: str, threads: int = 1) -> LiteRtModel:
        """Load one network out of a MediaPipe ``.task`` bundle, which is a zip archive.

        Raises:
            ModelFileError: when the bundle or the member is missing or damaged.
        """
        if not path.is_file():
            raise ModelFileError(f"model file {path} is missing; {SETUP_HINT}")
        try:
            with zipfile.ZipFile(path) as archive:
                content = archive.read(member)
        except (zipfile.BadZipFile, KeyError) as error:
            raise ModelFileError(f"{path} does not hold {member} ({error}); {SETUP_HINT}") from error
        return cls(content, f"{path}!{member}", threads)

    def run(self, values: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Outputs by name for one input of ``input_shape``."""
        self._interpreter.set_tensor(self._input_index, values)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
