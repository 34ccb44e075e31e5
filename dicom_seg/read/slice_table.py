"""The slice table: one row a plane of the source, in the order of the volume.

It is the truth about a series. Rows are ordered by position along the normal of Image
Orientation (Patient); file name, arrival order, Instance Number, Slice Location, Slice
Thickness and Patient Position order nothing (PS3.3 C.7.6.2.1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from inference.file_stamp import FileStamp
from inference.geometry import Geometry

#: Cosines of rows and columns of two slices may differ by so much and count as parallel: one
#: in the fourth decimal, which writers round to, and what binary fractions add to it.
ORIENTATION_TOLERANCE = 1.01e-4


@dataclass(frozen=True, slots=True)
class PixelSource:
    """Where the pixel data of an instance lie in its file, and how one pixel is stored."""

    offset: int  #: of the first byte of the value of Pixel Data, from the start of the file
    length: int | None  #: bytes; None for encapsulated, of undefined length (PS3.5 A.4)
    frames: int  #: Number of Frames; 1 for a single-frame instance
    bits_allocated: int  #: 8 or 16 (PS3.5 8.1.1)
    bits_stored: int
    high_bit: int
    signed: bool  #: Pixel Representation 1: two's complement


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One plane: a single-frame instance, or one frame of a multi-frame instance."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  #: 1-based (PS3.3 C.7.6.16); None for a single-frame instance
    transfer_syntax_uid: str
    origin_mm: tuple[float, float, float]  #: Image Position (Patient), LPS
    row_cosine: tuple[float, float, float]  #: direction of a row, towards the next column
    column_cosine: tuple[float, float, float]  #: direction of a column, towards the next row
    row_spacing_mm: float  #: distance between rows: first value of Pixel Spacing
    column_spacing_mm: float  #: distance between columns: second value
    rows: int
    columns: int
    rescale_slope: float
    rescale_intercept: float
    padding: tuple[int, int] | None  #: stored values low..high, inclusive, that are padding
    pixels: PixelSource
    stamp: FileStamp | None = None  #: of the file when its header was read; None: not compared

    @property
    def normal(self) -> tuple[float, float, float]:
        """Unit normal: row direction x column direction."""
        cross = np.cross(self.row_cosine, self.column_cosine)
        x, y, z = cross / np.linalg.norm(cross)
        return (float(x), float(y), float(z))


@dataclass(frozen=True, slots=True)
class SliceTable:
    """The planes of one stack, in increasing position along their normal.

    Row ``i`` is plane ``z = i`` of the volume, of the label map, and of nothing else: frames
    of a result meet their slice through this table, never through list order elsewhere.
    """

    rows: tuple[SliceRow, ...]
    frame_of_reference_uid: str

    def geometry(self) -> Geometry:
        """Where the planes sit.

        Raises
        ------
        InvalidGeometryError
            If two planes share a position.
        """
        first = self.rows[0]
        return Geometry(
            shape=(len(self.rows), first.rows, first.columns),
            origins_mm=np.array([row.origin_mm for row in self.rows]),
            row_step_mm=np.array(first.column_cosine) * first.row_spacing_mm,
            column_step_mm=np.array(first.row_cosine) * first.column_spacing_mm,
            frame_of_reference_uid=self.frame_of_reference_uid,
        )
