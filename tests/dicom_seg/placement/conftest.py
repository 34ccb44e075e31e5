"""A segmenter of bright voxels, and readers of series and Segmentations that are not ours.

The readers share no code with the package: headers by pydicom,
compressed pixels by GDCM, BINARY frames unpacked here, planes put in patient millimetres by
the formula of PS3.3 C.7.6.2.1.1.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import gdcm
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from dicom_seg.read.reader import read_stack
from dicom_seg.read.series import Outcome, SeriesExamination
from dicom_seg.segmentation import SegKind, SegRequest, write_segmentation
from dicom_seg.verification import verify_segmentation
from inference.geometry import Geometry
from inference.identity import SegmenterIdentity
from inference.label_map import LabelMap
from inference.structures import STRUCTURE_BY_NAME
from inference.volume import Volume

ANATOMY_CODES = Path(__file__).resolve().parents[3] / "dicom_seg" / "data" / "anatomy_codes.csv"


@pytest.fixture(scope="session")
def blobs() -> Callable[..., Volume]:
    """``blobs(geometry, seed)``: bright and very bright lumps in tissue, no two volumes alike."""

    def make(geometry: Geometry, seed: int = 0) -> Volume:
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal(geometry.shape)
        for axis in range(3):
            noise = sum(np.roll(noise, step, axis) for step in range(-2, 3))
        lumps = noise / noise.std()
        hu = np.full(geometry.shape, 40, dtype=np.int16)
        hu[lumps > 1] = 700
        hu[lumps > 2] = 1400
        hu[lumps < -1] = -1000
        return Volume(hu, geometry)

    return make


@dataclass(frozen=True)
class ForeignPlane:
    """One plane as a reader that is not ours sees it."""

    key: tuple[str, int | None]  #: SOP Instance UID and frame number
    position_mm: npt.NDArray[np.float64]
    orientation: npt.NDArray[np.float64]  #: row, then column direction
    spacing_mm: npt.NDArray[np.float64]  #: between rows, between columns

    def lps_mm(self, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
        """(y, x, 3) position of every pixel."""
        y, x = np.indices(shape)
        along_row = np.multiply.outer(x * self.spacing_mm[1], self.orientation[:3])
        along_column = np.multiply.outer(y * self.spacing_mm[0], self.orientation[3:])
        return self.position_mm + along_row + along_column


@dataclass(frozen=True)
class SourcePlane(ForeignPlane):
    """A plane of a CT."""

    hu: npt.NDArray[np.float64]  #: (y, x); NaN where padding


@dataclass(frozen=True)
class SegFrame(ForeignPlane):
    """A frame of a Segmentation; the key is that of the slice that it refers to."""

    masks: dict[str, npt.NDArray[np.bool_]]  #: by name of the structure, (y, x)


@dataclass(frozen=True)
class BrightSegmenter:
    """Marks what is bright, by side, and what is very bright, as the middle.

    What it must have found can be read from a source plane alone: ``expected``.
    """

    side_x_mm: float  #: LPS x; what is beyond it is left
    bright_hu: float = 300
    very_bright_hu: float = 1000

    left = "kidney_left"
    right = "kidney_right"
    middle = "aorta"

    def segment(self, volume: Volume) -> LabelMap:
        labels = np.zeros(volume.hu.shape, dtype=np.uint8)
        indices = np.moveaxis(np.indices(labels.shape), 0, -1)
        left = volume.geometry.lps_mm(indices)[..., 0] > self.side_x_mm
        bright = volume.hu > self.bright_hu
        labels[bright & left] = STRUCTURE_BY_NAME[self.left].id
        labels[bright & ~left] = STRUCTURE_BY_NAME[self.right].id
        labels[volume.hu > self.very_bright_hu] = STRUCTURE_BY_NAME[self.middle].id
        return LabelMap(labels, volume.geometry)

    def expected(self, plane: SourcePlane) -> dict[str, npt.NDArray[np.bool_]]:
        left = plane.lps_mm(plane.hu.shape)[..., 0] > self.side_x_mm
        very = plane.hu > self.very_bright_hu
        bright = (plane.hu > self.bright_hu) & ~very
        found = {self.left: bright & left, self.right: bright & ~left, self.middle: very}
        return {name: mask for name, mask in found.items() if mask.any()}

    def check(self, frames: Iterable[SegFrame], planes: Iterable[SourcePlane]) -> set[str]:
        """Every frame is its slice's, in place and pixels; every bright pixel is in a frame.

        Returns the names of the structures that were found.
        """
        source = {plane.key: plane for plane in planes}
        expected = {
            (key, name): mask
            for key, plane in source.items()
            for name, mask in self.expected(plane).items()
        }
        decoded = {}
        for frame in frames:
            plane = source[frame.key]
            np.testing.assert_allclose(frame.position_mm, plane.position_mm, atol=1e-3)
            np.testing.assert_allclose(frame.orientation, plane.orientation, atol=1e-6)
            np.testing.assert_allclose(frame.spacing_mm, plane.spacing_mm, atol=1e-6)
            for name, mask in frame.masks.items():
                assert (frame.key, name) not in decoded
                decoded[frame.key, name] = mask
        assert {key for key, mask in decoded.items() if mask.any()} == set(expected)
        for key, mask in expected.items():
            np.testing.assert_array_equal(decoded[key], mask, err_msg=str(key))
        return {name for _, name in expected}


@pytest.fixture(scope="session")
def bright_segmenter() -> type[BrightSegmenter]:
    """The class, for tests to make one with thresholds of their own."""
    return BrightSegmenter


@pytest.fixture(scope="session")
def seg_request() -> Callable[[SegKind], SegRequest]:
    """What a Segmentation by the bright segmenter says of itself."""

    def request(kind: SegKind) -> SegRequest:
        identity = SegmenterIdentity(
            name="threshold",
            version="1",
            digest="0" * 64,
            demonstration=True,
            intended_use="test",
            parameters=(),
            source="tests",
        )
        return SegRequest(kind, identity, datetime(2026, 11, 21, 10, 15))

    return request


@pytest.fixture
def segment_series(
    seg_request: Callable[[SegKind], SegRequest],
) -> Callable[[SeriesExamination, SegKind, Path, BrightSegmenter], list[Path]]:
    """Writes one verified Segmentation a stack."""

    def segment(
        found: SeriesExamination, kind: SegKind, folder: Path, segmenter: BrightSegmenter
    ) -> list[Path]:
        assert found.outcome is Outcome.PROCESS, (found.reason, found.detail)
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for number, plan in enumerate(found.stacks):
            labels = segmenter.segment(read_stack(plan).volume)
            path = folder / f"{kind}{number}.dcm"
            write_segmentation(labels, plan, seg_request(kind), path)
            verify_segmentation(path, labels, plan, seg_request(kind))
            written.append(path)
        return written

    return segment


@pytest.fixture(scope="session")
def read_source() -> Callable[[Iterable[Path]], list[SourcePlane]]:
    """All planes of CT files, in the order of the files."""
    return lambda paths: [plane for path in paths for plane in _source_planes(path)]


@pytest.fixture(scope="session")
def read_segmentation() -> Callable[[Path], list[SegFrame]]:
    """All frames of a Segmentation of either kind."""
    return lambda path: list(_seg_frames(pydicom.dcmread(path)))


def _source_planes(path: Path) -> Iterable[SourcePlane]:
    ds = pydicom.dcmread(path)
    stored = _stored(ds, path).reshape(-1, ds.Rows, ds.Columns)
    for frame, pixels in enumerate(stored):
        groups = [ds]
        number = None
        if "PerFrameFunctionalGroupsSequence" in ds:
            number = frame + 1
            groups = [
                item
                for holder in (
                    ds.PerFrameFunctionalGroupsSequence[frame],
                    ds.SharedFunctionalGroupsSequence[0],
                )
                for element in holder
                for item in element.value
            ]
        hu = pixels * float(_first(groups, "RescaleSlope")) + float(
            _first(groups, "RescaleIntercept")
        )
        if "PixelPaddingValue" in ds:
            ends = (
                int(ds.PixelPaddingValue),
                int(ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue)),
            )
            hu = np.where((pixels >= min(ends)) & (pixels <= max(ends)), np.nan, hu)
        yield SourcePlane(
            key=(str(ds.SOPInstanceUID), number),
            position_mm=np.array(_first(groups, "ImagePositionPatient"), float),
            orientation=np.array(_first(groups, "ImageOrientationPatient"), float),
            spacing_mm=np.array(_first(groups, "PixelSpacing"), float),
            hu=hu,
        )


def _stored(ds: pydicom.Dataset, path: Path) -> npt.NDArray[np.int64]:
    if not ds.file_meta.TransferSyntaxUID.is_compressed:
        return np.asarray(ds.pixel_array, np.int64)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read(), path
    pixels = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    kind = f"{'i' if ds.PixelRepresentation else 'u'}{ds.BitsAllocated // 8}"
    return np.frombuffer(pixels, kind).astype(np.int64)


def _first(items: Iterable[pydicom.Dataset], keyword: str) -> object:
    return next(item[keyword].value for item in items if keyword in item)


def _seg_frames(ds: pydicom.Dataset) -> Iterable[SegFrame]:
    names = {int(s.SegmentNumber): _structure_name(s) for s in ds.SegmentSequence}
    shape = (int(ds.NumberOfFrames), int(ds.Rows), int(ds.Columns))
    if ds.SegmentationType == "BINARY":
        bits = np.unpackbits(np.frombuffer(ds.PixelData, np.uint8), bitorder="little")
        pixels = bits[: shape[0] * shape[1] * shape[2]].reshape(shape)
    else:
        pixels = np.asarray(ds.pixel_array).reshape(shape)
    shared = ds.SharedFunctionalGroupsSequence[0]
    for frame, groups in enumerate(ds.PerFrameFunctionalGroupsSequence):
        if ds.SegmentationType == "BINARY":
            number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
            masks = {names[number]: pixels[frame] > 0}
        else:
            present = [int(n) for n in np.unique(pixels[frame]) if n != 0]
            masks = {names[number]: pixels[frame] == number for number in present}
        (derivation,) = groups.DerivationImageSequence
        (source,) = derivation.SourceImageSequence
        number = source.get("ReferencedFrameNumber")
        yield SegFrame(
            key=(str(source.ReferencedSOPInstanceUID), None if number is None else int(number)),
            position_mm=np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float),
            orientation=np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float),
            spacing_mm=np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float),
            masks=masks,
        )


def _structure_name(segment: pydicom.Dataset) -> str:
    """By code of type and laterality, in the published table."""
    (kind,) = segment.SegmentedPropertyTypeCodeSequence
    side = kind.get("SegmentedPropertyTypeModifierCodeSequence")
    return _names_by_code()[str(kind.CodeValue), str(side[0].CodeValue) if side else ""]


@cache
def _names_by_code() -> dict[tuple[str, str], str]:
    with ANATOMY_CODES.open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    names = {(row["type_code"], row["modifier_code"]): row["name"] for row in rows}
    assert len(names) == len(rows)
    return names
