"""A factory of synthetic series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.geometry import Geometry
from inference.volume import Volume


@pytest.fixture
def make_ct_series(tmp_path: Path) -> Callable[..., list[Path]]:
    """``make(hu, geometry=..., options=...)`` writes a series of its own folder, in z order."""

    def make(
        hu: npt.ArrayLike,
        geometry: Geometry | None = None,
        options: SeriesOptions | None = None,
        spacing_mm: tuple[float, float, float] = (2.0, 0.8, 0.7),
        centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> list[Path]:
        array = np.asarray(hu, dtype=np.int16)
        where = geometry or stack(array.shape, spacing_mm, centre_mm)
        folder = tmp_path / f"series{len(list(tmp_path.glob('series*'))) + 1}"
        return write_ct_series(Volume(array, where), folder, options)

    return make
