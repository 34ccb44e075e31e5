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

    def slice_presence(self) -> npt.NDArray[np.bool_]:
        """``(z, 256)``, whether an id is in a plane; a fraction of the cost of counting."""
        present = np.zeros((self.labels.shape[0], 256), dtype=np.bool_)
        for z, plane in enumerate(self.labels):
            flat = np.ascontiguousarray(plane).reshape(-1)
            words = flat[: flat.size // 8 * 8].view(np.uint64)
            present[z, flat[8 * words.size :]] = True
            # Labels come in runs: eight voxels that equal the eight before them say nothing new.
            present[z, words[:1].view(np.uint8)] = True
            new = words[1:][words[1:] != words[:-1]]
            present[z] |= np.bincount(new.view(np.uint8), minlength=256) > 0
        return present

    def present(self) -> tuple[int, ...]:
        """Ids with at least one voxel, background left out, ascending."""
        anywhere = self.slice_presence().any(axis=0)
        return tuple(int(i) for i in np.flatnonzero(anywhere) if i != BACKGROUND)

    def boxes(self) -> dict[int, tuple[slice, slice, slice]]:
        """Bounding box ``(z, y, x)`` of each present structure, by ascending id."""
        depth, height, width = self.labels.shape
        planes = np.zeros((depth, 256), dtype=np.bool_)
        rows = np.zeros((height, 256), dtype=np.bool_)
        columns = np.zeros((width, 256), dtype=np.bool_)
        for z, plane in enumerate(self.labels):
            y, x = np.nonzero(plane)
            ids = plane[y, x]
            planes[z, ids] = True
            rows[y, ids] = True
            columns[x, ids] = True

        def extent(present: npt.NDArray[np.bool_], structure_id: int) -> slice:
            found = np.flatnonzero(present[:, structure_id])
            return slice(int(found[0]), int(found[-1]) + 1)

        return {
            i: (extent(planes, i), extent(rows, i), extent(columns, i))
            for i in map(int, np.flatnonzero(planes.any(axis=0)))
        }

    def centroids_mm(self) -> dict[int, npt.NDArray[np.float64]]:
        """``(3,)`` LPS centroid of the volume of each present structure, by ascending id."""
        weights = np.zeros(256)
        moments = np.zeros((256, 3))
        grid = self.geometry
        for plane, origin, ml in zip(
            self.labels, grid.origins_mm, grid.voxel_volumes_ml(), strict=True
        ):
            y, x = np.nonzero(plane)
            ids = plane[y, x]
            count = np.bincount(ids, minlength=256)
            along_rows = np.bincount(ids, weights=y, minlength=256)
            along_columns = np.bincount(ids, weights=x, minlength=256)
            weights += ml * count
            moments += ml * (
                count[:, None] * origin
                + along_rows[:, None] * grid.row_step_mm
                + along_columns[:, None] * grid.column_step_mm
            )
        return {int(i): moments[i] / weights[i] for i in np.flatnonzero(weights)}

    def volumes_ml(self) -> dict[int, float]:
        """Volume of each present structure in millilitres, true to uneven spacing."""
        per_id = self.geometry.voxel_volumes_ml() @ self.slice_counts()
        return {i: float(per_id[i]) for i in self.present()}
