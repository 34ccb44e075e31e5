"""Stored words to Hounsfield units: every value, against arithmetic written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_seg.read.hounsfield import HIGHEST_HU, LOWEST_HU, WordFormat, to_hounsfield
from dicom_seg.read.slice_table import PixelSource, SliceRow
from inference.volume import PADDING_HU

ALL_WORDS = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)


def row(slope=1.0, intercept=-1024.0, padding=None):
    return SliceRow(
        path=Path("x"),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3",
        frame_number=None,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        origin_mm=(0, 0, 0),
        row_cosine=(1, 0, 0),
        column_cosine=(0, 1, 0),
        row_spacing_mm=1.0,
        column_spacing_mm=1.0,
        rows=256,
        columns=256,
        rescale_slope=slope,
        rescale_intercept=intercept,
        padding=padding,
        pixels=PixelSource(0, 1 << 17, 1, 16, 16, 15, signed=False),
    )


def stored_value(word, bits, shift, signed):
    """PS3.5 8.1.1, one word at a time."""
    value = (word >> shift) & ((1 << bits) - 1)
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def expected(bits, shift, signed, row):
    hu = np.empty(1 << 16, np.int16)
    for word in range(1 << 16):
        value = stored_value(word, bits, shift, signed)
        exact = value * row.rescale_slope + row.rescale_intercept
        hu[word] = min(max(round(exact), LOWEST_HU), HIGHEST_HU)
        if row.padding is not None:
            low, high = row.padding
            lowest = -(1 << (bits - 1)) if signed else 0
            if not lowest <= low <= high < lowest + (1 << bits):  # compared as a whole word
                value = stored_value(word, 16, 0, signed)
            if low <= value <= high:
                hu[word] = PADDING_HU
    return hu.reshape(256, 256)


FORMATS = [
    (16, 0, False), (16, 0, True), (12, 0, False), (12, 0, True), (12, 4, False), (12, 4, True),
    (13, 1, True), (8, 0, False), (8, 0, True), (1, 15, False),
]  # fmt: skip
ROWS = [
    row(),
    row(intercept=0.0),
    row(padding=(-2000, -2000)),
    row(padding=(63536, 63536)),
    row(padding=(0, 0)),
    row(padding=(-100, 50)),
    row(slope=2.0, intercept=-3000.0),
    row(slope=0.73, intercept=-1000.25),
    row(slope=-1.0, intercept=12.0, padding=(5, 9)),
    row(slope=1.0, intercept=-100000.0),
    row(slope=1e6, intercept=0.0),
]


@pytest.mark.parametrize("word", FORMATS, ids=str)
@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.rescale_slope}_{r.padding}")
def test_every_word_becomes_its_value(word, row):
    plane = ALL_WORDS.copy().view(np.int16)

    counts = to_hounsfield(plane, WordFormat(*word), row)

    want = expected(*word, row)
    np.testing.assert_array_equal(plane, want)
    assert counts.padded == np.count_nonzero(want == PADDING_HU)


@given(
    st.integers(2, 16),
    st.booleans(),
    st.floats(0.01, 4, allow_nan=False),
    st.integers(-3000, 3000),
    st.lists(st.integers(0, 65535), min_size=1, max_size=20),
)
def test_any_rescale_is_exact_to_half_a_unit(bits, signed, slope, intercept, words):
    plane = np.array([words], np.uint16).view(np.int16)

    to_hounsfield(plane, WordFormat(bits, 0, signed), row(slope, float(intercept)))

    for word, hu in zip(words, plane[0], strict=True):
        exact = stored_value(word, bits, 0, signed) * slope + intercept
        assert math.isclose(min(max(exact, LOWEST_HU), HIGHEST_HU), hu, abs_tol=0.5 + 1e-9)


def test_a_measured_value_is_never_taken_for_padding():
    plane = np.array([[-32768, -32767, 0]], np.int16)

    counts = to_hounsfield(plane, WordFormat(16, 0, signed=True), row(intercept=0.0))

    assert plane.tolist() == [[LOWEST_HU, LOWEST_HU, 0]]
    assert (counts.clipped, counts.padded) == (1, 0)


def test_rounded_and_clipped_voxels_are_counted_without_padding():
    plane = np.array([[0, 1, 2, 3, 40000, 65535]], np.uint16).view(np.int16)

    counts = to_hounsfield(
        plane, WordFormat(16, 0, signed=False), row(0.5, 20000.0, padding=(65535, 65535))
    )

    assert plane.tolist() == [[20000, 20000, 20001, 20002, HIGHEST_HU, PADDING_HU]]
    assert (counts.rounded, counts.clipped, counts.padded) == (2, 1, 1)
