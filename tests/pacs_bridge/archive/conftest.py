"""Archives of synthetic headers, written fast: bytes of one instance with other names in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

_SERIES = "1.2.826.0.1.3680043.8.498.1.100000000"
_STUDY = "1.2.826.0.1.3680043.8.498.2.100000000"
_INSTANCE = "1.2.826.0.1.3680043.8.498.3.100000000.10000"
_Z = "-0000.00"


def header_bytes(**attributes: object) -> bytes:
    """A CT instance of 8 x 8 pixels in which series, instance and place can be replaced."""
    ds = Dataset()
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID = CTImageStorage
    ds.SOPInstanceUID = _INSTANCE
    ds.StudyDate = "20260101"
    ds.AccessionNumber = "A-1"
    ds.Modality = "CT"
    ds.PatientName = "Doe^Jane"
    ds.PatientID = "PID-1"
    ds.PatientBirthDate = "19700101"
    ds.StudyInstanceUID = _STUDY
    ds.SeriesInstanceUID = _SERIES
    ds.FrameOfReferenceUID = _STUDY + ".1"
    ds.ImagePositionPatient = ["0", "0", _Z]
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.PixelSpacing = ["3", "3"]
    ds.Rows = ds.Columns = 8
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 1
    ds.RescaleSlope, ds.RescaleIntercept = "1", "0"
    ds.PixelData = bytes(128)
    syntax = attributes.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    content = io.BytesIO()
    ds.save_as(content, enforce_file_format=True)
    return content.getvalue().replace(
        _padded(ExplicitVRLittleEndian), _padded(str(syntax), len(_padded(ExplicitVRLittleEndian)))
    )


def _padded(uid: str, length: int | None = None) -> bytes:
    text = uid.encode() + b"\0" * (len(uid) % 2)
    if length is not None:
        assert len(text) == length, "a transfer syntax UID of another length"
    return text


def series_uid(number: int) -> str:
    return f"{_SERIES[:-9]}{100_000_000 + number}"


def instances(template: bytes, series: int, planes: range) -> Iterator[bytes]:
    """Planes 2 mm apart of one series made of a template."""
    of_series = template.replace(_SERIES.encode(), series_uid(series).encode())
    of_series = of_series.replace(_STUDY.encode(), f"{_STUDY[:-9]}{100_000_000 + series}".encode())
    for plane in planes:
        instance = f"{_INSTANCE[:-15]}{100_000_000 + series}.{10_000 + plane}".encode()
        place = f"{2.0 * plane:08.2f}".encode()
        yield of_series.replace(_INSTANCE.encode(), instance).replace(_Z.encode(), place)


@dataclass
class ArchiveTree:
    """A folder tree that is filled by templates; counts what is put in."""

    root: Path
    series: int = 0
    expected: dict[str, int] = field(default_factory=dict)

    def add(
        self, outcome: str, folder: str, planes: int = 12, uid: int = 0, first: int = 0, **attributes: object
    ) -> int:
        """A series of which ``outcome`` is expected: ``run`` or a reason code; gives its number."""
        self.series += 1
        number = uid or self.series
        place = self.root / folder
        place.mkdir(parents=True, exist_ok=True)
        template = header_bytes(**attributes)
        for plane, content in enumerate(instances(template, number, range(first, first + planes))):
            (place / f"{number:06d}-{first + plane}").write_bytes(content)
        if outcome:
            self.expected[outcome] = self.expected.get(outcome, 0) + 1
        return number


@pytest.fixture
def tree(ram_folder) -> ArchiveTree:
    root = ram_folder / "archive"
    root.mkdir()
    return ArchiveTree(root)


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def zip_tree() -> Callable[[Path, Path], None]:
    """Put what lies in a folder into a zip file."""

    def run(folder: Path, path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for each in sorted(folder.rglob("*")):
                if each.is_file():
                    target.write(each, each.relative_to(folder))

    return run
