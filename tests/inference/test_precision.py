"""A trained model gives the same labels in the arithmetic that is fast."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from inference.model_store import embedded_store
from inference.segmenter import SegmenterOptions, SegResNetSegmenter
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.volume import Volume
from inference.windows import Precision, WindowSpec

SEED = 9


@cache
def patient() -> Volume:
    """A synthetic patient, 3 mm."""
    found = SyntheticPatient.from_seed(SEED)
    return found.sample(default_geometry(found, (3.0, 3.0, 3.0)))[0]


@cache
def labels(precision: Precision, channels_last: bool) -> np.ndarray:
    store = embedded_store()
    (name,) = store.names()
    windows = WindowSpec(precision=precision, channels_last=channels_last)
    segmenter = SegResNetSegmenter(store.load(name), SegmenterOptions(windows=windows))
    return segmenter.segment(patient()).labels


@pytest.mark.parametrize(
    ("precision", "equal", "dice"),
    [(Precision.FP32, 0.9999, 0.9995), (Precision.BF16, 0.999, 0.998)],
)
def test_fast_arithmetic_keeps_the_labels(precision: Precision, equal: float, dice: float) -> None:
    published = labels(Precision.FP32, False)

    fast = labels(precision, True)

    assert (published == fast).mean() >= equal
    ours, theirs = (np.bincount(each.ravel(), minlength=105) for each in (fast, published))
    both = np.bincount(published[published == fast], minlength=105)
    present = np.flatnonzero(theirs)[1:]
    assert len(present) > 30
    assert np.mean(2 * both[present] / (ours + theirs)[present]) >= dice
