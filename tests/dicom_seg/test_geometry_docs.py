"""The table of geometries names reason codes and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from inference.reasons import Reason

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")


def test_every_test_that_proves_a_row_exists():
    named = set(re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT))
    assert len(named) > 20
    for file, name in named:
        path = ROOT / "tests" / "dicom_seg" / file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert name in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, name


def test_every_code_is_one_and_every_code_of_a_series_is_in_the_table():
    codes = set(re.findall(r"`([a-z]+(?:-[a-z]+)+|localizer|derived|incomplete)`", TEXT))
    assert codes <= {reason.value for reason in Reason}
    of_geometry = {
        Reason.GANTRY_TILT, Reason.NON_UNIFORM_SPACING, Reason.MISSING_SLICE,
        Reason.DUPLICATE_SLICE, Reason.SPLIT_STACK, Reason.MIXED_ORIENTATION,
        Reason.LOSSY_SOURCE, Reason.IMPLAUSIBLE_HU, Reason.LOCALIZER, Reason.NOT_CT,
        Reason.DERIVED, Reason.TOO_FEW_SLICES, Reason.INCOMPLETE, Reason.DUPLICATE_POSITION,
        Reason.MIXED_FRAME_OF_REFERENCE, Reason.MIXED_MATRIX, Reason.MISSING_GEOMETRY,
        Reason.NO_RESCALE, Reason.CORRUPT_PIXEL_DATA, Reason.MISSING_IDENTITY,
        Reason.CONFLICTING_INSTANCE, Reason.DUPLICATE_INSTANCE,
    }  # fmt: skip
    assert {reason.value for reason in of_geometry} <= codes
