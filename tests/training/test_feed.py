"""Which window belongs to which step and process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.augmentation.settings import Augmentation
from training.case import Case
from training.feed import feed
from training.patch import Patch
from training.patches import PatchSource
from training.plan import Plan
from training.process_group import Ranks

PLAN = Plan(steps=4, batch=3, window=16, early_window=8, early_share=0.5)


@dataclass(frozen=True)
class Numbered:
    """Windows that hold their own number."""

    def draw(self, number: int, window: int) -> Patch:
        shape = (window,) * 3
        return Patch(np.full(shape, number, np.float32), np.zeros(shape, np.uint8), None)


def _numbers(steps) -> list[list[int]]:
    return [[int(patch.image.flat[0]) for patch in step] for step in steps]


def test_windows_come_in_order_small_ones_first():
    steps = list(feed(Numbered().draw, PLAN, 0))

    assert _numbers(steps) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert [step[0].image.shape[0] for step in steps] == [8, 8, 16, 16]


def test_a_resumed_run_goes_on_with_the_window_that_comes_next():
    assert _numbers(feed(Numbered().draw, PLAN, 2)) == [[6, 7, 8], [9, 10, 11]]


def test_processes_share_the_windows_of_a_step():
    first, second = (_numbers(feed(Numbered().draw, PLAN, 0, Ranks(r, 2))) for r in range(2))

    assert first[1] == [3, 5]
    assert second[1] == [4]


def test_windows_drawn_ahead_by_another_process_are_the_same(tmp_path, rng):
    shape = (20, 20, 20)
    np.save(tmp_path / "image.npy", rng.integers(-9999, 9999, shape, np.int16))
    np.save(tmp_path / "labels.npy", rng.integers(0, 5, shape, np.uint8))
    np.save(tmp_path / "spots.npy", np.array([[1, 9, 9, 9]], dtype=np.int16))
    source = PatchSource([Case(tmp_path)], 1, PLAN, Augmentation(noise_probability=1, noise=0.1))

    here, there = (
        [patch.image for step in feed(source.draw, PLAN, 2, workers=workers) for patch in step]
        for workers in (0, 1)
    )

    np.testing.assert_array_equal(there, here)
