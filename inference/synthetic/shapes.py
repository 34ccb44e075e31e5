"""Implicit solids in millimetres, evaluated on any points.

A shape's ``level`` is negative inside, positive outside, and near the surface roughly the
distance to it in millimetres, so that a wall or a cortex is a band of levels. Coordinates
are those of the reference body: +x left, +y back, +z head, millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]
Point = tuple[float, float, float]
Matrix = npt.NDArray[np.float64]

#: Step of the table that a loft is read from, mm.
LOFT_STEP_MM = 0.5


@dataclass(frozen=True, slots=True)
class Box:
    """Axis-aligned bounds in the reference body, mm."""

    low: Point
    high: Point

    def corners(self) -> Matrix:
        """``(8, 3)``, the corner points."""
        grid = np.meshgrid(*zip(self.low, self.high, strict=True), indexing="ij")
        return np.stack(grid, axis=-1).reshape(8, 3)

    def intersect(self, other: Box) -> Box:
        """The overlap; where there is none, a box without extent."""
        low = np.maximum(self.low, other.low)
        high = np.maximum(np.minimum(self.high, other.high), low)
        return Box(_point(low), _point(high))


class Shape(Protocol):
    """What the painter asks of a solid."""

    @property
    def box(self) -> Box:
        """Bounds outside of which ``level`` is positive."""

    def level(self, x: Field, y: Field, z: Field) -> Field:
        """Level in mm at points that broadcast to one shape; negative inside."""


def _point(values: npt.ArrayLike) -> Point:
    x, y, z = (float(v) for v in np.asarray(values, dtype=np.float64))
    return (x, y, z)


def rotation(x_degrees: float = 0.0, y_degrees: float = 0.0, z_degrees: float = 0.0) -> Matrix:
    """3 x 3 rotation about x, then y, then z, right-handed in LPS."""
    (cx, cy, cz), (sx, sy, sz) = (
        f(np.radians([x_degrees, y_degrees, z_degrees])) for f in (np.cos, np.sin)
    )
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Ellipsoid:
    """``|R^T (p - centre) / radii| <= 1``; the columns of ``R`` are the axes."""

    centre: Point
    radii: Point
    axes: Matrix = field(default_factory=lambda: np.eye(3))

    @property
    def box(self) -> Box:
        """Tight bounds of the rotated ellipsoid."""
        half = np.sqrt(((self.axes * np.asarray(self.radii)) ** 2).sum(axis=1))
        centre = np.asarray(self.centre)
        return Box(_point(centre - half), _point(centre + half))

    def level(self, x: Field, y: Field, z: Field) -> Field:
        """Level in mm, exact on the surface."""
        x, y, z = (v - np.float32(c) for v, c in zip((x, y, z), self.centre, strict=True))
        total: Field | None = None
        for axis, radius in zip(self.axes.T, self.radii, strict=True):
            a, b, c = (axis / radius).astype(np.float32)
            along = a * x + b * y + c * z
            along *= along
            total = along if total is None else total + along
        assert total is not None
        return np.asarray((np.sqrt(total) - 1) * np.float32(min(self.radii)), dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Capsule:
    """A segment with a radius at either end.

    ``flatten`` above 1 makes the cross-section higher than wide: heights are divided by it
    before the distance is taken, as a rib is a band rather than a rod.
    """

    start: Point
    end: Point
    start_radius_mm: float
    end_radius_mm: float
    flatten: float = 1.0

    @property
    def box(self) -> Box:
        """Bounds of the two end balls."""
        reach = np.array([1.0, 1.0, self.flatten])
        first, last = np.asarray(self.start), np.asarray(self.end)
        low = np.minimum(first - self.start_radius_mm * reach, last - self.end_radius_mm * reach)
        high = np.maximum(first + self.start_radius_mm * reach, last + self.end_radius_mm * reach)
        return Box(_point(low), _point(high))

    def level(self, x: Field, y: Field, z: Field) -> Field:
        """Distance to the segment less the radius there."""
        squash = np.array([1.0, 1.0, 1.0 / self.flatten])
        start = (np.asarray(self.start) * squash).astype(np.float32)
        axis = (np.asarray(self.end) * squash).astype(np.float32) - start
        x, y = x - start[0], y - start[1]
        z = z * np.float32(squash[2]) - start[2]
        along = (axis[0] * x + axis[1] * y + axis[2] * z) / np.float32(max(axis @ axis, 1e-6))
        along = np.clip(along, 0, 1)
        dx, dy, dz = x - along * axis[0], y - along * axis[1], z - along * axis[2]
        slope = np.float32(self.end_radius_mm - self.start_radius_mm)
        radius = np.float32(self.start_radius_mm) + slope * along
        return np.asarray(np.sqrt(dx * dx + dy * dy + dz * dz) - radius, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Section:
    """One cross-section of a loft, mm."""

    z: float
    x: float
    y: float
    half_width: float
    half_depth: float


@dataclass(frozen=True, slots=True, eq=False)
class Loft:
    """Rounded cross-sections joined along z.

    Parameters
    ----------
    sections
        Two or more, by rising z; between them centre and extents run linearly.
    squareness
        0 an ellipse, towards 1 a rounded rectangle.
    lean
        Heights are read at ``z + lean * (lean_from - y)``: sections incline forward and
        down, as the planes of the ribs do.
    lean_from
        The y at which heights are true, mm.
    """

    sections: tuple[Section, ...]
    squareness: float = 0.0
    lean: float = 0.0
    lean_from: float = 0.0
    _table: npt.NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        knots = np.array([s.z for s in self.sections])
        heights = np.arange(knots[0], knots[-1] + LOFT_STEP_MM, LOFT_STEP_MM)
        columns = [
            np.interp(heights, knots, [getattr(s, name) for s in self.sections])
            for name in ("x", "y", "half_width", "half_depth")
        ]
        object.__setattr__(self, "_table", np.stack(columns).astype(np.float32))

    @property
    def box(self) -> Box:
        """Bounds of all sections."""
        x, y, width, depth = self._table
        low_y, high_y = float((y - depth).min()), float((y + depth).max())
        shifts = (self.lean * (self.lean_from - low_y), self.lean * (self.lean_from - high_y))
        return Box(
            (float((x - width).min()), low_y, self.sections[0].z - max(*shifts, 0.0)),
            (float((x + width).max()), high_y, self.sections[-1].z - min(*shifts, 0.0)),
        )

    def level(self, x: Field, y: Field, z: Field) -> Field:
        """Scaled radial level within the run of the sections; positive beyond its ends."""
        height = z + np.float32(self.lean) * (np.float32(self.lean_from) - y) if self.lean else z
        first, last = np.float32(self.sections[0].z), np.float32(self.sections[-1].z)
        row = ((height - first) * np.float32(1 / LOFT_STEP_MM)).astype(np.int32)
        row = np.clip(row, 0, self._table.shape[1] - 1)
        centre_x, centre_y, width, depth = (np.take(column, row) for column in self._table)
        u, v = (x - centre_x) / width, (y - centre_y) / depth
        u, v = u * u, v * v
        radial = u + v
        if self.squareness:
            radial = radial - np.float32(self.squareness) * u * v
            radial = np.maximum(radial, np.maximum(u, v))
        level = (np.sqrt(radial) - 1) * np.minimum(width, depth)
        return np.asarray(
            np.maximum(level, np.maximum(first - height, height - last)), dtype=np.float32
        )


@dataclass(frozen=True, slots=True)
class HalfSpace:
    """Everything behind a plane: ``normal . (p - point) <= 0``."""

    point: Point
    normal: Point

    @property
    def box(self) -> Box:
        """Unbounded."""
        return Box((-1e4, -1e4, -1e4), (1e4, 1e4, 1e4))

    def level(self, x: Field, y: Field, z: Field) -> Field:
        """Distance to the plane."""
        normal = np.asarray(self.normal) / np.linalg.norm(self.normal)
        a, b, c = normal.astype(np.float32)
        offset = np.float32(normal @ np.asarray(self.point))
        return np.asarray(a * x + b * y + c * z - offset, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Cut:
    """``solid`` inside of everything in ``within`` and outside of everything in ``without``."""

    solid: Shape
    within: tuple[Shape, ...] = ()
    without: tuple[Shape, ...] = ()

    @property
    def box(self) -> Box:
        """Bounds of the solid and of what it must lie within."""
        box = self.solid.box
        for other in self.within:
            box = box.intersect(other.box)
        return box

    def level(self, x: Field, y: Field, z: Field) -> Field:
        """Maximum of the levels, those of ``without`` negated."""
        level = self.solid.level(x, y, z)
        for other in self.within:
            level = np.maximum(level, other.level(x, y, z))
        for other in self.without:
            level = np.maximum(level, -other.level(x, y, z))
        return level


@dataclass(frozen=True, slots=True)
class Inset:
    """``solid`` shrunk by ``depth_mm`` all round."""

    solid: Shape
    depth_mm: float

    @property
    def box(self) -> Box:
        """Bounds of the solid itself."""
        return self.solid.box

    def level(self, x: Field, y: Field, z: Field) -> Field:
        """The solid's level, raised."""
        return self.solid.level(x, y, z) + np.float32(self.depth_mm)


def tube(
    points: Sequence[Point], radii_mm: Sequence[float] | float, flatten: float = 1.0
) -> tuple[Capsule, ...]:
    """Capsules along a polyline, one radius for each point or one for all."""
    radii = [radii_mm] * len(points) if isinstance(radii_mm, float | int) else list(radii_mm)
    return tuple(
        Capsule(a, b, float(ra), float(rb), flatten)
        for a, b, ra, rb in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True)
    )


def smooth_curve(points: Sequence[Point], per_segment: int = 4) -> tuple[Point, ...]:
    """Catmull-Rom spline through ``points``, ``per_segment`` steps between neighbours."""
    knots = np.asarray(points, dtype=np.float64)
    padded = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    steps = np.arange(per_segment)[:, None] / per_segment
    curve = [
        0.5
        * (
            2 * b
            + (c - a) * steps
            + (2 * a - 5 * b + 4 * c - d) * steps**2
            + (3 * b - a - 3 * c + d) * steps**3
        )
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return tuple(_point(p) for p in np.vstack([*curve, knots[-1:]]))
