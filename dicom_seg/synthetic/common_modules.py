"""Attributes that every object of a synthetic series carries: who, when, which, on what."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_seg.synthetic.options import SeriesOptions
from dicom_seg.synthetic.uids import synthetic_uid
from inference.geometry import Geometry

DATE = "20200102"
TIME = "101500"


def study_uid(options: SeriesOptions) -> UID:
    """Study Instance UID: one a seed."""
    return synthetic_uid(options.seed, "study")


def series_uid(options: SeriesOptions) -> UID:
    """Series Instance UID: one a seed and series number."""
    return synthetic_uid(options.seed, "series", options.series)


def frame_of_reference_uid(geometry: Geometry, options: SeriesOptions) -> UID:
    """That of the geometry; where it has none, one a seed."""
    named = geometry.frame_of_reference_uid
    return UID(named) if named else synthetic_uid(options.seed, "frame of reference")


def instance_uid(options: SeriesOptions, number: int) -> UID:
    """SOP Instance UID of the ``number``-th instance of a stack; blind to its content."""
    return synthetic_uid(options.seed, "instance", options.series, options.stack, number)


def common_dataset(geometry: Geometry, options: SeriesOptions, number: int) -> Dataset:
    """Patient, study, series, frame of reference, equipment and SOP common (PS3.3 A.3, A.38)."""
    ds = Dataset()
    subject = options.subject
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = UID(options.kind.value)
    ds.SOPInstanceUID = instance_uid(options, number)
    ds.PatientName = subject.patient_name
    ds.PatientID = subject.patient_id
    ds.PatientBirthDate = subject.birth_date
    ds.PatientSex = subject.sex
    ds.PatientAge = subject.age
    ds.StudyInstanceUID = study_uid(options)
    ds.StudyID = f"SYN{options.seed}"
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = DATE
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = TIME
    ds.StudyDescription = "Synthetic CT"
    ds.AccessionNumber = subject.accession_number
    ds.ReferringPhysicianName = ""
    ds.Modality = "CT"
    ds.SeriesInstanceUID = series_uid(options)
    ds.SeriesNumber = options.series
    ds.SeriesDescription = "Synthetic CT series"
    ds.ProtocolName = "Synthetic"
    ds.BodyPartExamined = "CHEST"
    ds.PatientPosition = options.patient_position
    ds.FrameOfReferenceUID = frame_of_reference_uid(geometry, options)
    ds.PositionReferenceIndicator = ""
    ds.Manufacturer = "PACS Bridge"
    ds.ManufacturerModelName = "Synthetic patient"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"
    ds.InstitutionName = "Synthetic"
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    _, ds.Rows, ds.Columns = geometry.shape
    pixels = options.pixels
    ds.BitsAllocated = pixels.bits_allocated
    ds.BitsStored = pixels.bits_stored
    ds.HighBit = pixels.bits_stored - 1
    ds.PixelRepresentation = int(pixels.signed)
    if pixels.padding is not None:
        _set_padding(ds, options)
    return ds


def _set_padding(ds: Dataset, options: SeriesOptions) -> None:
    if options.pixels.padding is None:
        return
    low, high = options.pixels.padding
    vr = "SS" if options.pixels.signed else "US"
    ds.add_new("PixelPaddingValue", vr, low)
    if high != low:
        ds.add_new("PixelPaddingRangeLimit", vr, high)
