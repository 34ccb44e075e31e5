"""Typed values of data sets, whatever their author put in."""

from __future__ import annotations

import struct
from contextlib import suppress
from io import BytesIO

import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from dicom_seg.read import attributes as attributes_module
from dicom_seg.read.attributes import Attributes, tag_of
from dicom_seg.read.header import quiet_pydicom


@pytest.fixture(autouse=True)
def quiet():
    """As wherever files are read."""
    with quiet_pydicom():
        yield


def raw(keyword, value, vr):
    """A data set with one element as it comes from a file."""
    ds = Dataset()
    tag = Tag(keyword)
    ds[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)
    return Attributes(ds)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (b"2.5", 2.5), (b" 2.5 ", 2.5), (b"-1E2", -100.0), (b"", None), (b" ", None),
        (b"1\\2", None), (b"abc", None), (b"nan", None), (b"inf", None), (b"1e999", None),
        (b"1,5", None), (b"\xff\xfe", None),
    ],
)  # fmt: skip
def test_a_number_is_one_and_finite_or_none(value, number):
    assert raw("RescaleSlope", value, "DS").number("RescaleSlope") == number


@pytest.mark.parametrize(
    ("value", "numbers"),
    [
        (b"1\\2\\3", (1.0, 2.0, 3.0)), (b"1\\2", None), (b"1\\2\\3\\4", None), (b"1\\\\3", None),
        (b"1\\x\\3", None), (b"1\\2\\inf", None),
    ],
)  # fmt: skip
def test_numbers_are_as_many_as_asked_for(value, numbers):
    attributes = raw("ImagePositionPatient", value, "DS")

    assert attributes.numbers("ImagePositionPatient", 3) == numbers


def test_a_whole_number_is_of_its_vr():
    assert raw("Rows", b"\x00\x02", "US").integer("Rows", vr="US") == 512
    assert raw("Rows", b"\x00\x02\x00\x00", "UL").integer("Rows", vr="US") is None
    assert raw("Rows", b"\x00", "US").integer("Rows", vr="US") is None
    assert raw("NumberOfFrames", b"12", "IS").integer("NumberOfFrames") == 12
    assert raw("NumberOfFrames", b"1.5", "IS").integer("NumberOfFrames") is None


def test_texts_lose_padding_and_control_characters():
    assert raw("ImageType", b"DERIVED \\ PRIMARY\0", "CS").texts("ImageType") == (
        "DERIVED", "PRIMARY"
    )  # fmt: skip
    assert raw("PatientID", b"a\nb", "LO").text("PatientID") == "a?b"
    assert raw("ImageType", b"\\\\", "CS").texts("ImageType") == ()
    assert raw("PatientID", b"", "LO").text("PatientID") == ""


@pytest.mark.parametrize(
    ("value", "uid"),
    [
        (b"1.2.840\0", "1.2.840"), (b"1.02.3", "1.02.3"), (b"../../x", ""), (b"1.2\\1.3", ""),
        (b"1." * 33, ""), (b"", ""), (b".1", ""),
    ],
)  # fmt: skip
def test_a_uid_is_made_like_one_or_empty(value, uid):
    assert raw("SOPInstanceUID", value, "UI").uid("SOPInstanceUID") == uid


def file_of(charset=b"", implicit=False, **elements):
    """A data set as it is read from a file: pairs of VR and bytes by keyword."""
    given = {"SpecificCharacterSet": ("CS", charset)} | elements
    content = b""
    for keyword, (vr, value) in sorted(given.items(), key=lambda item: Tag(item[0])):
        tag = Tag(keyword)
        content += struct.pack("<HH", tag.group, tag.element)
        if implicit:
            content += struct.pack("<I", len(value))
        elif vr == "UN":
            content += struct.pack("<2sxxI", vr.encode(), len(value))
        else:
            content += struct.pack("<2sH", vr.encode(), len(value))
        content += value
    return read_dataset(BytesIO(content), implicit, True)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("RescaleSlope", "DS", b"2.50"), ("RescaleSlope", "DS", b"abc "),
        ("KVP", "DS", b"\xe9\xff"), ("ImagePositionPatient", "DS", b"1\\-2.0\\3e1 "),
        ("ImageType", "CS", b"DERIVED \\ PRIMARY"), ("ImageType", "CS", b"\\\\"),
        ("Rows", "US", b"\x00\x02"), ("Rows", "US", b"\x00\x02\x00\x00"), ("Rows", "US", b"\x01"),
        ("NumberOfFrames", "IS", b"12"), ("NumberOfFrames", "IS", b"1.5 "),
        ("SOPInstanceUID", "UI", b"1.2.840\0"), ("PatientName", "PN", b"Doe^J\xe9r\xf4me "),
        ("PatientID", "LO", b"M\xfcller\\2"), ("PatientBirthDate", "DA", b"19700101"),
        ("PixelPaddingValue", "SS", b"\x30\xf8"), ("TriggerTime", "DS", b""),
        ("AcquisitionTime", "TM", b"101010.5"), ("KVP", "LO", b"120 "), ("KVP", "UN", b"120 "),
    ],
)  # fmt: skip
def test_what_was_decoded_before_is_what_pydicom_makes_of_it(keyword, vr, value, implicit):
    for charset in (b"ISO_IR 100", b"ISO_IR 192", b"ISO_IR 100"):
        elements = {keyword: (vr, value), "PixelRepresentation": ("US", b"\1\0")}
        ds = file_of(charset, implicit, **elements)
        for _ in range(2):
            attributes = Attributes(ds)
            kept = attributes.texts(keyword), attributes.numbers(keyword, 1)
            kept += (attributes.integer(keyword, vr="US"),)
            decoded = file_of(charset, implicit, **elements)
            with suppress(Exception):
                _ = decoded[keyword]
            alone = Attributes(decoded)
            assert kept == (
                alone.texts(keyword), alone.numbers(keyword, 1), alone.integer(keyword, vr="US"),
            )  # fmt: skip


def test_an_element_is_decoded_once_and_stays_as_it_is_stored(monkeypatch):
    decoded = []
    convert = attributes_module.convert_raw_data_element

    def counted(raw, **options):
        decoded.append(raw.tag)
        return convert(raw, **options)

    monkeypatch.setattr(attributes_module, "convert_raw_data_element", counted)
    for _ in range(5):
        ds = file_of(KVP=("DS", b"117.25"), PatientName=("PN", b"Roe^Decoded Once"))
        attributes = Attributes(ds)
        assert (attributes.number("KVP"), attributes.text("PatientName")) == (
            117.25, "Roe^Decoded Once",
        )  # fmt: skip
        assert isinstance(ds.get_item("KVP"), RawDataElement)
    assert len(decoded) == 2


def test_the_first_data_set_that_has_an_attribute_wins():
    own, shared = Dataset(), Dataset()
    own.KVP = "100"
    shared.KVP, shared.SliceThickness = "120", "2"
    attributes = Attributes(own, shared)

    assert attributes.number("KVP") == 100
    assert attributes.number("SliceThickness") == 2


def test_sequences_are_items_or_nothing():
    ds = Dataset()
    ds.PlanePositionSequence = [Dataset()]
    ds.PlanePositionSequence[0].ImagePositionPatient = [1, 2, 3]
    ds.PixelMeasuresSequence = []

    assert Attributes(ds).item("PlanePositionSequence").numbers("ImagePositionPatient", 3)
    assert Attributes(ds).items("PixelMeasuresSequence") == ()
    assert Attributes(ds).item("PlaneOrientationSequence").text("ImageOrientationPatient") == ""
    assert raw("PlanePositionSequence", b"no sequence", "LO").items("PlanePositionSequence") == ()


def test_a_sequence_that_cannot_be_read_has_no_items():
    attributes = raw("PlanePositionSequence", b"\xfe\xff\x00\xe0\xff", "SQ")

    assert attributes.items("PlanePositionSequence") == ()


def test_tags_are_those_of_the_dictionary():
    assert tag_of("PixelSpacing") == 0x00280030
