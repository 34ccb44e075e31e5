"""The network has the published layers."""

from __future__ import annotations

import pytest
import torch

from inference.network import PUBLISHED_NETWORK, NetworkSpec, build_network


def test_the_published_network_has_the_published_parameters() -> None:
    with torch.device("meta"):
        network = build_network(PUBLISHED_NETWORK)

    state = network.state_dict()
    assert state["convInit.conv.weight"].shape == (32, 1, 3, 3, 3)
    assert state["down_layers.3.4.conv2.conv.weight"].shape == (256, 256, 3, 3, 3)
    assert state["conv_final.2.conv.weight"].shape == (105, 32, 1, 1, 1)
    assert sum(tensor.numel() for tensor in state.values()) == 18_799_401


def test_one_window_gives_105_logits_a_voxel() -> None:
    network = build_network(NetworkSpec(8, (1, 1, 1, 1), (1, 1, 1))).eval()

    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 105, 16, 16, 16)


@pytest.mark.parametrize(
    "fields",
    [
        {"init_filters": 12},
        {"blocks_up": (1, 1)},
        {"blocks_down": (1, 0, 2, 4)},
        {"dropout_prob": 1.0},
    ],
)
def test_impossible_networks_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        NetworkSpec(**fields)  # type: ignore[arg-type]
