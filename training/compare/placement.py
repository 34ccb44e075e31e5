"""Two segmentations brought onto one grid: by reordering, by empty planes, or by resampling.

A grid is the same if every voxel centre is, in whatever order a file stores them: NIfTI files
hold rows and planes in other orders than DICOM. What is not the same is resampled only when
asked for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from inference.finding import Finding
from inference.geometry import FloatArray, Geometry
from inference.label_map import LabelMap
from inference.reasons import Reason
from training.compare.plane_stack import distinct_planes, with_empty_planes
from training.compare.side import Side
from training.errors import TrainingError

#: Voxel centres this close are the same: NIfTI headers hold 32-bit numbers.
SAME_MM = 0.05
#: Axes whose cosine is above this run the same way.
_ALONG = 0.9


def onto_one_grid(first: Side, second: Side, resample: bool) -> tuple[Side, Side]:
    """Both sides on the grid of the first, or of the one that stores all its planes.

    Raises
    ------
    TrainingError
        ``other-grid`` if voxel centres differ and ``resample`` is not set.
    """
    second = _turned_like(second, first.geometry)
    if first.sparse and not second.sparse:
        grid = second.geometry
    elif first.sparse and _same_rows(first.geometry, second.geometry):
        grid = _union(first.geometry, second.geometry)
    else:
        grid = first.geometry
    return _on_grid(first, grid, resample), _on_grid(second, grid, resample)


def _on_grid(side: Side, grid: Geometry, resample: bool) -> Side:
    if side.geometry.matches(grid, SAME_MM):
        layers = tuple(LabelMap(layer.labels, grid) for layer in side.layers)
        return replace(side, layers=layers)
    planes = _planes_of(side, grid) if side.sparse else None
    if planes is not None:
        return replace(side, layers=tuple(_spread(layer, grid, planes) for layer in side.layers))
    difference = _difference(side.geometry, grid)
    if not resample:
        raise TrainingError(Reason.OTHER_GRID, difference)
    layers = tuple(_resampled(layer, grid) for layer in side.layers)
    finding = Finding(Reason.RESAMPLED, f"{difference}; {_outside(side, grid)}")
    return replace(side, layers=layers, sparse=False, findings=(*side.findings, finding))


def _turned_like(side: Side, grid: Geometry) -> Side:
    """The same voxels with axes in the order and sense of ``grid``, as far as they are parallel."""
    cosines = _axes(grid).T @ _axes(side.geometry)
    order = np.argmax(np.abs(cosines), axis=1)
    along = cosines[np.arange(3), order]
    if sorted(order) != [0, 1, 2] or np.abs(along).min() < _ALONG:
        return side
    if order[0] != 0 and not side.geometry.is_affine:
        return side
    geometry = _turned_geometry(side.geometry, order, along < 0)
    backward = tuple(slice(None, None, -1 if back else 1) for back in along < 0)
    return replace(
        side,
        layers=tuple(
            LabelMap(layer.labels.transpose(order)[backward], geometry) for layer in side.layers
        ),
    )


def _axes(grid: Geometry) -> FloatArray:
    """``(3, 3)``, columns are unit vectors along z, y and x."""
    steps = np.stack([grid.stack_step_mm, grid.row_step_mm, grid.column_step_mm], axis=1)
    return np.asarray(steps / np.linalg.norm(steps, axis=0), dtype=np.float64)


def _turned_geometry(
    grid: Geometry, order: npt.NDArray[np.intp], backward: npt.NDArray[np.bool_]
) -> Geometry:
    shape = (grid.shape[order[0]], grid.shape[order[1]], grid.shape[order[2]])
    steps = [grid.stack_step_mm, grid.row_step_mm, grid.column_step_mm]
    first, row, column = (steps[axis] for axis in order)
    if order[0] == 0:
        origins = grid.origins_mm
    else:
        origins = grid.origins_mm[0] + np.arange(shape[0])[:, None] * first
    if backward[0]:
        origins = origins[::-1]
    if backward[1]:
        origins, row = origins + (shape[1] - 1) * row, -row
    if backward[2]:
        origins, column = origins + (shape[2] - 1) * column, -column
    return Geometry(shape, origins, row, column, grid.frame_of_reference_uid)


def _same_rows(first: Geometry, second: Geometry) -> bool:
    """Whether planes have the same matrix, direction and place beside the normal."""
    if first.shape[1:] != second.shape[1:]:
        return False
    extent = np.array(first.shape[1:])[:, None]
    steps = np.stack([first.row_step_mm, first.column_step_mm])
    steps -= np.stack([second.row_step_mm, second.column_step_mm])
    apart = second.origins_mm[0] - _line(first, second.origins_mm[0] @ first.normal)
    return bool(np.abs(steps * extent).max() <= SAME_MM and np.abs(apart).max() <= SAME_MM)


def _line(grid: Geometry, along_mm: float) -> FloatArray:
    """Where voxel (., 0, 0) of a plane at this distance along the normal lies."""
    zyx = grid.index_of(grid.origins_mm[0] + (along_mm - grid.positions_mm[0]) * grid.normal)
    return grid.lps_mm([zyx[0], 0, 0])


def _union(first: Geometry, second: Geometry) -> Geometry:
    """The planes of both and those between; those that are the same are taken once."""
    origins = np.concatenate([first.origins_mm, second.origins_mm])
    planes, _ = distinct_planes(origins, first.normal, SAME_MM)
    planes, _ = with_empty_planes(
        planes, first.normal, min(first.spacing_mm[0], second.spacing_mm[0])
    )
    shape = (len(planes), first.shape[1], first.shape[2])
    return Geometry(
        shape, planes, first.row_step_mm, first.column_step_mm, first.frame_of_reference_uid
    )


def _planes_of(side: Side, grid: Geometry) -> npt.NDArray[np.intp] | None:
    """The plane of ``grid`` that each plane of a side is; None unless all that hold any are."""
    if side.geometry.shape[1:] != grid.shape[1:]:
        return None
    last = np.array(grid.shape[1:]) - 1
    ends = [(0, 0), (int(last[0]), 0), (0, int(last[1]))]
    nearest = np.abs(side.geometry.positions_mm[:, None] - grid.positions_mm[None]).argmin(axis=1)
    used = np.any([layer.labels.any(axis=(1, 2)) for layer in side.layers], axis=0)
    for y, x in ends:
        own = side.geometry.lps_mm([[z, y, x] for z in range(side.geometry.shape[0])])
        there = grid.lps_mm([[z, y, x] for z in nearest])
        if np.abs(own - there)[used].max(initial=0.0) > SAME_MM:
            return None
    return np.where(used, nearest, -1)


def _spread(layer: LabelMap, grid: Geometry, planes: npt.NDArray[np.intp]) -> LabelMap:
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for own, there in enumerate(planes):
        if there >= 0:
            labels[there] = layer.labels[own]
    return LabelMap(labels, grid)


def _resampled(layer: LabelMap, grid: Geometry) -> LabelMap:
    """The nearest voxel at every voxel centre of ``grid``; background beyond the border."""
    labels = np.zeros(grid.shape, dtype=np.uint8)
    limits = np.array(layer.labels.shape)
    zyx = np.empty((*grid.shape[1:], 3))
    zyx[..., 1], zyx[..., 2] = np.mgrid[: grid.shape[1], : grid.shape[2]]
    for z, plane in enumerate(labels):
        zyx[..., 0] = z
        index = np.rint(layer.geometry.index_of(grid.lps_mm(zyx))).astype(np.intp)
        inside = ((index >= 0) & (index < limits)).all(axis=-1)
        plane[inside] = layer.labels[tuple(index[inside].T)]
    return LabelMap(labels, grid)


def _outside(side: Side, grid: Geometry) -> str:
    """How much of what a side shows has its voxel centres beyond the border of ``grid``."""
    limits = np.array(grid.shape)
    voxel_ml = side.geometry.voxel_volumes_ml()
    lost_ml = all_ml = 0.0
    for layer in side.layers:
        for z, plane in enumerate(layer.labels):
            rows, columns = np.nonzero(plane)
            zyx = np.stack([np.full(rows.size, z), rows, columns], axis=-1)
            there = np.rint(grid.index_of(side.geometry.lps_mm(zyx)))
            outside = ((there < 0) | (there >= limits)).any(axis=-1)
            lost_ml += float(voxel_ml[z]) * np.count_nonzero(outside)
            all_ml += float(voxel_ml[z]) * rows.size
    return f"{lost_ml:.3f} of {all_ml:.3f} mL lie outside"


def _difference(own: Geometry, grid: Geometry) -> str:
    def text(geometry: Geometry) -> str:
        shape = " x ".join(map(str, geometry.shape))
        spacing = " x ".join(f"{mm:.3f}" for mm in geometry.spacing_mm)
        origin = ", ".join(f"{mm:.2f}" for mm in geometry.origins_mm[0])
        return f"{shape} voxels of {spacing} mm at ({origin})"

    return f"{text(own)}; the other side {text(grid)}"
