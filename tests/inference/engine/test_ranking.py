"""Standings of voxels from their logits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from inference.engine.ranking import near_borders, rank
from inference.standings import FIRST, LEAD, LEAD_OVER_THIRD, SECOND, lead_codes


def test_first_second_and_leads_are_those_of_the_mean_logits() -> None:
    torch.manual_seed(2)
    logits, weights = torch.randn(500, 105) * 4, torch.rand(500) * 3 + 1e-3
    found = torch.empty((500, 4), dtype=torch.uint8)

    rank(logits * weights[:, None], weights, found)

    top = logits.topk(3, dim=1)
    np.testing.assert_array_equal(found[:, FIRST], top.indices[:, 0])
    np.testing.assert_array_equal(found[:, SECOND], top.indices[:, 1])
    for which, place in ((LEAD, 1), (LEAD_OVER_THIRD, 2)):
        wanted = lead_codes(top.values[:, 0] - top.values[:, place]).astype(int)
        assert np.abs(found[:, which].numpy().astype(int) - wanted).max() <= 1
        assert (found[:, which].numpy() == wanted).mean() > 0.98


def test_the_first_class_is_the_arg_max_also_of_ties() -> None:
    logits = torch.zeros(3, 105)
    logits[1, [4, 9]] = 2.0
    logits[2, [7, 8, 50]] = 1.0
    found, expected = torch.empty((3, 4), dtype=torch.uint8), logits.argmax(dim=1)

    rank(logits.clone(), torch.ones(3), found)

    assert torch.equal(found[:, FIRST].long(), expected)
    assert (found[:, FIRST] != found[:, SECOND]).all()
    assert not found[:, LEAD].any()
    np.testing.assert_array_equal(found[:, LEAD_OVER_THIRD], lead_codes([0.0, 2.0, 0.0]))


@pytest.mark.parametrize("shape", [(9, 8, 7), (3, 3, 3), (2, 6, 6), (5, 1, 5)])
def test_voxels_with_another_class_among_their_26_neighbours_are_near(
    rng: np.random.Generator, shape: tuple[int, int, int]
) -> None:
    labels = (rng.random(shape) < 0.03).astype(np.uint8) * 104

    near = near_borders(torch.from_numpy(labels)).numpy()

    padded = np.pad(labels, 1, constant_values=255)  # beyond the faces is what nobody knows
    moved = [
        padded[tuple(slice(at, at + n) for at, n in zip(shift, shape, strict=True))]
        for shift in itertools.product(range(3), repeat=3)
    ]
    np.testing.assert_array_equal(near, (np.stack(moved) != labels).any(axis=0))
