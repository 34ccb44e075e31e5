"""What the listener reads of a data set before it is kept."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs_bridge.receive.header import HeaderError, read_header, series_uid_of
from pacs_bridge.receive.landing import HEAD_BYTES

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def encoded(frames: int, **attributes: object) -> bytes:
    ds = Dataset()
    ds.Rows = 512
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.5"
    ds.PatientID = "synthetic"
    ds.NumberOfFrames = frames
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    return buffer.getvalue()


def test_frames_are_counted() -> None:
    assert read_header(encoded(600), EXPLICIT_LITTLE, "CT").frame_count == 600


@pytest.mark.parametrize("frames", [4611686018427387904, 1_000_001, -4611686018427387904])
def test_a_number_of_frames_that_no_scanner_makes_is_refused(frames: int) -> None:
    # Two of them once overflowed the sum of the ledger and stopped the collector for all series.
    with pytest.raises(HeaderError):
        read_header(encoded(frames), EXPLICIT_LITTLE, "CT")


def test_a_series_whose_name_is_cut_is_not_taken_for_another() -> None:
    data = encoded(1)
    cut = data.index(b"1.2.3.5") + 5
    with pytest.raises(HeaderError):
        read_header(data[:cut], EXPLICIT_LITTLE, "CT")


@pytest.mark.parametrize("is_undefined_length", [True, False])
def test_a_long_sequence_before_the_identifiers_is_read_on(is_undefined_length: bool) -> None:
    item = Dataset()
    item.TextComments = "x" * 1000
    data = encoded(600, DigitalSignaturesSequence=[item], ReferencedImageSequence=[item] * 500)
    ds = dcmread(BytesIO(data), force=True)
    ds["ReferencedImageSequence"].is_undefined_length = is_undefined_length
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, ds)
    data = buffer.getvalue()
    assert len(data) > HEAD_BYTES

    header = read_header(data[:HEAD_BYTES], EXPLICIT_LITTLE, "CT", lambda: data)

    assert (header.series_instance_uid, header.frame_count) == ("1.2.3.5", 600)


@pytest.mark.parametrize("thickness", [b"1,25", b"5 mm", b"nan ", b"\xff\xff\xff\xff"])
def test_a_slice_thickness_that_is_no_number_is_as_if_it_were_not_there(thickness: bytes) -> None:
    data = encoded(1, SliceThickness="1.25")
    assert read_header(data, EXPLICIT_LITTLE, "CT").facts.slice_thickness_mm == 1.25

    odd = read_header(data.replace(b"1.25", thickness), EXPLICIT_LITTLE, "CT")

    assert odd.facts.slice_thickness_mm is None
    assert odd.series_instance_uid == "1.2.3.5"


@pytest.mark.parametrize("number", [b"12.0", b"many", b"9999999999"])
def test_a_number_of_instances_that_is_none_is_as_if_it_were_not_there(number: bytes) -> None:
    data = encoded(1, NumberOfSeriesRelatedInstances="1234567890"[: len(number)])
    said = data[data.index(b"123") :][: len(number)]
    assert read_header(data.replace(said, number), EXPLICIT_LITTLE, "CT").expected_instances is None


def test_a_text_that_is_encoded_as_something_else_is_as_if_it_were_not_there() -> None:
    data = encoded(1, Manufacturer="odd")
    broken = data.replace(b"\x08\x00\x70\x00LO\x04\x00odd ", b"\x08\x00\x70\x00FD\x04\x00odd ")
    assert broken != data
    assert read_header(data, EXPLICIT_LITTLE, "CT").facts.manufacturer == "odd"
    assert read_header(broken, EXPLICIT_LITTLE, "CT").facts.manufacturer == ""


def test_the_series_can_be_told_of_what_cannot_be_understood_but_for_one_that_may_be_cut() -> None:
    data = encoded(1234)
    odd = data.replace(b"1234", b"1.0x")
    with pytest.raises(HeaderError):
        read_header(odd, EXPLICIT_LITTLE, "CT")

    assert series_uid_of(odd, EXPLICIT_LITTLE) == "1.2.3.5"
    end = odd.index(b"1.2.3.5") + 8
    assert series_uid_of(odd[:end], EXPLICIT_LITTLE) == ""  # nothing shows that it ends there
    assert series_uid_of(odd[: end - 2], EXPLICIT_LITTLE) == ""
    assert series_uid_of(odd.replace(b"1.2.3.5", b"../../x"), EXPLICIT_LITTLE) == ""
    assert series_uid_of(b"\xff" * 100, EXPLICIT_LITTLE) == ""
