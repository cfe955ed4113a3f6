"""Direction and frequency encodings against torch_reference: 1e-5, gradients to 1e-5 of the largest."""

from __future__ import annotations

import pytest
import torch

from modules.radnerfs.backends import torch_directions


def compare(mine, theirs, inputs: torch.Tensor, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(9)
    results = []
    for encode, place in ((mine, device), (theirs, torch.device("cpu"))):
        values = inputs.to(place).detach().requires_grad_()
        encoded = encode(values)
        grad = torch.randn(encoded.shape, generator=generator.manual_seed(9))
        if encoded.requires_grad:  # the reference's degree 1 is a constant
            encoded.backward(grad.to(place))
        grad = torch.zeros_like(values) if values.grad is None else values.grad
        results.append((encoded.detach().cpu(), grad.cpu()))
    (a, grad_a), (b, grad_b) = results
    assert a.shape == b.shape
    assert torch.allclose(a, b, rtol=0, atol=1e-5)
    scale = max(1.0, float(grad_b.abs().max()) if grad_b.numel() else 1.0)
    assert torch.allclose(grad_a, grad_b, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(0, 3), (1, 3), (130, 3), (5, 7, 3)])
def test_spherical_harmonics(degree, shape, kernel_device, triton_backend):
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(degree))
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    compare(
        lambda v: triton_backend.sh_encode(v, degree),
        lambda v: torch_directions.sh_encode(v, degree),
        vectors,
        kernel_device,
    )


def test_strided_directions(kernel_device, triton_backend):
    vectors = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)).t()
    assert not vectors.is_contiguous()
    compare(
        lambda v: triton_backend.sh_encode(v, 4), lambda v: torch_directions.sh_encode(v, 4), vectors, kernel_device
    )


def test_an_unknown_degree_is_refused(kernel_device, triton_backend):
    with pytest.raises(ValueError, match=r"degree 1\.\.4, got 5"):
        triton_backend.sh_encode(torch.zeros(1, 3, device=kernel_device), 5)


@pytest.mark.parametrize(("shape", "degree"), [((0, 2), 4), ((1, 6), 4), ((70, 2), 10), ((3, 5, 3), 1), ((4, 3), 0)])
def test_frequencies(shape, degree, kernel_device, triton_backend):
    values = torch.rand(shape, generator=torch.Generator().manual_seed(degree)) * 2 - 1
    compare(
        lambda v: triton_backend.freq_encode(v, degree),
        lambda v: torch_directions.freq_encode(v, degree),
        values,
        kernel_device,
    )


def test_half_precision_directions(kernel_device, triton_backend):
    vectors = torch.nn.functional.normalize(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    encoded = triton_backend.sh_encode(vectors.to(kernel_device).half(), 4)
    assert encoded.dtype == torch.float16
    expected = torch_directions.sh_encode(vectors.half().float(), 4)
    assert torch.allclose(encoded.float().cpu(), expected, atol=2e-3)
