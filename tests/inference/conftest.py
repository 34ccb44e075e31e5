"""Models that tests of the model chain share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from inference.intensity import ROBUST_INTENSITY
from inference.manifest import ModelManifest
from inference.network import NetworkSpec, build_network

SMALL_NETWORK = NetworkSpec(init_filters=8, blocks_down=(1, 1, 1, 1), blocks_up=(1, 1, 1))


@pytest.fixture
def small_manifest() -> ModelManifest:
    """Of a network that fits the format and runs in milliseconds."""
    return ModelManifest(
        name="small",
        version="1",
        spacing_mm=3.0,
        intensity=ROBUST_INTENSITY,
        network=SMALL_NETWORK,
        source="random numbers of a test",
        licence="Apache-2.0",
        intended_use="Tests",
        demonstration=True,
        training=(("seed", "3"),),
    )


@pytest.fixture
def seeded_weights() -> Callable[[NetworkSpec], dict[str, torch.Tensor]]:
    """Random weights, the same each time, whose labels are diverse."""

    def make(spec: NetworkSpec) -> dict[str, torch.Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(20261121)
            weights = build_network(spec).state_dict()
        # no class shall win everywhere: features are positive, so rows of mean zero
        head = weights["conv_final.2.conv.weight"]
        weights["conv_final.2.conv.weight"] = head - head.mean(dim=1, keepdim=True)
        weights["conv_final.2.conv.bias"] = torch.zeros(head.shape[0])
        return weights

    return make
