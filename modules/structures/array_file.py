"""``.npz`` files too large for memory: members are mapped when read, and grow block by block when written."""

from __future__ import annotations

import mmap
import shutil
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

_LOCAL_HEADER = 30
"""Bytes of a zip member's local header before its name."""


def mapped_npz(path: Path) -> dict[str, NDArray]:
    """The arrays of an uncompressed ``.npz``, mapped read-only: only what is looked at is read from disk.

    Raises:
        ValueError: when the file is no ``.npz``, or a member is compressed or holds Python objects.
        FileNotFoundError: when there is none.
    """
    arrays: dict[str, NDArray] = {}
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{path} holds a compressed member {member.filename}")
                file.seek(member.header_offset)
                name_length, extra_length = struct.unpack("<26xHH", file.read(_LOCAL_HEADER))
                file.seek(member.header_offset + _LOCAL_HEADER + name_length + extra_length)
                version = npy.read_magic(file)
                read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, is_fortran, dtype = read_header(file)
                if dtype.hasobject or is_fortran:
                    raise ValueError(f"{path} holds {member.filename}, which is no plain array")
                arrays[member.filename.removesuffix(".npy")] = _mapped(path, dtype, file.tell(), shape)
    except (zipfile.BadZipFile, struct.error, EOFError) as error:
        raise ValueError(f"{path} is damaged or no .npz file ({error})") from error
    return arrays


def _mapped(path: Path, dtype: np.dtype, offset: int, shape: tuple[int, ...]) -> NDArray:
    if 0 in shape:  # nothing cannot be mapped
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", offset, shape)


def forget(array: NDArray) -> None:
    """Give back the memory of what was read of a mapped array; it is read again when looked at. Others stay."""
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


class ArrayFileWriter:
    """Writes an uncompressed ``.npz`` whose large members grow row by row; memory is one block.

    Used as a context manager; the file appears under its name when the block ends well, and nothing stays otherwise.

    Args:
        path: of the file.
        members: dtype and shape of each growing member; the first axis counts rows.
        small: whole arrays to store beside them.
    """

    def __init__(
        self, path: Path, members: Mapping[str, tuple[DTypeLike, tuple[int, ...]]], small: Mapping[str, NDArray]
    ) -> None:
        self._path, self._members, self._small = path, members, small
        self._folder = path.with_name(path.name + ".tmp.d")
        self._rows = dict.fromkeys(members, 0)

    def __enter__(self) -> ArrayFileWriter:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._files = {name: (self._folder / name).open("wb") for name in self._members}
        for name, (dtype, shape) in self._members.items():
            header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
            npy.write_array_header_1_0(self._files[name], header)
        return self

    def append(self, **blocks: NDArray) -> None:
        """Add rows ``[n, ...]`` to members."""
        for name, block in blocks.items():
            dtype, shape = self._members[name]
            if block.shape[1:] != shape[1:]:
                raise ValueError(f"rows of {name} must be {shape[1:]}, got {block.shape[1:]}")
            self._files[name].write(np.ascontiguousarray(block, dtype).tobytes())
            self._rows[name] += len(block)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        try:
            if error is None:
                self._finish()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _finish(self) -> None:
        for name, (_, shape) in self._members.items():
            if self._rows[name] != shape[0]:
                raise ValueError(f"{self._path}: {name} got {self._rows[name]} rows of {shape[0]}")
        packed = self._folder / "packed"
        with zipfile.ZipFile(packed, "w") as archive:
            for name, array in self._small.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    npy.write_array(member, np.asarray(array), allow_pickle=False)
            for name in self._members:
                with (
                    archive.open(f"{name}.npy", "w", force_zip64=True) as member,
                    (self._folder / name).open("rb") as f,
                ):
                    shutil.copyfileobj(f, member, 1 << 20)
        packed.replace(self._path)
