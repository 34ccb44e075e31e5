"""Muon: momentum steps whose matrices are made orthogonal, for the convolutions.

Adam moves every weight by about the learning rate. A convolution of the deepest level has 3,456
inputs to an output, and the gradient of one window has low rank, so a rate that suits the
first level turns the deepest one over in a few steps. Here each step has the same spectral
norm whatever the size of the layer (K. Jordan et al., Muon: an optimizer for hidden layers
in neural networks, 2024).
"""

from __future__ import annotations

import torch

#: Coefficients of the quintic Newton-Schulz iteration of the reference.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """``matrix`` with its singular values brought to about 1; rows <= columns is faster."""
    tall = matrix.shape[0] > matrix.shape[1]
    x: torch.Tensor = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x


@torch.no_grad()
def muon_step(
    weight: torch.Tensor, momentum: torch.Tensor, learning_rate: float, decay: float = 0.95
) -> None:
    """Update one convolution's ``(out, in, ...)`` weight from its gradient, in place.

    Parameters
    ----------
    weight
        With ``grad``.
    momentum
        Running sum of gradients, of the same shape; kept by the caller.
    learning_rate
        Spectral norm of the step.
    decay
        Of the momentum.
    """
    assert weight.grad is not None
    momentum.lerp_(weight.grad, 1 - decay)
    ahead = weight.grad.lerp(momentum, decay)
    step = orthogonal(ahead.flatten(1))
    stretch = max(1.0, step.shape[0] / step.shape[1]) ** 0.5
    weight.sub_(step.view(weight.shape), alpha=learning_rate * stretch)
