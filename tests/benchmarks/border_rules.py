"""Rules for borders between voxels, held against the truth with all 105 logits at hand."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from inference.label_map import LabelMap
from inference.network_grid import NetworkGrid
from inference.resampling import neighbours
from inference.volume import Volume

SPACING_MM = 3.0
_CLASSES, _POINTS = 105, 20_000
_CORNERS = list(itertools.product((0, 1), repeat=3))

#: Scores of classes at points, ``(n, 105)``, from logits ``(n, 8, 105)`` and weights ``(n, 8)``
#: of the voxels around them.
Rule = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def counts_by_rule(
    volume: Volume, truth: LabelMap, step: int
) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """``(true, found)`` counts of each rule, on every ``step``-th plane."""
    grid = NetworkGrid.covering(volume.geometry, SPACING_MM)
    logits = all_logits(volume, grid)
    labels = logits.argmax(dim=-1).to(torch.uint8).numpy()
    counts = {name: np.zeros((_CLASSES, _CLASSES), dtype=np.int64) for name in RULES}
    planes, where = grid.turned_view(truth.labels), grid.from_source()
    for k in range(0, planes.shape[0], step):
        at = (where.planes[k : k + 1], where.rows_of(k), where.columns_of(k))
        sides = [neighbours(*axis) for axis in zip(at, labels.shape, strict=True)]
        around = np.stack(
            [labels[np.ix_(*_shifted(sides, corner))][0] for corner in _CORNERS], axis=0
        )
        near = (around != around[0]).any(axis=0)
        elsewhere = confusion(planes[k][~near], around[0][~near])
        j, i = np.nonzero(near)
        for total in counts.values():
            total += elsewhere
        for n in range(0, j.size, _POINTS):
            row, column = j[n : n + _POINTS], i[n : n + _POINTS]
            here = [
                (first[each], share[each])
                for (first, share), each in zip(sides, (0 * row, row, column), strict=True)
            ]
            weights = np.stack([_weight(here, corner) for corner in _CORNERS], axis=1)
            places = [_shifted(here, corner) for corner in _CORNERS]
            scores = torch.stack([logits[tuple(place)] for place in places], dim=1).float()
            candidates = torch.zeros(row.size, _CLASSES, dtype=torch.bool)
            candidates.scatter_(1, scores.argmax(dim=-1), True)
            for name, rule in RULES.items():
                found = rule(scores, torch.from_numpy(weights).float())
                found = found.masked_fill(~candidates, -torch.inf).argmax(dim=1)
                counts[name] += confusion(planes[k][row, column], found.numpy())
    yield from counts.items()


def all_logits(volume: Volume, grid: NetworkGrid) -> torch.Tensor:
    """``(k, j, i, 105)`` in half precision, by MONAI's inferer and the embedded model."""
    from monai.inferers.inferer import SlidingWindowInferer

    from inference.model_store import embedded_store
    from inference.network import build_network
    from inference.preprocessing import to_network

    (name,) = embedded_store().names()
    model = embedded_store().load(name)
    network = build_network(model.manifest.network).eval()
    network.load_state_dict(dict(model.state_dict))
    seen = to_network(volume, SPACING_MM, model.manifest.intensity)
    inferer = SlidingWindowInferer(
        [96] * 3, overlap=0.25, mode="gaussian", padding_mode="replicate"
    )
    array = torch.from_numpy(np.ascontiguousarray(seen.array))[None, None]
    with torch.inference_mode():
        found: torch.Tensor = inferer(array, network)[0]
    return found.permute(*(axis + 1 for axis in grid.network_axes), 0).half().contiguous()


def confusion(truth: npt.NDArray[np.uint8], found: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """``(true, found)`` counts."""
    pairs = truth.astype(np.intp) * _CLASSES + found
    return np.bincount(pairs.ravel(), minlength=_CLASSES**2).reshape(_CLASSES, _CLASSES)


def _shifted(sides: list, corner: tuple[int, ...]) -> list[npt.NDArray[np.intp]]:
    return [first + side for (first, _), side in zip(sides, corner, strict=True)]


def _weight(sides: list, corner: tuple[int, ...]) -> npt.NDArray[np.float64]:
    shares = [share if side else 1 - share for (_, share), side in zip(sides, corner, strict=True)]
    return np.prod(shares, axis=0)


def _votes(classes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """``(n, 105)``, values ``(n, 8)`` added up by class."""
    return torch.zeros(classes.shape[0], _CLASSES).scatter_add_(1, classes, values)


def _nearest(logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    largest = weights == weights.amax(dim=1, keepdim=True)
    return _votes(logits.argmax(dim=-1), largest.float())


def _labels(logits: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return _votes(logits.argmax(dim=-1), weights)


def _lead(scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    top = scores.topk(2, dim=-1)
    return _votes(top.indices[..., 0], weights * (top.values[..., 0] - top.values[..., 1]))


def _two_leads(scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    top = scores.topk(3, dim=-1)
    first, second, third = top.values.unbind(-1)
    return _votes(top.indices[..., 0], weights * (first - third)) + _votes(
        top.indices[..., 1], weights * (second - third)
    )


def _all(scores: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (scores * weights[..., None]).sum(dim=1)


def _of_probabilities(rule: Rule) -> Rule:
    return lambda logits, weights: rule(logits.softmax(dim=-1), weights)


RULES: dict[str, Rule] = {
    "nearest": _nearest,
    "labels": _labels,
    "lead of logits over the second": _lead,
    "leads of logits, second and third": _two_leads,
    "all logits": _all,
    "lead of probabilities": _of_probabilities(_lead),
    "leads of probabilities": _of_probabilities(_two_leads),
    "all probabilities": _of_probabilities(_all),
}
