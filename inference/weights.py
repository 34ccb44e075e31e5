"""Weights that fit the network: names, shapes and finite values of a state dict."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from inference.errors import ModelError
from inference.network import NetworkSpec, build_network
from inference.reasons import Reason
from inference.structures import CLASS_COUNT

#: Rows of the last layer's weights are the classes.
_HEAD_WEIGHT = "conv_final.2.conv.weight"


def check_weights(state_dict: Mapping[str, torch.Tensor], spec: NetworkSpec, where: str) -> None:
    """Refuse weights that the network of ``spec`` cannot load or that are not finite.

    Parameters
    ----------
    state_dict
        Tensors by parameter name.
    spec
        The network.
    where
        Names the model or file in errors.

    Raises
    ------
    ModelError
        ``model-class-count`` if only the number of classes is wrong, otherwise
        ``model-not-state-dict`` with the first faults.
    """
    with torch.device("meta"):
        expected = {key: tuple(t.shape) for key, t in build_network(spec).state_dict().items()}
    found = {key: tuple(tensor.shape) for key, tensor in state_dict.items()}
    head = found.get(_HEAD_WEIGHT)
    if head is not None and head[0] != CLASS_COUNT:
        raise ModelError(Reason.MODEL_CLASS_COUNT, f"{where}: {head[0]} classes, not {CLASS_COUNT}")
    faults = [f"{key} is missing" for key in sorted(expected.keys() - found.keys())]
    faults += [f"{key} is unknown" for key in sorted(found.keys() - expected.keys())]
    faults += [
        f"{key} is {found[key]}, not {expected[key]}"
        for key in sorted(expected.keys() & found.keys())
        if found[key] != expected[key]
    ]
    faults += [
        f"{key} is not finite floating point"
        for key, tensor in sorted(state_dict.items())
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all())
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise ModelError(Reason.MODEL_NOT_STATE_DICT, f"{where}: {'; '.join(faults[:5])}{more}")
