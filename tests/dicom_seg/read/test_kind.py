"""Which instances hold CT slices: a reformat does, a picture of one does not."""

from __future__ import annotations

import pytest
from pydicom import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    KeyObjectSelectionDocumentStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    PositronEmissionTomographyImageStorage,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_seg.read.attributes import Attributes
from dicom_seg.read.kind import is_companion, is_hounsfield, wrong_class, wrong_image
from inference.reasons import Reason


def reason_of(image_type, **attributes):
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    wrong = wrong_image(Attributes(ds), tuple(image_type.split("\\")))
    return None if wrong is None else wrong[0]


@pytest.mark.parametrize(
    ("sop_class", "modality", "reason"),
    [
        (CTImageStorage, "CT", None),
        (CTImageStorage, "", None),
        (EnhancedCTImageStorage, "CT", None),
        (LegacyConvertedEnhancedCTImageStorage, "CT", None),
        (CTImageStorage, "PT", Reason.NOT_CT),
        (MRImageStorage, "MR", Reason.NOT_CT),
        (PositronEmissionTomographyImageStorage, "PT", Reason.NOT_CT),
        (SegmentationStorage, "SEG", Reason.NOT_CT),
        ("", "CT", Reason.NOT_CT),
        (SecondaryCaptureImageStorage, "CT", Reason.DERIVED),
        (MultiFrameTrueColorSecondaryCaptureImageStorage, "OT", Reason.DERIVED),
    ],
)
def test_class_and_modality_say_whether_it_is_a_ct(sop_class, modality, reason):
    wrong = wrong_class(sop_class, modality)

    assert (None if wrong is None else wrong[0]) is reason


@pytest.mark.parametrize(
    "image_type",
    [
        "ORIGINAL\\PRIMARY\\AXIAL",
        "ORIGINAL\\PRIMARY\\AXIAL\\CT_SOM5 SPI",
        "DERIVED\\PRIMARY\\AXIAL",
        "DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE",
        "DERIVED\\SECONDARY\\MPR\\CT_SOM5 MPR",
        "DERIVED\\SECONDARY\\OTHER\\CSA MPR\\CSAPARALLEL",
        "DERIVED\\SECONDARY\\AXIAL\\CT_SOM7 SPI DUAL\\STD\\SNRG\\DET_A",
        "ORIGINAL\\PRIMARY\\VOLUME\\NONE",
        "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED",
        "ORIGINAL\\PRIMARY\\AXIAL\\HELIX\\3D",
        "",
    ],
)
def test_slices_and_reformats_are_processed(image_type):
    assert reason_of(image_type, PhotometricInterpretation="MONOCHROME2") is None


@pytest.mark.parametrize(
    "image_type",
    [
        "ORIGINAL\\PRIMARY\\LOCALIZER",
        "ORIGINAL\\PRIMARY\\LOCALIZER\\CT_SOM5 TOP",
        "DERIVED\\SECONDARY\\REF_SURVIEW",
        "ORIGINAL\\PRIMARY\\SCOUT",
        "original\\primary\\localizer",
    ],
)
def test_localizers_are_told_by_image_type(image_type):
    assert reason_of(image_type) is Reason.LOCALIZER


@pytest.mark.parametrize(
    "image_type",
    [
        "DERIVED\\SECONDARY\\SCREEN SAVE",
        "DERIVED\\SECONDARY\\PROJECTION IMAGE\\MIP",
        "DERIVED\\PRIMARY\\PERFUSION\\RCBF",
        "DERIVED\\SECONDARY\\VRT",
        "DERIVED\\PRIMARY\\VOLUME\\MAXIMUM",
        "ORIGINAL\\SECONDARY\\DOSE_INFO",
    ],
)
def test_projections_maps_and_captures_are_derived(image_type):
    assert reason_of(image_type) is Reason.DERIVED


def test_colour_and_burned_in_pictures_are_derived():
    assert reason_of("ORIGINAL\\PRIMARY\\AXIAL", PhotometricInterpretation="RGB") is Reason.DERIVED
    assert reason_of("DERIVED\\SECONDARY\\AXIAL", BurnedInAnnotation="YES") is Reason.DERIVED
    assert reason_of("ORIGINAL\\PRIMARY\\AXIAL", BurnedInAnnotation="YES") is None


@pytest.mark.parametrize(
    ("sop_class", "companion"),
    [
        (MediaStorageDirectoryStorage, True),
        (SegmentationStorage, True),
        (RTStructureSetStorage, True),
        (KeyObjectSelectionDocumentStorage, True),
        (CTImageStorage, False),
        (EnhancedCTImageStorage, False),
        (MRImageStorage, False),
        (SecondaryCaptureImageStorage, False),
        ("", False),
    ],
)
def test_objects_about_images_are_companions(sop_class, companion):
    assert is_companion(sop_class) is companion


def test_rescale_types_of_other_quantities_are_told():
    assert all(is_hounsfield(name) for name in ("", "HU", "US", "hu"))
    assert not any(is_hounsfield(name) for name in ("OD", "MGML", "Z_EFF", "HU_MOD", "PCT"))
