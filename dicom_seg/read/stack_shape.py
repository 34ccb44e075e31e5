"""Whether the planes of one stack make a volume, and what is odd about the way they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.planes import Plane
from dicom_seg.read.stacks import positions_mm
from inference.finding import Finding
from inference.reasons import Reason

#: Pixel spacings that differ by so small a share are rounded, not different.
SPACING_TOLERANCE: Final = 1e-5
#: Steps between neighbouring planes are equal up to the larger of these.
EVEN_STEP_MM: Final = 0.01
EVEN_STEP_SHARE: Final = 0.01
#: A longer step, in median steps, is a gap if few are; if many are, the spacing is uneven.
GAP_RATIO: Final = 1.5
GAP_SHARE: Final = 0.25
#: Below this the tilt is rounding of the positions.
TILT_DEGREES: Final = 0.1
TILT_SHIFT_MM: Final = 0.1
#: Planes aside of their line by more than this share of a pixel are shifted.
SHIFT_SHARE: Final = 0.5
_RATIO_ROUNDING: Final = 1e-3
_SHOWN: Final = 8


def check_one_grid(planes: Sequence[Plane]) -> None:
    """Refuse planes that do not share frame of reference, matrix and pixel spacing.

    Raises
    ------
    SeriesRefusedError
        `mixed-frame-of-reference` or `mixed-matrix`.
    """
    frames = sorted({plane.frame_of_reference_uid or "none" for plane in planes})
    if len(frames) > 1:
        raise SeriesRefusedError(
            Reason.MIXED_FRAME_OF_REFERENCE, f"{len(frames)} frames of reference: {_list(frames)}"
        )
    matrices = sorted({(plane.row.rows, plane.row.columns) for plane in planes})
    if len(matrices) > 1:
        shown = [f"{rows} x {columns}" for rows, columns in matrices]
        raise SeriesRefusedError(Reason.MIXED_MATRIX, f"rows x columns: {_list(shown)}")
    spacings = np.array([(p.row.row_spacing_mm, p.row.column_spacing_mm) for p in planes])
    if not np.allclose(spacings, spacings[0], rtol=SPACING_TOLERANCE, atol=0):
        shown = [f"{row:g} x {column:g}" for row, column in np.unique(spacings, axis=0)]
        raise SeriesRefusedError(Reason.MIXED_MATRIX, f"pixel spacing, mm: {_list(shown)}")


def shape_findings(planes: Sequence[Plane], rules: SeriesRules) -> tuple[Finding, ...]:
    """What is odd about planes in order, all at positions of their own.

    Raises
    ------
    SeriesRefusedError
        `missing-slice` for a gap beyond the limits of ``rules``, `missing-geometry` for planes
        that lie nowhere above one another.
    """
    if len(planes) < 2:
        return ()
    positions = positions_mm(planes)
    return (
        *_spacing_findings(positions, rules),
        *_line_findings(planes, positions),
    )


def is_even(planes: Sequence[Plane]) -> bool:
    """True if the planes follow each other in equal steps."""
    steps = np.diff(positions_mm(planes))
    return bool(not steps.size or not _uneven(steps).any())


def _uneven(steps: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    median = float(np.median(steps))
    return np.asarray(np.abs(steps - median) > max(EVEN_STEP_MM, EVEN_STEP_SHARE * median))


def _spacing_findings(
    positions: npt.NDArray[np.float64], rules: SeriesRules
) -> tuple[Finding, ...]:
    steps = np.diff(positions)
    median = float(np.median(steps))
    uneven = _uneven(steps)
    longer = uneven & (steps > median)
    limit_mm = min(rules.max_gap_mm, rules.max_gap_ratio * median)
    beyond = longer & (steps > limit_mm * (1 + _RATIO_ROUNDING))
    if beyond.any():
        raise SeriesRefusedError(
            Reason.MISSING_SLICE,
            f"{_gaps(positions, beyond)}; up to {limit_mm:.2f} mm is bridged,"
            f" median step {median:.2f} mm",
        )
    gaps = longer & (steps >= GAP_RATIO * median)
    if gaps.sum() > GAP_SHARE * steps.size:
        gaps = np.zeros_like(gaps)
    findings = []
    if gaps.any():
        findings.append(Finding(Reason.MISSING_SLICE, _gaps(positions, gaps)))
    if (uneven & ~gaps).any():
        detail = f"steps of {steps.min():.2f} to {steps[~gaps].max():.2f} mm, median {median:.2f}"
        findings.append(Finding(Reason.NON_UNIFORM_SPACING, detail))
    return tuple(findings)


def _gaps(positions: npt.NDArray[np.float64], where: npt.NDArray[np.bool_]) -> str:
    shown = [
        f"{positions[i + 1] - positions[i]:.2f} mm between {positions[i]:.2f} and"
        f" {positions[i + 1]:.2f} mm"
        for i in np.flatnonzero(where)
    ]
    return f"{len(shown)} gap{'s' if len(shown) > 1 else ''}: {_list(shown)}"


def _line_findings(
    planes: Sequence[Plane], positions: npt.NDArray[np.float64]
) -> tuple[Finding, ...]:
    """Tilt of the line through the origins, and planes that lie beside that line."""
    row = planes[0].row
    origins = np.array([plane.row.origin_mm for plane in planes])
    sideways = origins - positions[:, None] * np.array(row.normal)
    slope = _robust_slope(positions, sideways)
    tilt = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    drift_mm = float(np.linalg.norm(slope)) * float(positions[-1] - positions[0])
    beside = sideways - positions[:, None] * slope
    beside -= np.median(beside, axis=0)
    shifts_mm = np.abs(beside @ np.array([row.row_cosine, row.column_cosine]).T)
    extent_mm = (row.columns * row.column_spacing_mm, row.rows * row.row_spacing_mm)
    if (shifts_mm > extent_mm).any():
        raise SeriesRefusedError(
            Reason.MISSING_GEOMETRY,
            f"planes lie beside one another: shifted by up to {shifts_mm.max():.1f} mm",
        )
    findings = []
    if tilt >= TILT_DEGREES and drift_mm >= TILT_SHIFT_MM:
        findings.append(Finding(Reason.GANTRY_TILT, f"{tilt:.2f} degrees"))
    pixel_mm = np.array([row.column_spacing_mm, row.row_spacing_mm])
    shifted = (shifts_mm > SHIFT_SHARE * pixel_mm).any(axis=1)
    if shifted.any():
        detail = f"{int(shifted.sum())} planes by up to {shifts_mm.max():.2f} mm"
        findings.append(Finding(Reason.SHIFTED_PLANES, detail))
    return tuple(findings)


def _robust_slope(
    positions: npt.NDArray[np.float64], sideways: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """``(3,)``, sideways mm a mm of position; a few planes beside the line do not bend it.

    The median over pairs half a stack apart.
    """
    half = (len(positions) + 1) // 2
    rise = sideways[half:] - sideways[:-half]
    run = positions[half:] - positions[:-half]
    return np.asarray(np.median(rise / run[:, None], axis=0), dtype=np.float64)


def _list(values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return ", ".join(values[:_SHOWN]) + more
