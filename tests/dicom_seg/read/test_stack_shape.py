"""What is odd about the way planes lie, in mm and degrees."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.planes import SEPARATORS, Plane
from dicom_seg.read.slice_table import PixelSource, SliceRow
from dicom_seg.read.stack_shape import check_one_grid, is_even, shape_findings
from dicom_seg.read.stacks import in_order
from inference.reasons import Reason

RULES = SeriesRules()


def plane(origin_mm, uid="1", row=(1.0, 0.0, 0.0), column=(0.0, 1.0, 0.0), **changes):
    """One 100 x 100 plane with pixels of 1 mm."""
    return Plane(
        row=SliceRow(
            path=Path(uid),
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            sop_instance_uid=uid,
            frame_number=None,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            origin_mm=tuple(origin_mm),
            row_cosine=row,
            column_cosine=column,
            **{"row_spacing_mm": 1.0, "column_spacing_mm": 1.0, "rows": 100, "columns": 100}
            | changes,
            rescale_slope=1.0,
            rescale_intercept=-1024.0,
            padding=None,
            pixels=PixelSource(0, 20000, 1, 16, 12, 11, signed=False),
        ),
        frame_of_reference_uid="1.2.3",
        traits=("",) * len(SEPARATORS),
        lossy=False,
    )


def at(positions_mm, aside=None, **changes):
    """Axial planes at these z, each moved aside by the x, y of ``aside``."""
    shifts = np.zeros((len(positions_mm), 2)) if aside is None else np.asarray(aside)
    return tuple(
        plane((x, y, z), uid=str(i + 1), **changes)
        for i, (z, (x, y)) in enumerate(zip(positions_mm, shifts, strict=True))
    )


def found(planes, rules=RULES):
    return {finding.reason: finding.detail for finding in shape_findings(planes, rules)}


@pytest.mark.parametrize("step_mm", [0.5, 3.0, 15.0])
def test_even_steps_give_no_finding_however_long(step_mm):
    planes = at(np.arange(12) * step_mm - 700.0)

    assert found(planes) == {}
    assert is_even(planes)


def test_rounded_positions_are_even(rng):
    positions = np.arange(300) * 0.625 + rng.uniform(-0.005, 0.005, 300)

    assert found(at(positions)) == {}


def test_a_missing_slice_is_named_by_its_neighbours():
    (detail,) = found(at([0, 2.5, 5, 10, 12.5, 15])).values()

    assert detail == "1 gap: 5.00 mm between 5.00 and 10.00 mm"


@pytest.mark.parametrize(
    ("steps", "reasons"),
    [
        ([2, 2, 2, 4, 2, 2, 2, 2], {Reason.MISSING_SLICE}),
        ([3, 3, 3, 9, 3, 3, 3, 3], {Reason.MISSING_SLICE}),
        ([2, 2.4, 1.8, 2.1, 2, 1.7], {Reason.NON_UNIFORM_SPACING}),
        ([2.5] * 8 + [5] * 7, {Reason.NON_UNIFORM_SPACING}),
        ([5] * 7 + [2.5] * 8, {Reason.NON_UNIFORM_SPACING}),
        ([2, 2.2, 2, 5, 2, 2, 1.9], {Reason.MISSING_SLICE, Reason.NON_UNIFORM_SPACING}),
    ],
    ids=["one gap", "3 x the median", "jitter", "base and vault", "vault and base", "both"],
)
def test_gaps_and_uneven_steps_are_told_apart(steps, reasons):
    positions = np.concatenate([[0], np.cumsum(steps)])

    assert set(found(at(positions))) == reasons


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        ([2, 2, 2, 6.1, 2, 2], RULES),
        ([5, 5, 5, 10.1, 5, 5], RULES),
        ([2, 2, 2, 5, 2, 2], SeriesRules(max_gap_mm=4)),
        ([2, 2, 2, 5, 2, 2], SeriesRules(max_gap_ratio=2)),
        ([1] * 9 + [10] * 8, RULES),
    ],
    ids=[
        "beyond 3 x the median",
        "beyond 10 mm",
        "limit in mm",
        "limit in steps",
        "half the steps",
    ],
)
def test_a_gap_beyond_the_limits_is_refused(steps, rules):
    with pytest.raises(SeriesRefusedError, match="median step") as caught:
        shape_findings(at(np.concatenate([[0], np.cumsum(steps)])), rules)

    assert caught.value.reason is Reason.MISSING_SLICE


@pytest.mark.parametrize("degrees", [0.5, 16.5, 30.0, -12.0])
def test_a_tilted_gantry_is_measured(degrees):
    angle = math.radians(degrees)
    column = (0.0, math.cos(angle), math.sin(angle))
    planes = in_order(plane((0, 0, 2.5 * z), uid=str(z), column=column) for z in range(20))

    assert found(planes) == {Reason.GANTRY_TILT: f"{abs(degrees):.2f} degrees"}


def test_rounding_of_positions_is_no_tilt():
    assert found(at([0, 1, 2], aside=[(0, 0), (0.001, 0), (0.002, 0)])) == {}


def test_planes_beside_the_line_are_said_to_be():
    aside = np.zeros((12, 2))
    aside[5] = (3.0, 0)
    aside[6] = (0.4, 0)  # less than half a pixel

    assert found(at(np.arange(12) * 2.0, aside)) == {
        Reason.SHIFTED_PLANES: "1 planes by up to 3.00 mm"
    }


def test_planes_that_do_not_lie_above_one_another_are_refused():
    aside = np.zeros((12, 2))
    aside[6:] = (500, 0)

    with pytest.raises(SeriesRefusedError, match="beside one another") as caught:
        shape_findings(at(np.arange(12) * 2.0, aside), RULES)

    assert caught.value.reason is Reason.MISSING_GEOMETRY


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": 99}, Reason.MIXED_MATRIX),
        ({"columns": 99}, Reason.MIXED_MATRIX),
        ({"row_spacing_mm": 1.001}, Reason.MIXED_MATRIX),
        ({"column_spacing_mm": 0.9}, Reason.MIXED_MATRIX),
    ],
)
def test_one_plane_of_another_grid_is_refused(change, reason):
    planes = (*at(np.arange(11) * 2.0), plane((0, 0, 22), uid="99", **change))

    with pytest.raises(SeriesRefusedError) as caught:
        check_one_grid(planes)

    assert caught.value.reason is reason


def test_rounding_of_pixel_spacing_is_one_grid():
    check_one_grid((*at([0, 2]), plane((0, 0, 4), uid="9", row_spacing_mm=1.000001)))


@pytest.mark.parametrize("other", ["1.2.4", ""])
def test_a_plane_of_another_frame_of_reference_is_refused(other):
    planes = (*at([0, 2]), replace(plane((0, 0, 4), uid="9"), frame_of_reference_uid=other))

    with pytest.raises(SeriesRefusedError) as caught:
        check_one_grid(planes)

    assert caught.value.reason is Reason.MIXED_FRAME_OF_REFERENCE


def test_one_plane_alone_is_not_odd():
    assert shape_findings(at([5.0]), RULES) == ()
