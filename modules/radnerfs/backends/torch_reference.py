"""The reference backend in plain torch: the specification of every operation, on any device."""

from __future__ import annotations

from modules.radnerfs.backends import torch_compositing, torch_directions, torch_grid, torch_marching


class TorchReference:
    """``RenderBackend`` in plain torch; see ``base.py`` for shapes and gradients."""

    name = "torch"

    grid_encode = staticmethod(torch_grid.grid_encode)
    sh_encode = staticmethod(torch_directions.sh_encode)
    freq_encode = staticmethod(torch_directions.freq_encode)
    near_far = staticmethod(torch_marching.near_far)
    morton_encode = staticmethod(torch_marching.morton_encode)
    morton_decode = staticmethod(torch_marching.morton_decode)
    pack_bits = staticmethod(torch_marching.pack_bits)
    march_train = staticmethod(torch_marching.march_train)
    march_infer = staticmethod(torch_marching.march_infer)
    composite_train = staticmethod(torch_compositing.composite_train)
    composite_infer = staticmethod(torch_compositing.composite_infer)
    composite_opaque = staticmethod(torch_compositing.composite_opaque)
