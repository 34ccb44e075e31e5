"""Which structure each voxel belongs to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.errors import InvalidGeometryError
from inference.geometry import Geometry

BACKGROUND = 0


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """One structure id a voxel, on the planes of its source.

    Parameters
    ----------
    labels
        ``(z, y, x)`` uint8: 0 background, 1..104 the ids of ``inference.structures``.
    geometry
        Where ``labels`` sits; the same shape.

    Raises
    ------
    InvalidGeometryError
        If array and geometry differ in shape.
    TypeError
        If ``labels`` is not uint8.
    """

    labels: npt.NDArray[np.uint8]
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.labels.dtype != np.uint8:
            raise TypeError(f"labels must be uint8, not {self.labels.dtype}")
        if self.labels.shape != self.geometry.shape:
            raise InvalidGeometryError(
                f"{self.labels.shape} labels on a {self.geometry.shape} grid"
            )

    def slice_counts(self) -> npt.NDArray[np.int64]:
        """``(z, 256)``, voxels of each id in each plane."""
        counts = np.empty((self.labels.shape[0], 256), dtype=np.int64)
        for z, plane in enumerate(self.labels):
            counts[z] = np.bincount(plane.ravel(), minlength=256)
        return counts

    def present(self) -> tuple[int, ...]:
        """Ids with at least one voxel, background left out, ascending."""
        total = self.slice_counts().sum(axis=0)
        return tuple(int(i) for i in np.flatnonzero(total) if i != BACKGROUND)

    def volumes_ml(self) -> dict[int, float]:
        """Volume of each present structure in millilitres, true to uneven spacing."""
        per_id = self.geometry.voxel_volumes_ml() @ self.slice_counts()
        return {i: float(per_id[i]) for i in self.present()}
