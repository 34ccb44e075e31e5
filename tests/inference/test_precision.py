"""A trained model gives the same labels in the arithmetic that is fast."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from inference.geometry import Geometry
from inference.model_store import embedded_store
from inference.segmenter import SegmenterOptions, SegResNetSegmenter
from inference.synthetic.patient import SyntheticPatient, default_geometry
from inference.volume import Volume
from inference.windows import Precision, WindowSpec

SEED = 9


@cache
def trunk() -> Volume:
    """One window of a synthetic patient's trunk, 3 mm."""
    patient = SyntheticPatient.from_seed(SEED)
    whole = default_geometry(patient, (3.0, 3.0, 3.0))
    first = [max((n - 96) // 2, 0) for n in whole.shape]
    affine = whole.affine.copy()
    affine[:3, 3] = whole.lps_mm(first)
    shape = tuple(min(n, 96) for n in whole.shape)
    return patient.sample(Geometry.from_affine(affine, (shape[0], shape[1], shape[2])))[0]


@cache
def labels(precision: Precision, channels_last: bool) -> np.ndarray:
    store = embedded_store()
    (name,) = store.names()
    windows = WindowSpec(precision=precision, channels_last=channels_last)
    segmenter = SegResNetSegmenter(store.load(name), SegmenterOptions(windows=windows))
    return segmenter.segment(trunk()).labels


@pytest.mark.parametrize(
    ("precision", "equal", "dice"),
    [(Precision.FP32, 0.9999, 0.9995), (Precision.BF16, 0.999, 0.995)],
)
def test_fast_arithmetic_keeps_the_labels(precision: Precision, equal: float, dice: float) -> None:
    published = labels(Precision.FP32, False)

    fast = labels(precision, True)

    assert (published == fast).mean() >= equal
    # one voxel of a structure of three decides its Dice
    present = [i for i in np.unique(published) if i and (published == i).sum() >= 50]
    assert len(present) > 30
    overlaps = [
        2 * np.sum((published == i) & (fast == i)) / (np.sum(published == i) + np.sum(fast == i))
        for i in present
    ]
    assert np.mean(overlaps) >= dice
