from __future__ import annotations

import pytest
import torch

from tests.support.kernels import kernel_device_or_skip


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """The device whose tensors Triton kernels take here; skips where there is none.

    In the interpreter a kernel takes about a second per thousand points, so shapes have to be small there.
    """
    return kernel_device_or_skip()


@pytest.fixture(scope="session")
def on_gpu(kernel_device: torch.device) -> bool:
    """True where large shapes are cheap."""
    return kernel_device.type == "cuda"


@pytest.fixture(scope="session")
def triton_backend(kernel_device: torch.device):
    """The backend under test; ``get_backend`` would refuse it for the interpreter's CPU tensors."""
    from modules.radnerfs.backends.triton_kernels.backend import TritonBackend

    return TritonBackend()
