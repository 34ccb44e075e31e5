"""Reading the header of a file that may hold anything."""

from __future__ import annotations

from pathlib import Path

from pydicom import Dataset


def read_header(path: Path) -> Dataset:
    """Everything before the pixel data.

    Raises
    ------
    SeriesRefusedError
        Whatever the bytes, with one of a closed set of reasons.
    """
    raise NotImplementedError
