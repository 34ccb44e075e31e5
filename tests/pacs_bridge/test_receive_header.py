"""What the listener reads of a data set before it is kept."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs_bridge.receive.header import HeaderError, read_header
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
