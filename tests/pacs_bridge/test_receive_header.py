"""What the listener reads of a data set before it is kept."""

from __future__ import annotations

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from pacs_bridge.receive.header import HeaderError, read_header

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"


def encoded(frames: int) -> bytes:
    ds = Dataset()
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    ds.SOPInstanceUID = "1.2.3.4"
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.5"
    ds.PatientID = "synthetic"
    ds.NumberOfFrames = frames
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
