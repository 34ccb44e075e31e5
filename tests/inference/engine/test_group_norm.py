"""Normalisation of channels-last windows is that of the published network, and exact."""

from __future__ import annotations

import pytest
import torch

from inference.engine.group_norm import NormReLU, fuse_norms
from inference.network import NetworkSpec, build_network

LAST = torch.channels_last_3d


@pytest.fixture
def norm() -> torch.nn.GroupNorm:
    torch.manual_seed(5)
    found = torch.nn.GroupNorm(4, 16).requires_grad_(False)
    found.weight.normal_(1, 0.3)
    found.bias.normal_()
    return found


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("overwrite", [False, True])
def test_values_are_those_of_double_precision(
    norm: torch.nn.GroupNorm, dtype: torch.dtype, error: float, overwrite: bool
) -> None:
    x = (torch.randn(1, 16, 40, 33, 21) * 2 + 3).to(dtype).contiguous(memory_format=LAST)
    exact = torch.relu(
        torch.nn.functional.group_norm(
            x.double(), 4, norm.weight.double(), norm.bias.double(), norm.eps
        )
    )
    before = x.clone()

    found = NormReLU(norm, overwrite=overwrite)(x)

    assert float((found - exact).abs().max()) < error * float(exact.max())
    assert found.is_contiguous(memory_format=LAST)
    assert torch.equal(x, before) != overwrite


def test_a_constant_window_is_its_bias(norm: torch.nn.GroupNorm) -> None:
    x = torch.full((1, 16, 8, 8, 8), 100.0).contiguous(memory_format=LAST)

    found = NormReLU(norm, overwrite=False)(x)

    torch.testing.assert_close(found[0, :, 0, 0, 0], norm.bias.relu(), atol=0.02, rtol=0)


def test_another_layout_gives_the_same(norm: torch.nn.GroupNorm) -> None:
    x = torch.randn(1, 16, 12, 10, 8)

    usual = NormReLU(norm, overwrite=False)(x)

    last = NormReLU(norm, overwrite=False)(x.contiguous(memory_format=LAST))
    torch.testing.assert_close(usual, last, atol=1e-5, rtol=0)


def test_a_network_gives_the_features_of_the_published_one() -> None:
    torch.manual_seed(3)
    network = build_network(NetworkSpec(8, (1, 2, 1), (1, 1))).eval()
    x = torch.randn(1, 1, 32, 24, 16)
    with torch.inference_mode():
        published = network(x)
        network = network.to(memory_format=LAST)
        fuse_norms(network)
        fuse_norms(network)  # a second time changes nothing

        found = network(x.contiguous(memory_format=LAST))

    torch.testing.assert_close(found, published, atol=2e-5, rtol=1e-5)
