"""Planes of one instance: what decides on their values and on their place."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from dicom_seg.errors import SeriesRefusedError
from dicom_seg.read.examination import SeriesRules
from dicom_seg.read.header import quiet_pydicom, scan_header
from dicom_seg.read.planes import SEPARATORS, planes_of
from dicom_seg.synthetic.acquisition import stack
from dicom_seg.synthetic.options import ObjectKind, PixelFormat, SeriesOptions
from dicom_seg.synthetic.series import write_ct_series
from inference.reasons import Reason
from inference.volume import Volume

RULES = SeriesRules()


@pytest.fixture
def written(tmp_path):
    """``written(change, **options)``: the planes of an instance of 3 planes or frames."""

    def write(change=lambda ds: None, **options):
        geometry = stack((3, 8, 10), (2.0, 1.25, 1.5))
        volume = Volume(np.full(geometry.shape, 40, np.int16), geometry)
        path = write_ct_series(volume, tmp_path / "ct", SeriesOptions(**options))[0]
        ds = pydicom.dcmread(path)
        change(ds)
        ds.save_as(path, enforce_file_format=False)
        with quiet_pydicom():
            return planes_of(scan_header(path), RULES)[0]

    return write


def item(**values):
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def trait(plane, keyword):
    return plane.traits[SEPARATORS.index(keyword)]


@pytest.mark.parametrize("kind", ObjectKind, ids=lambda k: k.name)
def test_the_first_pixel_spacing_is_between_rows(written, kind):
    row = written(kind=kind)[0].row

    assert (row.row_spacing_mm, row.column_spacing_mm) == (1.25, 1.5)
    assert (row.rows, row.columns) == (8, 10)


def test_frames_are_numbered_from_one_and_single_frames_not(written, tmp_path):
    frames = written(kind=ObjectKind.ENHANCED_CT)

    assert [plane.row.frame_number for plane in frames] == [1, 2, 3]
    assert len({plane.row.origin_mm for plane in frames}) == 3


def test_a_single_frame_has_no_number(written):
    (plane,) = written()

    assert plane.row.frame_number is None


@pytest.mark.parametrize(
    ("vr", "stored", "signed", "padding"),
    [
        ("SS", -2000, True, (-2000, -2000)),
        ("US", 63536, True, (-2000, -2000)),  # written with the other VR
        ("SS", -2000, False, (63536, 63536)),
        ("US", 4095, False, (4095, 4095)),
    ],
)
def test_padding_is_read_by_its_bits_whatever_its_vr(written, vr, stored, signed, padding):
    def change(ds):
        ds.add_new("PixelPaddingValue", vr, stored)

    (plane,) = written(change, pixels=PixelFormat(signed=signed, rescale=((1.0, -1024.0),)))

    assert plane.row.padding == padding


@pytest.mark.parametrize("ends", [(-2000, -1500), (-1500, -2000)])
def test_a_range_of_padding_has_two_ends_in_any_order(written, ends):
    def change(ds):
        ds.add_new("PixelPaddingValue", "SS", ends[0])
        ds.add_new("PixelPaddingRangeLimit", "SS", ends[1])

    assert written(change)[0].row.padding == (-2000, -1500)


def test_a_limit_without_a_value_is_no_padding(written):
    def change(ds):
        ds.add_new("PixelPaddingRangeLimit", "SS", -1500)

    assert written(change)[0].row.padding is None


def test_padding_of_a_converted_instance_may_stand_among_the_unassigned(written):
    def change(ds):
        padded = item()
        padded.add_new("PixelPaddingValue", "SS", -2000)
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.UnassignedSharedConvertedAttributesSequence = [padded]

    planes = written(change, kind=ObjectKind.LEGACY_CONVERTED_CT)

    assert {plane.row.padding for plane in planes} == {(-2000, -2000)}


def test_what_separates_frames_is_found_in_their_functional_groups(written):
    def change(ds):
        for number, groups in enumerate(ds.PerFrameFunctionalGroupsSequence):
            groups.FrameContentSequence = [
                item(FrameAcquisitionNumber=number, TemporalPositionIndex=number + 5, StackID="S")
            ]
            groups.CardiacSynchronizationSequence = [item(NominalPercentageOfCardiacPhase=70.0)]
        shared = ds.SharedFunctionalGroupsSequence[0]
        shared.CTReconstructionSequence = [item(ConvolutionKernel="B30f")]

    planes = written(change, kind=ObjectKind.ENHANCED_CT)

    assert [trait(plane, "AcquisitionNumber") for plane in planes] == ["0", "1", "2"]
    assert [trait(plane, "TemporalPositionIndex") for plane in planes] == ["5", "6", "7"]
    assert {trait(plane, "StackID") for plane in planes} == {"S"}
    assert {trait(plane, "NominalPercentageOfCardiacPhase") for plane in planes} == {"70.0"}
    assert {trait(plane, "ConvolutionKernel") for plane in planes} == {"B30f"}


def test_what_separates_slices_is_found_in_the_data_set(written):
    def change(ds):
        ds.AcquisitionNumber, ds.ConvolutionKernel, ds.KVP = 4, ["Br40", "3"], "120"

    (plane,) = written(change)

    assert trait(plane, "AcquisitionNumber") == "4"
    assert trait(plane, "ConvolutionKernel") == "Br40\\3"
    assert trait(plane, "KVP") == "120"


@pytest.mark.parametrize(
    ("syntax", "flag", "lossy"),
    [
        (pydicom.uid.ExplicitVRLittleEndian, None, False),
        (pydicom.uid.ExplicitVRLittleEndian, "00", False),
        (pydicom.uid.ExplicitVRLittleEndian, "01", True),  # once lossy, always lossy
        (pydicom.uid.JPEG2000Lossless, None, False),
        (pydicom.uid.JPEG2000, "00", False),  # the syntax allows both
        (pydicom.uid.JPEG2000, None, True),
    ],
)
def test_loss_is_told_by_syntax_and_flag(written, syntax, flag, lossy):
    def change(ds):
        ds.LossyImageCompression = flag

    assert written(change, transfer_syntax_uid=syntax)[0].lossy is lossy


@pytest.mark.parametrize(
    ("cosines", "fine"),
    [
        ([1, 0, 0, 0, 0.9588197, 0.2840153], True),
        ([0.9999, 0, 0, 0, 1, 0], True),
        ([0.99, 0, 0, 0, 1, 0], False),
        ([1, 0, 0, 0.1, 0.995, 0], False),
        ([2, 0, 0, 0, 2, 0], False),
    ],
    ids=["tilt", "rounded", "short", "no right angle", "long"],
)
def test_direction_cosines_are_units_at_right_angles(written, cosines, fine):
    def change(ds):
        ds.ImageOrientationPatient = cosines

    if fine:
        (plane,) = written(change)
        assert (*plane.row.row_cosine, *plane.row.column_cosine) == tuple(cosines)
        return
    with pytest.raises(SeriesRefusedError, match="ImageOrientationPatient") as caught:
        written(change)
    assert caught.value.reason is Reason.MISSING_GEOMETRY


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PixelSpacing", ["0", "1"]),
        ("PixelSpacing", ["-1", "1"]),
        ("PixelSpacing", ["1e-300", "1"]),
        ("PixelSpacing", ["1", "1e300"]),
        ("PixelSpacing", "1"),
        ("ImagePositionPatient", ["0", "0", "1e300"]),
        ("ImagePositionPatient", ["0", "0"]),
    ],
)
def test_places_beyond_anything_scanned_are_refused(written, keyword, value):
    def change(ds):
        ds[keyword] = pydicom.DataElement(keyword, "LO", value)

    with pytest.raises(SeriesRefusedError, match=keyword) as caught:
        written(change)
    assert caught.value.reason is Reason.MISSING_GEOMETRY


@pytest.mark.parametrize("value", ["0", "1\\2", "", "x"])
def test_an_impossible_slope_is_no_rescale(written, value):
    def change(ds):
        ds["RescaleSlope"] = pydicom.DataElement("RescaleSlope", "LO", value)

    with pytest.raises(SeriesRefusedError, match="RescaleSlope") as caught:
        written(change)
    assert caught.value.reason is Reason.NO_RESCALE


def test_several_frames_in_a_single_frame_class_are_refused(written):
    def change(ds):
        ds.NumberOfFrames = 2

    with pytest.raises(SeriesRefusedError, match="2 frames"):
        written(change)
