"""Windows lie where MONAI's sliding window puts them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices

from inference.windows import WindowSpec, window_starts


@given(
    extent=st.integers(16, 700),
    window=st.sampled_from([16, 32, 96, 160]),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.625, 0.99]),
)
def test_windows_start_where_monai_starts_them(extent: int, window: int, overlap: float) -> None:
    extent = max(extent, window)
    interval = window if extent == window else max(int(window * (1 - overlap)), 1)
    theirs = [s[0].start for s in dense_patch_slices((extent,), (window,), (interval,))]

    assert list(window_starts(extent, window, overlap)) == theirs


@pytest.mark.parametrize("fields", [{"window_voxels": 90}, {"overlap": 1.0}, {"overlap": -0.1}])
def test_impossible_windows_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        WindowSpec(**fields)  # type: ignore[arg-type]
