"""Who contributed: this software, the scanner of the source, the model."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset

from dicom_seg.codes import CodedTerm
from dicom_seg.read.header import quiet_pydicom
from dicom_seg.seg.copied import fitted
from dicom_seg.seg.request import SegRequest

#: Purposes of reference of contributing equipment (PS3.16 CID 7005).
ACQUISITION_EQUIPMENT: Final = CodedTerm("109101", "Acquisition Equipment", "DCM")
PROCESSING_EQUIPMENT: Final = CodedTerm("109102", "Processing Equipment", "DCM")

_LO_CHARACTERS: Final = 64
_ST_CHARACTERS: Final = 1024
_SCANNER_KEYWORDS: Final = (
    "Manufacturer",
    "InstitutionName",
    "StationName",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
)


def add_equipment(dataset: Dataset, source: Dataset, request: SegRequest) -> None:
    """General and Enhanced General Equipment, Contributing Equipment (PS3.3 C.7.5, C.12.1).

    The object's own equipment is this software; scanner and model are contributors.
    """
    charset = dataset.get("SpecificCharacterSet")
    equipment = request.equipment
    dataset.Manufacturer = fitted(equipment.manufacturer, charset, _LO_CHARACTERS)
    dataset.ManufacturerModelName = fitted(equipment.model_name, charset, _LO_CHARACTERS)
    dataset.DeviceSerialNumber = fitted(equipment.device_serial_number, charset, _LO_CHARACTERS)
    dataset.SoftwareVersions = [
        fitted(text, charset, _LO_CHARACTERS) for text in equipment.software_versions
    ]
    scanner = _scanner(source)
    model = _model(request, charset, f"{dataset.ContentDate}{dataset.ContentTime}")
    dataset.ContributingEquipmentSequence = [*([scanner] if scanner else []), model]


def _scanner(source: Dataset) -> Dataset | None:
    """The acquisition equipment; None where the source does not name its manufacturer."""
    item = Dataset()
    with quiet_pydicom():  # odd values are the source's, and stay
        for keyword in _SCANNER_KEYWORDS:
            if source.get(keyword):
                item[keyword] = source[keyword]
    if "Manufacturer" not in item:
        return None
    item.ContributionDescription = "Acquired the source images"
    item.PurposeOfReferenceCodeSequence = [_purpose(ACQUISITION_EQUIPMENT)]
    return item


def _model(request: SegRequest, charset: object, contributed: str) -> Dataset:
    algorithm = request.algorithm
    item = Dataset()
    item.Manufacturer = fitted(algorithm.source, charset, _LO_CHARACTERS) or "unknown"
    item.ManufacturerModelName = fitted(algorithm.name, charset, _LO_CHARACTERS)
    item.DeviceSerialNumber = fitted(algorithm.digest, charset, _LO_CHARACTERS)
    item.SoftwareVersions = fitted(algorithm.version, charset, _LO_CHARACTERS)
    item.ContributionDateTime = contributed
    item.ContributionDescription = fitted(
        f"Segmentation model. {algorithm.intended_use}".strip(), charset, _ST_CHARACTERS
    )
    item.PurposeOfReferenceCodeSequence = [_purpose(PROCESSING_EQUIPMENT)]
    return item


def _purpose(term: CodedTerm) -> Dataset:
    item = Dataset()
    item.CodeValue = term.value
    item.CodingSchemeDesignator = term.scheme
    item.CodeMeaning = term.meaning
    return item
