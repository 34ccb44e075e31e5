"""The optimizer and the group normalisation that make training on a CPU feasible."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training.group_norm import use_fast_group_norm
from training.muon import muon_step, orthogonal


@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_an_orthogonal_step_has_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))

    assert values.max() < 1.3
    assert values.min() > 0.5


def test_a_step_goes_against_the_gradient_whatever_its_size():
    weight = nn.Parameter(torch.zeros(4, 2, 3, 3, 3))
    for scale in (1e-4, 1e4):
        weight.grad = torch.ones_like(weight) * scale
        with torch.no_grad():
            weight.zero_()
        muon_step(weight, torch.zeros_like(weight), 0.1)

        assert (weight < 0).all()
        assert torch.linalg.matrix_norm(weight.detach().flatten(1), 2) < 0.15


def test_the_fast_group_norm_gives_pytorchs_gradients():
    torch.manual_seed(0)
    x = (torch.randn(2, 16, 6, 7, 8) * 2 + 1).to(memory_format=torch.channels_last_3d)
    grad = torch.randn_like(x)
    norm = nn.GroupNorm(8, 16)
    nn.init.uniform_(norm.weight, 0.5, 2)
    results = []
    for fast in (False, True):
        if fast:
            use_fast_group_norm(nn.Sequential(norm))
        norm.zero_grad()
        leaf = x.clone().requires_grad_()
        norm(leaf).backward(grad)
        results.append((leaf.grad, norm.weight.grad.clone(), norm.bias.grad.clone()))

    for plain, fast in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
