"""Series that give no result because something is wrong with them, which is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames

from dicom_seg.read.examination import Outcome, SeriesRules
from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import examine_series
from dicom_seg.synthetic.acquisition import stack, without_planes
from dicom_seg.synthetic.options import ObjectKind, PixelFormat
from dicom_seg.synthetic.pixel_encoding import PixelSyntax
from inference.reasons import Reason
from inference.volume import PADDING_HU

AXIAL = stack((12, 24, 30), (3.0, 1.7, 1.5))
MULTIFRAME = (ObjectKind.ENHANCED_CT, ObjectKind.LEGACY_CONVERTED_CT)


def edit(path, change):
    """Apply ``change(ds)`` to a file, however wrong the outcome is."""
    ds = pydicom.dcmread(path)
    change(ds)
    ds.save_as(path, enforce_file_format=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"FrameOfReferenceUID": "2.25.7"}, Reason.MIXED_FRAME_OF_REFERENCE),
        ({"PixelSpacing": [1.6, 1.5]}, Reason.MIXED_MATRIX),
    ],
    ids=["frame of reference", "pixel spacing"],
)
def test_planes_that_are_no_one_grid_are_refused(write, change, reason, judge):
    verdict = judge(write(plane_overrides=dict.fromkeys(range(6), change)))

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, reason)


def test_planes_of_another_matrix_are_refused(write, judge):
    lower = write(without_planes(AXIAL, 6, 6), seed=1, stack=1)
    upper = replace(without_planes(AXIAL, 0, 6), shape=(6, 24, 32))

    verdict = judge([*lower, *write(upper, seed=1, stack=2)])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MIXED_MATRIX)


MISSING = {
    "ImagePositionPatient": Reason.MISSING_GEOMETRY,
    "ImageOrientationPatient": Reason.MISSING_GEOMETRY,
    "PixelSpacing": Reason.MISSING_GEOMETRY,
    "RescaleSlope": Reason.NO_RESCALE,
    "RescaleIntercept": Reason.NO_RESCALE,
}


@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
@pytest.mark.parametrize(("keyword", "reason"), MISSING.items())
def test_a_missing_attribute_is_named_with_its_instance(write, keyword, reason, value, judge):
    paths = write(plane_overrides={4: {keyword: value}})

    verdict = judge(paths)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, reason)
    assert keyword in verdict.detail.replace(" ", "").replace("(", "").replace(")", "")
    uid = str(pydicom.dcmread(paths[4]).SOPInstanceUID)
    assert uid in verdict.detail


@pytest.mark.parametrize("kind", MULTIFRAME, ids=lambda k: k.name)
@pytest.mark.parametrize(("keyword", "reason"), MISSING.items())
def test_a_missing_attribute_of_frames_is_refused(write, kind, keyword, reason, judge):
    verdict = judge(write(kind=kind, overrides={keyword: None}))

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, reason)


@pytest.mark.parametrize(
    "change",
    [
        {"PixelSpacing": [0, 1.5]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
    ],
    ids=["no distance", "no direction", "rows along columns"],
)
def test_an_impossible_geometry_is_refused(write, change, judge):
    verdict = judge(write(overrides=change))

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MISSING_GEOMETRY)


@pytest.mark.parametrize(
    "keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "PatientID"]
)
@pytest.mark.parametrize("value", [None, ""], ids=["absent", "empty"])
def test_an_empty_identity_is_put_aside(write, keyword, value, judge):
    verdict = judge(write(overrides={keyword: value}))

    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINE, Reason.MISSING_IDENTITY)


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
def test_one_series_of_two_patients_or_studies_is_put_aside(write, keyword, judge):
    verdict = judge(write(plane_overrides={z: {keyword: "2.25.9"} for z in range(6)}))

    assert (verdict.outcome, verdict.reason) == (Outcome.QUARANTINE, Reason.MIXED_IDENTITY)


def test_two_series_are_refused_where_one_is_expected(write, judge):
    verdict = judge([*write(seed=1, series=1), *write(seed=1, series=2)])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.MIXED_SERIES)


def truncate_file(path):
    path.write_bytes(path.read_bytes()[:-200])


def garble_frame(path):
    """A code stream that begins well and goes nowhere."""
    edit(path, lambda ds: setattr(ds, "PixelData", encapsulate([ds.PixelData[16:80]])))


def halve_frame(path):
    """A code stream that stops half-way, in a file that is whole."""

    def halve(ds):
        frames = list(generate_frames(ds.PixelData, number_of_frames=ds.get("NumberOfFrames", 1)))
        ds.PixelData = encapsulate([frame[: len(frame) // 2] for frame in frames])

    edit(path, halve)


def remove_pixels(path):
    edit(path, lambda ds: delattr(ds, "PixelData"))


@pytest.mark.parametrize(
    ("syntax", "spoil"),
    [
        (PixelSyntax.EXPLICIT_LITTLE, truncate_file),
        (PixelSyntax.EXPLICIT_LITTLE, remove_pixels),
        (PixelSyntax.RLE, truncate_file),
        *(
            (syntax, spoil)
            for spoil in (garble_frame, halve_frame)
            for syntax in PixelSyntax
            if not syntax.is_native and syntax.lossy_method is None
        ),
    ],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_corrupt_pixels_of_one_instance_refuse_the_series(write, kind, syntax, spoil, judge):
    paths = write(kind=kind, transfer_syntax_uid=syntax)
    spoilt = paths[len(paths) // 2]
    uid = str(pydicom.dcmread(spoilt).SOPInstanceUID)
    spoil(spoilt)

    verdict = judge(paths)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.CORRUPT_PIXEL_DATA)
    assert uid in verdict.detail


@pytest.mark.parametrize("bits", [1, 12, 32, 64])
def test_words_of_other_than_8_or_16_bits_are_refused_by_instance(write, bits, judge):
    paths = write()
    ds = pydicom.dcmread(paths[4])
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelData = ds.PixelData * 4
    ds.save_as(paths[4])

    verdict = judge(paths)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.CORRUPT_PIXEL_DATA)
    assert str(ds.SOPInstanceUID) in verdict.detail
    assert f"'BitsAllocated': {bits}" in verdict.detail


def test_a_syntax_that_no_ct_comes_in_is_refused(write, judge):
    paths = write(transfer_syntax_uid=PixelSyntax.JPEG_2000_LOSSLESS)
    for path in paths:
        path.write_bytes(
            path.read_bytes().replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.94")
        )

    verdict = judge(paths)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.UNSUPPORTED_SYNTAX)


@pytest.mark.parametrize("rules", [SeriesRules(max_matrix=24), SeriesRules(max_voxels=8000)])
def test_a_series_beyond_the_limits_is_refused(write, rules, judge):
    verdict = judge(write(), rules)

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.TOO_LARGE)


def test_a_folder_without_dicom_is_refused(tmp_path, judge):
    note = tmp_path / "readme.txt"
    note.write_text("not an image")

    verdict = judge([note])

    assert (verdict.outcome, verdict.reason) == (Outcome.REFUSE, Reason.NO_DICOM)


def test_padding_and_hounsfield_units_are_exact(write, body):
    volume = body(AXIAL)
    volume.hu[:, 0] = PADDING_HU
    pixels = PixelFormat(bits_stored=12, signed=False, rescale=((1.0, -1024.0),), padding=(0, 5))

    (plan,) = examine_series(write(volume, pixels=pixels)).stacks

    np.testing.assert_array_equal(read_stack(plan).volume.hu, volume.hu)
