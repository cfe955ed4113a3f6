"""The Triton backend: the same operations as ``torch_reference``, in float32, on a GPU."""

from __future__ import annotations

from modules.radnerfs.backends.triton_kernels import compositing, directions, grid, marching


class TritonBackend:
    """Implements ``RenderBackend``."""

    name = "triton"
    grid_encode = staticmethod(grid.grid_encode)
    sh_encode = staticmethod(directions.sh_encode)
    freq_encode = staticmethod(directions.freq_encode)
    near_far = staticmethod(marching.near_far)
    morton_encode = staticmethod(marching.morton_encode)
    morton_decode = staticmethod(marching.morton_decode)
    pack_bits = staticmethod(marching.pack_bits)
    march_train = staticmethod(marching.march_train)
    march_infer = staticmethod(marching.march_infer)
    composite_train = staticmethod(compositing.composite_train)
    composite_infer = staticmethod(compositing.composite_infer)
    composite_opaque = staticmethod(compositing.composite_opaque)
