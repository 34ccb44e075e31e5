"""Geometries that CT scanners produce, placed on a patient.

The patient stays where it is in LPS; lying differently on the table turns the image planes.
The image as acquired shows the gantry: rows run across the table, columns down to it, and
their cross product points into the gantry, towards the head of a patient who goes in head
first (PS3.3 C.7.3.1.1.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum, StrEnum, auto

import numpy as np
import numpy.typing as npt

from inference.geometry import FloatArray, Geometry


class PatientPosition(StrEnum):
    """How the patient lies and goes in: Patient Position (PS3.3 C.7.3.1.1.2)."""

    HEAD_FIRST_SUPINE = "HFS"
    HEAD_FIRST_PRONE = "HFP"
    HEAD_FIRST_DECUBITUS_RIGHT = "HFDR"
    HEAD_FIRST_DECUBITUS_LEFT = "HFDL"
    FEET_FIRST_SUPINE = "FFS"
    FEET_FIRST_PRONE = "FFP"
    FEET_FIRST_DECUBITUS_RIGHT = "FFDR"
    FEET_FIRST_DECUBITUS_LEFT = "FFDL"

    @property
    def down(self) -> FloatArray:
        """``(3,)``, LPS direction towards the table: the side that the patient lies on."""
        side = {"S": (0, 1, 0), "P": (0, -1, 0), "DR": (-1, 0, 0), "DL": (1, 0, 0)}
        return np.array(side[self.value[2:]], dtype=np.float64)

    @property
    def inward(self) -> FloatArray:
        """``(3,)``, LPS direction into the gantry."""
        return np.array((0, 0, 1 if self.value.startswith("HF") else -1), dtype=np.float64)


class Plane(Enum):
    """Which way the planes of a series run through the patient."""

    AXIAL = auto()  #: as acquired: turns with the patient position
    CORONAL = auto()  #: rows to the patient's left, columns to the feet
    SAGITTAL = auto()  #: rows to the back, columns to the feet


def image_axes(
    position: PatientPosition = PatientPosition.HEAD_FIRST_SUPINE, plane: Plane = Plane.AXIAL
) -> FloatArray:
    """``(3, 3)``: LPS directions of normal, column (down) and row (right), as unit vectors.

    The first is row x column, so that planes stacked along it are in ascending position.
    """
    if plane is Plane.CORONAL:
        row, column = np.array([1.0, 0, 0]), np.array([0, 0, -1.0])
    elif plane is Plane.SAGITTAL:
        row, column = np.array([0, 1.0, 0]), np.array([0, 0, -1.0])
    else:
        column = position.down
        row = np.cross(column, position.inward)
    return np.stack([np.cross(row, column), column, row])


def stack(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    centre_mm: Sequence[float] = (0.0, 0.0, 0.0),
    position: PatientPosition = PatientPosition.HEAD_FIRST_SUPINE,
    plane: Plane = Plane.AXIAL,
    frame_of_reference_uid: str = "",
) -> Geometry:
    """Evenly spaced planes whose middle is at ``centre_mm``.

    Parameters
    ----------
    shape
        ``(z, y, x)``, voxels.
    spacing_mm
        ``(z, y, x)``: between planes, between rows, between columns.
    centre_mm
        LPS.
    """
    steps = image_axes(position, plane) * np.array(spacing_mm)[:, None]
    corner = np.asarray(centre_mm) - (np.array(shape) - 1) / 2 @ steps
    return Geometry(
        shape=shape,
        origins_mm=corner + np.arange(shape[0])[:, None] * steps[0],
        row_step_mm=steps[1],
        column_step_mm=steps[2],
        frame_of_reference_uid=frame_of_reference_uid,
    )


def covering(
    box_mm: npt.ArrayLike,
    spacing_mm: tuple[float, float, float],
    position: PatientPosition = PatientPosition.HEAD_FIRST_SUPINE,
    plane: Plane = Plane.AXIAL,
    frame_of_reference_uid: str = "",
) -> Geometry:
    """Evenly spaced planes that hold a whole box.

    Parameters
    ----------
    box_mm
        ``(2, 3)``: lowest and highest corner, LPS.
    """
    low, high = np.asarray(box_mm, dtype=np.float64)
    extent_mm = np.abs(image_axes(position, plane)) @ (high - low)
    z, y, x = (int(n) for n in np.ceil(extent_mm / np.array(spacing_mm) - 1e-9) + 1)
    return stack((z, y, x), spacing_mm, (low + high) / 2, position, plane, frame_of_reference_uid)


def centre_mm(geometry: Geometry) -> FloatArray:
    """``(3,)``, LPS: half-way between the middles of the first and last plane."""
    _, rows, columns = geometry.shape
    middle = (rows - 1) / 2 * geometry.row_step_mm + (columns - 1) / 2 * geometry.column_step_mm
    ends = geometry.origins_mm[[0, -1]].mean(axis=0)
    return np.asarray(ends + middle, dtype=np.float64)


def centred_on(geometry: Geometry, point_mm: Sequence[float]) -> Geometry:
    """The same planes moved so that their middle is at ``point_mm``, LPS."""
    shift = np.asarray(point_mm, dtype=np.float64) - centre_mm(geometry)
    return replace(geometry, origins_mm=geometry.origins_mm + shift)


def tilted(geometry: Geometry, degrees: float) -> Geometry:
    """The gantry leans: every plane turns about its own middle row, the table goes straight on."""
    turn = _rotation(geometry.column_step_mm, degrees)
    half = (geometry.shape[1] - 1) / 2 * geometry.row_step_mm
    return replace(
        geometry,
        origins_mm=geometry.origins_mm + half - turn @ half,
        row_step_mm=turn @ geometry.row_step_mm,
    )


def turned(geometry: Geometry, axis: Sequence[float], degrees: float) -> Geometry:
    """An oblique stack: the whole of it turns about its middle.

    Parameters
    ----------
    axis
        LPS direction, of any length.
    """
    turn = _rotation(np.asarray(axis, dtype=np.float64), degrees)
    middle = centre_mm(geometry)
    return replace(
        geometry,
        origins_mm=middle + (geometry.origins_mm - middle) @ turn.T,
        row_step_mm=turn @ geometry.row_step_mm,
        column_step_mm=turn @ geometry.column_step_mm,
    )


def unevenly_spaced(geometry: Geometry, steps_mm: Sequence[float]) -> Geometry:
    """The same planes at other distances: ``steps_mm`` are the z - 1 distances of neighbours.

    They are taken along the stack direction, so that a tilted stack stays tilted.
    """
    if len(steps_mm) != geometry.shape[0] - 1:
        raise ValueError(f"{geometry.shape[0]} planes need {geometry.shape[0] - 1} steps")
    along = geometry.stack_step_mm / np.linalg.norm(geometry.stack_step_mm)
    distances = np.concatenate([[0.0], np.cumsum(steps_mm)])[:, None]
    moved = replace(geometry, origins_mm=geometry.origins_mm[0] + distances * along)
    return centred_on(moved, centre_mm(geometry).tolist())


def without_planes(geometry: Geometry, first: int, count: int) -> Geometry:
    """A gap: ``count`` planes from index ``first`` are not there."""
    keep = np.delete(np.arange(geometry.shape[0]), np.arange(first, first + count))
    return replace(
        geometry,
        shape=(len(keep), *geometry.shape[1:]),
        origins_mm=geometry.origins_mm[keep],
    )


def shifted(geometry: Geometry, first: int, rows: float, columns: float) -> Geometry:
    """Planes from index ``first`` on lie aside, by so many rows and columns, in their own plane."""
    aside = rows * geometry.row_step_mm + columns * geometry.column_step_mm
    origins = geometry.origins_mm.copy()
    origins[first:] += aside
    return replace(geometry, origins_mm=origins)


def reversed_stack(geometry: Geometry) -> Geometry:
    """The same planes in the opposite order."""
    return replace(geometry, origins_mm=geometry.origins_mm[::-1])


def _rotation(axis: FloatArray, degrees: float) -> FloatArray:
    """``(3, 3)``: right-handed turn about ``axis`` (Rodrigues)."""
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return np.asarray(turn, dtype=np.float64)
