"""Where Triton kernels run in tests: on the GPU, or on CPU tensors in Triton's interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch


def kernel_device_or_skip() -> torch.device:
    """The device whose tensors Triton kernels take here; skips the test where there is none."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("triton is not installed")
    if os.environ.get("TRITON_INTERPRET") == "1":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    pytest.skip("no CUDA device, and TRITON_INTERPRET=1 is not set")
